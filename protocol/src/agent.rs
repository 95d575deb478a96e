//! What the parts of a job on different machines tell each other.
//!
//! A job has one home, on the machine of its root: there all is decided. On every other machine where it has
//! processes it has an agent, which does what the home says and reports what happens. The words go through the
//! managers of both machines, in order. As all control words, they only ever gain fields.

use std::time::Duration;

use prost::{Message, Oneof};

use crate::{
    control::{Malformed, Number, ToManager, ToProcess, Variable},
    ending::Usage,
    ids::{EndId, ProcessId},
};

/// From the home to an agent.
#[derive(Clone, PartialEq, Message)]
pub struct ToAgent {
    /// The word.
    #[prost(oneof = "FromHome", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub word: Option<FromHome>,
}

/// A word from the home.
#[derive(Clone, PartialEq, Oneof)]
pub enum FromHome {
    /// The first word: there is a job, and this is its program.
    #[prost(message, tag = "1")]
    Begin(Begin),
    /// Start a process.
    #[prost(message, tag = "2")]
    Launch(Launch),
    /// Kill a process.
    #[prost(message, tag = "3")]
    Kill(Number),
    /// Make a ring and give it to its process.
    #[prost(message, tag = "4")]
    MakeRing(MakeRing),
    /// Give a ring's files up.
    #[prost(message, tag = "5")]
    FreeRing(Number),
    /// Tell a process.
    #[prost(message, tag = "6")]
    Tell(Tell),
    /// Report all that was said until now on the sockets of this machine's processes, then answer.
    #[prost(message, tag = "7")]
    Hear(Number),
    /// A sender on another machine will be linked to a receiver here: wait for its connection, and answer.
    #[prost(message, tag = "8")]
    Expect(Link),
    /// A sender here is to be linked to a receiver on another machine, which is waited for there.
    #[prost(message, tag = "9")]
    Dial(Link),
    /// The job is over: end what is left of it here.
    #[prost(message, tag = "10")]
    End(End),
    /// A sender here that is linked, or is to be, is no more: see that its ring is drained.
    #[prost(message, tag = "11")]
    Drain(crate::control::End),
}

/// From an agent to the home.
#[derive(Clone, PartialEq, Message)]
pub struct ToHome {
    /// The word.
    #[prost(oneof = "FromAgent", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub word: Option<FromAgent>,
}

/// A word from an agent.
#[derive(Clone, PartialEq, Oneof)]
pub enum FromAgent {
    /// A process has said something.
    #[prost(message, tag = "1")]
    Said(Said),
    /// A process runs.
    #[prost(message, tag = "2")]
    Launched(Number),
    /// A process could not be started.
    #[prost(message, tag = "3")]
    LaunchFailed(Failed),
    /// A ring could not be made.
    #[prost(message, tag = "4")]
    RingFailed(Failed),
    /// A process has ended, and this is the last that is said of it.
    #[prost(message, tag = "5")]
    Ended(Ended),
    /// A process has run as long as it may.
    #[prost(message, tag = "6")]
    TimeLimit(TimeLimit),
    /// A process does not keep to the rules.
    #[prost(message, tag = "7")]
    Violation(Failed),
    /// All that was said before [`FromHome::Hear`] was reported.
    #[prost(message, tag = "8")]
    Heard(Number),
    /// The connection of a link can come.
    #[prost(message, tag = "9")]
    Expecting(Expecting),
    /// A link could not be made.
    #[prost(message, tag = "10")]
    LinkFailed(Failed),
    /// A process has printed something.
    #[prost(message, tag = "11")]
    Printed(Printed),
    /// A link was dialled, and is connected.
    #[prost(message, tag = "12")]
    Linked(Number),
}

/// See [`FromHome::Begin`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Begin {
    /// The program, as it is known in the stores of images.
    #[prost(bytes = "vec", tag = "1")]
    pub image: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The machine of the home.
    #[prost(uint32, tag = "3")]
    pub home: u32,
    /// The folder that processes start in, on machines that have it.
    #[prost(bytes = "vec", tag = "4")]
    pub directory: Vec<u8>,
}

/// See [`FromHome::Launch`].
#[derive(Clone, PartialEq, Message)]
pub struct Launch {
    /// The process.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// Its parent.
    #[prost(uint64, optional, tag = "2")]
    pub parent: Option<u64>,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Where its entry is in the image.
    #[prost(uint64, optional, tag = "4")]
    pub entry: Option<u64>,
    /// Its arguments, archived.
    #[prost(bytes = "vec", tag = "5")]
    pub argument: Vec<u8>,
    /// The ends in its arguments, sixteen bytes each.
    #[prost(bytes = "vec", tag = "6")]
    pub ends: Vec<u8>,
    /// Shares of cores.
    #[prost(uint64, tag = "7")]
    pub cores_shares: u64,
    /// Bytes of memory.
    #[prost(uint64, tag = "8")]
    pub memory_bytes: u64,
    /// Its environment.
    #[prost(message, repeated, tag = "9")]
    pub env: Vec<Variable>,
    /// What its program is called with; for a test harness.
    #[prost(string, repeated, tag = "10")]
    pub harness: Vec<String>,
    /// How long it may run.
    #[prost(uint64, optional, tag = "11")]
    pub time_limit_ns: Option<u64>,
    /// Rings that it is given when it starts.
    #[prost(message, repeated, tag = "12")]
    pub rings: Vec<MakeRing>,
}

/// See [`FromHome::MakeRing`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MakeRing {
    /// The process that will write it.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// Names the ring.
    #[prost(uint64, tag = "2")]
    pub ring: u64,
    /// Its capacity in bytes.
    #[prost(uint64, tag = "3")]
    pub capacity: u64,
    /// The sender that it is meant for; empty when there is none.
    #[prost(bytes = "vec", tag = "4")]
    pub sender: Vec<u8>,
}

/// See [`FromHome::Tell`].
#[derive(Clone, PartialEq, Message)]
pub struct Tell {
    /// The process.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// What it is told.
    #[prost(message, optional, tag = "2")]
    pub word: Option<ToProcess>,
    /// The doorbell of that process goes along.
    #[prost(uint64, optional, tag = "3")]
    pub doorbell: Option<u64>,
    /// That ring goes along, for its consumer.
    #[prost(uint64, optional, tag = "4")]
    pub ring: Option<u64>,
}

/// See [`FromHome::Expect`] and [`FromHome::Dial`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Link {
    /// Names the link.
    #[prost(uint64, tag = "1")]
    pub link: u64,
    /// The sender.
    #[prost(bytes = "vec", tag = "2")]
    pub sender: Vec<u8>,
    /// The receiver.
    #[prost(bytes = "vec", tag = "3")]
    pub receiver: Vec<u8>,
    /// The process that holds the sender.
    #[prost(uint64, tag = "4")]
    pub sender_in: u64,
    /// The process that holds the receiver.
    #[prost(uint64, tag = "5")]
    pub receiver_in: u64,
    /// The sender's ring.
    #[prost(uint64, tag = "6")]
    pub ring: u64,
    /// Its capacity in bytes.
    #[prost(uint64, tag = "7")]
    pub capacity: u64,
    /// The machine of the other end.
    #[prost(uint32, tag = "8")]
    pub machine: u32,
    /// For who dials: what is expected.
    #[prost(message, optional, tag = "9")]
    pub expecting: Option<Expecting>,
    /// For who dials: the sender is no more already.
    #[prost(bool, tag = "10")]
    pub is_over: bool,
}

/// A connection that is expected.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Expecting {
    /// The home's name for the link.
    #[prost(uint64, tag = "1")]
    pub link: u64,
    /// What the hello names it by, sixteen bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub id: Vec<u8>,
    /// What proves that the hello is the other manager's, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub secret: Vec<u8>,
}

/// See [`FromHome::End`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct End {}

/// See [`FromAgent::Said`].
#[derive(Clone, PartialEq, Message)]
pub struct Said {
    /// Who.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// What.
    #[prost(message, optional, tag = "2")]
    pub word: Option<ToManager>,
}

/// Something failed.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Failed {
    /// What: a process, a ring, a link.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// For a ring: the sender that waits for it; empty when there is none.
    #[prost(bytes = "vec", tag = "2")]
    pub sender: Vec<u8>,
    /// Why, in words.
    #[prost(string, tag = "3")]
    pub text: String,
}

/// See [`FromAgent::Ended`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ended {
    /// Who.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// The code that it ended with, if no signal ended it.
    #[prost(int32, optional, tag = "2")]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[prost(int32, tag = "3")]
    pub signal: i32,
    /// It left a core file behind.
    #[prost(bool, tag = "4")]
    pub core: bool,
    /// Wall time.
    #[prost(uint64, tag = "5")]
    pub wall_ns: u64,
    /// Processor time in its own code.
    #[prost(uint64, tag = "6")]
    pub user_ns: u64,
    /// Processor time in the kernel.
    #[prost(uint64, tag = "7")]
    pub system_ns: u64,
    /// The most memory held at once.
    #[prost(uint64, tag = "8")]
    pub memory_max_bytes: u64,
    /// The tail of standard error.
    #[prost(string, tag = "9")]
    pub stderr_tail: String,
}

impl Ended {
    /// What the process used.
    pub const fn usage(&self) -> Usage {
        Usage {
            wall: Duration::from_nanos(self.wall_ns),
            user: Duration::from_nanos(self.user_ns),
            system: Duration::from_nanos(self.system_ns),
            memory_max_bytes: self.memory_max_bytes,
        }
    }
}

/// See [`FromAgent::TimeLimit`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct TimeLimit {
    /// Who.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// How long it might run.
    #[prost(uint64, tag = "2")]
    pub limit_ns: u64,
}

/// A piece of a process's output.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Printed {
    /// The process's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// It is the root of the job.
    #[prost(bool, tag = "2")]
    pub is_root: bool,
    /// It came from standard error.
    #[prost(bool, tag = "3")]
    pub is_stderr: bool,
    /// Of the root: bytes as they came. Of others: one line, without its end.
    #[prost(bytes = "vec", tag = "4")]
    pub bytes: Vec<u8>,
    /// It is a piece of a longer line that goes on.
    #[prost(bool, tag = "5")]
    pub continues: bool,
}

impl MakeRing {
    /// The sender that the ring is meant for.
    ///
    /// # Errors
    /// [`Malformed`] when it is no end.
    pub fn sender(&self) -> Result<Option<EndId>, Malformed> {
        if self.sender.is_empty() { Ok(None) } else { EndId::from_word(&self.sender).map(Some) }
    }

    /// The process that will write the ring.
    pub const fn process(&self) -> ProcessId {
        ProcessId(self.process)
    }
}
