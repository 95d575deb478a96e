//! A side that writes what it likes, wherever it may write, and what the other side makes of it.
#![expect(unsafe_code, reason = "a hostile side writes through a pointer")]

use std::{
    collections::VecDeque,
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
};

use proptest::{collection::vec, option::weighted, prelude::*};
use protocol::frame::{FLAG_ENDS, HEADER_BYTES, Kind, frame_bytes};
use transport::{
    layout::{PAGE_BYTES, SLOTS},
    ring::{
        Claim, Consumer, Corrupt, Frame, Memory, Producer, Wake,
        wait::{begin_frame_wait, begin_room_wait, end_room_wait},
    },
    segment::{Doorbell, Mapped, create},
};

use crate::{
    TestMemory, fill,
    heap::Heap,
    queue::{Op, op},
};

/// What a hostile side writes, and where.
#[derive(Debug, Clone)]
enum Attack {
    None,
    /// The producer: bytes anywhere in the ring.
    Bytes {
        position: u64,
        bytes: Vec<u8>,
    },
    /// The producer: headers behind one another, where the consumer looks next.
    Headers(Vec<Forged>),
    /// The producer.
    Waiting(u64),
    /// The producer: slot and processor.
    ProducerAddress(u32, u32),
    /// The consumer: a position, from the one where it is.
    Consumed(i64),
    /// The consumer.
    Mode(u32),
    /// The consumer: slot and processor.
    ConsumerAddress(u32, u32),
}

/// A header, with as many wrong fields as are given.
#[derive(Debug, Clone)]
struct Forged {
    length: u32,
    ends: u16,
    kind: u8,
    flags: Option<u8>,
    sequence: Option<u32>,
}

fn forged() -> impl Strategy<Value = Forged> {
    let length = prop_oneof![3 => 0..256u32, 2 => 0..1u32 << 13, 1 => any::<u32>()];
    let ends = prop_oneof![3 => Just(0), 2 => 0..8u16, 1 => any::<u16>()];
    // Values, skips, all that there is, and more.
    let kind =
        prop_oneof![3 => Just(Kind::Value as u8), 2 => Just(Kind::Skip as u8), 3 => 1..7u8, 1 => any::<u8>()];
    (length, ends, kind, weighted(0.05, any::<u8>()), weighted(0.05, any::<u32>()))
        .prop_map(|(length, ends, kind, flags, sequence)| Forged { length, ends, kind, flags, sequence })
}

fn producer_attack() -> impl Strategy<Value = Attack> {
    prop_oneof![
        6 => Just(Attack::None),
        2 => (any::<u64>(), vec(any::<u8>(), 1..64))
            .prop_map(|(position, bytes)| Attack::Bytes { position, bytes }),
        6 => vec(forged(), 1..4).prop_map(Attack::Headers),
        1 => prop_oneof![0..4096u64, any::<u64>()].prop_map(Attack::Waiting),
        1 => any::<(u32, u32)>().prop_map(|(slot, cpu)| Attack::ProducerAddress(slot, cpu)),
    ]
}

fn consumer_attack() -> impl Strategy<Value = Attack> {
    let consumed = prop_oneof![-64..256i64, (-8..16i64).prop_map(|chunks| chunks * 16), any::<i64>()];
    prop_oneof![
        6 => Just(Attack::None),
        3 => consumed.prop_map(Attack::Consumed),
        1 => any::<u32>().prop_map(Attack::Mode),
        1 => any::<(u32, u32)>().prop_map(|(slot, cpu)| Attack::ConsumerAddress(slot, cpu)),
    ]
}

/// A producer that keeps to the rules, and what it must not touch.
struct Writer<M> {
    producer: Producer<Arc<M>>,
    head: u64,
    /// The furthest position that the consumer said, when it could be.
    told: u64,
    /// Where frames are that it did not give back, headers of skips among them, and their sizes.
    taken: VecDeque<(u64, usize)>,
}

/// A consumer that keeps to the rules, and the number that it must find next.
struct Reader<M> {
    consumer: Consumer<Arc<M>>,
    sequence: u32,
}

struct Peers<M> {
    writer: Writer<M>,
    reader: Reader<M>,
    bell: Doorbell,
}

impl<M: TestMemory> Writer<M> {
    /// Claims space and fills all of it, far from what the consumer did not give back. An error is true.
    fn claim(&mut self, frame: usize) -> Option<(Claim<'_, Arc<M>>, u64)> {
        let memory = self.producer.memory();
        let place = (memory.bytes(0, 0).addr(), memory.capacity());
        let capacity = place.1 as u64;
        let said = memory.consumer_words().consumed.load(Ordering::Relaxed);
        let written = self.head - self.producer.held_bytes() as u64;
        let is_aligned = said.is_multiple_of(HEADER_BYTES as u64);
        if is_aligned && (self.told..=written).contains(&said) {
            self.told = said;
            self.taken.retain(|(position, _)| *position >= said);
        }
        let claim = match self.producer.claim(frame) {
            Ok(claim) => claim?,
            Err(Corrupt::Consumed { claimed, before, written: up_to }) => {
                assert_eq!((claimed, up_to), (said, written));
                assert!(!is_aligned || !(before..=written).contains(&said), "{said} could be");
                return None;
            }
            Err(other) => panic!("a consumer is told of {other}"),
        };
        let taken = self.taken.iter().map(|(position, bytes)| ((position % capacity) as usize, *bytes));
        // Where no frame starts, nobody looks.
        let looked_at = self.taken.iter().map(|(position, _)| *position).find(|start| *start == self.told);
        let offset = fill(&claim, 0xEE, place, looked_at.unwrap_or(self.head), taken) as u64;
        let skipped = (offset + capacity - self.head % capacity) % capacity;
        Some((claim, skipped))
    }

    /// Holds a frame with all of the payload that there is room for, or with none.
    fn hold(&mut self, size: usize, is_full: bool) {
        let capacity = self.producer.memory().capacity();
        let Some((claim, skipped)) = self.claim(size % capacity) else { return };
        let payload_bytes = if is_full { claim.payload_bytes_max() } else { 0 };
        let _to_be_flushed = claim.hold(Kind::Value, payload_bytes, &[]);
        if skipped > 0 {
            self.taken.push_back((self.head, HEADER_BYTES));
        }
        let (position, bytes) = (self.head + skipped, frame_bytes(payload_bytes, 0));
        self.taken.push_back((position, bytes));
        self.head = position + bytes as u64;
    }
}

impl<M: TestMemory> Reader<M> {
    /// Takes what is there for a frame, and reads all of it, while `meanwhile` happens.
    fn receive(&mut self, meanwhile: impl FnOnce(&Consumer<Arc<M>>, u32)) -> Wake {
        let memory = self.consumer.memory();
        let (base, capacity) = (memory.bytes(0, 0).addr(), memory.capacity());
        let (before, plain) = (self.consumer.position(), self.consumer.peek_plain());
        // An error is what a receiver is told of a producer that lies.
        let frame = self.consumer.peek().ok().flatten();
        let skipped = self.consumer.position() - before;
        assert!(skipped < capacity as u64 && skipped.is_multiple_of(HEADER_BYTES as u64));
        let is_plain = |frame: &Frame| frame.kind() == Kind::Value && frame.ends() == 0 && skipped == 0;
        assert_eq!(plain, frame.filter(is_plain), "the quick look and the whole one differ");
        self.sequence = self.sequence.wrapping_add(u32::from(skipped > 0));
        let Some(frame) = frame else { return Wake::No };
        assert_eq!(frame.sequence(), self.sequence);
        assert!(frame.kind() != Kind::Skip && (frame.ends() == 0 || frame.kind().may_hold_ends()));
        meanwhile(&self.consumer, self.sequence);
        let payload = self.consumer.payload(&frame);
        let offset = payload.as_ptr().addr().checked_sub(base).expect("a frame in front of the ring");
        assert!(
            frame.frame_bytes() < capacity && offset < capacity + HEADER_BYTES,
            "a frame outside the ring"
        );
        assert_eq!(payload.len(), frame.payload_bytes());
        std::hint::black_box(payload.iter().fold(0u8, |sum, byte| sum ^ byte));
        assert_eq!(self.consumer.ends(&frame).count(), frame.ends());
        let wake = self.consumer.release(&frame);
        assert_eq!(self.consumer.position() - before, skipped + frame.frame_bytes() as u64);
        self.sequence = self.sequence.wrapping_add(1);
        wake
    }
}

impl<M: TestMemory> Peers<M> {
    fn new(capacity: usize) -> Self {
        let [data, positions] = M::sides(capacity);
        let bell = create(c"hostile", PAGE_BYTES).unwrap();
        Peers {
            writer: Writer { producer: Producer::new(data), head: 0, told: 0, taken: VecDeque::new() },
            reader: Reader { consumer: Consumer::new(positions), sequence: 0 },
            bell: Doorbell::map(bell.as_fd()).unwrap(),
        }
    }

    fn apply(&mut self, op: &Op, meanwhile: &Attack) {
        let Peers { writer, reader, .. } = self;
        let wake = match *op {
            Op::Hold { size, ends, .. } => {
                writer.hold(size, ends == 0);
                Wake::No
            }
            Op::Flush => writer.producer.flush(),
            Op::SendPlain { size } => {
                writer.hold(size, false);
                writer.producer.flush()
            }
            Op::DropClaim { size } => {
                let _dropped = writer.claim(size % reader.consumer.memory().capacity());
                Wake::No
            }
            Op::Receive { .. } => {
                let data = writer.producer.memory();
                reader.receive(|consumer, sequence| attack(meanwhile, data, consumer, sequence))
            }
            Op::ReceiverWaits => {
                let _nobody_sleeps_here = begin_frame_wait(reader.consumer.memory());
                Wake::No
            }
            Op::ReceiverSettles => {
                reader.consumer.settle();
                Wake::No
            }
            Op::SenderWaits { size } => {
                let position = writer.producer.position_for(size);
                let _nobody_sleeps_here = begin_room_wait(writer.producer.memory(), position);
                Wake::No
            }
            Op::SenderResumes => {
                end_room_wait(writer.producer.memory());
                Wake::No
            }
        };
        self.answer(wake);
    }

    /// Rings as a process does. The slot comes from the hostile side, and is one of those that there are.
    fn answer(&self, wake: Wake) {
        let Wake::Peer(slot) = wake else { return };
        self.bell.ring(slot);
        let mut rung = Vec::new();
        self.bell.take_slots(|slot| rung.push(slot));
        let expected = (slot != 0).then_some(slot % SLOTS as u32);
        assert_eq!(rung, Vec::from_iter(expected));
    }
}

fn attack<M: Memory>(attack: &Attack, data: &Arc<M>, consumer: &Consumer<Arc<M>>, sequence: u32) {
    let write = |position: u64, bytes: &[u8]| {
        // SAFETY: the producer's mapping is writable, for any count of bytes up to the capacity; one thread uses the
        // ring, and holds no reference into it here.
        unsafe { data.bytes(position, bytes.len()).copy_from(bytes.as_ptr(), bytes.len()) };
    };
    let (producer_words, consumer_words) = (data.producer_words(), consumer.memory().consumer_words());
    match attack {
        Attack::None => {}
        Attack::Bytes { position, bytes } => write(*position, bytes),
        Attack::Headers(headers) => {
            let mut position = consumer.position();
            for (header, number) in headers.iter().zip(sequence..) {
                write(position, &header.bytes(number));
                let payload_bytes = (header.length as usize).saturating_sub(HEADER_BYTES);
                position += frame_bytes(payload_bytes, header.ends.into()) as u64;
            }
        }
        Attack::Waiting(position) => producer_words.waiting.store(*position, Ordering::Relaxed),
        Attack::ProducerAddress(slot, cpu) => {
            producer_words.address.slot.store(*slot, Ordering::Relaxed);
            producer_words.address.cpu.store(*cpu, Ordering::Relaxed);
        }
        Attack::Consumed(by) => {
            consumer_words.consumed.store(consumer.position().wrapping_add_signed(*by), Ordering::Relaxed);
        }
        Attack::Mode(mode) => consumer_words.mode.store(*mode, Ordering::Relaxed),
        Attack::ConsumerAddress(slot, cpu) => {
            consumer_words.address.slot.store(*slot, Ordering::Relaxed);
            consumer_words.address.cpu.store(*cpu, Ordering::Relaxed);
        }
    }
}

impl Forged {
    fn bytes(&self, number: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4] = self.kind;
        bytes[5] = self.flags.unwrap_or(if self.ends == 0 { 0 } else { FLAG_ENDS });
        bytes[6..8].copy_from_slice(&self.ends.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.unwrap_or(number).to_le_bytes());
        bytes
    }
}

/// Each side keeps to the ring and says what is wrong, whatever the other does.
fn survives<M: TestMemory>(capacity: usize, steps: &[(Op, Attack)]) {
    let mut peers = Peers::<M>::new(capacity);
    for (op, by_the_way) in steps {
        peers.apply(op, by_the_way);
        let (data, reader) = (peers.writer.producer.memory(), &peers.reader);
        attack(by_the_way, data, &reader.consumer, reader.sequence);
        data.check_guards();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_hostile_producer_on_the_heap_is_survived(
        shift in 0..8u32,
        steps in vec((op(1 << 16), producer_attack()), 0..200),
    ) {
        survives::<Heap>(Heap::CAPACITY_MIN << shift, &steps);
    }

    #[test]
    fn a_hostile_producer_on_files_is_survived(
        shift in 0..5u32,
        steps in vec((op(1 << 16), producer_attack()), 0..200),
    ) {
        survives::<Mapped>(Mapped::CAPACITY_MIN << shift, &steps);
    }

    #[test]
    fn a_hostile_consumer_on_the_heap_is_survived(
        shift in 0..8u32,
        steps in vec((op(1 << 16), consumer_attack()), 0..200),
    ) {
        survives::<Heap>(Heap::CAPACITY_MIN << shift, &steps);
    }

    #[test]
    fn a_hostile_consumer_on_files_is_survived(
        shift in 0..5u32,
        steps in vec((op(1 << 16), consumer_attack()), 0..200),
    ) {
        survives::<Mapped>(Mapped::CAPACITY_MIN << shift, &steps);
    }

    #[test]
    fn two_hostile_sides_are_survived(
        shift in 0..8u32,
        steps in vec((op(1 << 16), prop_oneof![producer_attack(), consumer_attack()]), 0..200),
    ) {
        survives::<Heap>(Heap::CAPACITY_MIN << shift, &steps);
    }
}
