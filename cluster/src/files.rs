//! Files that hold keys, and files that must not be lost.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The most bytes of a file that this crate reads: what it writes is far smaller.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file or folder that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("`{}` can't be {action}: {error}", path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// What was to be done with it.
        action: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// It holds a key, and others can read it.
    #[error("`{0}` holds a key that others can read (mode {mode:03o}): run `chmod 600 {0}`", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is larger than any that is written here.
    #[error("`{}` is too large to be what it should be", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
}

impl FileError {
    pub(crate) fn new(path: &Path, action: &'static str, error: io::Error) -> FileError {
        FileError::Refused { path: path.to_owned(), action, error }
    }

    /// `true` when there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, FileError::Refused { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Makes a folder, and those above it, for its owner only.
pub(crate) fn make_folder(path: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| FileError::new(path, "made", error))
}

/// Replaces a file as a whole, and for good: after a crash there is the old one or the new one. Only its owner can
/// read it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let refused = |error| FileError::new(path, "written", error);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(refused(io::ErrorKind::InvalidInput.into()));
    };
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(format!(".{}", std::process::id()));
    let new = folder.join(new);
    let written = write_new(&new, bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // What is left of it, if anything, is in nobody's way.
        let _ = fs::remove_file(&new);
    }
    written.map_err(refused)?;
    sync_folder(path)
}

/// Makes a file that must not be there yet, for good. Only its owner can read it.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let refused = |error| FileError::new(path, "made", error);
    let mut file = new_file(path).map_err(refused)?;
    if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_all()) {
        // A part of it is of no use to anybody.
        let _ = fs::remove_file(path);
        return Err(refused(error));
    }
    sync_folder(path)
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // One that is there is of a process that had this one's number and died.
    let _ = fs::remove_file(path);
    let mut file = new_file(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Renames a file within its folder, for good.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(|error| FileError::new(from, "renamed", error))?;
    sync_folder(to)
}

/// Waits until nobody else has the lock. It is given back when the file is dropped.
pub(crate) fn lock(path: &Path) -> Result<File, FileError> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let locked = opened.and_then(|file| file.lock().map(|()| file));
    locked.map_err(|error| FileError::new(path, "locked", error))
}

/// The files in a folder, by name.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|error| FileError::new(folder, "listed", error))?;
    let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    Ok(paths)
}

/// Makes what was done in the folder of `path` last.
pub(crate) fn sync_folder(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| FileError::new(folder, "synced", error))
}

/// Opens a file that its owner alone may read, since it holds a key.
pub(crate) fn open_private(path: &Path) -> Result<File, FileError> {
    let refused = |error| FileError::new(path, "read", error);
    let file = File::open(path).map_err(refused)?;
    let mode = file.metadata().map_err(refused)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode });
    }
    Ok(file)
}

/// Reads such a file.
pub(crate) fn read_private(path: &Path) -> Result<String, FileError> {
    read_text(open_private(path)?, path)
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    read_text(File::open(path).map_err(|error| FileError::new(path, "read", error))?, path)
}

fn read_text(file: File, path: &Path) -> Result<String, FileError> {
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let bytes = read.map_err(|error| FileError::new(path, "read", error))?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}
