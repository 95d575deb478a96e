//! One producer, one consumer, frames between them.
//!
//! There is one rule of publication: the length word of a frame's header is stored last, with `Release`, after the
//! length word behind the frame was made zero. A consumer that reads a length other than zero with `Acquire` sees
//! the whole frame. Nobody locks, so nobody can die holding a lock; a frame whose producer died before the length
//! word does not exist.
//!
//! A batch is published by the same rule: its frames are written behind one another, each with its length, and the
//! length of the first is stored last.
//!
//! Positions count bytes from the ring's beginning of life and never wrap. Each side keeps its own; of the other's
//! it reads one word, and believes it only when it is monotone and within bounds.
//!
//! A producer that finds the ring empty may skip to another place in it: before it would touch memory that was not
//! touched before, and with large frames, so that they stay in the cache. A [`Kind::Skip`](protocol::frame::Kind)
//! frame says how far; it and the frame behind it are published as a batch.
#![expect(unsafe_code, reason = "the contract of a ring's memory is an unsafe trait")]

mod consumer;
mod prefetch;
mod producer;
pub mod wait;

pub use consumer::{Consumer, Frame};
pub use producer::{Claim, Producer};

use crate::{
    layout::{ConsumerWords, ProducerWords},
    sync::AtomicU32,
};

/// The memory of one ring, as one of its two sides has mapped it.
///
/// # Safety
/// * `capacity` is a power of two, at least 64, and never changes.
/// * `length_word` gives the same word for positions that are equal modulo the capacity.
/// * `bytes(position, len)` points to `len` contiguous bytes for any `len <= capacity`; bytes are the same for
///   positions that are equal modulo the capacity, and are valid for reads while the value lives, and for writes
///   when it is the producer's mapping.
pub unsafe trait Memory: Send + Sync {
    /// Bytes of frames.
    fn capacity(&self) -> usize;
    /// The length word of a header at `position`, a multiple of sixteen.
    fn length_word(&self, position: u64) -> &AtomicU32;
    /// The bytes at `position`.
    fn bytes(&self, position: u64, len: usize) -> *mut u8;
    /// The words that the producer writes.
    fn producer_words(&self) -> &ProducerWords;
    /// The words that the consumer writes.
    fn consumer_words(&self) -> &ConsumerWords;
    /// Makes memory ready that is about to be written for the first time: `len` bytes from `offset` in the ring on.
    fn prepare(&self, offset: usize, len: usize) {
        let _ = (offset, len);
    }
}

/// The other side wrote what no correct other side writes; the ring can't be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// A header that can't be.
    #[error(transparent)]
    Header(#[from] protocol::frame::HeaderError),
    /// A skip behind a skip.
    #[error("the sender skips again where a message has to be")]
    Skips,
    /// The consumer gave back space that it was never given, or took some again.
    #[error(
        "the receiver says that it consumed up to {claimed}, no multiple of 16 from {before} to {written}"
    )]
    Consumed {
        /// What it says.
        claimed: u64,
        /// What it said before.
        before: u64,
        /// How far the producer has written.
        written: u64,
    },
}

/// Whether the other side has to be woken. It holds no reference to a ring, so that the waking, a system call, may
/// happen when the ring is not borrowed any more.
#[must_use = "a peer that is not woken sleeps on"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// It is awake, or was woken already.
    No,
    /// Ring its doorbell, for the end in that slot.
    Peer(u32),
}

// SAFETY: all that `M` promises.
unsafe impl<M: Memory> Memory for std::sync::Arc<M> {
    #[inline]
    fn capacity(&self) -> usize {
        (**self).capacity()
    }

    #[inline]
    fn length_word(&self, position: u64) -> &AtomicU32 {
        (**self).length_word(position)
    }

    #[inline]
    fn bytes(&self, position: u64, len: usize) -> *mut u8 {
        (**self).bytes(position, len)
    }

    #[inline]
    fn producer_words(&self) -> &ProducerWords {
        (**self).producer_words()
    }

    #[inline]
    fn consumer_words(&self) -> &ConsumerWords {
        (**self).consumer_words()
    }

    fn prepare(&self, offset: usize, len: usize) {
        (**self).prepare(offset, len);
    }
}
