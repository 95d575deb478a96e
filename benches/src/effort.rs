//! What a thread has spent: processor time, and allocations if the bench counts them.
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait, and a thread's clock a system call")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ops::{Add, Sub},
    sync::atomic::{AtomicU64, Ordering},
};

/// The system's allocator, which counts for each thread and for the process how often it is called. For a bench to install:
/// `#[global_allocator] static COUNTING: Counting = Counting;`
#[derive(Debug)]
pub struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

static ALLOCATIONS_OF_ALL: AtomicU64 = AtomicU64::new(0);

fn count_one() {
    ALLOCATIONS_OF_ALL.fetch_add(1, Ordering::Relaxed);
    // A thread that ends may still give memory back, when it has nothing to count in any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: all is left to the system's allocator, whose contract is the same; counting allocates nothing, because
// the count is built in place and needs no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise, and `pointer` came from the system's allocator.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, and `pointer` came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What was spent.
#[archean::data]
#[derive(Debug, Clone, Copy, Default)]
pub struct Effort {
    /// Processor time, that of the kernel included.
    pub cpu_ns: u64,
    /// Calls for memory; zero in a program that has not installed [`Counting`].
    pub allocations: u64,
}

impl Effort {
    /// What the calling thread has spent since it began.
    pub fn so_far() -> Effort {
        Effort { cpu_ns: cpu_ns(libc::CLOCK_THREAD_CPUTIME_ID), allocations: ALLOCATIONS.get() }
    }

    /// What all threads of the process have spent since it began.
    pub fn of_all_so_far() -> Effort {
        let allocations = ALLOCATIONS_OF_ALL.load(Ordering::Relaxed);
        Effort { cpu_ns: cpu_ns(libc::CLOCK_PROCESS_CPUTIME_ID), allocations }
    }

    /// What the calling thread spends on `work`.
    pub fn of<R>(work: impl FnOnce() -> R) -> (R, Effort) {
        let before = Effort::so_far();
        let result = work();
        (result, Effort::so_far() - before)
    }

    /// What all threads of the process spend during `work`: on it, if nothing else is done meanwhile.
    pub fn of_all<R>(work: impl FnOnce() -> R) -> (R, Effort) {
        let before = Effort::of_all_so_far();
        let result = work();
        (result, Effort::of_all_so_far() - before)
    }
}

fn cpu_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written by the call and outlives it.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Add for Effort {
    type Output = Effort;

    fn add(self, other: Effort) -> Effort {
        let Effort { cpu_ns, allocations } = other;
        Effort { cpu_ns: self.cpu_ns + cpu_ns, allocations: self.allocations + allocations }
    }
}

impl Sub for Effort {
    type Output = Effort;

    fn sub(self, other: Effort) -> Effort {
        let Effort { cpu_ns, allocations } = other;
        Effort { cpu_ns: self.cpu_ns - cpu_ns, allocations: self.allocations - allocations }
    }
}
