//! Who drives: of all threads of a process that wait, one waits in the kernel for all of them.
//!
//! There is one seat. A thread that would sleep takes it if it is free, and drives; the others sleep on the word
//! [`turn`](Seat::turn) beside whatever else wakes them. Whoever leaves the seat while somebody waits moves the word
//! and wakes one of them. So these hold at any time:
//!
//! 1. No thread sleeps for long while the seat is free. One that is to sleep is counted *before* it looks at the seat
//!    a last time, and one that leaves looks at the count *after* the seat is free: one of them sees the other. The
//!    word was read before both, so a move that comes before the sleep ends it.
//! 2. A wake-up is not lost on a thread that does not need it any more: whoever has slept and goes away without
//!    taking the seat passes on ([`Seat::pass_on`]).
//! 3. The background thread sits only while nobody wants to: it sleeps in the seat only if it has seen a count of
//!    zero after it read the word by which it is nudged, and whoever is counted and finds it there nudges it.

use crate::sync::{AtomicU32, Ordering, fence};

/// See the [module](self).
#[derive(Debug)]
pub struct Seat {
    holder: AtomicU32,
    /// How many threads sleep, or are about to, because the seat is taken.
    waiting: AtomicU32,
    turn: AtomicU32,
    /// How many times a thread of the program's took the seat.
    taken: AtomicU32,
}

/// Who sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Holder {
    /// Nobody.
    Nobody = 0,
    /// A thread that waits for something itself.
    Waiter = 1,
    /// The background thread, on behalf of threads that are busy.
    Background = 2,
}

impl Default for Seat {
    fn default() -> Self {
        let [holder, waiting, turn, taken] = std::array::from_fn(|_| AtomicU32::new(0));
        Seat { holder, waiting, turn, taken }
    }
}

impl Seat {
    /// The word that moves when the seat becomes free for somebody who waits; to be read before anything else.
    pub fn turn(&self) -> &AtomicU32 {
        &self.turn
    }

    /// Counts a thread that would sleep; to be followed by [`try_take`](Self::try_take), and by a sleep only if that
    /// fails.
    pub fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // SYNC: with the fence in `leave`.
        fence(Ordering::SeqCst);
        Waiting(self)
    }

    /// Whether anybody sleeps, or is about to, because the seat is taken.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Sits down if the seat is free.
    pub fn try_take(&self, holder: Holder) -> bool {
        let (free, to) = (Holder::Nobody as u32, holder as u32);
        let is_taken = self.holder.compare_exchange(free, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if is_taken && holder == Holder::Waiter {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        is_taken
    }

    /// Who sits.
    pub fn holder(&self) -> Holder {
        match self.holder.load(Ordering::SeqCst) {
            0 => Holder::Nobody,
            1 => Holder::Waiter,
            _ => Holder::Background,
        }
    }

    /// Moves whenever a thread of the program's takes the seat.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Gets up; `true` when one of those that wait has to be woken, by [`turn`](Self::turn).
    #[must_use = "a thread that sleeps may have to be woken"]
    pub fn leave(&self) -> bool {
        self.holder.store(Holder::Nobody as u32, Ordering::SeqCst);
        // SYNC: with the fence in `wait`: what comes after that one sees the seat free, or this sees the count.
        fence(Ordering::SeqCst);
        self.pass_on()
    }

    /// As [`leave`](Self::leave), for who does not sit.
    #[must_use = "a thread that sleeps may have to be woken"]
    pub fn pass_on(&self) -> bool {
        let passes = self.is_wanted() && self.holder() == Holder::Nobody;
        if passes {
            self.turn.fetch_add(1, Ordering::SeqCst);
        }
        passes
    }
}

/// A thread that is counted.
#[derive(Debug)]
pub struct Waiting<'s>(&'s Seat);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
