//! Every way in which a process can end, as whoever asks is told it.
#![expect(unsafe_code, reason = "processes end themselves by signals")]

use std::{
    fs,
    future::pending,
    io,
    process::{self, Stdio},
    time::Duration,
};

use archean::{Ending, Failure, Reason, Receiver, RecvError, Sender, channel, spawn, time::timeout};

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

fn die_by(signal: i32) {
    // SAFETY: all three calls take integers; the default action is no code of ours.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::kill(process::id() as i32, signal);
    }
    loop {
        std::thread::park();
    }
}

#[archean::test]
async fn a_process_may_end_itself() -> anyhow::Result<()> {
    for code in [0, 3, 101] {
        let error = spawn(|code: i32| -> () { process::exit(code) }, code).await?.join().await.unwrap_err();
        assert_eq!(*error.ending(), Ending::Exited { code });
        assert_eq!(error.cause(), None);
    }
    Ok(())
}

#[archean::test]
async fn a_panic_tells_what_and_where() -> anyhow::Result<()> {
    let line = line!() + 1;
    let error = spawn(|n: u32| -> u32 { panic!("no {n}") }, 7).await?.join().await.unwrap_err();
    let Ending::Panicked { message, location } = error.ending() else { panic!("{error}") };
    assert_eq!(message, "no 7");
    assert!(location.starts_with(&format!("{}:{line}:", file!())), "{location}");
    assert!(error.stderr_tail().contains("no 7"), "{}", error.stderr_tail());

    let later = async || -> u8 {
        archean::time::sleep(Duration::from_millis(1)).await;
        panic!("later")
    };
    let error = spawn(later, ()).await?.join().await.unwrap_err();
    assert!(matches!(error.ending(), Ending::Panicked { message, .. } if message == "later"), "{error}");

    let long = spawn(|| -> () { panic!("{}", "…".repeat(10_000)) }, ()).await?.join().await.unwrap_err();
    let Ending::Panicked { message, .. } = long.ending() else { panic!("{long}") };
    assert!(message.starts_with('…') && message.len() < 10_000);

    let value = spawn(|| -> () { std::panic::panic_any(5) }, ()).await?.join().await.unwrap_err();
    assert!(matches!(value.ending(), Ending::Panicked { .. }), "{value}");
    Ok(())
}

#[archean::test]
async fn a_panic_that_does_not_end_the_process_is_not_its_end() -> anyhow::Result<()> {
    fn in_a_thread() -> bool {
        std::thread::spawn(|| panic!("only a thread")).join().is_err()
    }
    assert!(spawn(in_a_thread, ()).await?.join().await?);
    fn caught_then_exit() {
        let _ = std::panic::catch_unwind(|| panic!("caught"));
        process::exit(4)
    }
    let error = spawn(caught_then_exit, ()).await?.join().await.unwrap_err();
    assert_eq!(*error.ending(), Ending::Exited { code: 4 });
    fn passed_on() {
        std::thread::spawn(|| panic!("in the thread")).join().expect("the thread panicked");
    }
    let error = spawn(passed_on, ()).await?.join().await.unwrap_err();
    assert!(
        matches!(error.ending(), Ending::Panicked { message, .. } if message.starts_with("the thread panicked")),
        "{error}"
    );
    Ok(())
}

#[archean::test]
async fn signals_are_told() -> anyhow::Result<()> {
    for signal in [libc::SIGKILL, libc::SIGSEGV, libc::SIGTERM, libc::SIGABRT] {
        let error = spawn(die_by, signal).await?.join().await.unwrap_err();
        assert_eq!(*error.ending(), Ending::Signalled { signal, core: false });
    }
    let error = spawn(|| -> () { process::abort() }, ()).await?.join().await.unwrap_err();
    assert_eq!(*error.ending(), Ending::Signalled { signal: libc::SIGABRT, core: false });
    Ok(())
}

#[archean::test]
async fn an_error_is_an_ending_too() -> anyhow::Result<()> {
    fn parse(text: String) -> Result<u32, Failure> {
        Ok(text.parse()?)
    }
    assert_eq!(spawn(parse, "12".into()).await?.result().await?, 12);
    let child = spawn(parse, "x".into()).name("parser").await?;
    let error = child.result().await.unwrap_err();
    assert_eq!(*error.ending(), Ending::Failed { text: "invalid digit found in string".into() });
    assert!(error.to_string().contains("parser"), "{error}");
    let inner = spawn(parse, "x".into()).await?.join().await?;
    assert_eq!(inner.unwrap_err().text(), "invalid digit found in string");
    async fn nested() -> Result<u32, Failure> {
        Ok(spawn(parse, "y".into()).name("inner").await?.result().await?)
    }
    let error = spawn(nested, ()).await?.result().await.unwrap_err();
    assert!(error.to_string().contains("inner"), "{error}");
    Ok(())
}

#[archean::test]
async fn a_result_over_the_bound_is_told_with_the_bound() -> anyhow::Result<()> {
    const BOUND: usize = protocol::limits::ARGUMENT_BYTES_MAX;
    let make = |bytes: usize| vec![1u8; bytes];
    let error = spawn(make, BOUND + 1).await?.join().await.unwrap_err();
    let Ending::Failed { text } = error.ending() else { panic!("{error}") };
    assert!(text.contains(&BOUND.to_string()) && text.contains("channel"), "{text}");
    assert_eq!(spawn(make, BOUND - 64).await?.join().await?.len(), BOUND - 64);
    let used = async || {
        let (mut tx, mut rx) = channel::<u8>();
        tx.send(1).await.unwrap();
        rx.recv().await.unwrap();
        rx
    };
    let error = spawn(used, ()).await?.join().await.unwrap_err();
    assert!(matches!(error.ending(), Ending::Failed { text } if text.contains("was used")), "{error}");
    Ok(())
}

#[archean::test]
async fn usage_and_the_last_of_standard_error_are_kept() -> anyhow::Result<()> {
    const BYTES: usize = 64 << 20;
    fn work() -> u64 {
        let bytes = std::hint::black_box(vec![1u8; BYTES]);
        for line in 0..10_000 {
            eprintln!("line {line}");
        }
        bytes.iter().map(|byte| u64::from(*byte)).sum()
    }
    let outcome = spawn(work, ()).await?.outcome().await;
    assert_eq!(outcome.value?, BYTES as u64);
    let (usage, tail) = (outcome.exit.usage, outcome.exit.stderr_tail);
    assert!(tail.starts_with("line ") && tail.ends_with("line 9999\n"), "{tail}");
    assert!(tail.len() > 4000 && tail.len() <= protocol::limits::STDERR_TAIL_BYTES, "{}", tail.len());
    assert!(usage.memory_max_bytes >= BYTES as u64, "{usage:?}");
    assert!(usage.user > Duration::ZERO && usage.wall > Duration::ZERO, "{usage:?}");
    Ok(())
}

async fn relay(mut from: Receiver<u32>, mut to: Sender<u32>) {
    loop {
        let number = from.recv_owned().await.expect("the one before goes on");
        to.send(number).await.expect("the one behind goes on");
    }
}

#[archean::test]
async fn the_first_death_of_a_cascade_is_the_cause_of_the_others() -> anyhow::Result<()> {
    let (mut first, to_a) = channel();
    let (from_a, to_b) = channel();
    let (from_b, to_c) = channel();
    let (from_c, mut last) = channel();
    let a = spawn(relay, (to_a, from_a)).name("a").await?;
    let b = spawn(relay, (to_b, from_b)).name("b").await?;
    let c = spawn(relay, (to_c, from_c)).name("c").await?;
    first.send(1).await?;
    assert_eq!(*last.recv().await?, 1);
    let a_id = a.id();
    a.kill();
    let killed = a.join().await.unwrap_err();
    assert!(matches!(killed.ending(), Ending::Killed { .. }) && killed.cause().is_none(), "{killed}");
    for child in [b, c] {
        let error = child.join().await.unwrap_err();
        assert!(matches!(error.ending(), Ending::Panicked { .. }), "{error}");
        let cause = error.cause().unwrap_or_else(|| panic!("no cause: {error}"));
        assert_eq!((cause.process, cause.name.as_str(), &cause.ending), (a_id, "a", killed.ending()));
        assert!(error.to_string().contains("first cause: process a"), "{error}");
    }
    let died = last.recv().await.unwrap_err();
    assert!(matches!(&died, RecvError::PeerDied(cause) if cause.name == "c"), "{died}");
    Ok(())
}

#[archean::test]
async fn who_does_not_read_is_noticed() -> anyhow::Result<()> {
    async fn flood(mut tx: Sender<u32>) -> Reason {
        loop {
            if let Err(error) = tx.send(1).await {
                return error.reason;
            }
        }
    }
    let (tx, rx) = channel();
    let child = spawn(|_unread: Receiver<u32>| (), rx).await?;
    assert_eq!(flood(tx).await, Reason::Closed);
    child.join().await?;

    let (tx, rx) = channel();
    let child = spawn(|_unread: Receiver<u32>| -> () { process::exit(0) }, rx).name("quitter").await?;
    let reason = flood(tx).await;
    assert!(
        matches!(&reason, Reason::PeerDied(cause) if cause.ending == Ending::Exited { code: 0 }),
        "{reason}"
    );
    assert_eq!(*child.join().await.unwrap_err().ending(), Ending::Exited { code: 0 });

    // A process that is waiting in a send is told by the death of the receiver's process, too.
    let (tx, rx) = channel();
    let sender = spawn(async |tx: Sender<u32>| flood(tx).await.to_string(), tx).await?;
    let (ready, mut readies) = channel();
    let reader = spawn(
        |mut rx: Receiver<u32>, mut ready: Sender<()>| {
            rx.recv_blocking().unwrap();
            ready.send_blocking(()).unwrap();
            die_by(libc::SIGKILL)
        },
        (rx, ready),
    );
    let reader = reader.await?;
    readies.recv().await?;
    assert!(sender.join().await?.contains("SIGKILL"));
    assert!(reader.join().await.is_err());
    Ok(())
}

/// An executor of another kind has a thread beside it, which must not take a panic for less than it is.
#[archean::test]
async fn a_panic_under_another_executor_is_a_death() -> anyhow::Result<()> {
    fn foreign(mut tx: Sender<u32>, mut go: Receiver<()>) {
        futures::executor::block_on(async {
            tx.send(1).await.unwrap();
            go.recv().await.unwrap();
            // That thread has something to do until the process has ended.
            let tick = async || while timeout(Duration::from_micros(100), pending::<()>()).await.is_err() {};
            std::thread::spawn(move || futures::executor::block_on(tick()));
            let _slow = Slow;
            let _held = tx;
            panic!("under another executor");
        })
    }
    /// Gives other threads time while a panic unwinds.
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    for _ in 0..5 {
        let ((tx, mut rx), (mut go, gone)) = (channel(), channel());
        let child = spawn(foreign, (tx, gone)).await?;
        rx.recv().await?;
        go.send(()).await?;
        let error = rx.recv().await.unwrap_err();
        assert!(matches!(&error, RecvError::PeerDied(_)), "{error}");
        assert!(child.join().await.is_err());
    }
    Ok(())
}

#[archean::test]
async fn waiting_for_an_end_may_be_given_up() -> anyhow::Result<()> {
    let (mut go, gone) = channel::<u8>();
    let child = spawn(async |mut gone: Receiver<u8>| gone.recv_owned().await.unwrap(), gone).await?;
    let mut join = Box::pin(child.join());
    for _ in 0..10 {
        assert!(timeout(Duration::from_micros(100), &mut join).await.is_err());
    }
    go.send(9).await?;
    assert_eq!(join.await?, 9);
    Ok(())
}

#[test]
fn a_flood_of_output_fills_no_memory_and_stops_nobody() {
    const MEGABYTES: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let mut job = tests::run(VICTIM, &["flood", &MEGABYTES.to_string(), mark.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Nobody reads the output until the others have done their work.
    tests::until("the others are done", || mark.exists());
    let launcher = tests::children(job.id())[0];
    let bytes = io::copy(&mut job.stdout.take().unwrap(), &mut Peak { launcher, kib: 0 });
    assert!(job.wait().unwrap().success());
    assert!(bytes.unwrap() >= (MEGABYTES << 20) as u64);
}

/// Takes in output, and looks how much memory the launcher has held.
struct Peak {
    launcher: u32,
    kib: u64,
}

impl io::Write for Peak {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.launcher)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        self.kib = self.kib.max(kib.unwrap_or(0));
        let limit_kib = 60 << 10;
        assert!(self.kib < limit_kib, "the launcher holds {} KiB", self.kib);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
