//! What a manager makes for a ring, and the other process that uses it.
#![expect(unsafe_code, reason = "descriptors are inherited")]

use std::{
    env,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{self, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use transport::{
    layout::PAGE_BYTES,
    segment::{Files, Words, create, reopen_read_only},
};

/// Set for the child: the numbers of its descriptors.
pub(crate) const DESCRIPTORS: &str = "ARCHEAN_TEST_DESCRIPTORS";

/// What a manager makes for a ring, and what the test counts beside it.
pub(crate) struct Wiring {
    pub(crate) data: OwnedFd,
    pub(crate) positions: OwnedFd,
    pub(crate) producer_bell: OwnedFd,
    pub(crate) consumer_bell: OwnedFd,
    pub(crate) counts: OwnedFd,
}

/// The words that the test counts in.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    /// Odd while the producer is in a sleep that only the doorbell ends.
    ProducerSleeps,
    /// As above.
    ConsumerSleeps,
    /// Frames that are being published.
    Publishing,
    /// Frames that were published for certain.
    Published,
    /// How many times a ring that was spoilt was begun anew.
    Restarts,
}

impl Wiring {
    pub(crate) fn create(capacity: usize) -> Wiring {
        let files = Files::create(capacity).unwrap();
        let page = || create(c"archean-test", PAGE_BYTES).unwrap();
        Wiring {
            data: files.data,
            positions: files.consumer,
            producer_bell: page(),
            consumer_bell: page(),
            counts: page(),
        }
    }

    /// What the producer is given: the consumer's positions are not for it to write.
    pub(crate) fn for_producer(&self) -> Wiring {
        Wiring { positions: reopen_read_only(self.positions.as_fd()).unwrap(), ..self.same() }
    }

    /// What the consumer is given: the frames are not for it to write.
    pub(crate) fn for_consumer(&self) -> Wiring {
        Wiring { data: reopen_read_only(self.data.as_fd()).unwrap(), ..self.same() }
    }

    fn same(&self) -> Wiring {
        let same = |file: &OwnedFd| file.try_clone().unwrap();
        Wiring {
            data: same(&self.data),
            positions: same(&self.positions),
            producer_bell: same(&self.producer_bell),
            consumer_bell: same(&self.consumer_bell),
            counts: same(&self.counts),
        }
    }

    pub(crate) fn raw(&self) -> [RawFd; 5] {
        [&self.data, &self.positions, &self.producer_bell, &self.consumer_bell, &self.counts]
            .map(AsRawFd::as_raw_fd)
    }

    /// What this process was given, if it is the child.
    pub(crate) fn inherited() -> Option<Wiring> {
        let numbers = env::var(DESCRIPTORS).ok()?;
        let mut files = numbers.split(',').map(|number| {
            // SAFETY: the parent left these descriptors open for this process, each for one owner, which is taken
            // here, once: a child runs one test.
            unsafe { OwnedFd::from_raw_fd(number.parse().unwrap()) }
        });
        let mut next = || files.next().unwrap();
        Some(Wiring {
            data: next(),
            positions: next(),
            producer_bell: next(),
            consumer_bell: next(),
            counts: next(),
        })
    }

    pub(crate) fn counts(&self) -> Words {
        Words::map(self.counts.as_fd(), 5, 128, true).unwrap()
    }
}

/// The other process. It is killed, and gone, when this is dropped.
pub(crate) struct Child(process::Child);

impl Child {
    /// Starts this program anew, to run `test` with what it is given.
    pub(crate) fn start(test: &str, given: Wiring) -> Child {
        let raw = given.raw();
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(DESCRIPTORS, raw.map(|file| file.to_string()).join(","))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // SAFETY: between fork and exec only system calls are made, on plain values.
        unsafe {
            command.pre_exec(move || {
                // When the parent aborts, nobody else would end the child.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                for file in raw {
                    if libc::fcntl(file, libc::F_SETFD, 0) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        Child(command.spawn().unwrap())
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.0.kill().unwrap();
        self.wait()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail for a child that was waited for, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Aborts the whole program when a test hangs, unless it is dropped before. The child follows its parent.
pub(crate) struct Watchdog(#[expect(dead_code, reason = "dropping it is the message")] mpsc::Sender<()>);

impl Watchdog {
    pub(crate) fn start(test: &'static str) -> Watchdog {
        let (alive, test_ended) = mpsc::channel();
        thread::spawn(move || {
            if test_ended.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test} hangs: aborting");
                process::abort();
            }
        });
        Watchdog(alive)
    }
}
