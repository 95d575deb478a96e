//! What a process and its manager tell each other, over the socket that the process inherits.
//!
//! The words are protocol buffers, because their reader skips what it does not know: a program that was built with
//! an older SDK goes on working. They only ever gain fields. What arrives is checked when it is turned into the
//! types of [`ids`](crate::ids), [`resources`](crate::resources) and [`ending`](crate::ending).
//!
//! ```text
//!       ├── 4 bytes ──┼── 4 bytes ──┼── length bytes ──┤
//!       │   length    │ descriptors │ protocol buffer  │
//! ```
//!
//! Both numbers are little-endian. Descriptors go along with the first byte of their message.

mod connect;
mod convert;
mod framing;

pub use connect::{Connect, ConnectAnswer, ConnectFailure, ConnectRefusal, Connected};
pub use convert::Malformed;
pub use framing::{Framing, FramingError, PREFIX_BYTES, encode};

use prost::{Message, Oneof};

/// The descriptor on which a process finds its control socket.
pub const CONTROL_FD: i32 = 3;

/// The environment variable that says that there is one. It is taken away when the SDK initialises.
pub const CONTROL_VARIABLE: &str = "ARCHEAN_CONTROL";

/// Under a test harness, the descriptor of the real standard output: what the harness prints goes nowhere.
pub const HARNESS_STDOUT_FD: i32 = 4;

/// From a process to its manager.
#[derive(Clone, PartialEq, Message)]
pub struct ToManager {
    /// The word.
    #[prost(oneof = "FromProcess", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18")]
    pub word: Option<FromProcess>,
}

/// A word from a process.
#[derive(Clone, PartialEq, Oneof)]
pub enum FromProcess {
    /// `init` was reached.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// Start a process.
    #[prost(message, tag = "2")]
    Spawn(Spawn),
    /// The future of a spawn was dropped: end what was started, close the ends in its arguments.
    #[prost(message, tag = "3")]
    CancelSpawn(Number),
    /// Kill a process.
    #[prost(message, tag = "4")]
    Kill(Number),
    /// Nobody will ask how that process ends.
    #[prost(message, tag = "5")]
    Detach(Number),
    /// A channel was made.
    #[prost(message, tag = "6")]
    Declare(Declare),
    /// A sender was cloned.
    #[prost(message, tag = "7")]
    Clone(CloneSender),
    /// A sender is used for the first time, and writes that ring.
    #[prost(message, tag = "8")]
    OpenSender(OpenSender),
    /// A receiver is used for the first time.
    #[prost(message, tag = "9")]
    OpenReceiver(End),
    /// An end was dropped, or given up with a reason.
    #[prost(message, tag = "10")]
    Close(Close),
    /// Ends are about to be committed in a frame; said before they are.
    #[prost(message, tag = "11")]
    Transfer(Ends),
    /// Ends were taken out of a frame.
    #[prost(message, tag = "12")]
    Adopt(Ends),
    /// A frame was dropped unread, with the ends in it.
    #[prost(message, tag = "13")]
    Discard(Ends),
    /// A ring is wanted.
    #[prost(message, tag = "14")]
    NeedRing(NeedRing),
    /// A panic has begun; said before anything else can go wrong.
    #[prost(message, tag = "15")]
    LastWords(LastWords),
    /// The entry returned.
    #[prost(message, tag = "16")]
    Finished(Finished),
    /// Give another process the far ends of two channels.
    #[prost(message, tag = "17")]
    Connect(Connect),
    /// A connection was accepted: its ends are this process's.
    #[prost(message, tag = "18")]
    Accept(Number),
}

/// From a manager to a process.
#[derive(Clone, PartialEq, Message)]
pub struct ToProcess {
    /// The word.
    #[prost(oneof = "FromManager", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
    pub word: Option<FromManager>,
}

/// A word from a manager.
#[derive(Clone, PartialEq, Oneof)]
pub enum FromManager {
    /// Who the process is and what it does. With the doorbell's file, the events file and the
    /// counters file.
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    /// A ring that is not used yet. With its data file (writable) and its consumer file (read-only).
    #[prost(message, tag = "2")]
    Ring(Ring),
    /// A sender has opened its ring. With the data file (read-only), the consumer file (writable) and the
    /// sender's doorbell.
    #[prost(message, tag = "3")]
    Incoming(Incoming),
    /// The receiver of a sender's ring is there. With its doorbell.
    #[prost(message, tag = "4")]
    Paired(Paired),
    /// A sender is no more.
    #[prost(message, tag = "5")]
    SenderOver(SenderOver),
    /// The receiver is no more.
    #[prost(message, tag = "6")]
    ReceiverOver(ReceiverOver),
    /// A process was started.
    #[prost(message, tag = "7")]
    Spawned(Spawned),
    /// A process was not started.
    #[prost(message, tag = "8")]
    NotSpawned(NotSpawned),
    /// A child has ended.
    #[prost(message, tag = "9")]
    Ended(Ended),
    /// The receiver of a sender's ring is there, on another machine. With the connected socket and the ring's consumer
    /// file (writable).
    #[prost(message, tag = "10")]
    LinkedSender(LinkedSender),
    /// A sender on another machine has opened its ring. With the connected socket, and the data file (writable) and the
    /// consumer file (writable) of a ring for what arrives.
    #[prost(message, tag = "11")]
    LinkedReceiver(LinkedReceiver),
    /// Another process wants a connection. Its ends are this process's when it says that it has accepted it.
    #[prost(message, tag = "12")]
    Connected(Connected),
    /// Whether the other process was told of a connection.
    #[prost(message, tag = "13")]
    ConnectAnswer(ConnectAnswer),
}

/// A number: of a request, a process, a capacity.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Number {
    /// The number.
    #[prost(uint64, tag = "1")]
    pub number: u64,
}

/// See [`FromProcess::Hello`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Hello {
    /// The version of the words.
    #[prost(uint32, tag = "1")]
    pub version: u32,
}

/// See [`FromProcess::Spawn`].
#[derive(Clone, PartialEq, Message)]
pub struct Spawn {
    /// Names the answer.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// How many processes the parent had asked for before.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// Where the entry is in the image.
    #[prost(uint64, tag = "3")]
    pub entry: u64,
    /// The arguments, archived.
    #[prost(bytes = "vec", tag = "4")]
    pub argument: Vec<u8>,
    /// The ends in the arguments, sixteen bytes each.
    #[prost(bytes = "vec", tag = "5")]
    pub ends: Vec<u8>,
    /// The process's name.
    #[prost(string, tag = "6")]
    pub name: String,
    /// Shares of cores.
    #[prost(uint64, tag = "7")]
    pub cores_shares: u64,
    /// Bytes of memory.
    #[prost(uint64, tag = "8")]
    pub memory_bytes: u64,
    /// Its environment.
    #[prost(message, repeated, tag = "9")]
    pub env: Vec<Variable>,
    /// How long it may wait to be placed.
    #[prost(uint64, optional, tag = "10")]
    pub deadline_ns: Option<u64>,
    /// How long it may run.
    #[prost(uint64, optional, tag = "11")]
    pub time_limit_ns: Option<u64>,
    /// What its program is called with, the program's own name left out; for a test harness.
    #[prost(string, repeated, tag = "12")]
    pub harness: Vec<String>,
    /// A process on whose machine it has to be.
    #[prost(uint64, optional, tag = "13")]
    pub near: Option<u64>,
    /// A process on whose machine it must not be.
    #[prost(uint64, optional, tag = "14")]
    pub apart_from: Option<u64>,
}

/// A variable of the environment. Its parts need not be text.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Variable {
    /// Its name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// Its value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// One end of a channel.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct End {
    /// Which.
    #[prost(bytes = "vec", tag = "1")]
    pub end: Vec<u8>,
}

/// See [`FromProcess::Declare`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Declare {
    /// The channel's receiver.
    #[prost(bytes = "vec", tag = "1")]
    pub receiver: Vec<u8>,
    /// Its first sender.
    #[prost(bytes = "vec", tag = "2")]
    pub sender: Vec<u8>,
    /// The capacity of its rings in bytes.
    #[prost(uint64, tag = "3")]
    pub capacity: u64,
}

/// See [`FromProcess::Clone`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CloneSender {
    /// The sender that was there.
    #[prost(bytes = "vec", tag = "1")]
    pub sender: Vec<u8>,
    /// The sender that is new.
    #[prost(bytes = "vec", tag = "2")]
    pub clone: Vec<u8>,
}

/// See [`FromProcess::OpenSender`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OpenSender {
    /// The sender.
    #[prost(bytes = "vec", tag = "1")]
    pub sender: Vec<u8>,
    /// The ring that it writes.
    #[prost(uint64, tag = "2")]
    pub ring: u64,
}

/// See [`FromProcess::NeedRing`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NeedRing {
    /// The sender that will write it; told as over if there can be none.
    #[prost(bytes = "vec", tag = "1")]
    pub sender: Vec<u8>,
    /// Its capacity in bytes.
    #[prost(uint64, tag = "2")]
    pub capacity: u64,
}

/// See [`FromProcess::Close`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Close {
    /// The end.
    #[prost(bytes = "vec", tag = "1")]
    pub end: Vec<u8>,
    /// Why it was given up; absent when it was dropped in good order.
    #[prost(string, optional, tag = "2")]
    pub reason: Option<String>,
}

/// See [`FromProcess::Transfer`], [`FromProcess::Adopt`], [`FromProcess::Discard`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ends {
    /// The sender whose frame holds the ends; empty for ends in an argument or a result.
    #[prost(bytes = "vec", tag = "1")]
    pub via: Vec<u8>,
    /// The ends, sixteen bytes each.
    #[prost(bytes = "vec", tag = "2")]
    pub ends: Vec<u8>,
}

/// See [`FromProcess::LastWords`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LastWords {
    /// The panic's message.
    #[prost(string, tag = "1")]
    pub message: String,
    /// Its file, line and column.
    #[prost(string, tag = "2")]
    pub location: String,
}

/// See [`FromProcess::Finished`].
#[derive(Clone, PartialEq, Message)]
pub struct Finished {
    /// How.
    #[prost(message, optional, tag = "1")]
    pub ending: Option<EndingWord>,
    /// The result, archived.
    #[prost(bytes = "vec", tag = "2")]
    pub result: Vec<u8>,
    /// The ends in the result, sixteen bytes each.
    #[prost(bytes = "vec", tag = "3")]
    pub ends: Vec<u8>,
}

/// See [`FromManager::Welcome`].
#[derive(Clone, PartialEq, Message)]
pub struct Welcome {
    /// The process's id.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// Its parent's id; absent for the root of a job.
    #[prost(uint64, optional, tag = "2")]
    pub parent: Option<u64>,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Where its entry is in the image; absent for the root of a job.
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
    /// Its slot in the events file, and how many slots the file has.
    #[prost(uint32, tag = "8")]
    pub event_slot: u32,
    /// See [`event_slot`](Self::event_slot).
    #[prost(uint32, tag = "9")]
    pub event_slots: u32,
    /// The machine that it is on.
    #[prost(uint32, tag = "13")]
    pub machine: u32,
    /// What the slot's word is before the process was sent anything else than this.
    #[prost(uint32, tag = "10")]
    pub event_count: u32,
    /// It runs under a test harness: its real standard output is [`HARNESS_STDOUT_FD`].
    #[prost(bool, tag = "11")]
    pub harness: bool,
    /// Processes of the job may be on several machines: then a sender's word that it has a link has to be heard also
    /// while the program is busy.
    #[prost(bool, tag = "12")]
    pub links: bool,
}

/// See [`FromManager::Ring`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ring {
    /// Names the ring.
    #[prost(uint64, tag = "1")]
    pub ring: u64,
    /// Its capacity in bytes.
    #[prost(uint64, tag = "2")]
    pub capacity: u64,
    /// The sender that it is meant for; empty for a ring that any sender may write.
    #[prost(bytes = "vec", tag = "3")]
    pub sender: Vec<u8>,
    /// That sender has asked for it, so it is in use, or was closed meanwhile.
    #[prost(bool, tag = "4")]
    pub asked: bool,
}

/// See [`FromManager::Incoming`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Incoming {
    /// The receiver that it is for.
    #[prost(bytes = "vec", tag = "1")]
    pub receiver: Vec<u8>,
    /// The sender.
    #[prost(bytes = "vec", tag = "2")]
    pub sender: Vec<u8>,
    /// Its ring's capacity in bytes.
    #[prost(uint64, tag = "3")]
    pub capacity: u64,
    /// The process that holds the sender.
    #[prost(uint64, tag = "4")]
    pub process: u64,
}

/// See [`FromManager::Paired`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Paired {
    /// The sender that is told.
    #[prost(bytes = "vec", tag = "1")]
    pub sender: Vec<u8>,
    /// The process that holds the receiver.
    #[prost(uint64, tag = "2")]
    pub process: u64,
}

/// How a link's frames travel.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LinkKeys {
    /// The key of what goes to the receiver, 32 bytes; empty when frames travel as they are.
    #[prost(bytes = "vec", tag = "1")]
    pub frames: Vec<u8>,
    /// The key of what goes to the sender.
    #[prost(bytes = "vec", tag = "2")]
    pub credits: Vec<u8>,
}

/// See [`FromManager::LinkedSender`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LinkedSender {
    /// The sender that is told.
    #[prost(bytes = "vec", tag = "1")]
    pub sender: Vec<u8>,
    /// The process that holds the receiver.
    #[prost(uint64, tag = "2")]
    pub process: u64,
    /// The sender's ring.
    #[prost(uint64, tag = "3")]
    pub ring: u64,
    /// The ring's capacity in bytes.
    #[prost(uint64, tag = "4")]
    pub capacity: u64,
    /// How frames travel.
    #[prost(message, optional, tag = "5")]
    pub keys: Option<LinkKeys>,
}

/// See [`FromManager::LinkedReceiver`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LinkedReceiver {
    /// The receiver that it is for.
    #[prost(bytes = "vec", tag = "1")]
    pub receiver: Vec<u8>,
    /// The sender.
    #[prost(bytes = "vec", tag = "2")]
    pub sender: Vec<u8>,
    /// The ring's capacity in bytes, as large as the sender's.
    #[prost(uint64, tag = "3")]
    pub capacity: u64,
    /// The process that holds the sender.
    #[prost(uint64, tag = "4")]
    pub process: u64,
    /// How frames travel.
    #[prost(message, optional, tag = "5")]
    pub keys: Option<LinkKeys>,
}

/// See [`FromManager::SenderOver`].
#[derive(Clone, PartialEq, Message)]
pub struct SenderOver {
    /// The receiver that is told.
    #[prost(bytes = "vec", tag = "1")]
    pub receiver: Vec<u8>,
    /// The sender that is no more.
    #[prost(bytes = "vec", tag = "2")]
    pub sender: Vec<u8>,
    /// How that came.
    #[prost(message, optional, tag = "3")]
    pub over: Option<OverWord>,
    /// It was the channel's last.
    #[prost(bool, tag = "4")]
    pub last: bool,
    /// Its machine, or the way to it, is lost: what it had sent may not have arrived, and is not waited for.
    #[prost(bool, tag = "5")]
    pub lost: bool,
}

/// See [`FromManager::ReceiverOver`].
#[derive(Clone, PartialEq, Message)]
pub struct ReceiverOver {
    /// The sender that is told.
    #[prost(bytes = "vec", tag = "1")]
    pub sender: Vec<u8>,
    /// How that came.
    #[prost(message, optional, tag = "2")]
    pub over: Option<OverWord>,
}

/// See [`FromManager::Spawned`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Spawned {
    /// The request that this answers.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// The new process.
    #[prost(uint64, tag = "2")]
    pub process: u64,
}

/// See [`FromManager::NotSpawned`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NotSpawned {
    /// The request that this answers.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// The kind of reason.
    #[prost(enumeration = "SpawnFailure", tag = "2")]
    pub failure: i32,
    /// The reason in words.
    #[prost(string, tag = "3")]
    pub text: String,
}

/// Why a process was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SpawnFailure {
    /// A reason that this version does not know.
    Unknown = 0,
    /// No machine could ever hold it.
    NeverFits = 1,
    /// It waited until its deadline.
    Deadline = 2,
    /// The operating system did not start it.
    Launch = 3,
    /// What was asked for makes no sense.
    Invalid = 4,
    /// The job is ending.
    Stopping = 5,
}

/// See [`FromManager::Ended`].
#[derive(Clone, PartialEq, Message)]
pub struct Ended {
    /// The record.
    #[prost(message, optional, tag = "1")]
    pub exit: Option<ExitWord>,
    /// The result, archived, of a process that returned.
    #[prost(bytes = "vec", tag = "2")]
    pub result: Vec<u8>,
    /// The ends in the result, sixteen bytes each.
    #[prost(bytes = "vec", tag = "3")]
    pub ends: Vec<u8>,
}

/// [`ending::Exit`](crate::ending::Exit) as a word.
#[derive(Clone, PartialEq, Message)]
pub struct ExitWord {
    /// Whose end.
    #[prost(message, optional, tag = "1")]
    pub who: Option<CauseWord>,
    /// Wall time.
    #[prost(uint64, tag = "2")]
    pub wall_ns: u64,
    /// Processor time in its own code.
    #[prost(uint64, tag = "3")]
    pub user_ns: u64,
    /// Processor time in the kernel.
    #[prost(uint64, tag = "4")]
    pub system_ns: u64,
    /// The most memory held at once.
    #[prost(uint64, tag = "5")]
    pub memory_max_bytes: u64,
    /// The tail of standard error.
    #[prost(string, tag = "6")]
    pub stderr_tail: String,
    /// The first cause.
    #[prost(message, optional, tag = "7")]
    pub cause: Option<CauseWord>,
}

/// [`ending::Cause`](crate::ending::Cause) as a word.
#[derive(Clone, PartialEq, Message)]
pub struct CauseWord {
    /// Who.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// How it ended.
    #[prost(message, optional, tag = "3")]
    pub ending: Option<EndingWord>,
}

/// [`ending::Ending`](crate::ending::Ending) as a word.
#[derive(Clone, PartialEq, Message)]
pub struct EndingWord {
    /// Which.
    #[prost(enumeration = "EndingKind", tag = "1")]
    pub kind: i32,
    /// A code, a signal.
    #[prost(int64, tag = "2")]
    pub number: i64,
    /// A limit of time.
    #[prost(uint64, tag = "3")]
    pub limit_ns: u64,
    /// A message, a reason, a name.
    #[prost(string, tag = "4")]
    pub text: String,
    /// Where a panic was.
    #[prost(string, tag = "5")]
    pub location: String,
    /// A core was dumped.
    #[prost(bool, tag = "6")]
    pub core: bool,
}

/// The kinds of [`ending::Ending`](crate::ending::Ending).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EndingKind {
    /// A kind that this version does not know.
    Unknown = 0,
    /// Returned.
    Returned = 1,
    /// Exited.
    Exited = 2,
    /// Failed.
    Failed = 3,
    /// Panicked.
    Panicked = 4,
    /// Signalled.
    Signalled = 5,
    /// Timed out.
    TimedOut = 6,
    /// Killed.
    Killed = 7,
    /// Lost with its machine.
    MachineLost = 8,
}

/// [`ending::Over`](crate::ending::Over) as a word.
#[derive(Clone, PartialEq, Message)]
pub struct OverWord {
    /// The reason of a reset.
    #[prost(string, optional, tag = "1")]
    pub reason: Option<String>,
    /// The death.
    #[prost(message, optional, tag = "2")]
    pub died: Option<CauseWord>,
}
