//! What can go wrong with a send, and with a receive.

use std::fmt;

use protocol::ending::{Cause, Over};

/// A value that was not sent, and why. The value is whole, with the ends in it.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SendError<T> {
    /// The value.
    pub value: T,
    /// Why it was not sent.
    pub reason: Reason,
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// Why a value was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The receiver was dropped.
    #[error("the receiver was dropped")]
    Closed,
    /// The receiver was given up, with a reason.
    #[error("the receiver was reset: {0}")]
    Reset(String),
    /// The process that held the receiver ended.
    #[error("the receiver died: {0}")]
    PeerDied(Cause),
    /// There is no room now (`try_send` only).
    #[error("the channel is full")]
    Full,
    /// There was no room until the time was over.
    #[error("the channel was full until the time was over")]
    TimedOut,
    /// The message is larger than the channel.
    #[error("a message of {bytes} bytes is over the limit of {limit}; {}", remedy(*limit))]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// What the channel can carry at most.
        limit: usize,
    },
    /// The message holds more ends than a message may.
    #[error("a message with {ends} channel ends is over the limit of {limit}")]
    TooManyEnds {
        /// What it holds.
        ends: usize,
        /// What it may hold.
        limit: usize,
    },
    /// An end in the message can't move.
    #[error("an end in the message can't move: {0}")]
    End(Refused),
    /// This end can't be used.
    #[error("this sender can't be used: {0}")]
    ThisEnd(Refused),
    /// The value's own `Serialize` failed.
    #[error("the value can't be serialised: {0}")]
    Serialise(String),
    /// The peer, or the operating system, did what it must not.
    #[error("the channel is broken: {0}")]
    Broken(String),
}

/// What helps against a message that is too large.
fn remedy(limit: usize) -> &'static str {
    if limit < protocol::limits::MESSAGE_BYTES_MAX {
        "let `send` send it in parts, make the channel with `channel_with_capacity`, or send smaller values"
    } else {
        "send smaller values"
    }
}

impl From<&Over> for Reason {
    fn from(over: &Over) -> Self {
        match over {
            Over::Closed => Reason::Closed,
            Over::Reset { reason } => Reason::Reset(reason.clone()),
            Over::Died(cause) => Reason::PeerDied(cause.clone()),
        }
    }
}

/// Why nothing was received. What had been sent before was received before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// Every sender was dropped, and all that they had sent was received.
    #[error("every sender was dropped")]
    Closed,
    /// A sender was given up, with a reason.
    #[error("the sender was reset: {0}")]
    Reset(String),
    /// The process that held a sender ended.
    #[error("the sender died: {0}")]
    PeerDied(Cause),
    /// Nothing came until the time was over.
    #[error("nothing came until the time was over")]
    TimedOut,
    /// This receiver was too slow for a [`Broadcast`](crate::Broadcast) that waits for nobody. Messages go on after
    /// this.
    #[error("{messages} messages were left out here, because this receiver was too slow")]
    Missed {
        /// How many.
        messages: u64,
    },
    /// The sender sends another type.
    #[error("this receiver expects `{expected}`, but the sender sends `{found}`")]
    WrongType {
        /// The receiver's type.
        expected: String,
        /// The sender's type.
        found: String,
    },
    /// A message is not what its type says.
    #[error("a message is no valid `{expected}`: {detail}")]
    Malformed {
        /// The receiver's type.
        expected: String,
        /// What is wrong.
        detail: String,
    },
    /// This end can't be used.
    #[error("this receiver can't be used: {0}")]
    ThisEnd(Refused),
    /// The peer, or the operating system, did what it must not.
    #[error("the channel is broken: {0}")]
    Broken(String),
}

impl From<Over> for RecvError {
    fn from(over: Over) -> Self {
        match over {
            Over::Closed => RecvError::Closed,
            Over::Reset { reason } => RecvError::Reset(reason),
            Over::Died(cause) => RecvError::PeerDied(cause),
        }
    }
}

/// Why an end can't be used, or can't move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It was used here, so it stays here.
    #[error("it was used in this process, and an end that was used stays where it is")]
    InUse,
    /// It has moved to another process.
    #[error("it has moved away")]
    Moved,
    /// It was copied out of a message by other means than `into_owned` or `recv_owned`.
    #[error("it was not taken out of its message by `into_owned` or `recv_owned`")]
    NotClaimed,
    /// There is nobody to connect it.
    #[error("the process is not part of a job: call `archean::init()` first, or use `#[archean::main]`")]
    NotInitialised,
}
