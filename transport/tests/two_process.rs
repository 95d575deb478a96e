//! A ring between two processes: this one, and the test program again, told by a variable to run the same test as
//! the other side, with the descriptors that a manager would hand it.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "descriptors are inherited, and a claim's space is a pointer")]

use std::{
    env,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{self, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use protocol::frame::{frame_bytes, payload_bytes_max};
use transport::{
    layout::PAGE_BYTES,
    park::{FIRST_SLEEP, park},
    ring::{
        Consumer, Producer, Wake,
        wait::{Sleep, begin_frame_wait, begin_room_wait, end_room_wait},
    },
    segment::{Doorbell, Files, Mapped, Words, create, reopen_read_only},
};

/// Set for the child: the numbers of its descriptors.
const DESCRIPTORS: &str = "ARCHEAN_TEST_DESCRIPTORS";

/// What a manager makes for a ring, and what the test counts beside it.
struct Wiring {
    data: OwnedFd,
    positions: OwnedFd,
    producer_bell: OwnedFd,
    consumer_bell: OwnedFd,
    counts: OwnedFd,
}

/// The words that the test counts in.
#[derive(Clone, Copy)]
enum Count {
    /// Odd while the producer is in a sleep that only the doorbell ends.
    ProducerSleeps,
    /// As above.
    ConsumerSleeps,
    /// Frames that were published for certain.
    Published,
}

impl Wiring {
    fn create(capacity: usize) -> Wiring {
        let files = Files::create(capacity).unwrap();
        let page = || create(c"archean-test", PAGE_BYTES).unwrap();
        Wiring {
            data: files.data,
            positions: files.consumer,
            producer_bell: page(),
            consumer_bell: page(),
            counts: page(),
        }
    }

    /// What the producer is given: the consumer's positions are not for it to write.
    fn for_producer(&self) -> Wiring {
        let same = |file: &OwnedFd| file.try_clone().unwrap();
        Wiring {
            data: same(&self.data),
            positions: reopen_read_only(self.positions.as_fd()).unwrap(),
            producer_bell: same(&self.producer_bell),
            consumer_bell: same(&self.consumer_bell),
            counts: same(&self.counts),
        }
    }

    fn raw(&self) -> [RawFd; 5] {
        [&self.data, &self.positions, &self.producer_bell, &self.consumer_bell, &self.counts]
            .map(AsRawFd::as_raw_fd)
    }

    /// What this process was given, if it is the child.
    fn inherited() -> Option<Wiring> {
        let numbers = env::var(DESCRIPTORS).ok()?;
        let mut files = numbers.split(',').map(|number| {
            // SAFETY: the parent left these descriptors open for this process, each for one owner, which is taken
            // here, once: a child runs one test.
            unsafe { OwnedFd::from_raw_fd(number.parse().unwrap()) }
        });
        let mut next = || files.next().unwrap();
        Some(Wiring {
            data: next(),
            positions: next(),
            producer_bell: next(),
            consumer_bell: next(),
            counts: next(),
        })
    }

    fn counts(&self) -> Words {
        Words::map(self.counts.as_fd(), 3, 128, true).unwrap()
    }
}

/// The other process. It is killed, and gone, when this is dropped.
struct Child(process::Child);

impl Child {
    /// Starts this program anew, to run `test` as the producer.
    fn start(test: &str, wiring: &Wiring) -> Child {
        let given = wiring.for_producer();
        let raw = given.raw();
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(DESCRIPTORS, raw.map(|file| file.to_string()).join(","))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // SAFETY: between fork and exec only system calls are made, on plain values.
        unsafe {
            command.pre_exec(move || {
                // When the parent aborts, nobody else would end the child.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                for file in raw {
                    if libc::fcntl(file, libc::F_SETFD, 0) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        Child(command.spawn().unwrap())
    }

    fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail for a child that was waited for, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Aborts the whole program when a test hangs, unless it is dropped before. The child follows its parent.
struct Watchdog(#[expect(dead_code, reason = "dropping it is the message")] mpsc::Sender<()>);

impl Watchdog {
    fn start(test: &'static str) -> Watchdog {
        let (alive, test_ended) = mpsc::channel();
        thread::spawn(move || {
            if test_ended.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test} hangs: aborting");
                process::abort();
            }
        });
        Watchdog(alive)
    }
}

/// Sleeps as a process does: bounded, or until its doorbell rings.
fn sleep(sleep: Sleep, own: &Doorbell, seen: u32, sleeps: &AtomicU32) {
    match sleep {
        Sleep::Bounded => {
            let end = Instant::now() + FIRST_SLEEP;
            while Instant::now() < end && own.word().load(Ordering::SeqCst) == seen {
                park([(own.word(), seen)], Some(end));
            }
        }
        Sleep::Sound => {
            sleeps.fetch_add(1, Ordering::SeqCst);
            park([(own.word(), seen)], None);
            sleeps.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

fn is_odd(word: &AtomicU32) -> bool {
    word.load(Ordering::SeqCst) % 2 == 1
}

struct Sender {
    producer: Producer<Mapped>,
    own: Doorbell,
    peer: Doorbell,
    counts: Words,
}

impl Sender {
    fn new(wiring: &Wiring, capacity: usize) -> Sender {
        let ring = Mapped::for_producer(wiring.data.as_fd(), wiring.positions.as_fd(), capacity).unwrap();
        Sender {
            producer: Producer::new(ring),
            own: Doorbell::map(wiring.producer_bell.as_fd()).unwrap(),
            peer: Doorbell::map(wiring.consumer_bell.as_fd()).unwrap(),
            counts: wiring.counts(),
        }
    }

    fn count(&self, count: Count) -> &AtomicU32 {
        self.counts.word(count as usize)
    }

    /// Sends the frame of that index; sleeps while it has no room.
    fn send(&mut self, index: u32, payload_bytes: usize) {
        let frame_bytes = frame_bytes(payload_bytes, 0);
        let mut waited = false;
        while self.producer.claim(frame_bytes).unwrap().is_none() {
            let seen = self.own.word().load(Ordering::SeqCst);
            let position = self.producer.position_for(frame_bytes);
            let kind = begin_room_wait(self.producer.memory(), position);
            waited = true;
            if self.producer.claim(frame_bytes).unwrap().is_none() {
                sleep(kind, &self.own, seen, self.count(Count::ProducerSleeps));
            }
        }
        if waited {
            end_room_wait(self.producer.memory());
        }
        let claim = self.producer.claim(frame_bytes).unwrap().unwrap();
        // SAFETY: the claim was granted for a payload of this size; a file's bytes are initialised; the consumer
        // reads none of them before the claim is published, when the slice is gone.
        let space = unsafe { std::slice::from_raw_parts_mut(claim.payload(), payload_bytes) };
        fill(space, index);
        if let Wake::Peer(slot) = claim.publish(payload_bytes, &[]) {
            self.peer.ring(slot);
        }
        self.count(Count::Published).store(index + 1, Ordering::SeqCst);
    }
}

struct Receiver {
    consumer: Consumer<Mapped>,
    own: Doorbell,
    peer: Doorbell,
    counts: Words,
}

impl Receiver {
    fn new(wiring: &Wiring, capacity: usize) -> Receiver {
        let data = reopen_read_only(wiring.data.as_fd()).unwrap();
        let ring = Mapped::for_consumer(data.as_fd(), wiring.positions.as_fd(), capacity).unwrap();
        Receiver {
            consumer: Consumer::new(ring),
            own: Doorbell::map(wiring.consumer_bell.as_fd()).unwrap(),
            peer: Doorbell::map(wiring.producer_bell.as_fd()).unwrap(),
            counts: wiring.counts(),
        }
    }

    fn count(&self, count: Count) -> &AtomicU32 {
        self.counts.word(count as usize)
    }

    /// Receives the frame of that index, if there is one, and checks it. Gives whether the sender had to be woken.
    fn try_receive(&mut self, index: u32) -> Option<bool> {
        let frame = self.consumer.peek().unwrap()?;
        // Skips count as well.
        assert!(frame.sequence() >= index);
        check(self.consumer.payload(&frame), index);
        let wake = self.consumer.release(&frame);
        if let Wake::Peer(slot) = wake {
            self.peer.ring(slot);
        }
        self.consumer.settle();
        Some(wake != Wake::No)
    }

    /// Receives the frame of that index; sleeps until it is there.
    fn receive(&mut self, index: u32) {
        while self.try_receive(index).is_none() {
            let seen = self.own.word().load(Ordering::SeqCst);
            let kind = begin_frame_wait(self.consumer.memory());
            if self.consumer.peek().unwrap().is_none() {
                sleep(kind, &self.own, seen, self.count(Count::ConsumerSleeps));
            }
        }
    }
}

/// A payload: a checksum of index and content, then the content.
fn fill(payload: &mut [u8], index: u32) {
    let (sum, content) = payload.split_first_chunk_mut().unwrap();
    let mut state = index;
    for byte in &mut *content {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    *sum = checksum(index, content).to_le_bytes();
}

fn check(payload: &[u8], index: u32) {
    let (sum, content) = payload.split_first_chunk().unwrap();
    assert_eq!(u32::from_le_bytes(*sum), checksum(index, content), "frame {index} arrived damaged");
}

/// FNV-1a.
fn checksum(index: u32, content: &[u8]) -> u32 {
    index
        .to_le_bytes()
        .iter()
        .chain(content)
        .fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Mostly small frames, some large ones, now and then one that fills the ring.
fn mixed_bytes(index: u32, capacity: usize) -> usize {
    let random = index.wrapping_mul(2_654_435_761) as usize >> 8;
    match index % 1000 {
        0 => payload_bytes_max(capacity),
        1..10 => 4 + random % (capacity / 8),
        _ => 4 + random % 200,
    }
}

#[test]
fn frames_arrive_in_order_while_both_sides_sleep_and_wake() {
    const TEST: &str = "frames_arrive_in_order_while_both_sides_sleep_and_wake";
    const CAPACITY: usize = 64 << 10;
    const FRAMES: u32 = 200_000;
    // So often each side stops until the other sleeps: more frames than the ring holds.
    const STOP_EVERY: u32 = 20_000;

    if let Some(wiring) = Wiring::inherited() {
        let mut sender = Sender::new(&wiring, CAPACITY);
        for index in 0..FRAMES {
            if index % STOP_EVERY == 0 {
                until(|| is_odd(sender.count(Count::ConsumerSleeps)));
            }
            sender.send(index, mixed_bytes(index, CAPACITY));
        }
        return;
    }
    let _watchdog = Watchdog::start(TEST);
    let wiring = Wiring::create(CAPACITY);
    let mut receiver = Receiver::new(&wiring, CAPACITY);
    let mut child = Child::start(TEST, &wiring);
    for index in 0..FRAMES {
        if index % STOP_EVERY == STOP_EVERY / 2 {
            until(|| is_odd(receiver.count(Count::ProducerSleeps)));
        }
        receiver.receive(index);
    }
    assert!(child.wait().success());
    assert!(receiver.try_receive(FRAMES).is_none());
    for sleeps in [Count::ProducerSleeps, Count::ConsumerSleeps] {
        let word = receiver.count(sleeps).load(Ordering::SeqCst);
        assert!(word >= 2 * FRAMES / STOP_EVERY, "too few sleeps: {}", word / 2);
    }
}

#[test]
fn a_sender_asleep_over_a_full_ring_is_woken_by_each_frame() {
    const TEST: &str = "a_sender_asleep_over_a_full_ring_is_woken_by_each_frame";
    const CAPACITY: usize = 4 << 10;
    const FRAMES: u32 = 500;
    // Two fill the ring.
    const PAYLOAD_BYTES: usize = 2000;

    if let Some(wiring) = Wiring::inherited() {
        let mut sender = Sender::new(&wiring, CAPACITY);
        (0..FRAMES).for_each(|index| sender.send(index, PAYLOAD_BYTES));
        return;
    }
    let _watchdog = Watchdog::start(TEST);
    let wiring = Wiring::create(CAPACITY);
    let mut receiver = Receiver::new(&wiring, CAPACITY);
    let mut child = Child::start(TEST, &wiring);
    let mut last = 0;
    for index in 0..FRAMES - 2 {
        // A sleep that is not the one which the last frame ended.
        until(|| receiver.count(Count::ProducerSleeps).load(Ordering::SeqCst) > last);
        until(|| is_odd(receiver.count(Count::ProducerSleeps)));
        last = receiver.count(Count::ProducerSleeps).load(Ordering::SeqCst) | 1;
        assert_eq!(receiver.try_receive(index), Some(true), "frame {index}");
    }
    assert!(child.wait().success());
    for index in FRAMES - 2..FRAMES {
        assert_eq!(receiver.try_receive(index), Some(false), "frame {index}");
    }
}

#[test]
fn a_killed_sender_leaves_all_that_it_published() {
    const TEST: &str = "a_killed_sender_leaves_all_that_it_published";
    const CAPACITY: usize = 64 << 10;

    if let Some(wiring) = Wiring::inherited() {
        let mut sender = Sender::new(&wiring, CAPACITY);
        for index in 0.. {
            sender.send(index, mixed_bytes(index, CAPACITY));
        }
    }
    let _watchdog = Watchdog::start(TEST);
    for killed_after in [1, 2, 50, 333, 1000, 2718, 7777, 12_345] {
        let wiring = Wiring::create(CAPACITY);
        let mut receiver = Receiver::new(&wiring, CAPACITY);
        let mut child = Child::start(TEST, &wiring);
        for index in 0..killed_after {
            receiver.receive(index);
        }
        child.0.kill().unwrap();
        assert_eq!(child.wait().signal(), Some(libc::SIGKILL));
        let mut received = killed_after;
        while receiver.try_receive(received).is_some() {
            received += 1;
        }
        // It may have died after it published a frame and before it counted it.
        let counted = receiver.count(Count::Published).load(Ordering::SeqCst);
        assert!((counted..=counted + 1).contains(&received), "{received} of {counted} received");
    }
}
