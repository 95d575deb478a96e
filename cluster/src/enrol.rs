//! How a machine or client comes to its certificate, and to the next one.

use protocol::{
    cluster::{Certification, Certified, Enrol, Enrolled, Renew},
    limits::HANDSHAKE_TIME_MAX,
};
use tokio::time::timeout;

use crate::{
    authority::{Token, TokenError},
    connect::{ConnectError, dial, plain},
    connection::{Connection, ConnectionError},
    identity::{Identity, IdentityError, Request},
    member::{NameError, Role, check_name},
    tls::{self, fingerprint},
};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token makes no sense.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody can be called so.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The scheduler can't be reached, or is not the one that the token is for.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The scheduler does not answer.
    #[error("the scheduler did not answer within {} s", HANDSHAKE_TIME_MAX.as_secs())]
    TimedOut,
    /// The scheduler says no.
    #[error("the scheduler refuses: {0}")]
    Denied(String),
    /// What came back is no identity, or another than was asked for.
    #[error("the scheduler has answered something else than was asked for: {0}")]
    Identity(#[from] IdentityError),
}

/// Gets a first certificate from the scheduler at an address. The token says whom to trust there; the key is made here
/// and stays here.
///
/// # Errors
/// [`EnrolError`], in bounded time. The token may be used up when the answer was lost on its way.
pub async fn enrol(address: &str, token: &str, role: Role, name: &str) -> Result<Identity, EnrolError> {
    check_name(name)?;
    let token = token.trim();
    let pin = Token::parse(token)?.fingerprint.to_owned();
    let request = Request::new()?;
    let config = tls::pinned(pin.clone()).map_err(|error| IdentityError::Malformed(error.to_string()))?;
    let (_, mut reader, mut writer) = dial(address, config, Role::Scheduler).await?;
    let answered = async {
        let csr = request.csr().to_owned();
        writer
            .send(&Enrol { token: token.to_owned(), csr, role: role.to_string(), name: name.to_owned() })
            .await?;
        reader.recv::<Certified>().await
    };
    let answer = timeout(HANDSHAKE_TIME_MAX, answered).await.map_err(|_| EnrolError::TimedOut)??;
    let identity = complete(request, answer)?;
    let is_right = identity.peer().role == role
        && identity.peer().name == name
        && fingerprint(identity.authority()) == pin;
    if is_right { Ok(identity) } else { Err(other_identity()) }
}

/// Gets the certificate that follows this one, over a connection to the scheduler that was made with it and on which
/// nothing else is said meanwhile. Whoever shares a connection says [`Renew`] with [`Request::csr`] instead.
///
/// # Errors
/// [`EnrolError`] when there will be none; the old one counts until it expires.
pub async fn renew(connection: &mut Connection, identity: &Identity) -> Result<Identity, EnrolError> {
    let request = Request::new()?;
    let answered = async {
        connection.send(&Renew { csr: request.csr().to_owned() }).await?;
        connection.recv::<Certified>().await
    };
    let answer = timeout(HANDSHAKE_TIME_MAX, answered).await.map_err(|_| EnrolError::TimedOut)??;
    let new = complete(request, answer)?;
    let (old, peer) = (identity.peer(), new.peer());
    let is_right = peer.role == old.role && peer.name == old.name && new.authority() == identity.authority();
    if is_right { Ok(new) } else { Err(other_identity()) }
}

fn complete(request: Request, answer: Option<Certified>) -> Result<Identity, EnrolError> {
    match answer.and_then(|answer| answer.answer) {
        Some(Certification::Enrolled(Enrolled { chain, ca })) => Ok(request.complete(&chain, &ca)?),
        Some(Certification::Denied(denied)) => Err(EnrolError::Denied(plain(&denied.text))),
        None => Err(EnrolError::Denied("it gives no reason".into())),
    }
}

fn other_identity() -> EnrolError {
    IdentityError::Malformed("the certificate has another role, name or authority".into()).into()
}
