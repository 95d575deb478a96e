//! Channels between processes: order, bounds, and how they end.

use std::{process, time::Duration};

use archean::{Reason, RecvError, Sender, channel, channel_with_capacity, spawn, time::timeout};

/// The least capacity that a channel can have.
const SMALL: usize = protocol::limits::RING_BYTES_MIN;

/// What a message takes beside its archive, and what is kept free behind the last.
const HEADER: usize = protocol::frame::HEADER_BYTES;

#[archean::test]
async fn a_channel_is_bounded() -> anyhow::Result<()> {
    let (mut tx, mut rx) = channel_with_capacity::<u64>(SMALL);
    // The first use asks for the ring.
    tx.send(0).await?;
    let mut sent = 1;
    let full = loop {
        match tx.try_send(sent) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((full.value, full.reason), (sent, Reason::Full));
    assert_eq!(sent as usize, SMALL / (2 * HEADER) - 1, "each takes 32 bytes, and one header stays free");
    let late = tx.send_timeout_blocking(sent, Duration::from_millis(1)).unwrap_err();
    assert_eq!(late.reason, Reason::TimedOut);
    assert!(timeout(Duration::from_millis(1), tx.send(sent)).await.is_err());
    for number in 0..2 {
        assert_eq!(*rx.recv().await?, number);
    }
    tx.send(sent).await?;
    for number in 2..=sent {
        assert_eq!(*rx.recv().await?, number);
    }
    assert!(rx.try_recv()?.is_none());
    Ok(())
}

#[archean::test]
async fn a_large_message_that_had_no_room_is_not_in_the_way_of_a_small_one() -> anyhow::Result<()> {
    let (mut tx, mut rx) = channel_with_capacity::<Vec<u8>>(SMALL);
    tx.send(vec![1; 2000]).await?;
    assert_eq!(tx.try_send(vec![2; 3000]).unwrap_err().reason, Reason::Full);
    tx.try_send(vec![3; 100])?;
    assert!(timeout(Duration::from_millis(1), tx.send(vec![4; 3000])).await.is_err());
    tx.try_send(vec![5; 100])?;
    for (first, length) in [(1, 2000), (3, 100), (5, 100)] {
        let message = rx.recv().await?;
        assert_eq!((message[0], message.len()), (first, length));
    }
    Ok(())
}

#[archean::test]
async fn a_message_that_goes_in_parts_can_be_given_up() -> anyhow::Result<()> {
    let (mut tx, mut rx) = channel_with_capacity::<Vec<u8>>(SMALL);
    tx.send(vec![]).await?;
    assert!(rx.recv_owned().await?.is_empty());
    let error = tx.try_send(vec![0; 10_000]).unwrap_err();
    let limit = SMALL - 2 * HEADER;
    assert_eq!(
        (error.value.len(), error.reason.clone()),
        (10_000, Reason::TooLarge { bytes: 10_008, limit })
    );
    let text = error.to_string();
    assert!(text.contains(&limit.to_string()) && text.contains("channel_with_capacity"), "{text}");
    // Nobody reads yet, so no more than the first parts go out.
    assert!(timeout(Duration::from_millis(1), tx.send(vec![1; 10_000])).await.is_err());
    assert!(timeout(Duration::from_millis(1), rx.recv()).await.is_err());
    assert!(timeout(Duration::from_millis(1), tx.send(vec![2; 10_000])).await.is_err());
    assert!(timeout(Duration::from_millis(1), rx.recv()).await.is_err());
    tx.try_send(vec![3; 5])?;
    assert_eq!(rx.recv_owned().await?, [3; 5]);
    let (sent, received) = futures::join!(tx.send(vec![4; 10_000]), rx.recv_owned());
    sent?;
    assert_eq!(received?, vec![4; 10_000]);
    Ok(())
}

#[archean::test]
async fn the_death_of_one_sender_does_not_end_the_others() -> anyhow::Result<()> {
    let (mut tx, mut rx) = channel::<u32>();
    let doomed = tx.clone();
    let child = spawn(|_doomed: Sender<u32>| -> () { process::exit(1) }, doomed).await?;
    assert!(matches!(rx.recv().await.unwrap_err(), RecvError::PeerDied(_)));
    assert!(child.join().await.is_err());
    tx.clone().reset("unused");
    assert_eq!(rx.recv().await.unwrap_err(), RecvError::Reset("unused".into()));
    tx.send(1).await?;
    assert_eq!(*rx.recv().await?, 1);
    drop(tx);
    assert_eq!(rx.recv().await.unwrap_err(), RecvError::Closed);
    Ok(())
}

#[archean::test]
async fn some_are_chosen() -> anyhow::Result<()> {
    let (mut tx, mut rx) = channel::<u32>();
    for number in 0..10 {
        tx.send_ref(&number).await?;
    }
    drop(tx);
    assert_eq!(*rx.recv_where(|number| *number > 3).await?, 4);
    assert_eq!(*rx.recv_where_blocking(|number| *number % 3 == 0).unwrap(), 6);
    assert_eq!(rx.try_recv()?.map(|message| message.into_owned()), Some(7));
    assert_eq!(rx.recv_where(|_| false).await.unwrap_err(), RecvError::Closed);
    assert_eq!(rx.try_recv().unwrap_err(), RecvError::Closed);
    Ok(())
}

/// Rings that senders asked for and never used are given back, and others get theirs.
#[archean::test]
fn rings_that_were_not_used_do_not_block_others() {
    for _ in 0..3 {
        // More senders than a process may have unused rings.
        let mut channels: Vec<_> = (0..400).map(|_| channel_with_capacity::<u8>(8 << 10)).collect();
        for (sender, _) in &mut channels {
            let _ = sender.try_send(1);
        }
    }
    let (mut sender, mut receiver) = channel_with_capacity::<u8>(16 << 10);
    sender.send_blocking(7).unwrap();
    assert_eq!(receiver.recv_owned_blocking(), Ok(7));
}
