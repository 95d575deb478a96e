//! What the tests of whole jobs have in common.
//!
//! Most tests are jobs themselves (`#[archean::test]`). Those that look at a job from outside run `victim`.

pub mod cluster;
pub mod hosts;
pub mod own;
pub mod place;
pub mod random;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// `archean run` with a program that lies beside it, and nothing to read.
pub fn run(program: &str, arguments: &[&str]) -> Command {
    let archean = Path::new(program).with_file_name("archean");
    assert!(archean.is_file(), "{} is not there: `cargo build -p cli` first", archean.display());
    let mut command = Command::new(archean);
    command.args(["run", program]).args(arguments).stdin(Stdio::null()).env_remove("LD_LIBRARY_PATH");
    command
}

/// Waits until something is so.
///
/// # Panics
/// When it has not become so for a long time.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    const LONG: Duration = Duration::from_secs(30);
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "not so after {LONG:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The living children of a process.
pub fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let lists = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("children")));
    let lists: Vec<String> = lists.map(Result::unwrap_or_default).collect();
    lists.iter().flat_map(|list| list.split_ascii_whitespace()).flat_map(str::parse).collect()
}
