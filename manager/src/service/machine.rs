//! What this machine has to give.
#![expect(unsafe_code, reason = "limits and memory are asked for by system calls")]

use std::io;

use protocol::{
    limits::{FDS_PER_PROCESS, PROCESSES_MAX},
    placement::Capacity,
    resources::{Cores, Memory},
};

use super::JobError;

/// Descriptors that the manager needs beside those for processes.
const OWN_DESCRIPTORS: u64 = 64;

/// What this machine has to give to jobs.
pub fn capacity() -> Capacity {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let descriptors = descriptor_limit().map_or(1024, |limit| limit.rlim_max);
    let processes = descriptors.saturating_sub(OWN_DESCRIPTORS) / FDS_PER_PROCESS;
    Capacity {
        cores: Cores::whole(cores.try_into().unwrap_or(u32::MAX)),
        memory: Memory(memory_bytes()),
        processes: processes.clamp(1, PROCESSES_MAX.into()) as u32,
    }
}

fn memory_bytes() -> u64 {
    // SAFETY: plain questions.
    let (pages, bytes) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages).unwrap_or(0) * u64::try_from(bytes).unwrap_or(0)
}

/// Lets this process have as many open files as it may have, and makes sure that they suffice for a job of two
/// processes. To be called before anything else needs descriptors; calling it again does nothing.
///
/// # Errors
/// [`JobError`], which tells what is needed.
pub fn prepare() -> Result<(), JobError> {
    let system = |error| JobError::System { what: "raising the limit of open files", error };
    let limit = descriptor_limit().map_err(system)?;
    let needed = OWN_DESCRIPTORS + 2 * FDS_PER_PROCESS;
    if limit.rlim_max < needed {
        return Err(JobError::Descriptors { limit: limit.rlim_max, needed });
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the struct outlives the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } {
        0 => Ok(()),
        _ => Err(system(io::Error::last_os_error())),
    }
}

fn descriptor_limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct outlives the call, which writes it.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_something_to_give() {
        let capacity = capacity();
        assert!(capacity.cores >= Cores::whole(1), "{capacity:?}");
        assert!(capacity.memory >= Memory(64 << 20), "{capacity:?}");
        assert!((1..=PROCESSES_MAX).contains(&capacity.processes), "{capacity:?}");
    }
}
