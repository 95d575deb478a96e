//! Random operations at both ends of a link, which must equal a queue.

use std::{collections::VecDeque, sync::atomic::Ordering};

use proptest::{collection::vec, prelude::*};
use protocol::{
    frame::{HEADER_BYTES, Kind, payload_bytes_max},
    limits::RING_BYTES_MIN,
};
use transport::{
    layout::DRAINED_BY_LINK,
    link::{Linked, Outgoing},
    ring::{
        Memory, Wake,
        wait::{Sleep, begin_frame_wait, begin_room_wait},
    },
};

use crate::{DESCRIPTION, KEYS, Link, Sent, rings};

/// What the two ends do.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Hold {
        size: usize,
        ends: usize,
        kind: Kind,
    },
    Flush,
    Depart(usize),
    Arrive(usize),
    /// All that is committed must find room.
    Carry,
    Receive(usize),
    Credit {
        idle: bool,
        most: usize,
    },
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![4 => 0..48usize, 1 => 0..1usize << 18];
    let ends = prop_oneof![3 => Just(0), 1 => 1..5usize];
    let kind = prop_oneof![4 => Just(Kind::Value), 1 => Just(Kind::FirstPart), 1 => Just(Kind::LastPart)];
    let hold = (size, ends, kind).prop_map(|(size, ends, kind)| {
        let ends = if kind.may_hold_ends() { ends } else { 0 };
        Op::Hold { size, ends, kind }
    });
    let most = || prop_oneof![Just(usize::MAX), 1..40usize, 1..5000usize];
    prop_oneof![
        12 => hold,
        6 => Just(Op::Flush),
        6 => most().prop_map(Op::Depart),
        6 => most().prop_map(Op::Arrive),
        4 => Just(Op::Carry),
        8 => prop_oneof![Just(1), Just(usize::MAX)].prop_map(Op::Receive),
        6 => (any::<bool>(), most()).prop_map(|(idle, most)| Op::Credit { idle, most }),
    ]
}

struct Model {
    link: Link,
    queue: VecDeque<Sent>,
    held: usize,
    count: u32,
}

impl Model {
    fn apply(&mut self, op: &Op) {
        let link = &mut self.link;
        match *op {
            Op::Hold { size, ends, kind } => {
                let size = size % (payload_bytes_max(link.capacity()) + HEADER_BYTES);
                let message = Sent::new(self.count, size, kind, ends);
                self.count += 1;
                if link.hold(&message) {
                    self.queue.push_back(message);
                    self.held += 1;
                }
            }
            Op::Flush => {
                let _nobody_sleeps = link.producer.flush();
                self.held = 0;
            }
            Op::Depart(most) => _ = link.depart(most),
            Op::Arrive(most) => _ = link.arrive(most).unwrap(),
            Op::Carry => self.carry(),
            Op::Receive(count) => _ = (0..count).take_while(|_| self.receive()).count(),
            Op::Credit { idle, most } => _ = link.credit(idle, most).unwrap(),
        }
    }

    fn carry(&mut self) {
        self.link.carry().unwrap();
        assert!(self.link.to_receiver.is_empty(), "what was committed has no room");
        assert!(self.link.outgoing.is_drained());
        self.link.incoming.end().unwrap();
    }

    fn receive(&mut self) -> bool {
        let Some(message) = self.link.receive() else { return false };
        assert!(self.queue.len() > self.held, "a message that was not published");
        assert_eq!(Some(message), self.queue.pop_front());
        true
    }

    /// Everything arrives, and the sender has all of its room again.
    fn finish(&mut self) {
        self.apply(&Op::Flush);
        self.carry();
        while self.receive() {}
        assert!(self.queue.is_empty(), "messages are lost");
        while self.link.credit(true, usize::MAX).unwrap() > 0 {}
        let (sender, receiver) = (self.link.producer.memory(), self.link.incoming.memory());
        let given_back = sender.consumer_words().consumed.load(Ordering::Relaxed);
        assert_eq!(given_back, self.link.outgoing.position());
        assert_eq!(receiver.description(), Some(DESCRIPTION));
    }
}

fn equals_a_queue(capacity: usize, sealed: bool, ops: &[Op]) {
    let link = Link::new(capacity, sealed.then_some(KEYS));
    let mut model = Model { link, queue: VecDeque::new(), held: 0, count: 0 };
    ops.iter().for_each(|op| model.apply(op));
    model.finish();
    // And once more, from wherever that was.
    ops.iter().for_each(|op| model.apply(op));
    model.finish();
}

proptest! {
    #[test]
    fn a_link_equals_a_queue(shift in 0..6u32, sealed: bool, ops in vec(op(), 0..200)) {
        equals_a_queue(RING_BYTES_MIN << shift, sealed, &ops);
    }
}

/// Large frames in an empty ring go back to memory that was used, and so in the ring there are skips, and skips that
/// begin where those were.
#[test]
fn skips_take_no_room() {
    for (sealed, capacity) in [(false, 64 << 10), (true, 64 << 10), (false, 1 << 20), (true, 1 << 20)] {
        let link = Link::new(capacity, sealed.then_some(KEYS));
        let mut model = Model { link, queue: VecDeque::new(), held: 0, count: 0 };
        for round in 0..200 {
            let large = 17_000 + 1000 * (round % 12);
            for size in [large, 8, large, 40, large, 8, large] {
                model.apply(&Op::Hold { size, ends: 0, kind: Kind::Value });
                model.apply(&Op::Flush);
                model.carry();
            }
            if round % 3 > 0 {
                model.apply(&Op::Receive(usize::MAX));
                while model.link.credit(true, usize::MAX).unwrap() > 0 {}
            }
        }
        let written = model.link.outgoing.position();
        model.finish();
        let carried = model.link.incoming.memory().arrived().load(Ordering::Relaxed);
        assert!(carried < written, "nothing was skipped in {written} bytes");
    }
}

#[test]
fn a_flush_takes_all_that_is_committed_up_to_a_bound() {
    for sealed in [None, Some(KEYS)] {
        let mut link = Link::new(1 << 16, sealed);
        link.carry().unwrap();
        let message = Sent::new(0, 48, Kind::Value, 0);
        (0..100).for_each(|_| assert!(link.send(&message)));
        let flush = link.depart(usize::MAX);
        assert!((6400..=6432).contains(&flush), "100 frames of 64 bytes go as {flush} bytes");
        (0..200).for_each(|_| assert!(link.send(&message)));
        let flush = link.depart(usize::MAX);
        assert!((8192..=8224).contains(&flush), "an eighth of the ring goes as {flush} bytes");
        let large = Sent::new(0, 30_000, Kind::Value, 0);
        while link.depart(usize::MAX) > 0 {}
        assert!(link.send(&large));
        assert!(link.depart(usize::MAX) > 30_000, "a frame is not split");
    }
}

#[test]
fn whoever_sleeps_is_woken_once() {
    let mut link = Link::new(RING_BYTES_MIN, Some(KEYS));
    let (sender, receiver) = (link.producer.memory().clone(), link.consumer.memory().clone());
    receiver.consumer_words().address.slot.store(5, Ordering::Relaxed);
    sender.producer_words().address.slot.store(6, Ordering::Relaxed);
    let _nobody_sleeps_here: Sleep = begin_frame_wait(&receiver);
    assert!(link.send(&Sent::new(0, 4000, Kind::Value, 0)));
    while link.depart(usize::MAX) > 0 {}
    let mut wakes = Vec::new();
    while !link.to_receiver.is_empty() {
        let space = link.incoming.space();
        let bytes = space.len().min(100).min(link.to_receiver.len());
        space.iter_mut().zip(link.to_receiver.drain(..bytes)).for_each(|(to, byte)| *to = byte);
        wakes.push(link.incoming.received(bytes).unwrap());
    }
    assert_eq!(wakes.pop(), Some(Wake::Peer(5)), "not woken by a whole frame");
    assert!(wakes.iter().all(|wake| *wake == Wake::No), "woken by half a frame");

    let position = link.producer.position_for(4000);
    let _nobody_sleeps_here: Sleep = begin_room_wait(&sender, position);
    assert!(link.receive().is_some());
    let credit = link.incoming.credit(false).expect("most of the ring was consumed").to_vec();
    link.outgoing.credit_space()[..credit.len()].copy_from_slice(&credit);
    assert_eq!(link.outgoing.credits_received(credit.len()), Ok(Wake::Peer(6)));
}

#[test]
fn a_credit_is_due_after_a_quarter_of_the_ring_or_when_idle() {
    let mut link = Link::new(RING_BYTES_MIN, None);
    for count in 1..=4 {
        assert!(link.send(&Sent::new(0, 240, Kind::Value, 0)));
        link.carry().unwrap();
        assert!(link.receive().is_some());
        assert_eq!(link.incoming.credit(false).is_some(), count == 4, "after {count} frames of 256 bytes");
    }
    assert_eq!(link.incoming.credit(false), Some(&1024u64.to_le_bytes()[..]));
    link.incoming.credit_sent(8);
    assert_eq!(link.incoming.credit(true), None);
    assert!(link.send(&Sent::new(0, 48, Kind::Value, 0)));
    link.carry().unwrap();
    assert!(link.receive().is_some());
    assert_eq!(link.incoming.credit_position(), 2048);
    assert_eq!(link.incoming.credit(false), None);
    assert_eq!(link.incoming.credit(true), Some(&1088u64.to_le_bytes()[..]));
}

/// The receiver may be quicker than the news that a send is complete.
#[test]
fn a_credit_for_what_is_being_sent_counts_when_it_was() {
    let mut link = Link::new(RING_BYTES_MIN, None);
    link.carry().unwrap();
    assert!(link.send(&Sent::new(0, 4000, Kind::Value, 0)));
    let sender = link.producer.memory().clone();
    let bytes = link.outgoing.pending().unwrap().to_vec();
    link.incoming.space()[..bytes.len()].copy_from_slice(&bytes);
    let _nobody_sleeps = link.incoming.received(bytes.len()).unwrap();
    assert!(link.receive().is_some());
    assert_eq!(link.credit(true, usize::MAX), Ok(8));
    let consumed = || sender.consumer_words().consumed.load(Ordering::Relaxed);
    assert_eq!(consumed(), 0);
    let _nobody_sleeps_here: Sleep = begin_room_wait(&sender, 4016);
    assert_eq!(link.outgoing.sent(100), Wake::No);
    assert_eq!(consumed(), 96);
    assert_eq!(link.outgoing.sent(bytes.len() - 100), Wake::Peer(0));
    assert_eq!(consumed(), bytes.len() as u64);
}

#[test]
fn one_link_alone_drains_a_ring() {
    let [sender, _] = rings(RING_BYTES_MIN);
    let mut outgoing = Outgoing::new(sender.clone(), None).expect("no other link");
    assert_eq!(sender.consumer_words().drainer.load(Ordering::Relaxed), DRAINED_BY_LINK);
    assert!(Outgoing::new(sender, None).is_none());
    assert!(!outgoing.is_drained(), "the description is to be sent");
    assert_eq!(outgoing.pending(), Some(&DESCRIPTION[..]));
}
