//! Processes: how they are started, and what they start with.

use std::time::Duration;

use archean::{
    Ending, ProcessId, Receiver, RecvError, Sender, Serde, SpawnReason, channel, spawn, time::timeout,
};
use futures::{FutureExt, future::try_join_all};

const LONG: Duration = Duration::from_secs(1000);

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

fn double(number: u32) -> u32 {
    2 * number
}

async fn double_later(number: u32) -> u32 {
    archean::time::sleep(Duration::from_millis(1)).await;
    2 * number
}

fn length<T: ToString>(value: T) -> usize {
    value.to_string().len()
}

fn stay() {
    loop {
        std::thread::park();
    }
}

#[archean::test]
async fn all_kinds_of_entries() -> anyhow::Result<()> {
    assert_eq!(spawn(double, 4).await?.join().await?, 8);
    assert_eq!(spawn(double_later, 5).await?.join().await?, 10);
    assert_eq!(spawn(|number: u8| number + 1, 5).await?.join().await?, 6);
    assert_eq!(spawn(async |text: String| text + "!", "hi".to_owned()).await?.join().await?, "hi!");
    assert_eq!(spawn(length::<String>, "four".to_owned()).await?.join().await?, 4);
    assert_eq!(spawn(length::<u16>, 65535).await?.join().await?, 5);
    Ok(())
}

#[archean::test]
async fn zero_to_six_parameters() -> anyhow::Result<()> {
    assert_eq!(spawn(|| 7u8, ()).await?.join().await?, 7);
    assert_eq!(spawn(|a: u8, b: i64| i64::from(a) - b, (1, 2)).await?.join().await?, -1);
    assert_eq!(spawn(|a: u8, b: u8, c: u8| [c, b, a], (1, 2, 3)).await?.join().await?, [3, 2, 1]);
    let four = spawn(|a: u8, b: String, c: u8, d: char| format!("{a}{b}{c}{d}"), (1, "-".into(), 3, '4'));
    assert_eq!(four.await?.join().await?, "1-34");
    let five = spawn(async |a: u8, b: u8, c: u8, d: u8, e: u8| vec![a, b, c, d, e], (1, 2, 3, 4, 5));
    assert_eq!(five.await?.join().await?, [1, 2, 3, 4, 5]);
    let six = spawn(|a: u8, b: u8, c: u8, d: u8, e: u8, f: u8| (a, b, c, d, e, f), (1, 2, 3, 4, 5, 6));
    assert_eq!(six.await?.join().await?, (1, 2, 3, 4, 5, 6));
    Ok(())
}

async fn fibonacci(n: u32) -> u32 {
    if n < 2 {
        return n;
    }
    let (one, other) = (spawn(fibonacci, n - 1).await.unwrap(), spawn(fibonacci, n - 2).await.unwrap());
    one.join().await.unwrap() + other.join().await.unwrap()
}

#[archean::test]
async fn an_entry_may_spawn_itself() -> anyhow::Result<()> {
    assert_eq!(spawn(fibonacci, 6).await?.join().await?, 8);
    Ok(())
}

#[archean::data]
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Nothing,
    Point { at: [f64; 2] },
    Named(String, Box<u128>),
    Many(Vec<Option<u16>>),
}

#[archean::test]
async fn all_kinds_of_results() -> anyhow::Result<()> {
    let point = Shape::Point { at: [0.5, -1.5] };
    let named = Shape::Named("n".into(), Box::new(u128::MAX));
    for shape in [Shape::Nothing, point, named, Shape::Many(vec![None, Some(1)])] {
        assert_eq!(spawn(|shape: Shape| shape, shape.clone()).await?.join().await?, shape);
    }
    let failed: Result<u8, String> = spawn(|| Err("no".to_owned()), ()).await?.join().await?;
    assert_eq!(failed, Err("no".to_owned()));
    let time = Serde(Duration::from_nanos(5));
    assert_eq!(spawn(|time: Serde<Duration>| time, time).await?.join().await?, time);
    let empty: () = spawn(|| (), ()).await?.join().await?;
    assert_eq!(spawn(|(): ()| Some(()), empty).await?.join().await?, Some(()));
    Ok(())
}

#[archean::test]
async fn ends_travel_in_arguments_and_results() -> anyhow::Result<()> {
    let (mut tx, rx) = channel::<Sender<u32>>();
    let child = spawn(
        async |mut senders: Receiver<Sender<u32>>| {
            let mut sender = senders.recv_owned().await.unwrap();
            sender.send(1).await.unwrap();
            let (sender, receiver) = channel::<String>();
            drop(senders);
            (receiver, Some(sender))
        },
        rx,
    )
    .await?;
    let (answer, mut answers) = channel();
    tx.send(answer).await?;
    assert_eq!(*answers.recv().await?, 1);
    let (mut receiver, sender) = child.join().await?;
    sender.unwrap().send("both came back".into()).await?;
    assert_eq!(*receiver.recv().await?, "both came back");
    assert_eq!(receiver.recv().await.unwrap_err(), RecvError::Closed);
    Ok(())
}

#[archean::test]
async fn a_process_knows_itself() -> anyhow::Result<()> {
    type Known = (u64, Option<u64>, String, u64);
    fn known() -> Known {
        let me = archean::me();
        (me.id().0, me.parent().map(|parent| parent.0), me.name().to_owned(), me.cores().shares())
    }
    assert_eq!(archean::me().parent(), None);
    let unnamed = spawn(known, ()).await?;
    let (id, own) = (unnamed.id().0, archean::me().id().0);
    assert_eq!(unnamed.name(), "known");
    assert_eq!(unnamed.join().await?, (id, Some(own), "known".to_owned(), 0));
    let named = spawn(known, ()).name("ünï").cores("1/4").await?;
    let (_, _, name, shares) = named.join().await?;
    assert_eq!((name.as_str(), shares), ("ünï", "1/4".parse::<archean::Cores>()?.shares()));
    assert_ne!(id, spawn(known, ()).await?.join().await?.0);
    Ok(())
}

#[test]
fn a_child_sees_what_it_was_given_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tests::run(VICTIM, &["look"]);
    let output = command.env("OUTER", "is not seen").current_dir(folder.path()).output().unwrap();
    let expected = format!(
        "[(\"ONE\", \"1\"), (\"EMPTY\", \"\")] 1 [\"0\", \"1\", \"2\", \"3\"] \"\" {}\n",
        folder.path().canonicalize().unwrap().display()
    );
    assert_eq!((String::from_utf8(output.stdout).unwrap(), output.stderr), (expected, Vec::new()));
}

#[test]
fn ids_are_the_same_on_every_run() {
    let run = || tests::run(VICTIM, &["ids"]).output().unwrap();
    let (first, second) = (run(), run());
    assert!(first.status.success(), "{first:?}");
    assert_eq!((first.stdout.len(), &first.stdout), (second.stdout.len(), &second.stdout));
    let text = String::from_utf8(first.stdout).unwrap();
    let is_id = |word: &&str| word.len() == 16 && u64::from_str_radix(word, 16).is_ok();
    let mut ids: Vec<&str> = text.split(|c: char| !c.is_ascii_hexdigit()).filter(is_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 1 + 4 + 3, "{text}");
}

#[archean::test]
async fn what_makes_no_sense_is_refused() -> anyhow::Result<()> {
    let refused = spawn(double, 1).cores("many").await.unwrap_err();
    assert!(matches!(&refused.reason, SpawnReason::Invalid(text) if text.contains("many")), "{refused}");
    for (name, value) in [("", "x"), ("a=b", "x"), ("a", "\0")] {
        let refused = spawn(double, 1).env(name, value).await.unwrap_err();
        assert!(matches!(refused.reason, SpawnReason::Invalid(_)), "{refused}");
    }
    let refused = spawn(double, 1).name("n".repeat(1000)).await.unwrap_err();
    assert!(matches!(&refused.reason, SpawnReason::Invalid(text) if text.contains("1000")), "{refused}");
    Ok(())
}

#[archean::test]
async fn arguments_over_the_bound_come_back() -> anyhow::Result<()> {
    const BOUND: usize = protocol::limits::ARGUMENT_BYTES_MAX;
    fn count(bytes: Vec<u8>, _: Receiver<u8>) -> usize {
        bytes.len()
    }
    let (mut tx, rx) = channel();
    let refused = spawn(count, (vec![1; BOUND], rx)).await.unwrap_err();
    assert!(
        matches!(refused.reason, SpawnReason::TooLarge { bytes, limit: BOUND } if bytes > BOUND),
        "{refused}"
    );
    let (mut bytes, mut rx) = refused.args;
    assert_eq!(bytes.len(), BOUND);
    rx.check_movable()?;
    tx.send(7).await?;
    assert_eq!(*rx.recv().await?, 7);
    // A receiver that was used stays where it is.
    bytes.truncate(1);
    let refused = spawn(count, (bytes, rx)).await.unwrap_err();
    assert!(matches!(refused.reason, SpawnReason::End(archean::Refused::InUse)), "{refused}");
    let almost = vec![1; BOUND - 64];
    assert_eq!(spawn(count, (almost, channel().1)).await?.join().await?, BOUND - 64);
    Ok(())
}

#[archean::test]
async fn who_does_not_fit_waits_or_is_refused() -> anyhow::Result<()> {
    let never = spawn(stay, ()).cores(1_000_000).await.unwrap_err();
    assert!(matches!(&never.reason, SpawnReason::NeverFits(text) if text.contains("cores")), "{never}");
    let never = spawn(stay, ()).memory("1000 TiB").await.unwrap_err();
    assert!(matches!(&never.reason, SpawnReason::NeverFits(text) if text.contains("memory")), "{never}");

    let all = std::thread::available_parallelism()?.get() as u32;
    let holder = spawn(stay, ()).cores(all).await?;
    let (mut tx, rx) = channel::<u8>();
    let late =
        spawn(|_: Receiver<u8>| (), rx).cores(1).deadline(Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(&late.reason, SpawnReason::Deadline(text) if text.contains("cores")), "{late}");
    // The end that would have gone along still works.
    let mut rx = late.args;
    tx.send(1).await?;
    assert_eq!(*rx.recv().await?, 1);

    let mut waiting = spawn(double, 21).cores(all).into_future();
    assert!(timeout(Duration::from_millis(20), &mut waiting).await.is_err());
    holder.kill();
    assert_eq!(waiting.await?.join().await?, 42);
    Ok(())
}

#[archean::test]
async fn a_child_is_killed_at_its_time_limit_or_on_request() -> anyhow::Result<()> {
    let limit = Duration::from_millis(50);
    let limited = spawn(stay, ()).time_limit(limit).await?.join().await.unwrap_err();
    assert_eq!(*limited.ending(), Ending::TimedOut { limit });
    assert!(limited.usage().wall >= limit);
    let child = spawn(stay, ()).name("victim").await?;
    child.kill();
    child.kill();
    let killed = child.join().await.unwrap_err();
    let own = archean::me();
    let by = format!("its parent, {} ({})", own.name(), own.id());
    assert_eq!((killed.name(), killed.ending()), ("victim", &Ending::Killed { by }));
    assert_eq!(spawn(double, 1).time_limit(LONG).await?.join().await?, 2);
    Ok(())
}

#[archean::test]
async fn a_dropped_child_goes_on() -> anyhow::Result<()> {
    async fn answer(mut asked: Receiver<u32>, mut answers: Sender<u32>) -> Sender<u32> {
        let result = answers.clone();
        answers.send(asked.recv_owned().await.unwrap()).await.unwrap();
        result
    }
    let ((mut ask, asked), (back, mut answers)) = (channel::<u32>(), channel());
    drop(spawn(answer, (asked, back)).await?);
    ask.send(5).await?;
    assert_eq!(*answers.recv().await?, 5);
    // The end in its result goes with the result.
    assert!(matches!(answers.recv().await.unwrap_err(), RecvError::Reset(text) if text.contains("result")));
    Ok(())
}

#[archean::test]
async fn a_spawn_that_is_given_up_leaves_nothing() -> anyhow::Result<()> {
    async fn hold(_sender: Sender<u8>) {
        std::future::pending().await
    }
    let (tx, mut rx) = channel();
    drop(spawn(hold, tx).into_future());
    assert_eq!(rx.recv().await.unwrap_err(), RecvError::Closed, "it was never asked for");

    let (tx, mut rx) = channel();
    assert!(spawn(hold, tx).into_future().now_or_never().is_none());
    let error = rx.recv().await.unwrap_err();
    assert!(
        matches!(&error, RecvError::Reset(text) if text.contains("given up"))
            || matches!(&error, RecvError::PeerDied(cause) if cause.to_string().contains("gave the spawn up")),
        "{error}"
    );

    let all = std::thread::available_parallelism()?.get() as u32;
    let _holder = spawn(stay, ()).cores(all).await?;
    let (tx, mut rx) = channel();
    assert!(timeout(Duration::from_millis(20), spawn(hold, tx).cores(1).into_future()).await.is_err());
    let error = rx.recv().await.unwrap_err();
    assert!(matches!(&error, RecvError::Reset(text) if text.contains("given up")), "{error}");
    Ok(())
}

#[archean::test]
async fn two_hundred_at_once() -> anyhow::Result<()> {
    const COUNT: u32 = 200;
    let (gate, gates): (Vec<_>, Vec<_>) = (0..COUNT).map(|_| channel::<u32>()).unzip();
    let (ready, mut readies) = channel::<u32>();
    let spawns = gates.into_iter().map(|gate| {
        let wait = async |mut gate: Receiver<u32>, mut ready: Sender<u32>| {
            ready.send(1).await.unwrap();
            gate.recv_owned().await.unwrap()
        };
        spawn(wait, (gate, ready.clone())).into_future()
    });
    let children = try_join_all(spawns).await?;
    drop(ready);
    // All of them live at the same time.
    for _ in 0..COUNT {
        readies.recv().await?;
    }
    for (mut gate, number) in gate.into_iter().zip(0..) {
        gate.send(number).await?;
    }
    let ids: std::collections::BTreeSet<ProcessId> = children.iter().map(|child| child.id()).collect();
    assert_eq!(ids.len(), COUNT as usize);
    let results = try_join_all(children.into_iter().map(|child| child.join())).await?;
    assert!(results.into_iter().eq(0..COUNT));
    Ok(())
}

#[archean::test]
fn blocking_spawns_from_many_threads() -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let run = move || -> anyhow::Result<u32> {
                    Ok(spawn(double, number).start_blocking()?.join_blocking()?)
                };
                scope.spawn(run)
            })
            .collect();
        for (thread, number) in threads.into_iter().zip(0..) {
            assert_eq!(thread.join().unwrap()?, 2 * number);
        }
        Ok(())
    })
}

#[test]
fn the_end_of_the_root_stops_the_rest() {
    // Its children wait for ever.
    let output = tests::run(VICTIM, &["leave"]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
