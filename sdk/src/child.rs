//! Processes that were started, and how they end.

use std::{fmt, future::poll_fn, marker::PhantomData, task::Poll};

use channels::{Data, claiming, data, hub::Hub};
use protocol::{
    control::{FromProcess, Number},
    ending::{Cause, Ending, Exit, Usage},
    ids::ProcessId,
};

use crate::control::{Control, Finish, close_all};

/// A process that this one has started, whose entry returns an `R`.
///
/// Dropping it detaches it: the process goes on, and its result is thrown away.
#[must_use = "dropping a child detaches it; call `join` to learn how it ends"]
pub struct Child<R> {
    hub: &'static Hub,
    control: &'static Control,
    process: ProcessId,
    name: String,
    joined: bool,
    result: PhantomData<fn() -> R>,
}

impl<R> From<&Child<R>> for ProcessId {
    fn from(child: &Child<R>) -> ProcessId {
        child.process
    }
}

impl<R> Child<R> {
    pub(crate) fn new(
        hub: &'static Hub,
        control: &'static Control,
        process: ProcessId,
        name: String,
    ) -> Self {
        Child { hub, control, process, name, joined: false, result: PhantomData }
    }

    /// The process's id.
    pub fn id(&self) -> ProcessId {
        self.process
    }

    /// The process's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Kills the process. How it ended is told by [`join`](Self::join); killing one that has ended does nothing.
    pub fn kill(&self) {
        self.hub.tell(FromProcess::Kill(Number { number: self.process.0 }));
    }
}

impl<R: Data> Child<R> {
    /// Waits for the process to end, and gives what its entry returned.
    ///
    /// # Errors
    /// [`ExitError`] when it ended in any other way than by returning from its entry.
    ///
    /// # Cancel safety
    /// Dropping the future detaches the process. To wait for a while only, poll it by reference.
    pub async fn join(self) -> Result<R, ExitError> {
        self.outcome().await.value
    }

    /// As [`join`](Self::join), blocking the thread.
    ///
    /// # Errors
    /// As for [`join`](Self::join).
    pub fn join_blocking(self) -> Result<R, ExitError> {
        self.outcome_blocking().value
    }

    /// Waits for the process to end, and gives its record beside what it returned.
    pub async fn outcome(mut self) -> Outcome<R> {
        let finish = poll_fn(|context| {
            self.hub.drive();
            self.control.poll_exit(self.process, Some(context.waker()))
        });
        let finish = finish.await;
        self.take(finish)
    }

    /// As [`outcome`](Self::outcome), blocking the thread.
    pub fn outcome_blocking(mut self) -> Outcome<R> {
        let mut found = Poll::Pending;
        self.hub.wait_until(None, || {
            found = self.control.poll_exit(self.process, None);
            found.is_ready()
        });
        match found {
            Poll::Ready(finish) => self.take(finish),
            Poll::Pending => unreachable!("the wait has no deadline"),
        }
    }

    fn take(&mut self, finish: Finish) -> Outcome<R> {
        self.joined = true;
        let Finish { mut exit, result, ends } = finish;
        if exit.ending == Ending::Returned {
            let (value, unclaimed) = claiming(ends, || data::unpack::<R>(&result));
            close_all(self.hub, unclaimed);
            match value {
                Ok(value) => return Outcome { exit, value: Ok(value) },
                Err(error) => {
                    exit.ending = Ending::Failed { text: format!("its result did not arrive whole: {error}") }
                }
            }
        } else {
            close_all(self.hub, ends);
        }
        Outcome { exit: exit.clone(), value: Err(ExitError(Box::new(exit))) }
    }
}

impl<T, E> Child<Result<T, E>>
where
    Result<T, E>: Data,
    E: fmt::Display,
{
    /// As [`join`](Child::join), for an entry that returns a `Result` itself: its error becomes one of the ways in
    /// which a process can end, [`Ending::Failed`].
    ///
    /// # Errors
    /// [`ExitError`] when the process did not return, or returned an error.
    ///
    /// # Cancel safety
    /// As for [`join`](Child::join).
    pub async fn result(self) -> Result<T, ExitError> {
        self.outcome().await.flatten()
    }

    /// As [`result`](Self::result), blocking the thread.
    ///
    /// # Errors
    /// As for [`result`](Self::result).
    pub fn result_blocking(self) -> Result<T, ExitError> {
        self.outcome_blocking().flatten()
    }
}

impl<R> Drop for Child<R> {
    fn drop(&mut self) {
        if !self.joined {
            self.control.forget_exit(self.hub, self.process);
            self.hub.tell(FromProcess::Detach(Number { number: self.process.0 }));
        }
    }
}

impl<R> fmt::Debug for Child<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("process", &self.process).field("name", &self.name).finish()
    }
}

/// How a process ended, and what it returned.
#[derive(Debug)]
#[must_use]
pub struct Outcome<R> {
    /// The record of its end: how, what it used, the tail of its standard error.
    pub exit: Exit,
    /// What its entry returned.
    pub value: Result<R, ExitError>,
}

impl<T, E: fmt::Display> Outcome<Result<T, E>> {
    fn flatten(self) -> Result<T, ExitError> {
        self.value?.map_err(|error| {
            let ending = Ending::Failed { text: error.to_string() };
            ExitError(Box::new(Exit { ending, ..self.exit }))
        })
    }
}

/// A process ended otherwise than by returning from its entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExitError(Box<Exit>);

impl ExitError {
    /// Which process.
    pub fn process(&self) -> ProcessId {
        self.0.process
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How it ended.
    pub fn ending(&self) -> &Ending {
        &self.0.ending
    }

    /// What it used.
    pub fn usage(&self) -> &Usage {
        &self.0.usage
    }

    /// The last (up to 4 KiB) of what it wrote to its standard error.
    pub fn stderr_tail(&self) -> &str {
        &self.0.stderr_tail
    }

    /// The death that this one followed from, if there is one: the first of a cascade.
    pub fn cause(&self) -> Option<&Cause> {
        self.0.cause.as_ref()
    }

    /// The whole record.
    pub fn exit(&self) -> &Exit {
        &self.0
    }
}
