//! The end that receives.
#![expect(unsafe_code, reason = "who trusts all senders may leave the check of messages out")]

mod inbound;
mod open;

pub(crate) use inbound::Inbound;

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use protocol::control::{End, FromProcess};
use transport::ring::Frame;

use crate::{
    Data, IntoStream, Message, data,
    end::{Carries, EndCell},
    error::{RecvError, Refused},
};
use open::{Found, Open};

/// The receiving end of a channel.
///
/// It may be moved to another process inside an argument, a result or a message, until it is used. It hears of
/// three kinds of end, each after all that was sent before: every sender was dropped ([`RecvError::Closed`]), a
/// sender was given up with a reason ([`RecvError::Reset`]), the process of a sender ended while it held it
/// ([`RecvError::PeerDied`]). After an end of the second or third kind other senders may go on.
///
/// Messages are checked (bytecheck) before they are lent, and stay in the ring. A sender that scribbles over a
/// message *after* it was checked could break this process: channels connect processes of one program, which trust
/// each other that far. Where they don't, [`into_untrusted`](Self::into_untrusted) copies each message first.
pub struct Receiver<T> {
    cell: Arc<EndCell>,
    open: Option<Box<Open>>,
    trust: Trust,
    carries: Carries<T>,
}

/// What is done before a message is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// It is checked where it lies.
    Checked,
    /// It is copied, and the copy is checked.
    Untrusted,
    /// Nothing.
    Unchecked,
}

impl<T> Receiver<T> {
    pub(crate) fn from_cell(cell: Arc<EndCell>) -> Self {
        Receiver { cell, open: None, trust: Trust::Checked, carries: Default::default() }
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
    /// The same receiver, which copies each message before it checks and lends it. It stays sound whatever a sender
    /// does with the memory that it shares: use it where a sender may be hostile, or broken by unsafe code. This
    /// process alone decides so; an end that moves on begins anew.
    pub fn into_untrusted(mut self) -> Self {
        self.trust = Trust::Untrusted;
        self
    }

    /// The same receiver, which lends messages without a check.
    ///
    /// # Safety
    /// Every sender of the channel is of this very type, and no process that can write its rings writes anything but
    /// what [`Sender`](crate::Sender) does.
    pub unsafe fn into_unchecked(mut self) -> Self {
        self.trust = Trust::Unchecked;
        self
    }

    /// Lends the next message, waiting for it. Its space in the ring is free again when it is dropped.
    ///
    /// # Errors
    /// [`RecvError`].
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has received nothing.
    pub async fn recv(&mut self) -> Result<Message<'_, T>, RecvError> {
        let (index, frame) = match self.quick_frame() {
            Some(frame) => (0, frame),
            None => poll_fn(|context| self.poll(context)).await?,
        };
        self.lend(index, frame)
    }

    /// As [`recv`](Self::recv), blocking the thread.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    #[inline(always)]
    pub fn recv_blocking(&mut self) -> Result<Message<'_, T>, RecvError> {
        if let Some((inbound, archived)) = self.quick() {
            // SAFETY: it borrows from `self`, as the message does for as long. The borrow ends here in the other case,
            // which the compiler can't see yet (the «conditional return of a borrow»).
            return Ok(Message::new(unsafe { &mut *inbound }, archived));
        }
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
        let open = self.opened()?;
        open.hub.look();
        let mut found = open.find::<T>();
        if matches!(found, Found::Nothing) && open.is_linked() {
            // What the kernel has is there as well.
            open.hub.fetch_links();
            found = open.find::<T>();
        }
        match found {
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
        self.open.as_deref().is_none_or(Open::is_spent)
    }

    pub(crate) fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Message<'_, T>, RecvError>> {
        match self.poll(context) {
            Poll::Ready(Ok((index, frame))) => Poll::Ready(self.lend(index, frame)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(usize, Frame), RecvError>> {
        // A sender that goes on and on about one message must not keep the thread.
        const SEARCHES_MAX: u32 = 16;
        let mut is_registered = false;
        for _ in 0..SEARCHES_MAX {
            match self.opened()?.find::<T>() {
                Found::Frame(index, frame) => {
                    self.opened()?.inbound[index].consumer.settle();
                    return Poll::Ready(Ok((index, frame)));
                }
                Found::End(error) => return Poll::Ready(Err(self.fail(error))),
                Found::Nothing => {
                    let open = self.opened()?;
                    // The search takes parts of messages and new senders in: then it is something else that is
                    // waited for by now.
                    if is_registered && open.port.waits_for(&open.waits) {
                        return Poll::Pending;
                    }
                    open.hub.register(&open.port, &open.waits, context.waker());
                    is_registered = true;
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn block(&mut self, deadline: Option<Instant>) -> Result<Message<'_, T>, RecvError> {
        loop {
            if let Some((inbound, archived)) = self.spin() {
                // SAFETY: as in `recv_blocking`.
                return Ok(Message::new(unsafe { &mut *inbound }, archived));
            }
            if let Some((index, frame)) = self.search_or_sleep(deadline)? {
                return self.lend(index, frame);
            }
        }
    }

    /// Spins until there is a message, where most are found.
    fn spin(&mut self) -> Option<(*mut Inbound, *const T::Archived)> {
        let open = self.open.as_deref_mut()?;
        let Open { hub, port, ear, inbound, waits, .. } = open;
        let [inbound] = inbound.as_mut_slice() else { return None };
        if !inbound.is_checked {
            return None;
        }
        waits[0].position = inbound.consumer.position();
        if hub.spin_port(*ear, port, waits, || waits[0].is_over()) { self.quick() } else { None }
    }

    /// The next message when there is one sender and nothing is in the way. What almost every message takes: no
    /// result that is moved through memory, no call that is not inlined.
    #[inline(always)]
    fn quick(&mut self) -> Option<(*mut Inbound, *const T::Archived)> {
        let frame = self.quick_frame()?;
        if self.trust != Trust::Checked {
            return None;
        }
        let inbound = self.open.as_deref_mut()?.inbound.first_mut()?;
        inbound.front = frame;
        let archived = std::ptr::from_ref(data::check_quick::<T>(inbound.consumer.payload(&frame))?);
        Some((inbound, archived))
    }

    #[inline(always)]
    pub(crate) fn quick_frame(&mut self) -> Option<Frame> {
        let [inbound] = self.open.as_deref_mut()?.inbound.as_mut_slice() else { return None };
        if !inbound.is_checked {
            return None;
        }
        let frame = match inbound.consumer.peek_plain() {
            None if inbound.consumer.slip() => inbound.consumer.peek_plain()?,
            found => found?,
        };
        inbound.consumer.settle();
        Some(frame)
    }

    /// The next frame; `None` after sleeping until there is one.
    fn search_or_sleep(&mut self, deadline: Option<Instant>) -> Result<Option<(usize, Frame)>, RecvError> {
        let open = self.opened()?;
        match open.find::<T>() {
            Found::Frame(index, frame) => {
                open.inbound[index].consumer.settle();
                Ok(Some((index, frame)))
            }
            Found::End(error) => Err(self.fail(error)),
            Found::Nothing if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                Err(RecvError::TimedOut)
            }
            Found::Nothing if open.wait(deadline) => Ok(None),
            Found::Nothing => Err(RecvError::TimedOut),
        }
    }

    pub(crate) fn lend(&mut self, index: usize, frame: Frame) -> Result<Message<'_, T>, RecvError> {
        let archived = self.view(index, &frame).map_err(|error| self.fail(error))?;
        let open = self.open.as_mut().expect("a frame was found in an open receiver");
        let inbound = &mut open.inbound[index];
        inbound.front = frame;
        Ok(Message::new(inbound, archived))
    }

    /// The archived value in a frame.
    fn view(&mut self, index: usize, frame: &Frame) -> Result<*const T::Archived, RecvError> {
        let open = self.open.as_mut().expect("a frame was found in an open receiver");
        let inbound = &mut open.inbound[index];
        if self.trust == Trust::Untrusted {
            inbound.copy(frame)?;
        }
        let bytes = inbound.bytes(frame);
        let archived = if self.trust == Trust::Unchecked && bytes.len() >= size_of::<T::Archived>() {
            // SAFETY: the promise of `into_unchecked`.
            Ok(unsafe { rkyv::access_unchecked::<T::Archived>(bytes) })
        } else {
            data::check::<T>(bytes)
        };
        let expected = || std::any::type_name::<T>().to_owned();
        archived
            .map(std::ptr::from_ref)
            .map_err(|detail| RecvError::Malformed { expected: expected(), detail })
    }

    /// After some errors nothing more can be believed: then senders are told, and the error stays.
    fn fail(&mut self, error: RecvError) -> RecvError {
        if let RecvError::WrongType { .. } | RecvError::Malformed { .. } | RecvError::Broken(_) = error
            && let Some(open) = &mut self.open
            && open.break_off(&error)
        {
            self.cell.close(Some(error.to_string()));
        }
        error
    }

    fn opened(&mut self) -> Result<&mut Open, RecvError> {
        let id = self.cell.id;
        if self.open.is_none() {
            let hub = self.cell.start_use().map_err(RecvError::ThisEnd)?;
            let open = Open::new(hub, id, std::any::type_name::<T>());
            hub.tell(FromProcess::OpenReceiver(End { end: id.to_word() }));
            self.open = Some(Box::new(open));
        }
        Ok(self.open.as_mut().expect("it was opened just now"))
    }
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
