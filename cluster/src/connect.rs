//! The side that connects.

use std::{io, sync::Arc};

use protocol::{cluster::Greeting, limits::CONTROL_BYTES_MAX, limits::HANDSHAKE_TIME_MAX};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error as TlsError};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::{
    connection::{Connection, ConnectionError, Reader, Writer, halves},
    identity::Identity,
    member::{Peer, Role, read_leaf},
};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("`{address}` can't be reached: {error}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// Somebody answers too slowly.
    #[error("`{address}` did not finish the handshake within {} s", HANDSHAKE_TIME_MAX.as_secs())]
    TimedOut {
        /// Where.
        address: String,
    },
    /// One's own certificate is over.
    #[error(
        "the certificate of {peer} has expired, or the clock is wrong: issue it again, or enrol with a new token"
    )]
    Expired {
        /// Oneself.
        peer: Peer,
    },
    /// The other side's certificate is over.
    #[error(
        "the certificate of the {expect} at `{address}` has expired or is not yet valid: renew it there, and compare the clocks"
    )]
    PeerExpired {
        /// Where.
        address: String,
        /// Who should be there.
        expect: Role,
    },
    /// The other side is a member, but none of that role.
    #[error("`{address}` is no {expect} of this cluster; check the address")]
    WrongRole {
        /// Where.
        address: String,
        /// Who should be there.
        expect: Role,
    },
    /// One side's certificate is none of the other's cluster.
    #[error("`{address}` belongs to another cluster than this identity; check the address and the identity")]
    Foreign {
        /// Where.
        address: String,
    },
    /// The other side does not talk to us.
    #[error("`{address}` refuses: {text}")]
    Denied {
        /// Where.
        address: String,
        /// What it says.
        text: String,
    },
    /// What answers there does not speak as a member does.
    #[error("`{address}` does not answer as a member of a cluster: {text}")]
    Handshake {
        /// Where.
        address: String,
        /// What went wrong.
        text: String,
    },
}

/// Connects to a member with that role. Who it is, its certificate says, not its address.
///
/// # Errors
/// [`ConnectError`], within [`HANDSHAKE_TIME_MAX`].
///
/// # Cancel safety
/// A connection whose future was dropped is closed.
pub async fn connect(address: &str, identity: &Identity, expect: Role) -> Result<Connection, ConnectError> {
    if identity.has_expired() {
        return Err(ConnectError::Expired { peer: identity.peer().clone() });
    }
    let (peer, reader, writer) = dial(address, identity.tls().client.clone(), expect).await?;
    Ok(Connection::new(peer, reader, writer))
}

/// Connects, and hears whether one is welcome.
pub(crate) async fn dial(
    address: &str,
    config: Arc<ClientConfig>,
    expect: Role,
) -> Result<(Peer, Reader, Writer), ConnectError> {
    let dialed = timeout(HANDSHAKE_TIME_MAX, dial_patiently(address, config, expect)).await;
    dialed.unwrap_or_else(|_| Err(ConnectError::TimedOut { address: address.to_owned() }))
}

async fn dial_patiently(
    address: &str,
    config: Arc<ClientConfig>,
    expect: Role,
) -> Result<(Peer, Reader, Writer), ConnectError> {
    let unreachable = |error| ConnectError::Unreachable { address: address.to_owned(), error };
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let stream = TlsConnector::from(config).connect(expect.server_name(), stream).await;
    let stream = stream.map_err(|error| refused(address, expect, error))?;
    let leaf =
        stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(|first| read_leaf(first));
    let peer = leaf.map(|leaf| leaf.peer).filter(|peer| peer.role == expect);
    let peer = peer.ok_or_else(|| ConnectError::WrongRole { address: address.to_owned(), expect })?;

    // Only now the other side says what it makes of our certificate.
    let (mut reader, writer) = halves(TlsStream::Client(stream), CONTROL_BYTES_MAX);
    let handshake = |text: String| ConnectError::Handshake { address: address.to_owned(), text };
    match reader.recv::<Greeting>().await {
        Ok(Some(Greeting { denied: None })) => Ok((peer, reader, writer)),
        Ok(Some(Greeting { denied: Some(text) })) => {
            Err(ConnectError::Denied { address: address.to_owned(), text: plain(&text) })
        }
        Ok(None) => Err(handshake("it closed the connection".into())),
        Err(ConnectionError::Lost(error)) => Err(refused(address, expect, error)),
        Err(error) => Err(handshake(error.to_string())),
    }
}

/// What a failed handshake means.
fn refused(address: &str, expect: Role, error: io::Error) -> ConnectError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    let address = address.to_owned();
    let denied = |address, text: &str| ConnectError::Denied { address, text: text.to_owned() };
    match tls {
        Some(TlsError::InvalidCertificate(certificate)) => match certificate {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => ConnectError::PeerExpired { address, expect },
            CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }
            | CertificateError::InvalidPurpose
            | CertificateError::InvalidPurposeContext { .. } => ConnectError::WrongRole { address, expect },
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                ConnectError::Foreign { address }
            }
            other => ConnectError::Handshake { address, text: other.to_string() },
        },
        Some(TlsError::AlertReceived(alert)) => match alert {
            AlertDescription::UnknownCA | AlertDescription::DecryptError => ConnectError::Foreign { address },
            AlertDescription::CertificateExpired => {
                denied(address, "our certificate has expired or is not yet valid; compare the clocks")
            }
            AlertDescription::CertificateRequired => {
                denied(address, "it wants a certificate; machines enrol at the scheduler")
            }
            other => ConnectError::Handshake { address, text: format!("it says {other:?}") },
        },
        Some(other) => ConnectError::Handshake { address, text: other.to_string() },
        None => ConnectError::Handshake { address, text: error.to_string() },
    }
}

/// A text from elsewhere that can't drive a terminal.
pub(crate) fn plain(text: &str) -> String {
    let replaced = |each: char| if each.is_control() { '\u{fffd}' } else { each };
    text.chars().take(1000).map(replaced).collect()
}
