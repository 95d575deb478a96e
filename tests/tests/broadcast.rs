//! One sender, many readers.

use std::process;

use archean::{Broadcast, Lag, Receiver, RecvError, channel, spawn};
use futures::FutureExt;

/// The least capacity that a channel can have.
const SMALL: usize = protocol::limits::RING_BYTES_MIN;

/// Counts the numbers that come, which have to be those from zero on.
async fn count(mut numbers: Receiver<u64>) -> u64 {
    let mut count = 0;
    while let Ok(number) = numbers.recv_owned().await {
        assert_eq!(number, count);
        count += 1;
    }
    count
}

/// Sends a number until so many readers get one, so that all of them have their rings.
async fn begin(broadcast: &mut Broadcast<u64>, next: &mut u64) {
    while broadcast.send(next).await.unwrap() < broadcast.len() {
        *next += 1;
        archean::time::sleep(std::time::Duration::from_micros(100)).await;
    }
    *next += 1;
}

#[archean::test]
async fn values_that_take_no_bytes_arrive_too() -> anyhow::Result<()> {
    let mut broadcast = Broadcast::<()>::new(Lag::Wait);
    let mut reader = broadcast.subscribe();
    for _ in 0..3 {
        assert_eq!(broadcast.send(&()).await, Ok(1));
    }
    drop(broadcast);
    for _ in 0..3 {
        reader.recv_owned().await?;
    }
    assert_eq!(reader.recv_owned().await, Err(RecvError::Closed));
    Ok(())
}

#[archean::test]
async fn the_slowest_bounds_all() -> anyhow::Result<()> {
    let mut broadcast = Broadcast::new(Lag::Wait);
    let (mut fast, mut slow) = (broadcast.subscribe(), broadcast.subscribe_with_capacity(SMALL));
    assert_eq!(broadcast.send(&0).await, Ok(2));
    let mut sent = 1_u64;
    while let Some(reached) = broadcast.send(&sent).now_or_never() {
        assert_eq!(reached, Ok(2));
        sent += 1;
    }
    // The last one was given up. The first reader has it, and the second gets it before the next.
    let limit = SMALL as u64 / 32;
    assert!(sent <= limit, "{sent} went into a ring for {limit}");
    let read = async |reader: &mut Receiver<u64>, upto: u64| {
        for number in 0..upto {
            assert_eq!(reader.recv_owned().await, Ok(number));
        }
    };
    read(&mut fast, sent + 1).await;
    assert!(fast.try_recv()?.is_none());
    let next = sent + 1;
    let (reached, ()) = futures::join!(broadcast.send(&next), read(&mut slow, next + 1));
    assert_eq!(reached, Ok(2));
    assert_eq!(fast.recv_owned().await, Ok(next));
    Ok(())
}

#[archean::test]
async fn who_is_too_slow_is_told_how_much_is_missing() -> anyhow::Result<()> {
    let mut broadcast = Broadcast::new(Lag::Skip);
    let mut reader = broadcast.subscribe_with_capacity(SMALL);
    let (mut sent, mut next) = (0, 0);
    for round in 0..5 {
        begin(&mut broadcast, &mut sent).await;
        for _ in 0..1000 {
            broadcast.send(&sent).await?;
            sent += 1;
        }
        let mut missed = 0;
        // The first message is waited for: until its first use the reader has no ring to look into.
        let mut message = reader.recv_owned().await.map(Some);
        while let Some(found) = message.transpose() {
            match found {
                Ok(number) => {
                    assert_eq!(number, next);
                    next += 1;
                }
                Err(RecvError::Missed { messages }) => {
                    next += messages;
                    missed += 1;
                }
                Err(error) => panic!("{error}"),
            }
            message = reader.try_recv().map(|message| message.map(|message| message.into_owned()));
        }
        // Once for all that was missed at a time: before there was a ring, and in each round but the last.
        assert!(missed <= 1, "{missed} times in round {round}");
        assert!(next < sent, "nothing was too much for a ring of {SMALL} bytes");
    }
    Ok(())
}

#[archean::test]
async fn readers_come_and_go_and_die() -> anyhow::Result<()> {
    let mut broadcast = Broadcast::new(Lag::Wait);
    let (first, dropped) = (broadcast.subscribe(), broadcast.subscribe());
    let doomed = broadcast.subscribe_with_capacity(SMALL);
    assert_eq!(broadcast.send(&0_u64).await, Ok(3));
    drop(dropped);
    let child = spawn(|_reader: Receiver<u64>| -> () { process::exit(5) }, doomed).await?;
    assert!(child.join().await.is_err());
    let mut sent = 1;
    // It is full once at the latest, and then hears of the death.
    while broadcast.len() > 1 {
        broadcast.send(&sent).await?;
        sent += 1;
    }
    let (sender, mut late) = channel();
    broadcast.add(sender);
    assert_eq!(broadcast.len(), 2);
    assert_eq!(broadcast.send(&sent).await, Ok(2));
    assert_eq!(late.recv_owned().await, Ok(sent));
    drop(broadcast);
    assert_eq!(late.recv_owned().await, Err(RecvError::Closed));
    assert_eq!(count(first).await, sent + 1);
    Ok(())
}

#[archean::test]
async fn nobody_listens() {
    let mut broadcast = Broadcast::<u64>::new(Lag::Wait);
    assert!(broadcast.is_empty());
    assert_eq!(broadcast.send(&1).await, Ok(0));
    assert_eq!(broadcast.send_blocking(&2), Ok(0));
    let mut reader = broadcast.subscribe();
    assert_eq!(broadcast.send_blocking(&3), Ok(1));
    assert_eq!(reader.recv_owned_blocking(), Ok(3));
}
