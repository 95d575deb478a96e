//! `archean doctor`: what this machine offers to jobs, what is missing, and what that costs.

mod limits;
mod probes;

use std::{fmt::Write, process::ExitCode};

use serde::Serialize;

use crate::{complain, say};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found out about one thing that the machine may offer.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    status: Status,
    need: Need,
    /// What is there.
    found: String,
    /// What it costs that it is not all there, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Limited,
    Missing,
}

/// Who needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Need {
    /// Every job.
    Needed,
    /// Every job is better off with it.
    Useful,
    /// Isolation or links between machines, which later releases bring.
    Later,
}

impl Finding {
    fn ok(name: &'static str, need: Need, found: impl Into<String>) -> Finding {
        Finding { name, status: Status::Ok, need, found: found.into(), advice: None }
    }

    fn limited(name: &'static str, need: Need, found: impl Into<String>, advice: &'static str) -> Finding {
        Finding { name, status: Status::Limited, need, found: found.into(), advice: Some(advice) }
    }

    fn missing(name: &'static str, need: Need, found: impl ToString, advice: &'static str) -> Finding {
        Finding { name, status: Status::Missing, need, found: found.to_string(), advice: Some(advice) }
    }

    /// No job can run here because of this.
    fn is_fatal(&self) -> bool {
        self.status == Status::Missing && self.need == Need::Needed
    }
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let findings: Vec<Finding> = probes::all().into_iter().chain(limits::all()).collect();
    let is_ready = !findings.iter().any(Finding::is_fatal);
    let text = if args.json {
        format!("{}\n", serde_json::json!({"ready": is_ready, "findings": findings}))
    } else {
        table(&findings, is_ready)
    };
    if let Err(error) = say(text) {
        complain(format_args!("cannot write the findings: {error}"));
        return ExitCode::FAILURE;
    }
    if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn table(findings: &[Finding], is_ready: bool) -> String {
    let mut text = String::new();
    for Finding { name, status, need, found, advice } in findings {
        let status = match status {
            Status::Ok => "ok",
            Status::Limited => "limited",
            Status::Missing => "missing",
        };
        // Writing to a string can't fail.
        let _ = write!(text, "{status:<8} {name:<16} {found}");
        let _ = match (advice, need) {
            (Some(advice), Need::Needed) => writeln!(text, " (needed): {advice}"),
            (Some(advice), Need::Useful) => writeln!(text, ": {advice}"),
            (Some(advice), Need::Later) => writeln!(text, " (for later releases): {advice}"),
            (None, _) => writeln!(text),
        };
    }
    text.push_str(if is_ready {
        "\nJobs can run on this machine.\n"
    } else {
        "\nJobs can't run on this machine: see `missing` and `needed` above.\n"
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_and_missing_is_fatal() {
        let found = |status, need| Finding { name: "it", status, need, found: "".into(), advice: None };
        assert!(found(Status::Missing, Need::Needed).is_fatal());
        for (status, need) in [
            (Status::Limited, Need::Needed),
            (Status::Ok, Need::Needed),
            (Status::Missing, Need::Useful),
            (Status::Missing, Need::Later),
        ] {
            assert!(!found(status, need).is_fatal(), "{status:?} {need:?}");
        }
    }

    #[test]
    fn each_finding_is_one_line_with_its_advice() {
        let findings = [
            Finding::ok("pidfd", Need::Needed, "works"),
            Finding::missing("close_range", Need::Needed, "no", "take a newer kernel"),
        ];
        assert_eq!(
            table(&findings, false),
            "ok       pidfd            works\n\
             missing  close_range      no (needed): take a newer kernel\n\
             \nJobs can't run on this machine: see `missing` and `needed` above.\n"
        );
    }
}
