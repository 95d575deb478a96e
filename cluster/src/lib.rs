//! Who belongs to a cluster, and how its members talk.
//!
//! A cluster has one [`Authority`], whose key signs a certificate for every member: it says the member's [`Role`] and
//! name. A member's certificate, its key and the authority's certificate are its [`Identity`], one file. Members
//! [`connect`] to each other by TLS 1.3 with certificates on both sides, and exchange framed messages.
//!
//! ```text
//!   Authority ── issue, sign ──► Identity ──► connect ─────────► Acceptor ──► Incoming::Peer(Connection)
//!       │                                                           │
//!       └── new_token ──► (a person) ──► enrol ─────────────────────┴───────► Incoming::Enrolling
//! ```
//!
//! * A machine without a certificate gets one by [`enrol`], with a one-time token, which also pins the authority.
//! * A certificate is renewed when two thirds of its life are over: [`Identity::renew_at`], [`renew`].
//! * [`Revoked`] members are refused by every [`Acceptor`], and their connections close.
//!
//! Names are those in certificates: an address says only where to find somebody, never who it is.

mod accept;
mod authority;
mod connect;
mod connection;
mod enrol;
mod files;
mod identity;
mod member;
mod revoked;
mod tls;

pub use accept::{AcceptError, Acceptor, Enrolling, Incoming};
pub use authority::{Authority, AuthorityError, Backup, Issued, TokenError, Validity, answer};
pub use connect::{ConnectError, connect};
pub use connection::{Connection, ConnectionError, Reader, Writer};
pub use enrol::{EnrolError, enrol, renew};
pub use files::FileError;
pub use identity::{Identity, IdentityError, Request};
pub use member::{NameError, Peer, Role, RoleError, check_name};
pub use revoked::Revoked;
