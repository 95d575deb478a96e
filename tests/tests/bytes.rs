//! Bytes written in place, batches, messages that are passed on, and what receivers do before they lend one.
#![expect(unsafe_code, reason = "a receiver leaves the check of messages out")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use archean::{
    Bytes, Data, Reason, Receiver, RecvError, Refused, SendError, Sender, channel, channel_with_capacity,
    spawn,
};
use futures::FutureExt;
use protocol::frame::payload_bytes_max;
use tests::random::Random;

/// The least capacity that a channel can have.
const SMALL: usize = protocol::limits::RING_BYTES_MIN;

/// The most bytes that can be reserved in the smallest channel: what an archived vector takes comes behind them.
const MOST: usize = payload_bytes_max(SMALL) - 8;

fn fill(number: usize, bytes: &mut [u8]) {
    let mut random = Random::new(number as u64);
    bytes.iter_mut().for_each(|byte| *byte = random.number() as u8);
}

/// The bytes of that message.
fn filled(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(number, &mut bytes);
    bytes
}

/// Sends until the sender is told that its receiver was dropped.
async fn until_closed<T: Data>(outbox: &mut Sender<T>, value: impl Fn() -> T) {
    while outbox.send(value()).await.is_ok() {}
}

#[archean::test]
async fn a_slot_that_is_dropped_sends_nothing() -> anyhow::Result<()> {
    let (mut outbox, mut inbox) = channel_with_capacity::<Bytes>(SMALL);
    outbox.reserve(100).await?.commit(0);
    for _ in 0..100 {
        // Far more than the ring holds, if any were kept.
        outbox.reserve(MOST / 2).await?.fill(1);
        outbox.try_reserve(0)?.commit(0);
        assert!(inbox.recv().await?.is_empty());
    }
    let slot = outbox.reserve(10).await?;
    let refused = catch_unwind(AssertUnwindSafe(|| slot.commit(11)));
    assert!(refused.is_err());
    outbox.send(Bytes::from_static(b"after")).await?;
    drop(outbox);
    assert!(inbox.recv().await?.is_empty());
    assert_eq!(inbox.recv_owned().await?, "after");
    assert_eq!(inbox.recv_owned().await, Err(RecvError::Closed));
    Ok(())
}

#[archean::test]
async fn without_room_nothing_is_reserved() -> anyhow::Result<()> {
    let (mut outbox, mut inbox) = channel_with_capacity::<Bytes>(SMALL);
    let mut count = 0;
    outbox.reserve(500).await?.commit(0);
    let reason = loop {
        match outbox.try_reserve(500) {
            Ok(mut slot) => {
                slot.fill(count);
                slot.commit(500);
                count += 1;
            }
            Err(error) => break error.reason,
        }
    };
    assert_eq!(reason, Reason::Full);
    assert!(count >= 6, "{count} times 500 bytes fill {SMALL}");
    assert!(outbox.reserve(500).now_or_never().is_none());
    assert!(outbox.reserve(MOST).now_or_never().is_none());
    // A smaller one may have room still, and that which was given up does not stand in its way.
    while let Ok(slot) = outbox.try_reserve(0) {
        slot.commit(0);
    }
    assert_eq!(outbox.try_reserve(0).unwrap_err().reason, Reason::Full);
    assert!(inbox.recv().await?.is_empty());
    for number in 0..count {
        assert_eq!(inbox.recv().await?.as_slice(), [number; 500]);
    }
    while let Some(message) = inbox.try_recv()? {
        assert!(message.is_empty());
    }
    outbox.try_reserve(MOST)?.commit(0);
    assert!(inbox.recv().await?.is_empty());
    Ok(())
}

#[archean::test]
async fn what_can_never_have_room_is_refused() -> anyhow::Result<()> {
    let (mut outbox, mut inbox) = channel_with_capacity::<Bytes>(SMALL);
    outbox.reserve(0).await?.commit(0);
    let too_large = Reason::TooLarge { bytes: payload_bytes_max(SMALL) + 4, limit: payload_bytes_max(SMALL) };
    assert_eq!(outbox.reserve(MOST + 1).await.unwrap_err().reason, too_large);
    assert_eq!(outbox.reserve_blocking(MOST + 1).unwrap_err().reason, too_large);
    assert_eq!(outbox.try_reserve(MOST + 1).unwrap_err().reason, too_large);
    let error = outbox.try_send(filled(0, MOST + 1).into()).unwrap_err();
    assert_eq!((error.value, error.reason), (filled(0, MOST + 1).into(), too_large));
    for len in [usize::MAX / 2, usize::MAX - 16, usize::MAX] {
        let error = outbox.reserve(len).await.unwrap_err();
        assert!(matches!(error.reason, Reason::TooLarge { .. }), "{error}");
    }
    // In parts it goes.
    let (sent, received) = futures::join!(outbox.send(filled(0, 10 * SMALL).into()), async {
        assert!(inbox.recv().await.unwrap().is_empty());
        inbox.recv_owned().await
    });
    sent?;
    assert_eq!(received?, filled(0, 10 * SMALL));
    drop(inbox);
    until_closed(&mut outbox, Bytes::new).await;
    assert_eq!(outbox.reserve(1).await.unwrap_err().reason, Reason::Closed);
    assert_eq!(outbox.reserve_blocking(1).unwrap_err().reason, Reason::Closed);
    assert_eq!(outbox.try_reserve(1).unwrap_err().reason, Reason::Closed);
    Ok(())
}

#[archean::test]
async fn a_batch_is_there_when_its_send_is_done() -> anyhow::Result<()> {
    let (mut outbox, mut inbox) = channel::<Vec<u8>>();
    outbox.send(Vec::new()).await?;
    assert!(inbox.recv().await?.is_empty());
    for round in 0..100_usize {
        // Short ones, some that are published on the way, and some that are larger than the usual.
        let lens = move || (0..round % 7).map(move |index| 1 + index * index * 500);
        outbox.send_batch(lens().map(|len| filled(round, len))).await?;
        for len in lens() {
            let message = inbox.try_recv()?.expect("it was sent");
            assert_eq!(message.as_slice(), filled(round, len));
        }
        assert!(inbox.try_recv()?.is_none());
    }
    Ok(())
}

#[archean::test]
async fn a_batch_keeps_what_it_could_not_send() -> anyhow::Result<()> {
    type Item = (u32, Option<Sender<u32>>);
    let (mut outbox, mut inbox) = channel::<Item>();
    // One that is in use can't move.
    let (mut used, _other) = channel::<u32>();
    used.send(1).await?;
    let (free, mut answers) = channel::<u32>();
    let mut stuck = Some(used);
    let mut free = Some(free);
    let mut items = (0..8).map(|number| {
        (
            number,
            match number {
                2 => free.take(),
                5 => stuck.take(),
                _ => None,
            },
        )
    });
    let SendError { value, reason } = outbox.send_batch(&mut items).await.unwrap_err();
    assert_eq!((value.0, reason), (5, Reason::End(Refused::InUse)));
    value.1.expect("the end is in it still").send(2).await?;
    outbox.send_batch_blocking(&mut items)?;
    assert!(items.next().is_none());
    drop(outbox);
    for number in [0, 1, 2, 3, 4, 6, 7] {
        let (found, end) = inbox.recv_owned().await?;
        assert_eq!((found, end.is_some()), (number, number == 2));
        if let Some(mut end) = end {
            end.send(7).await?;
        }
    }
    assert!(matches!(inbox.recv().await, Err(RecvError::Closed)));
    assert_eq!(answers.recv_owned().await?, 7);

    // A receiver that goes away in the middle of a batch.
    async fn take(mut inbox: Receiver<u32>) -> u32 {
        inbox.recv_owned().await.unwrap()
    }
    let (mut outbox, inbox) = channel_with_capacity(SMALL);
    let child = spawn(take, inbox).await?;
    let mut numbers = 0..u32::MAX;
    let SendError { value, reason } = outbox.send_batch(&mut numbers).await.unwrap_err();
    assert_eq!(reason, Reason::Closed);
    assert_eq!(numbers.next(), Some(value + 1));
    let SendError { value: next, reason } = outbox.send_batch_blocking(&mut numbers).unwrap_err();
    assert_eq!((next, reason), (value + 2, Reason::Closed));
    assert_eq!(child.join().await?, 0);
    Ok(())
}

#[archean::test]
async fn a_batch_whose_iterator_panics_has_sent_the_first() -> anyhow::Result<()> {
    fn failing(from: u32) -> impl Iterator<Item = u32> {
        (from..).map(move |number| if number < from + 10 { number } else { panic!("as was asked") })
    }
    let (mut outbox, mut inbox) = channel::<u32>();
    outbox.send(0).await?;
    assert!(catch_unwind(AssertUnwindSafe(|| outbox.send_batch_blocking(failing(1)))).is_err());
    outbox.send_batch(11..13).await?;
    assert!(catch_unwind(AssertUnwindSafe(|| outbox.send_batch_blocking(failing(13)))).is_err());
    outbox.send(23).await?;
    assert!(
        catch_unwind(AssertUnwindSafe(|| outbox.send_batch(failing(24)).now_or_never().unwrap())).is_err()
    );
    outbox.send(34).await?;
    for number in 0..35 {
        assert_eq!(inbox.recv_owned().await?, number);
    }
    // When the panic takes the sender with it, it was given up, but the first ones are there.
    assert!(thread::spawn(move || outbox.send_batch_blocking(failing(35))).join().is_err());
    for number in 35..45 {
        assert_eq!(inbox.recv_owned().await?, number);
    }
    let error = inbox.recv_owned().await.unwrap_err();
    assert!(matches!(error, RecvError::Reset(_)), "{error}");
    Ok(())
}

#[archean::data]
struct Parcel {
    number: usize,
    bytes: Vec<u8>,
    reply: Option<Sender<usize>>,
}

#[archean::test]
async fn a_message_that_can_not_be_passed_on_comes_back() -> anyhow::Result<()> {
    for len in [0, 100, 10 * SMALL] {
        let (mut outbox, mut inbox) = channel::<Parcel>();
        let (mut closed, gone) = channel_with_capacity::<Parcel>(SMALL);
        let (mut open, mut beyond) = channel::<Parcel>();
        drop(gone);
        until_closed(&mut closed, || parcel(0, 0, None)).await;
        let mut answers = Vec::new();
        for number in 0..6 {
            let (reply, answer) = channel();
            answers.push(answer);
            outbox.send(Parcel { number, bytes: filled(number, len), reply: Some(reply) }).await?;
        }
        for (number, mut answer) in answers.into_iter().enumerate() {
            let message = inbox.recv().await?;
            let error = if number % 2 == 0 {
                closed.forward(message).await.unwrap_err()
            } else {
                closed.forward_blocking(message).unwrap_err()
            };
            assert_eq!(error.reason, Reason::Closed);
            let message = error.value;
            assert_eq!(message.bytes.as_slice(), filled(number, len));
            let parcel = match number / 2 {
                0 => message.into_owned(),
                1 => {
                    open.forward(message).await.unwrap();
                    beyond.recv_owned().await?
                }
                _ => {
                    drop(message);
                    let error = answer.recv_owned().await.unwrap_err();
                    assert!(matches!(error, RecvError::Reset(_)), "{error}");
                    continue;
                }
            };
            assert_eq!((parcel.number, parcel.bytes), (number, filled(number, len)));
            parcel.reply.expect("it was sent").send(number).await?;
            assert_eq!(answer.recv_owned().await?, number);
            assert_eq!(answer.recv_owned().await, Err(RecvError::Closed));
        }
    }
    Ok(())
}

#[archean::test]
async fn a_message_whose_passing_was_given_up_is_gone() -> anyhow::Result<()> {
    let (mut outbox, mut inbox) = channel::<Parcel>();
    let (mut full, mut beyond) = channel_with_capacity::<Parcel>(SMALL);
    full.send(Parcel { number: 0, bytes: filled(0, 3000), reply: None }).await?;
    let (reply, mut answer) = channel();
    outbox.send(Parcel { number: 1, bytes: filled(1, 3000), reply: Some(reply) }).await?;
    outbox.send(Parcel { number: 2, bytes: filled(2, 3000), reply: None }).await?;
    assert!(full.forward(inbox.recv().await?).now_or_never().is_none());
    let error = answer.recv_owned().await.unwrap_err();
    assert!(matches!(error, RecvError::Reset(_)), "{error}");
    assert!(full.forward(inbox.recv().await?).now_or_never().is_none());
    drop(full);
    assert_eq!(beyond.recv_owned().await?.number, 0);
    assert_eq!(beyond.recv_owned().await.err(), Some(RecvError::Closed));
    assert!(inbox.try_recv()?.is_none());
    Ok(())
}

/// Sends parcels of all sizes, each with its reply.
async fn pour(seed: usize, mut outbox: Sender<Parcel>, replies: Sender<usize>) {
    for number in 0..PARCELS {
        let reply = (number % 4 == 0).then(|| replies.clone());
        outbox.send(parcel(seed, number, reply)).await.unwrap();
    }
}

const PARCELS: usize = 60;

fn parcel(seed: usize, number: usize, reply: Option<Sender<usize>>) -> Parcel {
    let number = seed * 1000 + number;
    let len = if number % 3 == 1 { 20_000 + 13 * number } else { number % 500 };
    Parcel { number, bytes: filled(number, len), reply }
}

#[archean::test]
async fn parts_of_several_senders_are_not_mixed_up() -> anyhow::Result<()> {
    const SENDERS: usize = 4;
    for trust in ["checked", "untrusted", "unchecked"] {
        let (outbox, inbox) = channel_with_capacity(SMALL);
        let mut inbox = match trust {
            "checked" => inbox,
            "untrusted" => inbox.into_untrusted(),
            // SAFETY: the senders below are of this type, and write nothing but what `Sender` does.
            _ => unsafe { inbox.into_unchecked() },
        };
        let (replies, mut answers) = channel::<usize>();
        let mut children = Vec::new();
        for seed in 0..SENDERS {
            children.push(spawn(pour, (seed, outbox.clone(), replies.clone())).await?);
        }
        drop((outbox, replies));
        let mut counts = [0; SENDERS];
        for turn in 0..SENDERS * PARCELS {
            // All the ways to receive.
            let found = match turn % 3 {
                0 => inbox.recv_owned().await?,
                1 => inbox.recv_blocking()?.into_owned(),
                _ => {
                    let message = inbox.recv().await?;
                    let (number, len) = (message.number.to_native() as usize, message.bytes.len());
                    let parcel = message.into_owned();
                    assert_eq!((parcel.number, parcel.bytes.len()), (number, len));
                    parcel
                }
            };
            let seed = found.number / 1000;
            let expected = parcel(seed, counts[seed], None);
            assert_eq!((found.number, found.bytes), (expected.number, expected.bytes), "{trust}");
            assert_eq!(found.reply.is_some(), counts[seed] % 4 == 0);
            if let Some(mut reply) = found.reply {
                reply.send(found.number).await?;
            }
            counts[seed] += 1;
        }
        assert_eq!(inbox.recv_owned().await.err(), Some(RecvError::Closed));
        let mut count = 0;
        while let Ok(number) = answers.recv_owned().await {
            assert_eq!(number % 1000 % 4, 0);
            count += 1;
        }
        assert_eq!(count, SENDERS * PARCELS / 4);
        for child in children {
            child.join().await?;
        }
    }
    Ok(())
}
