//! A cluster in a folder of its own, and meetings of its members.

use std::{io, sync::Arc, time::Duration};

use cluster::{
    AcceptError, Acceptor, Authority, ConnectError, Connection, Identity, Incoming, Revoked, Role, Validity,
    connect,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A cluster.
pub(crate) struct Site {
    pub(crate) authority: Authority,
    pub(crate) folder: TempDir,
}

impl Site {
    pub(crate) fn new(cluster: &str) -> Site {
        let folder = tempfile::tempdir().unwrap();
        Site { authority: Authority::create(folder.path(), cluster).unwrap(), folder }
    }

    pub(crate) fn member(&self, role: Role, name: &str) -> Identity {
        self.authority.issue(role, name, lasting(60)).unwrap()
    }
}

/// From now on, for so many minutes.
pub(crate) fn lasting(minutes: u64) -> Validity {
    Validity::lasting(Duration::from_mins(minutes))
}

/// A listener on loopback, and its address.
pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A pair of connected sockets: what connected, and what was accepted.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listen().await;
    let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (connected.unwrap(), accepted.unwrap().0)
}

/// The one connects, the other accepts whoever is not revoked.
pub(crate) async fn meet_unless(
    connecting: &Identity,
    accepting: &Identity,
    expect: Role,
    revoked: Revoked,
) -> (Result<Connection, ConnectError>, Result<Incoming, AcceptError>) {
    let (listener, address) = listen().await;
    let acceptor = Acceptor::new(accepting, revoked);
    tokio::join!(connect(&address, connecting, expect), async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await
    })
}

/// The one connects, the other accepts.
pub(crate) async fn meet(
    connecting: &Identity,
    accepting: &Identity,
    expect: Role,
) -> (Result<Connection, ConnectError>, Result<Incoming, AcceptError>) {
    meet_unless(connecting, accepting, expect, Revoked::default()).await
}

/// A TLS client without a certificate, which trusts anybody.
#[derive(Debug)]
struct Stranger;

/// Connects as somebody who is no member, by those versions of TLS, and says something.
pub(crate) async fn intrude(
    stream: TcpStream,
    versions: Vec<&'static SupportedProtocolVersion>,
    bytes: &[u8],
) -> io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Stranger))
        .with_no_client_auth();
    let name = ServerName::try_from("scheduler.archean").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(bytes).await?;
    stream.flush().await?;
    Ok(stream)
}

impl ServerCertVerifier for Stranger {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
