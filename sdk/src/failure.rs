//! Errors that travel, and errors that gather.

use std::{error::Error as StdError, fmt};

use crate::{AcceptError, ConnectError, ExitError, RecvError, SendError, SpawnError};

/// An error as a text, which can be the result of an entry: with it `?` works there.
///
/// It is made from any error, keeps the texts of its whole chain of sources, and is data.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Clone, PartialEq, Eq)]
pub struct Failure {
    text: String,
}

impl Failure {
    /// A failure with that text.
    pub fn new(text: impl Into<String>) -> Self {
        Failure { text: text.into() }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl<E: StdError> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        Failure { text }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Any error of this crate, for functions that do several things.
///
/// Its `Debug` is its text, so that `fn main() -> Result<(), archean::Error>` ends with a readable line.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A process was not started.
    #[error(transparent)]
    Spawn(crate::SpawnReason),
    /// A value was not sent.
    #[error(transparent)]
    Send(crate::Reason),
    /// Nothing was received.
    #[error(transparent)]
    Recv(RecvError),
    /// A process ended otherwise than by returning.
    #[error(transparent)]
    Exit(ExitError),
    /// A process was not connected to another.
    #[error(transparent)]
    Connect(ConnectError),
    /// No connection was accepted.
    #[error(transparent)]
    Accept(AcceptError),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<A> From<SpawnError<A>> for Error {
    fn from(error: SpawnError<A>) -> Self {
        Error::Spawn(error.reason)
    }
}

impl<T> From<SendError<T>> for Error {
    fn from(error: SendError<T>) -> Self {
        Error::Send(error.reason)
    }
}

impl From<RecvError> for Error {
    fn from(error: RecvError) -> Self {
        Error::Recv(error)
    }
}

impl From<ExitError> for Error {
    fn from(error: ExitError) -> Self {
        Error::Exit(error)
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Error::Connect(error)
    }
}

impl From<AcceptError> for Error {
    fn from(error: AcceptError) -> Self {
        Error::Accept(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_the_whole_chain() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::num::ParseIntError);
        let inner = "x".parse::<u8>().unwrap_err();
        assert_eq!(Failure::from(Outer(inner)).to_string(), "outer: invalid digit found in string");
    }
}
