//! Random operations on a ring against a queue, and a ring whose other side writes what it likes; on the heap and
//! on the files that processes share.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "a ring's memory is an unsafe trait, and a claim's space is a pointer")]

use std::{
    cell::UnsafeCell,
    collections::VecDeque,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use proptest::{collection::vec, prelude::*};
use protocol::{
    frame::{FLAG_ENDS, HEADER_BYTES, Kind, frame_bytes, payload_bytes_max},
    ids::{EndId, ProcessId},
    limits::RING_BYTES_MIN,
};
use transport::{
    layout::{ConsumerWords, ProducerWords},
    ring::{
        Consumer, Memory, Producer, Wake,
        wait::{Sleep, begin_frame_wait, begin_room_wait, end_room_wait, is_consumed_to, is_frame_at},
    },
    segment::{Files, Mapped},
};

/// Memory that the tests make rings of.
trait TestMemory: Memory + Sized {
    /// The least capacity that it can have.
    const CAPACITY_MIN: usize;

    /// New memory as its producer and as its consumer have it.
    fn sides(capacity: usize) -> [Arc<Self>; 2];

    /// Fails when something was written that is no part of the memory.
    fn check_guards(&self) {}
}

/// Sixteen bytes, as the ring aligns them.
type Chunk = u128;
const GUARD: Chunk = 0xA5A5_5A5A_0123_4567_89AB_CDEF_A5A5_5A5A;
const GUARDS: usize = 4;

/// A ring's memory on the heap: guards, the frames, the space of frames that wrap, guards.
struct Heap {
    capacity: usize,
    chunks: Box<[UnsafeCell<Chunk>]>,
    producer: ProducerWords,
    consumer: ConsumerWords,
}

// SAFETY: each test uses the memory from one thread.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

// SAFETY: `capacity` is a power of two from 64 on (`sides`). Words and bytes are found by the position modulo the
// capacity. Between the guards there are twice the capacity's bytes, so that `capacity` of them are contiguous from
// any position on; all are readable and, being in cells, writable.
unsafe impl Memory for Heap {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn length_word(&self, position: u64) -> &AtomicU32 {
        // SAFETY: a position is a multiple of sixteen, so the word is aligned; it lies in the chunks, which live as
        // long as `self`; one thread uses it at a time.
        unsafe { AtomicU32::from_ptr(self.bytes(position, HEADER_BYTES).cast()) }
    }

    fn bytes(&self, position: u64, len: usize) -> *mut u8 {
        assert!(len <= self.capacity, "{len} bytes of a ring of {}", self.capacity);
        let first: *const UnsafeCell<Chunk> = self.chunks.as_ptr();
        let offset = GUARDS * size_of::<Chunk>() + position as usize % self.capacity;
        // SAFETY: behind the guards come two times `capacity` bytes.
        unsafe { first.cast_mut().cast::<u8>().add(offset) }
    }

    fn producer_words(&self) -> &ProducerWords {
        &self.producer
    }

    fn consumer_words(&self) -> &ConsumerWords {
        &self.consumer
    }
}

impl TestMemory for Heap {
    const CAPACITY_MIN: usize = 64;

    fn sides(capacity: usize) -> [Arc<Self>; 2] {
        assert!(capacity.is_power_of_two() && capacity >= Self::CAPACITY_MIN);
        let frames = 2 * capacity / size_of::<Chunk>();
        let chunk = |index| {
            let inside = (GUARDS..GUARDS + frames).contains(&index);
            UnsafeCell::new(if inside { 0 } else { GUARD })
        };
        let heap = Arc::new(Heap {
            capacity,
            chunks: (0..frames + 2 * GUARDS).map(chunk).collect(),
            producer: ProducerWords::default(),
            consumer: ConsumerWords::default(),
        });
        [heap.clone(), heap]
    }

    fn check_guards(&self) {
        let (front, rest) = self.chunks.split_at(GUARDS);
        let (_, back) = rest.split_at(rest.len() - GUARDS);
        for guard in front.iter().chain(back) {
            // SAFETY: one thread uses the memory, and it holds no reference into a chunk here.
            assert_eq!(unsafe { guard.get().read() }, GUARD, "written outside the ring");
        }
    }
}

impl TestMemory for Mapped {
    const CAPACITY_MIN: usize = RING_BYTES_MIN;

    fn sides(capacity: usize) -> [Arc<Self>; 2] {
        let files = Files::create(capacity).unwrap();
        let (data, consumer) = (files.data.as_fd(), files.consumer.as_fd());
        [
            Arc::new(Mapped::for_producer(data, consumer, capacity).unwrap()),
            Arc::new(Mapped::for_consumer(data, consumer, capacity).unwrap()),
        ]
    }
}

/// What the two sides do. Sizes are cut to what the ring makes interesting.
#[derive(Debug, Clone)]
enum Op {
    Send { size: usize, ends: usize },
    Receive,
    ReceiverWaits,
    ReceiverSettles,
    SenderWaits { size: usize },
    SenderResumes,
}

fn op() -> impl Strategy<Value = Op> {
    let size = || prop_oneof![4 => 0..48usize, 1 => 0..1usize << 16];
    let ends = prop_oneof![3 => Just(0), 1 => 1..5usize];
    prop_oneof![
        12 => (size(), ends).prop_map(|(size, ends)| Op::Send { size, ends }),
        12 => Just(Op::Receive),
        1 => Just(Op::ReceiverWaits),
        2 => Just(Op::ReceiverSettles),
        1 => size().prop_map(|size| Op::SenderWaits { size }),
        1 => Just(Op::SenderResumes),
    ]
}

/// A size of a payload: from nothing to a little more than the largest.
fn payload_bytes(size: usize, capacity: usize) -> usize {
    size % (payload_bytes_max(capacity) + 2 * HEADER_BYTES)
}

fn payload(sequence: u32, payload_bytes: usize) -> Vec<u8> {
    (0..payload_bytes).map(|at| (at as u32).wrapping_mul(7).wrapping_add(sequence) as u8).collect()
}

fn end(sequence: u32, index: usize) -> EndId {
    EndId::new(ProcessId(sequence.into()), index as u64)
}

/// The queue that a ring must equal, and what each side must be told about the other's sleep.
#[derive(Default)]
struct Model {
    /// Payload size and count of ends of each frame in the ring.
    frames: VecDeque<(usize, usize)>,
    used_bytes: usize,
    sent: u32,
    received: u32,
    receiver_sleeps: bool,
    sender_waits_for: Option<u64>,
    sender_is_woken: bool,
}

struct Ring<M> {
    producer: Producer<Arc<M>>,
    consumer: Consumer<Arc<M>>,
    model: Model,
}

impl<M: TestMemory> Ring<M> {
    fn new(capacity: usize) -> Self {
        let [data, positions] = M::sides(capacity);
        Ring { producer: Producer::new(data), consumer: Consumer::new(positions), model: Model::default() }
    }

    fn apply(&mut self, op: &Op) {
        let capacity = self.producer.memory().capacity();
        match *op {
            Op::Send { size, ends } => self.send(payload_bytes(size, capacity), ends),
            Op::Receive => self.receive(),
            Op::ReceiverWaits => self.receiver_waits(),
            Op::ReceiverSettles => self.consumer.settle(),
            Op::SenderWaits { size } => self.sender_waits(frame_bytes(payload_bytes(size, capacity), 0)),
            Op::SenderResumes => {
                end_room_wait(self.producer.memory());
                self.model.sender_waits_for = None;
            }
        }
    }

    /// A frame is accepted exactly when it has room, and every byte of the room is given.
    fn send(&mut self, payload_bytes: usize, ends: usize) {
        let model = &mut self.model;
        let room = self.producer.memory().capacity() - HEADER_BYTES - model.used_bytes;
        let frame_bytes = frame_bytes(payload_bytes, ends);
        let must_reach = self.producer.position_for(frame_bytes);
        assert_eq!(self.consumer.position() >= must_reach, frame_bytes <= room);
        assert_eq!(is_consumed_to(self.producer.memory(), must_reach), frame_bytes <= room);

        let Some(claim) = self.producer.claim(frame_bytes).unwrap() else {
            assert!(frame_bytes > room, "{frame_bytes} bytes refused, {room} are free");
            return;
        };
        assert!(frame_bytes <= room, "{frame_bytes} bytes accepted, {room} are free");
        let granted = claim.payload_bytes_max() + HEADER_BYTES;
        assert!(frame_bytes <= granted && granted <= room, "{granted} granted of {room}");
        let space = claim.payload();
        assert!(space.addr().is_multiple_of(HEADER_BYTES));
        // SAFETY: the claim was granted for a payload of this size.
        unsafe { space.copy_from_nonoverlapping(payload(model.sent, payload_bytes).as_ptr(), payload_bytes) };
        let ids: Vec<_> = (0..ends).map(|index| end(model.sent, index)).collect();
        let wake = claim.publish(payload_bytes, &ids);

        assert_eq!(wake != Wake::No, model.receiver_sleeps, "once for each wait");
        model.receiver_sleeps = false;
        model.frames.push_back((payload_bytes, ends));
        model.used_bytes += frame_bytes;
        model.sent = model.sent.wrapping_add(1);
    }

    fn receive(&mut self) {
        let model = &mut self.model;
        assert_eq!(is_frame_at(self.consumer.memory(), self.consumer.position()), !model.frames.is_empty());
        let Some(frame) = self.consumer.peek().unwrap() else {
            assert!(model.frames.is_empty(), "{} frames are not seen", model.frames.len());
            return;
        };
        let (payload_bytes, ends) = model.frames.pop_front().expect("a frame that nobody sent");
        assert_eq!(frame.header.sequence, model.received);
        assert_eq!(self.consumer.payload(&frame), payload(model.received, payload_bytes));
        let ids: Vec<_> = (0..ends).map(|index| end(model.received, index)).collect();
        assert_eq!(self.consumer.ends(&frame).collect::<Vec<_>>(), ids);
        let wake = self.consumer.release(&frame);

        let reached = model.sender_waits_for.is_some_and(|position| position <= self.consumer.position());
        assert_eq!(wake != Wake::No, reached && !model.sender_is_woken, "once, when there is room");
        model.sender_is_woken |= reached;
        model.used_bytes -= frame_bytes(payload_bytes, ends);
        model.received = model.received.wrapping_add(1);
    }

    fn receiver_waits(&mut self) {
        let _time_does_not_matter_here = begin_frame_wait(self.consumer.memory());
        self.model.receiver_sleeps = true;
    }

    /// As a sender does that finds no room.
    fn sender_waits(&mut self, frame_bytes: usize) {
        if self.producer.claim(frame_bytes).unwrap().is_some() {
            return;
        }
        let position = self.producer.position_for(frame_bytes);
        let again = self.model.sender_waits_for.replace(position) == Some(position);
        let sleep = begin_room_wait(self.producer.memory(), position);
        assert_eq!(sleep, if again { Sleep::Sound } else { Sleep::Bounded });
        self.model.sender_is_woken = false;
    }
}

fn obeys_the_model<M: TestMemory>(capacity: usize, ops: &[Op]) {
    let mut ring = Ring::<M>::new(capacity);
    ops.iter().for_each(|op| ring.apply(op));
    // What is left is received, and the largest frame has room again.
    while !ring.model.frames.is_empty() {
        ring.receive();
    }
    let sent = ring.model.sent;
    ring.send(payload_bytes_max(capacity), 0);
    ring.receive();
    assert_eq!(ring.model.sent, sent + 1);
    ring.producer.memory().check_guards();
}

/// Frames of many sizes around the ring a thousand times.
fn goes_around<M: TestMemory>() {
    let mut ring = Ring::<M>::new(M::CAPACITY_MIN);
    while ring.consumer.position() < 1000 * M::CAPACITY_MIN as u64 {
        let size = ring.model.sent as usize * 7 % 40;
        ring.send(size % (payload_bytes_max(M::CAPACITY_MIN) + 1), 0);
        ring.receive();
    }
    ring.producer.memory().check_guards();
}

#[test]
fn a_ring_goes_around_on_the_heap() {
    goes_around::<Heap>();
}

#[test]
fn a_ring_goes_around_on_files() {
    goes_around::<Mapped>();
}

/// A stream costs the sender no look; the wait that ends it is bounded, the next one need not be.
#[test]
fn a_stream_ends_with_a_bounded_wait() {
    let mut ring = Ring::<Heap>::new(64);
    assert_eq!(begin_frame_wait(ring.consumer.memory()), Sleep::Bounded, "a new ring counts as a stream");
    for _ in 0..3 {
        assert_eq!(begin_frame_wait(ring.consumer.memory()), Sleep::Sound);
        for _ in 0..256 {
            ring.model.receiver_sleeps = ring.model.sent.is_multiple_of(256);
            ring.send(8, 0);
            ring.receive();
            ring.consumer.settle();
        }
        assert_eq!(begin_frame_wait(ring.consumer.memory()), Sleep::Bounded);
    }
}

/// What a hostile side writes, and where.
#[derive(Debug, Clone)]
enum Attack {
    None,
    /// Bytes anywhere in the data file.
    Bytes {
        position: u64,
        bytes: Vec<u8>,
    },
    /// A header where the consumer looks next, with as many wrong fields as are given.
    Header {
        length: u32,
        ends: u16,
        kind: Option<u8>,
        flags: Option<u8>,
        sequence: Option<u32>,
    },
    Waiting(u64),
    Mode(u32),
    /// A position, from the consumer's own.
    Consumed(i64),
}

fn attack() -> impl Strategy<Value = Attack> {
    use proptest::option::weighted;
    let length = prop_oneof![3 => 0..256u32, 2 => 0..1u32 << 13, 1 => any::<u32>()];
    let ends = prop_oneof![3 => Just(0), 2 => 0..8u16, 1 => any::<u16>()];
    let header = (
        length,
        ends,
        weighted(0.05, any::<u8>()),
        weighted(0.05, any::<u8>()),
        weighted(0.05, any::<u32>()),
    );
    let consumed = prop_oneof![-64..256i64, (-8..16i64).prop_map(|chunks| chunks * 16), any::<i64>()];
    prop_oneof![
        8 => Just(Attack::None),
        2 => (any::<u64>(), vec(any::<u8>(), 1..64))
            .prop_map(|(position, bytes)| Attack::Bytes { position, bytes }),
        6 => header.prop_map(|(length, ends, kind, flags, sequence)| {
            Attack::Header { length, ends, kind, flags, sequence }
        }),
        1 => any::<u64>().prop_map(Attack::Waiting),
        1 => any::<u32>().prop_map(Attack::Mode),
        2 => consumed.prop_map(Attack::Consumed),
    ]
}

impl<M: TestMemory> Ring<M> {
    fn attack(&self, attack: &Attack, sequence: u32) {
        let (data, positions) = (self.producer.memory(), self.consumer.memory());
        let write = |position: u64, bytes: &[u8]| {
            // SAFETY: the producer's mapping is writable, for any count of bytes up to the capacity; one thread
            // uses the ring, and holds no reference into it here.
            unsafe { data.bytes(position, bytes.len()).copy_from(bytes.as_ptr(), bytes.len()) };
        };
        match attack {
            Attack::None => {}
            Attack::Bytes { position, bytes } => write(*position, bytes),
            Attack::Header { length, ends, kind, flags, sequence: wrong } => {
                let mut bytes = [0; HEADER_BYTES];
                bytes[..4].copy_from_slice(&length.to_le_bytes());
                bytes[4] = kind.unwrap_or(Kind::Value as u8);
                bytes[5] = flags.unwrap_or(if *ends == 0 { 0 } else { FLAG_ENDS });
                bytes[6..8].copy_from_slice(&ends.to_le_bytes());
                bytes[8..12].copy_from_slice(&wrong.unwrap_or(sequence).to_le_bytes());
                write(self.consumer.position(), &bytes);
            }
            Attack::Waiting(position) => data.producer_words().waiting.store(*position, Ordering::Relaxed),
            Attack::Mode(mode) => positions.consumer_words().mode.store(*mode, Ordering::Relaxed),
            Attack::Consumed(by) => positions
                .consumer_words()
                .consumed
                .store(self.consumer.position().wrapping_add_signed(*by), Ordering::Relaxed),
        }
    }

    /// Sends a frame into all the space that is granted.
    fn send_anything(&mut self, size: usize) {
        let base = self.producer.memory().bytes(0, 0).addr();
        let capacity = self.producer.memory().capacity();
        // `Err` is what a sender is told of a consumer that lies.
        let Ok(Some(claim)) = self.producer.claim(size % capacity) else { return };
        let (space, granted) = (claim.payload(), claim.payload_bytes_max());
        let offset = space.addr().checked_sub(base).unwrap();
        assert!(granted <= capacity && offset + granted <= 2 * capacity, "a claim outside the ring");
        // SAFETY: the claim is granted for so many bytes.
        unsafe { space.write_bytes(0xEE, granted) };
        let _rung_for_nothing = claim.publish(granted, &[]);
    }

    /// Reads all of the next frame, if it is one; meanwhile the producer does its worst. `true` if it was one.
    fn receive_anything(&mut self, meanwhile: &Attack, sequence: u32) -> bool {
        let base = self.consumer.memory().bytes(0, 0).addr();
        let capacity = self.consumer.memory().capacity();
        // `Err` is what a receiver is told of a producer that lies.
        let Ok(Some(frame)) = self.consumer.peek() else { return false };
        self.attack(meanwhile, sequence);
        let payload = self.consumer.payload(&frame);
        let offset = payload.as_ptr().addr().checked_sub(base).unwrap();
        assert!(offset + frame.header.frame_bytes() <= 2 * capacity, "a frame outside the ring");
        std::hint::black_box(payload.iter().fold(0u8, |sum, byte| sum ^ byte));
        assert_eq!(self.consumer.ends(&frame).count(), frame.header.ends);
        let before = self.consumer.position();
        let _rung_for_nothing = self.consumer.release(&frame);
        assert!(self.consumer.position() - before < capacity as u64);
        true
    }
}

/// Each side keeps to the ring and says what is wrong, whatever the other does.
fn survives<M: TestMemory>(capacity: usize, steps: &[(Op, Attack)]) {
    let mut ring = Ring::<M>::new(capacity);
    let mut sequence = 0u32;
    for (op, attack) in steps {
        match op {
            Op::Send { size, .. } => ring.send_anything(*size),
            Op::Receive => sequence += u32::from(ring.receive_anything(attack, sequence)),
            Op::ReceiverWaits => _ = begin_frame_wait(ring.consumer.memory()),
            Op::ReceiverSettles => ring.consumer.settle(),
            Op::SenderWaits { size } => {
                let position = ring.producer.position_for(*size);
                _ = begin_room_wait(ring.producer.memory(), position);
            }
            Op::SenderResumes => end_room_wait(ring.producer.memory()),
        }
        ring.attack(attack, sequence);
        ring.producer.memory().check_guards();
    }
}

proptest! {
    #[test]
    fn a_ring_on_the_heap_is_a_queue(shift in 0..8u32, ops in vec(op(), 0..600)) {
        obeys_the_model::<Heap>(Heap::CAPACITY_MIN << shift, &ops);
    }

    #[test]
    fn a_ring_on_files_is_a_queue(shift in 0..2u32, ops in vec(op(), 0..600)) {
        obeys_the_model::<Mapped>(Mapped::CAPACITY_MIN << shift, &ops);
    }

    #[test]
    fn hostile_peers_on_the_heap_are_survived(shift in 0..8u32, steps in vec((op(), attack()), 0..200)) {
        survives::<Heap>(Heap::CAPACITY_MIN << shift, &steps);
    }

    #[test]
    fn hostile_peers_on_files_are_survived(shift in 0..2u32, steps in vec((op(), attack()), 0..200)) {
        survives::<Mapped>(Mapped::CAPACITY_MIN << shift, &steps);
    }
}
