//! Tokens: each lets one machine or client in, once.
//!
//! A token is `archean-SECRET-FINGERPRINT`. Of the secret only the hash is kept, as a file's name; the file holds the
//! role and until when the token counts. When it is used the file is renamed, which can succeed only once, and which
//! lasts before a certificate is made.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{Authority, AuthorityError, TOKENS};
use crate::{
    files,
    member::{Role, hexadecimal},
    tls,
};

const PREFIX: &str = "archean";
const USED: &str = "used";
const LIFETIME_MAX: Duration = Duration::from_hours(30 * 24);

/// Why a token lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token.
    #[error("this is no token; copy it whole, as `archean cluster token` has printed it")]
    Malformed,
    /// It is none of this cluster, or was forgotten after it expired.
    #[error("this token is not known here, or expired long ago: make a new one with `archean cluster token`")]
    Unknown,
    /// It was used.
    #[error("this token was used already: make a new one with `archean cluster token`")]
    Used,
    /// Its time is over.
    #[error("this token has expired: make a new one with `archean cluster token`")]
    Expired,
    /// It is for another role.
    #[error("this token is for another role: make one with `archean cluster token --role`")]
    OtherRole,
}

/// The parts of a token.
pub(crate) struct Token<'a> {
    secret: &'a str,
    pub(crate) fingerprint: &'a str,
}

impl<'a> Token<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Token<'a>, TokenError> {
        let is_number = |part: &str| {
            part.len() == 32 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        match text.trim().split('-').collect::<Vec<_>>()[..] {
            [PREFIX, secret, fingerprint] if is_number(secret) && is_number(fingerprint) => {
                Ok(Token { secret, fingerprint })
            }
            _ => Err(TokenError::Malformed),
        }
    }
}

impl Authority {
    /// A token with which one machine or client gets a certificate with that role, for so long (30 days at most).
    ///
    /// # Errors
    /// [`AuthorityError`] when it can't be kept.
    pub fn new_token(&self, role: Role, lifetime: Duration) -> Result<String, AuthorityError> {
        let now = SystemTime::now();
        let _lock = self.lock()?;
        self.forget_expired(now)?;
        let secret = tls::random::<16>().map_err(|error| AuthorityError::Certificate(error.to_string()))?;
        let secret = hexadecimal(&secret);
        let until = seconds(now + lifetime.min(LIFETIME_MAX));
        files::write(&self.token_path(&secret), format!("{role} {until}\n").as_bytes())?;
        Ok(format!("{PREFIX}-{secret}-{}", self.0.fingerprint))
    }

    /// Uses a token up; says which role it gives.
    ///
    /// # Errors
    /// [`AuthorityError`] when it counts no longer, or never did.
    pub fn redeem(&self, token: &str) -> Result<Role, AuthorityError> {
        let _lock = self.lock()?;
        let role = self.look_up(token, SystemTime::now())?;
        self.use_up(token)?;
        Ok(role)
    }

    /// The role that a token gives.
    pub(super) fn look_up(&self, token: &str, now: SystemTime) -> Result<Role, AuthorityError> {
        let token = Token::parse(token)?;
        let path = self.token_path(token.secret);
        if token.fingerprint != self.0.fingerprint {
            return Err(TokenError::Unknown.into());
        }
        match files::read(&path) {
            Ok(text) => match parse_terms(&text) {
                Some((role, until)) if until > seconds(now) => Ok(role),
                Some(_) => Err(TokenError::Expired.into()),
                None => Err(TokenError::Unknown.into()),
            },
            Err(error) if !error.is_missing() => Err(error.into()),
            Err(_) if path.with_extension(USED).exists() => Err(TokenError::Used.into()),
            Err(_) => Err(TokenError::Unknown.into()),
        }
    }

    /// Lets nobody else have it. It is known that there is one.
    pub(super) fn use_up(&self, token: &str) -> Result<(), AuthorityError> {
        let path = self.token_path(Token::parse(token)?.secret);
        match files::rename(&path, &path.with_extension(USED)) {
            Err(error) if error.is_missing() => Err(TokenError::Used.into()),
            renamed => Ok(renamed?),
        }
    }

    fn token_path(&self, secret: &str) -> PathBuf {
        self.0.folder.join(TOKENS).join(blake3::hash(secret.as_bytes()).to_hex().as_str())
    }

    /// Tokens are told to be used or expired for as long as one could have been made; then they are forgotten.
    fn forget_expired(&self, now: SystemTime) -> Result<(), AuthorityError> {
        for path in files::list(&self.0.folder.join(TOKENS))? {
            let is_old = files::read(&path)
                .ok()
                .and_then(|text| parse_terms(&text))
                .is_some_and(|(_, until)| until.saturating_add(LIFETIME_MAX.as_secs()) < seconds(now));
            if is_old {
                // One that stays is forgotten another time.
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn parse_terms(text: &str) -> Option<(Role, u64)> {
    let (role, until) = text.trim().split_once(' ')?;
    Some((role.parse().ok()?, until.parse().ok()?))
}
