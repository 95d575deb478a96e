//! What is left of a job, and of a cluster, when parts of it are lost.

use tests::{
    cluster::{Cluster, Job, Marks, Plan, Process},
    until,
};

use super::jobs::{member, members};

/// Nothing is reserved any more: a job that needs all cores of so many machines, two of each, starts.
fn is_all_free(cluster: &Cluster, machines: usize) {
    let cores = (2 * machines).to_string();
    let outcome = cluster.roam(&[], &["whole", &cores]).succeed();
    assert_eq!(outcome.lines.iter().filter(|line| line.starts_with("whole ")).count(), 2 * machines);
}

fn marks(cluster: &Cluster) -> Marks {
    Marks::new(cluster.folder())
}

fn start(cluster: &Cluster, what: &str) -> Job {
    cluster.roam(&[], &[what, &cluster.folder().display().to_string()])
}

#[test]
fn the_loss_of_a_machine_is_told_and_the_job_goes_on() {
    let mut cluster = Plan::of(3).start();
    let mut job = start(&cluster, "losses");
    let (home, _) = member(&job.line("home "));
    let (machine, guest) = member(&job.line("guest "));
    assert_ne!(machine, home);
    let lost = cluster.machine(machine).descendants();
    assert!(lost.contains(&guest));
    cluster.machine(machine).kill();
    lost.iter().for_each(Process::until_dead);
    let outcome = job.succeed();
    let third = 6 - home - machine;
    assert!(outcome.has(&format!("elsewhere {third}")), "{outcome:#?}");
    // It comes back under its old number, with all that it had.
    cluster.machine(machine).restart();
    cluster.machine(machine).until_said(&format!("joined machine={machine}"));
    is_all_free(&cluster, 3);
}

#[test]
fn a_job_whose_home_is_lost_ends_everywhere() {
    let mut cluster = Plan::of(2).start();
    let mut job = start(&cluster, "stay");
    let members = members(&mut job);
    let (home, _) = member(&job.line("home "));
    let all = cluster.running();
    cluster.machine(home).kill();
    job.fail("the job's machine");
    members.iter().chain(&all).for_each(Process::until_dead);
    cluster.until_idle();
    cluster.machine(home).restart();
    cluster.machine(home).until_said("joined");
    is_all_free(&cluster, 2);
}

#[test]
fn a_runner_that_is_killed_takes_its_part_of_the_job_along() {
    let mut cluster = Plan::of(2).start();
    // It is two processes, of which each sees the end of the other.
    for (is_home, half) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
        let mut job = start(&cluster, if is_home { "stay" } else { "losses" });
        let (home, _) = member(&job.line("home "));
        let killed = if is_home { home } else { 3 - home };
        if !is_home {
            job.line("guest ");
        }
        let all = cluster.machine(killed).descendants();
        let mut runner = all.iter().filter(|process| process.command_line().contains("archean runner"));
        runner.nth(half).expect("each part of a job has a runner of two processes").kill();
        all.iter().for_each(Process::until_dead);
        if is_home {
            job.fail("its runner");
        } else {
            let outcome = job.succeed();
            assert!(outcome.has(&format!("elsewhere {killed}")), "{outcome:#?}");
        }
        cluster.until_idle();
    }
    is_all_free(&cluster, 2);
}

#[test]
fn a_job_goes_on_without_the_scheduler_and_with_a_new_one() {
    let mut cluster = Plan::of(2).start();
    let marks = marks(&cluster);
    let mut job = start(&cluster, "later");
    job.line("started");
    cluster.scheduler().kill();
    // It goes on talking, and what it wants meanwhile comes when there is a scheduler again.
    marks.set("first");
    job.line("talked on");
    cluster.scheduler().restart();
    job.line("spawned on");
    let (guest, rest) = (cluster.roam(&[], &["sum", "3"]), "second");
    guest.succeed();
    marks.set(rest);
    job.succeed();
    is_all_free(&cluster, 2);
}

#[test]
fn a_manager_that_stands_still_for_a_while_loses_nothing() {
    let mut cluster = Plan::of(2).start();
    let marks = marks(&cluster);
    let mut job = start(&cluster, "stream");
    job.line("streams");
    for machine in [1, 2] {
        cluster.machine(machine).freeze();
        // The links need no manager.
        marks.set("ask");
        marks.until("answer");
        cluster.machine(machine).thaw();
    }
    marks.set("end");
    assert!(job.succeed().has("nothing was lost"));
    is_all_free(&cluster, 2);
}

#[test]
fn on_hosts_a_cable_that_is_cut_for_a_moment_loses_nothing() {
    let cluster = Plan { on_hosts: true, ..Plan::of(2) }.start();
    let marks = marks(&cluster);
    let mut job = start(&cluster, "stream");
    job.line("streams");
    for host in &cluster.hosts()[1..] {
        host.cut();
        host.mend();
    }
    marks.set("ask");
    marks.until("answer");
    marks.set("end");
    assert!(job.succeed().has("nothing was lost"));
}

#[test]
fn on_hosts_a_machine_that_is_cut_off_for_long_is_lost() {
    let mut cluster = Plan { on_hosts: true, ..Plan::of(3) }.start();
    let mut job = start(&cluster, "losses");
    let (home, _) = member(&job.line("home "));
    let (machine, guest) = member(&job.line("guest "));
    cluster.hosts()[machine].cut();
    // Both sides find out for themselves: there the processes end, and here the job goes on.
    guest.until_dead();
    let host = cluster.machine(machine).id();
    until("only the manager is left", || cluster.hosts()[machine].processes() == [host]);
    let outcome = job.succeed();
    assert!(outcome.has(&format!("elsewhere {}", 6 - home - machine)), "{outcome:#?}");
    cluster.hosts()[machine].mend();
}
