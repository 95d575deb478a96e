//! The authority's folder, identities' files, and backups.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use cluster::{Authority, AuthorityError, Backup, FileError, Identity, IdentityError, Role};

use crate::site::{Site, lasting, meet};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn expose(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn a_cluster_is_made_once_and_found_again() {
    let site = Site::new("life");
    let error = Authority::create(site.folder.path(), "other").unwrap_err();
    assert!(matches!(error, AuthorityError::Exists(_)), "{error}");
    assert_eq!(Authority::open(site.folder.path()).unwrap().cluster(), "life");
    let missing = Authority::open(&site.folder.path().join("no")).unwrap_err();
    assert!(matches!(missing, AuthorityError::Missing(_)), "{missing}");
    assert!(matches!(Authority::create(&site.folder.path().join("x"), "a/b"), Err(AuthorityError::Name(_))));

    let key = site.folder.path().join("authority.pem");
    assert_eq!(mode(&key), 0o600);
    expose(&key);
    let error = Authority::open(site.folder.path()).unwrap_err();
    assert!(matches!(error, AuthorityError::File(FileError::Exposed { mode: 0o644, .. })), "{error}");
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn a_broken_authority_is_named() {
    let (site, other) = (Site::new("life"), Site::new("life"));
    let read = |site: &Site| fs::read_to_string(site.folder.path().join("authority.pem")).unwrap();
    let (here, there) = (read(&site), read(&other));
    let parts = |text: &str| {
        let certificate = text.find("-----BEGIN CERTIFICATE").unwrap();
        (text[..certificate].to_owned(), text[certificate..].to_owned())
    };
    let ((key, certificate), (_, foreign)) = (parts(&here), parts(&there));
    for broken in
        [String::new(), key.clone(), certificate.clone(), key + &foreign, here[..here.len() / 2].into()]
    {
        fs::write(site.folder.path().join("authority.pem"), &broken).unwrap();
        let error = Authority::open(site.folder.path()).unwrap_err();
        assert!(matches!(error, AuthorityError::Malformed { .. }), "{error}");
    }
}

#[test]
fn an_identity_is_one_file_of_its_owner() {
    let site = Site::new("life");
    let identity = site.member(Role::Submit, "alice");
    let folder = site.folder.path().join("alice");
    let error = Identity::load(&folder).unwrap_err();
    assert!(matches!(error, IdentityError::Missing(_)), "{error}");
    identity.save(&folder).unwrap();
    let file = folder.join("identity.pem");
    assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
    let loaded = Identity::load(&folder).unwrap();
    assert_eq!((loaded.peer(), loaded.cluster()), (identity.peer(), "life"));
    assert_eq!(loaded.not_after(), identity.not_after());
    // Nothing else is left of the writing.
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);

    expose(&file);
    let error = Identity::load(&folder).unwrap_err();
    assert!(matches!(error, IdentityError::File(FileError::Exposed { .. })), "{error}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

    // Its key with somebody else's certificate, or with another authority.
    let text = fs::read_to_string(&file).unwrap();
    let save = |identity: &Identity| {
        identity.save(&folder).unwrap();
        fs::read_to_string(&file).unwrap()
    };
    let key = text.split_inclusive("-----END PRIVATE KEY-----\n").next().unwrap();
    let blocks = |text: &str| {
        text.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect::<Vec<_>>()
    };
    let other = save(&site.member(Role::Submit, "bob"));
    let foreign = save(&Site::new("life").member(Role::Submit, "alice"));
    let other_leaf = other.split_inclusive("-----END PRIVATE KEY-----\n").nth(1).unwrap();
    for broken in [
        String::new(),
        key.to_owned(),
        format!("{key}{other_leaf}"),
        format!("{}{}", blocks(&text)[0], blocks(&foreign)[1]),
        blocks(&text)[0].clone(),
        text[..text.len() - 100].to_owned(),
    ] {
        fs::write(&file, broken).unwrap();
        let error = Identity::load(&folder).unwrap_err();
        assert!(matches!(error, IdentityError::Malformed(_)), "{error}");
    }
}

#[test]
fn names_are_taken_until_they_are_revoked() {
    let site = Site::new("life");
    let first = site.member(Role::Manager, "m1");
    let error = site.authority.issue(Role::View, "m1", lasting(5)).unwrap_err();
    assert!(matches!(&error, AuthorityError::NameInUse(name) if name == "m1"), "{error}");
    assert!(matches!(site.authority.revoke("m2"), Err(AuthorityError::NotFound(_))));
    assert_eq!(site.authority.revoke(&first.peer().serial).unwrap(), [first.peer().clone()]);
    assert!(matches!(site.authority.revoke("m1"), Err(AuthorityError::NotFound(_))));
    let second = site.authority.issue(Role::View, "m1", lasting(5)).unwrap();
    let list = site.authority.list().unwrap();
    let shown: Vec<_> = list.iter().map(|issued| (&issued.peer, issued.is_revoked)).collect();
    assert_eq!(shown, [(second.peer(), false), (first.peer(), true)]);
    assert_eq!(
        Authority::open(site.folder.path()).unwrap().revoked().unwrap(),
        [first.peer().serial.clone()]
    );
}

#[test]
fn what_was_revoked_stays_so_when_its_record_is_damaged() {
    let site = Site::new("life");
    let (first, second) = (site.member(Role::View, "a"), site.member(Role::View, "b"));
    site.authority.revoke("a").unwrap();
    let record = site.folder.path().join("certificates").join(format!("{}.pem", first.peer().serial));
    fs::write(record, "damaged").unwrap();
    site.authority.revoke("b").unwrap();
    let serials = [&first, &second].map(|identity| identity.peer().serial.clone());
    assert_eq!(site.authority.revoked().unwrap(), serials);
}

#[test]
fn what_has_expired_is_forgotten() {
    let site = Site::new("life");
    let now = SystemTime::now();
    let over = cluster::Validity {
        not_before: now - Duration::from_mins(60),
        not_after: now - Duration::from_mins(30),
    };
    site.authority.issue(Role::Manager, "old", over).unwrap();
    // The name is free, since the certificate has expired.
    let new = site.authority.issue(Role::Manager, "old", lasting(5)).unwrap();
    let list = site.authority.list().unwrap();
    assert_eq!(list.iter().map(|issued| &issued.peer).collect::<Vec<_>>(), [new.peer()]);
}

#[test]
fn nothing_counts_longer_than_the_authority_says() {
    let validity = cluster::Validity::lasting(Duration::MAX);
    let years = validity.not_after.duration_since(SystemTime::now()).unwrap().as_secs() / 3600 / 24 / 365;
    assert!((9..=10).contains(&years), "{years}");
}

#[tokio::test]
async fn a_cluster_comes_back_from_its_backup() {
    let site = Site::new("life");
    let (scheduler, manager) = (site.member(Role::Scheduler, "s"), site.member(Role::Manager, "m1"));
    scheduler.save(&site.folder.path().join("scheduler")).unwrap();
    let gone = site.member(Role::View, "gone");
    site.authority.revoke("gone").unwrap();
    let token = site.authority.new_token(Role::Manager, Duration::from_hours(1)).unwrap();

    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("life.backup");
    site.authority.backup(&file).unwrap();
    assert_eq!(mode(&file), 0o600);
    assert!(matches!(site.authority.backup(&file), Err(AuthorityError::File(_))), "it is never overwritten");

    let backup = Backup::read(&file).unwrap();
    assert_eq!(backup.cluster(), "life");
    let error = backup.restore(site.folder.path()).unwrap_err();
    assert!(matches!(error, AuthorityError::Exists(_)), "{error}");
    let folder = outside.path().join("deep/life");
    let restored = backup.restore(&folder).unwrap();
    assert_eq!(restored.list().unwrap(), site.authority.list().unwrap());
    assert_eq!(restored.revoked().unwrap(), [gone.peer().serial.clone()]);
    assert_eq!(mode(&folder.join("authority.pem")), 0o600);
    // Tokens don't come back, for they may have been used since.
    assert!(restored.redeem(&token).is_err());
    site.authority.redeem(&token).unwrap();

    // Whom it signs now belongs to those from before.
    let scheduler = Identity::load(&folder.join("scheduler")).unwrap();
    let new = restored.issue(Role::Manager, "m2", lasting(5)).unwrap();
    for member in [manager, new] {
        let (connected, _) = meet(&member, &scheduler, Role::Scheduler).await;
        connected.unwrap();
    }
}

#[test]
fn a_bad_backup_leaves_nothing() {
    let site = Site::new("life");
    let outside = tempfile::tempdir().unwrap();
    let path = |name: &str| outside.path().join(name);
    site.authority.backup(&path("good")).unwrap();
    let good = fs::read(path("good")).unwrap();

    // A path that leads out of the folder, a link, a file that is none of ours.
    let archive = |name: &str, kind: tar::EntryType| {
        let mut builder = tar::Builder::new(good[..good.len() - 1024].to_vec());
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o600);
        header.set_cksum();
        builder.append(&header, std::io::empty()).unwrap();
        builder.into_inner().unwrap()
    };
    for bad in [
        Vec::new(),
        b"garbage".repeat(1000),
        good[..700].to_vec(),
        archive("../evil.pem", tar::EntryType::Regular),
        archive("/evil/evil.pem", tar::EntryType::Regular),
        archive("x/evil.pem", tar::EntryType::Symlink),
        archive("evil", tar::EntryType::Regular),
        archive("tokens/00", tar::EntryType::Regular),
    ] {
        fs::write(path("bad"), bad).unwrap();
        fs::set_permissions(path("bad"), fs::Permissions::from_mode(0o600)).unwrap();
        let error = Backup::read(&path("bad")).unwrap_err();
        assert!(matches!(error, AuthorityError::NoBackup { .. }), "{error}");
    }
    fs::write(path("bad"), archive("x/fine.pem", tar::EntryType::Regular)).unwrap();
    Backup::read(&path("bad")).unwrap();
    expose(&path("bad"));
    assert!(matches!(Backup::read(&path("bad")), Err(AuthorityError::File(FileError::Exposed { .. }))));
}
