//! A sieve for primes as a chain of processes. Each keeps the first number that it gets, which is a prime, and
//! passes on those that are no multiples of it.
//!
//! The ends of the channels between two stages are made in the root, and travel to the stages inside messages.

use archean::{Failure, Receiver, RecvError, Sender};

const STAGES: usize = 8;

/// Below the square of the ninth prime, all that gets through eight stages is prime.
const LIMIT: u32 = 23 * 23;

/// What a stage has to know of its place in the chain.
#[archean::data]
struct Place {
    numbers: Receiver<u32>,
    others: Sender<u32>,
}

#[archean::main]
async fn main() -> Result<(), Failure> {
    let (first, mut numbers) = archean::channel::<u32>();
    let mut stages = Vec::new();
    for stage in 1..=STAGES {
        let (mut place, inbox) = archean::channel::<Place>();
        stages.push(archean::spawn(sieve, inbox).name(format!("stage-{stage}")).await?);
        // An end may move as long as nobody has used it.
        let (others, next) = archean::channel::<u32>();
        place.send(Place { numbers, others }).await?;
        numbers = next;
    }
    let source = archean::spawn(count, first).await?;

    let mut rest = Vec::new();
    while let Some(number) = next(&mut numbers).await? {
        rest.push(number);
    }
    source.result().await?;
    let mut primes = Vec::new();
    for stage in stages {
        let name = stage.name().to_owned();
        let (prime, dropped) = stage.result().await?;
        println!("{name} dropped {dropped} multiples of {prime}");
        primes.push(prime);
    }
    primes.extend(rest);
    println!("the primes below {LIMIT}: {primes:?}");

    let is_prime = |number: &u32| !(2..*number).any(|divisor| number.is_multiple_of(divisor));
    if !primes.iter().copied().eq((2..LIMIT).filter(is_prime)) {
        return Err(Failure::new("these are not the primes"));
    }
    Ok(())
}

/// Starts the chain: when its end of the first channel is dropped, stage after stage ends.
async fn count(mut numbers: Sender<u32>) -> Result<(), Failure> {
    for number in 2..LIMIT {
        numbers.send(number).await?;
    }
    Ok(())
}

/// Returns its prime, and how many multiples of it came by.
async fn sieve(mut inbox: Receiver<Place>) -> Result<(u32, u32), Failure> {
    let Place { mut numbers, mut others } = inbox.recv_owned().await?;
    let prime = numbers.recv_owned().await?;
    let mut dropped = 0;
    while let Some(number) = next(&mut numbers).await? {
        if number.is_multiple_of(prime) {
            dropped += 1;
        } else {
            others.send(number).await?;
        }
    }
    Ok((prime, dropped))
}

/// The next number; `None` when the sender has sent its last. A sender that died is an error.
async fn next(numbers: &mut Receiver<u32>) -> Result<Option<u32>, RecvError> {
    match numbers.recv_owned().await {
        Ok(number) => Ok(Some(number)),
        Err(RecvError::Closed) => Ok(None),
        Err(error) => Err(error),
    }
}
