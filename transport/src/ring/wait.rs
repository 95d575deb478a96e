//! Going to sleep without missing what one waits for.
//!
//! Both functions keep all their state in the words that the peer reads, so that whoever sleeps on behalf of an
//! end, its own thread or a driver that serves many, may call them.

use super::{Memory, Wake, prefetch};
use crate::{
    layout::{Address, MODE_SLEEPY},
    sync::{Ordering, fence},
};

/// Whether a sleep may be missed by the peer.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// The peer will see it.
    Sound,
    /// The peer may just now do what is waited for without seeing it, since it does not fence: the sleep must be
    /// bounded, and be followed by another look.
    Bounded,
}

/// Says on which processor this side of a ring runs: a number plus one, or zero when it is not known.
#[inline]
pub fn tell_cpu(own: &Address, cpu: u32) {
    // Mostly it is the same, and then the peer keeps the line.
    if own.cpu.load(Ordering::Relaxed) != cpu {
        own.cpu.store(cpu, Ordering::Relaxed);
    }
}

/// Whether the other side was last seen on that processor: then it can do nothing while this side spins there.
#[inline]
pub fn is_on_cpu(peer: &Address, cpu: u32) -> bool {
    cpu != 0 && peer.cpu.load(Ordering::Relaxed) == cpu
}

/// Says that the consumer is about to sleep until a frame comes. To be followed by a last look.
pub fn begin_frame_wait(memory: &impl Memory) -> Sleep {
    let mode = &memory.consumer_words().mode;
    // Each wait has its own number, so that the producer rings once for each. Exchanged, and not stored, because
    // `Consumer::settle` may run on another thread.
    let next = |mode: u32| Some(mode.wrapping_add(2) | MODE_SLEEPY);
    let before = mode.fetch_update(Ordering::Release, Ordering::Relaxed, next).unwrap_or_else(|mode| mode);
    // SYNC: with the fence in `Producer::wake`.
    fence(Ordering::SeqCst);
    if before & MODE_SLEEPY == 0 { Sleep::Bounded } else { Sleep::Sound }
}

/// Says that the consumer looks by itself from now on, and need not be woken. The number of its last wait stays.
pub fn end_frame_wait(memory: &impl Memory) {
    memory.consumer_words().mode.fetch_and(!MODE_SLEEPY, Ordering::Relaxed);
}

/// Says that the producer is about to sleep until the consumer has reached `position`. To be followed by a last
/// look, and when the sleep is over by [`end_room_wait`].
pub fn begin_room_wait(memory: &impl Memory, position: u64) -> Sleep {
    let waiting = &memory.producer_words().waiting;
    if waiting.load(Ordering::Relaxed) == position {
        return Sleep::Sound;
    }
    // SYNC: with `Consumer::release`, which stores `consumed` before it looks here.
    waiting.store(position, Ordering::Release);
    fence(Ordering::SeqCst);
    Sleep::Bounded
}

/// Says that the producer does not wait any more.
pub fn end_room_wait(memory: &impl Memory) {
    memory.producer_words().waiting.store(0, Ordering::Relaxed);
}

/// Whether the producer waits for the consumer to be where it now is, at `position`, and was not woken for that yet.
#[inline]
pub(crate) fn room_wake(memory: &impl Memory, position: u64, woken: &mut u64) -> Wake {
    let waiting = memory.producer_words().waiting.load(Ordering::Relaxed);
    if waiting == 0 || waiting > position || waiting == *woken {
        return Wake::No;
    }
    *woken = waiting;
    // SYNC: with the store in `begin_room_wait`, which comes after the slot.
    fence(Ordering::Acquire);
    Wake::Peer(memory.producer_words().address.slot.load(Ordering::Relaxed))
}

/// Whether the consumer sleeps, or is about to, and was not woken from that sleep yet. A frame was just published.
#[inline]
pub(crate) fn frame_wake(memory: &impl Memory, woken: &mut u32) -> Wake {
    let words = memory.consumer_words();
    if words.mode.load(Ordering::Relaxed) & MODE_SLEEPY == 0 {
        return Wake::No;
    }
    // SYNC: with the fence in `begin_frame_wait`: either it sees the frame, or this sees its wait.
    fence(Ordering::SeqCst);
    // SYNC: with the wait's number in `begin_frame_wait`, which comes after the slot.
    let mode = words.mode.load(Ordering::Acquire);
    if mode & MODE_SLEEPY == 0 || mode == *woken {
        return Wake::No;
    }
    *woken = mode;
    Wake::Peer(words.address.slot.load(Ordering::Relaxed))
}

/// Whether there is a frame at `position`; for whoever waits for it.
pub fn is_frame_at(memory: &impl Memory, position: u64) -> bool {
    // SYNC: with the store in `Producer::flush`; who reads the frame looks again.
    let is_there = memory.length_word(position).load(Ordering::Acquire) != 0;
    if !is_there {
        // Most frames lie on two lines, which then come at once and not one after the other (a round trip of 64 bytes:
        // 600 ns instead of 690).
        prefetch::read(memory, position + prefetch::LINE_BYTES);
    }
    is_there
}

/// Whether the consumer has reached `position`.
pub fn is_consumed_to(memory: &impl Memory, position: u64) -> bool {
    // SYNC: with the store in `Consumer::release`; who uses the room looks again.
    memory.consumer_words().consumed.load(Ordering::Acquire) >= position
}
