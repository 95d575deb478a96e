#![expect(unsafe_code, reason = "frames are written into memory that another process maps")]

use protocol::{
    frame::{END_BYTES, HEADER_BYTES, Header, Kind, LENGTH_OFFSET},
    ids::EndId,
    limits::FRAME_ENDS_MAX,
};

use super::{Corrupt, Memory, Wake};
use crate::{
    layout::{MODE_SLEEPY, PAGE_BYTES},
    sync::{Ordering, fence},
};

/// The side of a ring that writes frames.
#[derive(Debug)]
pub struct Producer<M> {
    memory: M,
    /// Where the next frame goes.
    head: u64,
    /// What the consumer was last seen to have consumed.
    consumed: u64,
    sequence: u32,
    /// The consumer's wait for which its doorbell was rung.
    woken: u32,
    /// The first frame that is not published yet, and its length word.
    held: Option<(u64, u32)>,
    /// So many bytes of the ring were used; what is behind them was not touched yet.
    touched: usize,
    /// From here on within `touched`, or with frames of this size, the producer looks whether it can go back.
    usual: usize,
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

/// Where large frames start.
const LARGE_ALIGNMENT: usize = 64;

impl<M: Memory> Producer<M> {
    /// The producer of a ring that has not been used yet.
    pub fn new(memory: M) -> Self {
        let touched = TOUCHED_AT_FIRST.min(memory.capacity());
        Producer {
            memory,
            head: 0,
            consumed: 0,
            sequence: 0,
            woken: 0,
            held: None,
            touched,
            usual: HEADER_BYTES,
        }
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Claims all the space that is free; `None` when a frame of `frame_bytes` has no room. Frames that are held
    /// have to be published before the consumer can make room.
    ///
    /// # Errors
    /// [`Corrupt`] when the consumer's position makes no sense.
    #[inline]
    pub fn claim(&mut self, frame_bytes: usize) -> Result<Option<Claim<'_, M>>, Corrupt> {
        // A frame has a header, whatever is asked for.
        let frame_bytes = frame_bytes.max(HEADER_BYTES);
        if self.free() < frame_bytes {
            self.look()?;
        }
        // Frames are mostly as large as the one before.
        let likely = frame_bytes.max(self.usual);
        let mut skip = 0;
        if self.offset() + likely + HEADER_BYTES > self.touched || likely >= LARGE_BYTES {
            skip = self.go_back(likely)?;
        }
        let free = self.free() - skip;
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
        let Some((position, length)) = self.held.take() else { return Wake::No };
        self.memory.length_word(self.head).store(0, Ordering::Relaxed);
        // SYNC: with the load in `Consumer::peek`: who sees the length sees the frames and the zero behind them.
        self.memory.length_word(position).store(length, Ordering::Release);
        self.wake()
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

    fn look(&mut self) -> Result<(), Corrupt> {
        // SYNC: with the store in `Consumer::release`: the consumer has read what it gives back.
        let claimed = self.memory.consumer_words().consumed.load(Ordering::Acquire);
        // Frames end at multiples of a header's size, and space is granted by that measure.
        let aligned = claimed.is_multiple_of(HEADER_BYTES as u64);
        if claimed < self.consumed || claimed > self.head || !aligned {
            return Err(Corrupt::Consumed { claimed, before: self.consumed, written: self.head });
        }
        self.consumed = claimed;
        Ok(())
    }

    /// How many bytes to skip, so that a frame of `frame_bytes` uses memory that was used before: to the ring's
    /// start, or to just in front of where the producer is. Where that can't be, new memory is made ready.
    #[cold]
    fn go_back(&mut self, frame_bytes: usize) -> Result<usize, Corrupt> {
        let (capacity, offset) = (self.memory.capacity(), self.offset());
        let needed = frame_bytes + HEADER_BYTES;
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
        let end = (offset + needed).min(capacity);
        if end > self.touched {
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
        self.head += frame_bytes as u64;
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// Writes all of a header but its length word.
    #[inline]
    fn write_header(&mut self, header: &Header) {
        let bytes = header.encode();
        let rest = LENGTH_OFFSET + 4;
        let start = self.memory.bytes(self.head, HEADER_BYTES);
        // SAFETY: a header's bytes are writable (`Memory::bytes`, the producer's mapping), and the consumer does not
        // read them yet: it reads no further than the length word, which is zero or lies behind one that is, and is
        // left to atomic stores.
        unsafe { start.add(rest).copy_from_nonoverlapping(bytes.as_ptr().add(rest), HEADER_BYTES - rest) };
    }

    /// Whether the consumer sleeps, or is about to.
    #[inline]
    fn wake(&mut self) -> Wake {
        let words = self.memory.consumer_words();
        if words.mode.load(Ordering::Relaxed) & MODE_SLEEPY == 0 {
            return Wake::No;
        }
        // SYNC: with the fence in `wait::begin_frame_wait`: either it sees the frame, or this sees its wait.
        fence(Ordering::SeqCst);
        let mode = words.mode.load(Ordering::Relaxed);
        if mode & MODE_SLEEPY == 0 || mode == self.woken {
            return Wake::No;
        }
        self.woken = mode;
        Wake::Peer(words.address.slot.load(Ordering::Relaxed))
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
        if skip > 0 {
            producer.skip(skip);
        }
        let header = Header { payload_bytes, kind, ends: ends.len(), sequence: producer.sequence, time: 0 };
        producer.write_header(&header);
        if !ends.is_empty() {
            let start = producer.memory.bytes(producer.head, frame);
            for (index, end) in ends.iter().enumerate() {
                // SAFETY: the table lies in the frame, whose bytes are writable, and are not read yet (see
                // `write_header`).
                unsafe {
                    let entry = start.add(header.table_offset() + index * END_BYTES);
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
        let payload_bytes = bytes - HEADER_BYTES;
        let header = Header { payload_bytes, kind: Kind::Skip, ends: 0, sequence: self.sequence, time: 0 };
        self.write_header(&header);
        self.hold(bytes as u32, bytes);
    }
}
