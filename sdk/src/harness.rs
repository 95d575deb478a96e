//! Tests as jobs of their own.

use std::{env, fmt::Debug, process::Command, sync::OnceLock};

use crate::init::{Role, enter, find_archean};

/// What the program must be called with to come to the test that is running.
static ARGUMENTS: OnceLock<Vec<String>> = OnceLock::new();

/// What a child must be called with; nothing outside of tests.
pub(crate) fn arguments() -> Vec<String> {
    ARGUMENTS.get().cloned().unwrap_or_default()
}

/// What a test may return.
pub trait TestResult {
    /// Panics when it is an error.
    fn check(self);
}

impl TestResult for () {
    fn check(self) {}
}

impl<E: Debug> TestResult for Result<(), E> {
    fn check(self) {
        if let Err(error) = self {
            panic!("the test returned an error: {error:?}");
        }
    }
}

/// Runs a test: under the harness as a job of its own, in the job's root for real, in a child its entry.
pub fn test<R: TestResult>(path: &str, body: fn() -> R) {
    let (_crate_name, name) = path.split_once("::").unwrap_or(("", path));
    let arguments = ["--exact", name, "--nocapture", "--test-threads=1"].map(str::to_owned).to_vec();
    // Each process runs one test, but for the one that only starts jobs.
    let _ = ARGUMENTS.set(arguments.clone());
    match enter() {
        Role::Root => body().check(),
        Role::Outside => run_job(name, &arguments),
    }
}

fn run_job(name: &str, arguments: &[String]) {
    let archean =
        find_archean().unwrap_or_else(|text| panic!("{text} (in a workspace: `cargo build` first)"));
    let program = env::current_exe().expect("a test finds its own file");
    let output = Command::new(&archean)
        .args(["run", "--harness", "--"])
        .arg(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{} can't be executed: {error}", archean.display()));
    // By macro, so that the harness keeps it until the test fails.
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the test `{name}` failed as a job ({}):\n{stderr}", output.status);
}
