//! Ends inside messages.

use std::process;

use archean::{Reason, Receiver, RecvError, Sender, channel};
use tests::place::Place;

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

pub(crate) async fn a_message_with_ends_is_used_where_it_arrives(place: Place) -> anyhow::Result<()> {
    async fn serve(mut parcels: Receiver<Parcel>) -> u32 {
        let mut sum = 0;
        while let Ok(Parcel { sender, receivers }) = parcels.recv_owned().await {
            for mut receiver in receivers {
                sum += receiver.recv_owned().await.unwrap();
            }
            sender.unwrap().send(sum).await.unwrap();
        }
        sum
    }
    let (mut tx, rx) = channel();
    let child = place.start(serve, rx).await?;
    let mut sum = 0;
    for number in 0..20 {
        let (parcel, mut answer, senders) = parcel();
        tx.send(parcel).await?;
        for mut sender in senders {
            sender.send(number).await?;
            sum += number;
        }
        assert_eq!(*answer.recv().await?, sum);
    }
    drop(tx);
    assert_eq!(child.join().await?, sum);
    Ok(())
}

pub(crate) async fn a_receiver_moves_on_and_on_and_loses_nothing(place: Place) -> anyhow::Result<()> {
    async fn pass(mut from: Receiver<Receiver<u32>>, mut to: Sender<Receiver<u32>>) {
        to.send(from.recv_owned().await.unwrap()).await.unwrap();
    }
    let (mut tx, rx) = channel();
    for number in 0..100 {
        tx.send(number).await?;
    }
    let (mut first, mut last) = channel();
    first.send(rx).await?;
    for _ in 0..8 {
        let (to, next) = channel();
        // Each passes it on and is gone before the next takes it.
        place.start(pass, (last, to)).await?.join().await?;
        last = next;
        tx.send(0).await?;
    }
    let mut rx = last.recv_owned().await?;
    for number in (0..100).chain([0; 8]) {
        assert_eq!(*rx.recv().await?, number);
    }
    Ok(())
}

pub(crate) async fn ends_pass_through_a_chain_of_processes_at_once(place: Place) -> anyhow::Result<()> {
    const COUNT: u32 = 200;
    async fn pass(mut from: Receiver<Receiver<u32>>, mut to: Sender<Receiver<u32>>) {
        while let Ok(receiver) = from.recv_owned().await {
            to.send(receiver).await.unwrap();
        }
    }
    async fn take(mut from: Receiver<Receiver<u32>>) -> u32 {
        let mut sum = 0;
        while let Ok(mut receiver) = from.recv_owned().await {
            sum += receiver.recv_owned().await.unwrap();
        }
        sum
    }
    let (mut first, mut last) = channel();
    let mut chain = Vec::new();
    for _ in 0..4 {
        let (to, next) = channel();
        chain.push(place.start(pass, (last, to)).await?);
        last = next;
    }
    let taker = place.start(take, last).await?;
    for number in 0..COUNT {
        let (mut tx, rx) = channel();
        first.send(rx).await?;
        tx.send(number).await?;
    }
    drop(first);
    assert_eq!(taker.join().await?, COUNT * (COUNT - 1) / 2);
    for child in chain {
        child.join().await?;
    }
    Ok(())
}

/// Takes the receiver that it is told to, and reads nothing of it.
async fn ignore(unread: Receiver<Parcel>, mut go: Receiver<()>, dies: bool) {
    go.recv_owned().await.unwrap();
    if dies {
        process::exit(1);
    }
    drop(unread);
}

pub(crate) async fn ends_in_messages_that_nobody_reads_are_reset(place: Place) -> anyhow::Result<()> {
    const NEVER_READ: &str = "the message that it was in was never read";
    for dies in [false, true] {
        if dies && place == Place::InProcess {
            continue;
        }
        let ((mut tx, rx), (mut go, gone)) = (channel(), channel());
        let child = place.start(ignore, (rx, gone, dies)).await?;
        let (unread, mut stays, senders) = parcel();
        tx.send(unread).await?;
        go.send(()).await?;
        assert_eq!(stays.recv_owned().await, Err(RecvError::Reset(NEVER_READ.into())));
        for mut sender in senders {
            let reason = loop {
                if let Err(error) = sender.send(1).await {
                    break error.reason;
                }
            };
            assert_eq!(reason, Reason::Reset(NEVER_READ.into()));
        }
        assert_eq!(child.join().await.is_err(), dies);
    }
    Ok(())
}
