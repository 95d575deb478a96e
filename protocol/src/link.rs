//! What goes over the connection between a sender's ring and its receiver's, on another machine.
//!
//! To the receiver: a description of the ring, as its producer page begins, and then frames as they lie in the ring,
//! but for skips, which have sixteen bytes. **Plain**:
//!
//! ```text
//!       ├─ 128 bytes ─┼───────┼───────┼──
//!       │ description │ frame │ frame │ …
//! ```
//!
//! **Sealed**: the description, and then the frames of one flush at a time, are encrypted. In front of each such piece
//! are its header, which is authenticated with it, and its tag:
//!
//! ```text
//!  byte 0        4      5       6        8                        16           32
//!       ├────────┼──────┼───────┼────────┼────────────────────────┼────────────┼──────────────────────┤
//!       │ length │ kind │ flags │ nought │        counter         │    tag     │ content: whole frames │
//!       ├────────┴──────┴───────┴────────┴────────────────────────┼────────────┼──────────────────────┤
//! ```
//!
//! `length` counts all of it. Its kind is [`KIND_SEALED`], which no ring accepts. The counter counts the pieces of a
//! link, from zero, and is the nonce.
//!
//! To the sender: credits. Each says up to where the receiver has given back the space of frames: bytes of frames
//! since the link's beginning, all but the description and what seals.
//!
//! ```text
//!       ├─ 8 bytes ─┤                 ├─ 8 bytes ─┼─ 16 bytes ─┤
//!       │ position  │    or, sealed:  │ position  │    tag     │    the nonce counts credits from zero
//! ```
//!
//! All numbers are little-endian.

use crate::frame::HEADER_BYTES;

/// The size of a ring's description.
pub const DESCRIPTION_BYTES: usize = 128;

/// The kind of a sealed piece; none of [`Kind`](crate::frame::Kind), so that it is never taken for a frame of a ring.
pub const KIND_SEALED: u8 = 7;

/// The size of the header of a sealed piece.
pub const SEALED_HEADER_BYTES: usize = HEADER_BYTES;
/// The size of what shows that a sealed piece, or a credit, is as it was sent.
pub const TAG_BYTES: usize = 16;
/// What is in front of the content of a sealed piece.
pub const SEALED_PREFIX_BYTES: usize = SEALED_HEADER_BYTES + TAG_BYTES;

/// The size of a credit.
pub const CREDIT_BYTES: usize = 8;
/// The size of a credit that is sealed.
pub const SEALED_CREDIT_BYTES: usize = CREDIT_BYTES + TAG_BYTES;

/// The size of a key.
pub const KEY_BYTES: usize = 32;

const LENGTH_OFFSET: usize = 0;
const KIND_OFFSET: usize = 4;
const COUNTER_OFFSET: usize = 8;

const _: () = {
    assert!(COUNTER_OFFSET + size_of::<u64>() == SEALED_HEADER_BYTES);
    assert!(KIND_OFFSET == crate::frame::KIND_OFFSET && LENGTH_OFFSET == crate::frame::LENGTH_OFFSET);
    assert!(
        DESCRIPTION_BYTES.is_multiple_of(HEADER_BYTES) && SEALED_PREFIX_BYTES.is_multiple_of(HEADER_BYTES)
    );
    assert!(crate::limits::RING_BYTES_MAX + SEALED_PREFIX_BYTES < u32::MAX as usize, "a length is a u32");
};

/// The header of a sealed piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// Bytes of its content.
    pub content_bytes: usize,
    /// How many pieces came before it.
    pub counter: u64,
}

/// A header of a sealed piece that no sender of ours writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// It is none, or one that this version does not know.
    #[error("where a sealed frame has to be, something else came (its first eight bytes: {0:02x?})")]
    Kind([u8; COUNTER_OFFSET]),
    /// It has no content, or more than was agreed, or a part of a frame.
    #[error("a sealed frame claims {length} bytes, but is to have 48 to {length_max}, in steps of 16")]
    Length {
        /// What it claims.
        length: u32,
        /// The most that it may.
        length_max: usize,
    },
    /// It is not the next one: an earlier one again, or one is missing.
    #[error("sealed frame number {found} came where number {expected} has to be: replayed, or out of order")]
    Counter {
        /// Its number.
        found: u64,
        /// The number that it has to have.
        expected: u64,
    },
}

impl Sealed {
    /// The header as bytes.
    pub fn encode(&self) -> [u8; SEALED_HEADER_BYTES] {
        let mut bytes = [0; SEALED_HEADER_BYTES];
        let length = (SEALED_PREFIX_BYTES + self.content_bytes) as u32;
        bytes[LENGTH_OFFSET..KIND_OFFSET].copy_from_slice(&length.to_le_bytes());
        bytes[KIND_OFFSET] = KIND_SEALED;
        bytes[COUNTER_OFFSET..].copy_from_slice(&self.counter.to_le_bytes());
        bytes
    }

    /// Checks a header that came from a peer, for a piece with no more than `content_max` bytes of content.
    ///
    /// # Errors
    /// [`SealedError`] when it is not the header of the piece with the number `expected`.
    pub fn check(
        bytes: [u8; SEALED_HEADER_BYTES],
        content_max: usize,
        expected: u64,
    ) -> Result<Sealed, SealedError> {
        let [l0, l1, l2, l3, kind, flags, n0, n1, counter @ ..] = bytes;
        if [kind, flags, n0, n1] != [KIND_SEALED, 0, 0, 0] {
            return Err(SealedError::Kind([l0, l1, l2, l3, kind, flags, n0, n1]));
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let content_bytes = (length as usize).wrapping_sub(SEALED_PREFIX_BYTES);
        if content_bytes == 0 || content_bytes > content_max || !content_bytes.is_multiple_of(HEADER_BYTES) {
            return Err(SealedError::Length { length, length_max: content_max + SEALED_PREFIX_BYTES });
        }
        let counter = u64::from_le_bytes(counter);
        if counter != expected {
            return Err(SealedError::Counter { found: counter, expected });
        }
        Ok(Sealed { content_bytes, counter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Header;

    const SEALED: Sealed = Sealed { content_bytes: 48, counter: 5 << 40 };

    #[test]
    fn a_header_reads_back() {
        let bytes = SEALED.encode();
        assert_eq!(Sealed::check(bytes, 48, 5 << 40), Ok(SEALED));
        assert_eq!(bytes[..8], [80, 0, 0, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn no_ring_takes_it_for_a_frame() {
        let sequence = SEALED.counter as u32;
        assert!(Header::check(SEALED.encode(), 4096, sequence).is_err());
    }

    #[test]
    fn what_can_not_be_is_named() {
        let counter = SEALED.counter;
        let bytes = SEALED.encode();
        let replayed = SealedError::Counter { found: counter, expected: counter + 1 };
        assert_eq!(Sealed::check(bytes, 48, counter + 1), Err(replayed));
        let long = SealedError::Length { length: 80, length_max: 64 };
        assert_eq!(Sealed::check(bytes, 32, counter), Err(long));
        for length in [0, 16, 31, 32, 33, 56, 79, 81, u32::MAX] {
            let mut bytes = bytes;
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            let refused = SealedError::Length { length, length_max: 80 };
            assert_eq!(Sealed::check(bytes, 48, counter), Err(refused));
        }
        for place in KIND_OFFSET..COUNTER_OFFSET {
            let mut bytes = bytes;
            bytes[place] ^= 1;
            assert!(matches!(Sealed::check(bytes, 48, counter), Err(SealedError::Kind(_))), "byte {place}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_accepted_is_bounded_and_says_all(bytes: [u8; 16], content_max in 0..1usize << 30) {
            let expected = u64::from_le_bytes(bytes[8..].try_into().unwrap());
            let mut known = bytes;
            known[4..8].copy_from_slice(&[KIND_SEALED, 0, 0, 0]);
            for bytes in [bytes, known] {
                if let Ok(sealed) = Sealed::check(bytes, content_max, expected) {
                    proptest::prop_assert!(sealed.content_bytes <= content_max);
                    proptest::prop_assert_eq!(sealed.encode(), bytes);
                }
            }
        }
    }
}
