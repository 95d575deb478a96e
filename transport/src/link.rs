//! What carries frames from a sender's ring to its receiver's, on another machine.
//!
//! Two state machines, one at each end of a connection; neither knows a socket, a clock or a thread. [`Outgoing`]
//! plays the consumer of the sender's ring: it says which bytes are to be sent, and gives space back when the receiver
//! says so. [`Incoming`] plays the producer of the receiver's ring: it says where bytes are to be received to, which is
//! the ring itself, checks what came, publishes whole frames, and makes the credits. Producer and consumer are the same
//! as when they share one ring: bounds, waiting and waking are the ring's own.
//!
//! Space in the sender's ring is given back by credits only. So what is committed has always room in the receiver's
//! ring, which is as large: a frame takes as much there as here, what seals it is kept apart, and a skip takes no more.
//!
//! What comes from the peer is checked before it counts, and memory is taken for nothing that it says. The layout of
//! all that is sent is in [`protocol::link`].
#![expect(unsafe_code, reason = "a ring's memory is given out as slices")]

mod incoming;
mod outgoing;
mod seal;

use std::sync::{Arc, atomic::AtomicU64};

pub use incoming::Incoming;
pub use outgoing::Outgoing;
use protocol::{
    control::{LinkKeys, Malformed},
    frame::{HEADER_BYTES, HeaderError},
    link::{DESCRIPTION_BYTES, KEY_BYTES, SealedError},
};

use crate::ring::Memory;

/// The keys of one link, used for no other. The same on both ends.
#[derive(Clone)]
pub struct Keys {
    /// Seals what goes to the receiver.
    pub frames: [u8; KEY_BYTES],
    /// Seals what goes to the sender.
    pub credits: [u8; KEY_BYTES],
}

impl Keys {
    /// The keys that a word holds; none when frames travel as they are.
    ///
    /// # Errors
    /// [`Malformed`] when a key has another length.
    pub fn from_word(word: Option<LinkKeys>) -> Result<Option<Keys>, Malformed> {
        let Some(LinkKeys { frames, credits }) = word.filter(|word| !word.frames.is_empty()) else {
            return Ok(None);
        };
        let key = |bytes: Vec<u8>| bytes.try_into().map_err(|_| Malformed("key"));
        Ok(Some(Keys { frames: key(frames)?, credits: key(credits)? }))
    }

    /// As a word.
    pub fn to_word(&self) -> LinkKeys {
        LinkKeys { frames: self.frames.to_vec(), credits: self.credits.to_vec() }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(secret)")
    }
}

/// What the producer page of a ring begins with.
pub type Description = [u8; DESCRIPTION_BYTES];

/// The memory of a ring that a link drains or fills.
pub trait Linked: Memory {
    /// How the producer has described the ring, if it has.
    fn description(&self) -> Option<Description>;
    /// Describes the ring as its sender did; for the side that fills it.
    fn set_description(&self, description: &Description);
    /// The position up to which frames have arrived: what [`Memory::length_word`] gives for one there or behind it is
    /// zero. For the side that fills the ring.
    fn arrived(&self) -> &AtomicU64;
}

impl<M: Linked> Linked for Arc<M> {
    fn description(&self) -> Option<Description> {
        (**self).description()
    }

    fn set_description(&self, description: &Description) {
        (**self).set_description(description);
    }

    fn arrived(&self) -> &AtomicU64 {
        (**self).arrived()
    }
}

/// The other end of a link sent what no correct one sends, or the connection changed it. The link can't be used any
/// more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A header that can't be; among others of a frame that is longer than was agreed.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A skip behind a skip.
    #[error("the sender skips again where a message has to be")]
    Skips,
    /// The sender sent more than it was told that there is room for.
    #[error("the sender sent a frame up to byte {end}, but its window ends at byte {window}")]
    Overrun {
        /// Where the frame ends.
        end: u64,
        /// Up to where the sender may send.
        window: u64,
    },
    /// The header of a sealed frame that can't be; among others of one that came before, or is too long.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// A sealed frame is not what its sender sealed.
    #[error("sealed frame number {counter} was changed on its way, or sealed with another key")]
    Forged {
        /// Its number.
        counter: u64,
    },
    /// What was sealed ends in the middle of a frame.
    #[error("the last frame in sealed frame number {counter} is longer than what was sealed")]
    Cut {
        /// The number of the sealed frame.
        counter: u64,
    },
    /// The link's end came in the middle of a frame.
    #[error("the link ended in the middle of a frame, of which {bytes} bytes had come")]
    HalfFrame {
        /// What had come of it, and of what belongs to it.
        bytes: u64,
    },
    /// A credit for what was never sent, or that takes an earlier one back.
    #[error("the receiver says that it consumed up to {claimed}, no multiple of 16 from {before} to {sent}")]
    Credit {
        /// What it says.
        claimed: u64,
        /// What it said before.
        before: u64,
        /// What was sent.
        sent: u64,
    },
    /// A sealed credit is not what the receiver sealed.
    #[error("credit number {counter} was changed on its way, replayed, or sealed with another key")]
    ForgedCredit {
        /// Its number.
        counter: u64,
    },
}

/// Bytes of frames that are underway or unread at most: behind them is room for a header that says «not yet».
const fn window_bytes(capacity: usize) -> usize {
    capacity - HEADER_BYTES
}

/// The header at `position`, read once.
///
/// The caller makes sure that a frame was published there: its length word was seen, or whoever fills the ring asks.
fn header_at(memory: &impl Memory, position: u64) -> [u8; HEADER_BYTES] {
    // SAFETY: a header's bytes are readable (`Memory::bytes`). They are read once, since a hostile process may change
    // them at any time, and what was read here is what is checked.
    unsafe { memory.bytes(position, HEADER_BYTES).cast::<[u8; HEADER_BYTES]>().read_volatile() }
}
