//! What a certificate says of its holder.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use protocol::limits::CERTIFICATE_NAME_BYTES_MAX;
use rcgen::{DistinguishedName, DnType};
use rustls::pki_types::{DnsName, ServerName};

/// What a member of a cluster may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Decides where processes run.
    Scheduler,
    /// Runs processes on its machine.
    Manager,
    /// A client that may do anything.
    Admin,
    /// A client that may run jobs, and see.
    Submit,
    /// A client that may see.
    View,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 5] = [Role::Scheduler, Role::Manager, Role::Admin, Role::Submit, Role::View];

    /// `true` for a role whose members others connect to.
    pub fn accepts(self) -> bool {
        matches!(self, Role::Scheduler | Role::Manager)
    }

    /// How long a certificate counts when nobody says: machines renew theirs by themselves, people don't.
    pub fn lifetime(self) -> Duration {
        let days = if self.accepts() { 30 } else { 365 };
        Duration::from_hours(days * 24)
    }

    /// The name by which TLS checks the role of whoever accepts. It is no name of a host.
    pub(crate) fn dns_name(self) -> &'static str {
        match self {
            Role::Scheduler => "scheduler.archean",
            Role::Manager => "manager.archean",
            Role::Admin => "admin.archean",
            Role::Submit => "submit.archean",
            Role::View => "view.archean",
        }
    }

    pub(crate) fn server_name(self) -> ServerName<'static> {
        ServerName::DnsName(DnsName::try_from(self.dns_name()).expect("a name of ours is one"))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dns_name().trim_end_matches(".archean"))
    }
}

/// No role has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role; there are `scheduler`, `manager`, `admin`, `submit` and `view`")]
pub struct RoleError(pub String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Role, RoleError> {
        Role::ALL.into_iter().find(|role| role.to_string() == text).ok_or_else(|| RoleError(text.to_owned()))
    }
}

/// A member, as its certificate names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// What it may do.
    pub role: Role,
    /// Who it is: one name in a cluster.
    pub name: String,
    /// The certificate's serial number, in hexadecimal digits.
    pub serial: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.role, self.name)
    }
}

/// That can't be the name of a member or a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is no name: write 1 to {CERTIFICATE_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, a letter or digit first",
    .0.escape_debug()
)]
pub struct NameError(pub String);

/// Whether a member or a cluster may be called so.
///
/// # Errors
/// [`NameError`] when it may not.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = name.len() <= CERTIFICATE_NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(is_allowed);
    if is_name { Ok(()) } else { Err(NameError(name.to_owned())) }
}

/// What stands in a member's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) peer: Peer,
    pub(crate) cluster: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// The subject of a member's certificate.
pub(crate) fn subject(role: Role, name: &str, cluster: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, cluster);
    subject.push(DnType::OrganizationalUnitName, role.to_string());
    subject.push(DnType::CommonName, name);
    subject
}

/// What a certificate says that the cluster's authority has signed; nothing for one that is no member's.
pub(crate) fn read_leaf(der: &[u8]) -> Option<Leaf> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let role = subject.iter_organizational_unit().next()?.as_str().ok()?;
    let validity = certificate.validity();
    check_name(name).ok()?;
    let peer = Peer {
        role: role.parse().ok()?,
        name: name.to_owned(),
        serial: hexadecimal(certificate.raw_serial()),
    };
    let leaf = Leaf {
        peer,
        cluster: subject.iter_organization().next()?.as_str().ok()?.to_owned(),
        not_before: system_time(validity.not_before.timestamp())?,
        not_after: system_time(validity.not_after.timestamp())?,
    };
    rest.is_empty().then_some(leaf)
}

/// The cluster's name in its authority's certificate, and until when that counts.
pub(crate) fn read_authority(der: &[u8]) -> Option<(String, SystemTime)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let cluster = certificate.subject().iter_organization().next()?.as_str().ok()?;
    check_name(cluster).ok()?;
    Some((cluster.to_owned(), system_time(certificate.validity().not_after.timestamp())?))
}

/// The key that a certificate is for.
pub(crate) fn public_key(der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

fn system_time(seconds: i64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(role.server_name().to_str(), format!("{role}.archean"));
        }
        assert_eq!("root".parse::<Role>(), Err(RoleError("root".into())));
    }

    #[test]
    fn names_are_short_and_plain() {
        for name in ["a", "node-1.eu", "7", &"x".repeat(64)] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", ".", "..", "-x", "a/b", "a b", "é", "a\n", "a\0", &"x".repeat(65)] {
            assert_eq!(check_name(name), Err(NameError(name.into())));
        }
    }
}
