//! The words by which two processes come to have channels that had none.

use prost::Message;

use super::CauseWord;

/// See [`FromProcess::Connect`](super::FromProcess::Connect).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Connect {
    /// Names the answer.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// The process that is to get the ends.
    #[prost(uint64, tag = "2")]
    pub process: u64,
    /// Its sender and its receiver, sixteen bytes each.
    #[prost(bytes = "vec", tag = "3")]
    pub ends: Vec<u8>,
    /// The capacity of the rings of both channels in bytes.
    #[prost(uint64, tag = "4")]
    pub capacity: u64,
}

/// See [`FromManager::Connected`](super::FromManager::Connected).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Connected {
    /// Names the connection.
    #[prost(uint64, tag = "1")]
    pub connection: u64,
    /// The process that wants it.
    #[prost(uint64, tag = "2")]
    pub process: u64,
    /// That process's name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// A sender and a receiver, sixteen bytes each.
    #[prost(bytes = "vec", tag = "4")]
    pub ends: Vec<u8>,
    /// The capacity of the rings of both channels in bytes.
    #[prost(uint64, tag = "5")]
    pub capacity: u64,
}

/// See [`FromManager::ConnectAnswer`](super::FromManager::ConnectAnswer).
#[derive(Clone, PartialEq, Message)]
pub struct ConnectAnswer {
    /// The request that this answers.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// Why there is no connection; absent when there is one.
    #[prost(message, optional, tag = "2")]
    pub refusal: Option<ConnectRefusal>,
}

/// Why there is no connection.
#[derive(Clone, PartialEq, Message)]
pub struct ConnectRefusal {
    /// The kind of reason.
    #[prost(enumeration = "ConnectFailure", tag = "1")]
    pub failure: i32,
    /// The reason in words.
    #[prost(string, tag = "2")]
    pub text: String,
    /// How the other process has ended.
    #[prost(message, optional, tag = "3")]
    pub ended: Option<CauseWord>,
}

/// The kinds of reasons why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConnectFailure {
    /// A reason that this version does not know.
    Unknown = 0,
    /// There is no such process.
    NoProcess = 1,
    /// The process has ended.
    Ended = 2,
    /// Too many wait already until that process accepts them.
    TooMany = 3,
    /// What was asked for makes no sense.
    Invalid = 4,
}
