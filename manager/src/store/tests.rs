#![expect(unsafe_code, reason = "mounting has no safe interface in std")]

use std::{
    ffi::{CString, OsStr},
    fs::Permissions,
    io::Read,
    net::{Shutdown, TcpListener, TcpStream},
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    process::Command,
    ptr, thread,
};

use prost::Message;
use protocol::image::{Kind, Want};
use tempfile::TempDir;
use tokio::join;

use super::{records::Records, *};
use crate::{
    Image,
    launch::{self, Launch},
    links::{Keys, Link, Secret},
};

const LIMIT: u64 = 1 << 30;

fn store() -> (TempDir, Store) {
    // In memory: what is written is waited for very often here.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
    let store = Store::open(&folder.path().join("images here"), LIMIT).unwrap();
    (folder, store)
}

/// Two ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let other = listener.accept().unwrap().0;
    // As those of links: what is small is not held back.
    [&one, &other].into_iter().for_each(|stream| stream.set_nodelay(true).unwrap());
    (one, other)
}

/// Two ends of a link.
fn linked(is_sealed: bool) -> (Link, Link) {
    let (one, other) = pair();
    let keys = |send, receive| {
        is_sealed.then_some(Keys { send: Secret([send; 32]), receive: Secret([receive; 32]) })
    };
    (Link { stream: one, keys: keys(1, 2) }, Link { stream: other, keys: keys(2, 1) })
}

/// What the sender sends passes through `change`, which may shorten it; then the connection ends.
fn through(
    is_sealed: bool,
    change: impl FnOnce(&mut TcpStream, &mut TcpStream) + Send + 'static,
) -> (Link, Link) {
    let ((sender, mut inner), (mut outer, receiver)) = (pair(), pair());
    let keys = |send, receive| {
        is_sealed.then_some(Keys { send: Secret([send; 32]), receive: Secret([receive; 32]) })
    };
    let (mut wishes, mut to_sender) = (outer.try_clone().unwrap(), inner.try_clone().unwrap());
    thread::spawn(move || {
        // It ends when either side does.
        let _ = io::copy(&mut wishes, &mut to_sender);
        let _ = to_sender.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        change(&mut inner, &mut outer);
        let _ = (inner.shutdown(Shutdown::Both), outer.shutdown(Shutdown::Both));
    });
    (Link { stream: sender, keys: keys(1, 2) }, Link { stream: receiver, keys: keys(2, 1) })
}

/// An image that is nothing but these bytes.
fn put(store: &Store, bytes: &[u8]) -> ImageId {
    put_all(store, &[bytes])
}

/// An image of a program, and a loader if there are two files.
fn put_all(store: &Store, contents: &[&[u8]]) -> ImageId {
    let describe = |(role, bytes): (Role, &&[u8])| {
        let hash = *blake3::hash(bytes).as_bytes();
        fs::write(store.file(&hash), bytes).unwrap();
        let bytes = bytes.len() as u64;
        ImageFile { role: role as i32, name: "cell".into(), bytes, hash: hash.into(), mode: 0o755 }
    };
    let files: Vec<_> = [Role::Program, Role::Interpreter].into_iter().zip(contents).map(describe).collect();
    let manifest = Manifest { files: files.clone() }.encode_to_vec();
    let id = ImageId(*blake3::hash(&manifest).as_bytes());
    let building = Building::start(store, id, &manifest).unwrap();
    for file in &files {
        assert!(building.link(file, &store.file(&file.digest().unwrap())).unwrap());
    }
    building.publish().unwrap();
    id
}

fn bytes_of(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * index / 7) as u8).collect()
}

fn contents(store: &Store, id: ImageId) -> Vec<u8> {
    let lease = store.lease(id).unwrap();
    fs::read(lease.path(&lease.manifest.files[0])).unwrap()
}

fn count(store: &Store, part: &str) -> usize {
    fs::read_dir(store.folder.join(part)).unwrap().count()
}

async fn bring(from: &Store, to: &Store, id: ImageId, links: (Link, Link)) -> Result<u64, TransferError> {
    let (served, fetched) = join!(serve(links.0, from), fetch(links.1, to, id));
    if fetched.is_ok() {
        served.unwrap();
    }
    fetched
}

#[tokio::test]
async fn an_image_is_sent_once() {
    let ((_one, from), (_other, to)) = (store(), store());
    for (is_sealed, bytes) in [(true, bytes_of(200_000)), (false, bytes_of(200_001)), (true, Vec::new())] {
        let id = put(&from, &bytes);
        assert_eq!(bring(&from, &to, id, linked(is_sealed)).await.unwrap(), bytes.len() as u64);
        assert_eq!(contents(&to, id), bytes);
        assert_eq!(bring(&from, &to, id, linked(is_sealed)).await.unwrap(), 0);
    }
    assert_eq!((count(&to, "partial"), count(&to, "images")), (0, 3));
}

#[tokio::test]
async fn two_fetches_at_once_send_an_image_once() {
    let ((_one, from), (_other, to)) = (store(), store());
    let id = put(&from, &bytes_of(1 << 20));
    let both = join!(bring(&from, &to, id, linked(true)), bring(&from, &to, id, linked(true)));
    assert_eq!(both.0.unwrap() + both.1.unwrap(), 1 << 20);
}

#[tokio::test]
async fn a_transfer_goes_on_after_a_break_at_any_byte() {
    let (_one, from) = store();
    let bytes = bytes_of(90);
    let id = put(&from, &bytes);
    let mut resumed = 0;
    for end in 0.. {
        let (_other, to) = store();
        let cut = through(true, move |from, to| {
            let _ = io::copy(&mut from.take(end), to);
        });
        match bring(&from, &to, id, cut).await {
            Ok(came) => {
                // Not one byte was missing.
                assert!(came == 90 && end > 90);
                break;
            }
            Err(error) => {
                assert!(matches!(error, TransferError::Broken(_) | TransferError::Truncated), "{error}")
            }
        }
        assert!(!to.has(id));
        let came = bring(&from, &to, id, linked(true)).await.unwrap();
        assert!(came == 90 || came == 0, "all of the one piece came, or nothing of it");
        resumed += u64::from(came == 0);
        assert_eq!(contents(&to, id), bytes);
    }
    assert!(resumed > 0, "a break behind the file's last piece");
}

#[tokio::test]
async fn a_transfer_goes_on_from_where_it_broke() {
    let ((_one, from), (_other, to)) = (store(), store());
    let bytes = bytes_of(1 << 20);
    let id = put(&from, &bytes);
    let cut = through(false, |from, to| {
        let _ = io::copy(&mut from.take(700_000), to);
    });
    bring(&from, &to, id, cut).await.unwrap_err();
    let came = bring(&from, &to, id, linked(false)).await.unwrap();
    assert!(((1 << 20) - 700_000..500_000).contains(&came), "{came}");
    assert_eq!(contents(&to, id), bytes);
}

#[tokio::test]
async fn changed_bytes_are_found_and_removed() {
    let ((_one, from), (_other, to)) = (store(), store());
    let bytes = bytes_of(100_000);
    let id = put(&from, &bytes);
    for is_sealed in [false, true] {
        let changed = through(is_sealed, |from, to| {
            let _ = io::copy(&mut Read::by_ref(from).take(50_000), to);
            let mut byte = [0];
            from.read_exact(&mut byte).unwrap();
            to.write_all(&[byte[0] ^ 1]).unwrap();
            let _ = io::copy(from, to);
        });
        match bring(&from, &to, id, changed).await.unwrap_err() {
            TransferError::Store(StoreError::Corrupt { name }) => assert!(!is_sealed && name == "cell"),
            TransferError::Forged => assert!(is_sealed),
            other => panic!("{other}"),
        }
        assert!(!to.has(id));
    }
    assert_eq!(bring(&from, &to, id, linked(true)).await.unwrap(), 100_000);
    assert_eq!(contents(&to, id), bytes);
}

/// A sender that has an image of 100 bytes, and says this when its file is asked for.
async fn said(records: &[(Kind, &[u8])]) -> TransferError {
    let ((_one, from), (_other, to)) = (store(), store());
    let id = put(&from, &bytes_of(100));
    let manifest = fs::read(from.image(id).join("manifest")).unwrap();
    let (ours, theirs) = linked(true);
    let send = async {
        let mut link = Records::new(ours).unwrap();
        for (number, answer) in
            [&[(Kind::Bytes, &manifest[..]), (Kind::End, &[])], records].into_iter().enumerate()
        {
            let (kind, body) = link.receive(IDLE).await.unwrap().unwrap();
            assert!(kind == Kind::Want && (Want::decode(body).unwrap().hash == id.0) == (number == 0));
            for (kind, body) in answer {
                link.send(*kind, body).await.unwrap();
            }
        }
    };
    join!(fetch(theirs, &to, id), send).0.unwrap_err()
}

const IDLE: std::time::Duration = protocol::limits::IMAGE_IDLE_MAX;

#[tokio::test]
async fn a_sender_that_breaks_the_rules_is_named() {
    let end: (Kind, &[u8]) = (Kind::End, &[]);
    assert!(matches!(said(&[(Kind::Bytes, &[0; 99]), end]).await, TransferError::Truncated));
    assert!(matches!(said(&[(Kind::Bytes, &[0; 99])]).await, TransferError::Truncated));
    assert!(matches!(
        said(&[(Kind::Bytes, &[0; 101]), end]).await,
        TransferError::TooLong { bytes: 100, .. }
    ));
    assert!(matches!(said(&[(Kind::Absent, &[])]).await, TransferError::Absent(_)));
    assert!(matches!(said(&[(Kind::Want, &[])]).await, TransferError::Garbled(_)));
    let corrupt = said(&[(Kind::Bytes, &[0; 100]), end]).await;
    assert!(matches!(corrupt, TransferError::Store(StoreError::Corrupt { .. })), "{corrupt}");
}

#[tokio::test]
async fn a_receiver_that_breaks_the_rules_is_named() {
    let (_folder, store) = store();
    let huge = u32::MAX.to_le_bytes();
    for bytes in [&huge[..], &[0, 0, 0, 0], &[1, 0, 0, 0, 9], &[1, 0, 0, 0, Kind::Bytes as u8], &[9, 0]] {
        let (ours, mut theirs) = linked(false);
        theirs.stream.write_all(bytes).unwrap();
        theirs.stream.shutdown(Shutdown::Write).unwrap();
        let error = serve(ours, &store).await.unwrap_err();
        assert!(matches!(error, TransferError::Garbled(_) | TransferError::Truncated), "{error}");
    }
    let (ours, theirs) = linked(true);
    assert!(matches!(
        bring(&store, &self::store().1, ImageId([3; 32]), (ours, theirs)).await,
        Err(TransferError::Absent(_))
    ));
}

#[tokio::test]
async fn a_corrupt_image_is_found_removed_and_brought_again() {
    let ((_one, from), (_other, to)) = (store(), store());
    let id = put(&from, &bytes_of(5000));
    bring(&from, &to, id, linked(true)).await.unwrap();
    fs::write(to.image(id).join("manifest"), "other").unwrap();
    assert!(matches!(to.lease(id), Err(StoreError::Corrupt { name }) if name == "manifest"));
    assert_eq!(bring(&from, &to, id, linked(true)).await.unwrap(), 0, "its file was there");
    let file = to.file(blake3::hash(&bytes_of(5000)).as_bytes());
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, [7; 5000]).unwrap();
    assert!(matches!(to.lease(id), Err(StoreError::Corrupt { name }) if name == "cell"));
    assert!(matches!(to.lease(id), Err(StoreError::Absent(_))));
    assert_eq!(bring(&from, &to, id, linked(true)).await.unwrap(), 5000);
    to.lease(id).unwrap();
}

#[tokio::test]
async fn the_image_that_was_not_used_for_longest_goes_first_and_never_one_in_use() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path(), 1000).unwrap();
    let [oldest, used, leased] = [1, 2, 3].map(|byte| put(&store, &[byte; 300]));
    let past = |id, seconds| {
        let manifest = File::open(store.image(id).join("manifest")).unwrap();
        manifest.set_modified(SystemTime::now() - std::time::Duration::from_secs(seconds)).unwrap();
    };
    past(oldest, 20);
    past(used, 10);
    let lease = store.lease(leased).unwrap();
    past(leased, 30);
    let next = put(&store, &[4; 300]);
    assert_eq!([oldest, used, leased, next].map(|id| store.has(id)), [false, true, true, true]);
    assert_eq!((count(&store, "files"), count(&store, "images")), (3, 3));
    drop(lease);
    let newest = put(&store, &[5; 300]);
    assert_eq!([used, leased, next, newest].map(|id| store.has(id)), [true, false, true, true]);
    let mut large = Manifest::read(&fs::read(store.image(newest).join("manifest")).unwrap()).unwrap();
    large.files[0].bytes = 1001;
    let bytes = large.encode_to_vec();
    let error = store.read_manifest(ImageId(*blake3::hash(&bytes).as_bytes()), &bytes).unwrap_err();
    assert!(matches!(error, StoreError::Limit { bytes: 1001, limit: 1000, .. }));
}

#[tokio::test]
async fn what_was_abandoned_is_removed() {
    let (_folder, store) = store();
    put(&store, &[1; 10]);
    let abandoned = store.folder.join("images/new-0");
    fs::create_dir_all(abandoned.join("library")).unwrap();
    fs::write(abandoned.join("manifest"), "half").unwrap();
    let id = ImageId([1; 32]);
    let building = Building::start(&store, id, b"another process is at it").unwrap();
    let again = Store::open(&store.folder, LIMIT).unwrap();
    assert_eq!(count(&again, "images"), 2);
    drop(building);
    assert_eq!(count(&again, "images"), 1);
}

#[test]
fn folders_that_cannot_hold_images_are_named() {
    let folder = TempDir::new().unwrap();
    let error = Store::open(&folder.path().join("a:b"), LIMIT).unwrap_err();
    assert!(matches!(error, StoreError::FolderName(_)));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file, LIMIT).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}

/// Mounts a file system of 64 KiB, in a namespace that ends with the thread.
fn small_disk(folder: &Path) -> io::Result<()> {
    let path = CString::new(folder.as_os_str().as_bytes()).unwrap();
    // SAFETY: no memory is involved; the thread leaves the namespace that it shares with the others.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mount = |source, target: *const _, kind, flags, data: *const _| {
        // SAFETY: all are NUL-terminated strings that outlive the call, or null where that is allowed.
        match unsafe { libc::mount(source, target, kind, flags, data) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    mount(ptr::null(), c"/".as_ptr(), ptr::null(), libc::MS_REC | libc::MS_PRIVATE, ptr::null())?;
    mount(c"tmpfs".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, c"size=64k".as_ptr().cast())
}

#[test]
fn a_full_disk_is_named_and_nothing_half_is_left() {
    let test = || {
        let folder = TempDir::new().unwrap();
        if let Err(error) = small_disk(folder.path()) {
            eprintln!("skipped: a full disk, since this user may not mount one ({error})");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ((_one, from), to) = (store(), Store::open(folder.path(), LIMIT).unwrap());
        let small = put(&from, &bytes_of(10_000));
        let large = put_all(&from, &[&bytes_of(20_000), &bytes_of(1 << 20)]);
        let error = runtime.block_on(bring(&from, &to, large, linked(true))).unwrap_err();
        let TransferError::Store(StoreError::Full { folder: named, name, bytes }) = error else {
            panic!("{error}")
        };
        assert_eq!((named.as_path(), name.as_str(), bytes), (folder.path(), "cell", 1 << 20));
        assert_eq!(["files", "partial", "images"].map(|part| count(&to, part)), [0, 0, 0]);
        assert_eq!(runtime.block_on(bring(&from, &to, small, linked(true))).unwrap(), 10_000);
        drop(to);
        let path = CString::new(folder.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is a NUL-terminated string that outlives the call.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    };
    // On a thread of its own, which takes the namespace with it.
    thread::spawn(test).join().unwrap();
}

/// A program with the SDK's note, that says what its library says, what it is called with, and where its entry is.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
extern const char __ehdr_start;
__attribute__((used, section(".note.archean"), aligned(4)))
static const struct { unsigned n, d, t; char name[8]; unsigned v; } note = { 8, 4, 1, "Archean", VERSION };
const char *odd(void);
int main(int count, char **arguments) {
    printf("%s", odd());
    for (int i = 0; i < count; i++) printf(" %s", arguments[i]);
    printf(" %lx %d\n", (long)((const char *)main - &__ehdr_start), getenv("LD_LIBRARY_PATH") != 0);
    return 0;
}
"#;

fn compile(folder: &Path, source: &str, output: &str, arguments: &[&str]) {
    let (file, output) = (folder.join(format!("{output}.c")), folder.join(output));
    fs::write(&file, source).unwrap();
    let version = format!("-DVERSION={}", protocol::note::VERSION);
    let mut command = Command::new("cc");
    command.arg(version).arg(&file).arg("-o").arg(output).args(arguments);
    let result = command.output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
}

/// Compiles a program and its library, for a loader or for none.
fn compile_program(folder: &Path, is_static: bool) -> PathBuf {
    let odd = "const char *odd(void) { return \"brought along\"; }";
    let library = format!("-L{}", folder.display());
    if is_static {
        compile(folder, &format!("{PROGRAM}\n{odd}"), "cell", &["-static"]);
    } else {
        compile(folder, odd, "libodd.so.1", &["-shared", "-fPIC", "-Wl,-soname,libodd.so.1"]);
        let search = format!("-Wl,-rpath,{}", folder.display());
        compile(folder, PROGRAM, "cell", &["-pie", "-fPIE", &library, "-l:libodd.so.1", &search]);
    }
    folder.join("cell")
}

/// What the image writes when it is started as the service does it.
fn output(image: &Image) -> String {
    let (mut reader, writer) = io::pipe().unwrap();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let mut argv = image.command(c"./cell".into());
    argv.push(c"an argument".into());
    let descriptors = [null.as_fd(), writer.as_fd(), writer.as_fd()];
    let launch =
        Launch { image: image.fd.as_fd(), argv: &argv, env: &[], directory: c"/", descriptors: &descriptors };
    let process = launch::launch(&launch).unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    // SAFETY: a null status is allowed, and no other memory is involved.
    assert_eq!(unsafe { libc::waitpid(process.pid, ptr::null_mut(), 0) }, process.pid);
    text
}

#[tokio::test]
async fn a_program_runs_where_its_libraries_are_absent() {
    let folder = TempDir::new().unwrap();
    let built = folder.path().join("built");
    fs::create_dir(&built).unwrap();
    let program = compile_program(&built, false);
    let here = output(&Image::load(&program).unwrap());
    assert!(here.starts_with("brought along ./cell an argument ") && here.ends_with(" 0\n"), "{here}");
    let ((_one, from), (_other, to)) = (store(), store());
    let id = from.add(&program).await.unwrap();
    assert_eq!(from.add(&program).await.unwrap(), id);
    fs::rename(&built, folder.path().join("elsewhere")).unwrap();
    assert!(output(&Image::load(&folder.path().join("elsewhere/cell")).unwrap()).contains("libodd.so.1"));
    bring(&from, &to, id, linked(true)).await.unwrap();
    let image = Image::from_store(&to, id).unwrap();
    assert_eq!((image.id, image.path.as_os_str()), (id, OsStr::new("cell")));
    assert_eq!(output(&image), here, "called the same, with its entry at the same place");
    let names = image.command(c"x".into()).len();
    assert!(names == 6, "a loader that takes the program's name");
}

#[tokio::test]
async fn a_static_program_is_one_file_and_needs_no_loader() {
    let folder = TempDir::new().unwrap();
    let program = compile_program(folder.path(), true);
    let here = output(&Image::load(&program).unwrap());
    let (_folder, store) = store();
    let id = store.add(&program).await.unwrap();
    assert_eq!(store.lease(id).unwrap().manifest.files.len(), 1);
    let image = Image::from_store(&store, id).unwrap();
    assert!(image.loader.is_none());
    assert_eq!(output(&image), here);
}

#[tokio::test]
async fn a_library_that_is_missing_is_named() {
    let folder = TempDir::new().unwrap();
    let program = compile_program(folder.path(), false);
    fs::remove_file(folder.path().join("libodd.so.1")).unwrap();
    let (_folder, store) = store();
    let error = store.add(&program).await.unwrap_err().to_string();
    assert!(error.contains("libodd.so.1"), "{error}");
    assert!(matches!(store.add(Path::new("/bin/sh")).await, Err(StoreError::Program(_))));
    assert_eq!(["files", "partial", "images"].map(|part| count(&store, part)), [0, 0, 0]);
}

#[tokio::test]
async fn programs_share_their_libraries_in_the_store() {
    let folder = TempDir::new().unwrap();
    let program = compile_program(folder.path(), false);
    let (_folder, store) = store();
    let one = store.add(&program).await.unwrap();
    let before = count(&store, "files");
    let renamed = folder.path().join("other");
    fs::rename(&program, &renamed).unwrap();
    let other = store.add(&renamed).await.unwrap();
    assert_ne!(one, other, "it has another name");
    assert_eq!((count(&store, "files"), count(&store, "images")), (before, 2));
}
