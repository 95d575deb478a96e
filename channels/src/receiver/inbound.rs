//! One sender's ring, as its receiver reads it: frames become messages.
#![expect(unsafe_code, reason = "payloads are copied out of memory that another process writes")]

use std::sync::Arc;

use protocol::{
    control::{Ends, FromProcess},
    ending::Over,
    frame::{HEADER_BYTES, Kind},
    ids::EndId,
    limits::MESSAGE_BYTES_MAX,
};
use rkyv::util::AlignedVec;
use transport::{
    park,
    ring::{Consumer, Frame, Memory, Wake, wait},
    segment::Mapped,
};

use crate::{
    Data,
    data::type_hash,
    error::RecvError,
    hub::Hub,
    port::{Bell, Counts},
};

/// One sender's ring.
pub(crate) struct Inbound {
    pub(crate) hub: &'static Hub,
    pub(crate) sender: EndId,
    /// The last frame of the message that is lent.
    pub(crate) front: Frame,
    pub(crate) consumer: Consumer<Arc<Mapped>>,
    /// How the sender came to its end.
    pub(super) over: Option<Over>,
    /// What it has sent comes over a link, and there may be more.
    pub(super) is_linked: bool,
    /// The type that it carries was found to be the receiver's, with its first frame: before that the sender may
    /// not have said what it is.
    pub(super) is_checked: bool,
    bell: Bell,
    counts: Counts,
    /// What came of a message in parts, or the copy of one.
    whole: AlignedVec<16>,
    /// The frame with which the message in `whole` is complete.
    complete: Option<u32>,
}

/// So many parts of a message are put together before anything else is looked at.
const PARTS_AT_ONCE: u32 = 256;

/// What is next in a ring.
pub(super) enum Next {
    /// Nothing yet.
    Nothing,
    /// A message; it ends with this frame, which is in front.
    Message(Frame),
    /// So many messages were left out.
    Missed(u64),
}

impl Inbound {
    pub(super) fn new(
        hub: &'static Hub,
        sender: EndId,
        memory: Arc<Mapped>,
        bell: Bell,
        counts: Counts,
    ) -> Self {
        Inbound {
            hub,
            sender,
            front: Frame::default(),
            consumer: Consumer::new(memory),
            over: None,
            is_linked: matches!(bell, Bell::Link(..)),
            is_checked: false,
            bell,
            counts,
            whole: AlignedVec::new(),
            complete: None,
        }
    }

    /// Whether the sender is over, and all that it had sent is there.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_some() && !self.is_linked
    }

    /// Looks for the next message, and puts one in parts together as far as it has come.
    ///
    /// When many parts are there it gives `Nothing` in between, so that its caller can look at the clock.
    pub(super) fn next<T: Data>(&mut self) -> Result<Next, RecvError> {
        for _ in 0..PARTS_AT_ONCE {
            let Some(frame) = self.consumer.peek().map_err(broken)? else { return Ok(Next::Nothing) };
            if !self.is_checked {
                check_type::<T>(self.consumer.memory())?;
                self.is_checked = true;
            }
            match frame.kind() {
                Kind::Value => {
                    if self.complete != Some(frame.sequence()) && !self.whole.is_empty() {
                        self.forget_whole();
                    }
                    return Ok(Next::Message(frame));
                }
                Kind::FirstPart => {
                    self.forget_whole();
                    self.append(&frame)?;
                }
                Kind::MiddlePart => self.append_more(&frame)?,
                Kind::LastPart => {
                    if self.complete != Some(frame.sequence()) {
                        self.append_more(&frame)?;
                        self.complete = Some(frame.sequence());
                    }
                    return Ok(Next::Message(frame));
                }
                Kind::Missed => {
                    let count =
                        self.consumer.payload(&frame).first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
                    let count = count.ok_or_else(|| RecvError::Broken("a count is cut off".to_owned()))?;
                    self.free(&frame);
                    return Ok(Next::Missed(count));
                }
                Kind::Skip => return Err(broken(transport::ring::Corrupt::Skips)),
            }
            self.free(&frame);
        }
        Ok(Next::Nothing)
    }

    fn append_more(&mut self, frame: &Frame) -> Result<(), RecvError> {
        if self.whole.is_empty() || self.complete.is_some() {
            return Err(RecvError::Broken("a part of a message has no beginning".to_owned()));
        }
        self.append(frame)
    }

    /// Copies a payload behind what came before. Memory is taken only for what has come.
    fn append(&mut self, frame: &Frame) -> Result<(), RecvError> {
        let payload = self.consumer.payload(frame);
        if self.whole.len() + payload.len() > MESSAGE_BYTES_MAX {
            return Err(RecvError::Broken(format!("a message is larger than {MESSAGE_BYTES_MAX} bytes")));
        }
        self.whole.reserve(payload.len().next_multiple_of(HEADER_BYTES));
        let (from, len) = (payload.as_ptr().cast::<u128>(), self.whole.len());
        // SAFETY: the payload is aligned to sixteen bytes, and padded to them within its frame, which is mapped. Each
        // is read once, so that what is checked later is what was read here, whatever the sender does meanwhile. The
        // vector has room for them; where it ends need not be aligned.
        unsafe {
            let to = self.whole.as_mut_ptr().add(len).cast::<u128>();
            for chunk in 0..payload.len().div_ceil(HEADER_BYTES) {
                to.add(chunk).write_unaligned(from.add(chunk).read_volatile());
            }
            self.whole.set_len(len + payload.len());
        }
        Ok(())
    }

    /// Copies the message in front, so that its sender can't change it any more.
    pub(super) fn copy(&mut self, frame: &Frame) -> Result<(), RecvError> {
        if self.complete == Some(frame.sequence()) {
            return Ok(());
        }
        self.whole.clear();
        self.append(frame)?;
        self.complete = Some(frame.sequence());
        Ok(())
    }

    /// The archive of the message that ends with the frame in front.
    #[inline]
    pub(crate) fn bytes(&self, frame: &Frame) -> &[u8] {
        if self.complete == Some(frame.sequence()) { &self.whole } else { self.consumer.payload(frame) }
    }

    /// The ends in the message that is lent.
    pub(crate) fn ends(&self) -> Vec<EndId> {
        self.consumer.ends(&self.front).collect()
    }

    /// Nobody will take the ends out of the message that is lent.
    #[cold]
    pub(crate) fn discard_ends(&self) {
        let word = Ends { via: self.sender.to_word(), ends: EndId::list_to_word(&self.ends()) };
        self.hub.tell(FromProcess::Discard(word));
    }

    /// Gives the space of the message that is lent back.
    #[inline(always)]
    pub(crate) fn release(&mut self) {
        let frame = self.front;
        let mut bytes = frame.payload_bytes();
        if self.complete.is_some() {
            bytes = self.whole.len();
            self.forget_whole();
        }
        self.counts.message(bytes);
        self.free(&frame);
    }

    #[inline(always)]
    fn free(&mut self, frame: &Frame) {
        if let Wake::Peer(slot) = self.consumer.release(frame) {
            self.wake(slot);
        }
    }

    #[cold]
    fn wake(&mut self, slot: u32) {
        wait::tell_cpu(&self.consumer.memory().consumer_words().address, park::cpu());
        self.bell.ring(slot);
        self.counts.wake();
    }

    /// Drops what was put together; room for another small message is kept.
    #[cold]
    fn forget_whole(&mut self) {
        self.complete = None;
        self.whole.clear();
        if self.whole.capacity() > self.consumer.memory().capacity() {
            self.whole = AlignedVec::new();
        }
    }
}

fn broken(corrupt: transport::ring::Corrupt) -> RecvError {
    RecvError::Broken(corrupt.to_string())
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
