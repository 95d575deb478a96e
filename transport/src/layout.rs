//! Where everything is in the memory that processes share.
//!
//! A ring is two files. The **data file** is written by the producer and by nobody else:
//!
//! ```text
//!  byte 0            4 KiB                              4 KiB + capacity
//!       ├────────────┼──────────────────────────────────┤
//!       │ producer   │ frames                           │   mapped as  │page│frames│frames again│
//!       │ page       │ (capacity: a power of two)       │   so that every frame is one slice
//!       └────────────┴──────────────────────────────────┘
//!
//!  producer page:  0 magic   8 type hash   16 name length   20 name … 120      128 waiting
//! ```
//!
//! The **consumer file** is one page, written by the consumer and by nobody else:
//!
//! ```text
//!  consumer page:  0 mode                  128 consumed
//! ```
//!
//! What the two sides look at in the other's page while messages flow (`waiting`, `mode`) changes rarely and has a
//! pair of cache lines to itself, away from `consumed`, which changes with every message.
//!
//! A **doorbell file** is one page that every peer of a process may write; its first word is the doorbell. The
//! **events file** of a job is written by its manager alone: one 64-byte slot a process, whose first word counts
//! the control messages that the process was sent.

use crate::sync::{AtomicU32, AtomicU64};

/// The page size that the layout is made for.
pub const PAGE_BYTES: usize = 4096;

/// What a data file starts with.
pub const MAGIC: u64 = u64::from_le_bytes(*b"archean1");

/// Where the type's hash is in the producer page.
pub const TYPE_HASH_OFFSET: usize = 8;
/// Where the length of the type's name is.
pub const TYPE_NAME_LENGTH_OFFSET: usize = 16;
/// Where the type's name is.
pub const TYPE_NAME_OFFSET: usize = 20;
/// How much of the type's name is kept.
pub const TYPE_NAME_BYTES_MAX: usize = 100;

/// Where [`ProducerWords`] are in the producer page.
pub const PRODUCER_WORDS_OFFSET: usize = 128;

/// A word with a pair of cache lines to itself.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Line<T>(T);

impl<T> std::ops::Deref for Line<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What the producer tells the consumer beside its frames.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ProducerWords {
    /// Zero, or the position that the consumer must reach before the producer has the room that it waits for.
    pub waiting: Line<AtomicU64>,
}

/// What the consumer tells the producer.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ConsumerWords {
    /// Whether the consumer is [`MODE_SLEEPY`], and above that bit the number of its last wait for a frame.
    pub mode: Line<AtomicU32>,
    /// The position up to which the consumer gave the space back.
    pub consumed: Line<AtomicU64>,
}

/// The consumer may be asleep: the producer fences, looks again, and wakes it. Without this bit it streams: it looks
/// by itself, often, and the producer need not look whether it sleeps.
pub const MODE_SLEEPY: u32 = 1;

/// The size of a process's slot in the events file.
pub const EVENT_SLOT_BYTES: usize = 64;

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<ProducerWords>() == 128);
    assert!(size_of::<ConsumerWords>() == 256);
    assert!(std::mem::offset_of!(ConsumerWords, consumed) == 128);
    assert!(TYPE_NAME_OFFSET + TYPE_NAME_BYTES_MAX <= PRODUCER_WORDS_OFFSET);
    assert!(PRODUCER_WORDS_OFFSET + size_of::<ProducerWords>() <= PAGE_BYTES);
    assert!(size_of::<ConsumerWords>() <= PAGE_BYTES);
    assert!(protocol::limits::RING_BYTES_MIN >= PAGE_BYTES);
};
