//! What the two ends of a data link say first: a hello by who dialled, a reply by who answered.
//!
//! ```text
//! hello                                             reply
//!  byte 0 ├─ magic, 8 bytes ──────────────┤          byte 0 ├─ magic, 8 bytes ───────┤
//!       8 ├─ version, 4 ──────────────────┤               8 ├─ version, 4 ───────────┤
//!      12 ├─ format: order, bits ─────────┤              12 ├─ verdict, 4 ───────────┤
//!      14 ├─ purpose, 1 ─┬─ sealed, 1 ────┤              16 ├─ nonce, 16 ────────────┤
//!      16 ├─ window, 8 ───────────────────┤              32 ├─ MAC of hello and ─────┤
//!      24 ├─ most bytes of a frame, 8 ────┤                 │  what is above, 32     │
//!      32 ├─ link id, 16 ─────────────────┤              64 └────────────────────────┘
//!      48 ├─ nonce, 16 ───────────────────┤
//!      64 ├─ MAC of what is above, 32 ────┤
//!      96 └───────────────────────────────┘
//! ```
//!
//! All numbers are little-endian, and both have one size, so that whoever reads them reads nothing of what follows.
//! Magic, version and verdict stay where they are in all versions. A refusal needs no MAC: it does nothing but end
//! a link, which whoever is in between can do anyway.

use std::fmt;

use crate::{ids::LinkId, limits::LINK_WINDOW_BYTES_MAX};

/// The size of a hello.
pub const HELLO_BYTES: usize = 96;

/// The size of a reply.
pub const REPLY_BYTES: usize = 64;

/// The size of a message authentication code.
pub const MAC_BYTES: usize = 32;

/// The first bytes of a hello. No TLS record starts like this, so one port serves both.
pub const MAGIC: [u8; 8] = *b"\x89ARCHEAN";

/// The version of hello, reply and what follows them.
pub const VERSION: u32 = 1;

/// How archives are laid out in messages: the features of rkyv that the SDK is built with.
pub const FORMAT: Format = Format { order: 1, pointer_bits: 32 };

const REPLY_MAGIC: [u8; 8] = *b"\x89archean";
const VERSION_OFFSET: usize = 8;
const FORMAT_OFFSET: usize = 12;
const PURPOSE_OFFSET: usize = 14;
const SEALED_OFFSET: usize = 15;
const WINDOW_OFFSET: usize = 16;
const FRAME_OFFSET: usize = 24;
const LINK_OFFSET: usize = 32;
const NONCE_OFFSET: usize = 48;
const SIGNED_BYTES: usize = HELLO_BYTES - MAC_BYTES;
const VERDICT_OFFSET: usize = 12;
const REPLY_NONCE_OFFSET: usize = 16;
const REPLY_SIGNED_BYTES: usize = REPLY_BYTES - MAC_BYTES;
const _: () = assert!(NONCE_OFFSET + size_of::<Nonce>() == SIGNED_BYTES);
const _: () = assert!(LINK_OFFSET + size_of::<LinkId>() == NONCE_OFFSET);
const _: () = assert!(REPLY_NONCE_OFFSET + size_of::<Nonce>() == REPLY_SIGNED_BYTES);
const _: () = assert!(MAGIC[0] != 0x16, "a TLS handshake starts with this byte");

/// A number that is used once.
pub type Nonce = [u8; 16];

/// A message authentication code.
pub type Mac = [u8; MAC_BYTES];

/// How archives are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// The order of bytes: 1 for little-endian, 2 for big-endian.
    pub order: u8,
    /// The size of a relative pointer.
    pub pointer_bits: u8,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.order {
            1 => write!(f, "little-endian with {}-bit pointers", self.pointer_bits),
            2 => write!(f, "big-endian with {}-bit pointers", self.pointer_bits),
            other => write!(f, "byte order {other} with {}-bit pointers", self.pointer_bits),
        }
    }
}

/// What a link is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// The frames of one sender's ring.
    Channel = 1,
    /// The files of an image.
    Image = 2,
}

/// What both sides of a link have agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// What it is for.
    pub purpose: Purpose,
    /// What follows is encrypted and authenticated.
    pub is_sealed: bool,
    /// The most bytes that are under way at once: the capacity of the receiver's ring.
    pub window_bytes: u64,
    /// The most bytes of one frame.
    pub frame_bytes_max: u64,
}

/// What who dials says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The link that it opens.
    pub link: LinkId,
    /// What it takes the terms to be.
    pub terms: Terms,
    /// Fresh for each hello.
    pub nonce: Nonce,
}

/// What who answers says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The link is there, or why not.
    pub verdict: Result<(), Refusal>,
    /// Fresh for each reply.
    pub nonce: Nonce,
}

/// Why a link is refused, as the other side is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A hello of another version.
    #[error(
        "it speaks version {0} of the link's hello, and this is version {VERSION}; run one release of `archean` on all machines"
    )]
    Version(u32),
    /// Another layout of archives.
    #[error("its archives have another layout than {FORMAT}; run one release of `archean` on all machines")]
    Format,
    /// Other terms than those that were offered.
    #[error("other terms than ours were offered there")]
    Terms,
    /// No such link, or a wrong secret: which of the two is not told to strangers.
    #[error("it does not expect this link: it was opened before, or was offered too long ago")]
    Unexpected,
}

/// A hello that opens no link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HelloError {
    /// Not the first bytes of a hello.
    #[error("what came is not the hello of a link")]
    Garbage,
    /// Another version.
    #[error(
        "it speaks version {found} of the link's hello, and this is version {VERSION}; run one release of `archean` on all machines"
    )]
    Version {
        /// The other side's.
        found: u32,
    },
    /// Another layout of archives.
    #[error(
        "its archives are {found}, and here they are {FORMAT}; run one release of `archean` on all machines"
    )]
    Format {
        /// The other side's.
        found: Format,
    },
    /// A field that no version has.
    #[error("its hello has {value} for {field}, which means nothing")]
    Field {
        /// What is wrong.
        field: &'static str,
        /// What it says.
        value: u8,
    },
    /// A window that was not agreed on.
    #[error("it asks for a window of {asked} bytes, and at most {limit} were agreed on")]
    Window {
        /// What it asks for.
        asked: u64,
        /// What was offered, or the most that there may be.
        limit: u64,
    },
    /// Frames that were not agreed on.
    #[error("it asks for frames of {asked} bytes, and at most {limit} were agreed on")]
    Frame {
        /// What it asks for.
        asked: u64,
        /// What was offered.
        limit: u64,
    },
    /// Another use than the one that was agreed on.
    #[error("it wants a link for another {0} than was agreed on")]
    Other(&'static str),
}

impl Hello {
    /// The bytes of this hello; `mac` authenticates those that it is given.
    pub fn encode(&self, mac: impl FnOnce(&[u8]) -> Mac) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, VERSION_OFFSET, VERSION.to_le_bytes());
        put(&mut bytes, FORMAT_OFFSET, [FORMAT.order, FORMAT.pointer_bits]);
        put(&mut bytes, PURPOSE_OFFSET, [self.terms.purpose as u8]);
        put(&mut bytes, SEALED_OFFSET, [self.terms.is_sealed as u8]);
        put(&mut bytes, WINDOW_OFFSET, self.terms.window_bytes.to_le_bytes());
        put(&mut bytes, FRAME_OFFSET, self.terms.frame_bytes_max.to_le_bytes());
        put(&mut bytes, LINK_OFFSET, self.link.0);
        put(&mut bytes, NONCE_OFFSET, self.nonce);
        let mac = mac(&bytes[..SIGNED_BYTES]);
        put(&mut bytes, SIGNED_BYTES, mac);
        bytes
    }

    /// What the bytes say. Who said it is known only when their MAC was compared.
    ///
    /// # Errors
    /// [`HelloError`] when it is no hello of this version and format.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, HelloError> {
        if take(bytes, 0) != MAGIC {
            return Err(HelloError::Garbage);
        }
        let found = u32::from_le_bytes(take(bytes, VERSION_OFFSET));
        if found != VERSION {
            return Err(HelloError::Version { found });
        }
        let [order, pointer_bits] = take(bytes, FORMAT_OFFSET);
        let found = Format { order, pointer_bits };
        if found != FORMAT {
            return Err(HelloError::Format { found });
        }
        let purpose = match bytes[PURPOSE_OFFSET] {
            1 => Purpose::Channel,
            2 => Purpose::Image,
            value => return Err(HelloError::Field { field: "its purpose", value }),
        };
        let is_sealed = match bytes[SEALED_OFFSET] {
            0 => false,
            1 => true,
            value => return Err(HelloError::Field { field: "whether it is sealed", value }),
        };
        let window_bytes = u64::from_le_bytes(take(bytes, WINDOW_OFFSET));
        if window_bytes > LINK_WINDOW_BYTES_MAX {
            return Err(HelloError::Window { asked: window_bytes, limit: LINK_WINDOW_BYTES_MAX });
        }
        let frame_bytes_max = u64::from_le_bytes(take(bytes, FRAME_OFFSET));
        let terms = Terms { purpose, is_sealed, window_bytes, frame_bytes_max };
        Ok(Hello { link: LinkId(take(bytes, LINK_OFFSET)), terms, nonce: take(bytes, NONCE_OFFSET) })
    }

    /// The authenticated part of a hello's bytes, and their MAC.
    pub fn signed(bytes: &[u8; HELLO_BYTES]) -> (&[u8], Mac) {
        (&bytes[..SIGNED_BYTES], take(bytes, SIGNED_BYTES))
    }

    /// Compares what it says with what was offered.
    ///
    /// # Errors
    /// [`HelloError`] when it asks for another use, or for more than was offered.
    pub fn check(&self, offered: &Terms) -> Result<(), HelloError> {
        let asked = &self.terms;
        if asked.purpose != offered.purpose {
            return Err(HelloError::Other("purpose"));
        }
        if asked.is_sealed != offered.is_sealed {
            return Err(HelloError::Other("protection"));
        }
        if asked.window_bytes > offered.window_bytes {
            return Err(HelloError::Window { asked: asked.window_bytes, limit: offered.window_bytes });
        }
        if asked.frame_bytes_max > offered.frame_bytes_max {
            return Err(HelloError::Frame { asked: asked.frame_bytes_max, limit: offered.frame_bytes_max });
        }
        Ok(())
    }
}

impl HelloError {
    /// What the other side is told. Who does not speak our language is told nothing.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            HelloError::Garbage | HelloError::Field { .. } => None,
            HelloError::Version { .. } => Some(Refusal::Version(VERSION)),
            HelloError::Format { .. } => Some(Refusal::Format),
            HelloError::Window { .. } | HelloError::Frame { .. } | HelloError::Other(_) => {
                Some(Refusal::Terms)
            }
        }
    }
}

impl Reply {
    /// The bytes of this reply; `mac` authenticates those that it is given (and the hello, which is not in them).
    pub fn encode(&self, mac: impl FnOnce(&[u8]) -> Mac) -> [u8; REPLY_BYTES] {
        let verdict: u32 = match self.verdict {
            Ok(()) => 0,
            Err(Refusal::Version(_)) => 1,
            Err(Refusal::Format) => 2,
            Err(Refusal::Terms) => 3,
            Err(Refusal::Unexpected) => 4,
        };
        let mut bytes = [0; REPLY_BYTES];
        put(&mut bytes, 0, REPLY_MAGIC);
        put(&mut bytes, VERSION_OFFSET, VERSION.to_le_bytes());
        put(&mut bytes, VERDICT_OFFSET, verdict.to_le_bytes());
        put(&mut bytes, REPLY_NONCE_OFFSET, self.nonce);
        let mac = mac(&bytes[..REPLY_SIGNED_BYTES]);
        put(&mut bytes, REPLY_SIGNED_BYTES, mac);
        bytes
    }

    /// What the bytes say; `None` when they are no reply. An acceptance counts only when its MAC is right.
    pub fn decode(bytes: &[u8; REPLY_BYTES]) -> Option<Reply> {
        let version = u32::from_le_bytes(take(bytes, VERSION_OFFSET));
        let verdict = match u32::from_le_bytes(take(bytes, VERDICT_OFFSET)) {
            1 => Err(Refusal::Version(version)),
            _ if version != VERSION => return None,
            0 => Ok(()),
            2 => Err(Refusal::Format),
            3 => Err(Refusal::Terms),
            4 => Err(Refusal::Unexpected),
            _ => return None,
        };
        let nonce = take(bytes, REPLY_NONCE_OFFSET);
        (take(bytes, 0) == REPLY_MAGIC).then_some(Reply { verdict, nonce })
    }

    /// The authenticated part of a reply's bytes, and their MAC.
    pub fn signed(bytes: &[u8; REPLY_BYTES]) -> (&[u8], Mac) {
        (&bytes[..REPLY_SIGNED_BYTES], take(bytes, REPLY_SIGNED_BYTES))
    }
}

fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&value);
}

fn take<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[offset..offset + N]);
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms =
        Terms { purpose: Purpose::Channel, is_sealed: true, window_bytes: 1 << 20, frame_bytes_max: 1 << 19 };
    const HELLO: Hello = Hello { link: LinkId([7; 16]), terms: TERMS, nonce: [9; 16] };

    fn encoded() -> [u8; HELLO_BYTES] {
        HELLO.encode(|signed| [signed.len() as u8; MAC_BYTES])
    }

    fn with(offset: usize, value: u8) -> Result<Hello, HelloError> {
        let mut bytes = encoded();
        bytes[offset] = value;
        Hello::decode(&bytes)
    }

    #[test]
    fn a_hello_says_what_was_put_into_it() {
        let bytes = encoded();
        assert_eq!(Hello::decode(&bytes), Ok(HELLO));
        assert_eq!(Hello::signed(&bytes), (&bytes[..64], [64; MAC_BYTES]));
    }

    #[test]
    fn each_kind_of_bad_hello_has_its_name() {
        assert_eq!(with(0, 0x16), Err(HelloError::Garbage));
        assert_eq!(with(VERSION_OFFSET, 2), Err(HelloError::Version { found: 2 }));
        let found = Format { order: 2, ..FORMAT };
        assert_eq!(with(FORMAT_OFFSET, 2), Err(HelloError::Format { found }));
        assert_eq!(with(PURPOSE_OFFSET, 3), Err(HelloError::Field { field: "its purpose", value: 3 }));
        assert!(matches!(with(SEALED_OFFSET, 2), Err(HelloError::Field { value: 2, .. })));
        assert!(matches!(with(WINDOW_OFFSET + 4, 1), Err(HelloError::Window { .. })));
    }

    #[test]
    fn no_more_is_given_than_was_offered() {
        assert_eq!(HELLO.check(&TERMS), Ok(()));
        let refused = |offered: Terms| HELLO.check(&offered).unwrap_err();
        assert_eq!(refused(Terms { purpose: Purpose::Image, ..TERMS }), HelloError::Other("purpose"));
        assert_eq!(refused(Terms { is_sealed: false, ..TERMS }), HelloError::Other("protection"));
        let window = HelloError::Window { asked: 1 << 20, limit: 4096 };
        assert_eq!(refused(Terms { window_bytes: 4096, ..TERMS }), window);
        let frame = HelloError::Frame { asked: 1 << 19, limit: 4096 };
        assert_eq!(refused(Terms { frame_bytes_max: 4096, ..TERMS }), frame);
        assert_eq!(HELLO.check(&Terms { window_bytes: 1 << 21, frame_bytes_max: 1 << 21, ..TERMS }), Ok(()));
    }

    #[test]
    fn a_reply_says_what_was_put_into_it() {
        use Refusal::{Format, Terms, Unexpected, Version};
        for verdict in [Ok(()), Err(Version(VERSION)), Err(Format), Err(Terms), Err(Unexpected)] {
            let reply = Reply { verdict, nonce: [3; 16] };
            let bytes = reply.encode(|signed| [signed.len() as u8; MAC_BYTES]);
            assert_eq!(Reply::decode(&bytes), Some(reply));
            assert_eq!(Reply::signed(&bytes), (&bytes[..32], [32; MAC_BYTES]));
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_encodes_to_the_same_bytes(
            changes in prop::collection::vec((0..HELLO_BYTES, any::<u8>()), 0..6),
        ) {
            let mut bytes = encoded();
            for (offset, value) in changes {
                bytes[offset] = value;
            }
            if let Ok(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(hello.encode(|_| Hello::signed(&bytes).1), bytes);
            }
        }

        #[test]
        fn no_reply_makes_it_panic(bytes in prop::array::uniform32(any::<u8>())) {
            let mut reply = [0; REPLY_BYTES];
            reply[..32].copy_from_slice(&bytes);
            if let Some(decoded) = Reply::decode(&reply) {
                prop_assert_eq!(&reply[..8], &REPLY_MAGIC[..]);
                prop_assert_eq!(decoded.nonce, take::<16>(&reply, REPLY_NONCE_OFFSET));
            }
        }
    }
}
