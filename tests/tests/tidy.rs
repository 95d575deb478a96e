//! What has to hold for the sources as a whole.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Which packages of the workspace a package may depend on, apart from its tests.
const ARROWS: [(&str, &[&str]); 12] = [
    ("protocol", &[]),
    ("transport", &["protocol"]),
    ("channels", &["transport", "protocol"]),
    ("cluster", &["protocol"]),
    ("scheduler", &["cluster", "protocol"]),
    ("manager", &["cluster", "transport", "protocol"]),
    ("archean-macros", &[]),
    ("archean", &["archean-macros", "channels", "protocol", "transport"]),
    ("cli", &["archean", "cluster", "manager", "protocol", "scheduler", "transport"]),
    ("examples", &["archean"]),
    ("benches", &["archean", "channels", "cluster", "manager", "protocol", "scheduler", "transport"]),
    ("tests", &["archean", "channels", "cluster", "manager", "protocol", "scheduler", "transport"]),
];

/// A file longer than this, its tests left out, has to say here why.
const LINES_MAX: usize = 600;
const LONG_FILES: [(&str, &str); 2] = [
    ("manager/src/state.rs", "every word of a process and every effect of it, in one state machine"),
    ("protocol/src/control.rs", "every word between a process and its manager, in one list"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The text files of these kinds, by their paths in the workspace.
fn files(kinds: &[&str]) -> BTreeMap<String, String> {
    let root = root();
    let (mut files, mut folders) = (BTreeMap::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.is_file() && kinds.iter().any(|kind| name.ends_with(kind)) {
                let short = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                // One that is just being replaced is not there for a moment.
                files.extend(fs::read_to_string(&path).ok().map(|text| (short, text)));
            }
        }
    }
    assert!(!files.is_empty());
    files
}

fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

#[test]
fn packages_depend_only_on_those_that_they_may() {
    let manifests = files(&["Cargo.toml"]);
    let manifest = |text: &String| text.parse::<toml::Table>().unwrap();
    let members = manifest(&manifests["Cargo.toml"])["workspace"]["members"].as_array().unwrap().clone();
    assert_eq!(members.len(), ARROWS.len(), "the table names each package of the workspace");
    let allowed = BTreeMap::from(ARROWS);
    for member in members {
        let package = manifest(&manifests[&format!("{}/Cargo.toml", member.as_str().unwrap())]);
        let name = package["package"]["name"].as_str().unwrap();
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        let dependencies = package.get("dependencies").and_then(toml::Value::as_table);
        for other in dependencies.into_iter().flat_map(toml::Table::keys) {
            let is_ours = ARROWS.iter().any(|(package, _)| package == other);
            assert!(!is_ours || allowed.contains(&other.as_str()), "{name} may not depend on {other}");
        }
    }
}

#[test]
fn unsafe_code_says_why() {
    let block = concat!("unsafe", " {");
    for (path, text) in files(&[".rs"]) {
        let blocks = text.lines().filter(|line| code(line).contains(block)).count();
        if blocks > 0 {
            let solid: String = text.split_whitespace().collect();
            let is_expected = solid.contains(concat!("expect(unsafe", "_code,reason="));
            assert!(is_expected, "{path}: it says nowhere what it needs unsafe code for");
        }
        let reasons = text.matches("SAFETY:").count();
        assert!(reasons >= blocks, "{path}: {blocks} unsafe blocks, {reasons} reasons");
    }
}

#[test]
fn nothing_is_left_undone() {
    let marks = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
    let marks = marks.into_iter().chain([concat!("#[", "ignore")]);
    for (path, text) in files(&[".rs"]) {
        for mark in marks.clone() {
            assert!(!text.contains(mark), "{path}: {mark}");
        }
        assert!(!path.ends_with("/mod.rs"), "{path}: call it by its module's name, beside the folder");
    }
}

#[test]
fn files_are_of_a_size_to_be_read() {
    for (path, text) in files(&[".rs"]) {
        if path.contains("tests/") || path.ends_with("tests.rs") {
            continue;
        }
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        let is_listed = LONG_FILES.iter().any(|(long, _)| *long == path);
        assert!(lines <= LINES_MAX || is_listed, "{path} has {lines} lines: which two things are in it?");
        assert!(lines > LINES_MAX || !is_listed, "{path} has {lines} lines, and needs no place in the list");
    }
    for (path, reason) in LONG_FILES {
        assert!(root().join(path).is_file() && !reason.is_empty(), "{path} is gone: remove it from the list");
    }
}

#[test]
fn nothing_depends_on_one_machine() {
    let roots = [concat!("/", "root/"), concat!("/", "home/"), concat!("/", "work/"), concat!("/", "Users/")];
    for (path, text) in files(&[".rs", ".toml", ".md", ".sh"]) {
        for (line, number) in text.lines().zip(1..) {
            for folder in roots {
                assert!(!line.contains(folder), "{path}:{number}: {folder}…");
            }
        }
    }
}
