//! A ring between two processes: this one, and the test program again, told by a variable to run the same test as
//! the other side, with the descriptors that a manager would hand it.
#![cfg(not(loom))]

#[path = "two_process/ends.rs"]
mod ends;
#[path = "two_process/hostile.rs"]
mod hostile;
#[path = "two_process/killed.rs"]
mod killed;
#[path = "two_process/wiring.rs"]
mod wiring;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use ends::{Receiver, Sender, mixed_bytes};
use wiring::{Child, Count, Watchdog, Wiring};

#[test]
fn frames_arrive_in_order_while_both_sides_sleep_and_wake() {
    const TEST: &str = "frames_arrive_in_order_while_both_sides_sleep_and_wake";
    const CAPACITY: usize = 64 << 10;
    const FRAMES: u32 = 200_000;
    // So often each side stops until the other sleeps: more frames than the ring holds.
    const STOP_EVERY: u32 = 20_000;

    if let Some(wiring) = Wiring::inherited() {
        let mut sender = Sender::new(&wiring, CAPACITY);
        for index in 0..FRAMES {
            if index % STOP_EVERY == 0 {
                until(|| is_odd(sender.count(Count::ConsumerSleeps)));
            }
            sender.send(index, mixed_bytes(index, CAPACITY));
        }
        return;
    }
    let _watchdog = Watchdog::start(TEST);
    let wiring = Wiring::create(CAPACITY);
    let mut receiver = Receiver::new(&wiring, CAPACITY);
    let mut child = Child::start(TEST, wiring.for_producer());
    for index in 0..FRAMES {
        if index % STOP_EVERY == STOP_EVERY / 2 {
            until(|| is_odd(receiver.count(Count::ProducerSleeps)));
        }
        receiver.receive(index);
    }
    assert!(child.wait().success());
    assert!(receiver.try_receive(FRAMES).is_none());
    for sleeps in [Count::ProducerSleeps, Count::ConsumerSleeps] {
        let word = receiver.count(sleeps).load(Ordering::SeqCst);
        assert!(word >= 2 * FRAMES / STOP_EVERY, "too few sleeps: {}", word / 2);
    }
}

#[test]
fn a_sender_asleep_over_a_full_ring_is_woken_by_each_frame() {
    const TEST: &str = "a_sender_asleep_over_a_full_ring_is_woken_by_each_frame";
    const CAPACITY: usize = 4 << 10;
    const FRAMES: u32 = 500;
    // Two fill the ring.
    const PAYLOAD_BYTES: usize = 2000;

    if let Some(wiring) = Wiring::inherited() {
        let mut sender = Sender::new(&wiring, CAPACITY);
        (0..FRAMES).for_each(|index| sender.send(index, PAYLOAD_BYTES));
        return;
    }
    let _watchdog = Watchdog::start(TEST);
    let wiring = Wiring::create(CAPACITY);
    let mut receiver = Receiver::new(&wiring, CAPACITY);
    let mut child = Child::start(TEST, wiring.for_producer());
    let mut last = 0;
    for index in 0..FRAMES - 2 {
        // A sleep that is not the one which the last frame ended.
        until(|| receiver.count(Count::ProducerSleeps).load(Ordering::SeqCst) > last);
        until(|| is_odd(receiver.count(Count::ProducerSleeps)));
        last = receiver.count(Count::ProducerSleeps).load(Ordering::SeqCst) | 1;
        assert_eq!(receiver.try_receive(index), Some(true), "frame {index}");
    }
    assert!(child.wait().success());
    for index in FRAMES - 2..FRAMES {
        assert_eq!(receiver.try_receive(index), Some(false), "frame {index}");
    }
}

#[test]
fn batches_arrive_in_order_while_both_sides_sleep() {
    const TEST: &str = "batches_arrive_in_order_while_both_sides_sleep";
    const CAPACITY: usize = 16 << 10;
    const FRAMES: u32 = 100_000;

    if let Some(wiring) = Wiring::inherited() {
        let mut sender = Sender::new(&wiring, CAPACITY);
        let mut random = Random(2);
        let mut next = 0;
        while next < FRAMES {
            let end = FRAMES.min(next + 1 + random.below(40));
            (next..end).for_each(|index| sender.hold(index, mixed_bytes(index, CAPACITY)));
            sender.flush(end);
            next = end;
        }
        return;
    }
    let _watchdog = Watchdog::start(TEST);
    let wiring = Wiring::create(CAPACITY);
    let mut receiver = Receiver::new(&wiring, CAPACITY);
    let mut child = Child::start(TEST, wiring.for_producer());
    (0..FRAMES).for_each(|index| receiver.receive(index));
    assert!(child.wait().success());
    assert!(receiver.try_receive(FRAMES).is_none());
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

fn is_odd(word: &AtomicU32) -> bool {
    word.load(Ordering::SeqCst) % 2 == 1
}

/// Numbers that look random, the same in each run: a linear congruence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.next() % limit
    }
}
