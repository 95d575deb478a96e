//! What is removed from a store, and when.

use std::{
    fs::{self, DirEntry, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use protocol::{ids::ImageId, image::ImageFile};

use super::{Store, StoreError, failed, name_of};
use crate::links;

impl Store {
    /// Removes what was not used for longest and is not in use, until the limit is kept. `newest` stays.
    pub(super) fn trim(&self, newest: ImageId) -> Result<(), StoreError> {
        if self.bytes()? <= self.limit_bytes {
            return Ok(());
        }
        // What belongs to no image goes first: a transfer that was given up.
        self.remove_loose()?;
        let mut images = self.images()?;
        images.sort();
        for (_, path) in images {
            if self.bytes()? <= self.limit_bytes {
                break;
            }
            if path != self.image(newest) && self.remove_unused(&path)? {
                self.remove_unlinked()?;
            }
        }
        Ok(())
    }

    /// Removes what processes that were killed have left in the making.
    pub(super) fn remove_abandoned(&self) -> Result<(), StoreError> {
        for entry in entries(&self.folder.join("images"))? {
            if entry.file_name().to_string_lossy().contains('-') {
                self.remove_unused(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes an image with a file that has changed, and that file, so that both can be brought again.
    pub(super) fn remove_corrupt(&self, id: ImageId, file: &ImageFile) -> Result<(), StoreError> {
        if let Some(hash) = file.digest() {
            removed(fs::remove_file(self.file(&hash)), &self.file(&hash))?;
        }
        self.remove_image(&self.image(id))
    }

    /// Removes an image unless it is in use.
    fn remove_unused(&self, path: &Path) -> Result<bool, StoreError> {
        let is_unused = match File::open(path.join("manifest")) {
            Ok(manifest) => manifest.try_lock().is_ok().then_some(manifest),
            // One that was just begun has none yet; one that is being removed has none any more.
            Err(_) => return Ok(false),
        };
        if is_unused.is_some() {
            self.remove_image(path)?;
        }
        Ok(is_unused.is_some())
    }

    /// When there was no room for all of an image, what was brought of it takes none either.
    pub(super) fn make_room<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match result {
            Err(error @ StoreError::Full { .. }) => self.remove_unlinked().and(Err(error)),
            other => other,
        }
    }

    /// Under another name first, so that half an image is never taken for one.
    pub(super) fn remove_image(&self, path: &Path) -> Result<(), StoreError> {
        let gone = self.folder.join("images").join(format!("gone-{}", name_of(&links::random())));
        match fs::rename(path, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| fs::remove_dir_all(&gone)).map_err(failed("removing", path)),
        }
    }

    fn remove_loose(&self) -> Result<(), StoreError> {
        for entry in entries(&self.folder.join("partial"))? {
            let path = entry.path();
            if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                removed(fs::remove_file(&path), &path)?;
            }
        }
        self.remove_unlinked()
    }

    /// Removes the files that no image has.
    fn remove_unlinked(&self) -> Result<(), StoreError> {
        for entry in entries(&self.folder.join("files"))? {
            if entry.metadata().is_ok_and(|metadata| metadata.nlink() == 1) {
                removed(fs::remove_file(entry.path()), &entry.path())?;
            }
        }
        Ok(())
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        let folders = [entries(&self.folder.join("files"))?, entries(&self.folder.join("partial"))?];
        Ok(folders
            .iter()
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .map(|metadata| metadata.len())
            .sum())
    }

    /// The images, each with its last use.
    fn images(&self) -> Result<Vec<(SystemTime, PathBuf)>, StoreError> {
        let used = |entry: DirEntry| {
            let used = fs::metadata(entry.path().join("manifest")).and_then(|metadata| metadata.modified());
            used.ok().map(|used| (used, entry.path()))
        };
        let is_whole = |entry: &DirEntry| !entry.file_name().to_string_lossy().contains('-');
        Ok(entries(&self.folder.join("images"))?.into_iter().filter(is_whole).filter_map(used).collect())
    }
}

fn entries(folder: &Path) -> Result<Vec<DirEntry>, StoreError> {
    fs::read_dir(folder).and_then(Iterator::collect).map_err(failed("listing", folder))
}

/// What somebody else has removed is removed.
fn removed(result: io::Result<()>, path: &Path) -> Result<(), StoreError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", path)(error)),
        _ => Ok(()),
    }
}
