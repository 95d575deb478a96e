//! Whatever a hostile producer may have written: a header by itself, and a whole ring that a consumer reads to its end.
//!
//! The input is a byte for the ring's capacity, three for the position that the producer waits for, and the frames.
#![no_main]
#![expect(unsafe_code, reason = "the frames are written through a pointer, as a producer writes them")]

#[path = "../../transport/tests/model/heap.rs"]
mod heap;

use std::sync::{Arc, atomic::Ordering};

use heap::Heap;
use libfuzzer_sys::fuzz_target;
use protocol::frame::{END_BYTES, HEADER_BYTES, Header, Kind, frame_bytes};
use transport::ring::{Consumer, Frame, Memory, Wake};

fuzz_target!(|input: &[u8]| {
    let Some(([shift, w0, w1, w2], frames)) = input.split_first_chunk() else { return };
    let capacity = Heap::CAPACITY_MIN << (shift % 7);
    let waiting = u32::from_le_bytes([*w0, *w1, *w2, 0]);
    if let Some(header) = frames.first_chunk() {
        check_header(*header, capacity, waiting);
    }
    let len = frames.len().min(capacity);
    Image::new(capacity, waiting.into(), &frames[..len]).read();
});

/// What is accepted fits its ring, holds ends only where it may, and says all that was in it.
fn check_header(bytes: [u8; HEADER_BYTES], capacity: usize, number: u32) {
    // With any expected number, and with the one that it has.
    let own = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    for expected in [number, own] {
        let Ok(header) = Header::check(bytes, capacity, expected) else { continue };
        assert_eq!(header.sequence, expected);
        assert!(header.frame_bytes() + HEADER_BYTES <= capacity);
        assert!(header.ends == 0 || matches!(header.kind, Kind::Value | Kind::LastPart));
        assert_eq!(header.encode(), bytes);
    }
}

/// A ring as its producer left it, and a copy of what is in it.
struct Image {
    /// Twice in a row, as it is mapped.
    bytes: Vec<u8>,
    waiting: u64,
    memory: Arc<Heap>,
}

impl Image {
    fn new(capacity: usize, waiting: u64, frames: &[u8]) -> Image {
        let mut bytes = frames.to_vec();
        bytes.resize(capacity, 0);
        bytes.extend_from_within(..);
        let memory = Arc::new(Heap::new(capacity));
        memory.producer_words().waiting.store(waiting, Ordering::Relaxed);
        let start = memory.bytes(0, capacity);
        // SAFETY: twice the capacity's bytes follow the first (`Heap::new`), all writable, and nobody else has them.
        unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Image { bytes, waiting, memory }
    }

    /// Reads all that a consumer takes for frames. Each header has one number, so none is read twice, and no more than
    /// one of them at a time is passed over.
    fn read(&self) {
        let mut consumer = Consumer::new(self.memory.clone());
        let (mut frames_left, mut number, mut end) = (self.memory.capacity() / HEADER_BYTES, 0, 0);
        while let Some(frame) = self.next(&mut consumer) {
            assert_eq!(frame.sequence(), number + u32::from(consumer.position() != end));
            self.check(&consumer, &frame);
            let before = consumer.position();
            let wake = consumer.release(&frame);
            let position = consumer.position();
            assert_eq!(position - before, frame.frame_bytes() as u64);
            (number, end) = (frame.sequence() + 1, position);
            assert_eq!(self.memory.consumer_words().consumed.load(Ordering::Relaxed), position);
            assert!(wake == Wake::No || (1..=position).contains(&self.waiting), "woken for nothing");
            frames_left = frames_left.checked_sub(1).expect("a reader that never ends");
        }
        self.memory.check_guards();
    }

    /// The next frame, in both ways in which one is looked for.
    fn next(&self, consumer: &mut Consumer<Arc<Heap>>) -> Option<Frame> {
        let (plain, position) = (consumer.peek_plain(), consumer.position());
        let frame = consumer.peek().ok().flatten();
        let passed = (consumer.position() - position) as usize;
        let header = position as usize % self.memory.capacity();
        let length =
            self.bytes[header..].first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
        assert!([0, length.next_multiple_of(HEADER_BYTES)].contains(&passed), "more than one skip is passed");
        let is_plain = |frame: &Frame| {
            frame.kind() == Kind::Value && frame.ends() == 0 && consumer.position() == position
        };
        assert_eq!(plain, frame.filter(is_plain), "the quick look and the whole one differ");
        frame
    }

    /// The frame lies in the ring, and its parts are where the layout says.
    fn check(&self, consumer: &Consumer<Arc<Heap>>, frame: &Frame) {
        let capacity = self.memory.capacity();
        assert!(consumer.position().is_multiple_of(HEADER_BYTES as u64));
        assert!(frame.frame_bytes() + HEADER_BYTES <= capacity, "a frame larger than its ring");
        assert!(frame.kind() != Kind::Skip, "a skip is no message");
        let start = consumer.position() as usize % capacity;
        let payload = consumer.payload(frame);
        let offset = payload.as_ptr().addr() - self.memory.bytes(0, 0).addr();
        assert_eq!(offset, start + HEADER_BYTES);
        assert_eq!(payload, &self.bytes[offset..offset + frame.payload_bytes()]);
        let table = start + frame_bytes(frame.payload_bytes(), 0);
        let table = &self.bytes[table..table + frame.ends() * END_BYTES];
        assert!(consumer.ends(frame).map(|end| end.to_bytes()).eq(table.as_chunks().0.iter().copied()));
    }
}
