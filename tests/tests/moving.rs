//! Ends of channels that move in messages.

use std::{process, time::Duration};

use archean::{Reason, Receiver, RecvError, Refused, Sender, channel, channel_with_capacity, spawn};

const NEVER_READ: &str = "the message that it was in was never read";

/// A message that nobody may ever take out.
#[archean::data]
struct Parcel {
    sender: Option<Sender<u32>>,
    receivers: Vec<Receiver<u32>>,
}

/// A parcel, and the ends that stay behind.
fn parcel() -> (Parcel, Receiver<u32>, [Sender<u32>; 2]) {
    let ((sender, stays), (one, first), (other, second)) = (channel(), channel(), channel());
    (Parcel { sender: Some(sender), receivers: vec![first, second] }, stays, [one, other])
}

async fn expect_reset(mut stays: Receiver<u32>, senders: [Sender<u32>; 2]) {
    assert_eq!(stays.recv().await.unwrap_err(), RecvError::Reset(NEVER_READ.into()));
    for mut sender in senders {
        let reason = loop {
            if let Err(error) = sender.send(1).await {
                break error.reason;
            }
        };
        assert_eq!(reason, Reason::Reset(NEVER_READ.into()));
    }
}

#[archean::test]
async fn ends_in_a_message_that_is_dropped_are_reset() -> anyhow::Result<()> {
    let (mut tx, mut rx) = channel();
    let (parcel, stays, senders) = parcel();
    tx.send(parcel).await?;
    assert_eq!(rx.recv().await?.receivers.len(), 2);
    expect_reset(stays, senders).await;
    Ok(())
}

#[archean::test]
async fn ends_in_messages_that_nobody_reads_are_reset() -> anyhow::Result<()> {
    // The receiver was never used, was used, dies in another process.
    let (mut tx, rx) = channel();
    let (unread, stays, senders) = parcel();
    tx.send(unread).await?;
    drop(rx);
    expect_reset(stays, senders).await;
    let (late, stays, senders) = parcel();
    let error = tx.send(late).await.unwrap_err();
    assert_eq!(error.reason, Reason::Closed);
    let back = error.value.sender.unwrap();
    back.check_movable()?;
    drop((stays, senders));

    let (mut tx, mut rx) = channel();
    tx.send(parcel().0).await?;
    drop(rx.recv_owned().await?);
    let (unread, stays, senders) = parcel();
    tx.send(unread).await?;
    drop(rx);
    expect_reset(stays, senders).await;

    let (mut tx, rx) = channel::<Parcel>();
    let (unread, stays, senders) = parcel();
    tx.send(unread).await?;
    let child = spawn(|_rx: Receiver<Parcel>| -> () { process::exit(1) }, rx).await?;
    assert!(child.join().await.is_err());
    expect_reset(stays, senders).await;
    Ok(())
}

#[archean::test]
async fn an_end_that_was_used_or_has_moved_stays() -> anyhow::Result<()> {
    let ((mut tx, mut rx), (mut used, mut numbers)) = (channel::<Sender<u32>>(), channel());
    used.send(1).await?;
    let error = tx.send(used).await.unwrap_err();
    assert_eq!(error.reason, Reason::End(Refused::InUse));
    let mut used = error.value;
    used.send(2).await?;
    // A clone was not used, and has a ring of its own.
    tx.send(used.clone()).await?;
    rx.recv_owned().await?.send(3).await?;
    drop(used);
    let mut found = Vec::new();
    while let Ok(number) = numbers.recv_owned().await {
        found.push(number);
    }
    found.sort_unstable();
    assert_eq!(found, [1, 2, 3]);

    // Deserialised by other means, an end is of no use.
    let (sender, _numbers) = channel();
    tx.send(sender).await?;
    let message = rx.recv().await?;
    let copied = archean::rkyv::deserialize::<Sender<u32>, archean::rkyv::rancor::Error>(&*message)?;
    assert_eq!(copied.check_movable(), Err(Refused::NotClaimed));
    drop(copied);
    message.into_owned().send(4).await?;
    Ok(())
}

#[archean::test]
async fn an_end_may_travel_through_its_own_channel() -> anyhow::Result<()> {
    #[archean::data]
    enum Knot {
        Sender(Sender<Knot>),
        Receiver(Receiver<Knot>),
    }
    let (mut tx, mut rx) = channel::<Knot>();
    tx.send(Knot::Sender(tx.clone())).await?;
    let Knot::Sender(mut other) = rx.recv_owned().await? else { panic!("no sender") };
    // Nobody can read a receiver that is in its own channel.
    other.send(Knot::Receiver(channel().1)).await?;
    assert!(matches!(rx.recv_owned().await?, Knot::Receiver(_)));
    let (mut lost, itself) = channel::<Knot>();
    lost.send(Knot::Receiver(itself)).await?;
    let reason = loop {
        if let Err(error) = lost.send(Knot::Receiver(channel().1)).await {
            break error.reason;
        }
    };
    assert_eq!(reason, Reason::Reset(NEVER_READ.into()));
    Ok(())
}

#[archean::test]
async fn a_message_holds_so_many_ends_and_no_more() -> anyhow::Result<()> {
    const MAX: usize = protocol::limits::FRAME_ENDS_MAX;
    let (mut tx, mut rx) = channel::<Vec<Sender<u8>>>();
    let (mut sender, mut numbers) = channel();
    sender.send(0).await?;
    let clones = |count: usize| (0..count).map(|_| sender.clone()).collect::<Vec<_>>();
    let error = tx.send(clones(MAX + 1)).await.unwrap_err();
    assert_eq!(error.reason, Reason::TooManyEnds { ends: MAX + 1, limit: MAX });
    tx.send(clones(MAX)).await?;
    let mut senders = rx.recv_owned().await?;
    drop((error, sender));
    senders[MAX - 1].send(1).await?;
    drop(senders);
    let mut sum = 0;
    while let Ok(number) = numbers.recv().await {
        sum += *number;
    }
    assert_eq!(sum, 1);
    Ok(())
}

#[archean::test]
async fn a_refused_message_keeps_its_ends() -> anyhow::Result<()> {
    let (mut tx, mut rx) = channel_with_capacity::<(Vec<u8>, Sender<u8>)>(1);
    let (sender, mut numbers) = channel();
    tx.send((vec![], sender.clone())).await?;
    drop(rx.recv_owned().await?);
    let error = tx.try_send((vec![0; 10_000], sender)).unwrap_err();
    assert!(matches!(error.reason, Reason::TooLarge { .. }));
    let (_, sender) = error.value;
    tx.send((vec![0; 3000], sender.clone())).await?;
    let full = tx.try_send((vec![0; 3000], sender)).unwrap_err();
    assert_eq!(full.reason, Reason::Full);
    let late = tx.send_timeout_blocking(full.value, Duration::from_millis(1)).unwrap_err();
    rx.recv_owned().await?.1.send(1).await?;
    tx.send(late.value).await?;
    rx.recv_owned().await?.1.send(2).await?;
    let mut found = [numbers.recv_owned().await?, numbers.recv_owned().await?];
    found.sort_unstable();
    assert_eq!((found, numbers.recv_owned().await), ([1, 2], Err(RecvError::Closed)));
    Ok(())
}
