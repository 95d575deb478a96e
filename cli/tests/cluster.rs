//! `archean cluster`, as a shell sees it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A home of its own.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The exit code, and what was written to standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_archean"));
        command.arg("cluster").args(arguments).stdin(Stdio::null()).current_dir(self.0.path());
        command.env_remove("XDG_CONFIG_HOME").env("HOME", self.0.path());
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn said(&self, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(arguments);
        assert_eq!((code, &stderr[..]), (0, ""), "{arguments:?}");
        stdout
    }

    /// What is complained of, in one line.
    fn failure(&self, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(arguments);
        assert_eq!((code, &stdout[..]), (1, ""), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr.strip_prefix("archean: ").unwrap().to_owned()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_cluster_is_made_used_saved_and_restored() {
    let home = Home::new();
    home.said(&["create", "life"]);
    let folder = home.path(".config/archean/clusters/life");
    for file in ["authority.pem", "scheduler/identity.pem", "admin/identity.pem"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
    let token = home.said(&["token", "--valid", "30m"]);
    assert!(token.starts_with("archean-") && token.lines().count() == 1, "{token}");
    home.said(&["client", "alice", "--role", "submit", "--out", "alice"]);
    assert_eq!(mode(&home.path("alice/identity.pem")), 0o600);
    let list = home.said(&["list"]);
    assert!(list.lines().any(|line| line.starts_with("alice ") && line.contains(" submit ")), "{list}");

    assert!(home.said(&["revoke", "alice"]).starts_with("revoked submit `alice`"));
    home.said(&["backup", "--out", "saved"]);
    assert_eq!(mode(&home.path("saved")), 0o600);
    fs::remove_dir_all(&folder).unwrap();
    home.said(&["restore", "saved"]);
    let list = home.said(&["list"]);
    assert!(list.lines().any(|line| line.starts_with("alice ") && line.ends_with("  revoked")), "{list}");
    home.said(&["client", "bob", "--role", "view", "--out", "bob", "--valid", "7d"]);
}

#[test]
fn what_can_not_be_done_is_said_with_a_remedy() {
    let home = Home::new();
    let expect = |arguments: &[&str], texts: &[&str]| {
        let failure = home.failure(arguments);
        assert!(texts.iter().all(|text| failure.contains(text)), "{arguments:?}: {failure}");
    };
    expect(&["list"], &["no cluster", "archean cluster create"]);
    expect(&["token", "--cluster", "life"], &["no cluster", "clusters/life", "archean cluster create"]);
    expect(&["create", "a/b"], &["`a/b` is no name"]);
    home.said(&["create", "life"]);
    expect(&["create", "life"], &["already", "another name"]);
    home.said(&["create", "other", "--dir", "other"]);
    expect(&["create", "third", "--dir", "other"], &["`other` already"]);
    expect(&["client", "m1", "--role", "manager", "--out", "m1"], &["archean cluster token --role manager"]);
    home.said(&["client", "alice", "--role", "view", "--out", "alice"]);
    expect(&["client", "alice", "--role", "view", "--out", "more"], &["archean cluster revoke alice"]);
    expect(&["client", "bob", "--role", "view", "--out", "alice"], &["`alice` already"]);
    expect(&["revoke", "carol"], &["`carol`", "archean cluster list"]);
    home.said(&["backup", "--out", "saved"]);
    expect(&["backup", "--out", "saved"], &["`saved`", "exists"]);
    expect(&["restore", "saved"], &["already"]);
    expect(&["restore", "missing", "--dir", "new"], &["`missing`", "No such file"]);
    let key = home.path(".config/archean/clusters/life/authority.pem");
    for (exposed, arguments) in
        [(home.path("saved"), &["restore", "saved", "--dir", "new"][..]), (key, &["list"])]
    {
        fs::set_permissions(&exposed, fs::Permissions::from_mode(0o644)).unwrap();
        expect(arguments, &["chmod 600"]);
    }
    home.said(&["create", "second"]);
    expect(&["token"], &["`life`, `second`", "--cluster"]);
    assert!(!home.path("new").exists());
    for arguments in [&["token", "--role", "king"][..], &["token", "--valid", "soon"], &["client", "x"], &[]]
    {
        let (code, _, stderr) = home.run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
    }
}
