//! Where the authority of a cluster is kept.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use cluster::{Authority, AuthorityError, NameError, check_name};

/// Which cluster is meant.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// The cluster's name; not needed when there is only one
    #[arg(long, value_name = "NAME", conflicts_with = "dir")]
    cluster: Option<String>,
    /// The folder of its authority, when it is elsewhere
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Why it is not known where a cluster is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("neither XDG_CONFIG_HOME nor HOME says where clusters are kept: name the folder with `--dir`")]
    NoHome,
    #[error("there is no cluster in `{}`: make one with `archean cluster create`, or name its folder with `--dir`", .0.display())]
    None(PathBuf),
    #[error("there are the clusters {0}: say which with `--cluster`")]
    Many(String),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Place {
    /// The cluster's authority.
    pub(crate) fn open(&self) -> Result<Authority, PlaceError> {
        let folder = match (&self.dir, &self.cluster) {
            (Some(folder), _) => folder.clone(),
            (None, Some(name)) => new(name, None)?,
            (None, None) => only(&clusters()?)?,
        };
        Ok(Authority::open(&folder)?)
    }
}

/// Where a cluster of that name is kept.
pub(crate) fn new(name: &str, dir: Option<PathBuf>) -> Result<PathBuf, PlaceError> {
    check_name(name)?;
    dir.map_or_else(|| Ok(clusters()?.join(name)), Ok)
}

/// The folder of the only cluster in there.
fn only(clusters: &Path) -> Result<PathBuf, PlaceError> {
    let entries = fs::read_dir(clusters).into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    let mut folders: Vec<_> = folders.collect();
    folders.sort();
    match &folders[..] {
        [] => Err(PlaceError::None(clusters.to_owned())),
        [only] => Ok(only.clone()),
        _ => {
            let names = folders.iter().filter_map(|folder| folder.file_name());
            let names: Vec<_> = names.map(|name| format!("`{}`", name.display())).collect();
            Err(PlaceError::Many(names.join(", ")))
        }
    }
}

/// The folder of all clusters of this user.
fn clusters() -> Result<PathBuf, PlaceError> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    Ok(config.ok_or(PlaceError::NoHome)?.join("archean/clusters"))
}
