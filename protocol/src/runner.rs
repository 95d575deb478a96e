//! What a manager and its runners tell each other.
//!
//! A runner is the process that holds one job's part on one machine, the home or an agent. It has no network: its
//! manager, which started it, passes words on, makes connections and hands them over. They talk as processes and
//! managers do (see [`control`](crate::control)), over the runner's descriptor 3.

use prost::{Message, Oneof};

use crate::{
    agent::{Expecting, Printed, ToAgent, ToHome},
    control::{ExitWord, LinkKeys, Number, Variable},
};

/// From a manager to a runner.
#[derive(Clone, PartialEq, Message)]
pub struct ToRunner {
    /// The word.
    #[prost(oneof = "FromDaemon", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub word: Option<FromDaemon>,
}

/// A word from a manager to a runner.
#[derive(Clone, PartialEq, Oneof)]
pub enum FromDaemon {
    /// The first word.
    #[prost(message, tag = "1")]
    Start(Start),
    /// The scheduler has placed a process.
    #[prost(message, tag = "2")]
    Placed(Placed),
    /// The scheduler refuses a process.
    #[prost(message, tag = "3")]
    Refused(Refused),
    /// To an agent, from its home.
    #[prost(message, tag = "4")]
    ToAgent(ToAgent),
    /// To the home, from an agent.
    #[prost(message, tag = "5")]
    FromAgent(MachineToHome),
    /// A machine is lost.
    #[prost(message, tag = "6")]
    MachineLost(MachineLost),
    /// A link is connected. With its socket.
    #[prost(message, tag = "7")]
    Linked(Linked),
    /// A link could not be connected.
    #[prost(message, tag = "8")]
    NotLinked(NotLinked),
    /// The job has to end.
    #[prost(message, tag = "9")]
    Stop(Stop),
    /// The connection of a link can come.
    #[prost(message, tag = "10")]
    Expecting(Expecting),
}

/// From a runner to its manager.
#[derive(Clone, PartialEq, Message)]
pub struct FromRunner {
    /// The word.
    #[prost(oneof = "ToDaemon", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub word: Option<ToDaemon>,
}

/// A word from a runner to its manager.
#[derive(Clone, PartialEq, Oneof)]
pub enum ToDaemon {
    /// A process is to be placed.
    #[prost(message, tag = "1")]
    Want(Want),
    /// A process that waits, or was placed and not started, is not wanted any more.
    #[prost(message, tag = "2")]
    Withdraw(Number),
    /// A process that was placed has ended.
    #[prost(message, tag = "3")]
    Gone(Number),
    /// To an agent, from the home.
    #[prost(message, tag = "4")]
    ToAgent(HomeToMachine),
    /// To the home, from an agent.
    #[prost(message, tag = "5")]
    ToHome(ToHome),
    /// Wait for that link's connection.
    #[prost(message, tag = "6")]
    Expect(LinkTo),
    /// Make that link's connection.
    #[prost(message, tag = "7")]
    Dial(LinkTo),
    /// A process of the job has printed something.
    #[prost(message, tag = "8")]
    Printed(Printed),
    /// The job is over.
    #[prost(message, tag = "9")]
    Over(Over),
}

/// See [`FromDaemon::Start`].
#[derive(Clone, PartialEq, Message)]
pub struct Start {
    /// The job.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// This machine.
    #[prost(uint32, tag = "2")]
    pub machine: u32,
    /// The machine of the job's home.
    #[prost(uint32, tag = "3")]
    pub home: u32,
    /// The program, as it is known in the stores of images.
    #[prost(bytes = "vec", tag = "4")]
    pub image: Vec<u8>,
    /// What to run.
    #[prost(message, optional, tag = "5")]
    pub spec: Option<Spec>,
    /// The folder of the store that has the image.
    #[prost(bytes = "vec", tag = "6")]
    pub store: Vec<u8>,
}

/// What to run.
#[derive(Clone, PartialEq, Message)]
pub struct Spec {
    /// The program's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What the root is called with, the program's own name left out.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub arguments: Vec<Vec<u8>>,
    /// The root's whole environment.
    #[prost(message, repeated, tag = "3")]
    pub env: Vec<Variable>,
    /// The environment that every other process starts from.
    #[prost(message, repeated, tag = "4")]
    pub process_env: Vec<Variable>,
    /// Shares of cores that the root asks for.
    #[prost(uint64, tag = "5")]
    pub cores_shares: u64,
    /// Bytes of memory that the root asks for.
    #[prost(uint64, tag = "6")]
    pub memory_bytes: u64,
    /// The job lasts until its last process has ended.
    #[prost(bool, tag = "7")]
    pub wait: bool,
    /// The root is a test binary.
    #[prost(bool, tag = "8")]
    pub harness: bool,
    /// The folder that processes start in, on machines that have it; the others' start in the root folder.
    #[prost(bytes = "vec", tag = "9")]
    pub directory: Vec<u8>,
}

/// See [`ToDaemon::Want`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Want {
    /// The process.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// Shares of cores.
    #[prost(uint64, tag = "2")]
    pub cores_shares: u64,
    /// Bytes of memory.
    #[prost(uint64, tag = "3")]
    pub memory_bytes: u64,
    /// How long it may wait.
    #[prost(uint64, optional, tag = "4")]
    pub deadline_ns: Option<u64>,
    /// The machine that it has to be on.
    #[prost(uint32, optional, tag = "5")]
    pub on: Option<u32>,
    /// The machine that it is best on.
    #[prost(uint32, optional, tag = "6")]
    pub prefer: Option<u32>,
    /// The machine that it must not be on.
    #[prost(uint32, optional, tag = "7")]
    pub not: Option<u32>,
}

/// See [`FromDaemon::Placed`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Placed {
    /// The process.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// Its machine.
    #[prost(uint32, tag = "2")]
    pub machine: u32,
}

/// See [`FromDaemon::Refused`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Refused {
    /// The process.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// The kind of reason: see [`SpawnFailure`](crate::control::SpawnFailure).
    #[prost(enumeration = "crate::control::SpawnFailure", tag = "2")]
    pub failure: i32,
    /// Why, in words.
    #[prost(string, tag = "3")]
    pub text: String,
}

/// See [`ToDaemon::ToAgent`].
#[derive(Clone, PartialEq, Message)]
pub struct HomeToMachine {
    /// Where the agent is.
    #[prost(uint32, tag = "1")]
    pub machine: u32,
    /// What it is told.
    #[prost(message, optional, tag = "2")]
    pub word: Option<ToAgent>,
}

/// See [`FromDaemon::FromAgent`].
#[derive(Clone, PartialEq, Message)]
pub struct MachineToHome {
    /// Where the agent is.
    #[prost(uint32, tag = "1")]
    pub machine: u32,
    /// What it says.
    #[prost(message, optional, tag = "2")]
    pub word: Option<ToHome>,
}

/// See [`FromDaemon::MachineLost`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MachineLost {
    /// Which.
    #[prost(uint32, tag = "1")]
    pub machine: u32,
    /// How that came, in words.
    #[prost(string, tag = "2")]
    pub why: String,
}

/// A link that is to be connected.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LinkTo {
    /// The home's name for the link.
    #[prost(uint64, tag = "1")]
    pub link: u64,
    /// The machine at the other end.
    #[prost(uint32, tag = "2")]
    pub machine: u32,
    /// The receiver's window in bytes.
    #[prost(uint64, tag = "3")]
    pub window: u64,
    /// For who dials: what is expected there.
    #[prost(message, optional, tag = "4")]
    pub expecting: Option<Expecting>,
}

/// See [`FromDaemon::Linked`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Linked {
    /// The link.
    #[prost(uint64, tag = "1")]
    pub link: u64,
    /// How its frames travel; absent when they travel as they are.
    #[prost(message, optional, tag = "2")]
    pub keys: Option<LinkKeys>,
}

/// See [`FromDaemon::NotLinked`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NotLinked {
    /// The link.
    #[prost(uint64, tag = "1")]
    pub link: u64,
    /// Why, in words.
    #[prost(string, tag = "2")]
    pub text: String,
}

/// See [`FromDaemon::Stop`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Stop {
    /// Why, in words.
    #[prost(string, tag = "1")]
    pub by: String,
}

/// See [`ToDaemon::Over`].
#[derive(Clone, PartialEq, Message)]
pub struct Over {
    /// How the root ended.
    #[prost(message, optional, tag = "1")]
    pub exit: Option<ExitWord>,
    /// How many processes were started.
    #[prost(uint64, tag = "2")]
    pub processes: u64,
    /// Why the job could not be run.
    #[prost(string, tag = "3")]
    pub failed: String,
}
