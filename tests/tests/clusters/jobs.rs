//! What jobs do on a cluster that is well.

use tests::cluster::{Job, Plan, Process};

#[test]
fn processes_on_two_machines_talk() {
    for links in ["sealed", "plain"] {
        let cluster = Plan { links, ..Plan::of(2) }.start();
        let outcome = cluster.roam(&[], &["talk"]).succeed();
        // All that was printed far away arrives, in its order.
        let far = outcome.lines.iter().filter_map(|line| line.split_once("far line ")?.1.parse().ok());
        let far: Vec<u32> = far.collect();
        assert_eq!(far, (0..200).collect::<Vec<_>>());
        assert!(outcome.has("far error"));
        cluster.until_idle();
    }
}

#[test]
fn a_job_gives_the_same_on_any_number_of_machines() {
    let mut first = None;
    for machines in 1..=3 {
        let cluster = Plan::of(machines).start();
        let mut lines = cluster.roam(&[], &["sum", "8"]).succeed().lines;
        lines.retain(|line| line.split(' ').count() == 2);
        assert_eq!(lines.len(), 8, "{lines:#?}");
        assert_eq!(first.get_or_insert_with(|| lines.clone()), &lines);
    }
}

/// The guests and the home of a job of `roamer stay`.
pub(super) fn members(job: &mut Job) -> Vec<Process> {
    let mut members = vec![member(&job.line("home "))];
    let guests = job.lines().into_iter().filter_map(|line| Some(member(line.split_once("guest ")?.1)));
    members.extend(guests.map(|(_, process)| (0, process)));
    members.into_iter().map(|(_, process)| process).collect()
}

/// A machine and a process, as `roamer` tells them.
pub(super) fn member(text: &str) -> (usize, Process) {
    let (machine, process) = text.split_once(' ').expect("a machine and a process");
    let process = Process::find(process.parse().expect("a number")).expect("it lives");
    (machine.parse().expect("a number"), process)
}

#[test]
fn a_job_ends_on_all_machines_when_its_client_wants_that() {
    let cluster = Plan::of(2).start();
    let marks = cluster.folder().display().to_string();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let mut job = cluster.roam(&[], &["stay", &marks]);
        let members = members(&mut job);
        assert_eq!(members.len(), 3);
        job.signal(signal);
        let outcome = job.end();
        assert!(!outcome.status.success(), "{outcome:#?}");
        members.iter().for_each(Process::until_dead);
        cluster.until_idle();
    }
    // Nothing is reserved any more: one that needs all that there is still starts.
    let outcome = cluster.roam(&[], &["whole", "4"]).succeed();
    for machine in ["whole 1", "whole 2"] {
        assert_eq!(outcome.lines.iter().filter(|line| *line == machine).count(), 2, "{outcome:#?}");
    }
}
