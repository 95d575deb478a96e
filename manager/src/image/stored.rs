//! Images from the store: they run where their libraries are absent.
//!
//! The kernel would look for a program's loader at the path that the program names, and the loader for the libraries in
//! this machine's folders. So the loader that came along is executed instead, and told what to run and where the
//! libraries are: by arguments, since the environment would reach the program's own children. The program's arguments
//! are its own again when it starts, and its code is mapped as ever, so that offsets in it mean the same.

use std::{
    ffi::CString,
    fs::{self, File},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use protocol::{ids::ImageId, image::Role};

use super::{Image, ImageError, io_flaw};
use crate::store::{Lease, Store, StoreError};

/// A loader that came along with a program.
#[derive(Debug)]
pub struct Loader {
    libraries: CString,
    program: CString,
    /// It can be told what the program is called; those of glibc before 2.33 can't.
    takes_name: bool,
    /// The files stay as long as this does.
    _lease: Lease,
}

impl Image {
    /// An image of the store, after a check of all its bytes. It stays in the store as long as this does.
    ///
    /// # Errors
    /// [`StoreError`] when it is not there, or is corrupt (then it is removed), or is no program for this machine.
    pub fn from_store(store: &Store, id: ImageId) -> Result<Image, StoreError> {
        let lease = store.lease(id)?;
        let program = lease.manifest.first(Role::Program).ok_or(StoreError::Absent(id))?;
        let path = lease.path(program);
        let name = program.name.clone().into();
        let loaded = Image::load(&path)?;
        let Some(interpreter) = lease.manifest.first(Role::Interpreter) else {
            return Ok(Image { id, path: name, ..loaded });
        };
        let interpreter = lease.path(interpreter);
        let opened = fs::read(&interpreter).and_then(|bytes| Ok((bytes, File::open(&interpreter)?)));
        let flaw = |flaw| ImageError { path: interpreter.clone(), flaw };
        let (bytes, fd) = opened.map_err(io_flaw("reading it")).map_err(flaw)?;
        let loader = Loader {
            libraries: c_string(&lease.libraries()),
            program: c_string(&path),
            takes_name: bytes.windows(7).any(|text| text == b"--argv0"),
            _lease: lease,
        };
        Ok(Image { id, path: name, bytes: loaded.bytes, fd: fd.into(), loader: Some(loader) })
    }

    /// The beginning of the command line: what the program is to be called, and before that what its loader has to know.
    /// The program's own arguments follow.
    pub fn command(&self, name: CString) -> Vec<CString> {
        let Some(loader) = &self.loader else { return vec![name] };
        let mut command = vec![name.clone(), c"--library-path".into(), loader.libraries.clone()];
        if loader.takes_name {
            command.extend([c"--argv0".into(), name]);
        }
        command.push(loader.program.clone());
        command
    }
}

/// Paths of files that exist hold no NUL.
fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}
