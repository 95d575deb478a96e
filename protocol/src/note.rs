//! The ELF note by which a program is known to be built with the SDK.
//!
//! ```text
//!  byte 0          4          8        12                       20            24
//!       ├──────────┼──────────┼────────┼────────────────────────┼─────────────┤
//!       │ name = 8 │ desc = 4 │ type=1 │ 'A' 'r' 'c' … 'n'  NUL │   version   │
//!       └──────────┴──────────┴────────┴────────────────────────┴─────────────┘
//! ```
//!
//! It sits in a section of its own, so that `archean run` can refuse any other program before it starts it.

/// The section's name.
pub const SECTION: &str = ".note.archean";

/// The name inside the note, its closing NUL left out.
pub const NAME: &[u8; 7] = b"Archean";

/// The note's type.
pub const TYPE: u32 = 1;

/// The version of the words between a process and its manager. It grows when words change their meaning; new
/// words alone do not change it.
pub const VERSION: u32 = 1;

/// The note as it stands in a program.
#[repr(C, align(4))]
pub struct Note {
    name_bytes: u32,
    desc_bytes: u32,
    kind: u32,
    name: [u8; 8],
    version: u32,
}

impl Note {
    /// The note of this version.
    pub const THIS: Note =
        Note { name_bytes: 8, desc_bytes: 4, kind: TYPE, name: *b"Archean\0", version: VERSION };
}

const _: () = assert!(size_of::<Note>() == 24);
