//! Typed ends over rings: what a program sends and receives with.
//!
//! [`channel`] makes a [`Sender`] and a [`Receiver`]. Both are values: they may be moved to another process inside
//! an argument, a result or a message. An end that was used stays where it is. A sender always writes a ring, a
//! receiver always reads one; a clone of a sender has a ring of its own.
//!
//! This crate knows no socket. What has to be said to the manager goes through [`hub::Wiring`], and what the
//! manager says comes in through the [`hub::Hub`], of which a process has one.

mod barrier;
mod broadcast;
pub mod data;
mod end;
mod error;
pub mod hub;
mod message;
mod port;
mod receiver;
mod select;
mod sender;
mod stream;
mod timers;
mod untyped;

pub use barrier::{ArchivedMember, Barrier, BarrierError, Late, Member, MemberResolver, Tick};
pub use broadcast::{Broadcast, Lag};
pub use bytes::Bytes;
pub use data::{Data, PlainData};
pub use end::{ArchivedToken, EndCell, Token, TokenResolver, channel, channel_with_capacity, claiming};
pub use error::{Reason, RecvError, Refused, SendError};
pub use message::Message;
pub use receiver::Receiver;
pub use select::Select;
pub use sender::{Sender, Slot};
pub use stream::{IntoSink, IntoStream};
pub use untyped::{UntypedReceiver, UntypedSender, untyped_channel};
