//! Moves frames between two ends; knows neither their type nor who they are.
//!
//! * [`ring`]: one producer, one consumer, frames in memory that both map. The code works on any [`ring::Memory`],
//!   so the model checker runs the very code that production runs.
//! * [`segment`]: the memory of a ring as files: made by the manager, mapped twice in a row, each part written by
//!   one side only.
//! * [`uring`]: the process's links: when what is committed is sent, and who waits for what comes.
//! * [`link`]: what carries frames from a ring to one on another machine.
//! * [`park`]: going to sleep until a peer rings the doorbell or the manager has word.
//! * [`counters`]: what a process counts for its ends, for whoever looks from outside.
//! * [`socket`]: the control socket between a process and its manager, bytes and descriptors.
//! * [`layout`]: where everything is, with pictures.

#[cfg(not(loom))]
pub mod counters;
pub mod layout;
pub mod ring;
pub mod sync;

#[cfg(not(loom))]
pub mod link;
#[cfg(not(loom))]
pub mod park;
#[cfg(loom)]
#[path = "uring/seat.rs"]
pub mod seat;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod socket;
#[cfg(not(loom))]
pub mod uring;
