//! What holds between processes on two machines.

use std::{process, time::Duration};

use anyhow::ensure;
use archean::{
    Bytes, Ending, ProcessId, Receiver, RecvError, Select, Sender, SpawnReason, channel,
    channel_with_capacity, me, spawn,
};

/// Does all of it; says what, so that a failure is found.
pub(crate) async fn all() -> anyhow::Result<()> {
    places().await?;
    println!("talked of places");
    results().await?;
    println!("talked of results");
    order().await?;
    println!("talked of order");
    large().await?;
    println!("talked of large messages");
    many_senders().await?;
    println!("talked to many");
    select().await?;
    println!("talked in turns");
    moving_ends().await?;
    println!("talked of ends");
    early_and_late().await?;
    println!("talked early and late");
    ends().await?;
    println!("talked of the end");
    output().await?;
    Ok(())
}

fn machine() -> u32 {
    me().machine().0
}

async fn places() -> anyhow::Result<()> {
    let home = machine();
    ensure!(home > 0, "a machine of a cluster has a number");
    let away = spawn(machine, ()).apart_from(&me()).await?.join().await?;
    ensure!(away != home && away > 0, "{away}");
    ensure!(spawn(machine, ()).near(&me()).await?.join().await? == home);
    // Near one that is elsewhere, and apart from it.
    let (mut go, wait) = channel::<()>();
    let far = spawn(hold, wait).apart_from(&me()).await?;
    let near = spawn(machine, ()).near(&far).await?.join().await?;
    ensure!(near == away || near != home, "{near}");
    let apart = spawn(machine, ()).apart_from(&far).await?.join().await?;
    ensure!(apart != near, "{apart}");
    go.send(()).await?;
    let gone = far.id();
    far.join().await?;
    for unknown in [ProcessId(1), gone] {
        let near = spawn(machine, ()).near(unknown).await.unwrap_err().reason;
        let apart = spawn(machine, ()).apart_from(unknown).await.unwrap_err().reason;
        for reason in [near, apart] {
            ensure!(matches!(reason, SpawnReason::Invalid(_)), "{reason:?}");
            ensure!(reason.to_string().contains(&unknown.to_string()), "{reason}");
        }
    }
    Ok(())
}

async fn hold(mut wait: Receiver<()>) {
    wait.recv().await.unwrap();
}

async fn results() -> anyhow::Result<()> {
    let double = |text: String| text.repeat(2);
    ensure!(spawn(double, "ab".to_owned()).apart_from(&me()).await?.join().await? == "abab");
    let error = spawn(|| -> u8 { panic!("far away") }, ()).apart_from(&me()).await?.join().await.unwrap_err();
    ensure!(
        matches!(error.ending(), Ending::Panicked { message, location }
            if message == "far away" && location.contains("talk.rs")),
        "{error}"
    );
    ensure!(error.stderr_tail().contains("far away"), "{}", error.stderr_tail());
    let exit = spawn(|| -> u8 { process::exit(7) }, ()).apart_from(&me()).await?.join().await.unwrap_err();
    ensure!(*exit.ending() == Ending::Exited { code: 7 }, "{exit}");
    let signal = spawn(|| -> u8 { process::abort() }, ()).apart_from(&me()).await?.join().await.unwrap_err();
    ensure!(matches!(signal.ending(), Ending::Signalled { signal: 6, .. }), "{signal}");

    let sleeper = async || std::future::pending::<()>().await;
    let limit = Duration::from_millis(20);
    let late = spawn(sleeper, ()).apart_from(&me()).time_limit(limit).await?.join().await.unwrap_err();
    ensure!(*late.ending() == Ending::TimedOut { limit }, "{late}");
    let child = spawn(sleeper, ()).apart_from(&me()).await?;
    child.kill();
    let killed = child.join().await.unwrap_err();
    ensure!(matches!(killed.ending(), Ending::Killed { .. }), "{killed}");
    // One whose spawn is given up is gone, and what it held is told.
    let (outbox, mut inbox) = channel::<u8>();
    let keep = async |mut outbox: Sender<u8>| {
        outbox.send(1).await.unwrap();
        std::future::pending::<()>().await
    };
    let spawning = std::future::IntoFuture::into_future(spawn(keep, outbox).apart_from(&me()));
    let mut spawning = Box::pin(spawning);
    ensure!(futures::poll!(&mut spawning).is_pending());
    drop(spawning);
    while let Ok(number) = inbox.recv().await.map(|number| *number) {
        ensure!(number == 1);
    }
    Ok(())
}

async fn count_to(count: u32, mut outbox: Sender<u32>) {
    for number in 0..count {
        outbox.send(number).await.unwrap();
    }
}

async fn expect(count: u32, inbox: &mut Receiver<u32>) -> anyhow::Result<()> {
    for number in 0..count {
        ensure!(*inbox.recv().await? == number, "number {number}");
    }
    ensure!(inbox.recv().await.unwrap_err() == RecvError::Closed);
    Ok(())
}

async fn order() -> anyhow::Result<()> {
    for capacity in [protocol::limits::RING_BYTES_MIN, 1 << 20] {
        let (outbox, mut inbox) = channel_with_capacity(capacity);
        let child = spawn(count_to, (20_000, outbox)).apart_from(&me()).await?;
        expect(20_000, &mut inbox).await?;
        child.join().await?;
    }
    // And there and back, one by one.
    let echo = async |mut inbox: Receiver<u32>, mut outbox: Sender<u32>| {
        while let Ok(number) = inbox.recv_owned().await {
            outbox.send(number + 1).await.unwrap();
        }
    };
    let ((mut there, inbox), (outbox, mut back)) = (channel(), channel());
    let child = spawn(echo, (inbox, outbox)).apart_from(&me()).await?;
    for number in 0..500 {
        there.send(number).await?;
        ensure!(*back.recv().await? == number + 1);
    }
    drop(there);
    child.join().await?;
    Ok(())
}

const LARGE: usize = 16 << 20;

fn byte(index: usize) -> u8 {
    (index.wrapping_mul(0x9e37_79b1) >> 13) as u8
}

async fn large() -> anyhow::Result<()> {
    let send = async |mut values: Sender<Vec<u8>>, mut bytes: Sender<Bytes>| {
        let content: Vec<u8> = (0..LARGE).map(byte).collect();
        values.send(content.clone()).await.unwrap();
        values.send(vec![1, 2, 3]).await.unwrap();
        bytes.send(Bytes::from(content)).await.unwrap();
    };
    let ((values, mut value_inbox), (bytes, mut bytes_inbox)) = (channel(), channel());
    let child = spawn(send, (values, bytes)).apart_from(&me()).await?;
    let is_right = |content: &[u8]| {
        content.len() == LARGE && content.iter().enumerate().all(|(at, found)| *found == byte(at))
    };
    ensure!(is_right(&value_inbox.recv_owned().await?));
    ensure!(value_inbox.recv_owned().await? == [1, 2, 3]);
    ensure!(is_right(&bytes_inbox.recv_owned().await?));
    child.join().await?;
    Ok(())
}

async fn many_senders() -> anyhow::Result<()> {
    let (outbox, mut inbox) = channel::<(u32, u32)>();
    let send = async |own: u32, mut outbox: Sender<(u32, u32)>| {
        for number in 0..500 {
            outbox.send((own, number)).await.unwrap();
        }
    };
    let mut children = Vec::new();
    for own in 0..6 {
        let process = spawn(send, (own, outbox.clone()));
        children.push(if own % 2 == 0 {
            process.apart_from(&me()).await?
        } else {
            process.near(&me()).await?
        });
    }
    drop(outbox);
    let mut counts = [0; 6];
    loop {
        match inbox.recv().await {
            Ok(message) => {
                let (own, number) = message.into_owned();
                ensure!(counts[own as usize] == number);
                counts[own as usize] += 1;
            }
            Err(RecvError::Closed) => break,
            Err(error) => anyhow::bail!(error),
        }
    }
    ensure!(counts == [500; 6], "{counts:?}");
    for child in children {
        child.join().await?;
    }
    Ok(())
}

async fn select() -> anyhow::Result<()> {
    let mut select = Select::new();
    for key in 0..4u32 {
        let (outbox, inbox) = channel();
        drop(spawn(count_to, (300, outbox)).apart_from(&me()).await?);
        select.insert(key, inbox);
    }
    let (mut counts, mut closed) = ([0; 4], 0);
    while let Some((key, message)) = select.recv().await {
        match message {
            Ok(number) => {
                ensure!(*number == counts[key as usize]);
                counts[key as usize] += 1;
            }
            Err(error) => {
                ensure!(error == RecvError::Closed, "{error}");
                closed += 1;
            }
        }
    }
    ensure!((counts, closed) == ([300; 4], 4), "{counts:?} {closed}");
    Ok(())
}

/// A sender and a receiver go to the other machine, and come back as they are.
async fn moving_ends() -> anyhow::Result<()> {
    type Ends = (Sender<u32>, Receiver<u32>);
    let mirror = async |mut inbox: Receiver<Ends>, mut outbox: Sender<Ends>| {
        while let Ok(ends) = inbox.recv_owned().await {
            outbox.send(ends).await.unwrap();
        }
    };
    let ((mut there, inbox), (outbox, mut back)) = (channel::<Ends>(), channel::<Ends>());
    let child = spawn(mirror, (inbox, outbox)).apart_from(&me()).await?;
    for _ in 0..10 {
        let ((left, mut left_inbox), (mut right, right_inbox)) = (channel::<u32>(), channel::<u32>());
        // Sent before its receiver's way is known.
        right.send(1).await?;
        there.send((left, right_inbox)).await?;
        let (mut left, mut right_inbox) = back.recv_owned().await?;
        left.send(2).await?;
        ensure!(*left_inbox.recv().await? == 2);
        ensure!(*right_inbox.recv().await? == 1);
        right.send(3).await?;
        ensure!(*right_inbox.recv().await? == 3);
    }
    // A receiver that stays there is fed from here, and from a third process.
    let sum = async |mut inbox: Receiver<u32>| {
        let mut sum = 0;
        while let Ok(number) = inbox.recv_owned().await {
            sum += number;
        }
        sum
    };
    let (mut outbox, inbox) = channel::<u32>();
    let other = spawn(count_to, (100, outbox.clone())).near(&me()).await?;
    let summing = spawn(sum, inbox).apart_from(&me()).await?;
    for number in 0..100 {
        outbox.send(number).await?;
    }
    drop(outbox);
    other.join().await?;
    ensure!(summing.join().await? == 2 * 4950);
    drop(there);
    child.join().await?;
    Ok(())
}

async fn early_and_late() -> anyhow::Result<()> {
    // Far more is sent than a connection holds, and then the process ends at once.
    let leave = |mut outbox: Sender<u64>| -> () {
        for number in 0..1000 {
            outbox.send_blocking(number).unwrap();
        }
        process::exit(0)
    };
    for _ in 0..5 {
        let (outbox, mut inbox) = channel::<u64>();
        let child = spawn(leave, outbox).apart_from(&me()).await?;
        for number in 0..1000 {
            ensure!(*inbox.recv().await? == number);
        }
        ensure!(inbox.recv().await.is_err());
        ensure!(*child.join().await.unwrap_err().ending() == Ending::Exited { code: 0 });
    }
    // What was sent here before anybody was there to read.
    let (mut outbox, inbox) = channel::<u32>();
    for number in 0..100 {
        outbox.send(number).await?;
    }
    drop(outbox);
    let read = async |mut inbox: Receiver<u32>| {
        for number in 0..100 {
            assert_eq!(*inbox.recv().await.unwrap(), number);
        }
        inbox.recv().await.unwrap_err() == RecvError::Closed
    };
    ensure!(spawn(read, inbox).apart_from(&me()).await?.join().await?);
    Ok(())
}

async fn ends() -> anyhow::Result<()> {
    let give_up = async |way: u8, mut outbox: Sender<u32>| {
        outbox.send(5).await.unwrap();
        match way {
            0 => drop(outbox),
            1 => outbox.reset("enough"),
            _ => process::abort(),
        }
    };
    for way in 0..3 {
        let (outbox, mut inbox) = channel();
        let child = spawn(give_up, (way, outbox)).apart_from(&me()).await?;
        ensure!(*inbox.recv().await? == 5);
        let error = inbox.recv().await.unwrap_err();
        let is_right = match &error {
            RecvError::Closed => way == 0,
            RecvError::Reset(reason) => way == 1 && reason == "enough",
            RecvError::PeerDied(cause) => way == 2 && cause.process == child.id(),
            _ => false,
        };
        ensure!(is_right, "{way}: {error}");
        let _ = child.join().await;
    }
    // A sender hears that its receiver is no more.
    let (mut outbox, inbox) = channel::<u32>();
    drop(spawn(|inbox: Receiver<u32>| drop(inbox), inbox).apart_from(&me()).await?);
    while outbox.send(1).await.is_ok() {}
    Ok(())
}

async fn output() -> anyhow::Result<()> {
    let print = || {
        for number in 0..200 {
            println!("far line {number}");
        }
        eprintln!("far error");
    };
    spawn(print, ()).name("far").apart_from(&me()).await?.join().await?;
    Ok(())
}
