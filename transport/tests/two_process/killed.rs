//! A sender that is killed leaves what it published, whole, and nothing else.

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    Random,
    ends::{Receiver, Sender, mixed_bytes},
    wiring::{Child, Count, Watchdog, Wiring},
};

const CAPACITY: usize = 64 << 10;

/// Sends frames and batches until it is killed.
fn send_for_ever(wiring: &Wiring) {
    let mut sender = Sender::new(wiring, CAPACITY);
    let mut random = Random(3);
    let mut next = 0;
    loop {
        let end = next + 1 + random.below(8);
        (next..end).for_each(|index| sender.hold(index, mixed_bytes(index, CAPACITY)));
        sender.flush(end);
        next = end;
    }
}

#[test]
fn a_sender_killed_at_any_moment_leaves_whole_batches_and_no_memory() {
    const TEST: &str = "killed::a_sender_killed_at_any_moment_leaves_whole_batches_and_no_memory";
    const ROUNDS: u32 = 50;

    if let Some(wiring) = Wiring::inherited() {
        send_for_ever(&wiring);
    }
    let _watchdog = Watchdog::start(TEST);
    let mut random = Random(1);
    for round in 0..ROUNDS {
        let wiring = Wiring::create(CAPACITY);
        let files = inodes(&wiring);
        let mut receiver = Receiver::new(&wiring, CAPACITY);
        let mut child = Child::start(TEST, wiring.for_producer());
        receiver.receive(0);
        let mut received = 1;
        let end = Instant::now() + Duration::from_micros(random.below(10_000).into());
        while Instant::now() < end {
            received += u32::from(receiver.try_receive(received).is_some());
        }
        assert_eq!(child.kill().signal(), Some(libc::SIGKILL));
        while receiver.try_receive(received).is_some() {
            received += 1;
        }
        let [before, after] =
            [Count::Published, Count::Publishing].map(|count| receiver.count(count).load(Ordering::SeqCst));
        assert!([before, after].contains(&received), "round {round}: {received} of {before} or {after}");

        assert!(remains(&files) > 0, "what is looked for is not found while it is there");
        drop((wiring, receiver, child));
        assert_eq!(remains(&files), 0, "round {round}: mappings and descriptors remain");
    }
}

/// By what the kernel knows the files; other tests have files of their own.
fn inodes(wiring: &Wiring) -> Vec<u64> {
    let path = |file: i32| format!("/proc/self/fd/{file}");
    wiring.raw().map(|file| fs::metadata(path(file)).unwrap().ino()).to_vec()
}

/// How many mappings and descriptors this process has of those files.
fn remains(inodes: &[u64]) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let of_map = |line: &str| line.split_whitespace().nth(4)?.parse::<u64>().ok();
    let maps = maps.lines().filter(|line| line.contains("/memfd:")).filter_map(of_map);
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| {
        // One that another test has just closed is not there any more.
        let is_ours = fs::read_link(entry.path()).ok()?.to_string_lossy().starts_with("/memfd:");
        let inode = fs::metadata(entry.path()).ok()?.ino();
        is_ours.then_some(inode)
    });
    maps.chain(files).filter(|inode| inodes.contains(inode)).count()
}
