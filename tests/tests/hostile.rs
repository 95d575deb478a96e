//! A process that writes anything into all the memory that it shares: its peers get messages or errors, and go on.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use archean::{Reason, Receiver, RecvError, Sender, channel, channel_with_capacity, spawn};
use tests::{random::Random, until};

/// The least capacity that a channel can have.
const SMALL: usize = protocol::limits::RING_BYTES_MIN;

/// So often the hostile process writes somewhere.
const SCRIBBLES: u32 = 3000;

const CHANNELS: usize = 6;

/// No wait for the hostile process takes longer.
const SHORT: Duration = Duration::from_millis(2);

type Inner = Box<(u8, Vec<u16>)>;

#[archean::data]
enum Parcel {
    Empty,
    Text(String),
    Bytes(Vec<u8>),
    Nested(Vec<Option<Inner>>),
    End(Sender<u32>),
}

/// A parcel of any kind and size; some are sent in parts.
fn parcel(random: &mut Random) -> Parcel {
    let bound = if random.below(8) == 0 { 3 * SMALL as u64 } else { 200 };
    let len = random.below(bound) as usize;
    match random.below(16) {
        0 => Parcel::Empty,
        1..=4 => Parcel::Text("é".repeat(len / 2)),
        5..=9 => Parcel::Bytes(vec![random.number() as u8; len]),
        10..=14 => Parcel::Nested(vec![Some(Box::new((1, vec![2; len % 50]))); len % 20]),
        _ => Parcel::End(channel_with_capacity(SMALL).0),
    }
}

/// Reads every byte of a parcel.
fn read(parcel: Parcel) -> usize {
    match parcel {
        Parcel::Empty => 0,
        Parcel::Text(text) => text.chars().count(),
        Parcel::Bytes(bytes) => bytes.iter().filter(|byte| **byte != 0).count(),
        Parcel::Nested(nested) => nested.iter().flatten().map(|inner| inner.1.len()).sum(),
        Parcel::End(mut end) => usize::from(end.try_send(1).is_ok()),
    }
}

/// The memory that this process shares with others and may write.
fn shared() -> Vec<(u64, u64)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let lines = maps.lines().filter(|line| line.contains(" rw-s ") && line.contains("/memfd:archean"));
    let parse = |number| u64::from_str_radix(number, 16).unwrap();
    lines
        .map(|line| line.split_once(' ').unwrap().0.split_once('-').unwrap())
        .map(|(start, end)| (parse(start), parse(end)))
        .collect()
}

/// Writes something somewhere.
fn scribble(random: &mut Random, memory: &File, areas: &[(u64, u64)]) {
    let (start, end) = areas[random.below(areas.len() as u64) as usize];
    // Most of what matters is at the beginning of pages.
    let bound = if random.below(2) == 0 { (end - start).min(4096 + 256) } else { end - start };
    let at = start + random.below(bound) / 8 * 8;
    let word = match random.below(6) {
        0 => 0,
        1 => u64::MAX,
        2 => random.below(64) * 16,
        3 => random.below(1 << 20),
        4 => 1 << random.below(64),
        _ => random.number(),
    };
    let words = match random.below(40) {
        0 => 512,
        1..=8 => 1 + random.below(16),
        _ => 1,
    };
    let bytes: Vec<u8> = (0..words)
        .flat_map(|_| if word == 0 || words == 1 { word } else { random.number() }.to_le_bytes())
        .take((end - at) as usize)
        .collect();
    memory.write_all_at(&bytes, at).unwrap();
}

/// Uses its ends as it should, and writes over all that it shares meanwhile; then says that it is done.
fn scribbler(
    seed: u64,
    mut id: Sender<u32>,
    mut begin: Receiver<()>,
    inboxes: Vec<Receiver<Parcel>>,
    outboxes: Vec<Sender<Parcel>>,
    done: String,
) {
    id.send_blocking(process::id()).unwrap();
    let mut ends: Vec<_> = inboxes.into_iter().zip(outboxes).collect();
    for (inbox, outbox) in &mut ends {
        outbox.send_blocking(Parcel::Empty).unwrap();
        inbox.recv_owned_blocking().unwrap();
    }
    begin.recv_owned_blocking().unwrap();
    let mut random = Random::new(seed);
    let mut talking = Random::new(!seed);
    // A panic of its own is nothing to its peers.
    thread::spawn(move || {
        loop {
            for (inbox, outbox) in &mut ends {
                let _ = outbox.try_send(parcel(&mut talking));
                let _ = inbox.try_recv();
            }
            thread::yield_now();
        }
    });
    let memory = OpenOptions::new().write(true).open("/proc/self/mem").unwrap();
    let mut areas = shared();
    for number in 0..SCRIBBLES {
        if number % 100 == 0 {
            areas = shared();
        }
        scribble(&mut random, &memory, &areas);
        if random.below(4) == 0 {
            thread::yield_now();
        }
    }
    fs::write(done, "").unwrap();
    loop {
        thread::park();
    }
}

/// What a peer got of a scribbler.
#[derive(Debug, Default)]
struct Got {
    messages: usize,
    errors: usize,
}

/// Receives what there is; `false` when nothing can come any more.
fn receive(inbox: &mut Receiver<Parcel>, got: &mut Got) -> bool {
    loop {
        match inbox.recv_timeout_blocking(SHORT) {
            Ok(message) => {
                read(message.into_owned());
                got.messages += 1;
            }
            Err(RecvError::TimedOut) => return true,
            Err(RecvError::Missed { .. }) => {}
            Err(error) => {
                got.errors +=
                    usize::from(matches!(error, RecvError::Broken(_) | RecvError::Malformed { .. }));
                return !is_last(&error);
            }
        }
    }
}

fn is_last(error: &RecvError) -> bool {
    matches!(
        error,
        RecvError::Broken(_)
            | RecvError::Malformed { .. }
            | RecvError::WrongType { .. }
            | RecvError::PeerDied(_)
    )
}

#[archean::test]
fn whatever_a_peer_writes_there_are_messages_or_errors() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut all = Got::default();
    for seed in 1..=8 {
        println!("seed {seed}");
        let got = meet(seed, &folder.path().join(seed.to_string()))?;
        println!("{got:?}");
        all.messages += got.messages;
        all.errors += got.errors;
    }
    assert!(all.messages > 0 && all.errors > 0, "{all:?}: it wrote nothing, or nothing came");
    Ok(())
}

/// Talks with a scribbler until it is done, or has ended by what it did to itself; then ends it.
fn meet(seed: u64, done: &Path) -> anyhow::Result<Got> {
    let channels = || (0..CHANNELS).map(|index| channel_with_capacity(SMALL << index)).unzip();
    let (mut outboxes, theirs): (Vec<_>, Vec<_>) = channels();
    let (others, inboxes): (Vec<_>, Vec<_>) = channels();
    let mut inboxes: Vec<Receiver<Parcel>> = inboxes.into_iter().map(Receiver::into_untrusted).collect();
    let ((id, mut ids), (mut begins, begin)) = (channel(), channel());
    let path = done.to_str().expect("it is made of letters").to_owned();
    let child = spawn(scribbler, (seed, id, begin, theirs, others, path)).start_blocking()?;
    let process = ids.recv_owned_blocking()?;
    for (inbox, outbox) in inboxes.iter_mut().zip(&mut outboxes) {
        outbox.send_blocking(Parcel::Empty)?;
        assert!(matches!(inbox.recv_owned_blocking()?, Parcel::Empty));
    }
    begins.send_blocking(())?;

    let is_over = AtomicBool::new(false);
    let mut got = Got::default();
    let mut random = Random::new(seed << 32);
    let last = inboxes.pop().expect("there are several");
    thread::scope(|scope| -> anyhow::Result<()> {
        // This one waits without a limit, until it is told the end.
        let blocked = scope.spawn(move || {
            let mut inbox = last;
            let mut got = Got::default();
            loop {
                match inbox.recv_owned_blocking() {
                    Ok(parcel) => {
                        read(parcel);
                        got.messages += 1;
                    }
                    Err(error) if is_last(&error) => return got,
                    Err(_) => got.errors += 1,
                }
            }
        });
        // Others are not disturbed.
        let bystander = scope.spawn(|| meet_honest(&is_over));
        while !done.exists() && Path::new(&format!("/proc/{process}")).exists() {
            for (inbox, outbox) in inboxes.iter_mut().zip(&mut outboxes) {
                receive(inbox, &mut got);
                if let Err(error) = outbox.send_timeout_blocking(parcel(&mut random), SHORT) {
                    got.errors += usize::from(matches!(error.reason, Reason::Broken(_)));
                }
            }
        }
        child.kill();
        assert!(child.outcome_blocking().value.is_err());
        for inbox in &mut inboxes {
            until("a receiver is told the end", || !receive(inbox, &mut got));
        }
        for outbox in &mut outboxes {
            until("a sender is told the end", || {
                let sent = outbox.send_timeout_blocking(Parcel::Empty, SHORT);
                sent.is_err_and(|error| error.reason != Reason::TimedOut)
            });
        }
        let more = blocked.join().expect("it does not panic");
        got.messages += more.messages;
        is_over.store(true, Ordering::Relaxed);
        assert!(bystander.join().expect("it does not panic")? > 0);
        Ok(())
    })?;
    Ok(got)
}

/// Talks with a process that does what it should.
fn meet_honest(is_over: &AtomicBool) -> anyhow::Result<u64> {
    async fn echo(mut inbox: Receiver<u64>, mut outbox: Sender<u64>) {
        while let Ok(number) = inbox.recv_owned().await {
            outbox.send(number).await.unwrap();
        }
    }
    let ((mut there, inbox), (outbox, mut back)) = (channel(), channel());
    let child = spawn(echo, (inbox, outbox)).start_blocking()?;
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        there.send_blocking(count)?;
        assert_eq!(back.recv_owned_blocking()?, count);
        count += 1;
    }
    drop(there);
    child.join_blocking()?;
    Ok(count)
}
