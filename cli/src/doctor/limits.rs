//! How much of everything there is on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use protocol::{
    limits::{FDS_PER_PROCESS, PROCESSES_MAX},
    resources::Cores,
};

use super::{Finding, Need};

pub(super) fn all() -> Vec<Finding> {
    let groups = own_groups(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    vec![cpu(), memory(), open_files(), processes(&groups), control_groups(&groups)]
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn cpu() -> Finding {
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unnamed", |(_, model)| model.trim());
    let cores = manager::capacity().cores;
    let found = format!("{cores} of {}, {model}", std::env::consts::ARCH);
    if cores > Cores::whole(1) {
        return Finding::ok("cores", Need::Needed, found);
    }
    let advice = "processes take turns, so every message waits for a switch; give the machine a second core";
    Finding::limited("cores", Need::Useful, found, advice)
}

fn memory() -> Finding {
    Finding::ok("memory", Need::Needed, manager::capacity().memory.to_string())
}

fn open_files() -> Finding {
    let limits = read("/proc/self/limits");
    let (soft, hard) = limit(&limits, "Max open files").unwrap_or_default();
    let fit = manager::capacity().processes;
    let found = format!("{soft} (at most {hard}): room for {fit} processes, {FDS_PER_PROCESS} files each");
    if fit >= PROCESSES_MAX {
        return Finding::ok("open files", Need::Useful, found);
    }
    let advice = "more processes wait for a place; raise `ulimit -Hn`, or LimitNOFILE of the service";
    Finding::limited("open files", Need::Useful, found, advice)
}

/// The soft and the hard value of a limit, as `/proc/self/limits` has them.
fn limit<'a>(limits: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let mut values = limits.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace();
    Some((values.next()?, values.next()?))
}

fn processes(groups: &[Group]) -> Finding {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let limits = read("/proc/self/limits");
    let mut bounds = vec![
        ("kernel.pid_max".to_owned(), number(&read("/proc/sys/kernel/pid_max"))),
        ("kernel.threads-max".to_owned(), number(&read("/proc/sys/kernel/threads-max"))),
        ("ulimit -u".to_owned(), limit(&limits, "Max processes").and_then(|(soft, _)| number(soft))),
    ];
    for folder in groups.iter().flat_map(Group::folders) {
        let file = folder.join("pids.max");
        bounds.push((file.display().to_string(), number(&read(&file))));
    }
    let tightest = bounds.into_iter().filter_map(|(name, bound)| Some((bound?, name))).min();
    let Some((bound, name)) = tightest else {
        return Finding::ok("processes", Need::Useful, "no limit was found");
    };
    let found = format!("at most {bound} processes and threads, by {name}");
    if bound >= PROCESSES_MAX.into() {
        return Finding::ok("processes", Need::Useful, found);
    }
    let advice = "jobs with more processes fail to start them; raise that limit";
    Finding::limited("processes", Need::Useful, found, advice)
}

/// The control group of this process in one hierarchy.
#[derive(PartialEq, Debug)]
struct Group {
    /// The controllers of a version 1 hierarchy; none for version 2.
    controllers: String,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    folder: PathBuf,
}

impl Group {
    /// The group's folder and those above it.
    fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folder.ancestors().take_while(|folder| folder.starts_with(&self.mount))
    }

    fn label(&self) -> String {
        match &self.controllers[..] {
            "" => match read(self.folder.join("cgroup.controllers")).trim() {
                "" => "version 2 without controllers".to_owned(),
                controllers => format!("version 2 ({controllers})"),
            },
            controllers => format!("version 1 ({controllers})"),
        }
    }
}

/// The groups of this process that can be reached, from `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn own_groups(memberships: &str, mounts: &str) -> Vec<Group> {
    let group = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (root, mount) = mounts.lines().find_map(|mount| mount_of(mount, controllers))?;
        // A container may see the hierarchy from its own group downwards only.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let mount = PathBuf::from(mount);
        let folder = mount.join(below);
        Some(Group { controllers: controllers.to_owned(), mount, folder })
    };
    memberships.lines().filter_map(group).collect()
}

/// The root and the place of a mount, if it is that of the hierarchy with these controllers.
fn mount_of<'a>(line: &'a str, controllers: &str) -> Option<(&'a str, &'a str)> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    let kind = back.next()?;
    let options = back.nth(1)?;
    let is_it = match controllers {
        "" => kind == "cgroup2",
        _ => {
            kind == "cgroup"
                && controllers.split(',').all(|one| options.split(',').any(|option| option == one))
        }
    };
    let mut fields = front.split(' ').skip(3);
    is_it.then_some((fields.next()?, fields.next()?))
}

fn control_groups(groups: &[Group]) -> Finding {
    let is_useful = |group: &&Group| {
        let label = group.label();
        ["pids", "memory", "cpu"].iter().any(|name| label.contains(name))
    };
    let useful: Vec<&Group> = groups.iter().filter(is_useful).collect();
    let mut labels: Vec<String> = useful.iter().map(|group| group.label()).collect();
    labels.sort();
    let found = labels.join(", ");
    if useful.is_empty() {
        let advice = "limits on memory and processes can't be enforced; mount cgroup2 on /sys/fs/cgroup";
        return Finding::missing("control groups", Need::Later, "none that limits anything", advice);
    }
    let can_divide = |group: &&Group| {
        let folder = group.folder.join(format!("archean-doctor-{}", process::id()));
        fs::create_dir(&folder).and_then(|()| fs::remove_dir(&folder)).is_ok()
    };
    if useful.iter().all(can_divide) {
        return Finding::ok("control groups", Need::Later, found);
    }
    let advice = "this user may not divide its group, so limits can't be enforced; delegate it, as with \
                  `systemd-run --user --scope -p Delegate=yes`";
    Finding::limited("control groups", Need::Later, found, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_by_name() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             96343                unlimited            processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(limit(limits, "Max open files"), Some(("1024", "524288")));
        assert_eq!(limit(limits, "Max processes"), Some(("96343", "unlimited")));
        assert_eq!(limit("", "Max processes"), None);
    }

    #[test]
    fn groups_of_both_versions_are_found() {
        let memberships = "5:cpu,cpuacct:/\n3:pids:/box/inner\n1:name=systemd:/x\n0::/user.slice/a:b\n";
        let mounts = "30 25 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                      33 25 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      34 25 0:31 /box /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n";
        let group = |controllers: &str, mount: &str, folder: &str| Group {
            controllers: controllers.into(),
            mount: mount.into(),
            folder: folder.into(),
        };
        let groups = own_groups(memberships, mounts);
        assert_eq!(
            groups,
            [
                group("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/"),
                group("pids", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/inner"),
                group("", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/user.slice/a:b"),
            ]
        );
        let folders: Vec<_> = groups[1].folders().collect();
        assert_eq!(folders, [Path::new("/sys/fs/cgroup/pids/inner"), Path::new("/sys/fs/cgroup/pids")]);
    }
}
