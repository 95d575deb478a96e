//! Ends what runs in network namespaces when the test that has made them drops them, or is dead; see `tests::hosts`.
#![expect(unsafe_code, reason = "a process is waited for that is no child")]

use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{fs::MetadataExt, process::parent_id},
    },
};

use anyhow::Context;
use tests::hosts::end_all;

/// Its arguments are the namespaces' files. Says `ready` when it holds them.
fn main() -> anyhow::Result<()> {
    // SAFETY: the call takes two integers, and gives a descriptor or an error.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, parent_id(), 0) };
    anyhow::ensure!(opened >= 0, "the test is dead already: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was just made, and nobody else has it.
    let test = unsafe { OwnedFd::from_raw_fd(opened as i32) };
    let open = |path| File::open(&path).with_context(|| format!("opening {path}"));
    // As long as they are open no other namespace can get their numbers.
    let held: Vec<File> = env::args().skip(1).map(open).collect::<anyhow::Result<_>>()?;
    let numbers: Vec<u64> = held.iter().map(|file| Ok(file.metadata()?.ino())).collect::<io::Result<_>>()?;
    io::stdout().write_all(b"ready\n")?;

    let told = io::stdin().read(&mut [0])?;
    if told == 0 {
        until_dead(&test)?;
    }
    end_all(&numbers);
    Ok(())
}

/// Waits until the test is dead, and its children know that it is.
fn until_dead(test: &OwnedFd) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: test.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: it is one entry, which is ours, and its descriptor is open.
        match unsafe { libc::poll(&raw mut poll, 1, -1) } {
            1.. => return Ok(()),
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
}
