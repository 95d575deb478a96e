//! The end that sends.
#![expect(unsafe_code, reason = "values are serialised into the ring's memory")]

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use protocol::{
    control::{CloneSender, Ends, FromProcess, OpenSender},
    ending::Over,
    frame::{HEADER_BYTES, frame_bytes, payload_bytes_max},
    ids::EndId,
    limits::FRAME_ENDS_MAX,
};
use transport::{
    ring::{Memory, Producer, Wake},
    segment::{Doorbell, Mapped},
};

use crate::{
    Data, IntoSink, PlainData,
    data::{self, type_hash},
    end::{Carries, EndCell},
    error::{Reason, Refused, SendError},
    hub::Hub,
    port::{News, Port, Side, Wait},
};

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

/// A sender in use.
struct Open {
    hub: &'static Hub,
    port: Arc<Port>,
    /// Absent until the manager has given it a ring.
    ring: Option<Ring>,
    asked: bool,
    over: Option<Over>,
    broken: Option<String>,
    doorbell: Option<Arc<Doorbell>>,
}

struct Ring {
    producer: Producer<Arc<Mapped>>,
    /// What the next frame is known to take at least.
    needed: usize,
    wait: [Wait; 1],
}

/// What a value's serialiser says: how many bytes it takes, and the ends that it holds.
type Written = Result<(usize, Vec<Arc<EndCell>>), String>;

impl<T> Sender<T> {
    pub(crate) fn from_cell(cell: Arc<EndCell>) -> Self {
        Sender { cell, open: None, carries: Default::default() }
    }

    pub(crate) fn cell(&self) -> &Arc<EndCell> {
        &self.cell
    }

    /// Gives the sender up: the receiver gets `reason`, after all that was sent.
    pub fn reset(self, reason: impl Into<String>) {
        self.cell.close(Some(reason.into()));
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
        self.begin();
        let sent = poll_fn(|context| self.poll(context, &mut |start, room| write(&value, start, room))).await;
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
    /// [`SendError`], with the value, whole; [`Reason::Full`] when there is no room.
    pub fn try_send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.begin();
        let sent = match self.attempt(&mut |start, room| write(&value, start, room)) {
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
        self.begin();
        let sent =
            poll_fn(|context| self.poll(context, &mut |start, room| write_ref(value, start, room))).await;
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

    /// The sender as a sink of values.
    pub fn into_sink(self) -> IntoSink<T> {
        IntoSink::new(self)
    }

    pub(crate) fn poll_value(&mut self, context: &mut Context<'_>, value: &T) -> Poll<Result<(), Reason>> {
        self.poll(context, &mut |start, room| write(value, start, room))
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        write: &mut dyn FnMut(*mut u8, usize) -> Written,
    ) -> Poll<Result<(), Reason>> {
        if self.attempt(write)? {
            return Poll::Ready(Ok(()));
        }
        let open = self.opened()?;
        open.hub.register(&open.port, open.wait(), context.waker());
        if open.ring.is_none() {
            open.hub.wake_for_ring(context.waker());
        }
        // What was waited for may have come before the waker was known.
        if self.attempt(write)? { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn block(
        &mut self,
        deadline: Option<Instant>,
        write: &mut dyn FnMut(*mut u8, usize) -> Written,
    ) -> Result<(), Reason> {
        self.begin();
        while !self.attempt(write)? {
            let (hub, sender, capacity) = (self.opened()?.hub, self.cell.id, self.cell.capacity);
            let open = self.opened()?;
            let in_time = match open.ring {
                Some(_) => hub.wait_port(&open.port, open.wait(), deadline),
                None => hub.wait_until(deadline, || open.port.has_news() || hub.has_ring(sender, capacity)),
            };
            if !in_time {
                return Err(Reason::TimedOut);
            }
        }
        Ok(())
    }

    /// Sends if nothing is in the way; `false` when anything is, and nothing was done. What almost every message
    /// takes: no result that is moved through memory, no call that is not inlined.
    #[inline]
    fn quick(&mut self, write: impl FnOnce(*mut u8, usize) -> Option<usize>) -> bool {
        let Some(Open { hub, port, ring: Some(ring), over: None, broken: None, .. }) =
            self.open.as_deref_mut()
        else {
            return false;
        };
        if hub.has_word() || port.has_news() {
            return false;
        }
        let Ok(Some(mut claim)) = ring.producer.claim(HEADER_BYTES) else { return false };
        let room = claim.payload_bytes_max();
        match write(claim.payload(), room) {
            Some(bytes) if frame_bytes(bytes, 0) <= room + HEADER_BYTES => {
                if claim.publish(bytes, &[]) == Wake::Peer
                    && let Some(open) = &mut self.open
                {
                    open.ring_doorbell();
                }
                true
            }
            _ => false,
        }
    }

    /// Begins a message: how much the one before needed, if it was given up, says nothing about this one.
    fn begin(&mut self) {
        if let Some(ring) = self.open.as_mut().and_then(|open| open.ring.as_mut()) {
            ring.needed = HEADER_BYTES;
        }
    }

    /// Sends if there is room now; `false` when there is none.
    fn attempt(&mut self, write: &mut dyn FnMut(*mut u8, usize) -> Written) -> Result<bool, Reason> {
        let sender = self.cell.id;
        let open = self.opened()?;
        open.hub.look();
        open.take_news();
        if let Some(over) = &open.over {
            return Err(over.into());
        }
        if let Some(broken) = &open.broken {
            return Err(Reason::Broken(broken.clone()));
        }
        let Some(ring) = &mut open.ring else { return Ok(false) };
        match ring.send(open.hub, sender, write)? {
            None => Ok(false),
            Some(Wake::No) => Ok(true),
            Some(Wake::Peer) => {
                open.ring_doorbell();
                Ok(true)
            }
        }
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
        let (cell, open) = (&self.cell, &mut self.open);
        let open = open.get_or_insert_with(|| {
            Box::new(Open {
                hub,
                port: hub.open(cell.id),
                ring: None,
                asked: false,
                over: None,
                broken: None,
                doorbell: None,
            })
        });
        if open.ring.is_none() {
            match hub.take_ring(cell.id, cell.capacity) {
                Some(unused) => {
                    let memory = unused.map().map_err(|error| Reason::Broken(error.to_string()))?;
                    memory.describe(type_hash::<T>(), std::any::type_name::<T>());
                    let memory = Arc::new(memory);
                    let wait = [Wait { memory: memory.clone(), position: 0, side: Side::Producer }];
                    open.ring = Some(Ring { producer: Producer::new(memory), needed: HEADER_BYTES, wait });
                    let word = OpenSender { sender: cell.id.to_word(), ring: unused.id };
                    open.take_news();
                    if open.doorbell.is_some() {
                        // The receiver has the ring already; the manager need not hear of its use before it does.
                        hub.tell_later(FromProcess::OpenSender(word));
                    } else {
                        hub.tell(FromProcess::OpenSender(word));
                    }
                }
                None if !open.asked => {
                    open.asked = true;
                    hub.want_ring(cell.id, cell.capacity);
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl Open {
    fn wait(&self) -> &[Wait] {
        self.ring.as_ref().map_or(&[], |ring| &ring.wait)
    }

    #[inline]
    fn take_news(&mut self) {
        if !self.port.has_news() {
            return;
        }
        for news in self.port.take_news() {
            match news {
                News::Paired { doorbell } => self.doorbell = Some(doorbell),
                News::ReceiverOver { over } => self.over = Some(over),
                News::Broken(text) => self.broken = Some(text),
                News::Incoming { .. } | News::SenderOver { .. } => {}
            }
        }
    }

    fn ring_doorbell(&mut self) {
        if self.doorbell.is_none() {
            // Whoever sleeps on this ring is paired with it, and the manager told us before it told them.
            self.hub.look();
            self.take_news();
        }
        if let Some(doorbell) = &self.doorbell {
            doorbell.ring();
        }
    }
}

impl Ring {
    /// Sends if there is room now; says whether the receiver must be woken.
    fn send(
        &mut self,
        hub: &Hub,
        sender: EndId,
        write: &mut dyn FnMut(*mut u8, usize) -> Written,
    ) -> Result<Option<Wake>, Reason> {
        let broken = |corrupt: transport::ring::Corrupt| Reason::Broken(corrupt.to_string());
        let capacity = self.producer.memory().capacity();
        let Some(mut claim) = self.producer.claim(self.needed).map_err(broken)? else {
            self.wait[0].position = self.producer.position_for(self.needed);
            return Ok(None);
        };
        let room = claim.payload_bytes_max();
        let (bytes, ends) = write(claim.payload(), room).map_err(Reason::Serialise)?;
        let frame = frame_bytes(bytes, ends.len());
        if frame > capacity - HEADER_BYTES {
            let limit = payload_bytes_max(capacity) - ends.len() * HEADER_BYTES;
            return Err(Reason::TooLarge { bytes, limit });
        }
        if frame > room + HEADER_BYTES {
            self.needed = frame;
            self.wait[0].position = self.producer.position_for(frame);
            return Ok(None);
        }
        self.needed = HEADER_BYTES;
        if ends.is_empty() {
            return Ok(Some(claim.publish(bytes, &[])));
        }
        if ends.len() > FRAME_ENDS_MAX {
            return Err(Reason::TooManyEnds { ends: ends.len(), limit: FRAME_ENDS_MAX });
        }
        ends.iter().try_for_each(|end| end.check_movable()).map_err(Reason::End)?;
        let ids: Vec<EndId> = ends.iter().map(|end| end.id).collect();
        // The manager hears of the transfer before anybody can read the frame.
        let word = Ends { via: sender.to_word(), ends: EndId::list_to_word(&ids) };
        hub.tell(FromProcess::Transfer(word));
        let wake = claim.publish(bytes, &ids);
        ends.iter().for_each(|end| end.mark_moved());
        Ok(Some(wake))
    }
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
        if let Some(open) = &self.open {
            open.hub.close(&open.port);
        }
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
