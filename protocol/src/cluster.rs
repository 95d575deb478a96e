//! What the machines and clients of a cluster tell each other before anything else, and to stay in it.
//!
//! They come framed as [`control`](crate::control) frames them, without descriptors, over TLS. The first word on a
//! connection is the accepting side's [`Greeting`]. Whoever has no certificate yet may say [`Enrol`], and nothing else.

use prost::{Message, Oneof};

/// The accepting side's first word: whether it talks to the other.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Greeting {
    /// Why it does not; absent when it does.
    #[prost(string, optional, tag = "1")]
    pub denied: Option<String>,
}

/// A wish for a first certificate.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Enrol {
    /// The one-time token that allows it.
    #[prost(string, tag = "1")]
    pub token: String,
    /// The certificate signing request, PEM. Only its key counts.
    #[prost(string, tag = "2")]
    pub csr: String,
    /// The role that is wanted, which has to be the token's.
    #[prost(string, tag = "3")]
    pub role: String,
    /// The name that is wanted.
    #[prost(string, tag = "4")]
    pub name: String,
}

/// A wish for a certificate that follows the one that this connection was made with. Role and name stay.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Renew {
    /// The certificate signing request, PEM. Only its key counts.
    #[prost(string, tag = "1")]
    pub csr: String,
}

/// The answer to [`Enrol`] and [`Renew`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Certified {
    /// What came of it.
    #[prost(oneof = "Certification", tags = "1, 2")]
    pub answer: Option<Certification>,
}

/// What came of a wish for a certificate.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Certification {
    /// It was made.
    #[prost(message, tag = "1")]
    Enrolled(Enrolled),
    /// It was not.
    #[prost(message, tag = "2")]
    Denied(Denied),
}

/// A certificate.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Enrolled {
    /// The certificate, PEM.
    #[prost(string, tag = "1")]
    pub chain: String,
    /// The certificate of the cluster's authority, PEM.
    #[prost(string, tag = "2")]
    pub ca: String,
}

/// No certificate.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Denied {
    /// Why.
    #[prost(string, tag = "1")]
    pub text: String,
}

/// Which certificates count no longer; takes the place of what was said before.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Revocations {
    /// Their serial numbers, in hexadecimal digits.
    #[prost(string, repeated, tag = "1")]
    pub serials: Vec<String>,
}

/// A sign of life. Whoever gets one sends it back as it is.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Heartbeat {
    /// Counts up.
    #[prost(uint64, tag = "1")]
    pub number: u64,
}
