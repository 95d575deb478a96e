//! Kills one of two processes that talk with one another, again and again, and looks at what the other gets.
//!
//! `soak --rounds 1000 --seed 7`; both may be left out.
#![expect(unsafe_code, reason = "a process is ended by a signal")]

use std::{
    collections::VecDeque,
    env, fs,
    os::unix::process::parent_id,
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use archean::{Ending, Reason, Receiver, RecvError, Sender, channel, channel_with_capacity, spawn};
use tests::{children, own, random::Random, until};

#[archean::main]
fn main() -> anyhow::Result<()> {
    let (mut rounds, mut seed) = (100, 1);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{argument} needs a number"))?.parse()?;
        match argument.as_str() {
            "--rounds" => rounds = value,
            "--seed" => seed = value,
            _ => bail!("{argument} is not known: use --rounds and --seed"),
        }
    }
    let mut random = Random::new(seed);
    // The first ones leave behind what is kept for later.
    for _ in 0..3 {
        round(&mut random).with_context(|| format!("seed {seed}, at the beginning"))?;
    }
    let before = Held::now();
    let (mut messages, mut notices) = (0, Vec::new());
    for number in 0..rounds {
        let round = round(&mut random).with_context(|| format!("seed {seed}, round {number}"))?;
        messages += round.messages;
        notices.extend(round.notice);
    }
    until("nothing more is held than before", || Held::now().is_no_more_than(&before));
    notices.sort_unstable();
    let at = |index: usize| notices.get(index).copied().unwrap_or_default();
    let (median, maximum) = (at(notices.len() / 2), at(notices.len().saturating_sub(1)));
    println!(
        "{rounds} rounds, {messages} messages; from the kill to the notice, while blocked: \
         median {median:?}, maximum {maximum:?}"
    );
    Ok(())
}

/// What one process sends to the other.
#[archean::data]
struct Parcel {
    number: u64,
    bytes: Vec<u8>,
    end: Option<Sender<u64>>,
}

/// What the parcel of that number holds.
fn contents(seed: u64, number: u64) -> Vec<u8> {
    let mut random = Random::new(seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let bound = if random.below(16) == 0 { 100_000 } else { 2000 };
    let len = random.below(bound) as usize;
    vec![random.number() as u8; len]
}

/// Sends parcels until there are enough, or until that fails.
fn pour(seed: u64, count: u64, outbox: &mut Sender<Parcel>) -> Result<(), Reason> {
    let mut kept = VecDeque::new();
    for number in 0..count {
        let mut end = None;
        if holds_end(number) {
            let (sender, receiver) = channel_with_capacity::<u64>(1);
            kept.push_back(receiver);
            end = Some(sender);
        }
        let bytes = contents(seed, number);
        outbox.send_blocking(Parcel { number, bytes, end }).map_err(|error| error.reason)?;
        if kept.len() > 4 {
            kept.pop_front();
        }
    }
    Ok(())
}

/// Receives parcels, the next of which has to be that of `number`, until that is `count`, or until that fails.
fn drain(
    seed: u64,
    count: u64,
    number: &mut u64,
    inbox: &mut Receiver<Parcel>,
) -> anyhow::Result<Option<RecvError>> {
    while *number < count {
        let parcel = match inbox.recv_owned_blocking() {
            Ok(parcel) => parcel,
            Err(error) => return Ok(Some(error)),
        };
        ensure!(parcel.number == *number, "parcel {} came instead of {number}", parcel.number);
        ensure!(parcel.bytes == contents(seed, *number), "parcel {number} is not what was sent");
        ensure!(parcel.end.is_some() == holds_end(*number), "parcel {number} has other ends than were sent");
        if let Some(mut end) = parcel.end {
            // Its other end may be gone already.
            let _ = end.try_send(*number);
        }
        *number += 1;
    }
    Ok(None)
}

fn holds_end(number: u64) -> bool {
    number % 8 == 3
}

/// The process that is killed: it sends `count` parcels, and receives all the while.
fn partner(
    seed: u64,
    count: u64,
    mut inbox: Receiver<Parcel>,
    mut outbox: Sender<Parcel>,
    mut id: Sender<u32>,
) {
    id.send_blocking(process::id()).unwrap();
    thread::spawn(move || {
        if let Err(error) = drain(!seed, u64::MAX, &mut 0, &mut inbox) {
            eprintln!("{error}");
            process::exit(3);
        }
    });
    pour(seed, count, &mut outbox).unwrap();
    loop {
        thread::park();
    }
}

struct Round {
    messages: u64,
    /// From the kill to the end of a receive that had nothing else to wait for.
    notice: Option<Duration>,
}

/// Starts a process and kills it at some moment; in every other round after it has said all that it had to say.
fn round(random: &mut Random) -> anyhow::Result<Round> {
    let (seed, delay) = (random.number(), Duration::from_micros(random.below(3000)));
    let is_quiet = random.below(2) == 0;
    let count = if is_quiet { random.below(100) } else { u64::MAX };
    let capacity = 4096 << random.below(5);
    let ((mut there, inbox), (outbox, mut back)) =
        (channel_with_capacity(capacity), channel_with_capacity(capacity));
    let (id, mut ids) = channel();
    let child = spawn(partner, (seed, count, inbox, outbox, id)).start_blocking()?;
    let process = ids.recv_owned_blocking()?;
    let sending = thread::spawn(move || pour(!seed, count, &mut there));
    let mut messages = 0;
    if is_quiet {
        let early = drain(seed, count, &mut messages, &mut back)?;
        ensure!(early.is_none(), "{early:?} came before message {messages} of {count}");
    }
    let killing = thread::spawn(move || {
        thread::sleep(delay);
        let start = Instant::now();
        // SAFETY: the call takes two integers. The process is one of this job that nothing else ends.
        unsafe { libc::kill(process as i32, libc::SIGKILL) };
        start
    });
    let end = drain(seed, u64::MAX, &mut messages, &mut back)?;
    let noticed = Instant::now();
    let killed = killing.join().map_err(|_| anyhow!("the killing thread panicked"))?;
    ensure!(matches!(&end, Some(RecvError::PeerDied(cause)) if is_kill(&cause.ending)), "{end:?}");
    let sent = sending.join().map_err(|_| anyhow!("the sending thread panicked"))?;
    let is_told = matches!(&sent, Err(Reason::PeerDied(cause)) if is_kill(&cause.ending));
    ensure!(is_told || is_quiet && sent.is_ok(), "{sent:?}");
    let outcome = child.join_blocking();
    ensure!(outcome.as_ref().is_err_and(|error| is_kill(error.ending())), "{outcome:?}");
    Ok(Round { messages, notice: is_quiet.then(|| noticed - killed) })
}

fn is_kill(ending: &Ending) -> bool {
    matches!(ending, Ending::Signalled { signal: libc::SIGKILL, .. })
}

/// What this process and its launcher hold.
#[derive(Debug)]
struct Held {
    own_descriptors: usize,
    own_mappings: usize,
    own_threads: usize,
    launcher_descriptors: usize,
    launcher_memory_files: usize,
    processes: usize,
}

impl Held {
    fn now() -> Held {
        let (own, launcher) = (process::id(), parent_id());
        Held {
            own_descriptors: own::descriptors(own),
            own_mappings: own::rings().0,
            own_threads: fs::read_dir("/proc/self/task").map_or(0, Iterator::count),
            launcher_descriptors: own::descriptors(launcher),
            launcher_memory_files: own::descriptors_of(launcher, "memfd:archean"),
            processes: children(launcher).len(),
        }
    }

    fn is_no_more_than(&self, other: &Held) -> bool {
        self.own_descriptors <= other.own_descriptors
            && self.own_mappings <= other.own_mappings
            && self.own_threads <= other.own_threads
            && self.launcher_descriptors <= other.launcher_descriptors
            && self.launcher_memory_files <= other.launcher_memory_files
            && self.processes <= other.processes
    }
}
