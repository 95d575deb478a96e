//! Two processes that wake each other by a futex and nothing else: the least that a round trip between sleepers
//! can cost.
#![expect(unsafe_code, reason = "futex has no safe wrapper")]

use std::{
    fs::OpenOptions,
    io,
    os::fd::AsFd,
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use transport::{
    layout::PAGE_BYTES,
    segment::{Words, create},
};

use super::{Role, borrow, lend};
use crate::contest::{Link, Play, Side};

/// A word each way, in a page that both processes map.
///
/// # Errors
/// An error of the system calls.
pub(super) fn futex(role: Role, link: &mut Link) -> io::Result<Box<dyn Side>> {
    let map = |file: &dyn AsFd| Words::map(file.as_fd(), 2, 128, true);
    let words = match role {
        Role::Lead => {
            let page = create(c"bench-futex", PAGE_BYTES)?;
            lend(&page, link);
            link.hear_name();
            map(&page)?
        }
        Role::Partner => {
            let words = map(&borrow(link, OpenOptions::new().read(true).write(true))?)?;
            link.say_name("mapped");
            words
        }
    };
    Ok(Box::new(Futexes { words, turn: 0 }))
}

struct Futexes {
    words: Words,
    /// What both words are between trips.
    turn: u32,
}

impl Side for Futexes {
    fn lead(&mut self, play: Play, count: u64, times_ns: &mut Vec<f64>) {
        let clock = quanta::Clock::new();
        let (there, back) = (self.words.word(0), self.words.word(1));
        for _ in 0..count {
            play.pause();
            let start = clock.raw();
            wake_with(there, self.turn + 1);
            sleep_until(back, self.turn);
            times_ns.push(clock.delta_as_nanos(start, clock.raw()) as f64);
            self.turn += 1;
        }
    }

    fn follow(&mut self, _: Play, count: u64) {
        let (there, back) = (self.words.word(0), self.words.word(1));
        for _ in 0..count {
            sleep_until(there, self.turn);
            self.turn += 1;
            wake_with(back, self.turn);
        }
    }
}

/// Sleeps while the word has that value.
fn sleep_until(word: &AtomicU32, changed_from: u32) {
    // SYNC: with the store in `wake_with`.
    while word.load(Ordering::Acquire) == changed_from {
        // SAFETY: the word is borrowed; without a time limit the call reads nothing else.
        unsafe {
            libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, changed_from, ptr::null::<u8>())
        };
    }
}

/// Changes the word, and wakes who sleeps on it.
fn wake_with(word: &AtomicU32, value: u32) {
    // SYNC: with the load in `sleep_until`.
    word.store(value, Ordering::Release);
    // SAFETY: the word is borrowed; the kernel reads no more than its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}
