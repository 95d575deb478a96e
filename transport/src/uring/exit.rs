//! Being called when the process ends by itself.
#![expect(unsafe_code, reason = "the standard library has no wrapper for it")]

use std::io;

/// Has `run` called when the program returns from `main` or calls `exit`.
///
/// # Errors
/// When the C library has no memory for it.
pub fn at_exit(run: extern "C" fn()) -> io::Result<()> {
    // SAFETY: a function that lives as long as the program.
    match unsafe { libc::atexit(run) } {
        0 => Ok(()),
        _ => Err(io::ErrorKind::OutOfMemory.into()),
    }
}
