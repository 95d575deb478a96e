//! Bytes that are written where they will be read.
#![expect(unsafe_code, reason = "a slice of a ring's memory is lent for writing")]

use std::{
    fmt,
    future::poll_fn,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use bytes::Bytes;
use protocol::frame::{Kind, frame_bytes, payload_bytes_max};
use rkyv::{
    Place,
    vec::{ArchivedVec, VecResolver},
};
use transport::{
    ring::{Claim, Memory},
    segment::Mapped,
};

use super::{Sender, open::Waker};
use crate::error::{Reason, SendError};

type Archived = ArchivedVec<u8>;

impl Sender<Bytes> {
    /// Reserves `len` bytes in the ring, waiting for room: they are written in place, and sent by
    /// [`Slot::commit`]. What they hold at first is left over from earlier messages of this sender.
    ///
    /// ```no_run
    /// # use channels as archean;
    /// use archean::{Bytes, SendError, Sender};
    ///
    /// async fn count(mut numbers: Sender<Bytes>) -> Result<(), SendError<()>> {
    ///     for number in 0..100_u64 {
    ///         let mut slot = numbers.reserve(8).await?;
    ///         slot.copy_from_slice(&number.to_le_bytes());
    ///         slot.commit(8);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`SendError`]; [`Reason::TooLarge`] when they take more than the channel's capacity. Such bytes can still be
    /// sent by [`send`](Sender::send), in parts.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has reserved nothing.
    pub async fn reserve(&mut self, len: usize) -> Result<Slot<'_>, SendError<()>> {
        let mut has_room = |sender: &mut Self| sender.has_room(len);
        poll_fn(|context| self.poll_until(context, &mut has_room)).await.map_err(failed)?;
        self.slot(len)
    }

    /// As [`reserve`](Self::reserve), blocking the thread.
    ///
    /// # Errors
    /// As for [`reserve`](Self::reserve).
    pub fn reserve_blocking(&mut self, len: usize) -> Result<Slot<'_>, SendError<()>> {
        self.block_until(None, &mut |sender| sender.has_room(len)).map_err(failed)?;
        self.slot(len)
    }

    /// Reserves `len` bytes if there is room for them now.
    ///
    /// # Errors
    /// As for [`reserve`](Self::reserve), and [`Reason::Full`].
    pub fn try_reserve(&mut self, len: usize) -> Result<Slot<'_>, SendError<()>> {
        if self.has_room(len).map_err(failed)? { self.slot(len) } else { Err(failed(Reason::Full)) }
    }

    fn has_room(&mut self, len: usize) -> Result<bool, Reason> {
        let open = self.opened()?;
        if open.clear().is_none() {
            open.check()?;
        }
        let Some(ring) = &mut open.ring else { return Ok(false) };
        let limit = payload_bytes_max(ring.producer.memory().capacity());
        // So many that nothing can be added are over the limit as they are.
        let bytes = if len > limit { len } else { payload_bytes(len) };
        if bytes > limit {
            return Err(Reason::TooLarge { bytes, limit });
        }
        let has_room = ring.claim(frame_bytes(bytes, 0))?.is_some();
        if !has_room {
            open.port.counts.full();
        }
        Ok(has_room)
    }

    /// The bytes for which room was found.
    fn slot(&mut self, len: usize) -> Result<Slot<'_>, SendError<()>> {
        let open = self.opened().map_err(failed)?;
        let waker = Waker { hub: open.hub, port: &open.port, peer: &mut open.peer };
        let ring = open.ring.as_mut().ok_or_else(|| failed(Reason::Full))?;
        let claim = ring.claim(frame_bytes(payload_bytes(len), 0)).map_err(failed)?;
        let claim = claim.ok_or_else(|| failed(Reason::Full))?;
        Ok(Slot { claim, len, waker })
    }
}

fn failed(reason: Reason) -> SendError<()> {
    SendError { value: (), reason }
}

/// Where the archived vector is, behind its bytes.
const fn root(len: usize) -> usize {
    len.next_multiple_of(align_of::<Archived>())
}

const fn payload_bytes(len: usize) -> usize {
    root(len) + size_of::<Archived>()
}

/// Bytes in a ring that are not sent yet. Dropping it sends nothing.
///
/// ```no_run
/// # use channels as archean;
/// use std::io::{self, Read};
///
/// use archean::Slot;
///
/// /// Fills a slot from a reader, and sends what has come; nothing at its end.
/// fn fill(mut slot: Slot<'_>, mut from: impl Read) -> io::Result<usize> {
///     let read = from.read(&mut slot)?;
///     if read > 0 {
///         slot.commit(read);
///     }
///     Ok(read)
/// }
/// ```
#[must_use = "a slot that is not committed sends nothing"]
pub struct Slot<'s> {
    claim: Claim<'s, Arc<Mapped>>,
    len: usize,
    waker: Waker<'s>,
}

impl Slot<'_> {
    /// Sends the first `len` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn commit(self, len: usize) {
        assert!(len <= self.len, "{len} bytes are to be sent, but {} were reserved", self.len);
        let root = root(len);
        let start = self.claim.payload();
        // SAFETY: room for `payload_bytes(self.len)` was claimed, which is no less than is written here. The root is
        // aligned: the payload is to sixteen bytes, and `root` is a multiple of its alignment. The bytes in front
        // of it were written, here or by earlier messages; the padding is made zero.
        unsafe {
            start.add(len).write_bytes(0, root - len);
            let place = Place::<Archived>::new_unchecked(root, start.add(root).cast());
            Archived::resolve_from_len(len, VecResolver::from_pos(0), place);
        }
        let Slot { claim, mut waker, .. } = self;
        let producer = claim.hold(Kind::Value, payload_bytes(len), &[]);
        waker.port.counts.message(payload_bytes(len));
        let wake = producer.flush();
        waker.answer(wake, producer.memory());
    }
}

impl Deref for Slot<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes were claimed; they are this process's to read and write until the claim ends, and any
        // bytes that the mapping holds are initialised.
        unsafe { std::slice::from_raw_parts(self.claim.payload(), self.len) }
    }
}

impl DerefMut for Slot<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.claim.payload(), self.len) }
    }
}

impl fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("len", &self.len).finish_non_exhaustive()
    }
}
