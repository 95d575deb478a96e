//! TCP by tokio, on a runtime of one thread, over the loopback.

use std::{io, time::Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::{Builder, Runtime},
};

use super::{
    Role,
    tcp::{buffer_bytes, connection},
};
use crate::{
    contest::{Link, Play, Side},
    payload::{Frames, sum},
};

/// Each frame is written by itself.
///
/// # Errors
/// An error of the system calls.
pub(super) fn tokio<const N: usize>(role: Role, link: &mut Link) -> io::Result<Box<dyn Side>> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let socket = connection(role, link)?;
    socket.set_nonblocking(true)?;
    let entered = runtime.enter();
    let (from, to) = TcpStream::from_std(socket)?.into_split();
    drop(entered);
    let from = BufReader::with_capacity(buffer_bytes(N), from);
    let ends = Halves::<N> { to, from, frame: vec![0; N].into(), frames: Frames::default() };
    Ok(Box::new(Tokio { runtime, ends }))
}

struct Tokio<const N: usize> {
    runtime: Runtime,
    ends: Halves<N>,
}

impl<const N: usize> Side for Tokio<N> {
    fn lead(&mut self, play: Play, count: u64, times_ns: &mut Vec<f64>) {
        self.runtime.block_on(self.ends.lead(play, count, times_ns));
    }

    fn follow(&mut self, play: Play, count: u64) {
        self.runtime.block_on(self.ends.follow(play, count));
    }
}

struct Halves<const N: usize> {
    to: OwnedWriteHalf,
    from: BufReader<OwnedReadHalf>,
    frame: Box<[u8]>,
    frames: Frames<N>,
}

/// As [`Ends`](crate::contest::Ends).
impl<const N: usize> Halves<N> {
    async fn recv(&mut self) -> u64 {
        self.from.read_exact(&mut self.frame).await.expect("the writer lives");
        sum(&self.frame)
    }

    async fn lead(&mut self, play: Play, count: u64, times_ns: &mut Vec<f64>) {
        if play == Play::Stream {
            let mut total = self.recv().await;
            let start = Instant::now();
            for _ in 1..count {
                total = total.wrapping_add(self.recv().await);
            }
            times_ns.push(start.elapsed().as_nanos() as f64);
            assert_eq!(total, self.frames.sum_of_first(count), "frames were lost or damaged");
            return;
        }
        let (base, clock) = (self.frames.sum_of(0), quanta::Clock::new());
        self.frames.restart();
        for number in 1..=count {
            play.pause();
            let start = clock.raw();
            self.to.write_all(self.frames.following()).await.expect("the reader lives");
            let answer = self.recv().await;
            times_ns.push(clock.delta_as_nanos(start, clock.raw()) as f64);
            assert_eq!(answer, base.wrapping_add(base.wrapping_add(number)), "a frame was damaged");
        }
    }

    async fn follow(&mut self, play: Play, count: u64) {
        if play == Play::Stream {
            self.frames.restart();
        }
        for _ in 0..count {
            let frame = match play {
                Play::Stream => self.frames.following(),
                Play::RoundTrips(_) => {
                    let found = self.recv().await;
                    self.frames.numbered(found)
                }
            };
            self.to.write_all(frame).await.expect("the reader lives");
        }
    }
}
