//! A network namespace that this process holds by a descriptor.
#![expect(unsafe_code, reason = "namespaces are made and entered")]

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    process::{self, Command, Stdio},
    thread,
};

use anyhow::{Context, ensure};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Namespace(OwnedFd);

impl Namespace {
    /// Makes one.
    pub(super) fn new() -> anyhow::Result<Namespace> {
        let make = || {
            // SAFETY: the call takes an integer; it concerns only this thread, which ends right after.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            File::open("/proc/thread-self/ns/net")
        };
        let made = thread::scope(|scope| scope.spawn(make).join()).expect("the thread does not panic");
        let file = made.context(
            "a network namespace can't be made: run the tests as root, or leave them out by --skip on_hosts",
        )?;
        Ok(Namespace(file.into()))
    }

    /// Where another process finds it, for as long as this one lives.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// The number by which processes in it are known.
    pub(super) fn id(&self) -> u64 {
        fs::metadata(self.path()).expect("a descriptor that is open").ino()
    }

    /// Has a command run in it. If this process dies before the command was executed, it is not.
    pub(super) fn enter_with(&self, command: &mut Command) {
        let (namespace, parent) = (self.0.try_clone().expect("one more descriptor"), process::id());
        let enter = move || {
            enter(namespace.as_raw_fd())?;
            // The keeper looks for processes after this process has died. One that it did not find in there sees
            // the death here.
            if std::os::unix::process::parent_id() != parent {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes two system calls, and neither allocates nor takes a lock.
        unsafe { command.pre_exec(enter) };
    }

    /// Runs something in it.
    pub(super) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let inside = || {
            enter(self.0.as_raw_fd()).expect("a namespace that can be entered");
            work()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs commands of `ip` in it, one a line.
    pub(super) fn ip(&self, lines: &str) -> anyhow::Result<()> {
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.enter_with(&mut command);
        let mut ip = command.spawn().context("`ip` can't be executed: install iproute2")?;
        ip.stdin.take().context("its input")?.write_all(lines.as_bytes())?;
        let output = ip.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "ip has failed ({}): {stderr}\nit was told:\n{lines}",
            output.status
        );
        Ok(())
    }

    /// What `ip` knows of an interface.
    pub(super) fn show(&self, interface: &str) -> anyhow::Result<String> {
        let mut command = Command::new("ip");
        command.args(["-details", "-oneline", "link", "show", interface]);
        self.enter_with(&mut command);
        let output = command.output().context("`ip` can't be executed: install iproute2")?;
        ensure!(output.status.success(), "ip has failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Moves this thread to a namespace.
fn enter(namespace: RawFd) -> io::Result<()> {
    // SAFETY: the call takes a descriptor, which its owner holds open, and an integer.
    check(unsafe { libc::setns(namespace, libc::CLONE_NEWNET) })
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
