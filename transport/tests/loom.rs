//! The ring's own code under the model checker: every interleaving, and every value that a load may give.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p transport --test loom --release`
//!
//! Real time is the one thing that the checker lacks, and a bounded sleep counts on it: what was stored before
//! the sleep began has left its writer's store buffer when it ends. [`time_passes`] stands for it.
#![cfg(loom)]
#![expect(unsafe_code, reason = "a ring's memory is an unsafe trait, and a claim's space is a pointer")]

use std::{cell::UnsafeCell, sync::Arc};

use loom::{
    cell,
    sync::{Condvar, Mutex},
    thread,
};
use protocol::frame::{Kind, frame_bytes};
use transport::{
    layout::{ConsumerWords, ProducerWords},
    ring::{
        Consumer, Memory, Producer, Wake,
        wait::{Sleep, begin_frame_wait, begin_room_wait, end_room_wait, is_frame_at},
    },
    seat::{Holder, Seat},
    sync::{AtomicU32, Ordering},
};

const CHUNK_BYTES: usize = size_of::<u128>();

/// A ring's memory of the checker's atomics. The space behind `capacity` is that of frames that wrap.
struct Heap {
    /// One a chunk that is watched, as are the accesses.
    lengths: Box<[Option<AtomicU32>]>,
    chunks: Box<[UnsafeCell<u128>]>,
    /// The checker's record of who reads and who writes a chunk, and in which order.
    accesses: Box<[Option<cell::UnsafeCell<()>>]>,
    producer: ProducerWords,
    consumer: ConsumerWords,
}

// SAFETY: the chunks are written by the ring's producer and read by its consumer, who keep out of each other's
// way by the rules under test; `accesses` fails the test when they do not.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

/// The memory as one of the two sides has it.
struct Side {
    heap: Arc<Heap>,
    writes: bool,
}

// SAFETY: `capacity` is a power of two from 64 on (`ring`). Words and bytes are found by the position modulo the
// capacity. There are twice as many chunks as the capacity has, so that `capacity` bytes from any position on are
// contiguous; each is readable and, being in a cell, writable.
unsafe impl Memory for Side {
    fn capacity(&self) -> usize {
        self.heap.lengths.len() * CHUNK_BYTES
    }

    fn length_word(&self, position: u64) -> &AtomicU32 {
        let chunk = position as usize % self.capacity() / CHUNK_BYTES;
        self.heap.lengths[chunk].as_ref().expect("a header where none was to be")
    }

    fn bytes(&self, position: u64, len: usize) -> *mut u8 {
        let first = position as usize % self.capacity() / CHUNK_BYTES;
        for chunk in first..first + len.div_ceil(CHUNK_BYTES) {
            match &self.heap.accesses[chunk % self.heap.accesses.len()] {
                Some(access) if self.writes => access.with_mut(|_| ()),
                Some(access) => access.with(|_| ()),
                None => {}
            }
        }
        // All chunks from there on, so that the pointer may reach them.
        self.heap.chunks[first..].as_ptr().cast_mut().cast()
    }

    fn producer_words(&self) -> &ProducerWords {
        &self.heap.producer
    }

    fn consumer_words(&self) -> &ConsumerWords {
        &self.heap.consumer
    }
}

/// The producer's and the consumer's side of a new ring.
fn ring(capacity: usize) -> [Side; 2] {
    ring_watched(capacity, |_| true)
}

/// As above. Of a large ring the checker can watch only a part: the places for which that is true.
fn ring_watched(capacity: usize, is_watched: impl Fn(usize) -> bool) -> [Side; 2] {
    assert!(capacity.is_power_of_two() && capacity >= 64);
    let count = capacity / CHUNK_BYTES;
    let watched = |chunk: usize| is_watched(chunk * CHUNK_BYTES).then_some(());
    let heap = Arc::new(Heap {
        lengths: (0..count).map(|chunk| watched(chunk).map(|()| AtomicU32::new(0))).collect(),
        chunks: (0..2 * count).map(|_| UnsafeCell::default()).collect(),
        accesses: (0..count).map(|chunk| watched(chunk).map(cell::UnsafeCell::new)).collect(),
        producer: ProducerWords::default(),
        consumer: ConsumerWords::default(),
    });
    [true, false].map(|writes| Side { heap: heap.clone(), writes })
}

/// A futex: the word changes outside the kernel's lock, who sleeps compares it inside.
#[derive(Default)]
struct Doorbell {
    word: AtomicU32,
    kernel: Mutex<()>,
    sleepers: Condvar,
}

impl Doorbell {
    fn answer(&self, wake: Wake) {
        if wake != Wake::No {
            self.word.fetch_add(1, Ordering::SeqCst);
            let _kernel = self.kernel.lock().unwrap();
            self.sleepers.notify_all();
        }
    }

    fn look(&self) -> u32 {
        self.word.load(Ordering::SeqCst)
    }

    fn park(&self, seen: u32) {
        let kernel = self.kernel.lock().unwrap();
        if self.look() == seen {
            drop(self.sleepers.wait(kernel).unwrap());
        }
    }
}

/// So much time that all which was stored in `load`'s word is seen. The checker gives no value again that was seen
/// before a yield, unless it is the newest.
fn time_passes<T: PartialEq>(load: impl Fn() -> T) {
    loop {
        let seen = load();
        thread::yield_now();
        if load() == seen {
            return;
        }
    }
}

fn fill(index: u8, payload_bytes: usize) -> Vec<u8> {
    (0..payload_bytes).map(|at| (index * 32).wrapping_add(at as u8 + 1)).collect()
}

/// Sends the frame of that index, if there is room.
fn try_send(producer: &mut Producer<Side>, index: u8, payload_bytes: usize) -> Option<Wake> {
    try_hold(producer, index, payload_bytes).map(Producer::flush)
}

/// Writes the frame of that index behind those that are held, if there is room.
fn try_hold(producer: &mut Producer<Side>, index: u8, payload_bytes: usize) -> Option<&mut Producer<Side>> {
    let claim = producer.claim(frame_bytes(payload_bytes, 0)).unwrap()?;
    let space = claim.payload();
    // SAFETY: the claim was granted for a payload of this size.
    unsafe { space.copy_from_nonoverlapping(fill(index, payload_bytes).as_ptr(), payload_bytes) };
    Some(claim.hold(Kind::Value, payload_bytes, &[]))
}

/// Takes a frame, if there is one, and checks that it is the one of that index.
fn try_receive(consumer: &mut Consumer<Side>, index: u8, payload_bytes: usize) -> Option<Wake> {
    let frame = consumer.peek().unwrap()?;
    assert_eq!(consumer.payload(&frame), fill(index, payload_bytes));
    Some(consumer.release(&frame))
}

/// Sleeps until there may be a frame. Gives what the sleep had to be.
fn sleep_for_a_frame(consumer: &Consumer<Side>, own: &Doorbell) -> Sleep {
    let seen = own.look();
    let sleep = begin_frame_wait(consumer.memory());
    match (is_frame_at(consumer.memory(), consumer.position()), sleep) {
        (true, _) => {}
        (false, Sleep::Bounded) => time_passes(|| consumer.next_word().load(Ordering::Acquire)),
        (false, Sleep::Sound) => own.park(seen),
    }
    sleep
}

fn send_or_sleep(producer: &mut Producer<Side>, index: u8, payload_bytes: usize, own: &Doorbell) -> Wake {
    loop {
        let seen = own.look();
        let position = producer.position_for(frame_bytes(payload_bytes, 0));
        let sleep = begin_room_wait(producer.memory(), position);
        if let Some(wake) = try_send(producer, index, payload_bytes) {
            end_room_wait(producer.memory());
            return wake;
        }
        match sleep {
            Sleep::Bounded => {
                time_passes(|| producer.memory().consumer_words().consumed.load(Ordering::Acquire))
            }
            Sleep::Sound => own.park(seen),
        }
    }
}

/// Three preemptions find every known way to break the ring, in seconds; `LOOM_MAX_PREEMPTIONS` allows more.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Of the frames with these payloads, in a ring of 128 bytes, the fourth wraps and the fifth starts where the second
/// had started.
const PAYLOADS: [usize; 5] = [16, 32, 5, 32, 16];

#[test]
fn frames_arrive_whole_and_in_order() {
    check(|| {
        let [data, positions] = ring(128);
        let sender = thread::spawn(move || {
            let mut producer = Producer::new(data);
            for (index, bytes) in PAYLOADS.into_iter().enumerate() {
                while try_send(&mut producer, index as u8, bytes).is_none() {
                    thread::yield_now();
                }
            }
        });
        let mut consumer = Consumer::new(positions);
        for (index, bytes) in PAYLOADS.into_iter().enumerate() {
            while try_receive(&mut consumer, index as u8, bytes).is_none() {
                thread::yield_now();
            }
        }
        sender.join().unwrap();
    });
}

/// Both sides by their quick paths, as most messages go, until those give nothing.
#[test]
fn plain_frames_arrive_whole_and_in_order() {
    const FRAMES: u8 = 4;
    check(|| {
        let [data, positions] = ring(64);
        let sender = thread::spawn(move || {
            let mut producer = Producer::new(data);
            for index in 0..FRAMES {
                while !try_send_plain(&mut producer, index) {
                    thread::yield_now();
                }
            }
        });
        let mut consumer = Consumer::new(positions);
        for index in 0..FRAMES {
            loop {
                if let Some(frame) = consumer.peek_plain() {
                    assert_eq!(consumer.payload(&frame), fill(index, 8));
                    let _nobody_waits = consumer.release(&frame);
                    break;
                }
                thread::yield_now();
            }
        }
        sender.join().unwrap();
    });
}

fn try_send_plain(producer: &mut Producer<Side>, index: u8) -> bool {
    let payload = fill(index, 8);
    let is_at_hand = producer.claim_usual().is_some_and(|claim| claim.payload_bytes_max() >= payload.len());
    let claim = match is_at_hand {
        true => producer.claim_usual(),
        false => producer.claim(frame_bytes(payload.len(), 0)).unwrap(),
    };
    let Some(claim) = claim else { return false };
    // SAFETY: the claim was granted for a payload of this size.
    unsafe { claim.payload().copy_from_nonoverlapping(payload.as_ptr(), payload.len()) };
    let _nobody_sleeps = claim.publish_plain(payload.len());
    true
}

#[test]
fn a_sleepy_consumer_is_woken() {
    check(|| {
        let [data, positions] = ring(128);
        let bell = Arc::new(Doorbell::default());
        let own = bell.clone();
        // The first wait is a matter of time (`falls_asleep`); those after it are not.
        assert_eq!(begin_frame_wait(&positions), Sleep::Bounded);
        let receiver = thread::spawn(move || {
            let mut consumer = Consumer::new(positions);
            for index in 0..2 {
                while try_receive(&mut consumer, index, 16).is_none() {
                    assert_eq!(sleep_for_a_frame(&consumer, &own), Sleep::Sound);
                }
            }
        });
        let mut producer = Producer::new(data);
        for index in 0..2 {
            bell.answer(try_send(&mut producer, index, 16).unwrap());
        }
        receiver.join().unwrap();
    });
}

#[test]
fn a_batch_is_seen_whole_and_wakes_once() {
    check(|| {
        let [data, positions] = ring(128);
        let bell = Arc::new(Doorbell::default());
        let own = bell.clone();
        assert_eq!(begin_frame_wait(&positions), Sleep::Bounded);
        let receiver = thread::spawn(move || {
            let mut consumer = Consumer::new(positions);
            while try_receive(&mut consumer, 0, 16).is_none() {
                assert_eq!(sleep_for_a_frame(&consumer, &own), Sleep::Sound);
            }
            assert!(try_receive(&mut consumer, 1, 32).is_some(), "half a batch");
        });
        let mut producer = Producer::new(data);
        for (index, bytes) in [(0, 16), (1, 32)] {
            assert!(try_hold(&mut producer, index, bytes).is_some());
        }
        bell.answer(producer.flush());
        receiver.join().unwrap();
    });
}

/// The first frame skips to the ring's start, because memory that was not used before follows. The second leaves no
/// room but what was skipped, and the third hops over the header that says so, if it is still there.
#[test]
fn skips_are_read_while_frames_are_written() {
    const CAPACITY: usize = 32 << 10;
    /// What a new ring takes for used.
    const USED: usize = CAPACITY / 2;
    const SKIP_AT: usize = USED - 64;
    const PAYLOADS: [usize; 3] = [64, USED - 256, 256];
    check(|| {
        let is_watched = |place: usize| place < 512 || (SKIP_AT - 256..USED + 256).contains(&place);
        let [data, positions] = ring_watched(CAPACITY, is_watched);
        let (mut producer, mut consumer) = (Producer::new(data), Consumer::new(positions));
        for bytes in [SKIP_AT - 64 - 16, 48] {
            assert!(try_send(&mut producer, 0, bytes).is_some());
            assert!(try_receive(&mut consumer, 0, bytes).is_some());
        }
        assert_eq!(consumer.position(), SKIP_AT as u64);
        let sender = thread::spawn(move || {
            for (index, bytes) in PAYLOADS.into_iter().enumerate() {
                assert!(try_send(&mut producer, index as u8, bytes).is_some(), "no room");
            }
        });
        for (index, bytes) in PAYLOADS.into_iter().enumerate() {
            while try_receive(&mut consumer, index as u8, bytes).is_none() {
                thread::yield_now();
            }
        }
        sender.join().unwrap();
        let straight: usize = PAYLOADS.into_iter().map(|bytes| frame_bytes(bytes, 0)).sum();
        let last = frame_bytes(PAYLOADS[2], 0);
        let place = consumer.position() as usize % CAPACITY;
        // As it follows, over the header, or, when all was read before, at the start once more.
        assert!([straight, SKIP_AT + 16 + last, last].contains(&place), "ends at {place}");
    });
}

/// Passes an empty frame on, and says whether the consumer was woken for it.
fn pass(producer: &mut Producer<Side>, consumer: &mut Consumer<Side>) -> Wake {
    let wake = try_send(producer, 0, 0).unwrap();
    let frame = consumer.peek().unwrap().unwrap();
    assert_eq!(consumer.release(&frame), Wake::No, "nobody waits for room");
    wake
}

/// A consumer that does not sleep falls asleep while a frame is sent. What went before must not be taken for it.
fn falls_asleep(before: fn(&mut Producer<Side>, &mut Consumer<Side>)) {
    check(move || {
        let [data, positions] = ring(128);
        let (mut producer, mut consumer) = (Producer::new(data), Consumer::new(positions));
        before(&mut producer, &mut consumer);
        // The producer knows for long that the consumer streams: it misses no change that is older than its look.
        time_passes(|| producer.memory().consumer_words().mode.load(Ordering::Relaxed));

        let bell = Arc::new(Doorbell::default());
        let own = bell.clone();
        let receiver = thread::spawn(move || {
            while consumer.peek().unwrap().is_none() {
                let _either = sleep_for_a_frame(&consumer, &own);
            }
        });
        bell.answer(try_send(&mut producer, 0, 0).unwrap());
        receiver.join().unwrap();
    });
}

#[test]
fn a_consumer_that_never_slept_is_woken() {
    falls_asleep(|_, _| ());
}

#[test]
fn a_consumer_that_streamed_is_woken() {
    falls_asleep(|producer, consumer| {
        for sleep in [Sleep::Bounded, Sleep::Sound] {
            assert_eq!(begin_frame_wait(consumer.memory()), sleep);
            assert_eq!(pass(producer, consumer), Wake::Peer(0));
        }
        for _ in 0..256 {
            let _awake = pass(producer, consumer);
            consumer.settle();
        }
        assert_eq!(pass(producer, consumer), Wake::No, "it streams");
    });
}

/// A ring that `payloads` fill, a producer asleep over one more frame of `last` bytes, a consumer that makes room.
fn full_ring(capacity: usize, payloads: &'static [usize], last: usize) {
    check(move || {
        let [data, positions] = ring(capacity);
        let (mut producer, mut consumer) = (Producer::new(data), Consumer::new(positions));
        for (index, bytes) in payloads.iter().enumerate() {
            assert!(try_send(&mut producer, index as u8, *bytes).is_some());
        }
        // The consumer knows for long that nobody waits: it misses no wait that is older than its look.
        time_passes(|| consumer.memory().producer_words().waiting.load(Ordering::Relaxed));

        let bell = Arc::new(Doorbell::default());
        let own = bell.clone();
        let sender = thread::spawn(move || {
            let _nobody_sleeps = send_or_sleep(&mut producer, payloads.len() as u8, last, &own);
        });
        for (index, bytes) in payloads.iter().enumerate() {
            bell.answer(try_receive(&mut consumer, index as u8, *bytes).unwrap());
        }
        sender.join().unwrap();
        assert!(try_receive(&mut consumer, payloads.len() as u8, last).is_some());
    });
}

#[test]
fn a_producer_that_needs_one_frame_released_is_woken() {
    full_ring(64, &[16], 16);
}

#[test]
fn a_producer_that_needs_two_frames_released_is_woken() {
    full_ring(128, &[16, 16, 16], 48);
}

/// Whoever sleeps because the seat is taken gets it, or goes away, in whatever order threads come and go.
#[test]
fn nobody_sleeps_while_the_seat_is_free() {
    let sit = |seat: &Seat, goes_away: bool| {
        loop {
            let turn = seat.turn().load(Ordering::SeqCst);
            let waiting = seat.wait();
            if seat.try_take(Holder::Waiter) {
                drop(waiting);
                let _ = seat.leave();
                return;
            }
            while seat.turn().load(Ordering::SeqCst) == turn {
                thread::yield_now();
            }
            drop(waiting);
            if goes_away {
                // It has what it waited for.
                let _ = seat.pass_on();
                return;
            }
        }
    };
    let meet = move |waiters: &'static [bool]| {
        let seat = Arc::new(Seat::default());
        assert!(seat.try_take(Holder::Waiter));
        let start = |goes_away: &bool| {
            let (seat, goes_away) = (seat.clone(), *goes_away);
            thread::spawn(move || sit(&seat, goes_away))
        };
        let threads: Vec<_> = waiters.iter().map(start).collect();
        let _ = seat.leave();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(seat.holder(), Holder::Nobody);
        assert!(!seat.is_wanted());
    };
    check(move || meet(&[false]));
    // Three threads that wait for one another have all too many orders to meet in.
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(1);
    builder.check(move || meet(&[false, true]));
}
