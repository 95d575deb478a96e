//! Spawn functions of your program as processes, and talk to them over typed channels.
//!
//! A program that uses this crate runs as a *job* of Archean: [`spawn`] starts a new process of the same program,
//! which runs one of its functions; [`channel`] makes a typed channel whose two ends may live in different
//! processes. Messages lie in shared memory and are read where they are; while both sides are awake, sending needs
//! no system call.
//!
//! ```no_run
//! #[archean::data]
//! struct Job {
//!     numbers: Vec<u64>,
//! }
//!
//! #[archean::main]
//! async fn main() -> Result<(), archean::Error> {
//!     let (mut jobs, inbox) = archean::channel::<Job>();
//!     let worker = archean::spawn(sum, inbox).name("worker").await?;
//!     jobs.send(Job { numbers: (1..=10).collect() }).await?;
//!     drop(jobs);
//!     println!("{}", worker.join().await?);
//!     Ok(())
//! }
//!
//! async fn sum(mut jobs: archean::Receiver<Job>) -> u64 {
//!     let mut total = 0;
//!     while let Ok(job) = jobs.recv().await {
//!         total += job.numbers.iter().map(|number| number.to_native()).sum::<u64>();
//!     }
//!     total
//! }
//! ```
//!
//! # What a child sees
//!
//! Nothing is inherited by accident.
//!
//! * **Memory**: a child starts afresh; it shares nothing with its parent but channels. What it needs of its
//!   parent's state goes into its arguments.
//! * **Environment**: the variables of the job's config and those set by [`env`](Spawn::env), no others, not even
//!   `PATH` and `HOME`. (`LD_LIBRARY_PATH` is passed on when the job was started with it: without it the program
//!   would not load.) The root has the whole environment of the command that started the job.
//! * **Arguments** (`std::env::args`): the program's name and nothing else. The root has those of the command.
//! * **Folder**: that in which the job was started.
//! * **Descriptors**: standard input is empty, standard output and standard error are pipes to the manager, which
//!   shows each line with the process's name; none is a terminal. Descriptor 3 is the control socket, which is
//!   closed in programs that the child executes. The root's standard input is that of the command.
//! * **Session**: each process has its own; it gets no signals from the terminal. It ends, at the latest, with the
//!   job: when the root ends, when the job is stopped, and when the manager dies, even by SIGKILL.
//!
//! The program runs from a copy in memory, so it may be rebuilt while it runs; `std::env::current_exe` therefore
//! gives no useful path in a job.
//!
//! # Executors
//!
//! Async entries and `#[archean::main] async fn main` run on this crate's executor ([`block_on`]): one thread, no
//! other is started. All futures of this crate work under any executor, may move between threads at any await,
//! and say what happens when they are dropped; outside of this crate's executor one more thread serves them all.
//! Whoever wants tokio makes a runtime in a plain function.

mod child;
mod connect;
mod control;
mod entry;
mod failure;
mod harness;
mod init;
mod serde;
mod spawn;
pub mod time;

pub use self::serde::{ArchivedSerde, Serde};
pub use archean_macros::{data, main, test};
pub use channels::{
    Barrier, BarrierError, Broadcast, Bytes, Data, IntoSink, IntoStream, Lag, Late, Member, Message,
    PlainData, Reason, Receiver, RecvError, Refused, Select, SendError, Sender, Slot, Tick, UntypedReceiver,
    UntypedSender, channel, channel_with_capacity, hub::block_on,
};
pub use child::{Child, ExitError, Outcome};
pub use connect::{Accept, AcceptError, Connect, ConnectError, Connection, accept, connect};
pub use entry::Entry;
pub use failure::{Error, Failure};
pub use init::{init, me};
pub use protocol::{
    ending::{Cause, Ending, Exit, Usage},
    ids::ProcessId,
    resources::{Cores, Memory},
};
pub use rkyv;
pub use spawn::{Amount, Me, Spawn, SpawnError, SpawnReason, spawn};

/// For the attributes and for `archean` itself; not for programs.
#[doc(hidden)]
pub mod __private {
    pub use crate::{
        harness::{TestResult, test},
        init::{Role, enter},
    };
}
