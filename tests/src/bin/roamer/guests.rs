//! Jobs with processes on other machines, to which things happen.

use std::process;

use anyhow::ensure;
use archean::{Child, Ending, Receiver, RecvError, Sender, SpawnReason, channel, me, spawn};
use futures::future::try_join_all;
use tests::cluster::Marks;

fn name() -> String {
    format!("{} {}", me().machine(), process::id())
}

/// Waits until a test says to go on.
fn wait(marks: &str, mark: &str) {
    Marks::new(marks).until(mark);
}

/// Each worker reserves a core and gives a part of a sum: the same on however many machines.
pub(crate) async fn sum(workers: u64) -> anyhow::Result<()> {
    let work = |own: u64| ((0..1000).map(|number| number * own).sum::<u64>(), me().id().to_string());
    let one = |own: u64| async move {
        anyhow::Ok(spawn(work, own).cores(1).name(format!("worker {own}")).await?.join().await?)
    };
    for (sum, id) in try_join_all((0..workers).map(one)).await? {
        println!("{sum} {id}");
    }
    Ok(())
}

/// Processes on every machine that wait for ever, and hold channels to one another.
pub(crate) async fn stay(marks: &str) -> anyhow::Result<()> {
    let (ready, mut readies) = channel::<String>();
    let _apart = spawn(linger, ready.clone()).name("apart").apart_from(&me()).await?;
    let _near = spawn(linger, ready).name("near").near(&me()).await?;
    for _ in 0..2 {
        println!("guest {}", readies.recv_owned().await?);
    }
    println!("home {}", name());
    wait(marks, "end");
    Ok(())
}

async fn linger(mut ready: Sender<String>) {
    ready.send(name()).await.unwrap();
    // It has a child by other means, too.
    let mut outsider = process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    outsider.wait().unwrap();
}

/// Numbers go there and back until the test has seen enough; none is lost, and none comes twice.
pub(crate) async fn stream(marks: &str) -> anyhow::Result<()> {
    let ((mut there, inbox), (outbox, mut back)) = (channel::<u64>(), channel::<u64>());
    let child = spawn(echo, (inbox, outbox)).apart_from(&me()).await?;
    let marks = Marks::new(marks);
    let mut count = 0;
    // Some are always under way.
    for number in 0..64 {
        there.send(number).await?;
    }
    while !marks.is_set("end") {
        ensure!(*back.recv().await? == count);
        there.send(count + 64).await?;
        count += 1;
        if count == 100 {
            println!("guest {}", name());
            println!("streams");
        }
        if marks.is_set("ask") && !marks.is_set("answer") {
            marks.set("answer");
        }
    }
    drop(there);
    for number in count..count + 64 {
        ensure!(*back.recv().await? == number);
    }
    ensure!(back.recv().await.unwrap_err() == RecvError::Closed);
    child.join().await?;
    println!("nothing was lost");
    Ok(())
}

async fn echo(mut inbox: Receiver<u64>, mut outbox: Sender<u64>) {
    while let Ok(number) = inbox.recv_owned().await {
        outbox.send(number).await.unwrap();
    }
}

/// A machine is lost, and the job goes on without it.
pub(crate) async fn losses(marks: &str) -> anyhow::Result<()> {
    let (outbox, mut inbox) = channel::<String>();
    let (mut there, held) = channel::<u32>();
    let guest: Child<()> = spawn(feed, (outbox, held)).name("feeder").apart_from(&me()).await?;
    println!("home {}", name());
    println!("guest {}", inbox.recv_owned().await?);
    let lost = loop {
        match inbox.recv_owned().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let is_told = match &lost {
        RecvError::PeerDied(cause) => cause.ending.is_lost() && cause.process == guest.id(),
        // That the link is broken may be seen here before the word of it comes.
        RecvError::Reset(reason) => reason.contains("broke"),
        _ => false,
    };
    ensure!(is_told, "{lost:?}");
    println!("receiver: {lost}");
    let unsent = loop {
        match there.send(1).await {
            Ok(()) => {}
            Err(error) => break error.reason,
        }
    };
    println!("sender: {unsent}");
    let error = guest.join().await.unwrap_err();
    ensure!(matches!(error.ending(), Ending::MachineLost { .. }), "{error}");
    println!("child: {error}");
    let _ = marks;
    let elsewhere = loop {
        match spawn(|| me().machine().0, ()).apart_from(&me()).await {
            Ok(child) => break child.join().await?,
            // The scheduler may find out a moment later than this job.
            Err(error) => ensure!(matches!(&error.reason, SpawnReason::Launch(_)), "{error}"),
        }
    };
    println!("elsewhere {elsewhere}");
    Ok(())
}

async fn feed(mut outbox: Sender<String>, held: Receiver<u32>) {
    outbox.send(name()).await.unwrap();
    let _held = held;
    while outbox.send("more".to_owned()).await.is_ok() {}
}

/// Spawns on when the test says so, twice.
pub(crate) async fn later(marks: &str) -> anyhow::Result<()> {
    let ((mut there, inbox), (outbox, mut back)) = (channel::<u64>(), channel::<u64>());
    let child = spawn(echo, (inbox, outbox)).cores(1).apart_from(&me()).await?;
    println!("started");
    let marks = Marks::new(marks);
    let mut number = 0;
    let mut talk_until = async |mark: &str| -> anyhow::Result<()> {
        while !marks.is_set(mark) {
            number += 1;
            there.send(number).await?;
            ensure!(*back.recv().await? == number);
        }
        Ok(())
    };
    talk_until("first").await?;
    println!("talked on");
    let machine = spawn(|| me().machine().0, ()).cores(1).apart_from(&me()).await?.join().await?;
    println!("spawned on {machine}");
    talk_until("second").await?;
    drop(there);
    child.join().await?;
    Ok(())
}

/// A process that needs so many cores.
pub(crate) async fn whole(cores: u32) -> anyhow::Result<()> {
    let mut children = Vec::new();
    let (ready, mut readies) = channel::<u32>();
    let hold = async |mut ready: Sender<u32>, mut go: Receiver<()>| {
        ready.send(me().machine().0).await.unwrap();
        go.recv().await.unwrap();
    };
    let mut gos = Vec::new();
    for _ in 0..cores {
        let (go, wait) = channel::<()>();
        children.push(spawn(hold, (ready.clone(), wait)).cores(1).await?);
        gos.push(go);
    }
    drop(ready);
    for _ in 0..cores {
        println!("whole {}", readies.recv_owned().await?);
    }
    for go in &mut gos {
        go.send(()).await?;
    }
    for child in children {
        child.join().await?;
    }
    Ok(())
}
