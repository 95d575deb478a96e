//! Reads and writes files on a thread of its own, by tokio-uring.
//!
//! Only here: bulk reads and writes of files, each of which runs to its end, are what that crate does well. A piece that
//! is read is never dropped on the way: who no longer wants it closes the channel, which is seen after the read.

use std::{fs::File, io, sync::mpsc::sync_channel, thread};

use tokio::sync::{mpsc, oneshot};

/// The size of a piece.
pub(super) const PIECE_BYTES: usize = 63 << 10;

/// Pieces that are under way between the thread and whoever uses it.
const PIECES: usize = 4;

/// A thread that reads and writes files. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Disk {
    tasks: mpsc::UnboundedSender<Task>,
}

#[derive(Debug)]
enum Task {
    Read { file: File, offset: u64, pieces: mpsc::Sender<io::Result<Vec<u8>>> },
    Write { file: File, offset: u64, pieces: mpsc::Receiver<Vec<u8>>, done: oneshot::Sender<io::Result<()>> },
}

impl Disk {
    pub(super) fn start() -> io::Result<Disk> {
        let (tasks, mut queue) = mpsc::unbounded_channel();
        let (started, is_started) = sync_channel(1);
        thread::Builder::new().name("archean-images".into()).spawn(move || {
            let runtime = match tokio_uring::Runtime::new(&tokio_uring::builder()) {
                Ok(runtime) => runtime,
                Err(error) => return started.send(Err(error)),
            };
            let _ = started.send(Ok(()));
            runtime.block_on(async {
                while let Some(task) = queue.recv().await {
                    tokio_uring::spawn(run(task));
                }
            });
            Ok(())
        })?;
        is_started.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))?;
        Ok(Disk { tasks })
    }

    /// The pieces of a file from an offset on; after an error there are no more.
    pub(super) fn read(&self, file: File, offset: u64) -> mpsc::Receiver<io::Result<Vec<u8>>> {
        let (pieces, receiver) = mpsc::channel(PIECES);
        // Without the thread the channel is closed, which `next` reports.
        let _ = self.tasks.send(Task::Read { file, offset, pieces });
        receiver
    }

    /// Writes to a file from an offset on.
    pub(super) fn write(&self, file: File, offset: u64) -> Writing {
        let ((sender, pieces), (done, result)) = (mpsc::channel(PIECES), oneshot::channel());
        let _ = self.tasks.send(Task::Write { file, offset, pieces, done });
        Writing { pieces: Some(sender), result }
    }
}

/// A file that is being written. What was pushed is written even if this is dropped.
pub(super) struct Writing {
    pieces: Option<mpsc::Sender<Vec<u8>>>,
    result: oneshot::Receiver<io::Result<()>>,
}

impl Writing {
    /// Writes a piece. An error may be that of an earlier piece.
    pub(super) async fn push(&mut self, piece: Vec<u8>) -> io::Result<()> {
        match &self.pieces {
            Some(pieces) if pieces.send(piece).await.is_ok() => Ok(()),
            _ => Err(self.finish().await.err().unwrap_or_else(ended)),
        }
    }

    /// Waits until all is on the disk.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.pieces = None;
        (&mut self.result).await.unwrap_or_else(|_| Err(ended()))
    }
}

async fn run(task: Task) {
    match task {
        Task::Read { file, offset, pieces } => {
            if let Err(error) = read(file, offset, &pieces).await {
                let _ = pieces.send(Err(error)).await;
            }
        }
        Task::Write { file, offset, pieces, done } => {
            // Whoever has given up does not hear how it went.
            let _ = done.send(write(file, offset, pieces).await);
        }
    }
}

async fn read(file: File, mut offset: u64, pieces: &mpsc::Sender<io::Result<Vec<u8>>>) -> io::Result<()> {
    let file = tokio_uring::fs::File::from_std(file);
    loop {
        let (result, mut piece) = file.read_at(Vec::with_capacity(PIECE_BYTES), offset).await;
        let count = result?;
        piece.truncate(count);
        offset += count as u64;
        if count == 0 || pieces.send(Ok(piece)).await.is_err() {
            return file.close().await;
        }
    }
}

async fn write(file: File, mut offset: u64, mut pieces: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    let file = tokio_uring::fs::File::from_std(file);
    while let Some(piece) = pieces.recv().await {
        let count = piece.len() as u64;
        file.write_all_at(piece, offset).await.0?;
        offset += count;
    }
    file.sync_all().await?;
    file.close().await
}

fn ended() -> io::Error {
    io::Error::other("the thread for files has ended")
}
