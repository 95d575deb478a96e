//! Who decides who belongs to a cluster.

mod backup;
mod tokens;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use protocol::cluster::{Certification, Certified, Denied, Enrol, Enrolled, Renew};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

pub use backup::Backup;
pub(crate) use tokens::Token;
pub use tokens::TokenError;

use crate::{
    files::{self, FileError},
    identity::{Identity, IdentityError},
    member::{self, NameError, Peer, Role, check_name, hexadecimal, read_authority, read_leaf},
    tls,
};

/// The authority's key and certificate.
const AUTHORITY_FILE: &str = "authority.pem";
/// A file for each certificate that was made and has not expired, named by its serial number.
const CERTIFICATES: &str = "certificates";
/// The serial numbers of those that were revoked, a line each.
const REVOKED_FILE: &str = "revoked";
/// A file for each token, named by the hash of its secret.
const TOKENS: &str = "tokens";
/// Held by whoever changes something.
const LOCK_FILE: &str = "lock";

const AUTHORITY_LIFETIME: Duration = Duration::from_hours(20 * 365 * 24);
const MEMBER_LIFETIME_MAX: Duration = Duration::from_hours(10 * 365 * 24);
/// A clock may be so much behind that of the authority.
const SKEW: Duration = Duration::from_hours(1);

/// From when until when a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From when.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

impl Validity {
    /// From now on; also for a clock that is an hour behind.
    pub fn lasting(lifetime: Duration) -> Validity {
        let now = SystemTime::now();
        Validity { not_before: now - SKEW, not_after: now + lifetime.min(MEMBER_LIFETIME_MAX) }
    }
}

/// Why the authority does not do as it is told.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is one.
    #[error("there is a cluster in `{}` already; choose another name or folder", .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error("there is no cluster in `{}`; make one with `archean cluster create`", .0.display())]
    Missing(PathBuf),
    /// Its files can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its key and certificate make no sense.
    #[error("`{}` is no authority: {text}; restore it from a backup", path.display())]
    Malformed {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// That file is no backup of a cluster.
    #[error("`{}` is no backup that `archean cluster backup` has made: {text}", path.display())]
    NoBackup {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// Nothing can be called so.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Somebody is called so.
    #[error("`{0}` is a name in use; choose another, or revoke it first with `archean cluster revoke {0}`")]
    NameInUse(String),
    /// Nobody is called so, and no certificate has that number.
    #[error(
        "no certificate has the name or serial number `{0}`; `archean cluster list` shows those that there are"
    )]
    NotFound(String),
    /// The token does not allow it.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A certificate that was revoked is not renewed.
    #[error("the certificate of {0} was revoked or has expired: enrol with a new token")]
    NotRenewable(Peer),
    /// The request for a certificate makes no sense.
    #[error("this is no certificate signing request: {0}")]
    Request(String),
    /// No certificate could be made.
    #[error("no certificate can be made: {0}")]
    Certificate(String),
    /// What was made makes no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl AuthorityError {
    /// What is said of it to others: nothing that is only our business.
    fn told(&self) -> String {
        match self {
            AuthorityError::Name(_)
            | AuthorityError::NameInUse(_)
            | AuthorityError::Token(_)
            | AuthorityError::Request(_)
            | AuthorityError::NotRenewable(_) => self.to_string(),
            _ => "the authority has trouble of its own; the scheduler knows which".into(),
        }
    }
}

/// The word that answers a wish for a certificate.
pub fn answer(made: Result<Enrolled, AuthorityError>) -> Certified {
    let answer = made
        .map_or_else(|error| Certification::Denied(Denied { text: error.told() }), Certification::Enrolled);
    Certified { answer: Some(answer) }
}

/// A certificate that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Whose it is.
    pub peer: Peer,
    /// Until when it counts.
    pub not_after: SystemTime,
    /// It was revoked.
    pub is_revoked: bool,
}

/// The authority of a cluster: a folder with its key, and what it has signed. Its methods read and write files, and may
/// be called from several processes. Clones are the same.
#[derive(Clone)]
pub struct Authority(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    cluster: String,
    not_after: SystemTime,
    pem: String,
    fingerprint: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes the authority of a new cluster in a folder, which is made if need be.
    ///
    /// # Errors
    /// [`AuthorityError`] when there is one, or when the files can't be written.
    pub fn create(folder: &Path, cluster: &str) -> Result<Authority, AuthorityError> {
        check_name(cluster)?;
        let path = folder.join(AUTHORITY_FILE);
        files::make_folder(folder)?;
        let _lock = files::lock(&folder.join(LOCK_FILE))?;
        if path.exists() {
            return Err(AuthorityError::Exists(folder.to_owned()));
        }
        for inner in [CERTIFICATES, TOKENS] {
            files::make_folder(&folder.join(inner))?;
        }
        let key = KeyPair::generate().map_err(certificate_error)?;
        let certificate = authority_params(cluster)?.self_signed(&key).map_err(certificate_error)?;
        files::write(&path, format!("{}{}", key.serialize_pem(), certificate.pem()).as_bytes())?;
        Authority::open(folder)
    }

    /// The authority in a folder.
    ///
    /// # Errors
    /// [`AuthorityError`] when there is none, when others can read its key, or when its files make no sense.
    pub fn open(folder: &Path) -> Result<Authority, AuthorityError> {
        let path = folder.join(AUTHORITY_FILE);
        let text = match files::read_private(&path) {
            Err(error) if error.is_missing() => return Err(AuthorityError::Missing(folder.to_owned())),
            read => read?,
        };
        let malformed = |text: &dyn fmt::Display| AuthorityError::Malformed {
            path: path.clone(),
            text: text.to_string(),
        };
        let key = KeyPair::from_pem(&text).map_err(|error| malformed(&error))?;
        let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| malformed(&error))?;
        let pem = text.find("-----BEGIN CERTIFICATE-----").map(|start| text[start..].to_owned());
        let (Some(pem), Some((cluster, not_after))) = (pem, read_authority(&der)) else {
            return Err(malformed(&"its certificate is none of a cluster"));
        };
        if member::public_key(&der)
            .is_none_or(|public| public != rcgen::PublicKeyData::subject_public_key_info(&key))
        {
            return Err(malformed(&"its key is not that of its certificate"));
        }
        let fingerprint = tls::fingerprint(&der);
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| malformed(&error))?;
        let folder = folder.to_owned();
        Ok(Authority(Arc::new(Inner { folder, cluster, not_after, pem, fingerprint, issuer })))
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.0.cluster
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Makes a member, key and all.
    ///
    /// # Errors
    /// [`AuthorityError`] when the name is no name or in use, or when the files can't be written.
    pub fn issue(&self, role: Role, name: &str, validity: Validity) -> Result<Identity, AuthorityError> {
        let key = KeyPair::generate().map_err(certificate_error)?;
        let _lock = self.lock()?;
        self.check_free(name)?;
        let params = self.member_params(role, name, validity)?;
        let certificate = params.signed_by(&key, &self.0.issuer).map_err(certificate_error)?;
        self.record(&certificate)?;
        Ok(Identity::from_parts(&key.serialize_pem(), &certificate.pem(), &self.0.pem)?)
    }

    /// Makes a member of whoever has the key of that certificate signing request (PEM). Gives the certificate, PEM.
    ///
    /// # Errors
    /// [`AuthorityError`] when the request or the name makes no sense, when the name is in use, or when the files can't
    /// be written.
    pub fn sign(
        &self,
        csr: &str,
        role: Role,
        name: &str,
        validity: Validity,
    ) -> Result<String, AuthorityError> {
        let request = parse_request(csr)?;
        let _lock = self.lock()?;
        self.check_free(name)?;
        Ok(self.certify(request, role, name, validity)?.1)
    }

    /// Makes a member of whoever has a token, which is used up.
    ///
    /// # Errors
    /// [`AuthorityError`] as with [`sign`](Self::sign), and when the token does not allow it.
    pub fn enrol(&self, enrol: &Enrol) -> Result<(Peer, Enrolled), AuthorityError> {
        let request = parse_request(&enrol.csr)?;
        let wanted = enrol.role.parse().map_err(|_| TokenError::OtherRole)?;
        let _lock = self.lock()?;
        let role = self.look_up(&enrol.token, SystemTime::now())?;
        if role != wanted {
            return Err(TokenError::OtherRole.into());
        }
        // Whoever has a token that counts may be told about names, and may try another.
        self.check_free(&enrol.name)?;
        self.use_up(&enrol.token)?;
        let (peer, chain) = self.certify(request, role, &enrol.name, Validity::lasting(role.lifetime()))?;
        Ok((peer, Enrolled { chain, ca: self.0.pem.clone() }))
    }

    /// Makes the certificate that follows a member's; see [`answer`].
    ///
    /// # Errors
    /// [`AuthorityError`] when the member's own certificate counts no longer, or as with [`sign`](Self::sign).
    pub fn renew(&self, peer: &Peer, wish: &Renew) -> Result<Enrolled, AuthorityError> {
        let request = parse_request(&wish.csr)?;
        let _lock = self.lock()?;
        let is_living = self.living()?.iter().any(|issued| issued.peer == *peer);
        if !is_living {
            return Err(AuthorityError::NotRenewable(peer.clone()));
        }
        let validity = Validity::lasting(peer.role.lifetime());
        let (_, chain) = self.certify(request, peer.role, &peer.name, validity)?;
        Ok(Enrolled { chain, ca: self.0.pem.clone() })
    }

    /// Ends the certificates with that name or serial number. Gives those that it ended.
    ///
    /// # Errors
    /// [`AuthorityError`] when there are none, or when the files can't be written.
    pub fn revoke(&self, name_or_serial: &str) -> Result<Vec<Peer>, AuthorityError> {
        let _lock = self.lock()?;
        let mut ended: Vec<Peer> =
            self.list()?.into_iter().filter(|each| !each.is_revoked).map(|each| each.peer).collect();
        ended.retain(|peer| peer.name == name_or_serial || peer.serial == name_or_serial);
        if ended.is_empty() {
            return Err(AuthorityError::NotFound(name_or_serial.to_owned()));
        }
        // Those that are forgotten have expired, and need no line any more.
        let mut revoked = self.revoked()?;
        revoked.retain(|serial| self.certificate_path(serial).exists());
        revoked.extend(ended.iter().map(|peer| peer.serial.clone()));
        let lines: String = revoked.iter().map(|serial| format!("{serial}\n")).collect();
        files::write(&self.0.folder.join(REVOKED_FILE), lines.as_bytes())?;
        Ok(ended)
    }

    /// The serial numbers of the certificates that were revoked; see [`Revoked`](crate::Revoked).
    ///
    /// # Errors
    /// [`AuthorityError`] when the file is there and can't be read.
    pub fn revoked(&self) -> Result<Vec<String>, AuthorityError> {
        match files::read(&self.0.folder.join(REVOKED_FILE)) {
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        }
    }

    /// The certificates that were made and have not been forgotten, by name.
    ///
    /// # Errors
    /// [`AuthorityError`] when the files can't be read.
    pub fn list(&self) -> Result<Vec<Issued>, AuthorityError> {
        let revoked = self.revoked()?;
        let mut list = Vec::new();
        for (_, leaf) in self.certificates()? {
            let is_revoked = revoked.contains(&leaf.peer.serial);
            list.push(Issued { peer: leaf.peer, not_after: leaf.not_after, is_revoked });
        }
        list.sort_by(|a, b| (&a.peer.name, a.not_after).cmp(&(&b.peer.name, b.not_after)));
        Ok(list)
    }

    fn lock(&self) -> Result<fs::File, FileError> {
        files::lock(&self.0.folder.join(LOCK_FILE))
    }

    /// Those that still count.
    fn living(&self) -> Result<Vec<Issued>, AuthorityError> {
        let now = SystemTime::now();
        let mut list = self.list()?;
        list.retain(|issued| !issued.is_revoked && issued.not_after > now);
        Ok(list)
    }

    fn check_free(&self, name: &str) -> Result<(), AuthorityError> {
        check_name(name)?;
        let is_taken = self.living()?.iter().any(|issued| issued.peer.name == name);
        if is_taken { Err(AuthorityError::NameInUse(name.to_owned())) } else { Ok(()) }
    }

    fn certify(
        &self,
        mut request: CertificateSigningRequestParams,
        role: Role,
        name: &str,
        validity: Validity,
    ) -> Result<(Peer, String), AuthorityError> {
        // Nothing that they ask for counts, but their key.
        request.params = self.member_params(role, name, validity)?;
        let certificate = request.signed_by(&self.0.issuer).map_err(certificate_error)?;
        let peer = self.record(&certificate)?;
        Ok((peer, certificate.pem()))
    }

    /// Remembers a certificate before anybody else gets it, and forgets those that have expired.
    fn record(&self, certificate: &Certificate) -> Result<Peer, AuthorityError> {
        let leaf = read_leaf(certificate.der());
        let leaf = leaf.ok_or_else(|| AuthorityError::Certificate("it names no member".into()))?;
        let path = self.certificate_path(&leaf.peer.serial);
        files::write(&path, certificate.pem().as_bytes())?;
        let now = SystemTime::now();
        for (path, old) in self.certificates()? {
            if old.not_after < now && old.peer != leaf.peer {
                // One that stays is forgotten another time.
                let _ = fs::remove_file(path);
            }
        }
        Ok(leaf.peer)
    }

    fn certificate_path(&self, serial: &str) -> PathBuf {
        self.0.folder.join(CERTIFICATES).join(format!("{serial}.pem"))
    }

    fn certificates(&self) -> Result<Vec<(PathBuf, member::Leaf)>, FileError> {
        let mut found = Vec::new();
        for path in files::list(&self.0.folder.join(CERTIFICATES))? {
            if path.extension().is_some_and(|extension| extension == "pem") {
                let text = files::read(&path)?;
                let der = CertificateDer::from_pem_slice(text.as_bytes()).ok();
                found.extend(der.and_then(|der| read_leaf(&der)).map(|leaf| (path, leaf)));
            }
        }
        Ok(found)
    }

    fn member_params(
        &self,
        role: Role,
        name: &str,
        validity: Validity,
    ) -> Result<CertificateParams, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = member::subject(role, name, &self.0.cluster);
        params.subject_alt_names =
            vec![SanType::DnsName(role.dns_name().try_into().map_err(certificate_error)?)];
        params.serial_number = Some(serial_number()?);
        params.not_before = validity.not_before.into();
        params.not_after = validity.not_after.min(self.0.not_after).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role.accepts() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("folder", &self.0.folder).field("cluster", &self.0.cluster).finish()
    }
}

fn authority_params(cluster: &str) -> Result<CertificateParams, AuthorityError> {
    let serial = serial_number()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, cluster);
    // Two clusters of the same name still have authorities of different names.
    let number = hexadecimal(&serial.to_bytes());
    params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
    params.serial_number = Some(serial);
    let now = SystemTime::now();
    params.not_before = (now - 24 * SKEW).into();
    params.not_after = (now + AUTHORITY_LIFETIME).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Sixteen random bytes; the first bits are 01, so that it is a positive number of always the same length.
fn serial_number() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = tls::random::<16>().map_err(|error| AuthorityError::Certificate(error.to_string()))?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn parse_request(csr: &str) -> Result<CertificateSigningRequestParams, AuthorityError> {
    CertificateSigningRequestParams::from_pem(csr).map_err(|error| AuthorityError::Request(error.to_string()))
}

fn certificate_error(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Certificate(error.to_string())
}
