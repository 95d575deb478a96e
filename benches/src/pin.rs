//! Threads on cores of their own.
#![expect(unsafe_code, reason = "affinity is set by a system call")]

use std::fs;

/// Keeps the calling thread on one core; `false` when this machine does not have it.
pub fn pin(core: usize) -> bool {
    pin_thread(0, core)
}

/// Keeps all threads of the process on one core, and those that they will start; `false` when this machine does not
/// have it.
pub fn pin_all(core: usize) -> bool {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let numbers = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    // One that has ended meanwhile needs no core.
    for thread in numbers {
        pin_thread(thread, core);
    }
    pin(core)
}

/// Zero is the calling thread.
fn pin_thread(thread: libc::pid_t, core: usize) -> bool {
    // SAFETY: a `cpu_set_t` is plain data that may be zero; `core` is within it, and it outlives the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if core >= libc::CPU_SETSIZE as usize {
            return false;
        }
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &set) == 0
    }
}
