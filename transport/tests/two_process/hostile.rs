//! A process that scribbles over all that it may write, and another that uses the same ring.

use std::{
    hint::black_box,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::Ordering,
};

use protocol::frame::{frame_bytes, payload_bytes_max};
use transport::{
    layout::{PAGE_BYTES, SLOTS},
    ring::Wake,
    segment::{Doorbell, Words},
};

use crate::{
    Random,
    ends::{Receiver, Sender},
    wiring::{Child, Count, Watchdog, Wiring},
};

const CAPACITY: usize = 4 << 10;

/// So much the hostile side does at most, and so much the other waits for.
const SCRIBBLES: u32 = 500_000_000;
const FRAMES: u32 = 20_000;
const ERRORS: u32 = 200;

/// All words of a file.
struct Page(Words, u32);

impl Page {
    fn map(file: &OwnedFd, bytes: usize) -> Page {
        Page(Words::map(file.as_fd(), bytes / 4, 4, true).unwrap(), (bytes / 4) as u32)
    }

    fn scribble(&self, random: &mut Random) {
        let value = match random.below(4) {
            0 => random.next(),
            // What lengths and positions look like, and kinds, slots and numbers.
            1 => random.below(2 * CAPACITY as u32) & !15,
            2 => random.below(8),
            _ => 0,
        };
        self.0.word(random.below(self.1) as usize).store(value, Ordering::Relaxed);
    }
}

/// Scribbles now and then, and otherwise does `one`, told when the other side has begun anew.
fn scribble(wiring: &Wiring, pages: &[Page], mut one: impl FnMut(bool, &mut Random)) {
    let (counts, mut restarts, mut random) = (wiring.counts(), 0, Random(4));
    for _ in 0..SCRIBBLES {
        let now = counts.word(Count::Restarts as usize).load(Ordering::Relaxed);
        one(now != restarts, &mut random);
        restarts = now;
        if random.below(64) == 0 {
            let page = random.below(pages.len() as u32);
            pages[page as usize].scribble(&mut random);
        }
    }
}

/// Goes on until there were enough frames and errors. `one` gives whether there was a frame, or an error.
fn survive(mut child: Child, counts: &Words, bell: &Doorbell, mut one: impl FnMut() -> Result<bool, ()>) {
    let (mut frames, mut errors) = (0, 0);
    while frames < FRAMES || errors < ERRORS {
        match one() {
            Ok(true) => frames += 1,
            Ok(false) => {
                assert!(child.is_running(), "it ended after {frames} frames and {errors} errors");
                bell.take_slots(|slot| assert!((slot as usize) < SLOTS));
            }
            Err(()) => {
                errors += 1;
                counts.word(Count::Restarts as usize).fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn a_receiver_survives_a_hostile_sender() {
    const TEST: &str = "hostile::a_receiver_survives_a_hostile_sender";

    if let Some(wiring) = Wiring::inherited() {
        let refused = Words::map(wiring.positions.as_fd(), 1, 4, true).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        let pages = [
            Page::map(&wiring.data, PAGE_BYTES + CAPACITY),
            Page::map(&wiring.producer_bell, PAGE_BYTES),
            Page::map(&wiring.consumer_bell, PAGE_BYTES),
        ];
        let mut sender = Sender::new(&wiring, CAPACITY);
        return scribble(&wiring, &pages, |anew, random| {
            // An error is of its own making.
            let claim = sender.producer.claim(frame_bytes(random.below(200) as usize, 0));
            let is_lost = claim.map(|claim| claim.map(|claim| claim.publish(0, &[]))).is_err();
            if anew || is_lost {
                sender = Sender::new(&wiring, CAPACITY);
            }
        });
    }
    let _watchdog = Watchdog::start(TEST);
    let wiring = Wiring::create(CAPACITY);
    let mut receiver = Receiver::new(&wiring, CAPACITY);
    let bell = Doorbell::map(wiring.consumer_bell.as_fd()).unwrap();
    let child = Child::start(TEST, wiring.for_producer());
    survive(child, &wiring.counts(), &bell, || {
        let consumer = &mut receiver.consumer;
        let frame = match consumer.peek() {
            Ok(None) => return Ok(false),
            Ok(Some(frame)) => frame,
            Err(_) => {
                receiver = Receiver::new(&wiring, CAPACITY);
                return Err(());
            }
        };
        let payload = consumer.payload(&frame);
        assert!(frame.frame_bytes() < CAPACITY && payload.len() == frame.payload_bytes());
        black_box(payload.iter().fold(0u8, |sum, byte| sum ^ byte));
        assert_eq!(consumer.ends(&frame).map(black_box).count(), frame.ends());
        if let Wake::Peer(slot) = consumer.release(&frame) {
            receiver.peer.ring(slot);
        }
        receiver.consumer.settle();
        Ok(true)
    });
}

#[test]
fn a_sender_survives_a_hostile_receiver() {
    const TEST: &str = "hostile::a_sender_survives_a_hostile_receiver";

    if let Some(wiring) = Wiring::inherited() {
        let refused = Words::map(wiring.data.as_fd(), 1, 4, true).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        let pages = [
            Page::map(&wiring.positions, PAGE_BYTES),
            Page::map(&wiring.producer_bell, PAGE_BYTES),
            Page::map(&wiring.consumer_bell, PAGE_BYTES),
        ];
        let consumed = Words::map(wiring.positions.as_fd(), 64, 4, true).unwrap();
        let mut receiver = Receiver::new(&wiring, CAPACITY);
        return scribble(&wiring, &pages, |anew, random| {
            let frame = receiver.consumer.peek();
            let is_lost = frame.is_err();
            if let Ok(Some(frame)) = frame {
                let _nobody_is_woken = receiver.consumer.release(&frame);
            }
            if random.below(4096) == 0 {
                // The page is large, and this word the one that counts.
                consumed.word(32).store(random.below(64 << 10), Ordering::Relaxed);
            }
            if anew || is_lost {
                receiver = Receiver::new(&wiring, CAPACITY);
            }
        });
    }
    let _watchdog = Watchdog::start(TEST);
    let wiring = Wiring::create(CAPACITY);
    let mut sender = Sender::new(&wiring, CAPACITY);
    let bell = Doorbell::map(wiring.producer_bell.as_fd()).unwrap();
    let mut random = Random(5);
    let child = Child::start(TEST, wiring.for_consumer());
    survive(child, &wiring.counts(), &bell, || {
        let payload_bytes = random.below(300) as usize;
        let claim = match sender.producer.claim(frame_bytes(payload_bytes, 0)) {
            Ok(None) => return Ok(false),
            Ok(Some(claim)) => claim,
            Err(_) => {
                sender = Sender::new(&wiring, CAPACITY);
                return Err(());
            }
        };
        assert!((payload_bytes..=payload_bytes_max(CAPACITY)).contains(&claim.payload_bytes_max()));
        if let Wake::Peer(slot) = claim.publish(payload_bytes, &[]) {
            sender.peer.ring(slot);
        }
        Ok(true)
    });
}
