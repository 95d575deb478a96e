//! `archean cluster`: makes clusters, and says who belongs to them.

pub(crate) mod place;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    time::{Duration, SystemTime},
};

use clap::Subcommand;
use cluster::{Authority, AuthorityError, Backup, FileError, Role, Validity};
use place::{Place, PlaceError};

use crate::{complain, say};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the authority of a new cluster, and identities for its scheduler and its admin
    Create {
        /// The cluster's name
        name: String,
        /// The folder of its authority [default: ~/.config/archean/clusters/NAME]
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Print a token with which one machine joins, once
    Token {
        #[command(flatten)]
        place: Place,
        /// What it may be there
        #[arg(long, default_value = "manager")]
        role: Role,
        /// How long the token counts (`30m`, `12h`, `7d`; 30 days at most)
        #[arg(long, default_value = "1h")]
        valid: Span,
    },
    /// Make the identity of a person or program that uses the cluster
    Client {
        /// Its name
        name: String,
        #[command(flatten)]
        place: Place,
        /// What it may do: `submit` jobs, `view` them, or anything (`admin`)
        #[arg(long)]
        role: Role,
        /// The folder that the file `identity.pem` goes to
        #[arg(long)]
        out: PathBuf,
        /// How long it counts
        #[arg(long, default_value = "365d")]
        valid: Span,
    },
    /// End the certificates with a name or serial number
    Revoke {
        /// The name, or the serial number
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Show the certificates that were made
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Save the authority in a file, to be kept in a safe place
    Backup {
        #[command(flatten)]
        place: Place,
        /// The file, which must not be there yet
        #[arg(long)]
        out: PathBuf,
    },
    /// Bring an authority back
    Restore {
        /// The file that `archean cluster backup` has made
        file: PathBuf,
        /// The folder it goes to [default: ~/.config/archean/clusters/NAME]
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

/// Why a command about a cluster was not carried out.
#[derive(Debug, thiserror::Error)]
enum ClusterError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "a {0} is no client: it makes its key itself, with a token of `archean cluster token --role {0}`"
    )]
    Machine(Role),
    #[error("there is an identity in `{}` already; choose another folder", .0.display())]
    IdentityExists(PathBuf),
}

pub(crate) fn run(args: Args) -> ExitCode {
    match carry_out(args.command) {
        Ok(text) => match say(text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

/// Does it, and gives what is to be said.
fn carry_out(command: Command) -> Result<String, ClusterError> {
    Ok(match command {
        Command::Create { name, dir } => {
            let authority = Authority::create(&place::new(&name, dir)?, &name)?;
            let folder = authority.folder();
            for (role, name) in [(Role::Scheduler, "scheduler"), (Role::Admin, "admin")] {
                authority.issue(role, name, Validity::lasting(role.lifetime()))?.save(&folder.join(name))?;
            }
            let folder = folder.display();
            format!(
                "made cluster `{name}` in `{folder}`; save it: archean cluster backup --dir {folder} --out FILE\n"
            )
        }
        Command::Token { place, role, valid } => format!("{}\n", place.open()?.new_token(role, valid.0)?),
        Command::Client { name, place, role, out, valid } => {
            make_client(&place.open()?, role, &name, &out, valid)?;
            format!(
                "made `{}` for {role} `{name}`; who has this file is {name}\n",
                out.join("identity.pem").display()
            )
        }
        Command::Revoke { name, place } => {
            let ended = place.open()?.revoke(&name)?;
            ended.iter().map(|peer| format!("revoked {peer} ({})\n", peer.serial)).collect()
        }
        Command::List { place } => list(&place.open()?)?,
        Command::Backup { place, out } => {
            let authority = place.open()?;
            authority.backup(&out)?;
            let name = authority.cluster();
            format!("saved cluster `{name}` in `{}`; who has this file is its authority\n", out.display())
        }
        Command::Restore { file, dir } => {
            let backup = Backup::read(&file)?;
            let authority = backup.restore(&place::new(backup.cluster(), dir)?)?;
            format!("restored cluster `{}` in `{}`\n", authority.cluster(), authority.folder().display())
        }
    })
}

fn make_client(
    authority: &Authority,
    role: Role,
    name: &str,
    out: &Path,
    valid: Span,
) -> Result<(), ClusterError> {
    if role.accepts() {
        return Err(ClusterError::Machine(role));
    }
    if out.join("identity.pem").exists() {
        return Err(ClusterError::IdentityExists(out.to_owned()));
    }
    Ok(authority.issue(role, name, Validity::lasting(valid.0))?.save(out)?)
}

fn list(authority: &Authority) -> Result<String, AuthorityError> {
    let now = SystemTime::now();
    let issued = authority.list()?;
    let width = issued.iter().map(|each| each.peer.name.len()).max().unwrap_or_default().max(4);
    let mut text = format!("{:width$}  {:9}  {:32}  state\n", "name", "role", "serial number");
    for each in issued {
        let state = match each.not_after.duration_since(now) {
            _ if each.is_revoked => "revoked".to_owned(),
            Ok(left) => format!("expires in {}", Span(left)),
            Err(_) => "expired".to_owned(),
        };
        let (role, serial) = (each.peer.role.to_string(), each.peer.serial);
        text += &format!("{:width$}  {role:9}  {serial:32}  {state}\n", each.peer.name);
    }
    Ok(text)
}

/// A length of time, as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span(Duration);

/// How many seconds a unit has.
const UNITS: [(char, u64); 4] = [('d', 24 * 3600), ('h', 3600), ('m', 60), ('s', 1)];

/// That is no length of time.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no length of time; write for example `90s`, `30m`, `12h` or `7d`")]
struct SpanError(String);

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Span, SpanError> {
        let parsed = UNITS.iter().find_map(|(unit, seconds)| {
            let number: u64 = text.strip_suffix(*unit)?.parse().ok()?;
            number.checked_mul(*seconds).filter(|seconds| *seconds > 0)
        });
        parsed.map(|seconds| Span(Duration::from_secs(seconds))).ok_or_else(|| SpanError(text.to_owned()))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs();
        let (unit, unit_seconds) = UNITS.into_iter().find(|(_, unit)| seconds >= *unit).unwrap_or(('s', 1));
        write!(f, "{}{unit}", seconds / unit_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_shown() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_secs(), seconds);
        }
        for text in
            ["", "1", "h", "-1h", "0s", "1.5h", "1w", "99999999999999999999d", "999999999999999999d", "1é"]
        {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert_eq!(Span(Duration::from_secs(86_400 * 29 + 5)).to_string(), "29d");
        assert_eq!(Span(Duration::from_millis(500)).to_string(), "0s");
    }
}
