//! A file on its way into the store, from a link or from this machine.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use protocol::image::ImageFile;

use super::{Building, Hash, Store, StoreError, disk::Writing, failed};

/// A file of which some bytes are there. They stay when this is dropped, and it goes on from them.
pub(super) struct Arriving<'a> {
    store: &'a Store,
    file: &'a ImageFile,
    hash: Hash,
    path: PathBuf,
    /// Locked, so that one process writes it.
    locked: File,
    hasher: blake3::Hasher,
    writing: Writing,
}

impl<'a> Arriving<'a> {
    /// Opens what is there of a file, and hashes it.
    pub(super) async fn open(
        store: &'a Store,
        file: &'a ImageFile,
        hash: Hash,
    ) -> Result<Arriving<'a>, StoreError> {
        let path = store.partial(&hash);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let locked = options.map_err(|error| store.write_failed(error, &path, &file.name, file.bytes))?;
        match locked.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy(file.name.clone())),
            Err(TryLockError::Error(error)) => return Err(failed("locking", &path)(error)),
        }
        if locked.metadata().map_err(failed("looking at", &path))?.len() > file.bytes {
            locked.set_len(0).map_err(failed("emptying", &path))?;
        }
        let mut hasher = blake3::Hasher::new();
        let clone = || locked.try_clone().map_err(failed("duplicating a descriptor of", &path));
        let mut pieces = store.disk()?.read(clone()?, 0);
        while let Some(piece) = pieces.recv().await {
            hasher.update(&piece.map_err(failed("reading", &path))?);
        }
        let writing = store.disk()?.write(clone()?, hasher.count());
        Ok(Arriving { store, file, hash, path, locked, hasher, writing })
    }

    /// How many bytes are there.
    pub(super) fn bytes(&self) -> u64 {
        self.hasher.count()
    }

    /// How many are missing.
    pub(super) fn missing(&self) -> u64 {
        self.file.bytes.saturating_sub(self.bytes())
    }

    /// Adds the next bytes. There are never more than are [missing](Arriving::missing).
    pub(super) async fn push(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(piece);
        let pushed = self.writing.push(piece.to_vec()).await;
        pushed.map_err(|error| self.write_failed(error))
    }

    /// Nothing more comes for now: what has come is on the disk afterwards.
    pub(super) async fn pause(mut self) -> Result<(), StoreError> {
        let finished = self.writing.finish().await;
        finished.map_err(|error| self.write_failed(error))
    }

    /// All has come: checks it, and puts it into the image and under its name.
    pub(super) async fn finish(mut self, building: &Building<'_>) -> Result<(), StoreError> {
        let finished = self.writing.finish().await;
        finished.map_err(|error| self.write_failed(error))?;
        if self.bytes() != self.file.bytes || *self.hasher.finalize().as_bytes() != self.hash {
            fs::remove_file(&self.path).map_err(failed("removing", &self.path))?;
            return Err(StoreError::Corrupt { name: self.file.name.clone() });
        }
        let mode = Permissions::from_mode(self.file.mode & 0o555 | 0o400);
        self.locked.set_permissions(mode).map_err(failed("setting the permissions of", &self.path))?;
        // Linked first: a file that an image has is not removed.
        if !building.link(self.file, &self.path)? {
            return Err(failed("linking", &self.path)(ErrorKind::NotFound.into()));
        }
        let name = self.store.file(&self.hash);
        fs::rename(&self.path, &name).map_err(failed("renaming", &self.path))?;
        let folder = self.store.folder.join("files");
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed("writing", &folder))
    }

    fn write_failed(&self, error: io::Error) -> StoreError {
        self.store.write_failed(error, &self.path, &self.file.name, self.file.bytes)
    }
}

impl Store {
    /// The error of a write; when there is no room, nothing of the file stays.
    pub(super) fn write_failed(&self, error: io::Error, path: &Path, name: &str, bytes: u64) -> StoreError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                let _ = fs::remove_file(path);
                StoreError::Full { folder: self.folder.clone(), name: name.into(), bytes }
            }
            _ => failed("writing", path)(error),
        }
    }
}
