//! The words that Archean's processes say to one another.
//!
//! This crate is plain data: ids, limits, resources, the header of a frame, control messages and the ways a
//! process can end. It has no clock, no socket and no system call, so every other crate may depend on it.
//!
//! * [`ids`]: what things are called.
//! * [`limits`]: every bound, in one place.
//! * [`resources`]: cores and memory, as people write them and as they are counted.
//! * [`frame`]: the sixteen bytes in front of every message in a ring.
//! * [`link`]: what goes over a connection between two rings.
//! * [`control`]: what a process and its manager tell each other.
//! * [`cluster`]: what machines tell each other before they trust each other.
//! * [`hello`]: what the two ends of a link between machines say first.
//! * [`image`]: what a program consists of, and how its files are asked for.
//! * [`ending`]: how a process ended, as data.
//! * [`placement`]: what a manager and the scheduler tell each other.
//! * [`agent`]: what the parts of a job on different machines tell each other.
//! * [`runner`]: what a manager and the processes that hold its jobs tell each other.
//! * [`fleet`]: what scheduler, managers and clients tell each other.
//! * [`note`]: the mark of a program that is built with the SDK.

pub mod agent;
pub mod cluster;
pub mod control;
pub mod ending;
pub mod fleet;
pub mod frame;
pub mod hello;
pub mod ids;
pub mod image;
pub mod limits;
pub mod link;
pub mod note;
pub mod placement;
pub mod resources;
pub mod runner;
