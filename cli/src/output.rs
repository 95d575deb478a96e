//! Shows what the processes of a job print.
//!
//! The root's bytes go out as they came, so that a program behaves the same under `archean run` as without it. What
//! others print is shown in whole lines, under their names. A thread of its own does the writing: a slow terminal
//! blocks that thread, and nothing else.
#![expect(unsafe_code, reason = "poll has no safe interface in std")]

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::{AsFd, AsRawFd},
    thread,
};

use manager::{
    Output,
    output::{Line, prefixed},
};
use tokio::sync::{mpsc, oneshot};

/// How many portions of output may wait to be written before the manager stops reading.
const QUEUE_PORTIONS: usize = 64;

/// Output that is at hand is written in one go, up to about so much.
const GATHERED_BYTES: usize = 64 << 10;

/// The way to the thread that writes.
pub(crate) struct Writer {
    /// Takes what is to be written. The writer ends when this is closed.
    pub(crate) queue: mpsc::Sender<Output>,
    /// Says, when all is written, whether standard error stands in the middle of a line.
    pub(crate) finished: oneshot::Receiver<bool>,
}

/// Starts the thread that writes to standard output and standard error. `on_failure` hears why it could not go on;
/// from then on it only swallows.
///
/// # Errors
/// What the system says, when it gives no thread or no descriptor.
pub(crate) fn start(on_failure: impl FnOnce(io::Error) + Send + 'static) -> io::Result<Writer> {
    let mut printer = Printer {
        stdout: Stream::new(Patient(io::stdout().as_fd().try_clone_to_owned()?.into())),
        stderr: Stream::new(Patient(io::stderr().as_fd().try_clone_to_owned()?.into())),
    };
    let (sender, mut queue) = mpsc::channel(QUEUE_PORTIONS);
    let (done, finished) = oneshot::channel();
    thread::Builder::new().name("output".into()).spawn(move || {
        if let Err(error) = printer.drain(&mut queue) {
            on_failure(error);
            while queue.blocking_recv().is_some() {}
        }
        let _ = done.send(printer.stderr.is_mid_line);
    })?;
    Ok(Writer { queue: sender, finished })
}

struct Printer<O, E> {
    stdout: Stream<O>,
    stderr: Stream<E>,
}

impl<O: Write, E: Write> Printer<O, E> {
    fn drain(&mut self, queue: &mut mpsc::Receiver<Output>) -> io::Result<()> {
        while let Some(output) = queue.blocking_recv() {
            self.add(&output)?;
            while self.stdout.pending.len() + self.stderr.pending.len() < GATHERED_BYTES
                && let Ok(output) = queue.try_recv()
            {
                self.add(&output)?;
            }
            self.stdout.flush()?;
            self.stderr.flush()?;
        }
        Ok(())
    }

    /// What goes to one stream is written before anything is added to the other, so that the order stays.
    fn add(&mut self, output: &Output) -> io::Result<()> {
        if output.is_stderr {
            self.stdout.flush()?;
            self.stderr.add(output);
        } else {
            self.stderr.flush()?;
            self.stdout.add(output);
        }
        Ok(())
    }
}

struct Stream<W> {
    to: W,
    pending: Vec<u8>,
    is_mid_line: bool,
}

impl<W: Write> Stream<W> {
    const fn new(to: W) -> Self {
        Stream { to, pending: Vec::new(), is_mid_line: false }
    }

    fn add(&mut self, output: &Output) {
        if output.is_root {
            self.pending.extend_from_slice(&output.bytes);
        } else {
            if self.is_mid_line {
                self.pending.push(b'\n');
            }
            let line = Line { bytes: &output.bytes, continues: output.continues };
            prefixed(&output.name, line, &mut self.pending);
        }
        if let Some(last) = self.pending.last() {
            self.is_mid_line = *last != b'\n';
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.to.write_all(&self.pending);
        self.pending.clear();
        written
    }
}

/// A file that is waited for, also when somebody who shares it has made it non-blocking.
struct Patient(File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait()?,
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Patient {
    fn wait(&self) -> io::Result<()> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one live `pollfd`, as counted; its descriptor is open as long as `self.0` lives.
        match unsafe { libc::poll(&raw mut poll, 1, -1) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == ErrorKind::Interrupted => Ok(()),
                error => Err(error),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::OwnedFd};

    use super::*;

    fn root(text: &str) -> Output {
        Output { name: "root".into(), is_root: true, is_stderr: false, bytes: text.into(), continues: false }
    }

    fn cell(text: &str) -> Output {
        Output { name: "cell".into(), is_root: false, ..root(text) }
    }

    fn shown(outputs: impl IntoIterator<Item = Output>) -> (String, String) {
        let mut printer = Printer { stdout: Stream::new(Vec::new()), stderr: Stream::new(Vec::new()) };
        let (sender, mut queue) = mpsc::channel(64);
        outputs.into_iter().for_each(|output| sender.try_send(output).ok().unwrap());
        drop(sender);
        printer.drain(&mut queue).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(printer.stdout.to), text(printer.stderr.to))
    }

    #[test]
    fn the_roots_bytes_stay_as_they_are() {
        let (stdout, _) = shown([root("\x1b[1mbold"), root("\r\x07"), root(""), root("end\n\n")]);
        assert_eq!(stdout, "\x1b[1mbold\r\x07end\n\n");
    }

    #[test]
    fn lines_of_others_start_at_the_margin() {
        let (stdout, _) = shown([root("half"), cell("one"), cell("two"), root(" a line\n"), cell("three")]);
        assert_eq!(stdout, "half\n[cell] one\n[cell] two\n a line\n[cell] three\n");
        let (stdout, _) = shown([root("half"), root(""), cell("one")]);
        assert_eq!(stdout, "half\n[cell] one\n");
    }

    #[test]
    fn the_streams_are_kept_apart() {
        let error = |output| Output { is_stderr: true, ..output };
        let outputs = [root("half"), error(cell("one")), error(root("e")), cell("two"), error(cell("three"))];
        let (stdout, stderr) = shown(outputs);
        assert_eq!((&stdout[..], &stderr[..]), ("half\n[cell] two\n", "[cell] one\ne\n[cell] three\n"));
    }

    #[test]
    fn a_full_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        // SAFETY: the descriptor is open as long as `writer` lives, and this command takes one integer.
        assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        let bytes: Vec<u8> = (0..1 << 20).map(|index| (index % 251) as u8).collect();
        let sent = bytes.clone();
        let sending = thread::spawn(move || Patient(writer.into()).write_all(&sent));
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        sending.join().unwrap().unwrap();
        assert!(received == bytes);
    }
}
