//! Channels between threads, with slots of a fixed size.

use std::hint::spin_loop;

use crossbeam_channel as mpmc;

use super::slots;
use crate::{
    contest::{Contender, Ends, Inlet, Outlet, Partner},
    payload::{Frames, sum},
};

/// So many frames make a chunk at most.
const CHUNK: usize = 32;

/// `rtrb`, a ring for one producer and one consumer.
pub fn rtrb<const N: usize>() -> Contender {
    contender("rtrb", || rtrb::RingBuffer::<[u8; N]>::new(slots(N)))
}

/// `rtrb`, many frames published and taken at once.
pub fn rtrb_chunks<const N: usize>() -> Contender {
    contender("rtrb, chunks", || {
        let (producer, consumer) = rtrb::RingBuffer::<[u8; N]>::new(slots(N));
        (Chunks(producer), Chunks(consumer))
    })
}

/// `crossbeam-channel`, bounded.
pub(super) fn crossbeam<const N: usize>() -> Contender {
    contender("crossbeam", || mpmc::bounded::<[u8; N]>(slots(N)))
}

fn contender<const N: usize, O, I>(name: &'static str, channel: impl Fn() -> (O, I)) -> Contender
where
    O: Outlet<N> + Send + 'static,
    I: Inlet<N> + Send + 'static,
{
    let (there, back) = (channel(), channel());
    Contender {
        name,
        side: Box::new(Ends::new(there.0, back.1)),
        partner: Partner::Thread(Box::new(Ends::new(back.0, there.1))),
    }
}

impl<const N: usize> Outlet<N> for rtrb::Producer<[u8; N]> {
    #[inline]
    fn send(&mut self, frame: &[u8; N]) {
        while self.push(*frame).is_err() {
            spin_loop();
        }
    }
}

impl<const N: usize> Inlet<N> for rtrb::Consumer<[u8; N]> {
    #[inline]
    fn recv(&mut self) -> u64 {
        loop {
            if let Ok(frame) = self.pop() {
                return sum(&frame);
            }
            spin_loop();
        }
    }
}

impl<const N: usize> Outlet<N> for mpmc::Sender<[u8; N]> {
    #[inline]
    fn send(&mut self, frame: &[u8; N]) {
        while self.try_send(*frame).is_err() {
            spin_loop();
        }
    }
}

impl<const N: usize> Inlet<N> for mpmc::Receiver<[u8; N]> {
    #[inline]
    fn recv(&mut self) -> u64 {
        loop {
            if let Ok(frame) = self.try_recv() {
                return sum(&frame);
            }
            spin_loop();
        }
    }
}

/// An end that is used for many frames at once.
struct Chunks<E>(E);

impl<const N: usize> Outlet<N> for Chunks<rtrb::Producer<[u8; N]>> {
    fn send(&mut self, frame: &[u8; N]) {
        self.0.send(frame);
    }

    fn send_all(&mut self, frames: &mut Frames<N>, count: u64) {
        let mut left = count as usize;
        while left > 0 {
            let Ok(chunk) = self.0.write_chunk_uninit(left.min(CHUNK)) else {
                spin_loop();
                continue;
            };
            left -= chunk.fill_from_iter(std::iter::repeat_with(|| *frames.following()));
        }
    }
}

impl<const N: usize> Inlet<N> for Chunks<rtrb::Consumer<[u8; N]>> {
    fn recv(&mut self) -> u64 {
        self.0.recv()
    }

    fn recv_all(&mut self, count: u64) -> (u64, std::time::Instant) {
        let mut total = self.recv();
        let start = std::time::Instant::now();
        let mut left = count as usize - 1;
        while left > 0 {
            let Ok(chunk) = self.0.read_chunk(left.min(self.0.slots().clamp(1, CHUNK))) else {
                spin_loop();
                continue;
            };
            let (one, other) = chunk.as_slices();
            total = one.iter().chain(other).fold(total, |total, frame| total.wrapping_add(sum(frame)));
            left -= chunk.len();
            chunk.commit_all();
        }
        (total, start)
    }
}
