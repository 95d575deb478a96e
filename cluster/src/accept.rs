//! The side that accepts.

use std::{fmt, io, sync::Arc};

use protocol::{
    cluster::{Enrol, Greeting},
    limits::{CONTROL_BYTES_MAX, ENROL_BYTES_MAX, HANDSHAKE_TIME_MAX},
};
use rustls::ServerConfig;
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::{
    authority::{Authority, answer},
    connection::{Connection, ConnectionError, Reader, Writer, halves},
    identity::Identity,
    member::{Peer, Role, read_leaf},
    revoked::Revoked,
};

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// They took too long.
    #[error("nothing sensible came within {} s", HANDSHAKE_TIME_MAX.as_secs())]
    TimedOut,
    /// The handshake failed: no TLS 1.3, no certificate of this cluster, one that has expired.
    #[error("the handshake failed: {0}")]
    Handshake(io::Error),
    /// The connection went away.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The certificate counts no longer.
    #[error("the certificate of {0} was revoked")]
    Revoked(Peer),
    /// The certificate is our authority's, but no member's.
    #[error("the certificate names no member")]
    NoMember,
}

/// Who came.
#[derive(Debug)]
pub enum Incoming {
    /// A member.
    Peer(Connection),
    /// Somebody without a certificate, who may ask for one. Comes to a scheduler only.
    Enrolling(Enrolling),
}

/// Lets members in.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    revoked: Revoked,
}

impl Acceptor {
    /// Shows that identity, and refuses whoever is revoked. Somebody without a certificate gets further than the
    /// handshake only with a scheduler.
    pub fn new(identity: &Identity, revoked: Revoked) -> Acceptor {
        let is_open = identity.peer().role == Role::Scheduler;
        let tls = identity.tls();
        Acceptor { config: if is_open { tls.open_server.clone() } else { tls.server.clone() }, revoked }
    }

    /// Finds out who connected.
    ///
    /// It takes [`HANDSHAKE_TIME_MAX`] at most, and bounded memory, whatever the other side does. How many may be
    /// undecided at once is for the caller to bound.
    ///
    /// # Errors
    /// [`AcceptError`] when it is nobody who is let in.
    ///
    /// # Cancel safety
    /// The connection is closed when the future is dropped.
    pub async fn accept(&self, stream: TcpStream) -> Result<Incoming, AcceptError> {
        let accepted = timeout(HANDSHAKE_TIME_MAX, self.accept_patiently(stream)).await;
        accepted.unwrap_or(Err(AcceptError::TimedOut))
    }

    async fn accept_patiently(&self, stream: TcpStream) -> Result<Incoming, AcceptError> {
        stream.set_nodelay(true).map_err(AcceptError::Handshake)?;
        let stream = TlsAcceptor::from(self.config.clone()).accept(stream).await;
        let stream = stream.map_err(AcceptError::Handshake)?;
        let leaf =
            stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|first| read_leaf(first));
        let stream = TlsStream::Server(stream);
        let Some(leaf) = leaf else {
            let (reader, writer) = greeted(halves(stream, ENROL_BYTES_MAX), None).await?;
            return Ok(Incoming::Enrolling(Enrolling { reader, writer }));
        };
        let peer = leaf.ok_or(AcceptError::NoMember)?.peer;
        let halves = halves(stream, CONTROL_BYTES_MAX);
        if self.revoked.is_revoked(&peer) {
            let text = format!("the certificate of {peer} was revoked; ask whoever runs the cluster");
            let (_, writer) = greeted(halves, Some(text)).await?;
            writer.close().await?;
            return Err(AcceptError::Revoked(peer));
        }
        let (reader, writer) = greeted(halves, None).await?;
        Ok(Incoming::Peer(Connection::new(peer, reader, writer).until_revoked(&self.revoked)))
    }
}

async fn greeted(
    halves: (Reader, Writer),
    denied: Option<String>,
) -> Result<(Reader, Writer), ConnectionError> {
    let (reader, mut writer) = halves;
    writer.send(&Greeting { denied }).await?;
    Ok((reader, writer))
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("revoked", &self.revoked).finish_non_exhaustive()
    }
}

/// A connection of somebody without a certificate, on which nothing is possible but to ask for one.
#[derive(Debug)]
pub struct Enrolling {
    reader: Reader,
    writer: Writer,
}

impl Enrolling {
    /// Hears the wish, and has the authority decide. Who is new in the cluster, or why they are not, is told to both
    /// sides.
    ///
    /// # Errors
    /// [`AcceptError`] when no wish comes in time.
    ///
    /// # Cancel safety
    /// A certificate that was made may not have been sent when the future is dropped; its token is used then.
    pub async fn serve(mut self, authority: &Authority) -> Result<Result<Peer, String>, AcceptError> {
        let asked = timeout(HANDSHAKE_TIME_MAX, self.reader.recv::<Enrol>()).await;
        let enrol = asked.map_err(|_| AcceptError::TimedOut)??;
        let Some(enrol) = enrol else { return Ok(Err("they closed the connection".into())) };
        let authority = authority.clone();
        let decided = spawn_blocking(move || authority.enrol(&enrol)).await;
        let (made, outcome) = match decided {
            Ok(Ok((peer, enrolled))) => (Ok(enrolled), Ok(peer)),
            Ok(Err(error)) => {
                let text = error.to_string();
                (Err(error), Err(text))
            }
            Err(_) => return Ok(Err("the scheduler ends".into())),
        };
        let answered = async {
            self.writer.send(&answer(made)).await?;
            self.writer.close().await
        };
        timeout(HANDSHAKE_TIME_MAX, answered).await.map_err(|_| AcceptError::TimedOut)??;
        Ok(outcome)
    }
}
