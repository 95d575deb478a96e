#![expect(unsafe_code, reason = "frames are written into memory that another process maps")]

use protocol::{
    frame::{END_BYTES, HEADER_BYTES, Header, KIND_VALUE, LENGTH_OFFSET},
    ids::EndId,
    limits::FRAME_ENDS_MAX,
};

use super::{Corrupt, Memory, Wake};
use crate::{
    layout::MODE_SLEEPY,
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
}

/// Free space in a ring, to be filled with one frame. Dropping it publishes nothing.
#[derive(Debug)]
pub struct Claim<'p, M> {
    producer: &'p mut Producer<M>,
    /// Bytes that the frame may take, its header included.
    free: usize,
}

impl<M: Memory> Producer<M> {
    /// The producer of a ring that has not been used yet.
    pub fn new(memory: M) -> Self {
        Producer { memory, head: 0, consumed: 0, sequence: 0, woken: 0 }
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Claims all the space that is free; `None` when a frame of `frame_bytes` has no room.
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
        let free = self.free();
        Ok((free >= frame_bytes).then_some(Claim { free, producer: self }))
    }

    /// The position that the consumer must reach before a frame of `frame_bytes` has room.
    pub fn position_for(&self, frame_bytes: usize) -> u64 {
        let end = self.head + (frame_bytes + HEADER_BYTES) as u64;
        end.saturating_sub(self.memory.capacity() as u64)
    }

    /// Bytes for one more frame, when room is left for the header behind it.
    fn free(&self) -> usize {
        self.memory.capacity() - (self.head - self.consumed) as usize - HEADER_BYTES
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
        Wake::Peer
    }
}

impl<M: Memory> Claim<'_, M> {
    /// How many bytes the payload may take when the frame holds no ends.
    pub fn payload_bytes_max(&self) -> usize {
        self.free - HEADER_BYTES
    }

    /// The space for the payload, aligned to sixteen bytes; valid for writes of
    /// [`payload_bytes_max`](Self::payload_bytes_max) bytes while the claim lives.
    #[inline]
    pub fn payload(&mut self) -> *mut u8 {
        // SAFETY: `free` contiguous bytes are there (`Memory::bytes`), and no fewer than a header's.
        unsafe { self.producer.memory.bytes(self.producer.head, self.free).add(HEADER_BYTES) }
    }

    /// Publishes the first `payload_bytes` of the space as a frame that holds `ends`.
    ///
    /// # Panics
    /// When the frame takes more than was claimed, or holds more than [`FRAME_ENDS_MAX`] ends.
    #[inline]
    pub fn publish(self, payload_bytes: usize, ends: &[EndId]) -> Wake {
        let Claim { producer, free } = self;
        assert!(ends.len() <= FRAME_ENDS_MAX, "a frame with {} ends", ends.len());
        let header = Header {
            payload_bytes,
            kind: KIND_VALUE,
            ends: ends.len(),
            sequence: producer.sequence,
            time: 0,
        };
        let frame_bytes = header.frame_bytes();
        assert!(frame_bytes <= free, "a frame of {frame_bytes} bytes, but {free} were claimed");

        let memory = &producer.memory;
        let start = memory.bytes(producer.head, frame_bytes);
        let bytes = header.encode();
        // SAFETY: `start` points to `frame_bytes` writable bytes (`Memory::bytes`, the producer's mapping) that
        // the consumer does not read yet: it reads no further than the length word, which is still zero and is
        // left to the atomic store below.
        unsafe {
            let rest = LENGTH_OFFSET + 4;
            start.add(rest).copy_from_nonoverlapping(bytes.as_ptr().add(rest), HEADER_BYTES - rest);
            let table = start.add(header.table_offset());
            for (index, end) in ends.iter().enumerate() {
                table.add(index * END_BYTES).cast::<[u8; END_BYTES]>().write(end.to_bytes());
            }
        }
        memory.length_word(producer.head + frame_bytes as u64).store(0, Ordering::Relaxed);
        // SYNC: with the load in `Consumer::peek`: who sees the length sees the frame and the zero behind it.
        memory.length_word(producer.head).store((HEADER_BYTES + payload_bytes) as u32, Ordering::Release);
        producer.head += frame_bytes as u64;
        producer.sequence = producer.sequence.wrapping_add(1);
        producer.wake()
    }
}
