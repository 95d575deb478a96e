//! TLS 1.3 by rustls over blocking sockets of the standard library, with the cipher that sealed links have.

use std::{
    cell::RefCell,
    fs,
    io::{self, Read, Write},
    path::Path,
    rc::Rc,
    sync::Arc,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};

use super::{
    Role,
    streams::Whole,
    tcp::{Buffered, connection},
};
use crate::contest::{Ends, Link, Side};

/// Whom the lead's certificate is for.
const NAME: &str = "lead";

/// A connection whose server is the lead; its certificate goes by a file in `folder`.
///
/// # Errors
/// An error of the system calls, and what rustls says.
pub(super) fn rustls<const N: usize>(
    role: Role,
    folder: &Path,
    link: &mut Link,
) -> io::Result<Box<dyn Side>> {
    let file = folder.join("certificate.der");
    let provider = CryptoProvider {
        cipher_suites: ring::ALL_CIPHER_SUITES
            .iter()
            .copied()
            .filter(|suite| suite.suite() == CipherSuite::TLS13_AES_256_GCM_SHA384)
            .collect(),
        ..ring::default_provider()
    };
    let provider = Arc::new(provider);
    match role {
        Role::Lead => {
            let CertifiedKey { cert, signing_key } =
                generate_simple_self_signed([NAME.to_owned()]).map_err(other)?;
            fs::write(&file, cert.der())?;
            let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(io::Error::other)?;
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(other)?
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
                .map_err(other)?;
            let session = ServerConnection::new(Arc::new(config)).map_err(other)?;
            Ok(ends::<N>(StreamOwned::new(session, connection(role, link)?)))
        }
        Role::Partner => {
            // The address is said when the certificate is there.
            let socket = connection(role, link)?;
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from(fs::read(&file)?)).map_err(other)?;
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(other)?
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from(NAME).map_err(other)?;
            let session = ClientConnection::new(Arc::new(config), name).map_err(other)?;
            Ok(ends::<N>(StreamOwned::new(session, socket)))
        }
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

fn ends<const N: usize>(stream: impl Read + Write + 'static) -> Box<dyn Side> {
    let shared = Shared(Rc::new(RefCell::new(stream)));
    Box::new(Ends::<N, _, _>::new(Whole(shared.clone()), Buffered::<_, N>::new(shared)))
}

/// A session that is written to by one end and read from by the other.
struct Shared<S>(Rc<RefCell<S>>);

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<S: Read> Read for Shared<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

impl<S: Write> Write for Shared<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}
