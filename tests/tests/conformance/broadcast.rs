//! One sender, many readers.

use archean::{Broadcast, Lag, Receiver, RecvError, Sender, channel};
use futures::FutureExt;
use tests::place::Place;

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

pub(crate) async fn all_get_all_in_order(place: Place) -> anyhow::Result<()> {
    const COUNT: u64 = 5000;
    let mut broadcast = Broadcast::new(Lag::Wait);
    let mut children = Vec::new();
    for index in 0..4 {
        let reader = broadcast.subscribe_with_capacity(SMALL << index);
        children.push(place.start(count, reader).await?);
    }
    let own = broadcast.subscribe();
    for number in 0..COUNT {
        assert_eq!(broadcast.send(&number).await, Ok(5));
    }
    drop(broadcast);
    assert_eq!(count(own).await, COUNT);
    for child in children {
        assert_eq!(child.join().await?, COUNT);
    }
    Ok(())
}

/// Reads to the end, after somebody has said so, and gives how many numbers came and how many were missing.
async fn read_late(mut numbers: Receiver<u64>, mut begin: Receiver<()>) -> (u64, u64) {
    let (mut next, mut received, mut missed) = (0, 0, 0);
    let mut waited = false;
    loop {
        match numbers.recv_owned().await {
            Ok(number) => {
                assert_eq!(number, next);
                received += 1;
                next += 1;
            }
            Err(RecvError::Missed { messages }) => {
                assert!(messages > 0);
                missed += messages;
                next += messages;
            }
            Err(error) => {
                assert_eq!(error, RecvError::Closed);
                return (received, missed);
            }
        }
        if !std::mem::replace(&mut waited, true) {
            begin.recv_owned().await.unwrap();
        }
    }
}

pub(crate) async fn what_came_and_what_was_missed_are_what_was_sent(place: Place) -> anyhow::Result<()> {
    let mut broadcast = Broadcast::new(Lag::Skip);
    let mut children = Vec::new();
    let mut begins: Vec<Sender<()>> = Vec::new();
    for _ in 0..3 {
        let (sender, receiver) = channel();
        begins.push(sender);
        children.push(place.start(read_late, (broadcast.subscribe_with_capacity(SMALL), receiver)).await?);
    }
    let mut sent = 0;
    begin(&mut broadcast, &mut sent).await;
    for _ in 0..5000 {
        broadcast.send(&sent).await?;
        sent += 1;
    }
    for sender in &mut begins {
        sender.send(()).await?;
    }
    for _ in 0..5000 {
        broadcast.send(&sent).await?;
        sent += 1;
    }
    // What is missed at the very end is told with the next number that has room.
    begin(&mut broadcast, &mut sent).await;
    drop(broadcast);
    for child in children {
        let (received, missed) = child.join().await?;
        assert_eq!(received + missed, sent);
        assert!(missed > 0);
    }
    Ok(())
}

pub(crate) async fn large_values_go_in_parts(place: Place) -> anyhow::Result<()> {
    async fn check(mut values: Receiver<Vec<u8>>) -> usize {
        let mut count = 0;
        while let Ok(value) = values.recv_owned().await {
            assert!(value.len() == 100_000 + count && value.iter().all(|byte| *byte == count as u8));
            count += 1;
        }
        count
    }
    let mut broadcast = Broadcast::new(Lag::Wait);
    let mut children = Vec::new();
    for capacity in [SMALL, 16 * SMALL, 256 * SMALL] {
        children.push(place.start(check, broadcast.subscribe_with_capacity(capacity)).await?);
    }
    for number in 0..20 {
        let value = vec![number as u8; 100_000 + number];
        // Given up again and again, at any of its parts; the last time it is done with, or the next send does it.
        if number % 2 == 1 {
            assert!(broadcast.send(&value).now_or_never().is_none(), "it can't be through so soon");
        } else {
            assert_eq!(broadcast.send(&value).await, Ok(3));
        }
    }
    assert_eq!(broadcast.send(&vec![20; 100_020]).await, Ok(3));
    drop(broadcast);
    for child in children {
        assert_eq!(child.join().await?, 21);
    }

    let mut skipping = Broadcast::new(Lag::Skip);
    let mut reader = skipping.subscribe_with_capacity(SMALL);
    let mut too_early = 0;
    while skipping.send(&vec![1]).await? == 0 {
        too_early += 1;
        archean::time::sleep(std::time::Duration::from_micros(100)).await;
    }
    // There will never be room for that one.
    assert_eq!(skipping.send(&vec![2; 100_000]).await, Ok(0));
    assert_eq!(skipping.send(&vec![3]).await, Ok(1));
    assert_eq!(skipping.send(&vec![2; 100_000]).await, Ok(0));
    drop(skipping);
    let (mut values, mut missed) = (Vec::new(), Vec::<u64>::new());
    loop {
        match reader.recv_owned().await {
            Ok(value) => values.extend(value),
            Err(RecvError::Missed { messages }) => missed.push(messages),
            Err(error) => break assert_eq!(error, RecvError::Closed),
        }
    }
    let expected = [too_early, 1, 1].into_iter().filter(|count| *count > 0).collect();
    assert_eq!((values, missed), (vec![1, 3], expected));
    Ok(())
}
