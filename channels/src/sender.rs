//! The end that sends.
#![expect(unsafe_code, reason = "values are serialised into the ring's memory")]

mod bytes;
mod open;

pub use bytes::Slot;
pub(crate) use open::Large;

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use protocol::{
    control::{CloneSender, FromProcess},
    frame::{HEADER_BYTES, Kind, frame_bytes},
};

use crate::{
    Data, IntoSink, Message, PlainData, data,
    end::{Carries, EndCell},
    error::{Reason, Refused, SendError},
    hub::Hub,
};
use open::{Carried, Open, Write, Written};

/// The sending end of a channel.
///
/// It may be moved to another process inside an argument, a result or a message, until it is used. A clone has a
/// ring of its own; messages of one sender arrive in order, those of several in any order.
///
/// Dropping it closes it: the receiver learns so after all that was sent. A sender that is dropped by a panic is
/// reset instead. What was sent is delivered even when the process ends right after.
pub struct Sender<T> {
    cell: Arc<EndCell>,
    open: Option<Box<Open>>,
    carries: Carries<T>,
}

impl<T> Sender<T> {
    pub(crate) fn from_cell(cell: Arc<EndCell>) -> Self {
        Sender { cell, open: None, carries: Default::default() }
    }

    pub(crate) fn cell(&self) -> &Arc<EndCell> {
        &self.cell
    }

    /// Says that messages were left out, if there is room to say so.
    pub(crate) fn tell_missed(&mut self, messages: u64) {
        if let Some(open) = &mut self.open
            && open.hold_missed(messages).is_ok()
        {
            open.flush();
        }
    }

    /// Gives the sender up: the receiver gets `reason`, after all that was sent.
    pub fn reset(mut self, reason: impl Into<String>) {
        self.close_open();
        self.cell.close(Some(reason.into()));
    }

    /// Gives what is in use up. Only then the manager may be told, who looks whether a link drains the ring.
    fn close_open(&mut self) {
        if let Some(mut open) = self.open.take() {
            // A batch whose iterator panicked.
            open.flush();
            open.hub.close(&open.port);
        }
    }
}

impl<T: Data> Sender<T> {
    /// Sends a value, waiting for room. Ends in the value move with it.
    ///
    /// # Errors
    /// [`SendError`], with the value, whole.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing; the value is dropped with it.
    pub async fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        if self.quick(|start, room| write_endless(&value, start, room)) {
            return Ok(());
        }
        let sent = self.wait_to_send(|start, room| write(&value, start, room)).await;
        sent.map_err(|reason| SendError { value, reason })
    }

    /// As [`send`](Self::send), blocking the thread.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    #[inline]
    pub fn send_blocking(&mut self, value: T) -> Result<(), SendError<T>> {
        if self.quick(|start, room| write_endless(&value, start, room)) {
            return Ok(());
        }
        self.block(None, &mut |start, room| write(&value, start, room))
            .map_err(|reason| SendError { value, reason })
    }

    /// As [`send_blocking`](Self::send_blocking), for no longer than `timeout`.
    ///
    /// # Errors
    /// As for [`send`](Self::send), and [`Reason::TimedOut`].
    pub fn send_timeout_blocking(&mut self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.block(Instant::now().checked_add(timeout), &mut |start, room| write(&value, start, room))
            .map_err(|reason| SendError { value, reason })
    }

    /// Sends a value if there is room for it now.
    ///
    /// # Errors
    /// [`SendError`], with the value, whole; [`Reason::Full`] when there is no room, and [`Reason::TooLarge`] when the
    /// value takes more than the channel's capacity, so that it could only be sent in parts.
    pub fn try_send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.begin();
        let sent = match self.attempt(&mut |start, room| write(&value, start, room), None) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Reason::Full),
            Err(reason) => Err(reason),
        };
        sent.map_err(|reason| SendError { value, reason })
    }

    /// Sends a value that holds no ends, from a borrow.
    ///
    /// # Errors
    /// [`SendError`], without the value.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing.
    pub async fn send_ref(&mut self, value: &T) -> Result<(), SendError<()>>
    where
        T: PlainData,
    {
        if self.quick(|start, room| write_ref(value, start, room).ok().map(|(bytes, _)| bytes)) {
            return Ok(());
        }
        let sent = self.wait_to_send(|start, room| write_ref(value, start, room)).await;
        sent.map_err(|reason| SendError { value: (), reason })
    }

    /// As [`send_ref`](Self::send_ref), blocking the thread.
    ///
    /// # Errors
    /// As for [`send_ref`](Self::send_ref).
    #[inline]
    pub fn send_ref_blocking(&mut self, value: &T) -> Result<(), SendError<()>>
    where
        T: PlainData,
    {
        if self.quick(|start, room| write_ref(value, start, room).ok().map(|(bytes, _)| bytes)) {
            return Ok(());
        }
        self.block(None, &mut |start, room| write_ref(value, start, room))
            .map_err(|reason| SendError { value: (), reason })
    }

    /// Sends values one after the other, publishing many at once: the receiver sees them when the iterator ends, when
    /// there is no more room, or when some 16 KiB have come together.
    ///
    /// # Errors
    /// [`SendError`], with the value that could not be sent. Those before it were sent, and those after it are in the
    /// iterator: pass `&mut iterator` to keep it.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent some of the first values.
    pub async fn send_batch(&mut self, values: impl IntoIterator<Item = T>) -> Result<(), SendError<T>> {
        let mut values = values.into_iter();
        while let Some(value) = self.hold_many(&mut values) {
            self.send(value).await?;
        }
        Ok(())
    }

    /// As [`send_batch`](Self::send_batch), blocking the thread.
    ///
    /// # Errors
    /// As for [`send_batch`](Self::send_batch).
    pub fn send_batch_blocking(&mut self, values: impl IntoIterator<Item = T>) -> Result<(), SendError<T>> {
        let mut values = values.into_iter();
        while let Some(value) = self.hold_many(&mut values) {
            self.send_blocking(value)?;
        }
        Ok(())
    }

    /// Passes a message on, undecoded: its bytes are copied from ring to ring, and the ends in it move along.
    ///
    /// # Errors
    /// [`SendError`], with the message.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing; the message is dropped with it.
    pub async fn forward<'m>(&mut self, message: Message<'m, T>) -> Result<(), SendError<Message<'m, T>>> {
        let ends = message.take_ends();
        let sent = self.wait_to_send(|start, room| write_again(&message, &ends, start, room)).await;
        forwarded(message, sent)
    }

    /// As [`forward`](Self::forward), blocking the thread.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn forward_blocking<'m>(&mut self, message: Message<'m, T>) -> Result<(), SendError<Message<'m, T>>> {
        let ends = message.take_ends();
        let sent = self.block(None, &mut |start, room| write_again(&message, &ends, start, room));
        forwarded(message, sent)
    }

    /// The sender as a sink of values.
    pub fn into_sink(self) -> IntoSink<T> {
        IntoSink::new(self)
    }

    pub(crate) fn poll_value(
        &mut self,
        context: &mut Context<'_>,
        value: &T,
        large: &mut Option<Large>,
    ) -> Poll<Result<(), Reason>> {
        self.poll(context, &mut |start, room| write(value, start, room), large)
    }

    /// Waits until it has a ring.
    pub(crate) fn poll_ring(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        self.poll_until(context, &mut |sender| {
            let open = sender.opened()?;
            open.check()?;
            Ok(open.ring.is_some())
        })
    }

    /// Sends what is archived already.
    pub(crate) fn poll_archived(
        &mut self,
        context: &mut Context<'_>,
        archive: &[u8],
        large: &mut Option<Large>,
    ) -> Poll<Result<(), Reason>> {
        self.poll(context, &mut |start, room| write_bytes(archive, start, room), large)
    }

    /// As [`poll_archived`](Self::poll_archived), blocking the thread.
    pub(crate) fn send_archived_blocking(&mut self, archive: &[u8]) -> Result<(), Reason> {
        self.block(None, &mut |start, room| write_bytes(archive, start, room))
    }

    /// Sends what is archived already if there is room for it now; in front of it, how many messages were left out.
    ///
    /// # Errors
    /// [`Reason::Full`] among others.
    pub(crate) fn try_send_archived(&mut self, archive: &[u8], missed: &mut u64) -> Result<(), Reason> {
        self.begin();
        if *missed > 0 {
            self.opened()?.hold_missed(*missed)?;
            *missed = 0;
        }
        let sent = self.attempt(&mut |start, room| write_bytes(archive, start, room), None);
        if let Some(open) = &mut self.open {
            open.flush();
        }
        if sent? { Ok(()) } else { Err(Reason::Full) }
    }

    async fn wait_to_send(&mut self, mut write: impl FnMut(*mut u8, usize) -> Written) -> Result<(), Reason> {
        self.begin();
        let mut large = None;
        poll_fn(|context| self.poll(context, &mut write, &mut large)).await
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        write: Write<'_>,
        large: &mut Option<Large>,
    ) -> Poll<Result<(), Reason>> {
        self.poll_until(context, &mut |sender| sender.attempt(write, Some(large)))
    }

    fn block(&mut self, deadline: Option<Instant>, write: Write<'_>) -> Result<(), Reason> {
        self.begin();
        let mut large = None;
        self.block_until(deadline, &mut |sender| sender.attempt(write, Some(&mut large)))
    }

    fn poll_until(&mut self, context: &mut Context<'_>, attempt: Attempt<'_, T>) -> Poll<Result<(), Reason>> {
        if attempt(self)? {
            return Poll::Ready(Ok(()));
        }
        let open = self.opened()?;
        open.hub.register(&open.port, open.wait(), context.waker());
        // What was waited for may have come before the waker was known.
        if attempt(self)? { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn block_until(&mut self, deadline: Option<Instant>, attempt: Attempt<'_, T>) -> Result<(), Reason> {
        while !attempt(self)? {
            let open = self.opened()?;
            if !open.hub.wait_port(&open.port, open.wait(), deadline) {
                return Err(Reason::TimedOut);
            }
        }
        Ok(())
    }

    /// Sends if nothing is in the way; `false` when anything is, and nothing was done. What almost every message
    /// takes: no result that is moved through memory, no call that is not inlined.
    #[inline(always)]
    fn quick(&mut self, write: impl FnOnce(*mut u8, usize) -> Option<usize>) -> bool {
        let Some(open) = self.open.as_deref_mut() else { return false };
        let Some((ring, mut waker)) = open.clear() else { return false };
        let Some(claim) = ring.producer.claim_usual() else { return false };
        let room = claim.payload_bytes_max();
        match write(claim.payload(), room) {
            Some(bytes) if frame_bytes(bytes, 0) <= room + HEADER_BYTES => {
                let wake = claim.publish_plain(bytes);
                waker.port.counts.message(bytes);
                waker.answer(wake, ring.producer.memory());
                true
            }
            _ => false,
        }
    }

    /// Writes values until there are no more, and publishes them; or until there is one that can't be written just
    /// so, which it gives.
    fn hold_many(&mut self, values: &mut impl Iterator<Item = T>) -> Option<T> {
        let Some(open) = self.open.as_deref_mut() else { return values.next() };
        let Some((ring, mut waker)) = open.clear() else { return values.next() };
        let (mut frames, mut total, mut other) = (0, 0, None);
        for value in values {
            let Some(claim) = ring.producer.claim_usual() else {
                other = Some(value);
                break;
            };
            let room = claim.payload_bytes_max();
            match write_endless(&value, claim.payload(), room) {
                Some(bytes) if frame_bytes(bytes, 0) <= room + HEADER_BYTES => {
                    let producer = claim.hold(Kind::Value, bytes, &[]);
                    frames += 1;
                    total += bytes;
                    if producer.held_bytes() >= BATCH_BYTES {
                        let wake = producer.flush();
                        waker.answer(wake, producer.memory());
                    }
                }
                _ => {
                    other = Some(value);
                    break;
                }
            }
        }
        waker.port.counts.messages(frames, total);
        open.flush();
        other
    }

    fn begin(&mut self) {
        if let Some(open) = &mut self.open {
            open.begin();
        }
    }

    fn attempt(&mut self, write: Write<'_>, large: Option<&mut Option<Large>>) -> Result<bool, Reason> {
        let sender = self.cell.id;
        self.opened()?.attempt(sender, write, large)
    }

    /// The sender in use; the first use asks for a ring, or takes one.
    #[inline]
    fn opened(&mut self) -> Result<&mut Open, Reason> {
        if self.open.as_ref().is_none_or(|open| open.ring.is_none()) {
            self.open()?;
        }
        Ok(self.open.as_mut().expect("it is open"))
    }

    #[cold]
    fn open(&mut self) -> Result<(), Reason> {
        let hub = self.cell.start_use().map_err(Reason::ThisEnd)?;
        let carries = Carried { hash: data::type_hash::<T>(), name: std::any::type_name::<T>() };
        let new = || Box::new(Open::new(hub, self.cell.id, carries));
        self.open.get_or_insert_with(new).equip(&self.cell)
    }
}

/// Does what a sender is to do, or gives `false` when there is no room for it now.
type Attempt<'a, T> = &'a mut dyn FnMut(&mut Sender<T>) -> Result<bool, Reason>;

/// A batch is published when so many bytes have come together.
const BATCH_BYTES: usize = 16 << 10;

/// What became of a message that was to be passed on.
fn forwarded<'m, T: Data>(
    message: Message<'m, T>,
    sent: Result<(), Reason>,
) -> Result<(), SendError<Message<'m, T>>> {
    match sent {
        Ok(()) => {
            message.moved_on();
            Ok(())
        }
        Err(reason) => Err(SendError { value: message, reason }),
    }
}

/// Writes the bytes of a message that came from elsewhere.
fn write_again<T: Data>(
    message: &Message<'_, T>,
    ends: &[Arc<EndCell>],
    start: *mut u8,
    room: usize,
) -> Written {
    let (bytes, _) = write_bytes(message.bytes(), start, room)?;
    Ok((bytes, ends.to_vec()))
}

fn write_bytes(bytes: &[u8], start: *mut u8, room: usize) -> Written {
    if bytes.len() <= room {
        // SAFETY: `start` and `room` come from a `Claim` that outlives the call, which promises room for them.
        unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
    Ok((bytes.len(), Vec::new()))
}

#[inline]
fn write<T: Data>(value: &T, start: *mut u8, room: usize) -> Written {
    // SAFETY: `start` and `room` come from a `Claim` that outlives the call, which promises just that.
    unsafe { data::write_moving(value, start, room) }.map_err(|error| error.to_string())
}

/// As [`write`], for a value that turns out to hold no ends.
#[inline]
fn write_endless<T: Data>(value: &T, start: *mut u8, room: usize) -> Option<usize> {
    let (bytes, ends) = write(value, start, room).ok()?;
    ends.is_empty().then_some(bytes)
}

#[inline]
fn write_ref<T: PlainData>(value: &T, start: *mut u8, room: usize) -> Written {
    // SAFETY: as above.
    let bytes = unsafe { data::write_plain(value, start, room) }.map_err(|error| error.to_string())?;
    Ok((bytes, Vec::new()))
}

impl<T> Clone for Sender<T> {
    /// One more sender to the same receiver, not used yet, with a ring of its own. The clone of a sender that has
    /// moved away is as unusable as its original.
    fn clone(&self) -> Self {
        if !self.cell.is_held() {
            return Sender::from_cell(self.cell.clone());
        }
        let Some(hub) = Hub::get() else { return Sender::from_cell(self.cell.clone()) };
        let clone = EndCell::unused(hub.next_end(), self.cell.capacity);
        let word = CloneSender { sender: self.cell.id.to_word(), clone: clone.id.to_word() };
        hub.tell_later(FromProcess::Clone(word));
        Sender::from_cell(clone)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.close_open();
        self.cell.close(None);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("end", &self.cell.id).field("used", &self.open.is_some()).finish()
    }
}

impl<T> Sender<T> {
    /// Why the sender can't move to another process, if it can't.
    ///
    /// # Errors
    /// [`Refused`]: it was used, or it has moved already.
    pub fn check_movable(&self) -> Result<(), Refused> {
        self.cell.check_movable()
    }
}
