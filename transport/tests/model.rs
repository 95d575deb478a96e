//! Random operations on a ring against a queue, and a ring whose other side writes what it likes; on the heap and
//! on the files that processes share.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "a ring's memory is an unsafe trait, and a claim's space is a pointer")]

use std::{
    cell::UnsafeCell,
    collections::VecDeque,
    fs::File,
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use proptest::{collection::vec, prelude::*};
use protocol::{
    frame::{FLAG_ENDS, HEADER_BYTES, Header, Kind, frame_bytes, payload_bytes_max},
    ids::{EndId, ProcessId},
    limits::RING_BYTES_MIN,
};
use transport::{
    layout::{ConsumerWords, PAGE_BYTES, ProducerWords},
    ring::{
        Claim, Consumer, Corrupt, Memory, Producer, Wake,
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
    Hold { size: usize, ends: usize, kind: Kind },
    Flush,
    DropClaim { size: usize },
    Receive { count: usize },
    ReceiverWaits,
    ReceiverSettles,
    SenderWaits { size: usize },
    SenderResumes,
}

/// Most frames are small; of the others some are as large as `large`.
fn op(large: usize) -> impl Strategy<Value = Op> {
    let size = move || prop_oneof![4 => 0..48usize, 1 => 0..large];
    let ends = prop_oneof![3 => Just(0), 1 => 1..5usize];
    let kind = prop_oneof![
        4 => Just(Kind::Value),
        1 => Just(Kind::FirstPart),
        1 => Just(Kind::MiddlePart),
        1 => Just(Kind::LastPart),
    ];
    let hold = (size(), ends, kind).prop_map(|(size, ends, kind)| {
        let ends = if matches!(kind, Kind::Value | Kind::LastPart) { ends } else { 0 };
        Op::Hold { size, ends, kind }
    });
    prop_oneof![
        12 => hold,
        6 => Just(Op::Flush),
        1 => size().prop_map(|size| Op::DropClaim { size }),
        8 => prop_oneof![Just(1), Just(2), Just(usize::MAX)].prop_map(|count| Op::Receive { count }),
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

/// Each byte of a payload; not that of the frames around it.
fn filling(index: u32) -> u8 {
    (index % 251) as u8 + 1
}

fn end(index: u32, place: usize) -> EndId {
    EndId::new(ProcessId(index.into()), place as u64)
}

/// A frame that was written and not released.
struct Sent {
    index: u32,
    kind: Kind,
    payload_bytes: usize,
    ends: usize,
    /// Where it starts in the ring.
    offset: usize,
    /// What was skipped in front of it.
    skipped: usize,
}

impl Sent {
    fn bytes(&self) -> usize {
        frame_bytes(self.payload_bytes, self.ends)
    }
}

/// The queue that a ring must equal, and what each side must be told about the other's sleep.
#[derive(Default)]
struct Model {
    frames: VecDeque<Sent>,
    /// How many of them are not published.
    held: usize,
    /// Where the next frame goes unless it skips.
    offset: usize,
    sent: u32,
    /// Frames received, and skips passed.
    sequence: u32,
    receiver_sleeps: bool,
    sender_waits_for: Option<u64>,
    sender_is_woken: bool,
}

struct Ring<M> {
    producer: Producer<Arc<M>>,
    consumer: Consumer<Arc<M>>,
    model: Model,
}

/// Whether two ranges of a ring, each a start and a length, have bytes in common.
fn overlap(a: (usize, usize), b: (usize, usize), capacity: usize) -> bool {
    let ahead = |from: usize, to: usize| (to + capacity - from) % capacity;
    a.1 > 0 && b.1 > 0 && (ahead(a.0, b.0) < a.1 || ahead(b.0, a.0) < b.1)
}

impl<M: TestMemory> Ring<M> {
    fn new(capacity: usize) -> Self {
        let [data, positions] = M::sides(capacity);
        Ring { producer: Producer::new(data), consumer: Consumer::new(positions), model: Model::default() }
    }

    fn capacity(&self) -> usize {
        self.producer.memory().capacity()
    }

    fn apply(&mut self, op: &Op) {
        let capacity = self.capacity();
        match *op {
            Op::Hold { size, ends, kind } => _ = self.hold(payload_bytes(size, capacity), ends, kind),
            Op::Flush => self.flush(),
            Op::DropClaim { size } => self.drop_claim(payload_bytes(size, capacity)),
            Op::Receive { count } => _ = (0..count).take_while(|_| self.receive()).count(),
            Op::ReceiverWaits => self.receiver_waits(),
            Op::ReceiverSettles => self.consumer.settle(),
            Op::SenderWaits { size } => self.sender_waits(frame_bytes(payload_bytes(size, capacity), 0)),
            Op::SenderResumes => {
                end_room_wait(self.producer.memory());
                self.model.sender_waits_for = None;
            }
        }
    }

    /// Claims space, fills all of it, and gives where in the ring it is. A claim is refused exactly when there is
    /// no room, and touches nothing that the consumer still looks at.
    fn claim(&mut self, frame: usize, filling: u8) -> Option<(Claim<'_, Arc<M>>, usize)> {
        let capacity = self.capacity();
        let base = self.producer.memory().bytes(0, 0).addr();
        let must_reach = self.producer.position_for(frame);
        let has_room = frame <= capacity - HEADER_BYTES && is_consumed_to(self.producer.memory(), must_reach);
        let looked_at = self.consumer.position() as usize % capacity;
        let Some(claim) = self.producer.claim(frame).unwrap() else {
            assert!(!has_room, "{frame} bytes refused, though the consumer reached {must_reach}");
            self.model.check_refusal(frame, capacity);
            return None;
        };
        let (space, granted) = (claim.payload(), claim.payload_bytes_max());
        assert!(frame <= granted + HEADER_BYTES && granted + HEADER_BYTES < capacity, "{granted} granted");
        assert!(space.addr().is_multiple_of(HEADER_BYTES));
        let offset = (space.addr() - base + capacity - HEADER_BYTES) % capacity;
        for frame in &self.model.frames {
            let taken = (frame.offset, frame.bytes());
            assert!(!overlap((offset, granted + HEADER_BYTES), taken, capacity), "a frame is overwritten");
        }
        let inside = (offset + HEADER_BYTES, granted);
        assert!(!overlap(inside, (looked_at, HEADER_BYTES), capacity), "what is looked at is overwritten");
        // SAFETY: the claim was granted for so many bytes.
        unsafe { space.write_bytes(filling, granted) };
        Some((claim, offset))
    }

    /// Writes a frame; `false` when there is no room.
    fn hold(&mut self, payload_bytes: usize, ends: usize, kind: Kind) -> bool {
        let (index, capacity) = (self.model.sent, self.capacity());
        let ids: Vec<_> = (0..ends).map(|place| end(index, place)).collect();
        let Some((claim, offset)) = self.claim(frame_bytes(payload_bytes, ends), filling(index)) else {
            return false;
        };
        let _to_be_flushed = claim.hold(kind, payload_bytes, &ids);
        let model = &mut self.model;
        let skipped = (offset + capacity - model.offset) % capacity;
        let sent = Sent { index, kind, payload_bytes, ends, offset, skipped };
        model.offset = (offset + sent.bytes()) % capacity;
        model.frames.push_back(sent);
        model.held += 1;
        model.sent += 1;
        true
    }

    fn flush(&mut self) {
        let wake = self.producer.flush();
        let model = &mut self.model;
        let wakes = model.receiver_sleeps && model.held > 0;
        assert_eq!(wake != Wake::No, wakes, "once for each wait");
        model.receiver_sleeps &= !wakes;
        model.held = 0;
        assert_eq!(self.producer.held_bytes(), 0);
    }

    fn send(&mut self, payload_bytes: usize, ends: usize) -> bool {
        let has_room = self.hold(payload_bytes, ends, Kind::Value);
        self.flush();
        has_room
    }

    fn drop_claim(&mut self, payload_bytes: usize) {
        let _dropped = self.claim(frame_bytes(payload_bytes, 0), 0xEE);
    }

    /// Receives a frame; `false` when there is none.
    fn receive(&mut self) -> bool {
        let model = &mut self.model;
        let published = model.frames.len() - model.held;
        let position = self.consumer.position();
        assert_eq!(is_frame_at(self.consumer.memory(), position), published > 0);
        let Some(frame) = self.consumer.peek().unwrap() else {
            assert_eq!(published, 0, "frames are not seen");
            return false;
        };
        assert!(published > 0, "a frame that nobody sent");
        let sent = model.frames.pop_front().unwrap();
        assert_eq!(self.consumer.position() - position, sent.skipped as u64);
        model.sequence += u32::from(sent.skipped > 0);
        assert_eq!((frame.sequence(), frame.kind()), (model.sequence, sent.kind));
        assert!(self.consumer.payload(&frame) == vec![filling(sent.index); sent.payload_bytes], "damaged");
        let ids: Vec<_> = (0..sent.ends).map(|place| end(sent.index, place)).collect();
        assert_eq!(self.consumer.ends(&frame).collect::<Vec<_>>(), ids);
        let wake = self.consumer.release(&frame);

        let reached = model.sender_waits_for.is_some_and(|position| position <= self.consumer.position());
        assert_eq!(wake != Wake::No, reached && !model.sender_is_woken, "once, when there is room");
        model.sender_is_woken |= reached;
        model.sequence += 1;
        true
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

impl Model {
    /// All space is given but that of one header. A skip costs two more, and what is left in front of the skip's
    /// own header when a frame is too large for it; large frames are aligned to 64 bytes.
    fn check_refusal(&self, frame: usize, capacity: usize) {
        let used: usize = self.frames.iter().map(Sent::bytes).sum();
        let largest = self.frames.iter().map(Sent::bytes).max().unwrap_or(0);
        let lost = if self.frames.iter().all(|frame| frame.skipped == 0) {
            HEADER_BYTES
        } else {
            largest.max(frame) + 4 * HEADER_BYTES + 48
        };
        assert!(used + lost + frame > capacity, "{frame} bytes refused, {used} are used");
    }
}

fn obeys_the_model<M: TestMemory>(capacity: usize, ops: &[Op]) {
    let mut ring = Ring::<M>::new(capacity);
    ops.iter().for_each(|op| ring.apply(op));
    // What is left is received, and the largest frame has room again.
    ring.flush();
    while ring.receive() {}
    assert!(ring.send(payload_bytes_max(capacity), 0) && ring.receive());
    ring.producer.memory().check_guards();
}

/// A ring has room for what its capacity says, wherever it was emptied.
fn keeps_its_room<M: TestMemory>(capacity: usize, payload_bytes: usize) {
    let mut ring = Ring::<M>::new(capacity);
    let fit = capacity / frame_bytes(payload_bytes, 0);
    for _ in 0..20 {
        assert!(ring.send(payload_bytes, 0) && ring.receive());
        let sent = (0..).take_while(|_| ring.send(payload_bytes, 0)).count();
        assert!(sent + 2 >= fit, "an empty ring takes {sent} frames of {fit}");
        while ring.receive() {}
    }
}

#[test]
fn an_emptied_ring_keeps_its_room() {
    for payload_bytes in [16 << 10, 20_000, 100_000] {
        keeps_its_room::<Heap>(1 << 20, payload_bytes);
        keeps_its_room::<Mapped>(1 << 20, payload_bytes);
    }
    keeps_its_room::<Heap>(64 << 10, 16 << 10);
}

/// Large frames one by one, with small ones in between that are not received at once.
#[test]
fn an_emptied_ring_keeps_to_the_memory_that_it_used() {
    const CAPACITY: usize = 16 << 20;
    for payload_bytes in [20_000, 100_000] {
        let files = Files::create(CAPACITY).unwrap();
        let (data, consumer) = (files.data.as_fd(), files.consumer.as_fd());
        let mut producer = Producer::new(Mapped::for_producer(data, consumer, CAPACITY).unwrap());
        let mut consumer = Consumer::new(Mapped::for_consumer(data, consumer, CAPACITY).unwrap());
        for _ in 0..1000 {
            for bytes in [payload_bytes, payload_bytes, 8, 8, 8] {
                let claim = producer.claim(frame_bytes(bytes, 0)).unwrap().unwrap();
                // SAFETY: the claim was granted for so many bytes.
                unsafe { claim.payload().write_bytes(1, bytes) };
                let _nobody_sleeps = claim.publish(bytes, &[]);
                while let Some(frame) = consumer.peek().unwrap().filter(|_| bytes > 8) {
                    let _nobody_waits = consumer.release(&frame);
                }
            }
            while let Some(frame) = consumer.peek().unwrap() {
                let _nobody_waits = consumer.release(&frame);
            }
        }
        let used = File::from(files.data).metadata().unwrap().blocks() as usize * 512;
        assert!(used <= 2 * payload_bytes + 16 * PAGE_BYTES, "{used} bytes for frames of {payload_bytes}");
    }
}

/// Writes a header at the place in the ring, with no message behind it.
fn skip_at(memory: &Heap, position: u64, payload_bytes: usize, sequence: u32) {
    let header = Header { payload_bytes, kind: Kind::Skip, ends: 0, sequence, time: 0 }.encode();
    // SAFETY: a header's bytes are writable, and nobody holds a reference to them.
    unsafe { memory.bytes(position, HEADER_BYTES).copy_from(header.as_ptr(), HEADER_BYTES) };
}

#[test]
fn a_chain_of_skips_is_refused() {
    let [data, positions] = Heap::sides(256);
    let mut consumer = Consumer::new(positions);
    skip_at(&data, 0, 16, 0);
    skip_at(&data, 32, 32, 1);
    assert_eq!(consumer.peek().unwrap_err(), Corrupt::Skips);
}

#[test]
fn a_skip_without_a_message_is_passed_once() {
    let [data, positions] = Heap::sides(256);
    let mut consumer = Consumer::new(positions);
    skip_at(&data, 0, 16, 0);
    for _ in 0..2 {
        assert!(consumer.peek().unwrap().is_none());
        assert_eq!(consumer.position(), 32);
    }
}

#[test]
fn what_is_held_can_not_have_been_consumed() {
    let mut ring = Ring::<Heap>::new(1024);
    assert!(ring.hold(16, 0, Kind::Value));
    ring.consumer.memory().consumer_words().consumed.store(32, Ordering::Relaxed);
    let refused = ring.producer.claim(payload_bytes_max(1024)).err();
    assert_eq!(refused, Some(Corrupt::Consumed { claimed: 32, before: 0, written: 0 }));
}

/// Frames of many sizes around the ring a thousand times.
fn goes_around<M: TestMemory>() {
    let mut ring = Ring::<M>::new(M::CAPACITY_MIN);
    while ring.consumer.position() < 1000 * M::CAPACITY_MIN as u64 {
        let size = ring.model.sent as usize * 7 % 40;
        assert!(ring.send(size % (payload_bytes_max(M::CAPACITY_MIN) + 1), 0) && ring.receive());
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
            assert!(ring.send(8, 0) && ring.receive());
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

    /// Holds a frame that takes all the space that is granted.
    fn hold_anything(&mut self, size: usize) {
        let base = self.producer.memory().bytes(0, 0).addr();
        let capacity = self.producer.memory().capacity();
        // `Err` is what a sender is told of a consumer that lies.
        let Ok(Some(claim)) = self.producer.claim(size % capacity) else { return };
        let (space, granted) = (claim.payload(), claim.payload_bytes_max());
        let offset = space.addr().checked_sub(base).unwrap();
        assert!(granted <= capacity && offset + granted <= 2 * capacity, "a claim outside the ring");
        // SAFETY: the claim is granted for so many bytes.
        unsafe { space.write_bytes(0xEE, granted) };
        let _to_be_flushed = claim.hold(Kind::Value, granted, &[]);
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
        assert!(offset + frame.frame_bytes() <= 2 * capacity, "a frame outside the ring");
        std::hint::black_box(payload.iter().fold(0u8, |sum, byte| sum ^ byte));
        assert_eq!(self.consumer.ends(&frame).count(), frame.ends());
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
            Op::Hold { size, .. } => ring.hold_anything(*size),
            Op::Flush => _ = ring.producer.flush(),
            Op::DropClaim { size } => _ = ring.producer.claim(*size % capacity),
            Op::Receive { .. } => sequence += u32::from(ring.receive_anything(attack, sequence)),
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
    fn a_ring_on_the_heap_is_a_queue(shift in 0..8u32, ops in vec(op(1 << 16), 0..600)) {
        obeys_the_model::<Heap>(Heap::CAPACITY_MIN << shift, &ops);
    }

    #[test]
    fn a_ring_on_files_is_a_queue(shift in 0..2u32, ops in vec(op(1 << 16), 0..600)) {
        obeys_the_model::<Mapped>(Mapped::CAPACITY_MIN << shift, &ops);
    }

    #[test]
    fn a_larger_ring_with_large_frames_is_a_queue(shift in 16..21u32, ops in vec(op(1 << 17), 0..200)) {
        obeys_the_model::<Heap>(1 << shift, &ops);
    }

    #[test]
    fn hostile_peers_on_the_heap_are_survived(
        shift in 0..8u32,
        steps in vec((op(1 << 16), attack()), 0..200),
    ) {
        survives::<Heap>(Heap::CAPACITY_MIN << shift, &steps);
    }

    #[test]
    fn hostile_peers_on_files_are_survived(
        shift in 0..5u32,
        steps in vec((op(1 << 16), attack()), 0..200),
    ) {
        survives::<Mapped>(Mapped::CAPACITY_MIN << shift, &steps);
    }
}
