//! The executable of a job: checked, hashed, and kept as bytes that nobody can change any more.
//!
//! A program may be built again while its job runs. So its bytes are copied into a sealed memory file, hashed on
//! the way, and every process of the job runs that copy. All checks look at the copy, never at the file.
#![expect(unsafe_code, reason = "memory files, seals and mappings have no safe interface in std")]

use std::{
    env::consts::ARCH,
    ffi::CString,
    fs::{File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    ops::Deref,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    ptr::{self, NonNull},
    slice,
};

use object::{
    LittleEndian, elf,
    read::elf::{Dyn, FileHeader, NoteIterator, ProgramHeader, SectionHeader},
};
use protocol::{ids::ImageId, note};

mod stored;

pub use stored::Loader;

type Header = elf::FileHeader64<LittleEndian>;
type Segment = elf::ProgramHeader64<LittleEndian>;

/// An executable, ready to be started any number of times.
#[derive(Debug)]
pub struct Image {
    /// The hash of its bytes.
    pub id: ImageId,
    /// Where it was read from.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What the kernel is to execute: the sealed memory file that holds it, or the loader that came along with it.
    pub fd: OwnedFd,
    /// How that loader is told what to run; `None` when the kernel finds the loader, or there is none.
    pub loader: Option<Loader>,
}

/// A file that can't be run as a job.
#[derive(Debug, thiserror::Error)]
#[error("cannot run `{}`: {flaw}", path.display())]
pub struct ImageError {
    /// The path as it was given.
    pub path: PathBuf,
    /// Why not.
    pub flaw: Flaw,
}

/// Why a file can't be run as a job.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// Nothing has that name.
    #[error("there is no such file; build the program first, or check the path")]
    NotFound,
    /// A folder.
    #[error("it is a folder; name the executable inside it")]
    Folder,
    /// A device, a pipe or a socket.
    #[error("it is not a regular file; name an executable file")]
    NotRegular,
    /// Opening it is not allowed.
    #[error("this user may not read it; allow it with `chmod u+rx`")]
    NotReadable,
    /// Running it is not allowed.
    #[error(
        "this user may not execute it; allow it with `chmod u+x`, or move it off a file system that is mounted \
         `noexec`"
    )]
    NotExecutable,
    /// A script.
    #[error("it is a script (it starts with `#!`); name the compiled program itself")]
    Script,
    /// Anything else that is no ELF file.
    #[error("it is not an ELF file; name a compiled program")]
    NotElf,
    /// A program for other machines.
    #[error("it is built for {found}, and this machine is {here}; build it for this machine")]
    Architecture {
        /// What the file says.
        found: String,
        /// What would run here.
        here: String,
    },
    /// An ELF file that can't be started by itself.
    #[error("it is {what}, not a program; name an executable")]
    NotProgram {
        /// What it is.
        what: &'static str,
    },
    /// An ELF file that contradicts itself.
    #[error("it is damaged ({what}); build it again")]
    Damaged {
        /// What is wrong in it.
        what: String,
    },
    /// A program without the SDK.
    #[error(
        "it is not built with Archean; add the crate `archean` to it and call `archean::init()` first in `main`, \
         or put `#[archean::main]` on `main`"
    )]
    NotBuiltWithSdk,
    /// A program with an SDK that speaks other words.
    #[error(
        "it speaks version {found} of the protocol, and this `archean` speaks version {supported}; build it with \
         the crate `archean` of the same release as this `archean`"
    )]
    Version {
        /// The program's version.
        found: u32,
        /// The version of this build.
        supported: u32,
    },
    /// Somebody wrote to the file meanwhile.
    #[error("it changed while it was read; try again when its build has finished")]
    Changed,
    /// There is no memory file that could be run.
    #[error(
        "no executable memory file could be made: {0}; the sysctl `vm.memfd_noexec` must be 0 or 1, and \
         `ulimit -n` must leave room"
    )]
    MemoryFile(io::Error),
    /// Another error of the system.
    #[error("{doing} failed: {error}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the kernel says.
        error: io::Error,
    },
}

impl Image {
    /// Reads, checks, hashes and seals the executable at `path`.
    ///
    /// # Errors
    /// [`ImageError`] when the file is not a program that is built with this SDK for this machine, when this user
    /// may not run it, or when it changes meanwhile.
    pub fn load(path: &Path) -> Result<Image, ImageError> {
        load(path).map_err(|flaw| ImageError { path: path.into(), flaw })
    }

    /// The loader that the program names; `None` when it is linked statically.
    ///
    /// # Errors
    /// [`ImageError`] when that is not to be read from its bytes.
    pub fn interpreter(&self) -> Result<Option<Vec<u8>>, ImageError> {
        let sealed = Sealed::map(&self.fd, self.bytes).map_err(io_flaw("mapping its copy in memory"));
        sealed
            .and_then(|sealed| interpreter(&sealed))
            .map_err(|flaw| ImageError { path: self.path.clone(), flaw })
    }
}

fn load(path: &Path) -> Result<Image, Flaw> {
    let (file, before) = open(path)?;
    refuse_at_a_glance(&file)?;
    let memory = memory_file(path)?;
    let id = copy_hashed(&file, &memory, before.len()).map_err(io_flaw("copying it into memory"))?;
    let after = file.metadata().map_err(io_flaw("looking at it"))?;
    let id = id.filter(|_| stamp(&before) == stamp(&after)).ok_or(Flaw::Changed)?;
    let fd = OwnedFd::from(memory);
    seal(&fd).map_err(io_flaw("sealing its copy in memory"))?;
    let sealed = Sealed::map(&fd, before.len()).map_err(io_flaw("mapping its copy in memory"))?;
    check(&sealed)?;
    Ok(Image { id, path: path.into(), bytes: before.len(), fd, loader: None })
}

fn io_flaw(doing: &'static str) -> impl FnOnce(io::Error) -> Flaw {
    move |error| Flaw::Io { doing, error }
}

/// How much is copied and hashed at a time: small enough for the cache, large enough that calls don't count.
const COPY_BYTES: usize = 256 << 10;

fn open(path: &Path) -> Result<(File, Metadata), Flaw> {
    let flaw = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => Flaw::NotFound,
        ErrorKind::PermissionDenied => Flaw::NotReadable,
        _ => Flaw::Io { doing: "opening it", error },
    };
    // Opening a device can have effects, so look first; opening a pipe that took its place must not block.
    refuse_irregular(&path.metadata().map_err(flaw)?)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(flaw)?;
    let metadata = file.metadata().map_err(flaw)?;
    refuse_irregular(&metadata)?;
    let (mode, flags) = (libc::X_OK, libc::AT_EACCESS | libc::AT_EMPTY_PATH);
    // SAFETY: the descriptor is open as long as `file` lives, and the name is a NUL-terminated constant.
    match unsafe { libc::syscall(libc::SYS_faccessat2, file.as_raw_fd(), c"".as_ptr(), mode, flags) } {
        0 => Ok((file, metadata)),
        _ => Err(match io::Error::last_os_error() {
            error if error.kind() == ErrorKind::PermissionDenied => Flaw::NotExecutable,
            error => Flaw::Io { doing: "asking whether it may be executed", error },
        }),
    }
}

fn refuse_irregular(metadata: &Metadata) -> Result<(), Flaw> {
    match metadata {
        folder if folder.is_dir() => Err(Flaw::Folder),
        other if !other.is_file() => Err(Flaw::NotRegular),
        _ => Ok(()),
    }
}

/// Refuses what is plainly no program before all of it is copied into memory.
fn refuse_at_a_glance(file: &File) -> Result<(), Flaw> {
    let mut start = [0; 4];
    match file.read_at(&mut start, 0) {
        Ok(_) if start == elf::ELFMAG => Ok(()),
        Ok(_) if start.starts_with(b"#!") => Err(Flaw::Script),
        Ok(_) => Err(Flaw::NotElf),
        Err(error) => Err(Flaw::Io { doing: "reading it", error }),
    }
}

/// A new memory file, named like the program so that it is known in listings of processes.
fn memory_file(path: &Path) -> Result<File, Flaw> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let name = CString::new(&name[..name.len().min(200)]).unwrap_or_default();
    let create = |flags| {
        // SAFETY: the name is NUL-terminated and outlives the call.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        // SAFETY: the descriptor is not negative, so the call has just made it, and nobody else owns it.
        (fd >= 0).then(|| unsafe { File::from_raw_fd(fd) }).ok_or_else(io::Error::last_os_error)
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    create(flags | libc::MFD_EXEC)
        .or_else(|error| match error.raw_os_error() {
            // Kernels before 6.3 don't know the flag, and make every memory file executable.
            Some(libc::EINVAL) => create(flags),
            _ => Err(error),
        })
        .map_err(Flaw::MemoryFile)
}

/// Copies all of `from`, and hashes what is copied. `None` when it is not exactly `bytes` long.
fn copy_hashed(mut from: impl Read, mut to: impl Write, bytes: u64) -> io::Result<Option<ImageId>> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut hasher = blake3::Hasher::new();
    while hasher.count() <= bytes {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                to.write_all(&buffer[..count])?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((hasher.count() == bytes).then(|| ImageId(*hasher.finalize().as_bytes())))
}

/// What changes when a file is written to.
fn stamp(metadata: &Metadata) -> (u64, i64, i64) {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

/// From now on nobody can change the file.
fn seal(fd: &OwnedFd) -> io::Result<()> {
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: `fd` is open while it is borrowed, and this command takes one integer.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A memory file that can't change any more, mapped for reading.
struct Sealed {
    start: NonNull<u8>,
    bytes: usize,
}

impl Sealed {
    /// Maps a file of `bytes` bytes that is [sealed](seal).
    fn map(fd: &OwnedFd, bytes: u64) -> io::Result<Sealed> {
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory that is in use.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, fd.as_raw_fd(), 0) };
        match NonNull::new(start.cast()) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED.cast() => Ok(Sealed { start, bytes }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `map` mapped that many bytes there for reading, and only `drop` unmaps them; `load` wrote exactly
        // that many into the file before it was sealed, so none of them is missing and none of them changes.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        // SAFETY: this is what `map` mapped, it is unmapped once, and no borrow of it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Checks that the bytes are a program with the SDK in it, for this machine.
fn check(data: &[u8]) -> Result<(), Flaw> {
    let damaged = |what: &str| Flaw::Damaged { what: what.into() };
    let here = format!("{ARCH}, 64-bit");
    let found = architecture(data).ok_or_else(|| damaged("its header is cut off"))?;
    if found != here {
        return Err(Flaw::Architecture { found, here });
    }
    let header = Header::parse(data).map_err(|error| damaged(&error.to_string()))?;
    let what = match header.e_type(LittleEndian) {
        elf::ET_EXEC | elf::ET_DYN => None,
        elf::ET_REL => Some("an object file"),
        elf::ET_CORE => Some("a core dump"),
        _ => Some("an ELF file of an unknown type"),
    };
    if let Some(what) = what {
        return Err(Flaw::NotProgram { what });
    }
    let segments = header.program_headers(LittleEndian, data).map_err(|error| damaged(&error.to_string()))?;
    let mut loaded =
        segments.iter().filter(|segment| segment.p_type(LittleEndian) == elf::PT_LOAD).peekable();
    if loaded.peek().is_none() {
        return Err(damaged("it has nothing to load"));
    }
    if loaded.any(|segment| segment.data(LittleEndian, data).is_err()) {
        return Err(damaged("a part of it is missing"));
    }
    let is_movable = header.e_type(LittleEndian) == elf::ET_DYN;
    if header.e_entry(LittleEndian) == 0 || is_movable && !is_movable_program(segments, data) {
        return Err(Flaw::NotProgram { what: "a shared library" });
    }
    match sdk_version(header, segments, data) {
        Some(note::VERSION) => Ok(()),
        Some(found) => Err(Flaw::Version { found, supported: note::VERSION }),
        None => Err(Flaw::NotBuiltWithSdk),
    }
}

/// What the first bytes of an ELF file say of the machine that it is for; `None` when they are not all there.
fn architecture(data: &[u8]) -> Option<String> {
    let (class, order, machine) = (*data.get(4)?, *data.get(5)?, [*data.get(18)?, *data.get(19)?]);
    let (machine, order) = match order {
        2 => (u16::from_be_bytes(machine), ", big-endian"),
        _ => (u16::from_le_bytes(machine), ""),
    };
    let bits = if class == 2 { "64-bit" } else { "32-bit" };
    Some(match elf::Machine(machine) {
        elf::EM_X86_64 => format!("x86_64, {bits}{order}"),
        elf::EM_AARCH64 => format!("aarch64, {bits}{order}"),
        elf::EM_386 => format!("x86, {bits}{order}"),
        elf::EM_ARM => format!("arm, {bits}{order}"),
        elf::EM_RISCV => format!("riscv, {bits}{order}"),
        _ => format!("machine number {machine}, {bits}{order}"),
    })
}

/// Tells a program that may be loaded anywhere from a shared library: it names its loader, or is marked as one that
/// needs none.
fn is_movable_program(segments: &[Segment], data: &[u8]) -> bool {
    let is_marked = |entry: &elf::Dyn64<LittleEndian>| {
        entry.tag(LittleEndian) == elf::DT_FLAGS_1 && entry.val(LittleEndian) & elf::DF_1_PIE.0 != 0
    };
    segments.iter().any(|segment| {
        segment.p_type(LittleEndian) == elf::PT_INTERP
            || matches!(segment.dynamic(LittleEndian, data), Ok(Some(entries)) if entries.iter().any(is_marked))
    })
}

fn interpreter(data: &[u8]) -> Result<Option<Vec<u8>>, Flaw> {
    let damaged = |error: object::Error| Flaw::Damaged { what: error.to_string() };
    let header = Header::parse(data).map_err(damaged)?;
    for segment in header.program_headers(LittleEndian, data).map_err(damaged)? {
        if let Some(path) = segment.interpreter(LittleEndian, data).map_err(damaged)? {
            return Ok(Some(path.into()));
        }
    }
    Ok(None)
}

/// The version in the SDK's note. Linkers may leave the note out of the segments, so the sections are asked too.
fn sdk_version(header: &Header, segments: &[Segment], data: &[u8]) -> Option<u32> {
    let in_segments = || segments.iter().filter_map(|segment| segment.notes(LittleEndian, data).ok()?);
    let in_section = || {
        let sections = header.sections(LittleEndian, data).ok()?;
        let (_, section) = sections.section_by_name(LittleEndian, note::SECTION.as_bytes())?;
        section.notes(LittleEndian, data).ok()?
    };
    in_segments().find_map(version_among).or_else(|| in_section().and_then(version_among))
}

fn version_among(mut notes: NoteIterator<'_, Header>) -> Option<u32> {
    while let Ok(Some(candidate)) = notes.next() {
        if candidate.name() == note::NAME && candidate.n_type(LittleEndian).0 == note::TYPE {
            return candidate.desc().try_into().ok().map(u32::from_le_bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{env, fs, mem, os::unix::fs::PermissionsExt};

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    #[used]
    #[unsafe(link_section = ".note.archean")]
    static NOTE: note::Note = note::Note::THIS;

    /// Words of [`program`] that tests change.
    const KIND: usize = 2;
    const ENTRY: usize = 3;
    const LOADED_BYTES: usize = 12;
    const NOTE_NAME: usize = 23;
    const NOTE_VERSION: usize = 24;

    /// The smallest program for this machine: a header, two segments (all of the file; the note), and the note.
    fn program() -> [u64; 25] {
        let machine = if cfg!(target_arch = "x86_64") { elf::EM_X86_64 } else { elf::EM_AARCH64 };
        let [name_start, name_end] = [*b"Arch", *b"ean\0"].map(|part| u32::from_le_bytes(part) as u64);
        [
            u64::from_le_bytes(*b"\x7fELF\x02\x01\x01\0"),
            0,
            elf::ET_EXEC.0 as u64 | (machine.0 as u64) << 16 | 1 << 32,
            0x40_0000,
            64,
            0,
            64 << 32 | 56 << 48,
            2 | 64 << 16,
            // The loaded segment: type and flags, offset, two addresses, two sizes, alignment.
            elf::PT_LOAD.0 as u64 | 5 << 32,
            0,
            0x40_0000,
            0x40_0000,
            200,
            200,
            4096,
            // The note's segment.
            elf::PT_NOTE.0 as u64 | 4 << 32,
            176,
            0x40_0000,
            0x40_0000,
            24,
            24,
            4,
            // The note.
            8 | 4 << 32,
            note::TYPE as u64 | name_start << 32,
            name_end | (note::VERSION as u64) << 32,
        ]
    }

    fn load_bytes(bytes: &[u8], mode: u32) -> Result<Image, Flaw> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        load(&path)
    }

    fn load_words(words: &[u64]) -> Result<Image, Flaw> {
        load_bytes(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>(), 0o755)
    }

    fn contents(image: &Image) -> Vec<u8> {
        let mut bytes = vec![0; image.bytes as usize];
        File::from(image.fd.try_clone().unwrap()).read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_real_program_is_copied_and_hashed() {
        assert_eq!(mem::size_of_val(&NOTE), 24);
        let path = env::current_exe().unwrap();
        let image = Image::load(&path).unwrap();
        let file = fs::read(&path).unwrap();
        assert!(contents(&image) == file);
        assert_eq!(image.id, ImageId(*blake3::hash(&file).as_bytes()));
        assert_eq!((image.bytes, image.path), (file.len() as u64, path));
    }

    #[test]
    fn the_note_is_found_by_its_section_alone() {
        let mut file = fs::read(env::current_exe().unwrap()).unwrap();
        let segments = Header::parse(&*file).unwrap().program_headers(LittleEndian, &*file).unwrap();
        let is_note = |segment: &Segment| segment.p_type(LittleEndian) == elf::PT_NOTE;
        let notes: Vec<usize> = (0..segments.len()).filter(|index| is_note(&segments[*index])).collect();
        assert!(!notes.is_empty());
        let table = u64::from_le_bytes(file[32..40].try_into().unwrap()) as usize;
        for index in notes {
            file[table + index * 56..][..4].fill(0);
        }
        load_bytes(&file, 0o755).unwrap();
    }

    #[test]
    fn nobody_can_change_an_image() {
        let image = load_words(&program()).unwrap();
        let before = contents(&image);
        let file = File::from(image.fd.try_clone().unwrap());
        assert_eq!(file.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(file.set_len(1).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(contents(&image), before);
    }

    #[test]
    fn a_file_of_another_length_than_announced_has_changed() {
        let id = ImageId(*blake3::hash(b"12345").as_bytes());
        for (bytes, expected) in [(4, None), (5, Some(id)), (6, None)] {
            assert_eq!(copy_hashed(&b"12345"[..], io::sink(), bytes).unwrap(), expected, "{bytes}");
        }
    }

    #[test]
    fn what_is_no_program_is_refused_with_its_reason() {
        let folder = TempDir::new().unwrap();
        assert!(matches!(load(&folder.path().join("absent")), Err(Flaw::NotFound)));
        assert!(matches!(load(folder.path()), Err(Flaw::Folder)));
        assert!(matches!(load(Path::new("/dev/null")), Err(Flaw::NotRegular)));
        assert!(matches!(load_bytes(b"#!/bin/sh\n", 0o755), Err(Flaw::Script)));
        assert!(matches!(load_bytes(b"words", 0o755), Err(Flaw::NotElf)));
        assert!(matches!(load_bytes(b"", 0o755), Err(Flaw::NotElf)));
        assert!(matches!(load_bytes(b"words", 0o644), Err(Flaw::NotExecutable)));
        assert!(matches!(load_bytes(b"\x7fELF", 0o755), Err(Flaw::Damaged { .. })));
    }

    #[test]
    fn programs_that_cannot_run_here_are_refused_with_their_reason() {
        let with = |word: usize, value: u64| {
            let mut words = program();
            words[word] = value;
            load_words(&words).unwrap_err()
        };
        let kind = program()[KIND] & !0xffff;
        assert!(matches!(with(KIND, kind | 1), Flaw::NotProgram { what: "an object file" }));
        assert!(matches!(with(KIND, kind | 3), Flaw::NotProgram { what: "a shared library" }));
        assert!(matches!(with(KIND, kind | 4), Flaw::NotProgram { what: "a core dump" }));
        assert!(matches!(with(ENTRY, 0), Flaw::NotProgram { what: "a shared library" }));
        assert!(matches!(with(LOADED_BYTES, 201), Flaw::Damaged { .. }));
        assert!(matches!(with(LOADED_BYTES, u64::MAX), Flaw::Damaged { .. }));
        assert!(matches!(with(NOTE_NAME, 1), Flaw::NotBuiltWithSdk));
        let other = note::VERSION + 1;
        let version = program()[NOTE_VERSION] as u32 as u64 | (other as u64) << 32;
        assert!(matches!(with(NOTE_VERSION, version), Flaw::Version { found, .. } if found == other));
        assert!(matches!(load(Path::new("/bin/sh")), Err(Flaw::NotBuiltWithSdk)));
    }

    #[test]
    fn an_error_names_the_file_and_both_machines() {
        let mut words = program();
        words[KIND] = elf::ET_EXEC.0 as u64 | (elf::EM_RISCV.0 as u64) << 16;
        let error = ImageError { path: "a/cell".into(), flaw: load_words(&words).unwrap_err() };
        assert_eq!(
            error.to_string(),
            format!(
                "cannot run `a/cell`: it is built for riscv, 64-bit, and this machine is {ARCH}, 64-bit; \
                 build it for this machine"
            )
        );
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(
            changes in prop::collection::vec((0usize..200, any::<u8>()), 0..6),
            bytes in prop_oneof![Just(200usize), 0usize..200],
        ) {
            let mut file: Vec<u8> = program().iter().flat_map(|word| word.to_le_bytes()).collect();
            for (position, byte) in changes {
                file[position] = byte;
            }
            file.truncate(bytes);
            if let Ok(image) = load_bytes(&file, 0o755) {
                prop_assert_eq!(contents(&image), file);
            }
        }
    }
}
