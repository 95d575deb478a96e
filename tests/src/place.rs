//! Where the other side of a channel lives, for tests of what holds wherever it does.

use std::{
    env,
    panic::resume_unwind,
    process::Command,
    thread::{self, JoinHandle},
};

use archean::{Child, Data, Entry, ProcessId, spawn};
use futures::channel::oneshot;

/// See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On another thread of this process.
    InProcess,
    /// In another process. By what the two are connected is up to the job: see [`LINKS_VARIABLE`].
    Processes,
}

/// Set to `plain` or `sealed` it has jobs connect processes by links, as if each were on a machine of its own.
pub const LINKS_VARIABLE: &str = "ARCHEAN_LINKS";

impl Place {
    /// Starts the other side.
    ///
    /// # Errors
    /// Why it was not started.
    pub async fn start<F, A, M>(self, entry: F, args: A) -> anyhow::Result<Far<F::Out>>
    where
        F: Entry<A, M> + Send,
        F::Out: Send,
        A: Data + Send + 'static,
        M: 'static,
    {
        match self {
            Place::InProcess => {
                let (sender, result) = oneshot::channel();
                let thread = thread::spawn(move || drop(sender.send(entry.call(args))));
                Ok(Far(Side::Thread(thread, result)))
            }
            Place::Processes => match spawn(entry, args).await {
                Ok(child) => Ok(Far(Side::Process(child))),
                Err(error) => anyhow::bail!(error.reason),
            },
        }
    }

    /// Whether the two sides are connected by a link. To be asked in the root of a job.
    pub fn has_links(self) -> bool {
        self == Place::Processes && env::var_os(LINKS_VARIABLE).is_some()
    }
}

/// The other side.
#[derive(Debug)]
pub struct Far<R>(Side<R>);

#[derive(Debug)]
enum Side<R> {
    Thread(JoinHandle<()>, oneshot::Receiver<R>),
    Process(Child<R>),
}

impl<R: Data> Far<R> {
    /// Waits until it has ended, and gives what it returned.
    ///
    /// # Errors
    /// How else the process ended.
    ///
    /// # Panics
    /// When the thread did.
    pub async fn join(self) -> anyhow::Result<R> {
        match self.0 {
            Side::Process(child) => Ok(child.join().await?),
            Side::Thread(thread, result) => match result.await {
                Ok(result) => Ok(result),
                Err(_) => resume_unwind(thread.join().expect_err("it gave no result")),
            },
        }
    }

    /// The process, if it is one of its own.
    pub fn id(&self) -> Option<ProcessId> {
        match &self.0 {
            Side::Process(child) => Some(child.id()),
            Side::Thread(..) => None,
        }
    }

    /// Kills the process.
    ///
    /// # Panics
    /// When it is this one.
    pub fn kill(&self) {
        match &self.0 {
            Side::Process(child) => child.kill(),
            Side::Thread(..) => panic!("a thread can't be killed"),
        }
    }
}

/// Runs a future on several threads of tokio, beside this one.
///
/// # Errors
/// Those of the future.
///
/// # Panics
/// When the future does.
pub async fn on_tokio<F>(future: F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (sender, result) = oneshot::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build();
        let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(future));
        // Who waits has not gone away.
        drop(sender.send(done));
    });
    match result.await {
        Ok(done) => done,
        Err(_) => resume_unwind(thread.join().expect_err("it gave no result")),
    }
}

/// Runs a test of this very binary once more, in a job that connects processes by such links.
///
/// # Panics
/// When it fails, or is not there.
pub fn run_linked(links: &str, test: &str) {
    let program = env::current_exe().expect("a test finds its own file");
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(LINKS_VARIABLE, links)
        .output()
        .expect("a test can be executed");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains(" 1 passed"), "{links} {test}:\n{stdout}{stderr}");
}
