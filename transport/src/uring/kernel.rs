//! The process's io_uring, as the driver uses it.
#![expect(unsafe_code, reason = "requests lend memory to the kernel")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::atomic::AtomicU32,
    time::{Duration, Instant},
};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{Fd, FutexWaitV, SubmitArgs, Timespec},
};

/// Requests that are handed over at once.
const SUBMISSIONS: u32 = 128;
/// Completions that the kernel can leave here; beyond that it keeps them, and hands them over later.
const COMPLETIONS: u32 = 512;
/// `FUTEX2_SIZE_U32`.
const FUTEX_U32: u32 = 2;

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// The words were waited for; the number says which request it was.
    Words(u32),
    /// The link of that index was read from.
    Receive(u32),
    /// The link of that index was waited for until it can be read from.
    Readable(u32),
    /// The link of that index was written to, however long that takes.
    Send(u32),
    /// The link of that index was written to as far as that goes at once; completes only if that is not all.
    SendNow(u32),
}

impl Request {
    fn to_word(self) -> u64 {
        let (kind, index) = match self {
            Request::Words(number) => (0, number),
            Request::Receive(index) => (1, index),
            Request::Readable(index) => (2, index),
            Request::Send(index) => (3, index),
            Request::SendNow(index) => (4, index),
        };
        kind | u64::from(index) << 8
    }

    fn of(word: u64) -> Request {
        let index = (word >> 8) as u32;
        match word & 0xff {
            0 => Request::Words(index),
            1 => Request::Receive(index),
            2 => Request::Readable(index),
            3 => Request::Send(index),
            _ => Request::SendNow(index),
        }
    }
}

/// A request that was completed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    pub(super) request: Request,
    /// As a system call's: a negative error, or how much.
    pub(super) result: i32,
}

/// The ring. Any thread may use it, one at a time: it is made without the flags that tie one to a thread
/// (SINGLE_ISSUER, DEFER_TASKRUN) and without COOP_TASKRUN, with which what a thread has asked for would lie about while
/// that thread computes and another one waits.
pub(super) struct Kernel {
    ring: IoUring,
    words: Box<[FutexWaitV; WORDS_MAX]>,
}

/// Words that are waited for at once.
pub(super) const WORDS_MAX: usize = 3;

/// A word, and what it is before anything happens.
pub(super) type Word = (&'static AtomicU32, u32);

impl Kernel {
    pub(super) fn new() -> io::Result<Kernel> {
        let ring = IoUring::builder().setup_cqsize(COMPLETIONS).dontfork().build(SUBMISSIONS)?;
        Ok(Kernel { ring, words: Box::new([FutexWaitV::new(); WORDS_MAX]) })
    }

    /// Completes when one of the words is woken, or is not what is beside it.
    pub(super) fn wait_words(&mut self, number: u32, words: &[Word]) {
        for (entry, (word, value)) in self.words.iter_mut().zip(words) {
            let address = word.as_ptr().addr() as u64;
            *entry = FutexWaitV::new().val((*value).into()).uaddr(address).flags(FUTEX_U32);
        }
        let count = words.len().min(WORDS_MAX) as u32;
        let entry = opcode::FutexWaitV::new(self.words.as_ptr(), count).build();
        // SAFETY: the kernel reads the array when the request is submitted, which is before it is written
        // again (`drive` waits after it). The words live as long as the process.
        unsafe { self.push(entry, Request::Words(number)) };
    }

    /// Completes when something was read.
    ///
    /// # Safety
    /// The space stays writable, and the kernel's alone, until the completion was taken.
    pub(super) unsafe fn receive(&mut self, index: u32, socket: BorrowedFd<'_>, space: *mut [u8]) {
        let len = space.len().try_into().unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(Fd(socket.as_raw_fd()), space.cast(), len).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, Request::Receive(index)) };
    }

    /// Completes with zero or more when there is something to read.
    pub(super) fn wait_readable(&mut self, index: u32, socket: BorrowedFd<'_>) {
        let events = libc::POLLIN | libc::POLLRDHUP;
        let entry = opcode::PollAdd::new(Fd(socket.as_raw_fd()), events as u32).build();
        // SAFETY: it lends no memory.
        unsafe { self.push(entry, Request::Readable(index)) };
    }

    /// Completes when all was written, or as much as there can be before an error. If it is done `now`, it does not
    /// wait, and completes only when it could not write all.
    ///
    /// # Safety
    /// The bytes stay as they are until the completion was taken; of a request that is done `now`, until it was
    /// submitted.
    pub(super) unsafe fn send(&mut self, index: u32, socket: BorrowedFd<'_>, bytes: *const [u8], now: bool) {
        let len = bytes.len().try_into().unwrap_or(u32::MAX);
        let more = if now { libc::MSG_DONTWAIT } else { 0 };
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), bytes.cast(), len)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL | more)
            .build();
        let (entry, request) = match now {
            true => (entry.flags(squeue::Flags::SKIP_SUCCESS), Request::SendNow(index)),
            false => (entry, Request::Send(index)),
        };
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, request) };
    }

    /// # Safety
    /// Memory that the request lends stays lent until it was completed.
    unsafe fn push(&mut self, entry: squeue::Entry, request: Request) {
        let entry = entry.user_data(request.to_word());
        // SAFETY: the caller's promise.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.submit();
        }
    }

    /// Hands over what was asked for, and does not wait.
    pub(super) fn submit(&mut self) {
        while !self.ring.submission().is_empty() {
            if self.ring.submit().is_err() {
                // No memory just now, or too many completions that nobody has taken: it goes on when there is.
                std::thread::yield_now();
                if !self.ring.completion().is_empty() {
                    return;
                }
            }
        }
    }

    /// Hands over what was asked for, and waits until something is completed or until `deadline`.
    pub(super) fn submit_and_wait(&mut self, deadline: Option<Instant>) {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return self.submit();
        }
        // An error is a deadline that has come, a signal, or what `submit` tries again.
        let _ = match left {
            None => self.ring.submit_and_wait(1),
            Some(left) => {
                let left = Timespec::from(left);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&left))
            }
        };
        self.submit();
    }

    /// Whether all was handed over.
    pub(super) fn is_submitted(&mut self) -> bool {
        self.ring.submission().is_empty()
    }

    /// What was completed, if anything was.
    pub(super) fn next_completion(&mut self) -> Option<Completion> {
        let entry: cqueue::Entry = self.ring.completion().next()?;
        Some(Completion { request: Request::of(entry.user_data()), result: entry.result() })
    }
}
