//! Threads on cores of their own.
#![expect(unsafe_code, reason = "affinity is set by a system call")]

/// Keeps the calling thread on one core; `false` when this machine does not have it.
pub fn pin(core: usize) -> bool {
    // SAFETY: a `cpu_set_t` is plain data that may be zero; `core` is within it, and it outlives the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if core >= libc::CPU_SETSIZE as usize {
            return false;
        }
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) == 0
    }
}
