//! What links cost over which nothing goes.

use std::{fs, os::unix::process::parent_id, process};

use archean::{Receiver, Sender};

use crate::at_most;

const LINKS: usize = 1000;

/// Memory a link, of the processes at both ends and of those that manage them.
pub(crate) fn measure() {
    let (mut receivers, inbox) = archean::channel();
    let (answers, mut answered) = archean::channel();
    let holder = archean::spawn(hold, (inbox, answers)).start_blocking().expect("a process is started");
    receivers.send_blocking(Vec::new()).expect("the holder listens");
    let other = answered.recv_owned_blocking().expect("the holder answers");
    let mut processes = vec![other];
    // This process, the manager above it, and what guards both.
    let mut next = Some(process::id());
    while let Some(process) = next.filter(|process| is_ours(*process)) {
        processes.push(process);
        next = parent_of(process);
    }
    let kib = || processes.iter().map(|process| pss_kib(*process)).collect::<Vec<_>>();
    let before = kib();

    let (mut senders, ends): (Vec<_>, Vec<_>) = (0..LINKS).map(|_| archean::channel::<u64>()).unzip();
    receivers.send_blocking(ends).expect("the holder listens");
    for sender in &mut senders {
        sender.send_blocking(1).expect("the holder listens");
    }
    answered.recv_owned_blocking().expect("the holder answers");
    let a_link: Vec<f64> =
        kib().iter().zip(&before).map(|(after, before)| (after - before) / LINKS as f64).collect();
    println!("{LINKS} idle links, memory a link");
    println!("  receiver {:7.1} KiB", a_link[0]);
    println!("  sender   {:7.1} KiB", a_link[1]);
    println!("  managers {:7.1} KiB", a_link[2..].iter().sum::<f64>());
    at_most("memory_a_link_at_1000_idle_kib", a_link.iter().sum(), 32.0);
    drop((senders, receivers));
    holder.join_blocking().expect("the holder ends well");
}

fn hold(mut inbox: Receiver<Vec<Receiver<u64>>>, mut answers: Sender<u32>) {
    let mut held = Vec::new();
    while let Ok(mut receivers) = inbox.recv_owned_blocking() {
        for receiver in &mut receivers {
            assert_eq!(*receiver.recv_blocking().expect("the sender lives"), 1);
        }
        held.push(receivers);
        answers.send_blocking(process::id()).expect("the root listens");
    }
}

/// The memory of a process, of which shared pages count in parts.
fn pss_kib(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("the kernel says it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn is_ours(process: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    process == process::id() || name.starts_with("archean")
}

fn parent_of(process: u32) -> Option<u32> {
    if process == process::id() {
        return Some(parent_id());
    }
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
