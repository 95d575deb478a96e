#![expect(unsafe_code, reason = "frames are read from memory that another process may map")]

use std::collections::VecDeque;

use protocol::{
    frame::{HEADER_BYTES, Header, Kind},
    link::{
        CREDIT_BYTES, DESCRIPTION_BYTES, SEALED_CREDIT_BYTES, SEALED_HEADER_BYTES, SEALED_PREFIX_BYTES,
        Sealed,
    },
};

use super::{Keys, LinkError, Linked, header_at, seal::Seal};
use crate::{
    layout::DRAINED_BY_LINK,
    ring::{Wake, wait},
    sync::{Ordering, fence},
};

/// The sender's side of a link: drains the sender's ring.
#[derive(Debug)]
pub struct Outgoing<M> {
    memory: M,
    seal: Option<Seal>,
    is_described: bool,
    /// Where the next frame is that was not gathered to be sent.
    tail: u64,
    /// Its number.
    sequence: u32,
    /// The ring holds what no frame can be: nothing behind that is sent.
    is_broken: bool,
    /// What was gathered, and is not wholly sent.
    going: Going,
    /// What is not sent from the ring itself.
    buffer: Vec<u8>,
    /// Bytes of frames that were gathered; as the receiver counts them, which is with short skips.
    gathered: u64,
    /// Bytes of frames that were sent.
    sent: u64,
    credits: Credits,
    given: Given,
}

/// What is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    Nothing,
    /// Frames in the ring.
    Ring {
        start: u64,
        bytes: usize,
    },
    /// The buffer, from there on. It holds so many bytes of frames.
    Buffer {
        start: usize,
        frame_bytes: usize,
    },
}

/// What comes from the receiver.
#[derive(Debug)]
struct Credits {
    seal: Option<Seal>,
    bytes: [u8; CREDITS_BYTES],
    filled: usize,
    /// The last credit.
    position: u64,
}

/// Room for some credits, so that they can be received at once.
const CREDITS_BYTES: usize = 8 * SEALED_CREDIT_BYTES;

/// What was given back to the producer.
#[derive(Debug, Default)]
struct Given {
    /// Skips that were gathered and are not given back: where each ends, as the receiver counts, and how much longer it
    /// is in the ring.
    skips: VecDeque<(u64, u64)>,
    /// By so much the ring's positions are ahead of the receiver's.
    ahead: u64,
    /// The position that the producer waited for when it was last woken.
    woken: u64,
}

/// A flush takes this part of the ring, or a frame that is larger.
const FLUSH_PART: usize = 8;

/// Whole frames behind one another.
struct Run {
    bytes: usize,
    frames: u32,
}

impl<M: Linked> Outgoing<M> {
    /// The sender's side of a link over which nothing went yet; for a ring from which nothing was read yet. `None` when
    /// there is one already, here or in another process: it drains the ring.
    pub fn new(memory: M, keys: Option<Keys>) -> Option<Self> {
        // One side alone gets the zero; nothing is read that another one has written for it.
        if memory.consumer_words().drainer.swap(DRAINED_BY_LINK, Ordering::Relaxed) != 0 {
            return None;
        }
        let (seal, credit_seal) = match &keys {
            Some(keys) => (Some(Seal::new(&keys.frames)), Some(Seal::new(&keys.credits))),
            None => (None, None),
        };
        Some(Outgoing {
            memory,
            seal,
            is_described: false,
            tail: 0,
            sequence: 0,
            is_broken: false,
            going: Going::Nothing,
            buffer: Vec::new(),
            gathered: 0,
            sent: 0,
            credits: Credits { seal: credit_seal, bytes: [0; CREDITS_BYTES], filled: 0, position: 0 },
            given: Given::default(),
        })
    }

    /// The memory of the ring.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Where the next frame is, or will be, that was not gathered to be sent.
    pub fn position(&self) -> u64 {
        self.tail
    }

    /// Bytes to be sent, the same until [`sent`](Self::sent) was called. `None` when nothing was committed that was not
    /// sent.
    pub fn pending(&mut self) -> Option<&[u8]> {
        if self.going == Going::Nothing {
            self.gather();
        }
        match self.going {
            Going::Nothing => None,
            Going::Ring { start, bytes } => {
                let first = self.memory.bytes(start, bytes);
                // SAFETY: whole frames, checked to be no larger than the ring together. They are published and not
                // given back, so a correct producer does not write them; of a hostile one, garbage is sent.
                Some(unsafe { std::slice::from_raw_parts(first, bytes) })
            }
            Going::Buffer { start, .. } => Some(&self.buffer[start..]),
        }
    }

    /// So many of the pending bytes were sent. Says whether the producer waits for space that comes free by it.
    ///
    /// # Panics
    /// When fewer are pending.
    pub fn sent(&mut self, bytes: usize) -> Wake {
        let pending = match self.going {
            Going::Nothing => 0,
            Going::Ring { bytes, .. } => bytes,
            Going::Buffer { start, .. } => self.buffer.len() - start,
        };
        assert!(bytes <= pending, "{bytes} bytes were sent of {pending}");
        let is_whole = bytes == pending;
        match &mut self.going {
            Going::Nothing => {}
            Going::Ring { start, bytes: left } => {
                *start += bytes as u64;
                *left -= bytes;
                self.sent += bytes as u64;
            }
            Going::Buffer { start, frame_bytes } => {
                *start += bytes;
                self.sent += if is_whole { *frame_bytes as u64 } else { 0 };
            }
        }
        if is_whole {
            self.going = Going::Nothing;
        }
        // A credit may be seen before the end of the send that it answers, and counts from then on.
        if self.credits.position > self.given_back() { self.give_back() } else { Wake::No }
    }

    /// Whether all that is committed was sent.
    pub fn is_drained(&self) -> bool {
        let has_frame = || wait::is_frame_at(&self.memory, self.tail);
        let is_undescribed = || !self.is_described && self.memory.description().is_some();
        self.going == Going::Nothing && (self.is_broken || !(has_frame() || is_undescribed()))
    }

    fn gather(&mut self) {
        if !self.is_described {
            let description = self.memory.description();
            if description.is_none() && !wait::is_frame_at(&self.memory, self.tail) {
                return;
            }
            // A sender that has described nothing is found out by the receiver.
            self.begin_buffer();
            self.buffer.extend_from_slice(&description.unwrap_or([0; DESCRIPTION_BYTES]));
            self.is_described = true;
            return self.send_buffer(0);
        }
        match self.seal {
            None => self.gather_plain(),
            Some(_) => self.gather_sealed(),
        }
    }

    fn gather_plain(&mut self) {
        let run = self.run(self.flush_bytes(), true);
        if run.bytes > 0 {
            self.going = Going::Ring { start: self.tail, bytes: run.bytes };
            self.pass(&run);
            return;
        }
        self.begin_buffer();
        self.take_odd();
        if !self.buffer.is_empty() {
            self.send_buffer(self.buffer.len());
        }
    }

    fn gather_sealed(&mut self) {
        self.begin_buffer();
        let (begin, mut has_frame) = (self.buffer.len(), false);
        loop {
            let taken = self.buffer.len() - begin;
            let run = self.run(self.flush_bytes().saturating_sub(taken), !has_frame);
            let bytes = self.memory.bytes(self.tail, run.bytes);
            // SAFETY: as in `pending`.
            self.buffer.extend_from_slice(unsafe { std::slice::from_raw_parts(bytes, run.bytes) });
            self.pass(&run);
            has_frame |= run.bytes > 0;
            if self.buffer.len() - begin >= self.flush_bytes() || !self.take_odd() {
                break;
            }
        }
        let frame_bytes = self.buffer.len() - begin;
        if frame_bytes > 0 {
            self.send_buffer(frame_bytes);
        }
    }

    fn flush_bytes(&self) -> usize {
        self.memory.capacity() / FLUSH_PART
    }

    /// The header of the frame at `position`, if it is there: read once, and what is wrong with it.
    fn header(&self, position: u64, sequence: u32) -> Option<([u8; HEADER_BYTES], Option<Header>)> {
        // SYNC: with the store in `Producer::show`.
        let length = self.memory.length_word(position).load(Ordering::Acquire);
        if length == 0 {
            return None;
        }
        let mut bytes = header_at(&self.memory, position);
        bytes[..size_of::<u32>()].copy_from_slice(&length.to_le_bytes());
        Some((bytes, Header::check(bytes, self.memory.capacity(), sequence).ok()))
    }

    /// The frames that come next, none of which is a skip, up to so many bytes; or one that is larger.
    fn run(&self, bytes_max: usize, even_if_large: bool) -> Run {
        let mut run = Run { bytes: 0, frames: 0 };
        while !self.is_broken && (run.bytes < bytes_max || run.frames == 0) {
            let position = self.tail + run.bytes as u64;
            let header = self.header(position, self.sequence.wrapping_add(run.frames));
            let Some((_, Some(header))) = header else { break };
            let bytes = run.bytes + header.frame_bytes();
            let fits = bytes <= bytes_max || (even_if_large && run.frames == 0);
            if header.kind == Kind::Skip || !fits {
                break;
            }
            run = Run { bytes, frames: run.frames + 1 };
        }
        run
    }

    fn pass(&mut self, run: &Run) {
        self.tail += run.bytes as u64;
        self.sequence = self.sequence.wrapping_add(run.frames);
        self.gathered += run.bytes as u64;
    }

    /// If what comes next is a skip, or no frame, it goes to the buffer. `true` when something may come behind it.
    fn take_odd(&mut self) -> bool {
        if self.is_broken {
            return false;
        }
        match self.header(self.tail, self.sequence) {
            Some((_, Some(header))) if header.kind == Kind::Skip => {
                // It goes as a short one.
                self.buffer.extend_from_slice(&Header { payload_bytes: 0, ..header }.encode());
                self.gathered += HEADER_BYTES as u64;
                self.tail += header.frame_bytes() as u64;
                self.sequence = self.sequence.wrapping_add(1);
                let longer = (header.frame_bytes() - HEADER_BYTES) as u64;
                self.given.skips.push_back((self.gathered, longer));
                true
            }
            Some((bytes, None)) => {
                // The receiver is told what is wrong by finding it, as it would in a ring that it shares.
                self.buffer.extend_from_slice(&bytes);
                self.gathered += HEADER_BYTES as u64;
                self.is_broken = true;
                false
            }
            _ => false,
        }
    }

    /// Empties the buffer, but for what is in front of a sealed frame.
    fn begin_buffer(&mut self) {
        self.buffer.clear();
        let prefix = if self.seal.is_some() { SEALED_PREFIX_BYTES } else { 0 };
        self.buffer.resize(prefix, 0);
    }

    /// Has the buffer sent, which holds so many bytes of frames.
    fn send_buffer(&mut self, frame_bytes: usize) {
        if let Some(seal) = &mut self.seal {
            let (prefix, content) = self.buffer.split_at_mut(SEALED_PREFIX_BYTES);
            let header = Sealed { content_bytes: content.len(), counter: seal.counter() }.encode();
            let tag = seal.seal(&header, content);
            prefix[..SEALED_HEADER_BYTES].copy_from_slice(&header);
            prefix[SEALED_HEADER_BYTES..].copy_from_slice(&tag);
        }
        self.going = Going::Buffer { start: 0, frame_bytes };
    }

    /// Where what comes from the receiver is to be received to; never empty.
    pub fn credit_space(&mut self) -> &mut [u8] {
        &mut self.credits.bytes[self.credits.filled..]
    }

    /// So many bytes came into that space. Gives space in the ring back, and says whether the producer waits for it.
    ///
    /// # Errors
    /// [`LinkError`] when they are no credits that a correct receiver makes.
    ///
    /// # Panics
    /// When the space is smaller.
    pub fn credits_received(&mut self, bytes: usize) -> Result<Wake, LinkError> {
        let before = self.credits.position;
        self.credits.take(bytes, self.gathered)?;
        Ok(if self.credits.position > before { self.give_back() } else { Wake::No })
    }

    /// How much was given back, as the receiver counts.
    fn given_back(&self) -> u64 {
        self.memory.consumer_words().consumed.load(Ordering::Relaxed).saturating_sub(self.given.ahead)
    }

    fn give_back(&mut self) -> Wake {
        // Frames end at multiples of a header's size; of one that is sent by half, that half may be credited.
        let position = self.credits.position.min(self.sent) & !(HEADER_BYTES as u64 - 1);
        while let Some((_, longer)) = self.given.skips.front().copied().filter(|(end, _)| *end <= position) {
            self.given.ahead += longer;
            self.given.skips.pop_front();
        }
        let position = position + self.given.ahead;
        // SYNC: with the load in `Producer::look`.
        self.memory.consumer_words().consumed.store(position, Ordering::Release);
        // SYNC: with the fence in `wait::begin_room_wait`: either it sees the position, or this sees its wait.
        fence(Ordering::SeqCst);
        wait::room_wake(&self.memory, position, &mut self.given.woken)
    }
}

impl Credits {
    /// Takes in all credits that are whole, none of which may be for more than `gathered`.
    fn take(&mut self, bytes: usize, gathered: u64) -> Result<(), LinkError> {
        assert!(bytes <= CREDITS_BYTES - self.filled, "more was received than there was space for");
        self.filled += bytes;
        let size = if self.seal.is_some() { SEALED_CREDIT_BYTES } else { CREDIT_BYTES };
        let whole = self.filled - self.filled % size;
        for credit in self.bytes[..whole].chunks_exact_mut(size) {
            let (position, tag) = credit.split_at_mut(CREDIT_BYTES);
            if let Some(seal) = &mut self.seal {
                let forged = LinkError::ForgedCredit { counter: seal.counter() };
                let tag = *tag.first_chunk().ok_or(forged)?;
                seal.open(&[], tag, position).ok_or(forged)?;
            }
            let mut number = [0; CREDIT_BYTES];
            number.copy_from_slice(position);
            let claimed = u64::from_le_bytes(number);
            let is_aligned = claimed.is_multiple_of(HEADER_BYTES as u64);
            if !is_aligned || claimed < self.position || claimed > gathered {
                return Err(LinkError::Credit { claimed, before: self.position, sent: gathered });
            }
            self.position = claimed;
        }
        self.bytes.copy_within(whole..self.filled, 0);
        self.filled -= whole;
        Ok(())
    }
}
