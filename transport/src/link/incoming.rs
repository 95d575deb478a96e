#![expect(unsafe_code, reason = "what arrives is written into a ring's free space")]

use std::ops::Range;

use protocol::{
    frame::{HEADER_BYTES, Header, Kind},
    link::{
        CREDIT_BYTES, DESCRIPTION_BYTES, SEALED_CREDIT_BYTES, SEALED_HEADER_BYTES, SEALED_PREFIX_BYTES,
        Sealed,
    },
};

use super::{Keys, LinkError, Linked, header_at, seal::Seal, window_bytes};
use crate::{
    ring::{Wake, wait},
    sync::Ordering,
};

/// The receiver's side of a link: fills the receiver's ring.
#[derive(Debug)]
pub struct Incoming<M> {
    memory: M,
    seal: Option<Seal>,
    stage: Stage,
    /// What does not go into the ring: the description, and what is in front of sealed frames.
    apart: [u8; SEALED_PREFIX_BYTES + DESCRIPTION_BYTES],
    /// So many bytes of it have come.
    apart_bytes: usize,
    /// The position up to which bytes of frames have come.
    received: u64,
    /// The position up to which they were found to be whole frames.
    checked: u64,
    /// The number of the next frame.
    sequence: u32,
    /// The last frame that was checked is a skip, which is published with the frame behind it.
    skips: bool,
    /// The consumer's wait for which it was woken.
    woken: u32,
    broken: Option<LinkError>,
    credits: Credits,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The description of the ring.
    Description,
    /// Frames as they are.
    Plain,
    /// What is in front of a sealed frame.
    Prefix,
    /// What was sealed, with this header; it goes into the ring up to `end`.
    Content { header: Sealed, end: u64 },
}

/// What the sender is told.
#[derive(Debug)]
struct Credits {
    seal: Option<Seal>,
    /// What the receiver had consumed when the last credit was made.
    told: u64,
    /// The last credit, and what of it was not sent yet.
    bytes: [u8; SEALED_CREDIT_BYTES],
    unsent: Range<usize>,
}

/// A credit is due when this part of the ring was consumed.
const CREDIT_PART: usize = 4;

impl<M: Linked> Incoming<M> {
    /// The receiver's side of a link of which nothing has come yet; for a ring from which nothing was read yet.
    pub fn new(memory: M, keys: Option<Keys>) -> Self {
        let (seal, credit_seal) = match &keys {
            Some(keys) => (Some(Seal::new(&keys.frames)), Some(Seal::new(&keys.credits))),
            None => (None, None),
        };
        Incoming {
            memory,
            seal,
            stage: Stage::Description,
            apart: [0; SEALED_PREFIX_BYTES + DESCRIPTION_BYTES],
            apart_bytes: 0,
            received: 0,
            checked: 0,
            sequence: 0,
            skips: false,
            woken: 0,
            broken: None,
            credits: Credits { seal: credit_seal, told: 0, bytes: [0; SEALED_CREDIT_BYTES], unsent: 0..0 },
        }
    }

    /// The memory of the ring.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Where what comes is to be received to; mostly a part of the ring's free space. Empty when the ring is full of
    /// frames that are unread, and when the link is broken. It grows as frames are read, and begins at the same place
    /// until [`received`](Self::received) was called.
    pub fn space(&mut self) -> &mut [u8] {
        let range = self.space_range();
        match self.stage {
            Stage::Description | Stage::Prefix => &mut self.apart[range],
            Stage::Plain | Stage::Content { .. } => {
                let start = self.memory.bytes(self.received, range.len());
                // SAFETY: `range` is no longer than the ring's free space, of which this side is the only user; the
                // side that fills a ring has mapped it for writing.
                unsafe { std::slice::from_raw_parts_mut(start, range.len()) }
            }
        }
    }

    /// The space as a range of `apart`, or of the ring from `received` on.
    fn space_range(&self) -> Range<usize> {
        if self.broken.is_some() {
            return 0..0;
        }
        match self.stage {
            Stage::Description if self.seal.is_none() => self.apart_bytes..DESCRIPTION_BYTES,
            Stage::Description => self.apart_bytes..self.apart.len(),
            Stage::Prefix => self.apart_bytes..SEALED_PREFIX_BYTES,
            Stage::Plain => 0..self.free(),
            // With what is in front of the next sealed frame, which saves a system call when there is one.
            Stage::Content { end, .. } => {
                0..self.free().min((end - self.received) as usize + SEALED_PREFIX_BYTES)
            }
        }
    }

    /// Bytes of the ring that hold nothing.
    fn free(&self) -> usize {
        let unread = self.received.saturating_sub(self.consumed());
        self.memory.capacity().saturating_sub(unread as usize)
    }

    fn consumed(&self) -> u64 {
        // SYNC: with the store in `Consumer::release`: the consumer has read what it gives back.
        self.memory.consumer_words().consumed.load(Ordering::Acquire)
    }

    /// So many bytes came into the space: opens and checks them, and publishes whole frames. Says whether the consumer
    /// sleeps.
    ///
    /// # Errors
    /// [`LinkError`] when they are not what a correct sender sends. Frames before that are published.
    ///
    /// # Panics
    /// When the space is smaller.
    pub fn received(&mut self, bytes: usize) -> Result<Wake, LinkError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        assert!(bytes <= self.space_range().len(), "more was received than there was space for");
        let taken = self.take(bytes);
        let wake = self.publish();
        match taken {
            Ok(()) => Ok(wake),
            Err(error) => {
                self.broken = Some(error);
                Err(error)
            }
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), LinkError> {
        match self.stage {
            Stage::Description => {
                self.apart_bytes += bytes;
                if self.space_range().is_empty() { self.take_description() } else { Ok(()) }
            }
            Stage::Plain => {
                self.received += bytes as u64;
                self.check_frames()
            }
            Stage::Prefix => {
                self.apart_bytes += bytes;
                self.take_prefix()
            }
            Stage::Content { header, end } => {
                let came = self.received + bytes as u64;
                self.received = came.min(end);
                if came < end { Ok(()) } else { self.take_content(header, (came - end) as usize) }
            }
        }
    }

    fn take_description(&mut self) -> Result<(), LinkError> {
        let start = match &mut self.seal {
            None => {
                self.stage = Stage::Plain;
                0
            }
            Some(seal) => {
                let (prefix, content) = self.apart.split_at_mut(SEALED_PREFIX_BYTES);
                let header = check_prefix(prefix, DESCRIPTION_BYTES, seal)?;
                open(seal, prefix, content, header)?;
                self.stage = Stage::Prefix;
                SEALED_PREFIX_BYTES
            }
        };
        if let Some(description) = self.apart[start..].first_chunk() {
            self.memory.set_description(description);
        }
        self.apart_bytes = 0;
        Ok(())
    }

    /// Looks at what is in front of a sealed frame, if all of it is there.
    fn take_prefix(&mut self) -> Result<(), LinkError> {
        let Some(seal) = &self.seal else { return Ok(()) };
        if self.apart_bytes < SEALED_PREFIX_BYTES {
            return Ok(());
        }
        let window = window_bytes(self.memory.capacity());
        let header = check_prefix(&self.apart, window, seal)?;
        let end = self.received + header.content_bytes as u64;
        self.check_window(end)?;
        self.stage = Stage::Content { header, end };
        Ok(())
    }

    /// Opens what was sealed, all of which is there, with `more` bytes behind it.
    fn take_content(&mut self, header: Sealed, more: usize) -> Result<(), LinkError> {
        let Some(seal) = &mut self.seal else { return Ok(()) };
        let len = header.content_bytes;
        let start = self.memory.bytes(self.checked, len);
        // SAFETY: the content lies in the ring's free space from `checked` on, is no longer than the ring
        // (`take_prefix`), and this side is its only user until it is published.
        let content = unsafe { std::slice::from_raw_parts_mut(start, len) };
        open(seal, &self.apart, content, header)?;
        let behind = self.memory.bytes(self.received, more);
        // SAFETY: `space` gave the bytes behind the content as well, which are free, and no more than what is in front
        // of a sealed frame.
        unsafe { self.apart.as_mut_ptr().copy_from_nonoverlapping(behind, more) };
        self.apart_bytes = more;
        self.stage = Stage::Prefix;
        self.check_frames()?;
        if self.checked != self.received {
            return Err(LinkError::Cut { counter: header.counter });
        }
        self.take_prefix()
    }

    /// Goes through the frames that have come, up to the first that is not whole.
    fn check_frames(&mut self) -> Result<(), LinkError> {
        while self.received - self.checked >= HEADER_BYTES as u64 {
            let bytes = header_at(&self.memory, self.checked);
            let header = Header::check(bytes, self.memory.capacity(), self.sequence)?;
            let skips = header.kind == Kind::Skip;
            if skips && self.skips {
                return Err(LinkError::Skips);
            }
            let end = self.checked + header.frame_bytes() as u64;
            self.check_window(end)?;
            if end > self.received {
                break;
            }
            self.checked = end;
            self.sequence = self.sequence.wrapping_add(1);
            self.skips = skips;
        }
        Ok(())
    }

    fn check_window(&self, end: u64) -> Result<(), LinkError> {
        let window = self.credits.told + window_bytes(self.memory.capacity()) as u64;
        if end > window { Err(LinkError::Overrun { end, window }) } else { Ok(()) }
    }

    /// Shows the consumer what was checked.
    fn publish(&mut self) -> Wake {
        let arrived = self.memory.arrived();
        if self.skips || arrived.load(Ordering::Relaxed) == self.checked {
            return Wake::No;
        }
        // SYNC: with the load in `Memory::length_word`: who sees the position sees the frames in front of it.
        arrived.store(self.checked, Ordering::Release);
        wait::frame_wake(&self.memory, &mut self.woken)
    }

    /// The link has ended: nothing more will come.
    ///
    /// # Errors
    /// [`LinkError::HalfFrame`] when it ended in the middle of a frame, and what was wrong before.
    pub fn end(&mut self) -> Result<(), LinkError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let half = self.received - self.memory.arrived().load(Ordering::Relaxed);
        let prefix = match self.stage {
            Stage::Content { .. } => SEALED_PREFIX_BYTES,
            _ => self.apart_bytes,
        };
        match half + prefix as u64 {
            0 => Ok(()),
            bytes => Err(LinkError::HalfFrame { bytes }),
        }
    }

    /// What the consumer must have consumed for the next credit to be due.
    pub fn credit_position(&self) -> u64 {
        self.credits.told + (self.memory.capacity() / CREDIT_PART) as u64
    }

    /// Bytes to be sent back, the same until [`credit_sent`](Self::credit_sent) has taken all of them. `None` when no
    /// credit is due: that is when a quarter of the ring was consumed since the last, or, when `idle`, anything.
    pub fn credit(&mut self, idle: bool) -> Option<&[u8]> {
        if self.credits.unsent.is_empty() {
            let consumed = self.consumed();
            let least = if idle { self.credits.told + 1 } else { self.credit_position() };
            if consumed < least || self.broken.is_some() {
                return None;
            }
            self.credits.make(consumed);
        }
        Some(&self.credits.bytes[self.credits.unsent.clone()])
    }

    /// So many bytes of the credit were sent.
    ///
    /// # Panics
    /// When it has fewer.
    pub fn credit_sent(&mut self, bytes: usize) {
        assert!(bytes <= self.credits.unsent.len(), "more was sent than there was of a credit");
        self.credits.unsent.start += bytes;
    }
}

impl Credits {
    fn make(&mut self, consumed: u64) {
        self.told = consumed;
        let (position, tag) = self.bytes.split_at_mut(CREDIT_BYTES);
        position.copy_from_slice(&consumed.to_le_bytes());
        self.unsent = match &mut self.seal {
            Some(seal) => {
                tag.copy_from_slice(&seal.seal(&[], position));
                0..SEALED_CREDIT_BYTES
            }
            None => 0..CREDIT_BYTES,
        };
    }
}

/// Checks what is in front of a sealed frame.
fn check_prefix(prefix: &[u8], content_max: usize, seal: &Seal) -> Result<Sealed, LinkError> {
    let mut header = [0; SEALED_HEADER_BYTES];
    header.copy_from_slice(&prefix[..SEALED_HEADER_BYTES]);
    Ok(Sealed::check(header, content_max, seal.counter())?)
}

/// Opens the content of a sealed frame in place.
fn open(seal: &mut Seal, prefix: &[u8], content: &mut [u8], header: Sealed) -> Result<(), LinkError> {
    let (bytes, tag) = prefix.split_at(SEALED_HEADER_BYTES);
    let forged = LinkError::Forged { counter: header.counter };
    let tag = *tag.first_chunk().ok_or(forged)?;
    seal.open(bytes, tag, content).ok_or(forged)
}
