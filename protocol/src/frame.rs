//! The sixteen bytes in front of every message in a ring; the same on the wire.
//!
//! ```text
//!  byte 0        4      5       6        8            12           16
//!       ├────────┼──────┼───────┼────────┼────────────┼────────────┤
//!       │ length │ kind │ flags │  ends  │  sequence  │    time    │
//!       ├────────┴──────┴───────┴────────┴────────────┴────────────┤
//!       │ payload: `length - 16` bytes, the root of an archive at its very end
//!       ├──────────────────────────────────────────────────────────┤
//!       │ zero to fifteen bytes of padding, up to a multiple of sixteen
//!       ├──────────────────────────────────────────────────────────┤
//!       │ table of ends: `ends` ids of sixteen bytes each
//!       └──────────────────────────────────────────────────────────┘
//! ```
//!
//! All numbers are little-endian. A frame starts at a multiple of sixteen, and so does the next. `length` counts
//! the header and the payload, so it is never zero in a published frame: a zero there means «not yet published».
//! The table of ends is untyped, so that a manager can see which ends a frame holds without knowing its type.

use crate::ids::EndId;

/// The size of a header, and the alignment of frames and payloads.
pub const HEADER_BYTES: usize = 16;

/// Where kind, flags and the number of ends are: one word of four bytes.
pub const KIND_OFFSET: usize = 4;

/// Where the sequence number is; the time follows it.
pub const SEQUENCE_OFFSET: usize = 8;

/// The size of one entry of the table of ends.
pub const END_BYTES: usize = 16;

/// Where the length word is.
pub const LENGTH_OFFSET: usize = 0;
const _: () = assert!(size_of::<EndId>() == END_BYTES);

/// The payload is followed by a table of ends.
pub const FLAG_ENDS: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Its payload is one archived value.
    Value = 1,
    /// Nothing: the next frame is behind it. The sender found the ring empty, and goes back to memory that it has
    /// used before.
    Skip = 2,
    /// The beginning of a message that is larger than the ring. What came of another one before is void.
    FirstPart = 3,
    /// A part from the middle of such a message.
    MiddlePart = 4,
    /// The end of such a message.
    LastPart = 5,
    /// Its payload is the number of messages, a `u64`, that were left out here because the reader was too slow.
    Missed = 6,
}

impl Kind {
    const fn of(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Value,
            2 => Kind::Skip,
            3 => Kind::FirstPart,
            4 => Kind::MiddlePart,
            5 => Kind::LastPart,
            6 => Kind::Missed,
            _ => return None,
        })
    }

    /// Whether such a frame may hold ends.
    pub const fn may_hold_ends(self) -> bool {
        matches!(self, Kind::Value | Kind::LastPart)
    }
}

/// A header, read once and checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Bytes of payload, the header left out.
    pub payload_bytes: usize,
    /// What the payload is.
    pub kind: Kind,
    /// How many ends the payload holds.
    pub ends: usize,
    /// Counts the frames of a ring, from zero, and wraps.
    pub sequence: u32,
    /// The sender's logical time; zero unless a job runs deterministically.
    pub time: u32,
}

/// A header that no sender of ours writes: the peer is broken or hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The length is less than a header, or the frame is larger than its ring.
    #[error("a frame claims {length} bytes and {ends} ends in a ring of {capacity} bytes")]
    Length {
        /// The length word.
        length: u32,
        /// The count of ends.
        ends: u16,
        /// The ring's size.
        capacity: usize,
    },
    /// A kind or a flag that this version does not know.
    #[error("a frame of kind {kind} with flags {flags:#x} is not known to this version")]
    Kind {
        /// The kind.
        kind: u8,
        /// The flags.
        flags: u8,
    },
    /// The sequence number is not the next one.
    #[error("a frame has sequence number {found}, expected {expected}")]
    Sequence {
        /// What the header says.
        found: u32,
        /// What it should say.
        expected: u32,
    },
}

impl Header {
    /// The whole size of a frame in its ring: header, payload, padding and table.
    pub const fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload_bytes, self.ends)
    }

    /// Where the table of ends starts, from the frame's start.
    pub const fn table_offset(&self) -> usize {
        HEADER_BYTES + self.payload_bytes.next_multiple_of(HEADER_BYTES)
    }

    /// The header as bytes, for a frame that is written whole.
    pub const fn encode(&self) -> [u8; HEADER_BYTES] {
        let length = ((HEADER_BYTES + self.payload_bytes) as u32).to_le_bytes();
        let flags = if self.ends == 0 { 0 } else { FLAG_ENDS };
        let ends = (self.ends as u16).to_le_bytes();
        let sequence = self.sequence.to_le_bytes();
        let time = self.time.to_le_bytes();
        [
            length[0],
            length[1],
            length[2],
            length[3],
            self.kind as u8,
            flags,
            ends[0],
            ends[1],
            sequence[0],
            sequence[1],
            sequence[2],
            sequence[3],
            time[0],
            time[1],
            time[2],
            time[3],
        ]
    }

    /// Checks a header that came from a peer.
    ///
    /// `bytes` must be one copy of the header: memory that the peer can still write is read once, by the caller.
    ///
    /// # Errors
    /// [`HeaderError`] when the frame would not fit a ring of `capacity` bytes, is of an unknown kind, or is not
    /// the one with sequence number `expected`.
    #[inline]
    pub const fn check(
        bytes: [u8; HEADER_BYTES],
        capacity: usize,
        expected: u32,
    ) -> Result<Header, HeaderError> {
        let [l0, l1, l2, l3, kind, flags, e0, e1, s0, s1, s2, s3, t0, t1, t2, t3] = bytes;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let ends = u16::from_le_bytes([e0, e1]);
        if (length as usize) < HEADER_BYTES || length as usize > capacity {
            return Err(HeaderError::Length { length, ends, capacity });
        }
        let payload_bytes = length as usize - HEADER_BYTES;
        if frame_bytes(payload_bytes, ends as usize) > capacity - HEADER_BYTES
            || ends as usize > crate::limits::FRAME_ENDS_MAX
        {
            return Err(HeaderError::Length { length, ends, capacity });
        }
        let flags_expected = if ends == 0 { 0 } else { FLAG_ENDS };
        let kind = match Kind::of(kind) {
            Some(known) if flags == flags_expected && (ends == 0 || known.may_hold_ends()) => known,
            _ => return Err(HeaderError::Kind { kind, flags }),
        };
        let sequence = u32::from_le_bytes([s0, s1, s2, s3]);
        if sequence != expected {
            return Err(HeaderError::Sequence { found: sequence, expected });
        }
        Ok(Header {
            payload_bytes,
            kind,
            ends: ends as usize,
            sequence,
            time: u32::from_le_bytes([t0, t1, t2, t3]),
        })
    }
}

/// The size in its ring of a frame with that payload and that many ends.
pub const fn frame_bytes(payload_bytes: usize, ends: usize) -> usize {
    HEADER_BYTES + payload_bytes.next_multiple_of(HEADER_BYTES) + ends * END_BYTES
}

/// The largest payload without ends that a ring of `capacity` bytes can carry: behind every frame there is room
/// for the next header, which says «not yet».
pub const fn payload_bytes_max(capacity: usize) -> usize {
    capacity - 2 * HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { payload_bytes: 21, kind: Kind::Value, ends: 2, sequence: 9, time: 5 };

    #[test]
    fn a_header_reads_back() {
        assert_eq!(Header::check(HEADER.encode(), 4096, 9), Ok(HEADER));
        assert_eq!(HEADER.frame_bytes(), 16 + 32 + 32);
        assert_eq!(HEADER.table_offset(), 48);
    }

    #[test]
    fn a_frame_may_fill_its_ring_but_for_the_next_header() {
        let header = Header { payload_bytes: payload_bytes_max(4096), ends: 0, ..HEADER };
        assert_eq!(Header::check(header.encode(), 4096, 9), Ok(header));
        let over = Header { payload_bytes: payload_bytes_max(4096) + 1, ends: 0, ..HEADER };
        assert!(matches!(Header::check(over.encode(), 4096, 9), Err(HeaderError::Length { .. })));
    }

    #[test]
    fn a_wrong_sequence_is_told() {
        assert_eq!(
            Header::check(HEADER.encode(), 4096, 8),
            Err(HeaderError::Sequence { found: 9, expected: 8 })
        );
    }

    #[test]
    fn only_values_and_last_parts_hold_ends() {
        let known = [
            (Kind::Value, true),
            (Kind::Skip, false),
            (Kind::FirstPart, false),
            (Kind::MiddlePart, false),
            (Kind::LastPart, true),
            (Kind::Missed, false),
        ];
        for byte in 0..=u8::MAX {
            let kind = known.into_iter().find(|(kind, _)| *kind as u8 == byte);
            for ends in 0..3 {
                let mut bytes = Header { ends, ..HEADER }.encode();
                bytes[KIND_OFFSET] = byte;
                let expected = match kind {
                    Some((kind, may_hold_ends)) if ends == 0 || may_hold_ends => {
                        Ok(Header { kind, ends, ..HEADER })
                    }
                    _ => Err(HeaderError::Kind { kind: byte, flags: if ends == 0 { 0 } else { FLAG_ENDS } }),
                };
                assert_eq!(Header::check(bytes, 4096, 9), expected);
            }
        }
    }

    #[test]
    fn a_flag_says_whether_there_are_ends() {
        for (ends, flags_right) in [(0, 0), (2, FLAG_ENDS)] {
            for flags in (0..=u8::MAX).filter(|flags| *flags != flags_right) {
                let mut bytes = Header { ends, ..HEADER }.encode();
                assert_eq!(bytes[KIND_OFFSET + 1], flags_right);
                bytes[KIND_OFFSET + 1] = flags;
                let refused = HeaderError::Kind { kind: Kind::Value as u8, flags };
                assert_eq!(Header::check(bytes, 4096, 9), Err(refused));
            }
        }
    }

    #[test]
    fn more_ends_than_a_message_may_hold_are_refused() {
        let capacity = crate::limits::RING_BYTES_DEFAULT;
        let most = Header { ends: crate::limits::FRAME_ENDS_MAX, ..HEADER };
        assert_eq!(Header::check(most.encode(), capacity, 9), Ok(most));
        let over = Header { ends: crate::limits::FRAME_ENDS_MAX + 1, ..HEADER };
        assert!(matches!(Header::check(over.encode(), capacity, 9), Err(HeaderError::Length { .. })));
    }

    #[test]
    fn a_length_of_less_than_a_header_is_refused() {
        for length in 0..HEADER_BYTES as u32 {
            let mut bytes = Header { payload_bytes: 0, ends: 0, ..HEADER }.encode();
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            let refused = HeaderError::Length { length, ends: 0, capacity: 64 };
            assert_eq!(Header::check(bytes, 64, 9), Err(refused));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_accepted_stays_inside_its_ring(bytes: [u8; 16], shift in 12u32..30, expected: u32) {
            let capacity = 1usize << shift;
            if let Ok(header) = Header::check(bytes, capacity, expected) {
                proptest::prop_assert!(header.frame_bytes() + HEADER_BYTES <= capacity);
                proptest::prop_assert_eq!(header.encode(), bytes);
            }
        }
    }
}
