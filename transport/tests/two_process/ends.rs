//! The two sides of a ring as processes use them, and frames that show when they are damaged.
#![expect(unsafe_code, reason = "a claim's space is a pointer")]

use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use protocol::frame::{Kind, frame_bytes, payload_bytes_max};
use transport::{
    park::{FIRST_SLEEP, park},
    ring::{
        Consumer, Producer, Wake,
        wait::{Sleep, begin_frame_wait, begin_room_wait, end_room_wait},
    },
    segment::{Doorbell, Mapped, Words, reopen_read_only},
};

use crate::wiring::{Count, Wiring};

pub(crate) struct Sender {
    pub(crate) producer: Producer<Mapped>,
    pub(crate) own: Doorbell,
    pub(crate) peer: Doorbell,
    pub(crate) counts: Words,
}

impl Sender {
    pub(crate) fn new(wiring: &Wiring, capacity: usize) -> Sender {
        let ring = Mapped::for_producer(wiring.data.as_fd(), wiring.positions.as_fd(), capacity).unwrap();
        Sender {
            producer: Producer::new(ring),
            own: Doorbell::map(wiring.producer_bell.as_fd()).unwrap(),
            peer: Doorbell::map(wiring.consumer_bell.as_fd()).unwrap(),
            counts: wiring.counts(),
        }
    }

    pub(crate) fn count(&self, count: Count) -> &AtomicU32 {
        self.counts.word(count as usize)
    }

    /// Sends the frame of that index; sleeps while it has no room.
    pub(crate) fn send(&mut self, index: u32, payload_bytes: usize) {
        self.hold(index, payload_bytes);
        self.flush(index + 1);
    }

    /// Writes the frame of that index behind those that are held; when it has no room, those are published, and it
    /// sleeps.
    pub(crate) fn hold(&mut self, index: u32, payload_bytes: usize) {
        let frame_bytes = frame_bytes(payload_bytes, 0);
        if self.producer.claim(frame_bytes).unwrap().is_none() {
            self.flush(index);
            self.wait_for_room(frame_bytes);
        }
        let claim = self.producer.claim(frame_bytes).unwrap().unwrap();
        // SAFETY: the claim was granted for a payload of this size; a file's bytes are initialised; the consumer
        // reads none of them before the claim is published, when the slice is gone.
        let space = unsafe { std::slice::from_raw_parts_mut(claim.payload(), payload_bytes) };
        fill(space, index);
        let _to_be_flushed = claim.hold(Kind::Value, payload_bytes, &[]);
    }

    /// Publishes all frames in front of that of the index `next`.
    pub(crate) fn flush(&mut self, next: u32) {
        self.count(Count::Publishing).store(next, Ordering::SeqCst);
        if let Wake::Peer(slot) = self.producer.flush() {
            self.peer.ring(slot);
        }
        self.count(Count::Published).store(next, Ordering::SeqCst);
    }

    fn wait_for_room(&mut self, frame_bytes: usize) {
        while self.producer.claim(frame_bytes).unwrap().is_none() {
            let seen = self.own.word().load(Ordering::SeqCst);
            let position = self.producer.position_for(frame_bytes);
            let kind = begin_room_wait(self.producer.memory(), position);
            if self.producer.claim(frame_bytes).unwrap().is_none() {
                sleep(kind, &self.own, seen, self.count(Count::ProducerSleeps));
            }
        }
        end_room_wait(self.producer.memory());
    }
}

pub(crate) struct Receiver {
    pub(crate) consumer: Consumer<Mapped>,
    pub(crate) own: Doorbell,
    pub(crate) peer: Doorbell,
    pub(crate) counts: Words,
}

impl Receiver {
    pub(crate) fn new(wiring: &Wiring, capacity: usize) -> Receiver {
        let data = reopen_read_only(wiring.data.as_fd()).unwrap();
        let ring = Mapped::for_consumer(data.as_fd(), wiring.positions.as_fd(), capacity).unwrap();
        Receiver {
            consumer: Consumer::new(ring),
            own: Doorbell::map(wiring.consumer_bell.as_fd()).unwrap(),
            peer: Doorbell::map(wiring.producer_bell.as_fd()).unwrap(),
            counts: wiring.counts(),
        }
    }

    pub(crate) fn count(&self, count: Count) -> &AtomicU32 {
        self.counts.word(count as usize)
    }

    /// Receives the frame of that index, if there is one, and checks it. Gives whether the sender had to be woken.
    pub(crate) fn try_receive(&mut self, index: u32) -> Option<bool> {
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
    pub(crate) fn receive(&mut self, index: u32) {
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
pub(crate) fn fill(payload: &mut [u8], index: u32) {
    let (sum, content) = payload.split_first_chunk_mut().unwrap();
    let mut state = index;
    for byte in &mut *content {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    *sum = checksum(index, content).to_le_bytes();
}

pub(crate) fn check(payload: &[u8], index: u32) {
    let (sum, content) = payload.split_first_chunk().unwrap();
    assert_eq!(u32::from_le_bytes(*sum), checksum(index, content), "frame {index} arrived damaged");
}

/// FNV-1a.
pub(crate) fn checksum(index: u32, content: &[u8]) -> u32 {
    index
        .to_le_bytes()
        .iter()
        .chain(content)
        .fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Mostly small frames, some large ones, now and then one that fills the ring.
pub(crate) fn mixed_bytes(index: u32, capacity: usize) -> usize {
    let random = index.wrapping_mul(2_654_435_761) as usize >> 8;
    match index % 1000 {
        0 => payload_bytes_max(capacity),
        1..10 => 4 + random % (capacity / 8),
        _ => 4 + random % 200,
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
