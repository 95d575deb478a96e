//! Many channels: thousands that one process reads, many senders to one receiver, ten thousand at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    process,
    time::Duration,
};

use archean::{Reason, Receiver, RecvError, Select, Sender, channel, channel_with_capacity, spawn};
use futures::FutureExt;
use tests::own;

/// The least capacity that a channel can have.
const SMALL: usize = protocol::limits::RING_BYTES_MIN;
/// So many messages one receiver may give before the next has its turn.
const TURN: u32 = 32;

/// What is not there after so long will not come.
const LONG: Duration = Duration::from_secs(10);

type Keyed = Option<(u32, Result<u32, RecvError>)>;

async fn next(select: &mut Select<u32, u32>) -> Keyed {
    let (key, message) = select.recv().await?;
    Some((key, message.map(|message| message.into_owned())))
}

fn next_blocking(select: &mut Select<u32, u32>) -> Keyed {
    let (key, message) = select.recv_blocking()?;
    Some((key, message.map(|message| message.into_owned())))
}

/// Sends the numbers up to `count` through each.
async fn count_to(count: u32, senders: Vec<Sender<u32>>) {
    let mut senders = senders;
    for number in 0..count {
        for sender in &mut senders {
            sender.send(number).await.unwrap();
        }
    }
}

/// What each key has said so far: the numbers from zero on, then that it is closed.
#[derive(Default)]
struct Heard {
    counts: BTreeMap<u32, u32>,
    closed: usize,
}

impl Heard {
    fn take(&mut self, (key, message): (u32, Result<u32, RecvError>)) {
        let count = self.counts.entry(key).or_default();
        match message {
            Ok(number) => {
                assert_eq!(number, *count, "of {key}");
                *count += 1;
            }
            Err(error) => {
                assert_eq!(error, RecvError::Closed);
                self.closed += 1;
            }
        }
    }
}

/// A set of so many receivers, and the senders to them.
fn several(count: u32) -> (Select<u32, u32>, Vec<Sender<u32>>) {
    let mut select = Select::new();
    let senders = (0..count).map(|key| {
        let (sender, receiver) = channel_with_capacity(SMALL);
        assert!(select.insert(key, receiver).is_none());
        sender
    });
    let senders = senders.collect();
    (select, senders)
}

#[archean::test]
async fn nobody_has_more_than_its_turn() -> anyhow::Result<()> {
    const BUSY: u32 = 5;
    const EACH: u32 = 100;
    let (mut select, mut senders) = several(BUSY);
    // All have their rings before it begins.
    for sender in &mut senders {
        sender.send(EACH).await?;
    }
    for _ in 0..BUSY {
        assert_eq!(next(&mut select).await.unwrap().1, Ok(EACH));
    }
    count_to(EACH, senders).await;
    let mut runs: Vec<(u32, u32)> = Vec::new();
    let mut heard = Heard::default();
    for _ in 0..BUSY * EACH {
        let (key, message) = next(&mut select).await.unwrap();
        heard.take((key, message));
        match runs.last_mut() {
            Some((last, length)) if *last == key => *length += 1,
            _ => runs.push((key, 1)),
        }
    }
    // While all have enough, each has its turn before any has a second one.
    let mut left = [EACH; BUSY as usize];
    for (start, (key, length)) in runs.iter().enumerate() {
        if left.iter().all(|left| *left > TURN) {
            let turns = &runs[start..start + BUSY as usize];
            let keys: BTreeSet<u32> = turns.iter().map(|(key, _)| *key).collect();
            assert!(keys.len() == BUSY as usize && *length <= TURN, "{runs:?}");
        }
        left[*key as usize] -= length;
    }
    Ok(())
}

/// One receiver always has something, and then another begins to have something too.
async fn until_the_late_one(mut recv: impl AsyncFnMut(&mut Select<u32, u32>) -> Keyed) {
    const ENOUGH: u32 = 200_000;
    let (mut select, mut senders) = several(2);
    // Both have their rings before it begins.
    for (key, sender) in (0..).zip(&mut senders) {
        sender.send(0).await.unwrap();
        assert_eq!(recv(&mut select).await, Some((key, Ok(0))));
    }
    for received in 0..ENOUGH {
        if received == 3 * TURN {
            senders[1].send(7).await.unwrap();
        }
        senders[0].send(received).await.unwrap();
        let (key, message) = recv(&mut select).await.unwrap();
        assert!(message.is_ok());
        if key == 1 {
            return;
        }
    }
    panic!("{ENOUGH} messages of one receiver came, and the one of the other did not");
}

#[archean::test]
async fn one_that_begins_late_has_its_turn() {
    until_the_late_one(next).await;
}

#[archean::test]
fn one_that_begins_late_has_its_turn_under_a_foreign_executor() {
    futures::executor::block_on(until_the_late_one(next));
}

#[archean::test]
fn one_that_begins_late_has_its_turn_when_the_thread_blocks() {
    archean::block_on(until_the_late_one(async |select| next_blocking(select)));
}

#[archean::test]
async fn receivers_come_and_go_between_messages() -> anyhow::Result<()> {
    let (mut select, mut senders) = several(3);
    for sender in &mut senders {
        for number in 0..3 * TURN {
            sender.send(number).await?;
        }
    }
    let mut heard = Heard::default();
    let mut rest = None;
    for received in 0..9 * TURN - 1 {
        if received % 7 == 3 {
            // What is taken out in the middle of its turn goes on where it was when it is put back.
            let key = received % 3;
            let receiver = select.remove(&key).unwrap();
            assert!(select.remove(&key).is_none());
            assert_eq!(select.len(), 2);
            assert!(select.insert(key, receiver).is_none());
        }
        heard.take(next(&mut select).await.unwrap());
        rest = heard.counts.iter().find(|(_, count)| **count < 3 * TURN).map(|(key, _)| *key);
    }
    // The last message is read outside.
    let key = rest.unwrap();
    let mut receiver = select.remove(&key).unwrap();
    assert_eq!(receiver.recv_owned().await, Ok(3 * TURN - 1));
    // A new one with the key of another takes its place.
    let other = (key + 1) % 3;
    let before = select.insert(other, receiver).unwrap();
    senders[other as usize].send(1).await?;
    senders[key as usize].send(2).await?;
    assert_eq!(next(&mut select).await, Some((other, Ok(2))));
    let mut before = before;
    assert_eq!(before.recv_owned().await, Ok(1));
    assert!(next(&mut select).now_or_never().is_none());
    Ok(())
}

#[archean::test]
async fn each_end_is_told_with_its_key() -> anyhow::Result<()> {
    let (mut select, mut senders) = several(4);
    let child = spawn(|_sender: Sender<u32>| -> () { process::exit(5) }, senders.remove(3)).await?;
    for sender in &mut senders {
        sender.send(0).await?;
    }
    senders.remove(2).reset("enough");
    // One of two senders is not all of them.
    let mut last = senders.remove(1);
    let doomed = last.clone();
    doomed.reset("unused");
    drop(senders);
    let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for _ in 0..7 {
        let (key, message) = next(&mut select).await.unwrap();
        found.entry(key).or_default().push(format!("{message:?}"));
    }
    let reset = |text: &str| format!("{:?}", Err::<u32, _>(RecvError::Reset(text.to_owned())));
    let closed = format!("{:?}", Err::<u32, _>(RecvError::Closed));
    assert_eq!(found[&0], ["Ok(0)".to_owned(), closed.clone()]);
    assert_eq!(found[&2], ["Ok(0)".to_owned(), reset("enough")]);
    assert!(found[&1].contains(&reset("unused")) && found[&1].contains(&"Ok(0)".to_owned()), "{found:?}");
    assert!(found[&3].len() == 1 && found[&3][0].contains("PeerDied") && found[&3][0].contains("code: 5"));
    assert_eq!(select.len(), 1);
    last.send(1).await?;
    assert_eq!(next(&mut select).await, Some((1, Ok(1))));
    drop(last);
    assert_eq!(next(&mut select).await, Some((1, Err(RecvError::Closed))));
    assert_eq!(next(&mut select).await, None);
    assert!(child.join().await.is_err());
    Ok(())
}

const STREAMS: u32 = 20;
const LENGTH: u32 = 400;

/// A set of receivers to which another process sends.
fn streams() -> (Select<u32, u32>, archean::Child<()>) {
    let (select, senders) = several(STREAMS);
    (select, spawn(count_to, (LENGTH, senders)).start_blocking().unwrap())
}

impl Heard {
    fn expect_all_streams(self) {
        assert_eq!(self.closed, STREAMS as usize);
        assert!(self.counts.into_iter().eq((0..STREAMS).map(|key| (key, LENGTH))));
    }
}

async fn read_all(mut select: Select<u32, u32>) -> Heard {
    let mut heard = Heard::default();
    while let Some(found) = next(&mut select).await {
        heard.take(found);
    }
    heard
}

#[archean::test]
fn any_executor_reads_many() -> anyhow::Result<()> {
    let (select, child) = streams();
    archean::block_on(read_all(select)).expect_all_streams();
    child.join_blocking()?;

    let (select, child) = streams();
    futures::executor::block_on(read_all(select)).expect_all_streams();
    child.join_blocking()?;

    let (select, child) = streams();
    smol::block_on(read_all(select)).expect_all_streams();
    child.join_blocking()?;

    let (select, child) = streams();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    runtime.block_on(async { tokio::spawn(read_all(select)).await })?.expect_all_streams();
    child.join_blocking()?;

    let (mut select, child) = streams();
    let mut heard = Heard::default();
    while let Some(found) = next_blocking(&mut select) {
        heard.take(found);
    }
    heard.expect_all_streams();
    child.join_blocking()?;
    Ok(())
}

/// Reads with futures that are polled a few times and dropped, and moves the set to another thread now and then.
async fn read_impatiently(mut select: Select<u32, u32>) -> (Heard, u32) {
    let (mut heard, mut given_up) = (Heard::default(), 0);
    loop {
        let polls = given_up % 3;
        let mut found = None;
        {
            let mut future = pin!(next(&mut select));
            for _ in 0..=polls {
                found = future.as_mut().now_or_never();
                if found.is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        match found {
            Some(Some(found)) => heard.take(found),
            Some(None) => return (heard, given_up),
            None => given_up += 1,
        }
        if given_up % 64 == 1 {
            // Now another poll is what wakes this one: it has to wait in earnest.
            match next(&mut select).await {
                Some(found) => heard.take(found),
                None => return (heard, given_up),
            }
        }
    }
}

#[archean::test]
fn a_choice_that_is_given_up_loses_nothing() -> anyhow::Result<()> {
    let (select, child) = streams();
    let (heard, given_up) = archean::block_on(read_impatiently(select));
    heard.expect_all_streams();
    assert!(given_up > 0);
    child.join_blocking()?;

    let (select, child) = streams();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let (heard, given_up) = runtime.block_on(async { tokio::spawn(read_impatiently(select)).await })?;
    heard.expect_all_streams();
    assert!(given_up > 0);
    child.join_blocking()?;
    Ok(())
}

/// Rings that were asked for and came too late are not kept from others, and neither are those of senders that gave up.
#[archean::test]
fn senders_that_have_given_up_do_not_block_others() {
    let mut idle: Vec<_> = (0..300).map(|_| channel_with_capacity::<u8>(2 * SMALL)).collect();
    for (sender, _) in &mut idle {
        assert_eq!(sender.try_send(1).unwrap_err().reason, Reason::Full, "it has no ring yet");
    }
    let (mut sender, mut receiver) = channel_with_capacity::<u8>(SMALL);
    sender.send_timeout_blocking(7, LONG).unwrap();
    assert_eq!(receiver.recv_owned_blocking(), Ok(7));
}

#[archean::test]
fn senders_that_have_rings_keep_none_from_others() {
    let mut busy: Vec<_> = (0..600).map(|_| channel::<u8>()).collect();
    for (sender, receiver) in &mut busy {
        sender.send_blocking(1).unwrap();
        assert_eq!(receiver.recv_owned_blocking(), Ok(1));
    }
    let (mut sender, mut receiver) = channel_with_capacity::<u8>(SMALL);
    sender.send_timeout_blocking(7, LONG).unwrap();
    assert_eq!(receiver.recv_owned_blocking(), Ok(7));
}

/// Two processes are connected by so many channels, half of them in either direction.
const CHANNELS: u32 = 10_000;
/// What a channel may take of each process's memory when one small message has gone through it.
const CHANNEL_KIB_MAX: usize = 24;

/// What a process holds.
#[archean::data]
#[derive(Debug)]
struct Held {
    descriptors: usize,
    ring_kib: usize,
}

impl Held {
    fn now() -> Held {
        Held { descriptors: own::descriptors(process::id()), ring_kib: own::rings().1 }
    }

    /// Checks what is held by now, while all channels are in use.
    fn expect_frugal(&self, before: &Held) {
        let kib = self.ring_kib.saturating_sub(before.ring_kib) / CHANNELS as usize;
        assert!(kib <= CHANNEL_KIB_MAX, "{kib} KiB a channel: {self:?}, before {before:?}");
        assert!(kib > 0, "nothing was measured");
        // Rings that were given ahead of need may be left.
        let spare = 2 * protocol::limits::SPARE_RINGS + 4;
        assert!(self.descriptors <= before.descriptors + spare, "{self:?}, before {before:?}");
    }
}

type Pairs = Vec<(Receiver<u32>, Sender<u32>)>;

/// Answers each number with the next one, until all senders are closed. Tells what it holds at first, and what when each
/// has been answered once.
async fn answer(mut pairs: Receiver<Pairs>, mut figures: Sender<Held>) {
    figures.send(Held::now()).await.unwrap();
    let (mut select, mut senders) = (Select::new(), Vec::new());
    while let Ok(pairs) = pairs.recv_owned().await {
        for (receiver, sender) in pairs {
            select.insert(senders.len() as u32, receiver);
            senders.push(sender);
        }
    }
    let mut answered = 0;
    while let Some((key, message)) = select.recv().await {
        let Ok(number) = message.map(|message| message.into_owned()) else { continue };
        senders[key as usize].send(number + 1).await.unwrap();
        answered += 1;
        if answered == CHANNELS / 2 {
            figures.send(Held::now()).await.unwrap();
        }
    }
}

#[archean::test]
async fn ten_thousand_channels_between_two_processes() -> anyhow::Result<()> {
    let ((mut pairs, inbox), (figures, mut theirs)) = (channel(), channel());
    let child = spawn(answer, (inbox, figures)).await?;
    let (before, before_there) = (Held::now(), theirs.recv_owned().await?);
    let launcher = std::os::unix::process::parent_id();
    let launcher_before = own::descriptors(launcher);
    let (mut select, mut senders) = (Select::new(), Vec::new());
    while senders.len() < CHANNELS as usize / 2 {
        let mut some = Pairs::new();
        for _ in 0..500 {
            let ((there, receiver), (sender, back)) = (channel(), channel());
            some.push((receiver, sender));
            select.insert(senders.len() as u32, back);
            senders.push(there);
        }
        pairs.send(some).await?;
    }
    drop(pairs);
    for round in 0..2 {
        for (key, sender) in (0..).zip(&mut senders) {
            sender.send(round + key).await?;
        }
        let mut missing = vec![true; senders.len()];
        for _ in 0..senders.len() {
            let (key, message) = select.recv().await.unwrap();
            assert_eq!(*message?, round + key + 1);
            assert!(std::mem::take(&mut missing[key as usize]), "{key} has answered twice");
        }
        if round == 0 {
            Held::now().expect_frugal(&before);
            theirs.recv_owned().await?.expect_frugal(&before_there);
        }
    }
    let kib = Held::now().ring_kib / CHANNELS as usize;
    println!("{kib} KiB a channel");
    drop(senders);
    while let Some((_, message)) = select.recv().await {
        assert!(message.is_err());
    }
    child.join().await?;
    tests::until("the launcher holds no more than before", || own::descriptors(launcher) <= launcher_before);
    let left = own::rings().0;
    assert!(left <= 3 * 2 * (protocol::limits::SPARE_RINGS + 3), "{left} mappings are left");
    Ok(())
}
