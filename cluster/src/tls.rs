//! How TLS is set up: version 1.3, certificates on both sides, no resumption.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use crate::member::hexadecimal;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(crypto::ring::default_provider()));

/// How a member connects and accepts.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) client: Arc<ClientConfig>,
    /// For certificates only.
    pub(crate) server: Arc<ServerConfig>,
    /// Also for peers without one.
    pub(crate) open_server: Arc<ServerConfig>,
}

/// So many random bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    PROVIDER.secure_random.fill(&mut bytes).map_err(|_| Error::FailedToGetRandomBytes)?;
    Ok(bytes)
}

/// Stands for an authority's certificate where that is too long.
pub(crate) fn fingerprint(authority: &[u8]) -> String {
    hexadecimal(&blake3::hash(authority).as_bytes()[..16])
}

pub(crate) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
) -> Result<CertifiedKey, Error> {
    CertifiedKey::from_der(chain, key, &PROVIDER)
}

impl Tls {
    pub(crate) fn new(key: CertifiedKey, authority: &CertificateDer<'static>) -> Result<Tls, Error> {
        let resolver = Arc::new(SingleCertAndKey::from(key));
        let roots = roots(authority)?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), PROVIDER.clone());
        let servers = servers.build().map_err(|error| Error::General(error.to_string()))?;
        let mut client = ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_webpki_verifier(servers)
            .with_client_cert_resolver(resolver.clone());
        client.resumption = Resumption::disabled();
        let server = |is_open: bool| {
            let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), PROVIDER.clone());
            let clients = if is_open { clients.allow_unauthenticated() } else { clients };
            let clients = clients.build().map_err(|error| Error::General(error.to_string()))?;
            let mut server = ServerConfig::builder_with_provider(PROVIDER.clone())
                .with_protocol_versions(&[&TLS13])?
                .with_client_cert_verifier(clients)
                .with_cert_resolver(resolver.clone());
            // A session that is taken up again would not be checked for expiry.
            server.send_tls13_tickets = 0;
            Ok::<_, Error>(Arc::new(server))
        };
        Ok(Tls { client: Arc::new(client), server: server(false)?, open_server: server(true)? })
    }
}

/// Whether the authority has signed that certificate, for that time.
pub(crate) fn check_signed(
    leaf: &CertificateDer<'_>,
    authority: &CertificateDer<'static>,
    at: SystemTime,
) -> Result<(), Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority)?, PROVIDER.clone());
    let verifier = verifier.build().map_err(|error| Error::General(error.to_string()))?;
    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    verifier.verify_client_cert(leaf, &[], UnixTime::since_unix_epoch(at)).map(|_| ())
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(Arc::new(roots))
}

/// How somebody connects who has no certificate yet, and of the authority's only the fingerprint.
pub(crate) fn pinned(fingerprint: String) -> Result<Arc<ClientConfig>, Error> {
    let mut client = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { fingerprint }))
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

/// Trusts the authority with that fingerprint, whose certificate the other side sends along.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates.iter().find(|certificate| fingerprint(certificate) == self.fingerprint);
        let authority = authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let roots = roots(&authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, PROVIDER.clone()).build();
        let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
