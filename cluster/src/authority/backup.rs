//! A cluster in one file: a tar archive of the authority's folder, without tokens, which must not come to life again.

use std::{
    fmt,
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use tar::{Archive, Builder, EntryType, Header};

use super::{AUTHORITY_FILE, Authority, AuthorityError, CERTIFICATES, LOCK_FILE, REVOKED_FILE, TOKENS};
use crate::{
    files::{self, FileError},
    member::read_authority,
};

/// The most bytes of a backup: some ten thousand certificates.
const BACKUP_BYTES_MAX: u64 = 64 << 20;

/// A backup that was read.
pub struct Backup {
    cluster: String,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Authority {
    /// Saves the cluster in a file, which must not be there yet and which only its owner can read. The identities in the
    /// folder's subfolders go along.
    ///
    /// # Errors
    /// [`AuthorityError`] when something can't be read or written.
    pub fn backup(&self, out: &Path) -> Result<(), AuthorityError> {
        let folder = self.folder();
        let mut archive = Builder::new(Vec::new());
        {
            let _lock = self.lock()?;
            let mut paths = files::list(folder)?;
            for inner in paths.clone().iter().filter(|path| path.is_dir() && !path.ends_with(TOKENS)) {
                paths.extend(files::list(inner)?);
            }
            for path in paths {
                let Ok(name) = path.strip_prefix(folder) else { continue };
                if path.is_file() && is_kept(name) {
                    append(&mut archive, name, &path)?;
                }
            }
        }
        let bytes = archive.into_inner().map_err(|error| FileError::new(out, "written", error))?;
        Ok(files::create(out, &bytes)?)
    }
}

impl Backup {
    /// Reads a backup.
    ///
    /// # Errors
    /// [`AuthorityError`] when it can't be read, when others can read it, or when it is no backup.
    pub fn read(path: &Path) -> Result<Backup, AuthorityError> {
        let malformed = |text: &dyn fmt::Display| AuthorityError::NoBackup {
            path: path.to_owned(),
            text: text.to_string(),
        };
        let mut archive = Archive::new(files::open_private(path)?.take(BACKUP_BYTES_MAX));
        let mut files = Vec::new();
        for entry in archive.entries().map_err(|error| malformed(&error))? {
            let mut entry = entry.map_err(|error| malformed(&error))?;
            let name = entry.path().map_err(|error| malformed(&error))?.into_owned();
            if entry.header().entry_type() != EntryType::Regular || !is_kept(&name) {
                return Err(malformed(&format_args!("`{}` does not belong there", name.display())));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|error| malformed(&error))?;
            files.push((name, bytes));
        }
        let authority = files.iter().find(|(name, _)| name == Path::new(AUTHORITY_FILE));
        let authority = authority.and_then(|(_, text)| CertificateDer::from_pem_slice(text).ok());
        let (cluster, _) = authority
            .and_then(|der| read_authority(&der))
            .ok_or_else(|| malformed(&"no authority is in it"))?;
        Ok(Backup { cluster, files })
    }

    /// The name of the cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Puts the cluster into a folder, which must not be there yet, or be empty.
    ///
    /// # Errors
    /// [`AuthorityError`] when something is there, when it can't be written, or when the backup makes no authority.
    pub fn restore(&self, folder: &Path) -> Result<Authority, AuthorityError> {
        let is_empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
        if !is_empty {
            return Err(AuthorityError::Exists(folder.to_owned()));
        }
        let parent =
            folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        files::make_folder(parent)?;
        // The folder appears when all is in it.
        let new = parent.join(format!(".restoring-{}", std::process::id()));
        let restored = self.fill(&new).and_then(|()| {
            fs::rename(&new, folder).map_err(|error| FileError::new(folder, "made", error))?;
            files::sync_folder(folder)?;
            Authority::open(folder)
        });
        if restored.is_err() {
            // What is left of it, if anything, is in nobody's way.
            let _ = fs::remove_dir_all(&new);
        }
        restored
    }

    fn fill(&self, folder: &Path) -> Result<(), AuthorityError> {
        for inner in [CERTIFICATES, TOKENS] {
            files::make_folder(&folder.join(inner))?;
        }
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            if let Some(inner) = path.parent() {
                files::make_folder(inner)?;
            }
            files::write(&path, bytes)?;
        }
        Authority::open(folder).map(|_| ())
    }
}

/// A file of the folder that a backup holds: the authority's own, or one in a subfolder.
fn is_kept(name: &Path) -> bool {
    let parts: Option<Vec<_>> = name
        .components()
        .map(|part| if let Component::Normal(part) = part { part.to_str() } else { None })
        .collect();
    match parts.as_deref() {
        Some([file]) => [AUTHORITY_FILE, REVOKED_FILE].contains(file),
        Some([folder, file]) => {
            ![TOKENS, LOCK_FILE, AUTHORITY_FILE, REVOKED_FILE].contains(folder) && file.ends_with(".pem")
        }
        _ => false,
    }
}

fn append(archive: &mut Builder<Vec<u8>>, name: &Path, path: &Path) -> Result<(), FileError> {
    let refused = |error| FileError::new(path, "read", error);
    let file = File::open(path).map_err(refused)?;
    let metadata = file.metadata().map_err(refused)?;
    let mut header = Header::new_gnu();
    header.set_size(metadata.len());
    header.set_mode(metadata.permissions().mode() & 0o700);
    archive.append_data(&mut header, name, file).map_err(refused)
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}
