//! Conway's Life on a torus, cut into strips, one process a strip.

mod game;
mod hash;
mod patterns;
mod picture;
mod play;
mod rle;
mod size;
mod soup;
mod strip;
mod summary;
mod terminal;
mod ticks;
mod worker;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use archean::Failure;

use self::{
    game::{Game, PROCESSES},
    play::Played,
    size::BoardSize,
    terminal::Terminal,
};
use crate::{complain, say};

/// Arguments of `archean demo`.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Args {
    /// The first generation: r-pentomino, acorn, gosper-gun, glider, soup, or a file with a pattern in RLE
    #[arg(long, value_name = "NAME|FILE", default_value = "r-pentomino")]
    pattern: PathBuf,
    /// What the soup is made from: the same number gives the same soup [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Columns and rows of the board
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "4096x4096")]
    size: BoardSize,
    /// How many generations to play [default: what a built-in pattern is known for, else 1000]
    #[arg(long, value_name = "N")]
    generations: Option<u32>,
    /// Into how many strips the board is cut, a process each [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(PROCESSES))]
    processes: Option<u32>,
    /// Play on so many machines: a cluster that is made for it on this one, of one core each at least
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) machines: Option<u8>,
    /// Write a picture of the last generation
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
    /// Write the result to standard output as one line of JSON, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    terminal: Terminal,
}

/// Before the job: finds out whether it can succeed, and gives the further arguments that its root needs.
///
/// # Errors
/// The code to exit with. Why was told.
pub(crate) fn check(args: &Args) -> Result<Vec<OsString>, ExitCode> {
    let refuse = |code, error| {
        complain(error);
        ExitCode::from(code)
    };
    Game::prepare(args).map_err(|error| refuse(error.exit_code(), Failure::from(error)))?;
    if let Some(path) = &args.out {
        picture::check_writable(path).map_err(|error| refuse(1, error.into()))?;
    }
    Ok(terminal::arguments())
}

/// In the job: plays.
pub(crate) fn root(args: Args) -> ExitCode {
    match perform(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(failure);
            ExitCode::FAILURE
        }
    }
}

fn perform(args: &Args) -> Result<(), Failure> {
    let game = Game::prepare(args)?;
    let bar = if args.json { None } else { args.terminal.progress_bar(game.generations) };
    let on_generation = |generation: u32| {
        if let Some(bar) = &bar {
            bar.set_position(generation.into());
        }
    };
    let played = play::play(&game, args.out.is_some() || !args.json, on_generation);
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let played = played?;
    if let Some(path) = &args.out {
        picture::write_png(path, game.size, played.rows(game.size))?;
    }
    say(if args.json { summary::json(&game, &played) } else { shown(args, &game, &played) })?;
    Ok(())
}

fn shown(args: &Args, game: &Game, played: &Played) -> String {
    let rows: Vec<&[u64]> = played.rows(game.size).collect();
    let text = summary::text(game, played);
    // The summary and the shell's prompt are to be seen together with the picture.
    let lines = args.terminal.lines().saturating_sub(text.lines().count() as u32 + 1);
    picture::terminal(&rows, game.size, args.terminal.columns(), lines) + &text
}
