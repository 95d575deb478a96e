//! What the scheduler, the managers and the clients of a cluster tell each other, over connections that know who is
//! at the other end.
//!
//! * A manager and the scheduler: [`ToScheduler`], [`FromScheduler`].
//! * A client and the scheduler: the same, of which each may say its part.
//! * A manager and another: [`ToPeer`], on a connection of the one that speaks.
//! * A client and the manager of its job: [`FromClient`], [`ToClient`].

use prost::{Message, Oneof};

use crate::{
    agent::{Expecting, Printed, ToAgent, ToHome},
    cluster::{Certified, Heartbeat, Renew, Revocations},
    runner::{Over, Placed, Refused, Spec, Stop, Want},
};

/// To the scheduler.
#[derive(Clone, PartialEq, Message)]
pub struct ToScheduler {
    /// The word.
    #[prost(oneof = "Asked", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub word: Option<Asked>,
}

/// A word to the scheduler.
#[derive(Clone, PartialEq, Oneof)]
pub enum Asked {
    /// A manager: this machine is there.
    #[prost(message, tag = "1")]
    Join(Join),
    /// A manager: this runs here already. Said right after [`Asked::Join`].
    #[prost(message, tag = "2")]
    Runs(Runs),
    /// A manager: all that runs was said.
    #[prost(message, tag = "3")]
    Joined(Joined),
    /// A manager: a process of a job that has its home here is to be placed.
    #[prost(message, tag = "4")]
    Want(JobWant),
    /// A manager: a process is not wanted any more.
    #[prost(message, tag = "5")]
    Withdraw(JobProcess),
    /// A manager: a process has ended.
    #[prost(message, tag = "6")]
    Gone(JobProcess),
    /// A client: a job is to be started.
    #[prost(message, tag = "7")]
    Submit(Submit),
    /// A client: which machines and jobs are there.
    #[prost(message, tag = "8")]
    Status(Status),
    /// A sign of life.
    #[prost(message, tag = "9")]
    Heartbeat(Heartbeat),
    /// A new certificate is wanted.
    #[prost(message, tag = "10")]
    Renew(Renew),
}

/// From the scheduler.
#[derive(Clone, PartialEq, Message)]
pub struct FromScheduler {
    /// The word.
    #[prost(oneof = "Answered", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub word: Option<Answered>,
}

/// A word from the scheduler.
#[derive(Clone, PartialEq, Oneof)]
pub enum Answered {
    /// To a manager: it has joined, under this number.
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    /// To a manager: a process is placed.
    #[prost(message, tag = "2")]
    Placed(JobPlaced),
    /// To a manager: a process is refused.
    #[prost(message, tag = "3")]
    Refused(JobRefused),
    /// To a manager: a job will have its home there.
    #[prost(message, tag = "4")]
    Host(Host),
    /// To a manager: all machines; takes the place of what was said before.
    #[prost(message, tag = "5")]
    Machines(Machines),
    /// To a client: where its job's home is.
    #[prost(message, tag = "6")]
    Accepted(Accepted),
    /// To a client: why there is no job, or no answer.
    #[prost(message, tag = "7")]
    Denied(Denied),
    /// The sign of life that was sent.
    #[prost(message, tag = "8")]
    Heartbeat(Heartbeat),
    /// The new certificate.
    #[prost(message, tag = "9")]
    Certified(Certified),
    /// Which certificates count no longer.
    #[prost(message, tag = "10")]
    Revocations(Revocations),
}

/// See [`Asked::Join`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Join {
    /// The number that it had, if it has been here before.
    #[prost(uint32, optional, tag = "1")]
    pub machine: Option<u32>,
    /// Where it listens.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Shares of cores.
    #[prost(uint64, tag = "3")]
    pub cores_shares: u64,
    /// Bytes of memory.
    #[prost(uint64, tag = "4")]
    pub memory_bytes: u64,
    /// How many processes it may hold.
    #[prost(uint32, tag = "5")]
    pub processes: u32,
}

/// See [`Asked::Joined`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Joined {}

/// See [`Asked::Status`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Status {}

/// A process of a job that runs.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Runs {
    /// The job.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// The process; zero for the root.
    #[prost(uint64, tag = "2")]
    pub process: u64,
    /// Shares of cores.
    #[prost(uint64, tag = "3")]
    pub cores_shares: u64,
    /// Bytes of memory.
    #[prost(uint64, tag = "4")]
    pub memory_bytes: u64,
    /// Its machine.
    #[prost(uint32, tag = "5")]
    pub machine: u32,
}

/// A process of a job.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct JobProcess {
    /// The job.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// The process; zero for the root.
    #[prost(uint64, tag = "2")]
    pub process: u64,
}

/// See [`Asked::Want`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct JobWant {
    /// The job.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// What is wanted.
    #[prost(message, optional, tag = "2")]
    pub want: Option<Want>,
}

/// See [`Asked::Submit`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Submit {
    /// The program's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Shares of cores that the root asks for.
    #[prost(uint64, tag = "2")]
    pub cores_shares: u64,
    /// Bytes of memory that the root asks for.
    #[prost(uint64, tag = "3")]
    pub memory_bytes: u64,
}

/// See [`Answered::Welcome`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Welcome {
    /// The machine's number.
    #[prost(uint32, tag = "1")]
    pub machine: u32,
}

/// See [`Answered::Placed`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct JobPlaced {
    /// The job.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// What was placed, and where.
    #[prost(message, optional, tag = "2")]
    pub placed: Option<Placed>,
}

/// See [`Answered::Refused`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct JobRefused {
    /// The job.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// What was refused, and why.
    #[prost(message, optional, tag = "2")]
    pub refused: Option<Refused>,
}

/// See [`Answered::Host`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Host {
    /// The job.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// Who may start it: the name in the client's certificate.
    #[prost(string, tag = "2")]
    pub principal: String,
    /// Shares of cores that are reserved for the root.
    #[prost(uint64, tag = "3")]
    pub cores_shares: u64,
    /// Bytes of memory that are reserved for the root.
    #[prost(uint64, tag = "4")]
    pub memory_bytes: u64,
}

/// A machine of the cluster.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Machine {
    /// Its number.
    #[prost(uint32, tag = "1")]
    pub machine: u32,
    /// Its name, as its certificate has it.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where it listens.
    #[prost(string, tag = "3")]
    pub address: String,
}

/// See [`Answered::Machines`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Machines {
    /// All that have joined.
    #[prost(message, repeated, tag = "1")]
    pub machines: Vec<Machine>,
}

/// See [`Answered::Accepted`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Accepted {
    /// The job.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// The machine of its home.
    #[prost(message, optional, tag = "2")]
    pub machine: Option<Machine>,
}

/// Something is not done.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Denied {
    /// Why, in words.
    #[prost(string, tag = "1")]
    pub text: String,
}

/// From a manager to another.
#[derive(Clone, PartialEq, Message)]
pub struct ToPeer {
    /// The word.
    #[prost(oneof = "PeerSaid", tags = "1, 2, 3, 4, 5")]
    pub word: Option<PeerSaid>,
}

/// A word from a manager to another.
#[derive(Clone, PartialEq, Oneof)]
pub enum PeerSaid {
    /// To the agent of a job.
    #[prost(message, tag = "1")]
    ToAgent(JobToAgent),
    /// To the home of a job.
    #[prost(message, tag = "2")]
    ToHome(JobToHome),
    /// Dial, and send an image.
    #[prost(message, tag = "3")]
    SendImage(SendImage),
    /// The part of a job there is no more, unasked.
    #[prost(message, tag = "4")]
    Broken(Broken),
    /// A sign of life, which is sent back.
    #[prost(message, tag = "5")]
    Heartbeat(Heartbeat),
}

/// See [`PeerSaid::ToAgent`].
#[derive(Clone, PartialEq, Message)]
pub struct JobToAgent {
    /// The job.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// What its agent is told.
    #[prost(message, optional, tag = "2")]
    pub word: Option<ToAgent>,
}

/// See [`PeerSaid::ToHome`].
#[derive(Clone, PartialEq, Message)]
pub struct JobToHome {
    /// The job.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// What its home is told.
    #[prost(message, optional, tag = "2")]
    pub word: Option<ToHome>,
}

/// See [`PeerSaid::SendImage`] and [`Told::SendImage`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SendImage {
    /// The image.
    #[prost(bytes = "vec", tag = "1")]
    pub image: Vec<u8>,
    /// The link that is expected.
    #[prost(message, optional, tag = "2")]
    pub expecting: Option<Expecting>,
    /// It is sealed.
    #[prost(bool, tag = "3")]
    pub is_sealed: bool,
}

/// See [`PeerSaid::Broken`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Broken {
    /// The job.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// Why, in words.
    #[prost(string, tag = "2")]
    pub why: String,
}

/// From a client to the manager of its job.
#[derive(Clone, PartialEq, Message)]
pub struct FromClient {
    /// The word.
    #[prost(oneof = "ClientSaid", tags = "1, 2, 3")]
    pub word: Option<ClientSaid>,
}

/// A word from a client.
#[derive(Clone, PartialEq, Oneof)]
pub enum ClientSaid {
    /// The first: start the job.
    #[prost(message, tag = "1")]
    Start(StartJob),
    /// End the job.
    #[prost(message, tag = "2")]
    Stop(Stop),
    /// A sign of life, which is sent back.
    #[prost(message, tag = "3")]
    Heartbeat(Heartbeat),
}

/// See [`ClientSaid::Start`].
#[derive(Clone, PartialEq, Message)]
pub struct StartJob {
    /// The job, as the scheduler has accepted it.
    #[prost(uint64, tag = "1")]
    pub job: u64,
    /// Its image.
    #[prost(bytes = "vec", tag = "2")]
    pub image: Vec<u8>,
    /// What to run.
    #[prost(message, optional, tag = "3")]
    pub spec: Option<Spec>,
}

/// From the manager of a job to its client.
#[derive(Clone, PartialEq, Message)]
pub struct ToClient {
    /// The word.
    #[prost(oneof = "Told", tags = "1, 2, 3, 4, 5")]
    pub word: Option<Told>,
}

/// A word to a client.
#[derive(Clone, PartialEq, Oneof)]
pub enum Told {
    /// Dial, and send the image.
    #[prost(message, tag = "1")]
    SendImage(SendImage),
    /// The job has printed something.
    #[prost(message, tag = "2")]
    Printed(Printed),
    /// The job is over.
    #[prost(message, tag = "3")]
    Over(Box<Over>),
    /// There is no job.
    #[prost(message, tag = "4")]
    Denied(Denied),
    /// The sign of life that was sent.
    #[prost(message, tag = "5")]
    Heartbeat(Heartbeat),
}
