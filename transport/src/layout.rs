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
//!  producer page:  0 magic   8 type hash   16 name length   20 name … 120      128 waiting, slot, cpu
//! ```
//!
//! The **consumer file** is one page, written by the consumer and by nobody else:
//!
//! ```text
//!  consumer page:  0 mode, slot, cpu, drainer       128 consumed
//! ```
//!
//! When the two sides are on different machines, each has a ring of its own, and a link between them plays the
//! consumer of one and the producer of the other. `drainer` says whether one drains the
//! sender's ring: its process, or the manager when the process did not come to it.
//!
//! What the two sides look at in the other's page while messages flow (`waiting`, `mode`) changes rarely and has a
//! pair of cache lines to itself, away from `consumed`, which changes with every message.
//!
//! A **doorbell file** is one page that every peer of a process may write. The doorbell is the word that the process
//! sleeps on; the bits say for which of its ends it was rung, so that a process with thousands of ends looks at those
//! only. An end's bit is its slot, which its peer finds in the ring. Slot 0 is none: whoever sleeps for that end looks
//! by itself. Slot 1 is shared by all ends beyond the others.
//!
//! ```text
//!  doorbell page:  0 doorbell   128 words of bits that are not zero: 4 × 64 bits   256 bits of slots: 256 × 64 bits
//! ```
//!
//! The **events file** of a job is written by its manager alone: one 64-byte slot a process, whose first word counts
//! the control messages that the process was sent.
//!
//! The **counters file** of a process is written by that process alone; anybody who may open it can read it at any
//! time. It holds one record for each end in use, at the end's slot; those of slots 0 and 1 are never used.
//!
//! ```text
//!  record:  0 end   16 kind   20 name length   24 frames   32 bytes   40 full   48 sleeps   56 wakes   64 name … 128
//! ```

use protocol::link::DESCRIPTION_BYTES;

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

/// Where one side of a ring is found by the other.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Address {
    /// The end's bit in its process's doorbell page; zero when it needs none.
    pub slot: AtomicU32,
    /// The processor that the side was last seen to run on, plus one; zero when that is not known.
    pub cpu: AtomicU32,
}

/// What the producer tells the consumer beside its frames.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ProducerWords {
    line: Line<ProducerLine>,
}

/// See [`ProducerWords`].
#[repr(C)]
#[derive(Debug, Default)]
pub struct ProducerLine {
    /// Zero, or the position that the consumer must reach before the producer has the room that it waits for.
    pub waiting: AtomicU64,
    /// Where the producer is found.
    pub address: Address,
}

impl std::ops::Deref for ProducerWords {
    type Target = ProducerLine;

    #[inline]
    fn deref(&self) -> &ProducerLine {
        &self.line.0
    }
}

/// What the consumer tells the producer.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ConsumerWords {
    line: Line<ConsumerLine>,
    /// The position up to which the consumer gave the space back.
    pub consumed: Line<AtomicU64>,
}

/// See [`ConsumerWords`].
#[repr(C)]
#[derive(Debug, Default)]
pub struct ConsumerLine {
    /// Whether the consumer is [`MODE_SLEEPY`], and above that bit the number of its last wait for a frame.
    pub mode: AtomicU32,
    /// Where the consumer is found.
    pub address: Address,
    /// Zero, or [`DRAINED_BY_LINK`].
    pub drainer: AtomicU32,
}

impl std::ops::Deref for ConsumerWords {
    type Target = ConsumerLine;

    #[inline]
    fn deref(&self) -> &ConsumerLine {
        &self.line.0
    }
}

/// The consumer may be asleep: the producer fences, looks again, and wakes it. Without this bit it streams: it looks
/// by itself, often, and the producer need not look whether it sleeps.
pub const MODE_SLEEPY: u32 = 1;

/// A link drains the ring. As long as none does, whoever has the ring's files may begin to.
pub const DRAINED_BY_LINK: u32 = 1;

/// The size of a process's slot in the events file.
pub const EVENT_SLOT_BYTES: usize = 64;

/// Ends of one process that have a bit of their own in its doorbell page, and a record of counters.
pub const SLOTS: usize = 16_384;
/// The slot of all ends that have none of their own.
pub const SLOT_SHARED: u32 = 1;
/// Where the words of bits that are not zero are marked in the doorbell page.
pub const SLOT_SUMMARY_OFFSET: usize = 128;
/// Where the bits are in the doorbell page.
pub const SLOT_BITS_OFFSET: usize = 256;

/// What a process counts for one of its ends, in its counters file.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Record {
    /// The end.
    pub end: [AtomicU64; 2],
    /// [`RECORD_SENDER`], [`RECORD_RECEIVER`], or zero in a record that is not used; stored last.
    pub kind: AtomicU32,
    /// Bytes of the type's name.
    pub name_bytes: AtomicU32,
    /// Messages sent or received.
    pub frames: AtomicU64,
    /// Bytes of their payloads.
    pub bytes: AtomicU64,
    /// How many times a sender found too little room.
    pub full: AtomicU64,
    /// How many times the process may have gone to sleep for this end.
    pub sleeps: AtomicU64,
    /// How many times the peer was woken.
    pub wakes: AtomicU64,
    /// The end of the type's name.
    pub name: [AtomicU64; RECORD_NAME_BYTES / 8],
}

/// What the name of a counters file begins with; the id of the process in its system, a dot and its name follow.
pub const COUNTERS_PREFIX: &str = "archean-counters.";
/// How much of the type's name is kept in a record.
pub const RECORD_NAME_BYTES: usize = 64;
/// The end is a sender.
pub const RECORD_SENDER: u32 = 1;
/// The end is a receiver.
pub const RECORD_RECEIVER: u32 = 2;

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<ProducerWords>() == 128);
    assert!(size_of::<ConsumerWords>() == 256);
    assert!(std::mem::offset_of!(ConsumerWords, consumed) == 128);
    assert!(TYPE_NAME_OFFSET + TYPE_NAME_BYTES_MAX <= DESCRIPTION_BYTES);
    assert!(DESCRIPTION_BYTES <= PRODUCER_WORDS_OFFSET);
    assert!(PRODUCER_WORDS_OFFSET + size_of::<ProducerWords>() <= PAGE_BYTES);
    assert!(size_of::<ConsumerWords>() <= PAGE_BYTES);
    assert!(SLOTS / 64 <= 64 * (SLOT_BITS_OFFSET - SLOT_SUMMARY_OFFSET) / 8);
    assert!(SLOT_BITS_OFFSET + SLOTS / 8 <= PAGE_BYTES);
    assert!(size_of::<Record>() == 128 && std::mem::offset_of!(Record, name) == 64);
    assert!(protocol::limits::RING_BYTES_MIN >= PAGE_BYTES);
};
