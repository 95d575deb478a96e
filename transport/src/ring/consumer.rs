#![expect(unsafe_code, reason = "frames are read from memory that another process maps")]

use protocol::{
    frame::{END_BYTES, HEADER_BYTES, Header, KIND_OFFSET, Kind, SEQUENCE_OFFSET, frame_bytes},
    ids::EndId,
};

use super::{Corrupt, Memory, Wake, wait};
use crate::{
    layout::MODE_SLEEPY,
    sync::{AtomicU32, Ordering, spin_loop},
};

/// The side of a ring that reads frames.
#[derive(Debug)]
pub struct Consumer<M> {
    memory: M,
    /// Where the next frame is.
    tail: u64,
    sequence: u32,
    /// The position that the producer waited for when its doorbell was last rung.
    woken: u64,
    /// Frames taken since none was there.
    run: u32,
    /// How long it let itself slip behind the last time.
    slip_pauses: u32,
    /// The frame at which this side last looked at its mode, and the mode: it has changed if there was a wait since.
    settled_at: u32,
    settled_mode: u32,
}

/// So many frames without a wait in between make a stream.
const FRAMES_FOR_STREAM: u32 = 64;

/// Who has found so many frames in a row, and then none, is reading a stream, and has caught up with its sender.
const RUN_TO_SLIP: u32 = 16;

/// So many frames are to come together while it leaves its sender alone.
const RUN_WANTED: u32 = 128;

/// So long it does at least, and at most.
const SLIP_PAUSES_MIN: u32 = 16;
/// See [`SLIP_PAUSES_MIN`].
const SLIP_PAUSES_MAX: u32 = 256;

/// The frame in front of a ring, read and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    payload_bytes: u32,
    sequence: u32,
    ends: u16,
    kind: Kind,
}

impl Default for Frame {
    /// An empty value.
    fn default() -> Self {
        Frame { payload_bytes: 0, sequence: 0, ends: 0, kind: Kind::Value }
    }
}

impl Frame {
    fn of(header: Header) -> Frame {
        let Header { payload_bytes, kind, ends, sequence, .. } = header;
        // `Header::check` made sure that both are small.
        Frame { payload_bytes: payload_bytes as u32, sequence, ends: ends as u16, kind }
    }

    /// What it is.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes of its payload.
    #[inline]
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes as usize
    }

    /// How many ends it holds.
    #[inline]
    pub fn ends(&self) -> usize {
        self.ends.into()
    }

    /// Its number.
    #[inline]
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Its whole size in the ring.
    #[inline]
    pub fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload_bytes(), self.ends())
    }
}

impl<M: Memory> Consumer<M> {
    /// The consumer of a ring from which nothing was taken yet.
    pub fn new(memory: M) -> Self {
        Consumer {
            memory,
            tail: 0,
            sequence: 0,
            woken: 0,
            run: 0,
            slip_pauses: SLIP_PAUSES_MIN,
            settled_at: 0,
            settled_mode: 0,
        }
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Where the next frame is or will be.
    pub fn position(&self) -> u64 {
        self.tail
    }

    /// The word that turns from zero to something else when the next frame is published.
    #[inline]
    pub fn next_word(&self) -> &AtomicU32 {
        self.memory.length_word(self.tail)
    }

    /// The next frame, if it is there.
    ///
    /// # Errors
    /// [`Corrupt`] when its header is one that no correct producer writes.
    pub fn peek(&mut self) -> Result<Option<Frame>, Corrupt> {
        match self.read_header()? {
            Some(header) if header.kind == Kind::Skip => self.skip(&header),
            header => Ok(header.map(Frame::of)),
        }
    }

    /// The next frame, if it is there and holds one whole value without ends; otherwise [`peek`](Self::peek) tells what
    /// is there. What almost every message takes.
    #[inline]
    pub fn peek_plain(&self) -> Option<Frame> {
        // SYNC: with the store in `Producer::show`.
        let length = self.next_word().load(Ordering::Acquire);
        // Less than a header wraps to something large.
        let payload_bytes = (length as usize).wrapping_sub(HEADER_BYTES);
        if payload_bytes > self.memory.capacity() - 2 * HEADER_BYTES {
            return None;
        }
        let start = self.memory.bytes(self.tail, HEADER_BYTES);
        // SAFETY: a header's bytes are readable and aligned to sixteen (`Memory::bytes`). Each is read once, since a
        // hostile producer may change them at any time.
        let (kind, sequence) = unsafe {
            let kind = start.add(KIND_OFFSET).cast::<u32>().read_volatile();
            (kind, start.add(SEQUENCE_OFFSET).cast::<u32>().read_volatile())
        };
        let is_plain = u32::from_le(kind) == Kind::Value as u32 && u32::from_le(sequence) == self.sequence;
        let frame = Frame {
            payload_bytes: payload_bytes as u32,
            sequence: self.sequence,
            kind: Kind::Value,
            ends: 0,
        };
        is_plain.then_some(frame)
    }

    #[inline]
    fn read_header(&self) -> Result<Option<Header>, Corrupt> {
        // SYNC: with the store in `Producer::show`.
        let length = self.next_word().load(Ordering::Acquire);
        if length == 0 {
            return Ok(None);
        }
        let start = self.memory.bytes(self.tail, HEADER_BYTES);
        // SAFETY: a header's bytes are readable (`Memory::bytes`). They are read once: a hostile producer may
        // change them at any time, and what was read here is what is checked.
        let mut bytes = unsafe { start.cast::<[u8; HEADER_BYTES]>().read_volatile() };
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        Ok(Some(Header::check(bytes, self.memory.capacity(), self.sequence)?))
    }

    /// Goes on behind a skip. The frame there was published together with it.
    #[cold]
    fn skip(&mut self, skip: &Header) -> Result<Option<Frame>, Corrupt> {
        self.tail += skip.frame_bytes() as u64;
        self.sequence = self.sequence.wrapping_add(1);
        match self.read_header()? {
            // A chain of skips could keep the reader busy for ever.
            Some(header) if header.kind == Kind::Skip => Err(Corrupt::Skips),
            header => Ok(header.map(Frame::of)),
        }
    }

    /// To be called when no frame is there. A consumer that is just as fast as its producer would read each line
    /// while it is still being written, and both would wait for the line to go to and fro; so one that reads a
    /// stream lets itself slip behind, far enough for a good number of frames to come together. Gives `true` when it
    /// did, and it is worth another look.
    #[inline]
    pub fn slip(&mut self) -> bool {
        let run = std::mem::replace(&mut self.run, 0);
        if run < RUN_TO_SLIP {
            return false;
        }
        self.slip_pauses = match run {
            ..RUN_WANTED => (self.slip_pauses * 2).min(SLIP_PAUSES_MAX),
            _ => (self.slip_pauses - self.slip_pauses / 4).max(SLIP_PAUSES_MIN),
        };
        (0..self.slip_pauses).for_each(|_| spin_loop());
        true
    }

    /// The payload of the frame that [`peek`](Self::peek) gave.
    #[inline]
    pub fn payload(&self, frame: &Frame) -> &[u8] {
        let bytes = self.bytes_of(HEADER_BYTES, frame.payload_bytes());
        // SAFETY: `bytes_of` made sure that these bytes lie in the ring, and the slice borrows this consumer, so no
        // `release` can give the space back meanwhile. A correct producer does not write what it has published;
        // what a hostile one could do is said where a receiver is made.
        unsafe { std::slice::from_raw_parts(bytes, frame.payload_bytes()) }
    }

    /// The ends that the frame holds.
    pub fn ends(&self, frame: &Frame) -> impl Iterator<Item = EndId> {
        let count = frame.ends();
        let table = HEADER_BYTES + frame.payload_bytes().next_multiple_of(HEADER_BYTES);
        let table = self.bytes_of(table, count * END_BYTES);
        (0..count).map(move |index| {
            // SAFETY: `bytes_of` made sure that the table lies in the ring.
            let entry = unsafe { table.add(index * END_BYTES).cast::<[u8; END_BYTES]>().read_volatile() };
            EndId::from_bytes(entry)
        })
    }

    /// Where a part of the frame in front is; checked anew, since a frame could be one of another ring.
    #[inline]
    fn bytes_of(&self, offset: usize, len: usize) -> *const u8 {
        assert!(offset + len <= self.memory.capacity(), "a frame of another ring");
        let start = self.memory.bytes(self.tail, offset + len);
        // SAFETY: `Memory::bytes` gives `offset + len` contiguous bytes.
        unsafe { start.add(offset) }
    }

    /// Gives the space of the next frame back, and says whether the producer waits for it.
    #[inline]
    pub fn release(&mut self, frame: &Frame) -> Wake {
        self.tail += frame.frame_bytes() as u64;
        self.sequence = self.sequence.wrapping_add(1);
        self.run = self.run.wrapping_add(1);
        // SYNC: with the load in `Producer::look`.
        self.memory.consumer_words().consumed.store(self.tail, Ordering::Release);
        // No fence, it would cost every message: a producer that goes to sleep just now, unseen here, looks again
        // after a first sleep that is bounded.
        wait::room_wake(&self.memory, self.tail, &mut self.woken)
    }

    /// To be called now and then while frames come. When enough came without a wait in between, the consumer
    /// turns to streaming, which spares the producer its fence. Not for a consumer whose first sleep nobody bounds.
    #[inline]
    pub fn settle(&mut self) {
        if self.sequence.wrapping_sub(self.settled_at) >= FRAMES_FOR_STREAM {
            self.settle_now();
        }
    }

    #[cold]
    fn settle_now(&mut self) {
        self.settled_at = self.sequence;
        let mode = &self.memory.consumer_words().mode;
        let now = mode.load(Ordering::Relaxed);
        if now == self.settled_mode && now & MODE_SLEEPY != 0 {
            // The number stays, so that the producer does not take the next wait for one that it has answered. If
            // a driver has begun a wait meanwhile, that wait stands.
            let _ = mode.compare_exchange(now, now & !MODE_SLEEPY, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.settled_mode = now;
    }
}
