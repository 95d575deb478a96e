//! Order, no loss, how ends come to their end, and messages of all kinds.

use std::{process, time::Duration};

use archean::{Ending, Reason, Receiver, RecvError, Sender, Serde, channel, channel_with_capacity};
use tests::place::Place;

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

pub(crate) async fn what_was_sent_before_a_return_arrives(place: Place) -> anyhow::Result<()> {
    let (tx, mut rx) = channel();
    let child = place.start(count_to, (10_000, tx)).await?;
    child.join().await?;
    expect_count(10_000, &mut rx).await?;
    for _ in 0..2 {
        assert_eq!(rx.recv().await.unwrap_err(), RecvError::Closed);
    }
    Ok(())
}

pub(crate) async fn a_small_channel_carries_any_number(place: Place) -> anyhow::Result<()> {
    let (tx, mut rx) = channel_with_capacity(SMALL);
    let child = place.start(count_to, (50_000, tx)).await?;
    expect_count(50_000, &mut rx).await?;
    assert_eq!(rx.recv().await.unwrap_err(), RecvError::Closed);
    child.join().await?;
    Ok(())
}

pub(crate) async fn each_end_is_told_after_all_that_was_sent(place: Place) -> anyhow::Result<()> {
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
    // The others take the process along.
    for way in 0..if place == Place::InProcess { 2 } else { 5 } {
        let (tx, mut rx) = channel();
        let child = place.start(then, (1000, tx, way)).await?;
        let mut count = 0;
        let error = loop {
            match rx.recv_owned().await {
                Ok(number) => assert_eq!(number, count),
                Err(error) => break error,
            }
            count += 1;
        };
        // Over a link, a process that is ended by a signal leaves what the kernel had taken.
        assert!(count == 1000 || way == 4 && place.has_links(), "{way}: {count}");
        let id = child.id();
        let is_death = |is: fn(&Ending) -> bool| {
            matches!(&error, RecvError::PeerDied(cause)
                if Some(cause.process) == id && cause.name == "then" && is(&cause.ending))
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

pub(crate) async fn a_sender_is_told_how_its_receiver_ended(place: Place) -> anyhow::Result<()> {
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
    for way in 0..if place == Place::InProcess { 2 } else { 3 } {
        let (tx, rx) = channel_with_capacity(SMALL);
        let child = place.start(take, (rx, way)).await?;
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

pub(crate) async fn sending_needs_no_receiver_yet(place: Place) -> anyhow::Result<()> {
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
    assert_eq!(place.start(sum, rx).await?.join().await?, 4950);
    Ok(())
}

pub(crate) async fn messages_of_any_size_travel(place: Place) -> anyhow::Result<()> {
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
    let child = place.start(check, rx).await?;
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

pub(crate) async fn many_senders_have_one_receiver(place: Place) -> anyhow::Result<()> {
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
        children.push(place.start(send, (number, tx.clone())).await?);
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

pub(crate) async fn a_message_is_lent_while_more_arrive(place: Place) -> anyhow::Result<()> {
    async fn send(mut tx: Sender<Vec<u32>>) {
        for number in 0..1000 {
            tx.send(vec![number; 100]).await.unwrap();
        }
    }
    let (tx, mut rx) = channel_with_capacity(SMALL);
    let child = place.start(send, tx).await?;
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

pub(crate) async fn messages_of_all_kinds(place: Place) -> anyhow::Result<()> {
    async fn back<T: archean::Data>(mut rx: Receiver<T>, mut tx: Sender<T>) {
        while let Ok(value) = rx.recv_owned().await {
            tx.send(value).await.unwrap();
        }
    }
    async fn there_and_back<T: archean::Data + Clone + PartialEq + std::fmt::Debug + Send + 'static>(
        place: Place,
        values: Vec<T>,
    ) -> anyhow::Result<()> {
        let ((mut tx, there), (answers, mut rx)) = (channel(), channel());
        let child = place.start(back::<T>, (there, answers)).await?;
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
    there_and_back(place, vec![(); 100]).await?;
    there_and_back(place, vec![[0u8; 0], []]).await?;
    there_and_back(place, vec![u128::MAX, 0]).await?;
    there_and_back(place, vec!["é".to_owned(), String::new(), "x".repeat(500_000)]).await?;
    there_and_back(place, vec![Serde(std::net::IpAddr::from([127, 0, 0, 1])), Serde([1; 16].into())]).await?;
    there_and_back(place, vec![Some(vec![(1u8, 'x')]), None, Some(Vec::new())]).await
}

pub(crate) async fn blocking_twins(place: Place) -> anyhow::Result<()> {
    fn answer(mut rx: Receiver<u32>, mut tx: Sender<u32>) -> u32 {
        let mut count = 0;
        while let Ok(number) = rx.recv_owned_blocking() {
            tx.send_ref_blocking(&(number + 1)).unwrap();
            count += 1;
        }
        count
    }
    let ((mut tx, there), (back, mut rx)) = (channel(), channel());
    let child = place.start(answer, (there, back)).await?;
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
    assert_eq!(child.join().await?, 1001);
    Ok(())
}

pub(crate) async fn a_ring_of_processes(place: Place) -> anyhow::Result<()> {
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
        children.push(place.start(pass, (from, to)).await?);
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

/// What is sent without waiting, until it is full.
async fn fill(mut tx: Sender<u64>, mut report: Sender<u64>, mut more: Receiver<u64>) {
    // The first use asks for the ring.
    tx.send(0).await.unwrap();
    let mut sent = 1;
    loop {
        let full = loop {
            match tx.try_send(sent) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((full.value, full.reason), (sent, Reason::Full));
        report.send(sent).await.unwrap();
        let Ok(count) = more.recv_owned().await else { return };
        for _ in 0..count {
            tx.send(sent).await.unwrap();
            sent += 1;
        }
    }
}

pub(crate) async fn full_is_full_and_not_sooner(place: Place) -> anyhow::Result<()> {
    let ((tx, mut rx), (report, mut reports), (mut more, mores)) =
        (channel_with_capacity(SMALL), channel(), channel());
    let child = place.start(fill, (tx, report, mores)).await?;
    let mut all = (SMALL / (2 * HEADER) - 1) as u64;
    assert_eq!(reports.recv_owned().await, Ok(all), "each takes 32 bytes, and one header stays free");
    let mut next = 0;
    for count in [1, 2, 30, 100, 1] {
        for _ in 0..count {
            assert_eq!(rx.recv_owned().await, Ok(next));
            next += 1;
        }
        more.send(count).await?;
        all += count;
        assert_eq!(reports.recv_owned().await, Ok(all), "so many were read, and had room again");
    }
    drop(more);
    while let Ok(number) = rx.recv_owned().await {
        assert_eq!(number, next);
        next += 1;
    }
    assert_eq!(next, all);
    child.join().await?;
    Ok(())
}
