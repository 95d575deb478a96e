//! The end that receives.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use protocol::{
    control::{End, FromProcess},
    ending::Over,
    ids::EndId,
};
use transport::{
    ring::{Consumer, Frame, Wake},
    segment::{Doorbell, Mapped},
};

use crate::{
    Data, IntoStream, Message,
    data::{self, type_hash},
    end::{Carries, EndCell},
    error::{RecvError, Refused},
    hub::Hub,
    port::{News, Port, Side, Wait},
};

/// The receiving end of a channel.
///
/// It may be moved to another process inside an argument, a result or a message, until it is used. It hears of
/// three kinds of end, each after all that was sent before: every sender was dropped ([`RecvError::Closed`]), a
/// sender was given up with a reason ([`RecvError::Reset`]), the process of a sender ended while it held it
/// ([`RecvError::PeerDied`]). After an end of the second or third kind other senders may go on.
///
/// Messages are checked (bytecheck) before they are lent, and stay in the ring. A sender that scribbles over a
/// message *after* it was checked could break this process: channels connect processes of one program, which trust
/// each other that far.
pub struct Receiver<T> {
    cell: Arc<EndCell>,
    open: Option<Box<Open>>,
    carries: Carries<T>,
}

/// A receiver in use.
struct Open {
    hub: &'static Hub,
    port: Arc<Port>,
    inbound: Vec<Inbound>,
    /// One for each of `inbound`, in the same order.
    waits: Vec<Wait>,
    /// Where the next search for a message starts: every sender has its turn.
    turn: usize,
    /// Ends of senders that had no ring, not told yet.
    untold: VecDeque<RecvError>,
    /// No sender is left but those in `inbound`.
    last: bool,
    /// What is told again and again when nothing is left.
    final_word: RecvError,
    broken: Option<RecvError>,
}

/// One sender's ring.
pub(crate) struct Inbound {
    pub(crate) sender: EndId,
    pub(crate) consumer: Consumer<Arc<Mapped>>,
    doorbell: Arc<Doorbell>,
    over: Option<Over>,
    /// The type that it carries was found to be the receiver's, with its first frame: before that the sender may
    /// not have said what it is.
    is_checked: bool,
}

impl Inbound {
    /// Gives the space of the frame in front back.
    pub(crate) fn release(&mut self, frame: &Frame) {
        if self.consumer.release(frame) == Wake::Peer {
            self.doorbell.ring();
        }
    }
}

/// What a search for a message has found.
enum Found {
    /// A frame in the ring of that index.
    Frame(usize, Frame),
    /// An end, to be told.
    End(RecvError),
    /// Nothing yet.
    Nothing,
}

impl<T> Receiver<T> {
    pub(crate) fn from_cell(cell: Arc<EndCell>) -> Self {
        Receiver { cell, open: None, carries: Default::default() }
    }

    pub(crate) fn cell(&self) -> &Arc<EndCell> {
        &self.cell
    }

    /// Gives the receiver up: senders get `reason`.
    pub fn reset(self, reason: impl Into<String>) {
        self.cell.close(Some(reason.into()));
    }

    /// Why the receiver can't move to another process, if it can't.
    ///
    /// # Errors
    /// [`Refused`]: it was used, or it has moved already.
    pub fn check_movable(&self) -> Result<(), Refused> {
        self.cell.check_movable()
    }
}

impl<T: Data> Receiver<T> {
    /// Lends the next message, waiting for it. Its space in the ring is free again when it is dropped.
    ///
    /// # Errors
    /// [`RecvError`].
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has received nothing.
    pub async fn recv(&mut self) -> Result<Message<'_, T>, RecvError> {
        let (index, frame) = poll_fn(|context| self.poll(context)).await?;
        self.lend(index, frame)
    }

    /// As [`recv`](Self::recv), blocking the thread.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    #[inline]
    pub fn recv_blocking(&mut self) -> Result<Message<'_, T>, RecvError> {
        self.block(None)
    }

    /// As [`recv_blocking`](Self::recv_blocking), for no longer than `timeout`.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv), and [`RecvError::TimedOut`].
    pub fn recv_timeout_blocking(&mut self, timeout: Duration) -> Result<Message<'_, T>, RecvError> {
        self.block(Instant::now().checked_add(timeout))
    }

    /// The next message as a value of its own, with the ends in it.
    ///
    /// # Errors
    /// [`RecvError`].
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has received nothing.
    pub async fn recv_owned(&mut self) -> Result<T, RecvError> {
        Ok(self.recv().await?.into_owned())
    }

    /// As [`recv_owned`](Self::recv_owned), blocking the thread.
    ///
    /// # Errors
    /// As for [`recv_owned`](Self::recv_owned).
    pub fn recv_owned_blocking(&mut self) -> Result<T, RecvError> {
        Ok(self.recv_blocking()?.into_owned())
    }

    /// Lends the next message that `wanted` accepts. Those that it does not accept are dropped, with the ends in
    /// them.
    ///
    /// # Errors
    /// [`RecvError`].
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has dropped the messages that were not accepted so far, and
    /// no other.
    pub async fn recv_where(
        &mut self,
        mut wanted: impl FnMut(&T::Archived) -> bool,
    ) -> Result<Message<'_, T>, RecvError> {
        loop {
            let (index, frame) = poll_fn(|context| self.poll(context)).await?;
            let message = self.lend(index, frame)?;
            if wanted(&message) {
                message.put_back();
                return self.lend(index, frame);
            }
        }
    }

    /// As [`recv_where`](Self::recv_where), blocking the thread.
    ///
    /// # Errors
    /// As for [`recv_where`](Self::recv_where).
    pub fn recv_where_blocking(
        &mut self,
        mut wanted: impl FnMut(&T::Archived) -> bool,
    ) -> Result<Message<'_, T>, RecvError> {
        loop {
            let message = self.block(None)?;
            if wanted(&message) {
                message.put_back();
                // The search begins where the last one ended, so that the same message is found again.
                if let Some(open) = &mut self.open {
                    open.turn = open.turn.saturating_sub(1);
                }
                return self.block(None);
            }
        }
    }

    /// Lends the next message if it is there.
    ///
    /// # Errors
    /// [`RecvError`].
    pub fn try_recv(&mut self) -> Result<Option<Message<'_, T>>, RecvError> {
        self.opened()?.hub.look();
        match self.opened()?.find::<T>() {
            Found::Frame(index, frame) => self.lend(index, frame).map(Some),
            Found::End(error) => Err(self.fail(error)),
            Found::Nothing => Ok(None),
        }
    }

    /// The messages as a stream of values. It ends when every sender was dropped, and after an error that nothing
    /// can come after.
    pub fn into_stream(self) -> IntoStream<T> {
        IntoStream::new(self)
    }

    /// Whether nothing can come any more but the last error, again and again.
    pub(crate) fn is_spent(&self) -> bool {
        let is_spent = |open: &Open| {
            open.broken.is_some() || open.last && open.inbound.is_empty() && open.untold.is_empty()
        };
        self.open.as_deref().is_none_or(is_spent)
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(usize, Frame), RecvError>> {
        for registered in [false, true] {
            match self.opened()?.find::<T>() {
                Found::Frame(index, frame) => return Poll::Ready(Ok((index, frame))),
                Found::End(error) => return Poll::Ready(Err(self.fail(error))),
                Found::Nothing if registered => {}
                Found::Nothing => {
                    let open = self.opened()?;
                    open.hub.register(&open.port, &open.waits, context.waker());
                }
            }
        }
        Poll::Pending
    }

    #[inline]
    fn block(&mut self, deadline: Option<Instant>) -> Result<Message<'_, T>, RecvError> {
        loop {
            if let Some((frame, archived)) = self.quick() {
                let open = self.open.as_mut().expect("a frame was found in an open receiver");
                open.inbound[0].consumer.settle();
                return Ok(Message::new(open.hub, &mut open.inbound[0], frame, archived));
            }
            if let Some((index, frame)) = self.search_or_wait(deadline)? {
                return self.lend(index, frame);
            }
        }
    }

    /// The next message when there is one sender and nothing is in the way. What almost every message takes: no
    /// result that is moved through memory, no call that is not inlined.
    #[inline]
    fn quick(&self) -> Option<(Frame, *const T::Archived)> {
        let [inbound] = self.open.as_deref()?.inbound.as_slice() else { return None };
        if !inbound.is_checked {
            return None;
        }
        let frame = inbound.consumer.peek().ok()??;
        let archived = data::check::<T>(inbound.consumer.payload(&frame)).ok()?;
        Some((frame, archived))
    }

    /// The next frame; `None` after waiting for one.
    fn search_or_wait(&mut self, deadline: Option<Instant>) -> Result<Option<(usize, Frame)>, RecvError> {
        let open = self.opened()?;
        match open.find::<T>() {
            Found::Frame(index, frame) => {
                open.inbound[index].consumer.settle();
                Ok(Some((index, frame)))
            }
            Found::End(error) => Err(self.fail(error)),
            Found::Nothing if open.hub.wait_port(&open.port, &open.waits, deadline) => Ok(None),
            Found::Nothing => Err(RecvError::TimedOut),
        }
    }

    pub(crate) fn lend(&mut self, index: usize, frame: Frame) -> Result<Message<'_, T>, RecvError> {
        let open = self.open.as_ref().expect("a frame was found in an open receiver");
        let archived = data::check::<T>(open.inbound[index].consumer.payload(&frame)).map(std::ptr::from_ref);
        let archived = archived.map_err(|detail| {
            let expected = std::any::type_name::<T>().to_owned();
            self.fail(RecvError::Malformed { expected, detail })
        })?;
        let open = self.open.as_mut().expect("it was open just now");
        Ok(Message::new(open.hub, &mut open.inbound[index], frame, archived))
    }

    /// After some errors nothing more can be believed: then senders are told, and the error stays.
    fn fail(&mut self, error: RecvError) -> RecvError {
        if let RecvError::WrongType { .. } | RecvError::Malformed { .. } | RecvError::Broken(_) = error
            && let Some(open) = &mut self.open
            && open.broken.is_none()
        {
            open.broken = Some(error.clone());
            open.inbound.clear();
            open.waits.clear();
            self.cell.close(Some(error.to_string()));
        }
        error
    }

    fn opened(&mut self) -> Result<&mut Open, RecvError> {
        let id = self.cell.id;
        if self.open.is_none() {
            let hub = self.cell.start_use().map_err(RecvError::ThisEnd)?;
            let port = hub.open(id);
            hub.tell(FromProcess::OpenReceiver(End { end: id.to_word() }));
            self.open = Some(Box::new(Open {
                hub,
                port,
                inbound: Vec::new(),
                waits: Vec::new(),
                turn: 0,
                untold: VecDeque::new(),
                last: false,
                final_word: RecvError::Closed,
                broken: None,
            }));
        }
        Ok(self.open.as_mut().expect("it was opened just now"))
    }
}

impl Open {
    /// Looks for a message, and for what has to be told when there is none.
    fn find<T: Data>(&mut self) -> Found {
        if let Some(error) = &self.broken {
            return Found::End(error.clone());
        }
        loop {
            let count = self.inbound.len();
            for index in (self.turn..count).chain(0..self.turn.min(count)) {
                match self.inbound[index].consumer.peek() {
                    Ok(None) => {}
                    Ok(Some(frame)) => {
                        let inbound = &mut self.inbound[index];
                        if !inbound.is_checked {
                            if let Err(error) = check_type::<T>(inbound.consumer.memory()) {
                                return Found::End(error);
                            }
                            inbound.is_checked = true;
                        }
                        self.turn = index + 1;
                        return Found::Frame(index, frame);
                    }
                    Err(corrupt) => return Found::End(RecvError::Broken(corrupt.to_string())),
                }
            }
            if self.port.has_news() {
                if let Err(error) = self.take_news() {
                    return Found::End(error);
                }
                continue;
            }
            // The search above came after the news that a sender is over, and so after all that it had sent.
            if let Some(index) = self.inbound.iter().position(|inbound| inbound.over.is_some()) {
                self.waits.swap_remove(index);
                match self.inbound.swap_remove(index).over.map(RecvError::from) {
                    None | Some(RecvError::Closed) => self.final_word = RecvError::Closed,
                    Some(error) => self.untold.push_back(error),
                }
                continue;
            }
            if let Some(error) = self.untold.pop_front() {
                self.final_word = error.clone();
                return Found::End(error);
            }
            if self.last && count == 0 {
                return Found::End(self.final_word.clone());
            }
            for (wait, inbound) in self.waits.iter_mut().zip(&self.inbound) {
                wait.position = inbound.consumer.position();
            }
            return Found::Nothing;
        }
    }

    fn take_news(&mut self) -> Result<(), RecvError> {
        for news in self.port.take_news() {
            match news {
                News::Incoming { sender, memory, doorbell } => {
                    let memory = Arc::new(memory);
                    self.waits.push(Wait { memory: memory.clone(), position: 0, side: Side::Consumer });
                    let consumer = Consumer::new(memory);
                    self.inbound.push(Inbound { sender, consumer, doorbell, over: None, is_checked: false });
                }
                News::SenderOver { sender, over, last } => {
                    self.last |= last;
                    match self.inbound.iter_mut().find(|inbound| inbound.sender == sender) {
                        Some(inbound) => inbound.over = Some(over),
                        None if over == Over::Closed => self.final_word = RecvError::Closed,
                        None => self.untold.push_back(over.into()),
                    }
                }
                News::Broken(text) => return Err(RecvError::Broken(text)),
                News::Paired { .. } | News::ReceiverOver { .. } => {}
            }
        }
        Ok(())
    }
}

fn check_type<T: Data>(memory: &Mapped) -> Result<(), RecvError> {
    let Some((hash, found)) = memory.description() else {
        return Err(RecvError::Broken("a ring does not say what it carries".to_owned()));
    };
    if hash == type_hash::<T>() {
        return Ok(());
    }
    Err(RecvError::WrongType { expected: std::any::type_name::<T>().to_owned(), found })
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.hub.close(&open.port);
        }
        self.cell.close(None);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("end", &self.cell.id).field("used", &self.open.is_some()).finish()
    }
}
