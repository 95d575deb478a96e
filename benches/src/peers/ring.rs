//! The ring under a channel, without the channel: what does it cost the producer that a consumer may sleep?
#![expect(unsafe_code, reason = "a ring's memory is an unsafe trait, and its claims are pointers")]

use std::{
    fs::OpenOptions,
    hint::spin_loop,
    io,
    os::fd::AsFd,
    slice,
    sync::atomic::{AtomicU32, Ordering},
};

use protocol::frame::frame_bytes;
use transport::{
    layout::{ConsumerWords, ProducerWords},
    ring::{Consumer, Memory, Producer, Wake},
    segment::{Files, Mapped},
};

use super::{Role, borrow, lend};
use crate::{
    contest::{Ends, Inlet, Link, Outlet, Side},
    payload::sum,
};

const CAPACITY: usize = 1 << 20;

/// Rings both ways, whose producers look whether their consumers sleep, as ever.
pub(super) fn ring<const N: usize>(role: Role, link: &mut Link) -> io::Result<Box<dyn Side>> {
    let (outlet, inlet) = map(role, link)?;
    Ok(Box::new(Ends::<N, _, _>::new(Producer::new(outlet), inlet)))
}

/// Rings both ways, whose producers never look at the word in which a consumer says that it sleeps.
pub(super) fn spin_only<const N: usize>(role: Role, link: &mut Link) -> io::Result<Box<dyn Side>> {
    let (outlet, inlet) = map(role, link)?;
    let outlet = Producer::new(SpinOnly { ring: outlet, words: ConsumerWords::default() });
    Ok(Box::new(Ends::<N, _, _>::new(outlet, inlet)))
}

/// The memory to send by, and the end to receive by.
fn map(role: Role, link: &mut Link) -> io::Result<(Mapped, Consumer<Mapped>)> {
    let (outlet, inlet) = match role {
        Role::Lead => {
            let [there, back] = [Files::create(CAPACITY)?, Files::create(CAPACITY)?];
            for file in [&there.data, &there.consumer, &back.data, &back.consumer] {
                lend(file, link);
            }
            link.hear_name();
            (
                Mapped::for_producer(there.data.as_fd(), there.consumer.as_fd(), CAPACITY)?,
                Mapped::for_consumer(back.data.as_fd(), back.consumer.as_fd(), CAPACITY)?,
            )
        }
        Role::Partner => {
            let mut open = || borrow(link, OpenOptions::new().read(true).write(true));
            let (there, there_consumer, back, back_consumer) = (open()?, open()?, open()?, open()?);
            let outlet = Mapped::for_producer(back.as_fd(), back_consumer.as_fd(), CAPACITY)?;
            let inlet = Mapped::for_consumer(there.as_fd(), there_consumer.as_fd(), CAPACITY)?;
            link.say_name("mapped");
            (outlet, inlet)
        }
    };
    Ok((outlet, Consumer::new(inlet)))
}

/// A ring's memory with words of the producer's own in the place of the consumer's: nobody ever sleeps, as far as
/// they say.
struct SpinOnly {
    ring: Mapped,
    words: ConsumerWords,
}

// SAFETY: all that `Mapped` promises; whose words the consumer's are is not part of the contract.
unsafe impl Memory for SpinOnly {
    fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    #[inline]
    fn length_word(&self, position: u64) -> &AtomicU32 {
        self.ring.length_word(position)
    }

    #[inline]
    fn bytes(&self, position: u64, len: usize) -> *mut u8 {
        self.ring.bytes(position, len)
    }

    #[inline]
    fn producer_words(&self) -> &ProducerWords {
        self.ring.producer_words()
    }

    #[inline]
    fn consumer_words(&self) -> &ConsumerWords {
        &self.words
    }

    fn prepare(&self, offset: usize, len: usize) {
        self.ring.prepare(offset, len);
    }
}

/// What a producer that has found no room does before it looks again.
trait Refresh: Memory {
    fn refresh(&self) {
        spin_loop();
    }
}

impl Refresh for Mapped {}

impl Refresh for SpinOnly {
    fn refresh(&self) {
        // SYNC: the load is with the store in `Consumer::release`; the word is read by this thread alone.
        let consumed = self.ring.consumer_words().consumed.load(Ordering::Acquire);
        self.words.consumed.store(consumed, Ordering::Relaxed);
        spin_loop();
    }
}

impl<const N: usize, M: Refresh> Outlet<N> for Producer<M> {
    #[inline]
    fn send(&mut self, frame: &[u8; N]) {
        loop {
            if let Some(claim) = self.claim(frame_bytes(N, 0)).expect("the consumer is sane") {
                // SAFETY: room for a payload of `N` bytes was claimed; the consumer reads none of it before it is
                // published, when the slice is gone. A file's bytes are initialised.
                let space = unsafe { slice::from_raw_parts_mut(claim.payload(), N) };
                space.copy_from_slice(frame);
                assert_eq!(claim.publish(N, &[]), Wake::No, "nobody sleeps");
                return;
            }
            self.memory().refresh();
        }
    }
}

impl<const N: usize> Inlet<N> for Consumer<Mapped> {
    #[inline]
    fn recv(&mut self) -> u64 {
        loop {
            if let Some(frame) = self.peek().expect("the producer is sane") {
                let sum = sum(self.payload(&frame));
                assert_eq!(self.release(&frame), Wake::No, "nobody sleeps");
                self.settle();
                return sum;
            }
            if !self.slip() {
                spin_loop();
            }
        }
    }
}
