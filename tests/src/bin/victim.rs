//! A program that does what its first argument says, to be looked at from outside while it does.
#![expect(unsafe_code, reason = "a process ends itself by a signal")]

use std::{
    env, fs,
    io::{self, Write},
    process::{Command, Stdio},
};

use archean::{Failure, Receiver, Sender, channel, spawn};

#[archean::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["ids"] => ids().await,
        ["look"] => look().await,
        ["flood", megabytes, mark] => flood(megabytes.parse()?, mark.to_owned()).await,
        ["exit", code] => std::process::exit(code.parse()?),
        ["signal", number] => die_by(number.parse()?),
        ["panic"] => panic!("as was asked"),
        ["leave"] => leave().await,
        ["stay"] => stay().await,
        _ => anyhow::bail!("{arguments:?} is nothing to do"),
    }
}

/// Prints the ids of the processes of a small tree.
async fn ids() -> anyhow::Result<()> {
    let (left, right) = (spawn(branch, 3).await?, spawn(branch, 2).await?);
    let (left, right) = (left.join().await?, right.join().await?);
    println!("{} {left:?} {right:?}", archean::me().id());
    Ok(())
}

async fn branch(leaves: u32) -> Vec<String> {
    let mut ids = vec![archean::me().id().to_string()];
    for _ in 0..leaves {
        let child = spawn(|| archean::me().id().to_string(), ()).await.unwrap();
        ids.push(child.join().await.unwrap());
    }
    ids
}

/// Prints what a child finds around itself.
async fn look() -> anyhow::Result<()> {
    let child = spawn(surroundings, ()).env("ONE", "1").env("EMPTY", "").await?;
    println!("{}", child.result().await?);
    Ok(())
}

fn surroundings() -> Result<String, Failure> {
    let variables: Vec<_> = env::vars_os().collect();
    let arguments = env::args_os().len();
    let mut descriptors = Vec::new();
    let folder = fs::read_dir("/proc/self/fd")?;
    for entry in folder {
        let entry = entry?;
        let target = fs::read_link(entry.path())?;
        // The one by which the folder is read.
        if !target.ends_with("fd") {
            descriptors.push(entry.file_name());
        }
    }
    descriptors.sort();
    let input = io::read_to_string(io::stdin())?;
    let folder = env::current_dir()?;
    Ok(format!("{variables:?} {arguments} {descriptors:?} {input:?} {}", folder.display()))
}

/// One child floods its output, while others go about their work; then `mark` is written.
async fn flood(megabytes: usize, mark: String) -> anyhow::Result<()> {
    let flooder = spawn(pour, megabytes).await?;
    let (mut there, inbox) = channel::<u32>();
    let (outbox, mut back) = channel::<u32>();
    let echo = spawn(echo, (inbox, outbox)).await?;
    for number in 0..1000 {
        there.send(number).await?;
        assert_eq!(*back.recv().await?, number);
    }
    drop(there);
    echo.join().await?;
    fs::write(mark, "done")?;
    flooder.result().await?;
    Ok(())
}

fn pour(megabytes: usize) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    let line = format!("{}\n", "x".repeat(8191));
    for _ in 0..megabytes * 128 {
        output.write_all(line.as_bytes())?;
    }
    Ok(())
}

async fn echo(mut inbox: Receiver<u32>, mut outbox: Sender<u32>) {
    while let Ok(number) = inbox.recv_owned().await {
        outbox.send(number).await.unwrap();
    }
}

fn die_by(signal: i32) -> anyhow::Result<()> {
    // SAFETY: both calls take integers; the default action is no code of ours.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    anyhow::bail!("signal {signal} has not ended the process")
}

/// Starts what outlives it, and ends.
async fn leave() -> anyhow::Result<()> {
    start_all().await?;
    Ok(())
}

/// Starts processes of all kinds, says so, and waits for ever.
async fn stay() -> anyhow::Result<()> {
    start_all().await?;
    println!("started");
    std::future::pending::<()>().await;
    Ok(())
}

async fn start_all() -> anyhow::Result<()> {
    let (mut ready, mut readies) = channel::<()>();
    for _ in 0..3 {
        drop(spawn(linger, ready.clone()).await?);
    }
    // The original has a ring of its own and counts as one more.
    ready.send(()).await?;
    for _ in 0..4 {
        readies.recv().await?;
    }
    Ok(())
}

/// Starts a process by other means, which leaves the session, and waits for ever.
fn linger(mut ready: Sender<()>) {
    let mut command = Command::new("/usr/bin/setsid");
    let mut outsider = command.args(["/bin/sleep", "1000"]).stdout(Stdio::null()).spawn().unwrap();
    ready.send_blocking(()).unwrap();
    outsider.wait().unwrap();
}
