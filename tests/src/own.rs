//! What a process finds out about itself, and about others, in `/proc`.

use std::fs;

/// How many descriptors a process has open.
pub fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// How many descriptors of a process are files of this name.
pub fn descriptors_of(process: u32, name: &str) -> usize {
    let Ok(folder) = fs::read_dir(format!("/proc/{process}/fd")) else { return 0 };
    let targets = folder.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains(name)).count()
}

/// How many mappings this process has of the memory of rings, and how much of it is in memory, in KiB.
pub fn rings() -> (usize, usize) {
    let (mut count, mut kib, mut is_ring) = (0, 0, false);
    for line in fs::read_to_string("/proc/self/smaps").unwrap_or_default().lines() {
        let field = line.split_ascii_whitespace().next().unwrap_or_default();
        if !field.ends_with(':') {
            is_ring = line.contains("memfd:archean-ring") || line.contains("memfd:archean-consumer");
            count += usize::from(is_ring);
        } else if is_ring && field == "Rss:" {
            kib += line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
        }
    }
    (count, kib)
}

/// Whether this process has an io_uring.
pub fn has_io_uring() -> bool {
    fs::read_to_string("/proc/self/maps").unwrap_or_default().contains("[io_uring]")
}
