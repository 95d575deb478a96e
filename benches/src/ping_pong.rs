//! The floor under every latency figure: two cores that pass a number to and fro, each through a line of its own.

use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::pin::pin;

#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// Takes `count` round trips between the calling thread and one on `core`, in nanoseconds each.
pub fn round_trips(core: usize, count: usize, clock: &quanta::Clock) -> Vec<f64> {
    let (ping, pong) = (Line::default(), Line::default());
    let last = count as u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(core);
            for turn in 1..=last {
                while ping.0.load(Ordering::Acquire) != turn {
                    spin_loop();
                }
                pong.0.store(turn, Ordering::Release);
            }
        });
        let mut samples = Vec::with_capacity(count);
        for turn in 1..=last {
            let start = clock.raw();
            ping.0.store(turn, Ordering::Release);
            while pong.0.load(Ordering::Acquire) != turn {
                spin_loop();
            }
            samples.push(clock.delta_as_nanos(start, clock.raw()) as f64);
        }
        samples
    })
}
