//! A ring's memory on the heap, with guards around it that show what was written outside.
#![expect(unsafe_code, reason = "a ring's memory is an unsafe trait")]

use std::{cell::UnsafeCell, sync::atomic::AtomicU32};

use protocol::frame::HEADER_BYTES;
use transport::{
    layout::{ConsumerWords, ProducerWords},
    ring::Memory,
};

/// Sixteen bytes, as the ring aligns them.
type Chunk = u128;
const GUARD: Chunk = 0xA5A5_5A5A_0123_4567_89AB_CDEF_A5A5_5A5A;
const GUARDS: usize = 4;

/// Guards, the frames, the space of frames that wrap, guards.
pub(crate) struct Heap {
    capacity: usize,
    chunks: Box<[UnsafeCell<Chunk>]>,
    producer: ProducerWords,
    consumer: ConsumerWords,
}

impl Heap {
    /// The least capacity of a ring.
    pub(crate) const CAPACITY_MIN: usize = 64;

    /// Zeros between guards.
    pub(crate) fn new(capacity: usize) -> Heap {
        assert!(capacity.is_power_of_two() && capacity >= Self::CAPACITY_MIN);
        let frames = 2 * capacity / size_of::<Chunk>();
        let chunk = |index| {
            let inside = (GUARDS..GUARDS + frames).contains(&index);
            UnsafeCell::new(if inside { 0 } else { GUARD })
        };
        Heap {
            capacity,
            chunks: (0..frames + 2 * GUARDS).map(chunk).collect(),
            producer: ProducerWords::default(),
            consumer: ConsumerWords::default(),
        }
    }

    /// Fails when something was written that is no part of the memory.
    pub(crate) fn check_guards(&self) {
        let (front, rest) = self.chunks.split_at(GUARDS);
        let (_, back) = rest.split_at(rest.len() - GUARDS);
        for guard in front.iter().chain(back) {
            // SAFETY: one thread uses the memory, and it holds no reference into a chunk here.
            assert_eq!(unsafe { guard.get().read() }, GUARD, "written outside the ring");
        }
    }
}

// SAFETY: each test uses the memory from one thread.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

// SAFETY: `capacity` is a power of two from 64 on (`new`). Words and bytes are found by the position modulo the
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
