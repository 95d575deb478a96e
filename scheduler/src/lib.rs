//! Decides where processes run.
//!
//! [`State`] is the whole of the decision: words from managers go in, words to managers come out, and the time is
//! an argument. It has no clock, no socket and no randomness, so the same words at the same times always give the
//! same answers. [`run`] is the task that gives it a clock and two channels.
//!
//! ```text
//!  manager ── Join, Want, Withdraw, Ended ──► run ──► State::step ──► Place, Refuse ──► manager
//!                                              ▲           │
//!                                              └─ a tick ──┘ at next_deadline()
//! ```
//!
//! # What is reserved
//! A process takes its cores, its memory and one place of the machine's count of processes, from `Place` until
//! `Ended` or `Withdraw`. Of the machines that have room it gets the one with the fewest free cores, so that large
//! gaps stay whole; between equals, the one with the lowest id. What no machine that has joined could hold even
//! when empty is refused at once; while no machine has joined, everything waits. A machine that joins again has a
//! new capacity; if that is less than what is taken, nothing is evicted and nothing more is placed there meanwhile.
//!
//! # Whose turn it is
//! Those that wait are tried in order of arrival whenever something comes free. A later process may be placed
//! before an earlier one that doesn't fit (backfilling), but only if it is among the [`BACKFILL_MAX`] that arrived
//! next after the oldest that waits. So nobody is overtaken more than [`BACKFILL_MAX`] times: after that nothing
//! new is reserved, the machines drain, and the oldest fits. The same number bounds the work of a release: however
//! many wait, only those whose turn it may be are looked at.
//!
//! A process that reserves neither cores nor memory is outside of that count: it takes nothing but a place, and a
//! place that comes free goes to the oldest process that lacked only that. A program may thus start as many such
//! processes as the machines have places for, whatever else waits.
//!
//! One thing remains to the program: if all that run wait for processes that are held back behind a large one, only
//! a deadline ends that. [`State::waiting`] tells what each one waits for.

pub mod fleet;
mod machines;
mod queue;
mod service;
mod state;

pub use queue::BACKFILL_MAX;
pub use service::run;
pub use state::{Event, Report, State};
