//! Sleeping until something happens, and waking who sleeps.
#![expect(unsafe_code, reason = "futex has no safe wrapper")]

use std::{
    io,
    sync::atomic::AtomicU32,
    time::{Duration, Instant},
};

/// The length of a sleep that has to be bounded because its waker may not have noticed it. Store buffers drain
/// in far less; a wake-up that is missed costs no more than this.
pub const FIRST_SLEEP: Duration = Duration::from_micros(200);

/// The processor that the calling thread runs on, plus one; zero when the kernel does not say.
#[inline]
pub fn cpu() -> u32 {
    // SAFETY: a call without arguments; the C library reads it from memory that the kernel keeps for the thread.
    let cpu = unsafe { libc::sched_getcpu() };
    u32::try_from(cpu).map_or(0, |cpu| cpu + 1)
}

/// One entry of `futex_waitv`.
#[repr(C)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

const FUTEX2_SIZE_U32: u32 = 2;

impl Waiter {
    fn new(word: &AtomicU32, value: u32) -> Self {
        Waiter { value: value.into(), address: word.as_ptr() as u64, flags: FUTEX2_SIZE_U32, reserved: 0 }
    }
}

/// Sleeps until one of the `words` is no longer the value beside it, until it is woken, or until `deadline`.
///
/// It may also return for no reason: look again at whatever is waited for. The words may be mapped for reading
/// only, and may be shared with other processes.
///
/// # Panics
/// When the kernel does not know `futex_waitv` (before 5.16).
pub fn park<const N: usize>(words: [(&AtomicU32, u32); N], deadline: Option<Instant>) {
    let waiters = words.map(|(word, value)| Waiter::new(word, value));
    let until = match deadline {
        None => None,
        Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Some(monotonic_in(left)),
            _ => return,
        },
    };
    let until = until.as_ref().map_or(std::ptr::null(), |time| time as *const libc::timespec);
    // SAFETY: `waiters` and `until` live until the call returns; the addresses are those of words that are
    // borrowed for as long.
    let result = unsafe {
        libc::syscall(libc::SYS_futex_waitv, waiters.as_ptr(), N as u32, 0u32, until, libc::CLOCK_MONOTONIC)
    };
    if result < 0 {
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT) => {}
            Some(libc::ENOSYS) => panic!("this kernel lacks futex_waitv: Linux 5.16 or newer is needed"),
            _ => panic!("futex_waitv: {error}"),
        }
    }
}

fn monotonic_in(left: Duration) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is written by the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let nanoseconds = now.tv_nsec + libc::c_long::from(left.subsec_nanos() as i32);
    let seconds = libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX / 2);
    libc::timespec {
        tv_sec: now.tv_sec.saturating_add(seconds).saturating_add(nanoseconds / 1_000_000_000),
        tv_nsec: nanoseconds % 1_000_000_000,
    }
}

/// Wakes everybody who sleeps on `word`, in this process and in others.
pub fn wake(word: &AtomicU32) {
    wake_some(word, libc::c_int::MAX);
}

/// Wakes one of those who sleep on `word`.
pub fn wake_one(word: &AtomicU32) {
    wake_some(word, 1);
}

fn wake_some(word: &AtomicU32, count: libc::c_int) {
    // SAFETY: the word is borrowed; the kernel reads no more than its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_changed_word_does_not_sleep() {
        let (a, b) = (AtomicU32::new(1), AtomicU32::new(2));
        park([(&a, 1), (&b, 3)], None);
    }

    #[test]
    fn a_deadline_that_passed_does_not_sleep() {
        let word = AtomicU32::new(0);
        park([(&word, 0)], Some(Instant::now()));
    }

    #[test]
    fn either_word_wakes() {
        let words = [AtomicU32::new(0), AtomicU32::new(0)];
        for turn in 0..2u32 {
            for rung in 0..2 {
                let value = turn * 2 + rung as u32 + 1;
                let before = words.each_ref().map(|word| word.load(Ordering::Relaxed));
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        while words[rung].load(Ordering::SeqCst) != value {
                            park([(&words[0], before[0]), (&words[1], before[1])], None);
                        }
                    });
                    words[rung].store(value, Ordering::SeqCst);
                    wake(&words[rung]);
                });
            }
        }
    }
}
