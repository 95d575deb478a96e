//! The images that a machine has: files named by their content, and a folder for each image with links to its files.
//!
//! ```text
//!  FOLDER/files/HASH                        a file, whole and checked
//!  FOLDER/partial/HASH                      what has come of one; it goes on from its length
//!  FOLDER/images/ID/manifest                what the image consists of; locked (shared) while the image is in use
//!  FOLDER/images/ID/program/NAME            hard links to its files, so that one that several images have is there once
//!  FOLDER/images/ID/interpreter/NAME
//!  FOLDER/images/ID/library/NAME
//!  FOLDER/images/new-RANDOM/…               an image whose files are not all there yet; its manifest is locked
//! ```
//!
//! A name in `files` or `images` appears by a rename, when all that it stands for is on the disk: so a crash leaves
//! nothing half behind it. Locks are the kernel's, and end with their process.

mod add;
mod arriving;
mod closure;
mod disk;
mod records;
mod transfer;
mod trim;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::SystemTime,
};

use protocol::{
    ids::ImageId,
    image::{ImageFile, Manifest, ManifestError, Role},
};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::{image::ImageError, links};
use disk::Disk;

pub use transfer::{TransferError, fetch, serve};

/// The BLAKE3 hash of a file's bytes: its name in the store.
type Hash = [u8; 32];

/// The images of a machine, or of a client.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    limit_bytes: u64,
    /// Started when it is first needed: who only runs what is there needs no thread.
    disk: OnceLock<Disk>,
    /// What is being brought by this process, so that nothing is brought twice at once.
    busy: Mutex<HashMap<Hash, Weak<AsyncMutex<()>>>>,
}

/// The store can't do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A call of the system failed.
    #[error("{doing} `{}` failed: {error}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// The disk is full.
    #[error(
        "no room for the {bytes} bytes of `{name}` in `{}`; free some there, or give the images another folder",
        folder.display()
    )]
    Full {
        /// The store.
        folder: PathBuf,
        /// The file that does not fit.
        name: String,
        /// Its length.
        bytes: u64,
    },
    /// An image that is larger than all images may be.
    #[error("the image has {bytes} bytes, and the images in `{}` may have {limit}; raise that limit", folder.display())]
    Limit {
        /// The store.
        folder: PathBuf,
        /// All bytes of the image.
        bytes: u64,
        /// What the store may hold.
        limit: u64,
    },
    /// io_uring is not available.
    #[error(
        "no io_uring for files: {0}; allow it (sysctl `kernel.io_uring_disabled`, seccomp of the container)"
    )]
    Ring(io::Error),
    /// A folder whose name would be taken for several.
    #[error("images cannot be kept in `{}`: its name holds `:`, `;` or `$`; name another folder", .0.display())]
    FolderName(PathBuf),
    /// What is to be added is no program.
    #[error(transparent)]
    Program(#[from] ImageError),
    /// Its libraries are not known.
    #[error("the libraries of `{}` are not known: {why}", program.display())]
    Libraries {
        /// The program.
        program: PathBuf,
        /// Why not.
        why: String,
    },
    /// A list of files that describes no image.
    #[error("{0} is no image: {1}")]
    Manifest(ImageId, ManifestError),
    /// Somebody wrote to a file while it was added.
    #[error("`{0}` changed while it was read; try again when its build has finished")]
    Changed(String),
    /// A file has other bytes than its name says. It was removed.
    #[error("the bytes of `{name}` are not those of the image; what came of it was removed, so try again")]
    Corrupt {
        /// The file.
        name: String,
    },
    /// Another process is bringing the same file into the same folder.
    #[error("another process brings `{0}` into the same folder; try again")]
    Busy(String),
    /// It is not here.
    #[error("image {0} is not here")]
    Absent(ImageId),
}

impl Store {
    /// The store in `folder`, which is made if it is not there. Beyond `limit_bytes`, images that are not in use are
    /// removed, the one that was not used for longest first.
    ///
    /// # Errors
    /// [`StoreError`] when the folder can't be made or used.
    pub fn open(folder: &Path, limit_bytes: u64) -> Result<Store, StoreError> {
        for part in ["files", "partial", "images"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).map_err(failed("making the folder", &path))?;
        }
        let folder = folder.canonicalize().map_err(failed("finding the folder", folder))?;
        // The loader takes a list of folders, in which these mean something.
        if folder.to_string_lossy().contains([':', ';', '$']) {
            return Err(StoreError::FolderName(folder));
        }
        let store = Store { folder, limit_bytes, disk: OnceLock::new(), busy: Mutex::default() };
        store.remove_abandoned()?;
        Ok(store)
    }

    /// Whether all of an image is here.
    pub fn has(&self, id: ImageId) -> bool {
        self.image(id).join("manifest").is_file()
    }

    /// Keeps an image from being removed, and says what it consists of, after all of its bytes were checked.
    ///
    /// # Errors
    /// [`StoreError::Absent`], or [`StoreError::Corrupt`]: then it was removed, and can be brought again.
    pub fn lease(&self, id: ImageId) -> Result<Lease, StoreError> {
        let folder = self.image(id);
        let path = folder.join("manifest");
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::Absent(id),
            _ => failed("opening", &path)(error),
        })?;
        file.lock_shared().map_err(failed("locking", &path))?;
        let bytes = match fs::read(&path) {
            // It was removed before it was locked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Absent(id)),
            other => other.map_err(failed("reading", &path))?,
        };
        let manifest = match self.read_manifest(id, &bytes) {
            Err(error @ StoreError::Corrupt { .. }) => return self.remove_image(&folder).and(Err(error)),
            other => other?,
        };
        let lease = Lease { manifest, folder, file };
        for file in &lease.manifest.files {
            let path = lease.path(file);
            if !is_whole(&path, file).map_err(failed("reading", &path))? {
                drop(lease.file);
                self.remove_corrupt(id, file)?;
                return Err(StoreError::Corrupt { name: file.name.clone() });
            }
        }
        lease.touch().map_err(failed("noting the use of", &path))?;
        Ok(lease)
    }

    fn read_manifest(&self, id: ImageId, bytes: &[u8]) -> Result<Manifest, StoreError> {
        if *blake3::hash(bytes).as_bytes() != id.0 {
            return Err(StoreError::Corrupt { name: "manifest".into() });
        }
        let manifest = Manifest::read(bytes).map_err(|error| StoreError::Manifest(id, error))?;
        let bytes = manifest.bytes();
        if bytes > self.limit_bytes {
            return Err(StoreError::Limit { folder: self.folder.clone(), bytes, limit: self.limit_bytes });
        }
        Ok(manifest)
    }

    fn disk(&self) -> Result<&Disk, StoreError> {
        match self.disk.get() {
            Some(disk) => Ok(disk),
            // If two come here at once, one of the two threads ends again.
            None => Disk::start().map(|disk| self.disk.get_or_init(|| disk)).map_err(StoreError::Ring),
        }
    }

    /// Waits until nobody else in this process brings the file or image with this hash.
    async fn hold(&self, hash: Hash) -> OwnedMutexGuard<()> {
        let lock = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.retain(|_, lock| lock.strong_count() > 0);
            let lock = busy.get(&hash).and_then(Weak::upgrade).unwrap_or_default();
            busy.insert(hash, Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }

    fn file(&self, hash: &Hash) -> PathBuf {
        self.folder.join("files").join(name_of(hash))
    }

    fn partial(&self, hash: &Hash) -> PathBuf {
        self.folder.join("partial").join(name_of(hash))
    }

    fn image(&self, id: ImageId) -> PathBuf {
        self.folder.join("images").join(id.to_string())
    }
}

/// An image that stays as long as this does.
#[derive(Debug)]
pub struct Lease {
    /// What the image consists of.
    pub manifest: Manifest,
    folder: PathBuf,
    /// Locked.
    file: File,
}

impl Lease {
    /// Where a file of the image is.
    pub fn path(&self, file: &ImageFile) -> PathBuf {
        self.folder.join(place(file))
    }

    /// Where the libraries of the image are, by their names.
    pub fn libraries(&self) -> PathBuf {
        self.folder.join("library")
    }

    fn touch(&self) -> io::Result<()> {
        self.file.set_modified(SystemTime::now())
    }
}

/// An image whose files are being brought.
struct Building<'a> {
    store: &'a Store,
    id: ImageId,
    folder: PathBuf,
    _manifest: File,
}

impl<'a> Building<'a> {
    fn start(store: &'a Store, id: ImageId, manifest: &[u8]) -> Result<Building<'a>, StoreError> {
        let folder = store.folder.join("images").join(format!("new-{}", name_of(&links::random())));
        for role in ["program", "interpreter", "library"] {
            let path = folder.join(role);
            fs::create_dir_all(&path).map_err(failed("making the folder", &path))?;
        }
        let path = folder.join("manifest");
        let file = File::create(&path).map_err(failed("making", &path))?;
        let building = Building { store, id, folder, _manifest: file };
        let mut file = &building._manifest;
        let written =
            file.lock_shared().and_then(|()| file.write_all(manifest)).and_then(|()| file.sync_all());
        written
            .map_err(|error| building.store.write_failed(error, &path, "manifest", manifest.len() as u64))?;
        Ok(building)
    }

    /// Takes a file that the store has; `false` when it doesn't have it.
    fn link(&self, file: &ImageFile, from: &Path) -> Result<bool, StoreError> {
        match fs::hard_link(from, self.folder.join(place(file))) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("linking", from)(error)),
        }
    }

    /// All files are there: the image exists from now on.
    fn publish(self) -> Result<(), StoreError> {
        for folder in ["program", "interpreter", "library", "."] {
            let path = self.folder.join(folder);
            File::open(&path).and_then(|folder| folder.sync_all()).map_err(failed("writing", &path))?;
        }
        let (images, path) = (self.store.folder.join("images"), self.store.image(self.id));
        match fs::rename(&self.folder, &path) {
            // Another process was faster.
            Err(_) if self.store.has(self.id) => {}
            other => other.map_err(failed("publishing", &path))?,
        }
        File::open(&images).and_then(|folder| folder.sync_all()).map_err(failed("writing", &images))?;
        self.store.trim(self.id)
    }
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        // Published, it has another name; else its files stay, so that the next attempt finds them.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where a file is in its image's folder.
fn place(file: &ImageFile) -> PathBuf {
    let role = match file.kind() {
        Some(Role::Program) => "program",
        Some(Role::Interpreter) => "interpreter",
        _ => "library",
    };
    Path::new(role).join(&file.name)
}

fn is_whole(path: &Path, file: &ImageFile) -> io::Result<bool> {
    let mut hasher = blake3::Hasher::new();
    match File::open(path).and_then(|file| hasher.update_reader(file).map(drop)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    }
    Ok(hasher.count() == file.bytes && file.digest() == Some(*hasher.finalize().as_bytes()))
}

fn name_of(hash: &Hash) -> String {
    ImageId(*hash).to_string()
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Io { doing, path, error }
}

#[cfg(test)]
mod tests;
