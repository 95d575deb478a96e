//! Which memory a ring uses, and what becomes of that which was skipped.
#![expect(unsafe_code, reason = "a claim's space is a pointer, and so is a forged header's")]

use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::atomic::Ordering,
};

use protocol::frame::{HEADER_BYTES, Header, Kind, frame_bytes, payload_bytes_max};
use transport::{
    layout::{Address, PAGE_BYTES},
    ring::{
        Consumer, Corrupt, Memory, Producer,
        wait::{Sleep, begin_frame_wait, is_on_cpu, tell_cpu},
    },
    segment::{Files, Mapped},
};

use crate::{TestMemory, heap::Heap, queue::Ring};

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

#[test]
fn a_processor_that_is_not_known_is_nobodys() {
    let address = Address::default();
    assert!(!is_on_cpu(&address, 0) && !is_on_cpu(&address, 3));
    tell_cpu(&address, 3);
    assert!(is_on_cpu(&address, 3) && !is_on_cpu(&address, 4));
    tell_cpu(&address, 0);
    assert!(!is_on_cpu(&address, 0) && !is_on_cpu(&address, 3));
}
