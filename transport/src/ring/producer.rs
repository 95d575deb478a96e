#![expect(unsafe_code, reason = "frames are written into memory that another process maps")]

use std::ops::Range;

use protocol::{
    frame::{END_BYTES, FLAG_ENDS, HEADER_BYTES, KIND_OFFSET, Kind, SEQUENCE_OFFSET},
    ids::EndId,
    limits::FRAME_ENDS_MAX,
};

use super::{Corrupt, Memory, Wake, wait};
use crate::{
    layout::PAGE_BYTES,
    sync::{Ordering, spin_loop},
};

/// The side of a ring that writes frames.
#[derive(Debug)]
pub struct Producer<M> {
    memory: M,
    /// Where the next frame goes.
    head: u64,
    /// Up to there the producer may write without looking at anything else.
    clear: u64,
    sequence: u32,
    /// The consumer's wait for which its doorbell was rung.
    woken: u32,
    /// What the last frame took.
    usual: usize,
    /// The first frame that is not published yet, and its length word.
    held: Option<(u64, u32)>,
    /// What the consumer was last seen to have consumed.
    consumed: u64,
    /// So many bytes of the ring were used; what is behind them was not touched yet.
    touched: usize,
    /// The last skip that began in an empty ring.
    skipped: Range<u64>,
    /// So many bytes it may write at most without looking at anything else.
    stride: u64,
}

/// Free space in a ring, to be filled with one frame. Dropping it publishes nothing.
#[derive(Debug)]
pub struct Claim<'p, M> {
    producer: &'p mut Producer<M>,
    /// Bytes that are skipped in front of the frame.
    skip: usize,
    /// Bytes that the frame may take, its header included.
    free: usize,
}

/// A ring that is emptied quickly keeps to so much memory.
const TOUCHED_AT_FIRST: usize = 4 * PAGE_BYTES;

/// No more new memory than this is made ready at once: it takes time.
const PREPARED_BYTES_MAX: usize = 64 * PAGE_BYTES;

/// A frame of this size or more is worth looking whether the ring is empty.
const LARGE_BYTES: usize = 16 << 10;

/// Less free room than this part of the ring is little.
const ROOM_PART: usize = 8;

/// So long a consumer that is the slower side is left alone.
const SLIP_PAUSES: u32 = 16;

/// Where large frames start.
const LARGE_ALIGNMENT: usize = 64;

impl<M: Memory> Producer<M> {
    /// The producer of a ring that has not been used yet.
    pub fn new(memory: M) -> Self {
        let touched = TOUCHED_AT_FIRST.min(memory.capacity());
        Producer {
            memory,
            head: 0,
            clear: touched as u64,
            sequence: 0,
            woken: 0,
            usual: HEADER_BYTES,
            held: None,
            consumed: 0,
            touched,
            skipped: 0..0,
            stride: u64::MAX,
        }
    }

    /// The memory.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Where the next frame goes.
    pub fn position(&self) -> u64 {
        self.head
    }

    /// Has [`claim_usual`](Self::claim_usual) give nothing whenever so many bytes were written, so that its caller can
    /// look at other things.
    pub fn set_stride(&mut self, bytes: usize) {
        self.stride = bytes as u64;
        self.clear = self.clear.min(self.head.saturating_add(self.stride));
    }

    /// Claims free space for a frame; `None` when one of `frame_bytes` has no room. Frames that are held have to be
    /// published before the consumer can make room.
    ///
    /// # Errors
    /// [`Corrupt`] when the consumer's position makes no sense.
    #[inline]
    pub fn claim(&mut self, frame_bytes: usize) -> Result<Option<Claim<'_, M>>, Corrupt> {
        match self.claim_clear(frame_bytes) {
            Some(free) => Ok(Some(Claim { free, skip: 0, producer: self })),
            None => self.claim_anew(frame_bytes),
        }
    }

    /// Claims space for a frame as large as the last one, if it is at hand without looking at the consumer's words.
    #[inline]
    pub fn claim_usual(&mut self) -> Option<Claim<'_, M>> {
        let free = self.claim_clear(self.usual)?;
        Some(Claim { free, skip: 0, producer: self })
    }

    #[inline]
    fn claim_clear(&self, frame_bytes: usize) -> Option<usize> {
        let free = self.clear.saturating_sub(self.head) as usize;
        // A frame has a header, whatever is asked for.
        let has_room = free >= frame_bytes.max(HEADER_BYTES) + HEADER_BYTES;
        (has_room && frame_bytes < LARGE_BYTES).then(|| free - HEADER_BYTES)
    }

    #[cold]
    fn claim_anew(&mut self, frame_bytes: usize) -> Result<Option<Claim<'_, M>>, Corrupt> {
        let frame_bytes = frame_bytes.max(HEADER_BYTES);
        if self.free() < frame_bytes {
            self.find_room()?;
        }
        // Frames are mostly as large as the one before.
        let likely = frame_bytes.max(self.usual);
        let mut skip = self.go_back(likely)?;
        let mut free = self.free() - skip;
        if free < frame_bytes {
            (skip, free) = self.hop();
        }
        self.clear = match (skip, self.memory.capacity()) {
            (0, capacity) if self.touched == capacity => self.consumed + capacity as u64,
            // Behind what was touched the producer stops, and looks whether it can go back.
            (0, capacity) => {
                let untouched = self.head + (self.touched.saturating_sub(self.offset())) as u64;
                untouched.min(self.consumed + capacity as u64)
            }
            _ => self.head,
        };
        self.clear = self.clear.min(self.head.saturating_add(self.stride));
        Ok((free >= frame_bytes).then_some(Claim { free, skip, producer: self }))
    }

    /// The position that the consumer must reach before a frame of `frame_bytes` has room.
    pub fn position_for(&self, frame_bytes: usize) -> u64 {
        let end = self.head + (frame_bytes + HEADER_BYTES) as u64;
        end.saturating_sub(self.memory.capacity() as u64)
    }

    /// Publishes the frames that are held, and says whether the consumer must be woken.
    #[inline]
    pub fn flush(&mut self) -> Wake {
        match self.held.take() {
            Some((position, length)) => self.show(position, length),
            None => Wake::No,
        }
    }

    /// Publishes all from the frame at `position` on, whose length word that is.
    #[inline]
    fn show(&mut self, position: u64, length: u32) -> Wake {
        self.memory.length_word(self.head).store(0, Ordering::Relaxed);
        // SYNC: with the load in `Consumer::peek`: who sees the length sees the frames and the zero behind them.
        self.memory.length_word(position).store(length, Ordering::Release);
        wait::frame_wake(&self.memory, &mut self.woken)
    }

    /// Bytes that are written and not published.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        self.held.map_or(0, |(position, _)| (self.head - position) as usize)
    }

    /// Bytes for one more frame, when room is left for the header behind it.
    #[inline]
    fn free(&self) -> usize {
        self.memory.capacity() - (self.head - self.consumed) as usize - HEADER_BYTES
    }

    #[inline]
    fn offset(&self) -> usize {
        self.head as usize & (self.memory.capacity() - 1)
    }

    /// How many bytes to skip so that the next frame comes behind the header of a skip that the consumer has not
    /// read yet, and how many are free there: what was skipped then. Zeros when no such skip is in the way.
    fn hop(&self) -> (usize, usize) {
        let skipped = (self.skipped.end - self.skipped.start) as usize;
        if self.consumed != self.skipped.start || skipped < 4 * HEADER_BYTES {
            return (0, 0);
        }
        let behind = self.skipped.start + (self.memory.capacity() + HEADER_BYTES) as u64;
        ((behind - self.head) as usize, skipped - 2 * HEADER_BYTES)
    }

    /// Looks how far the consumer is. If it works, and there is little room, it is the slower side: then it is left
    /// alone for a moment, because it has to wait for its line whenever this side reads it.
    #[cold]
    fn find_room(&mut self) -> Result<(), Corrupt> {
        let before = self.consumed;
        self.look()?;
        if self.consumed > before && self.free() < self.memory.capacity() / ROOM_PART {
            (0..SLIP_PAUSES).for_each(|_| spin_loop());
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Corrupt> {
        // SYNC: with the store in `Consumer::release`: the consumer has read what it gives back.
        let claimed = self.memory.consumer_words().consumed.load(Ordering::Acquire);
        if claimed == self.skipped.start && self.consumed == self.skipped.end {
            // What was skipped is in use again, and the consumer has not got there yet.
            return Ok(());
        }
        // Frames end at multiples of a header's size, and space is granted by that measure.
        let aligned = claimed.is_multiple_of(HEADER_BYTES as u64);
        let written = self.held.map_or(self.head, |(position, _)| position);
        if claimed < self.consumed || claimed > written || !aligned {
            return Err(Corrupt::Consumed { claimed, before: self.consumed, written });
        }
        self.consumed = claimed;
        Ok(())
    }

    /// How many bytes to skip, so that a frame of `frame_bytes` uses memory that was used before: to the ring's
    /// start, or to just in front of where the producer is. Where that can't be, new memory is made ready.
    fn go_back(&mut self, frame_bytes: usize) -> Result<usize, Corrupt> {
        let (capacity, offset) = (self.memory.capacity(), self.offset());
        let needed = frame_bytes + HEADER_BYTES;
        // Behind a skip to the ring's end lies a gap that may never be used.
        let is_new = offset <= self.touched && self.touched < (offset + needed).min(capacity);
        if !is_new && frame_bytes < LARGE_BYTES {
            return Ok(0);
        }
        self.look()?;
        if self.consumed == self.head {
            // What is skipped to must not reach the header that says so.
            if needed <= offset {
                return Ok(capacity - offset);
            }
            let needed = needed + (offset.wrapping_sub(needed) & (LARGE_ALIGNMENT - 1));
            if frame_bytes >= LARGE_BYTES && offset > 0 && needed <= capacity / 2 {
                return Ok(capacity - needed);
            }
        }
        if is_new {
            let end = (offset + needed).min(capacity);
            let ahead = self.touched.min(PREPARED_BYTES_MAX);
            let touched = end.max(self.touched + ahead).next_multiple_of(PAGE_BYTES).min(capacity);
            self.memory.prepare(self.touched, touched - self.touched);
            self.touched = touched;
        }
        Ok(0)
    }

    /// Ends the frame at `head`, whose length word that is.
    #[inline]
    fn hold(&mut self, length: u32, frame_bytes: usize) {
        match self.held {
            // Whoever sees the first frame's length has to see this.
            Some(_) => self.memory.length_word(self.head).store(length, Ordering::Relaxed),
            None => self.held = Some((self.head, length)),
        }
        self.advance(frame_bytes);
    }

    #[inline]
    fn advance(&mut self, frame_bytes: usize) {
        self.head += frame_bytes as u64;
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// Writes all of a header but its length word.
    #[inline]
    fn write_header(&mut self, kind: Kind, ends: usize) {
        let flags = if ends == 0 { 0 } else { FLAG_ENDS };
        let kind = u32::from_le_bytes([kind as u8, flags, ends as u8, (ends >> 8) as u8]);
        let start = self.memory.bytes(self.head, HEADER_BYTES);
        // SAFETY: a header's bytes are writable and aligned to sixteen (`Memory::bytes`, the producer's mapping), and
        // the consumer does not read them yet: it reads no further than the length word, which is zero or lies behind
        // one that is, and is left to atomic stores.
        unsafe {
            start.add(KIND_OFFSET).cast::<u32>().write(kind.to_le());
            start.add(SEQUENCE_OFFSET).cast::<u64>().write(u64::from(self.sequence).to_le());
        }
    }
}

impl<'p, M: Memory> Claim<'p, M> {
    /// How many bytes the payload may take when the frame holds no ends.
    #[inline]
    pub fn payload_bytes_max(&self) -> usize {
        self.free - HEADER_BYTES
    }

    /// The space for the payload, aligned to sixteen bytes; valid for writes of
    /// [`payload_bytes_max`](Self::payload_bytes_max) bytes while the claim lives.
    #[inline]
    pub fn payload(&self) -> *mut u8 {
        let start = self.producer.head + self.skip as u64;
        // SAFETY: `free` contiguous bytes are there (`Memory::bytes`), and no fewer than a header's.
        unsafe { self.producer.memory.bytes(start, self.free).add(HEADER_BYTES) }
    }

    /// Publishes the first `payload_bytes` of the space as one value that holds `ends`, after whatever is held.
    ///
    /// # Panics
    /// When the frame takes more than was claimed, or holds more than [`FRAME_ENDS_MAX`] ends.
    #[inline]
    pub fn publish(self, payload_bytes: usize, ends: &[EndId]) -> Wake {
        self.hold(Kind::Value, payload_bytes, ends).flush()
    }

    /// As [`publish`](Self::publish), for a value without ends. What almost every message takes.
    ///
    /// # Panics
    /// As for [`publish`](Self::publish).
    #[inline]
    pub fn publish_plain(self, payload_bytes: usize) -> Wake {
        if self.skip > 0 || self.producer.held.is_some() {
            return self.publish(payload_bytes, &[]);
        }
        let Claim { producer, free, .. } = self;
        let frame = protocol::frame::frame_bytes(payload_bytes, 0);
        assert!(frame <= free, "a frame of {frame} bytes, but {free} were claimed");
        producer.write_header(Kind::Value, 0);
        let position = producer.head;
        producer.usual = frame;
        producer.advance(frame);
        producer.show(position, (HEADER_BYTES + payload_bytes) as u32)
    }

    /// Makes the first `payload_bytes` of the space a frame that [`Producer::flush`] publishes.
    ///
    /// # Panics
    /// As for [`publish`](Self::publish), and when frames of that kind hold no ends.
    #[inline]
    pub fn hold(self, kind: Kind, payload_bytes: usize, ends: &[EndId]) -> &'p mut Producer<M> {
        let Claim { producer, skip, free } = self;
        assert!(ends.len() <= FRAME_ENDS_MAX, "a frame with {} ends", ends.len());
        let frame = protocol::frame::frame_bytes(payload_bytes, ends.len());
        assert!(frame <= free, "a frame of {frame} bytes, but {free} were claimed");
        let is_allowed = kind != Kind::Skip && (ends.is_empty() || kind.may_hold_ends());
        assert!(is_allowed, "a frame {kind:?} with {} ends", ends.len());
        if skip > 0 {
            producer.skip(skip);
        }
        producer.write_header(kind, ends.len());
        if !ends.is_empty() {
            let table = HEADER_BYTES + payload_bytes.next_multiple_of(HEADER_BYTES);
            let start = producer.memory.bytes(producer.head, frame);
            for (index, end) in ends.iter().enumerate() {
                // SAFETY: the table lies in the frame, whose bytes are writable, and are not read yet (see
                // `write_header`).
                unsafe {
                    let entry = start.add(table + index * END_BYTES);
                    entry.cast::<[u8; END_BYTES]>().write(end.to_bytes());
                }
            }
        }
        producer.usual = frame;
        producer.hold((HEADER_BYTES + payload_bytes) as u32, frame);
        producer
    }
}

impl<M: Memory> Producer<M> {
    #[cold]
    fn skip(&mut self, bytes: usize) {
        self.write_header(Kind::Skip, 0);
        if self.consumed == self.head {
            self.skipped = self.head..self.head + bytes as u64;
        } else {
            // A hop: see `look`.
            self.consumed = self.skipped.end;
        }
        self.hold(bytes as u32, bytes);
    }
}
