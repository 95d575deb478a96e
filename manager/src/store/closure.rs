//! The files that a program needs to run: itself, its loader, and the libraries that its loader finds for it here.
//!
//! The loader itself is asked (`--list`, which runs nothing of the program): nobody else knows all of its rules, and the
//! answer holds for exactly the environment that the program would be started in here.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use protocol::image::Role;

use super::StoreError;
use crate::image::Image;

/// A file of a program on this machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// All files of the program at `path`, which was loaded as `image`; the program comes first.
pub(super) fn of(path: &Path, image: &Image) -> Result<Vec<Part>, StoreError> {
    let unknown = |why: String| StoreError::Libraries { program: path.into(), why };
    let mut parts = vec![Part::at(Role::Program, path).map_err(unknown)?];
    let Some(interpreter) = image.interpreter()? else { return Ok(parts) };
    let interpreter =
        Part::at(Role::Interpreter, Path::new(OsStr::from_bytes(&interpreter))).map_err(unknown)?;
    let absolute = path.canonicalize().map_err(|error| unknown(error.to_string()))?;
    let listing = Command::new(&interpreter.path).arg("--list").arg(absolute).stdin(Stdio::null()).output();
    let loader = interpreter.path.display();
    let listing = listing.map_err(|error| unknown(format!("its loader {loader} cannot be run: {error}")))?;
    let text = String::from_utf8_lossy(&listing.stdout);
    let libraries = libraries(&text, &interpreter).map_err(unknown)?;
    if !listing.status.success() {
        let reason = String::from_utf8_lossy(&listing.stderr);
        return Err(unknown(format!("its loader {loader} says: {}", reason.trim())));
    }
    parts.push(interpreter);
    parts.extend(libraries);
    Ok(parts)
}

impl Part {
    fn at(role: Role, path: &Path) -> Result<Part, String> {
        let name = path.file_name().and_then(OsStr::to_str);
        let name =
            name.ok_or_else(|| format!("`{}` is no name that can be sent on; rename it", path.display()))?;
        Ok(Part { role, name: name.into(), path: path.into() })
    }
}

/// The libraries in what a loader lists: lines like `libm.so.6 => /lib/libm.so.6 (0x7f…)`. The kernel's own library has
/// no file, and the loader is in the list, too.
fn libraries(listing: &str, interpreter: &Part) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    for line in listing.lines().map(str::trim) {
        let line = line.rsplit_once(" (0x").map_or(line, |(line, _)| line);
        let (name, path) = line.split_once(" => ").unwrap_or((line, line));
        if path == "not found" {
            return Err(format!("`{name}` is not found; install it, or name its folder in LD_LIBRARY_PATH"));
        }
        let path = Path::new(path);
        if !path.is_absolute() || path == interpreter.path || name == interpreter.name {
            continue;
        }
        if name.contains('/') && Path::new(name) != interpreter.path {
            let remedy = "link it by its name (`-l`), since no other machine has it there";
            // A loader lists itself by its path as well, under a name that it may have by a link.
            if Path::new(name).file_name() != interpreter.path.file_name() {
                return Err(format!("`{name}` is named by its path; {remedy}"));
            }
            continue;
        }
        parts.push(Part { role: Role::Library, name: name.into(), path: path.into() });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter() -> Part {
        Part::at(Role::Interpreter, Path::new("/lib64/ld-linux-x86-64.so.2")).unwrap()
    }

    #[test]
    fn what_a_loader_lists_is_understood() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibz.so.1 => /a b/libz.so.1.2 (0x00007f)\n\
                       \tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let part =
            |name: &str, path: &str| Part { role: Role::Library, name: name.into(), path: path.into() };
        let expected = vec![part("libz.so.1", "/a b/libz.so.1.2"), part("libc.so.6", "/lib/libc.so.6")];
        assert_eq!(libraries(listing, &interpreter()).unwrap(), expected);
    }

    #[test]
    fn a_library_that_is_missing_or_elsewhere_is_named() {
        let error = libraries("\tlibodd.so.1 => not found\n", &interpreter()).unwrap_err();
        assert!(error.contains("`libodd.so.1` is not found"), "{error}");
        let error = libraries("\t/opt/libodd.so (0x00007f)\n", &interpreter()).unwrap_err();
        assert!(error.contains("`/opt/libodd.so` is named by its path"), "{error}");
    }
}
