//! Random operations on both sides of a ring, which must equal a queue.

use std::{collections::VecDeque, sync::Arc};

use proptest::{collection::vec, prelude::*};
use protocol::{
    frame::{HEADER_BYTES, Kind, frame_bytes, payload_bytes_max},
    ids::{EndId, ProcessId},
};
use transport::{
    ring::{
        Claim, Consumer, Frame, Memory, Producer, Wake,
        wait::{Sleep, begin_frame_wait, begin_room_wait, end_room_wait, is_consumed_to, is_frame_at},
    },
    segment::Mapped,
};

use crate::{TestMemory, fill, heap::Heap};

/// What the two sides do. Sizes are cut to what the ring makes interesting.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Hold { size: usize, ends: usize, kind: Kind },
    Flush,
    SendPlain { size: usize },
    DropClaim { size: usize },
    Receive { count: usize },
    ReceiverWaits,
    ReceiverSettles,
    SenderWaits { size: usize },
    SenderResumes,
}

/// Most frames are small; of the others some are as large as `large`.
pub(crate) fn op(large: usize) -> impl Strategy<Value = Op> {
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
        6 => size().prop_map(|size| Op::SendPlain { size }),
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
pub(crate) struct Model {
    /// Where the ring starts, and its capacity.
    place: (usize, usize),
    frames: VecDeque<Sent>,
    /// How many of them are not published.
    held: usize,
    /// Where the next frame goes unless it skips.
    offset: usize,
    pub(crate) sent: u32,
    /// Frames received, and skips passed.
    sequence: u32,
    pub(crate) receiver_sleeps: bool,
    sender_waits_for: Option<u64>,
    sender_is_woken: bool,
}

pub(crate) struct Ring<M> {
    pub(crate) producer: Producer<Arc<M>>,
    pub(crate) consumer: Consumer<Arc<M>>,
    pub(crate) model: Model,
}

impl<M: TestMemory> Ring<M> {
    pub(crate) fn new(capacity: usize) -> Self {
        let [data, positions] = M::sides(capacity);
        let model = Model { place: (data.bytes(0, 0).addr(), capacity), ..Model::default() };
        Ring { producer: Producer::new(data), consumer: Consumer::new(positions), model }
    }

    fn capacity(&self) -> usize {
        self.producer.memory().capacity()
    }

    fn apply(&mut self, op: &Op) {
        let capacity = self.capacity();
        match *op {
            Op::Hold { size, ends, kind } => _ = self.hold(payload_bytes(size, capacity), ends, kind),
            Op::Flush => self.flush(),
            Op::SendPlain { size } => _ = self.send_plain(payload_bytes(size, capacity)),
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

    /// Claims space and fills all of it. A claim is refused exactly when there is no room.
    fn claim(&mut self, frame: usize, filling: u8) -> Option<(Claim<'_, Arc<M>>, usize)> {
        let capacity = self.capacity();
        let must_reach = self.producer.position_for(frame);
        let has_room = frame <= capacity - HEADER_BYTES && is_consumed_to(self.producer.memory(), must_reach);
        let Some(claim) = self.producer.claim(frame).unwrap() else {
            assert!(!has_room, "{frame} bytes refused, though the consumer reached {must_reach}");
            self.model.check_refusal(frame, capacity);
            return None;
        };
        assert!(frame <= claim.payload_bytes_max() + HEADER_BYTES, "less than was asked for");
        let offset = self.model.fill(&claim, filling, self.consumer.position());
        Some((claim, offset))
    }

    /// Writes a frame; `false` when there is no room.
    pub(crate) fn hold(&mut self, payload_bytes: usize, ends: usize, kind: Kind) -> bool {
        let index = self.model.sent;
        let ids: Vec<_> = (0..ends).map(|place| end(index, place)).collect();
        let Some((claim, offset)) = self.claim(frame_bytes(payload_bytes, ends), filling(index)) else {
            return false;
        };
        let _to_be_flushed = claim.hold(kind, payload_bytes, &ids);
        self.model.hold(offset, kind, payload_bytes, ends);
        true
    }

    pub(crate) fn flush(&mut self) {
        let wake = self.producer.flush();
        self.model.publish(wake);
        assert_eq!(self.producer.held_bytes(), 0);
    }

    pub(crate) fn send(&mut self, payload_bytes: usize, ends: usize) -> bool {
        let has_room = self.hold(payload_bytes, ends, Kind::Value);
        self.flush();
        has_room
    }

    /// Sends as most messages go: into what is at hand, and otherwise into what a look at the consumer gives.
    fn send_plain(&mut self, payload_bytes: usize) -> bool {
        let (filling, looked_at) = (filling(self.model.sent), self.consumer.position());
        if let Some(claim) = self.producer.claim_usual() {
            let granted = claim.payload_bytes_max();
            let usual = self.model.frames.back().map_or(HEADER_BYTES, Sent::bytes);
            assert!(
                self.model.frames.is_empty() || granted + HEADER_BYTES >= usual,
                "less than the last one"
            );
            let offset = self.model.fill(&claim, filling, looked_at);
            if payload_bytes <= granted {
                let wake = claim.publish_plain(payload_bytes);
                self.model.hold(offset, Kind::Value, payload_bytes, 0);
                self.model.publish(wake);
                return true;
            }
        }
        let Some((claim, offset)) = self.claim(frame_bytes(payload_bytes, 0), filling) else { return false };
        let wake = claim.publish_plain(payload_bytes);
        self.model.hold(offset, Kind::Value, payload_bytes, 0);
        self.model.publish(wake);
        true
    }

    fn drop_claim(&mut self, payload_bytes: usize) {
        let _dropped = self.claim(frame_bytes(payload_bytes, 0), 0xEE);
    }

    /// Receives a frame; `false` when there is none.
    pub(crate) fn receive(&mut self) -> bool {
        let model = &mut self.model;
        let published = model.frames.len() - model.held;
        let position = self.consumer.position();
        assert_eq!(is_frame_at(self.consumer.memory(), position), published > 0);
        let plain = self.consumer.peek_plain();
        let Some(frame) = self.consumer.peek().unwrap() else {
            assert_eq!((plain, published), (None, 0), "frames are not seen");
            return false;
        };
        assert!(published > 0, "a frame that nobody sent");
        let sent = model.frames.pop_front().unwrap();
        assert_eq!(self.consumer.position() - position, sent.skipped as u64);
        let is_plain = |_: &Frame| sent.kind == Kind::Value && sent.ends == 0 && sent.skipped == 0;
        assert_eq!(plain, Some(frame).filter(is_plain), "the quick look and the whole one differ");
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
    /// See [`fill`]; nothing that was sent and not received may be in the way.
    fn fill<M: Memory>(&self, claim: &Claim<'_, M>, filling: u8, looked_at: u64) -> usize {
        let taken = self.frames.iter().map(|frame| (frame.offset, frame.bytes()));
        fill(claim, filling, self.place, looked_at, taken)
    }

    /// A frame was written at that offset.
    fn hold(&mut self, offset: usize, kind: Kind, payload_bytes: usize, ends: usize) {
        let (_, capacity) = self.place;
        let skipped = (offset + capacity - self.offset) % capacity;
        let sent = Sent { index: self.sent, kind, payload_bytes, ends, offset, skipped };
        self.offset = (offset + sent.bytes()) % capacity;
        self.frames.push_back(sent);
        self.held += 1;
        self.sent += 1;
    }

    /// All was published, and the receiver woken or not.
    fn publish(&mut self, wake: Wake) {
        let wakes = self.receiver_sleeps && self.held > 0;
        assert_eq!(wake != Wake::No, wakes, "once for each wait");
        self.receiver_sleeps &= !wakes;
        self.held = 0;
    }

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
}
