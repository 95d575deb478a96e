//! Owns one machine: starts the processes of a job there, wires their channels, watches them, carries their output.
//!
//! [`run_job`] runs one job to its end. Inside, a pure state machine decides (who may do what, who holds which end
//! of a channel, how a process has ended and who has to know), and one service with all the sockets, descriptors
//! and timers does what it says. It decides no placement: it asks the scheduler, by
//! [words](protocol::placement) and not by calls.

pub mod daemon;
pub mod image;
pub mod launch;
pub mod links;
pub mod orphans;
pub mod output;
pub mod runner;
mod service;
mod state;
pub mod store;
mod wiring;

pub use image::Image;
pub use service::{JobEnd, JobError, JobSpec, Links, Output, Stop, capacity, prepare, run_job};
pub use store::Store;
