//! What an image is made of, and how its files are asked for over a link.
//!
//! An image is named by the BLAKE3 hash of its manifest, which names each of its files by the BLAKE3 hash of its bytes:
//! so whoever knows the image's id can check all of it, whoever it comes from. The manifest is asked for like a file.
//!
//! ```text
//!  record on the link   ├─ length, 4 ─┬─ kind, 1 ─┬─ body ─────────────────┬─ tag, 16, if sealed ─┤
//!  Want                                 1           hash, 32; offset, 8
//!  Bytes                                2           the file from the offset on, or from where the last one ended
//!  End                                  3           nothing: the file is over
//!  Absent                               4           nothing: there is no such file here
//! ```
//!
//! Numbers are little-endian; the length counts what follows it. If the link is sealed, kind and body are encrypted
//! (AES-256-GCM, the length is authenticated along, the nonce counts the records of that direction).

use prost::Message;

use crate::limits::{IMAGE_BYTES_MAX, IMAGE_FILES_MAX, MANIFEST_BYTES_MAX};

/// The most bytes of a record, its length left out.
pub const RECORD_BYTES_MAX: usize = 64 << 10;

/// The bytes in front of a record: its length.
pub const RECORD_HEADER_BYTES: usize = 4;

/// The kind of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// The receiver asks for a file from an offset on.
    Want = 1,
    /// A piece of it.
    Bytes = 2,
    /// There is no more of it.
    End = 3,
    /// The sender does not have it.
    Absent = 4,
}

impl Kind {
    /// The kind that a record starts with.
    pub fn decode(byte: u8) -> Option<Kind> {
        [Kind::Want, Kind::Bytes, Kind::End, Kind::Absent].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A wish for a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// The file's name: the hash of its bytes.
    pub hash: [u8; 32],
    /// How many of its bytes are there already.
    pub offset: u64,
}

impl Want {
    /// The body of its record.
    pub fn encode(&self) -> [u8; 40] {
        let mut body = [0; 40];
        body[..32].copy_from_slice(&self.hash);
        body[32..].copy_from_slice(&self.offset.to_le_bytes());
        body
    }

    /// What a body says; `None` when it has another length.
    pub fn decode(body: &[u8]) -> Option<Want> {
        let (hash, offset) = body.split_first_chunk()?;
        Some(Want { hash: *hash, offset: u64::from_le_bytes(offset.try_into().ok()?) })
    }
}

/// What a file of an image is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum Role {
    /// The executable. There is one.
    Program = 1,
    /// The loader that it names; a static program has none.
    Interpreter = 2,
    /// A library that the loader finds by this name.
    Library = 3,
}

/// All the files of an image.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Manifest {
    /// The files, the program first.
    #[prost(message, repeated, tag = "1")]
    pub files: Vec<ImageFile>,
}

/// One file of an image.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ImageFile {
    /// What it is for.
    #[prost(enumeration = "Role", tag = "1")]
    pub role: i32,
    /// Its name, without a folder.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its length.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// The BLAKE3 hash of its bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub hash: Vec<u8>,
    /// Its permissions.
    #[prost(uint32, tag = "5")]
    pub mode: u32,
}

/// A manifest that describes no image.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is too long, or no manifest at all.
    #[error("it cannot be read")]
    Garbled,
    /// There has to be one program, at most one loader, and no library without a loader.
    #[error("it has {programs} programs, {interpreters} loaders and {libraries} libraries")]
    Roles {
        /// Executables.
        programs: usize,
        /// Loaders.
        interpreters: usize,
        /// Libraries.
        libraries: usize,
    },
    /// More files than there may be.
    #[error("it has {0} files, and {IMAGE_FILES_MAX} is the most")]
    TooMany(usize),
    /// More bytes than there may be.
    #[error("it has {0} bytes, and {IMAGE_BYTES_MAX} is the most")]
    TooLarge(u64),
    /// A name that is none, or is there twice.
    #[error("a file cannot be called {0:?} in it")]
    Name(String),
    /// No hash.
    #[error("it does not say what is in `{0}`")]
    Hash(String),
}

impl ImageFile {
    /// What it is for; checked when the manifest was.
    pub fn kind(&self) -> Option<Role> {
        Role::try_from(self.role).ok()
    }

    /// The hash of its bytes; checked when the manifest was.
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.hash.as_slice().try_into().ok()
    }
}

impl Manifest {
    /// Reads and checks a manifest. That it is the one that was asked for is checked by its hash.
    ///
    /// # Errors
    /// [`ManifestError`] says why it describes no image.
    pub fn read(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::Garbled);
        }
        let manifest = Manifest::decode(bytes).map_err(|_| ManifestError::Garbled)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// All bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// The file with this role that comes first.
    pub fn first(&self, role: Role) -> Option<&ImageFile> {
        self.files.iter().find(|file| file.kind() == Some(role))
    }

    /// Checks that it describes an image.
    ///
    /// # Errors
    /// [`ManifestError`] says why not.
    pub fn check(&self) -> Result<(), ManifestError> {
        let count = |role| self.files.iter().filter(|file| file.kind() == Some(role)).count();
        let (programs, interpreters) = (count(Role::Program), count(Role::Interpreter));
        let libraries = self.files.len() - programs - interpreters;
        if programs != 1 || interpreters > 1 || interpreters == 0 && libraries > 0 {
            return Err(ManifestError::Roles { programs, interpreters, libraries });
        }
        if self.files.len() > IMAGE_FILES_MAX {
            return Err(ManifestError::TooMany(self.files.len()));
        }
        if self.bytes() > IMAGE_BYTES_MAX {
            return Err(ManifestError::TooLarge(self.bytes()));
        }
        let mut names = std::collections::HashSet::new();
        for file in &self.files {
            let name = file.name.as_str();
            let is_plain =
                !["", ".", ".."].contains(&name) && name.len() <= 255 && !name.contains(['/', '\0']);
            if !is_plain || file.kind().is_none_or(|role| !names.insert((role, name))) {
                return Err(ManifestError::Name(name.into()));
            }
            if file.digest().is_none() {
                return Err(ManifestError::Hash(name.into()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(role: Role, name: &str) -> ImageFile {
        ImageFile { role: role as i32, name: name.into(), bytes: 10, hash: vec![1; 32], mode: 0o755 }
    }

    fn image(files: &[ImageFile]) -> Result<Manifest, ManifestError> {
        Manifest::read(&Manifest { files: files.to_vec() }.encode_to_vec())
    }

    #[test]
    fn a_manifest_says_what_was_put_into_it() {
        let files = [Role::Program, Role::Interpreter, Role::Library].map(|role| file(role, "name"));
        let manifest = image(&files).unwrap();
        assert_eq!((manifest.bytes(), &manifest.files[..]), (30, &files[..]));
        assert_eq!(manifest.first(Role::Library), Some(&files[2]));
        image(&files[..1]).unwrap();
    }

    #[test]
    fn a_manifest_that_describes_no_image_is_refused() {
        let program = file(Role::Program, "cell");
        let roles = |files: &[ImageFile]| assert!(matches!(image(files), Err(ManifestError::Roles { .. })));
        roles(&[]);
        roles(&[program.clone(), program.clone()]);
        roles(&[program.clone(), file(Role::Library, "libc.so.6")]);
        let with = |change: &dyn Fn(&mut ImageFile)| {
            let mut library = file(Role::Library, "libc.so.6");
            change(&mut library);
            let loader = file(Role::Interpreter, "ld.so");
            image(&[program.clone(), loader, file(Role::Library, "libm.so.6"), library]).err()
        };
        assert_eq!(with(&|_| ()), None);
        for name in ["", ".", "..", "../libc.so", "a/b", "a\0", "libm.so.6", &"x".repeat(256)] {
            assert_eq!(with(&|file| file.name = name.into()), Some(ManifestError::Name(name.into())));
        }
        assert_eq!(with(&|file| file.hash.truncate(31)), Some(ManifestError::Hash("libc.so.6".into())));
        assert!(matches!(with(&|file| file.bytes = u64::MAX), Some(ManifestError::TooLarge(_))));
        assert!(with(&|file| file.role = 9).is_some());
        let many = (0..=IMAGE_FILES_MAX).map(|number| file(Role::Library, &format!("{number}")));
        let many: Vec<_> = [program, file(Role::Interpreter, "ld.so")].into_iter().chain(many).collect();
        assert!(matches!(image(&many), Err(ManifestError::TooMany(_))));
        assert_eq!(Manifest::read(&[0xff; 9]), Err(ManifestError::Garbled));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(manifest) = Manifest::read(&bytes) {
                prop_assert_eq!(manifest.check(), Ok(()));
            }
            if let Some(want) = Want::decode(&bytes) {
                prop_assert_eq!(&want.encode()[..], &bytes[..]);
            }
        }
    }
}
