//! What the binary says and how it ends, as a shell sees it.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

fn archean(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_archean"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The exit code, and what was written to standard output and standard error.
fn shown(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = status.code().unwrap_or_else(|| panic!("ended by signal {:?}", status.signal()));
    (code, text(stdout), text(stderr))
}

/// Runs `archean` in `folder`, and expects that it fails with that code, in one line on standard error.
fn failure(folder: &Path, arguments: &[&str], code: i32) -> String {
    let (found, stdout, stderr) = shown(archean(arguments).current_dir(folder));
    assert_eq!((found, &stdout[..]), (code, ""), "{arguments:?}: {stderr}");
    let line = stderr.strip_prefix("archean: ").and_then(|rest| rest.strip_suffix('\n'));
    let line = line.unwrap_or_else(|| panic!("{stderr}"));
    assert!(!line.contains('\n'), "{stderr}");
    line.to_owned()
}

fn write(folder: &TempDir, name: &str, text: &str, mode: u32) {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_not_there_is_code_127() {
    let folder = tempfile::tempdir().unwrap();
    let text = failure(folder.path(), &["run", "./missing", "--flag"], 127);
    assert!(text.contains("`./missing`") && text.contains("no such file"), "{text}");
    let text = failure(folder.path(), &["run", "no-such-program-anywhere"], 127);
    assert!(text.contains("`no-such-program-anywhere`") && text.contains("PATH"), "{text}");
}

#[test]
fn what_can_not_be_run_is_code_126() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "script", "#!/bin/sh\n", 0o755);
    write(&folder, "text", "hello", 0o755);
    for (program, reason) in [
        ("script", "script"),
        ("text", "ELF"),
        (".", "folder"),
        ("/bin/ls", "not built with Archean"),
        ("ls", "built"),
    ] {
        let text = failure(folder.path(), &["run", program], 126);
        assert!(text.contains(program) && text.contains(reason), "{text}");
    }
}

#[test]
fn a_failure_can_be_had_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = shown(archean(&["run", "--json", "./missing"]).current_dir(&folder));
    let value: serde_json::Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!((code, &stdout[..], value["exit_code"].as_u64()), (127, "", Some(127)));
    assert!(value["error"].as_str().unwrap().contains("./missing"));
}

#[test]
fn a_bad_config_file_is_named_with_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = failure(folder.path(), &["run", "--config", "missing.toml", "ls"], 125);
    assert!(text.contains("`missing.toml`"), "{text}");
    for (text, place) in [
        ("[requirements]\ncores = '1/0'", "job.toml:2:9: `requirements.cores`: "),
        ("[env]\nA = 1", "job.toml:2:5: `env.A` must be a string"),
        ("speed = 1", "job.toml:1:1: unknown key `speed`"),
        ("[cloud-scaling]\nstandby_machines = 2", "job.toml:1:2: `cloud-scaling` is not supported yet"),
        ("a = 1\na = 2", "job.toml:2:1: "),
    ] {
        write(&folder, "job.toml", text, 0o644);
        let found = failure(folder.path(), &["run", "--config", "job.toml", "ls"], 125);
        assert!(found.starts_with(place), "{found}");
    }
}

#[test]
fn a_command_line_without_sense_is_code_2() {
    for arguments in [
        &["run"][..],
        &[],
        &["walk"],
        &["run", "--cores", "many", "ls"],
        &["run", "--memory", "64", "ls"],
        &["run", "--env", "=x", "ls"],
        &["run", "--bogus", "ls"],
        &["completions", "tcsh"],
    ] {
        let (code, stdout, stderr) = shown(&mut archean(arguments));
        assert_eq!((code, &stdout[..]), (2, ""), "{arguments:?}");
        assert!(stderr.contains("Usage") || stderr.contains("--help"), "{stderr}");
    }
}

#[test]
fn options_behind_the_program_are_the_programs() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [["run", "./missing", "--cores", "many"], ["run", "--", "./missing", "--help"]] {
        let text = failure(folder.path(), &arguments, 127);
        assert!(text.contains("`./missing`"), "{text}");
    }
}

#[test]
fn a_project_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = shown(archean(&["new", "cells"]).current_dir(&folder));
    assert_eq!((code, &stderr[..]), (0, ""));
    assert!(stdout.contains("cd cells"), "{stdout}");
    for file in ["Cargo.toml", "src/main.rs", ".gitignore"] {
        assert!(folder.path().join("cells").join(file).is_file(), "{file}");
    }
    let text = failure(folder.path(), &["new", "cells"], 1);
    assert!(text.contains("`cells` exists already"), "{text}");
    let text = failure(folder.path(), &["new", "../cells"], 1);
    assert!(text.contains("`../cells`"), "{text}");
}

#[test]
fn the_doctor_speaks_json() {
    let (code, stdout, stderr) = shown(&mut archean(&["doctor", "--json"]));
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code == 0, &stderr[..]), (value["ready"].as_bool().unwrap(), ""));
    let findings = value["findings"].as_array().unwrap();
    for name in ["futex_waitv", "memfd", "pidfd", "close_range", "/proc", "open files", "cores", "memory"] {
        let finding = findings.iter().find(|finding| finding["name"] == name);
        let finding = finding.unwrap_or_else(|| panic!("nothing on {name}"));
        assert_eq!(finding["status"] == "ok", finding.get("advice").is_none(), "{finding}");
    }
    let (plain_code, plain, _) = shown(&mut archean(&["doctor"]));
    assert_eq!(plain_code, code);
    assert_eq!(plain.lines().count(), findings.len() + 2);
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, stdout, stderr) = shown(&mut archean(&["completions", shell]));
        assert_eq!((code, &stderr[..]), (0, ""));
        assert!(stdout.contains("archean") && stdout.contains("doctor"), "{shell}");
    }
}

#[test]
fn a_reader_that_has_heard_enough_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = archean(&["completions", "bash"]).stdout(writer).output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stderr, b"");
}
