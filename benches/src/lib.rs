//! What the benches have in common: how figures are taken, and the form in which they are told.
//!
//! A figure is a ratio of two medians whose samples were taken turn by turn in one run, so that what the machine
//! does meanwhile falls on both alike.

pub mod contest;
pub mod effort;
pub mod payload;
pub mod peers;
pub mod pin;
pub mod ping_pong;
pub mod rows;

use std::{path::PathBuf, process::Command};

/// A goal for a ratio.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// The ratio is to be this or more.
    AtLeast(f64),
    /// The ratio is to be this or less.
    AtMost(f64),
}

/// Prints the line of a target: `target NAME measured X goal >= Y met`, or `missed` at its end.
pub fn print_target(name: &str, measured: f64, goal: Goal) {
    let (sign, limit, is_met) = match goal {
        Goal::AtLeast(limit) => (">=", limit, measured >= limit),
        Goal::AtMost(limit) => ("<=", limit, measured <= limit),
    };
    let verdict = if is_met { "met" } else { "missed" };
    println!("target {name} measured {measured:.3} goal {sign} {limit} {verdict}");
}

/// The value below which a part of the samples lies: `0.5` gives the median.
///
/// # Panics
/// When there are no samples.
pub fn quantile(samples: &mut [f64], part: f64) -> f64 {
    assert!(!samples.is_empty(), "no samples were taken");
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * part).round() as usize]
}

/// The version of a package that this bench was built with.
///
/// # Panics
/// When there is none of that name.
pub fn version(package: &str) -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{package}\""));
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = "));
    version.expect("a package that is used is locked").trim_matches('"')
}

/// Builds the `archean` command as it stands in this checkout, so that nothing older is measured, and gives its
/// file.
///
/// # Panics
/// When it can't be built.
pub fn build_archean() -> PathBuf {
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--release", "-p", "cli"]).status();
    assert!(built.is_ok_and(|status| status.success()), "`cargo build --release -p cli` failed");
    let bench = std::env::current_exe().expect("a bench finds its own file");
    let archean = bench.ancestors().nth(2).map(|folder| folder.join("archean"));
    archean.filter(|file| file.is_file()).expect("archean was built beside the benches")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 1.0), 3.0);
    }
}
