//! Conway's Life on a torus, cut into strips, one process a strip.

use std::process::ExitCode;

/// Arguments of `archean demo`.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Args {}

pub(crate) fn check(_: &Args) -> Result<(), String> {
    Ok(())
}

pub(crate) fn root(_: Args) -> ExitCode {
    ExitCode::SUCCESS
}
