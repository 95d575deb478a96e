//! Channels between processes: order, bounds, and how they end.

use std::{process, time::Duration};

use archean::{
    Ending, Reason, Receiver, RecvError, Sender, Serde, channel, channel_with_capacity, spawn, time::timeout,
};

/// The least capacity that a channel can have.
const SMALL: usize = protocol::limits::RING_BYTES_MIN;

/// What a message takes beside its archive, and what is kept free behind the last.
const HEADER: usize = protocol::frame::HEADER_BYTES;

async fn count_to(count: u32, mut tx: Sender<u32>) {
    for number in 0..count {
        tx.send(number).await.unwrap();
    }
}

async fn expect_count(count: u32, rx: &mut Receiver<u32>) -> anyhow::Result<()> {
    for number in 0..count {
        assert_eq!(*rx.recv().await?, number);
    }
    Ok(())
}

#[archean::test]
async fn what_was_sent_before_a_return_arrives() -> anyhow::Result<()> {
    let (tx, mut rx) = channel();
    let child = spawn(count_to, (10_000, tx)).await?;
    child.join().await?;
    expect_count(10_000, &mut rx).await?;
    for _ in 0..2 {
        assert_eq!(rx.recv().await.unwrap_err(), RecvError::Closed);
    }
    Ok(())
}

#[archean::test]
async fn a_small_channel_carries_any_number() -> anyhow::Result<()> {
    let (tx, mut rx) = channel_with_capacity(SMALL);
    let child = spawn(count_to, (50_000, tx)).await?;
    expect_count(50_000, &mut rx).await?;
    assert_eq!(rx.recv().await.unwrap_err(), RecvError::Closed);
    child.join().await?;
    Ok(())
}

#[archean::test]
async fn each_end_is_told_after_all_that_was_sent() -> anyhow::Result<()> {
    async fn then(count: u32, mut tx: Sender<u32>, way: u8) {
        for number in 0..count {
            tx.send(number).await.unwrap();
        }
        match way {
            0 => drop(tx),
            1 => tx.reset("enough"),
            2 => process::exit(5),
            3 => panic!("no more"),
            _ => process::abort(),
        }
    }
    for way in 0..5 {
        let (tx, mut rx) = channel();
        let child = spawn(then, (1000, tx, way)).name("sender").await?;
        expect_count(1000, &mut rx).await?;
        let error = rx.recv().await.unwrap_err();
        let id = child.id();
        let is_death = |is: fn(&Ending) -> bool| {
            matches!(&error, RecvError::PeerDied(cause)
                if cause.process == id && cause.name == "sender" && is(&cause.ending))
        };
        let is_right = match way {
            0 => error == RecvError::Closed,
            1 => error == RecvError::Reset("enough".into()),
            2 => is_death(|ending| *ending == Ending::Exited { code: 5 }),
            3 => {
                is_death(|ending| matches!(ending, Ending::Panicked { message, .. } if message == "no more"))
            }
            _ => is_death(|ending| matches!(ending, Ending::Signalled { signal: 6, .. })),
        };
        assert!(is_right, "{way}: {error:?}");
        assert_eq!(rx.recv().await.unwrap_err(), error, "the last word stays");
        assert_eq!(child.join().await.is_ok(), way < 2);
    }
    Ok(())
}

#[archean::test]
async fn a_sender_is_told_how_its_receiver_ended() -> anyhow::Result<()> {
    async fn drain(mut tx: Sender<u32>) -> Reason {
        loop {
            if let Err(error) = tx.send(1).await {
                assert_eq!(tx.send(2).await.unwrap_err().reason, error.reason, "the last word stays");
                return error.reason;
            }
        }
    }
    async fn take(mut rx: Receiver<u32>, way: u8) {
        rx.recv().await.unwrap();
        match way {
            0 => drop(rx),
            1 => rx.reset("enough"),
            _ => process::exit(5),
        }
    }
    for way in 0..3 {
        let (tx, rx) = channel_with_capacity(SMALL);
        let child = spawn(take, (rx, way)).await?;
        let reason = drain(tx).await;
        let is_right = match way {
            0 => reason == Reason::Closed,
            1 => reason == Reason::Reset("enough".into()),
            _ => matches!(&reason, Reason::PeerDied(cause) if cause.ending == Ending::Exited { code: 5 }),
        };
        assert!(is_right, "{way}: {reason:?}");
        assert_eq!(child.join().await.is_ok(), way < 2);
    }
    Ok(())
}

#[archean::test]
async fn sending_needs_no_receiver_yet() -> anyhow::Result<()> {
    let (mut tx, rx) = channel::<u32>();
    for number in 0..100 {
        tx.send(number).await?;
    }
    drop(tx);
    let sum = async |mut rx: Receiver<u32>| {
        let mut sum = 0;
        while let Ok(number) = rx.recv_owned().await {
            sum += number;
        }
        sum
    };
    assert_eq!(spawn(sum, rx).await?.join().await?, 4950);
    Ok(())
}

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
async fn messages_of_any_size_travel() -> anyhow::Result<()> {
    async fn check(mut rx: Receiver<Vec<u8>>) -> u32 {
        let mut count = 0;
        while let Ok(message) = rx.recv().await {
            assert!(message.iter().all(|byte| *byte == count as u8));
            count += 1;
        }
        count
    }
    // A vector's archive is its bytes, brought to a multiple of four, and eight more.
    let limit = SMALL - 2 * HEADER;
    let (mut tx, rx) = channel_with_capacity(SMALL);
    let child = spawn(check, rx).await?;
    for number in 0..100 {
        tx.send(vec![number; limit - 8]).await?;
    }
    // One byte more goes in parts, and so does a thousand times more.
    for (number, size) in (100..).zip([limit - 7, 10, limit, 2 * limit, 0, 100_001, 5_000_000, 3]) {
        tx.send(vec![number; size]).await?;
    }
    drop(tx);
    assert_eq!(child.join().await?, 108);
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
async fn many_senders_have_one_receiver() -> anyhow::Result<()> {
    const SENDERS: u32 = 8;
    const EACH: u32 = 1000;
    async fn send(number: u32, mut tx: Sender<(u32, u32)>) {
        for count in 0..EACH {
            tx.send((number, count)).await.unwrap();
        }
    }
    let (tx, mut rx) = channel();
    let mut children = Vec::new();
    for number in 0..SENDERS {
        children.push(spawn(send, (number, tx.clone())).await?);
    }
    drop(tx);
    let mut counts = [0; SENDERS as usize];
    loop {
        match rx.recv_owned().await {
            Ok((number, count)) => {
                assert_eq!(counts[number as usize], count);
                counts[number as usize] += 1;
            }
            Err(error) => break assert_eq!(error, RecvError::Closed),
        }
    }
    assert_eq!(counts, [EACH; SENDERS as usize]);
    for child in children {
        child.join().await?;
    }
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
async fn a_message_is_lent_while_more_arrive() -> anyhow::Result<()> {
    async fn send(mut tx: Sender<Vec<u32>>) {
        for number in 0..1000 {
            tx.send(vec![number; 100]).await.unwrap();
        }
    }
    let (tx, mut rx) = channel_with_capacity(SMALL);
    let child = spawn(send, tx).await?;
    for number in 0..1000 {
        let message = rx.recv().await?;
        if number % 100 == 0 {
            // Time for the sender to fill the ring as far as it can.
            archean::time::sleep(Duration::from_micros(500)).await;
        }
        assert!(message.len() == 100 && message.iter().all(|found| *found == number));
    }
    child.join().await?;
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

#[archean::test]
async fn messages_of_all_kinds() -> anyhow::Result<()> {
    async fn back<T: archean::Data>(mut rx: Receiver<T>, mut tx: Sender<T>) {
        while let Ok(value) = rx.recv_owned().await {
            tx.send(value).await.unwrap();
        }
    }
    async fn there_and_back<T: archean::Data + Clone + PartialEq + std::fmt::Debug + Send>(
        values: Vec<T>,
    ) -> anyhow::Result<()> {
        let ((mut tx, there), (answers, mut rx)) = (channel(), channel());
        let child = spawn(back::<T>, (there, answers)).await?;
        for value in values.clone() {
            tx.send(value).await.unwrap();
        }
        drop(tx);
        for value in values {
            assert_eq!(rx.recv_owned().await?, value);
        }
        child.join().await?;
        Ok(())
    }
    there_and_back(vec![(); 100]).await?;
    there_and_back(vec![[0u8; 0], []]).await?;
    there_and_back(vec![u128::MAX, 0]).await?;
    there_and_back(vec!["é".to_owned(), String::new(), "x".repeat(500_000)]).await?;
    there_and_back(vec![Serde(std::net::IpAddr::from([127, 0, 0, 1])), Serde([1; 16].into())]).await?;
    there_and_back(vec![Some(vec![(1u8, 'x')]), None, Some(Vec::new())]).await
}

#[archean::test]
fn blocking_twins() -> anyhow::Result<()> {
    fn answer(mut rx: Receiver<u32>, mut tx: Sender<u32>) -> u32 {
        let mut count = 0;
        while let Ok(number) = rx.recv_owned_blocking() {
            tx.send_ref_blocking(&(number + 1)).unwrap();
            count += 1;
        }
        count
    }
    let ((mut tx, there), (back, mut rx)) = (channel(), channel());
    let child = spawn(answer, (there, back)).start_blocking()?;
    assert_eq!(
        rx.recv_timeout_blocking(Duration::from_millis(1)).map(|_| ()).unwrap_err(),
        RecvError::TimedOut
    );
    for number in 0..1000 {
        tx.send_blocking(number)?;
        assert_eq!(*rx.recv_blocking()?, number + 1);
    }
    tx.send_timeout_blocking(7, Duration::from_secs(1000))?;
    assert_eq!(*rx.recv_timeout_blocking(Duration::from_secs(1000))?, 8);
    drop(tx);
    assert_eq!(child.join_blocking()?, 1001);
    Ok(())
}

#[archean::test]
async fn a_ring_of_processes() -> anyhow::Result<()> {
    const COUNT: u32 = 64;
    async fn pass(mut from: Receiver<u32>, mut to: Sender<u32>) {
        while let Ok(number) = from.recv_owned().await {
            to.send(number + 1).await.unwrap();
        }
    }
    let (mut first, mut from) = channel();
    let mut children = Vec::new();
    for _ in 0..COUNT {
        let (to, next) = channel();
        children.push(spawn(pass, (from, to)).await?);
        from = next;
    }
    let mut number = 0;
    for round in 1..=10 {
        first.send(number).await?;
        number = from.recv_owned().await?;
        assert_eq!(number, COUNT * round);
    }
    drop(first);
    assert_eq!(from.recv().await.unwrap_err(), RecvError::Closed);
    for child in children {
        child.join().await?;
    }
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
