//! What a member shows for itself.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    files::{self, FileError},
    member::{Leaf, Peer, read_authority, read_leaf},
    tls::{self, Tls},
};

/// The name of an identity's file in its folder.
const FILE: &str = "identity.pem";

/// A member's certificate, its key, and the certificate of the cluster's authority.
///
/// It is kept in one file, `identity.pem`, so that it is there as a whole or not at all.
#[derive(Clone)]
pub struct Identity {
    pem: String,
    leaf: Leaf,
    authority: CertificateDer<'static>,
    tls: Tls,
}

/// Why an identity can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is none.
    #[error("there is no identity at `{}`: make one with `archean cluster client`, or enrol with a token", .0.display())]
    Missing(PathBuf),
    /// Its file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// It makes no sense.
    #[error("this is no identity: {0}; issue it again")]
    Malformed(String),
}

impl Identity {
    /// Reads the identity in a folder.
    ///
    /// # Errors
    /// [`IdentityError`] when it is not there, when others can read its key, or when it is not whole. One that has
    /// expired is read; nobody will accept it.
    pub fn load(folder: &Path) -> Result<Identity, IdentityError> {
        let path = folder.join(FILE);
        match files::read_private(&path) {
            Ok(text) => Identity::parse(&text),
            Err(error) if error.is_missing() => Err(IdentityError::Missing(path)),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes it into a folder, which is made if need be. The file is its owner's only; one that is there is replaced.
    ///
    /// # Errors
    /// [`FileError`] when it can't be written.
    pub fn save(&self, folder: &Path) -> Result<(), FileError> {
        files::make_folder(folder)?;
        files::write(&folder.join(FILE), self.pem.as_bytes())
    }

    /// Who it is.
    pub fn peer(&self) -> &Peer {
        &self.leaf.peer
    }

    /// The name of its cluster.
    pub fn cluster(&self) -> &str {
        &self.leaf.cluster
    }

    /// From when on nobody accepts it any more.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// When it should be renewed: after two thirds of its life.
    pub fn renew_at(&self) -> SystemTime {
        let lifetime = self.leaf.not_after.duration_since(self.leaf.not_before).unwrap_or_default();
        self.leaf.not_after - lifetime / 3
    }

    /// The key, its certificate, and the authority's certificate, all PEM.
    pub(crate) fn from_parts(key: &str, chain: &str, authority: &str) -> Result<Identity, IdentityError> {
        let lines = |text: &str| format!("{}\n", text.trim_end());
        Identity::parse(&[key, chain, authority].map(lines).concat())
    }

    fn parse(text: &str) -> Result<Identity, IdentityError> {
        let malformed = |what: &dyn fmt::Display| IdentityError::Malformed(what.to_string());
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| malformed(&error))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let chain = chain.map_err(|error| malformed(&error))?;
        let [first, authority] = &chain[..] else {
            return Err(malformed(&"a member's certificate and its authority's are needed"));
        };
        let leaf = read_leaf(first).ok_or_else(|| malformed(&"its certificate is no member's"))?;
        let is_known = read_authority(authority).is_some_and(|(cluster, _)| cluster == leaf.cluster);
        if !is_known {
            return Err(malformed(&"the authority's certificate is not that of the member's cluster"));
        }
        let authority = authority.clone();
        tls::check_signed(first, &authority, leaf.not_before)
            .and_then(|()| tls::certified_key(chain, key))
            .and_then(|key| Tls::new(key, &authority))
            .map(|tls| Identity { pem: text.to_owned(), leaf, authority, tls })
            .map_err(|error| malformed(&error))
    }

    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.leaf.not_after < SystemTime::now()
    }

    /// The certificate of its cluster's authority.
    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.leaf).finish()
    }
}

/// A key of one's own that waits for its certificate.
pub struct Request {
    key: KeyPair,
    csr: String,
}

impl Request {
    /// Makes a key.
    ///
    /// # Errors
    /// [`IdentityError`] when the system gives no randomness.
    pub fn new() -> Result<Request, IdentityError> {
        let malformed = |error: rcgen::Error| IdentityError::Malformed(error.to_string());
        let key = KeyPair::generate().map_err(malformed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(malformed)?;
        Ok(Request { key, csr })
    }

    /// The certificate signing request, PEM.
    pub fn csr(&self) -> &str {
        &self.csr
    }

    /// The identity, when its certificate and that of the authority have come.
    ///
    /// # Errors
    /// [`IdentityError`] when they do not belong to the key, or to each other.
    pub fn complete(self, chain: &str, authority: &str) -> Result<Identity, IdentityError> {
        Identity::from_parts(&self.key.serialize_pem(), chain, authority)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Request")
    }
}
