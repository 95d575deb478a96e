//! A ring on the heap and on the files that processes share, against a queue, and against a side that writes what it
//! likes.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "a claim's space is a pointer")]

#[path = "model/heap.rs"]
mod heap;
#[path = "model/hostile.rs"]
mod hostile;
#[path = "model/queue.rs"]
mod queue;
#[path = "model/room.rs"]
mod room;

use std::{os::fd::AsFd, sync::Arc};

use heap::Heap;
use protocol::{frame::HEADER_BYTES, limits::RING_BYTES_MIN};
use transport::{
    ring::{Claim, Memory},
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

impl TestMemory for Heap {
    const CAPACITY_MIN: usize = Heap::CAPACITY_MIN;

    fn sides(capacity: usize) -> [Arc<Self>; 2] {
        let heap = Arc::new(Heap::new(capacity));
        [heap.clone(), heap]
    }

    fn check_guards(&self) {
        Heap::check_guards(self);
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

/// Whether two ranges of a ring, each a start and a length, have bytes in common.
fn overlap(a: (usize, usize), b: (usize, usize), capacity: usize) -> bool {
    let ahead = |from: usize, to: usize| (to + capacity - from) % capacity;
    a.1 > 0 && b.1 > 0 && (ahead(a.0, b.0) < a.1 || ahead(b.0, a.0) < b.1)
}

/// Fills all the space of a claim, which is in the way of neither the ranges that are `taken` nor the header that the
/// consumer looks at next. Gives where in the ring, which starts at the address `base`, the frame goes.
fn fill<M: Memory>(
    claim: &Claim<'_, M>,
    filling: u8,
    (base, capacity): (usize, usize),
    looked_at: u64,
    taken: impl IntoIterator<Item = (usize, usize)>,
) -> usize {
    let (space, granted) = (claim.payload(), claim.payload_bytes_max());
    let start = space.addr().checked_sub(base).expect("a claim in front of the ring");
    assert!(granted + HEADER_BYTES < capacity && start + granted <= 2 * capacity, "a claim outside the ring");
    assert!(start.is_multiple_of(HEADER_BYTES));
    let offset = (start + capacity - HEADER_BYTES) % capacity;
    for taken in taken {
        assert!(!overlap((offset, granted + HEADER_BYTES), taken, capacity), "a frame is overwritten");
    }
    let looked_at = (looked_at as usize % capacity, HEADER_BYTES);
    assert!(!overlap((start % capacity, granted), looked_at, capacity), "what is looked at is overwritten");
    // SAFETY: the claim was granted for so many bytes.
    unsafe { space.write_bytes(filling, granted) };
    offset
}
