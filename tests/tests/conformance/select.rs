//! Many receivers at once, and many senders.

use std::collections::BTreeMap;

use archean::{RecvError, Select, Sender, channel_with_capacity};
use tests::place::Place;

/// The least capacity that a channel can have.
const SMALL: usize = protocol::limits::RING_BYTES_MIN;

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

pub(crate) async fn thousands_are_idle_and_a_few_are_busy(place: Place) -> anyhow::Result<()> {
    const IDLE: u32 = 2000;
    const BUSY: u32 = 8;
    const EACH: u32 = 500;
    let (mut select, mut senders) = several(IDLE + BUSY);
    let busy = senders.split_off(IDLE as usize);
    let child = place.start(count_to, (EACH, busy)).await?;
    let mut heard = Heard::default();
    while heard.closed < BUSY as usize {
        heard.take(next(&mut select).await.unwrap());
    }
    assert!(
        heard.counts.iter().map(|(key, count)| (*key, *count)).eq((IDLE..IDLE + BUSY).map(|key| (key, EACH)))
    );
    child.join().await?;
    assert_eq!(select.len(), IDLE as usize);
    // All the others work as well, first one by one and then together.
    for key in [IDLE - 1, 0, IDLE / 2] {
        senders[key as usize].send(0).await?;
        assert_eq!(next(&mut select).await, Some((key, Ok(0))));
    }
    drop(senders);
    let mut ends: Vec<u32> = Vec::new();
    while let Some((key, message)) = next(&mut select).await {
        assert_eq!(message, Err(RecvError::Closed));
        ends.push(key);
    }
    ends.sort_unstable();
    assert!(ends.into_iter().eq(0..IDLE));
    assert!(select.is_empty());
    assert_eq!(next_blocking(&mut select), None);
    Ok(())
}

pub(crate) async fn hundreds_of_senders_have_one_receiver(place: Place) -> anyhow::Result<()> {
    const PROCESSES: u32 = 4;
    const CLONES: u32 = 100;
    const EACH: u32 = 20;
    async fn send(process: u32, sender: Sender<(u32, u32)>) {
        let mut senders: Vec<_> = (0..CLONES).map(|_| sender.clone()).collect();
        drop(sender);
        for number in 0..EACH {
            for (key, sender) in (process * CLONES..).zip(&mut senders) {
                sender.send((key, number)).await.unwrap();
            }
        }
    }
    let (sender, mut receiver) = channel_with_capacity(SMALL);
    let mut children = Vec::new();
    for process in 0..PROCESSES {
        children.push(place.start(send, (process, sender.clone())).await?);
    }
    drop(sender);
    let mut counts = vec![0; (PROCESSES * CLONES) as usize];
    let error = loop {
        match receiver.recv_owned().await {
            Ok((key, number)) => {
                assert_eq!(number, counts[key as usize], "of {key}");
                counts[key as usize] += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, RecvError::Closed);
    assert!(counts.iter().all(|count| *count == EACH));
    for child in children {
        child.join().await?;
    }
    Ok(())
}
