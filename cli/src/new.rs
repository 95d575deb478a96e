//! `archean new`: makes a small project that runs.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{complain, say};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The project's name; a folder of that name is made here
    name: String,
}

/// Why no project was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewError {
    #[error(
        "`{0}` is no name for a project: write letters, digits, `-` and `_`, a letter first, and no word of Rust's own"
    )]
    Name(String),
    #[error("`{0}` exists already; choose another name, or another folder to make it in")]
    Exists(String),
    #[error("`{}` can't be made: {error}", path.display())]
    Unwritable { path: PathBuf, error: io::Error },
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let name = &args.name;
    let next = format!("made `{name}`; now: cd {name} && cargo build && archean run target/debug/{name}\n");
    match make(Path::new(""), name) {
        Ok(()) => match say(next) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

fn make(parent: &Path, name: &str) -> Result<(), NewError> {
    if !is_crate_name(name) {
        return Err(NewError::Name(name.to_owned()));
    }
    let folder = parent.join(name);
    fs::create_dir(&folder).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => NewError::Exists(name.to_owned()),
        _ => NewError::Unwritable { path: folder.clone(), error },
    })?;
    let fill = |file: &str, text: &str| {
        let path = folder.join(file);
        fs::write(&path, text).map_err(|error| NewError::Unwritable { path, error })
    };
    let source = folder.join("src");
    fs::create_dir(&source)
        .map_err(|error| NewError::Unwritable { path: source, error })
        .and_then(|()| fill("Cargo.toml", &manifest(name)))
        .and_then(|()| fill("src/main.rs", PROGRAM))
        .and_then(|()| fill(".gitignore", "/target\n"))
        .inspect_err(|_| {
            // A half of a project is of no use, and would be in the way of the next try.
            let _ = fs::remove_dir_all(&folder);
        })
}

/// Names that can't be those of a crate: Rust's keywords, and crates and folders that would be mistaken for it.
const TAKEN: [&str; 58] = [
    "abstract",
    "alloc",
    "archean",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "Self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "unsafe",
    "use",
    "where",
    "while",
];

fn is_crate_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(is_allowed)
        && name.len() <= 64
        && !TAKEN.contains(&name)
}

fn manifest(name: &str) -> String {
    format!(
        r#"[package]
name = "{name}"
version = "0.1.0"
edition = "2024"
publish = false

[dependencies]
archean = {dependency}

# Debuggers and profilers find the lines of a release build.
[profile.release]
debug = "line-tables-only"

# This project is on its own, also inside the folder of a workspace.
[workspace]
"#,
        dependency = dependency()
    )
}

/// The SDK beside the sources of this binary, if they are on this machine; else the release that belongs to it.
fn dependency() -> String {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk").canonicalize();
    match sdk.as_deref().map(Path::to_str) {
        Ok(Some(path)) => format!("{{ path = {} }}", toml::Value::from(path)),
        _ => concat!("\"", env!("CARGO_PKG_VERSION"), "\"").to_owned(),
    }
}

const PROGRAM: &str = r#"//! Adds up squares in a process of its own.

use archean::Receiver;

#[archean::main]
async fn main() -> Result<(), archean::Error> {
    // The ends of a channel are values: this one goes to the new process with its arguments.
    let (mut numbers, inbox) = archean::channel::<u64>();
    let adder = archean::spawn(sum_of_squares, inbox).await?;
    for number in 1..=10 {
        numbers.send(number).await?;
    }
    // Without a sender the channel is at its end.
    drop(numbers);
    println!("The squares of 1 to 10 add up to {}.", adder.join().await?);
    Ok(())
}

async fn sum_of_squares(mut numbers: Receiver<u64>) -> u64 {
    let mut sum = 0;
    while let Ok(number) = numbers.recv_owned().await {
        sum += number * number;
    }
    sum
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_cargo_takes() {
        for name in ["cells", "my-cells", "cells_2", "X"] {
            assert!(is_crate_name(name), "{name}");
        }
        let long = "x".repeat(65);
        for name in ["", "2cells", "-x", "_x", "a b", "a/b", "..", "é", "fn", "test", "archean", &long] {
            assert!(!is_crate_name(name), "{name}");
        }
        assert!(TAKEN.is_sorted_by_key(|name| name.to_ascii_lowercase()));
    }

    #[test]
    fn a_project_is_whole_and_made_once() {
        let parent = tempfile::tempdir().unwrap();
        make(parent.path(), "cells").unwrap();
        let read = |file: &str| fs::read_to_string(parent.path().join("cells").join(file)).unwrap();
        let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("cells"));
        let sdk = &manifest["dependencies"]["archean"];
        assert!(sdk.is_str() || Path::new(sdk["path"].as_str().unwrap()).join("Cargo.toml").exists());
        assert!(read("src/main.rs").contains("archean::spawn"));
        assert_eq!(read(".gitignore"), "/target\n");

        assert!(matches!(make(parent.path(), "cells"), Err(NewError::Exists(name)) if name == "cells"));
    }

    #[test]
    fn nothing_is_left_where_nothing_can_be_made() {
        let parent = tempfile::tempdir().unwrap();
        let missing = parent.path().join("missing");
        assert!(matches!(make(&missing, "cells"), Err(NewError::Unwritable { .. })));
        assert!(!missing.exists());
    }
}
