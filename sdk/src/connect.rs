//! Channels between two processes that had none: one connects, the other accepts.

mod offers;

pub(crate) use offers::Offers;

use std::{
    future::poll_fn,
    marker::PhantomData,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use channels::{Data, Receiver, Sender, UntypedReceiver, UntypedSender, hub::Hub, untyped_channel};
use protocol::{
    control::{self, ConnectFailure, ConnectRefusal, FromProcess},
    ending::Cause,
    ids::{EndId, ProcessId},
    limits::RING_BYTES_DEFAULT,
};

use crate::{control::Control, time};
use offers::Ticket;

/// Connects to another process of the job, which [accepts](accept) it: makes a channel each way.
///
/// It is a builder: nothing happens until it is awaited, or [`start_blocking`](Connect::start_blocking) is called. It
/// is done when the other process was told; what is sent before it accepts waits for it. When it ends without
/// accepting, both ends hear so. A process learns the id of another from [`Child::id`](crate::Child::id),
/// [`me`](crate::me), or a message.
///
/// ```no_run
/// # async fn example() -> Result<(), archean::Error> {
/// async fn double() -> Result<(), archean::Failure> {
///     let connection = archean::accept().await?;
///     let (mut answers, mut questions) = connection.typed::<u64, u32>();
///     while let Ok(number) = questions.recv_owned().await {
///         answers.send(2 * u64::from(number)).await?;
///     }
///     Ok(())
/// }
/// let child = archean::spawn(double, ()).await?;
/// let (mut questions, mut answers) = archean::connect::<u32, u64>(child.id()).await?;
/// questions.send(21).await?;
/// assert_eq!(answers.recv_owned().await?, 42);
/// # Ok(())
/// # }
/// ```
pub fn connect<Out: Data, In: Data>(process: ProcessId) -> Connect<Out, In> {
    Connect { process, capacity: RING_BYTES_DEFAULT, deadline: None, types: PhantomData }
}

/// A connection that is to be made; see [`connect`].
#[must_use = "a connection is not made until it is awaited"]
#[derive(Debug)]
pub struct Connect<Out, In> {
    process: ProcessId,
    capacity: usize,
    deadline: Option<Duration>,
    types: PhantomData<fn() -> (Out, In)>,
}

impl<Out: Data, In: Data> Connect<Out, In> {
    /// The capacity of both channels, as for [`channel_with_capacity`](crate::channel_with_capacity).
    pub fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self
    }

    /// How long it may take until it is known that the other process was told.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Makes the connection, blocking the thread.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn start_blocking(self) -> Result<(Sender<Out>, Receiver<In>), ConnectError> {
        let deadline = end_of(self.deadline);
        let asked = Asked::ask(&self)?;
        let mut answer = Poll::Pending;
        asked.hub.wait_until(deadline, || {
            answer = asked.control.poll_connect(asked.request, None);
            answer.is_ready()
        });
        match answer {
            Poll::Ready(refusal) => asked.finish(refusal),
            Poll::Pending => Err(ConnectError::TimedOut(self.process)),
        }
    }
}

impl<Out: Data, In: Data> IntoFuture for Connect<Out, In> {
    type Output = Result<(Sender<Out>, Receiver<In>), ConnectError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Makes the connection.
    ///
    /// # Cancel safety
    /// Dropping the future before it completes closes the ends. If the other process was told already, it may accept
    /// the connection, and then finds it closed.
    fn into_future(self) -> Self::IntoFuture {
        let (process, deadline) = (self.process, self.deadline);
        let connected = async move {
            let asked = Asked::ask(&self)?;
            let answer = poll_fn(|context| {
                asked.hub.drive();
                asked.control.poll_connect(asked.request, Some(context.waker()))
            });
            let answer = answer.await;
            asked.finish(answer)
        };
        Box::pin(
            async move { within(deadline, connected).await.unwrap_or(Err(ConnectError::TimedOut(process))) },
        )
    }
}

/// A connection that the manager was asked for and has not answered. When it is dropped, all ends are closed that are
/// this process's then.
struct Asked {
    hub: &'static Hub,
    control: &'static Control,
    process: ProcessId,
    request: u64,
    near: Option<(UntypedSender, UntypedReceiver)>,
    far: (UntypedSender, UntypedReceiver),
}

impl Asked {
    fn ask<Out: Data, In: Data>(connect: &Connect<Out, In>) -> Result<Asked, ConnectError> {
        let (Some(hub), Some(control)) = (Hub::get(), Control::get()) else {
            return Err(ConnectError::NotInitialised);
        };
        let (near_sender, far_receiver) = untyped_channel(connect.capacity);
        let (far_sender, near_receiver) = untyped_channel(connect.capacity);
        let request = control.next_connect();
        hub.tell(FromProcess::Connect(control::Connect {
            request,
            process: connect.process.0,
            ends: EndId::list_to_word(&[far_sender.id(), far_receiver.id()]),
            capacity: far_sender.capacity() as u64,
        }));
        let (near, far) = (Some((near_sender, near_receiver)), (far_sender, far_receiver));
        Ok(Asked { hub, control, process: connect.process, request, near, far })
    }

    fn finish<Out: Data, In: Data>(
        mut self,
        refusal: Option<ConnectRefusal>,
    ) -> Result<(Sender<Out>, Receiver<In>), ConnectError> {
        if let Some(refusal) = refusal {
            return Err(ConnectError::from_answer(self.process, refusal));
        }
        self.far.0.mark_moved();
        self.far.1.mark_moved();
        let (sender, receiver) = self.near.take().expect("an answer comes once");
        Ok((sender.typed(), receiver.typed()))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.control.forget_connect(self.request);
    }
}

/// Why a process was not connected to another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The program has not become part of a job.
    #[error("the process is not part of a job: call `archean::init()` first, or use `#[archean::main]`")]
    NotInitialised,
    /// There is no such process in this job, or it ended long ago.
    #[error("not connected: there is no process {0} in this job, or it has ended long ago")]
    NoProcess(ProcessId),
    /// The process has ended.
    #[error("not connected: {0}")]
    Ended(Cause),
    /// The process has not accepted those that came before.
    #[error("not connected: {0}; it has to call `archean::accept()` more often")]
    TooMany(String),
    /// It took too long.
    #[error("not connected to process {0} until the time was over")]
    TimedOut(ProcessId),
    /// The manager refused it for another reason.
    #[error("not connected: {0}")]
    Refused(String),
}

impl ConnectError {
    fn from_answer(process: ProcessId, refusal: ConnectRefusal) -> Self {
        let failure = refusal.failure();
        let ConnectRefusal { text, ended, .. } = refusal;
        match failure {
            ConnectFailure::NoProcess => ConnectError::NoProcess(process),
            ConnectFailure::TooMany => ConnectError::TooMany(text),
            ConnectFailure::Ended => match ended.map(Cause::try_from) {
                Some(Ok(cause)) => ConnectError::Ended(cause),
                _ => ConnectError::Refused(text),
            },
            ConnectFailure::Invalid | ConnectFailure::Unknown => ConnectError::Refused(text),
        }
    }
}

/// Accepts a connection that another process of the job makes by [`connect`], waiting for it.
///
/// It is a builder: nothing happens until it is awaited, or [`wait_blocking`](Accept::wait_blocking) is called.
/// Connections come in the order in which the manager heard of them; several who accept get one each.
pub fn accept() -> Accept {
    Accept { deadline: None }
}

/// A connection that is waited for; see [`accept`].
#[must_use = "no connection is accepted until it is awaited"]
#[derive(Debug)]
pub struct Accept {
    deadline: Option<Duration>,
}

impl Accept {
    /// How long to wait for it.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Waits for it, blocking the thread.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub fn wait_blocking(self) -> Result<Connection, AcceptError> {
        let (Some(hub), Some(control)) = (Hub::get(), Control::get()) else {
            return Err(AcceptError::NotInitialised);
        };
        let mut found = None;
        hub.wait_until(end_of(self.deadline), || {
            found = control.offers.take(hub);
            found.is_some()
        });
        found.ok_or(AcceptError::TimedOut)
    }
}

impl IntoFuture for Accept {
    type Output = Result<Connection, AcceptError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Waits for a connection.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has accepted nothing.
    fn into_future(self) -> Self::IntoFuture {
        let accepted = async {
            let (Some(hub), Some(control)) = (Hub::get(), Control::get()) else {
                return Err(AcceptError::NotInitialised);
            };
            let mut ticket = Ticket::new(&control.offers);
            Ok(poll_fn(|context| {
                hub.drive();
                ticket.poll(hub, context.waker())
            })
            .await)
        };
        Box::pin(async move { within(self.deadline, accepted).await.unwrap_or(Err(AcceptError::TimedOut)) })
    }
}

/// Why no connection was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The program has not become part of a job.
    #[error("the process is not part of a job: call `archean::init()` first, or use `#[archean::main]`")]
    NotInitialised,
    /// Nobody has connected.
    #[error("nobody has connected until the time was over")]
    TimedOut,
}

/// A connection that was accepted: a channel to the other process and one from it.
#[derive(Debug)]
pub struct Connection {
    /// The process that has connected.
    pub peer: ProcessId,
    /// Its name.
    pub name: String,
    /// What is sent to it.
    pub sender: UntypedSender,
    /// What comes from it.
    pub receiver: UntypedReceiver,
}

impl Connection {
    /// Says what the two channels carry: what goes out, and what comes in. It is what the other process has said, with
    /// the two changed places.
    pub fn typed<Out: Data, In: Data>(self) -> (Sender<Out>, Receiver<In>) {
        (self.sender.typed(), self.receiver.typed())
    }
}

/// When a time from now on is over; nothing for one that never is.
fn end_of(deadline: Option<Duration>) -> Option<Instant> {
    deadline.and_then(|deadline| Instant::now().checked_add(deadline))
}

/// What a future gives in that time.
async fn within<F: Future>(deadline: Option<Duration>, future: F) -> Option<F::Output> {
    // A timer needs a job; without one the future is done at once.
    match deadline.filter(|_| Hub::get().is_some()) {
        Some(deadline) => time::timeout(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
