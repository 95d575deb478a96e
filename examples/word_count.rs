//! Counts the words in the files of a folder, with one process for each slice of the files:
//!
//! `word_count FOLDER [PROCESSES]`

use std::{collections::HashMap, env, fs, num::NonZero, path::PathBuf, process::ExitCode, thread};

use archean::{Failure, RecvError, Sender};

type Counts = HashMap<String, u64>;

#[archean::main]
async fn main() -> Result<ExitCode, Failure> {
    let Some((folder, processes)) = arguments() else {
        eprintln!("usage: word_count FOLDER [PROCESSES]");
        return Ok(ExitCode::from(2));
    };
    let files = files_in(folder)?;

    // Every process has a sender of its own to the one receiver.
    let (counts, mut inbox) = archean::channel::<(String, u64)>();
    let mut children = Vec::new();
    for slice in files.chunks(files.len().div_ceil(processes.get())) {
        children.push(archean::spawn(count_slice, (slice.to_vec(), counts.clone())).await?);
    }
    // The channel ends with its last sender, so this one must not be kept.
    drop(counts);

    let mut merged = Counts::new();
    loop {
        match inbox.recv_owned().await {
            Ok((word, count)) => *merged.entry(word).or_default() += count,
            Err(RecvError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let processes = children.len();
    for child in children {
        child.result().await?;
    }
    if merged != count(&files)? {
        return Err(Failure::new(
            "the processes counted otherwise than one alone: was a file changed meanwhile?",
        ));
    }
    println!("{} words in {} files, counted by {processes} processes", sum(&merged), files.len());
    print_top(merged);
    Ok(ExitCode::SUCCESS)
}

/// Counts the words of some files in a process of its own. The counts go over a channel, because a result is
/// limited in size and a channel is not.
async fn count_slice(files: Vec<String>, mut counts: Sender<(String, u64)>) -> Result<(), Failure> {
    let found = count(&files)?;
    println!("{} words in {} files", sum(&found), files.len());
    for entry in found {
        counts.send(entry).await?;
    }
    Ok(())
}

fn count(files: &[String]) -> Result<Counts, Failure> {
    let mut counts = Counts::new();
    for file in files {
        let bytes = fs::read(file)
            .map_err(|error| Failure::new(format!("the file {file} can't be read: {error}")))?;
        let text = String::from_utf8_lossy(&bytes);
        let words = text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
        words.for_each(|word| *counts.entry(word.to_lowercase()).or_default() += 1);
    }
    Ok(counts)
}

fn arguments() -> Option<(PathBuf, NonZero<usize>)> {
    let mut arguments = env::args_os().skip(1);
    let folder = arguments.next()?;
    let processes = match arguments.next() {
        Some(number) => number.to_str()?.parse().ok()?,
        None => thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
    };
    arguments.next().is_none().then_some((folder.into(), processes))
}

fn files_in(folder: PathBuf) -> Result<Vec<String>, Failure> {
    let failed = |error| Failure::new(format!("the folder {} can't be read: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            let name = path.into_os_string().into_string();
            files.push(name.map_err(|name| Failure::new(format!("{name:?} is not UTF-8: rename the file")))?);
        }
    }
    if files.is_empty() {
        return Err(Failure::new(format!("no files in {}: name a folder of text files", folder.display())));
    }
    files.sort();
    Ok(files)
}

fn sum(counts: &Counts) -> u64 {
    counts.values().sum()
}

fn print_top(counts: Counts) {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(word, count), (other, others)| others.cmp(count).then_with(|| word.cmp(other)));
    for (word, count) in counts.iter().take(10) {
        println!("{count:>8}  {word}");
    }
}
