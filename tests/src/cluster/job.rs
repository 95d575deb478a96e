//! A job on a cluster, as the client that has started it sees it.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use super::process::{die_with_parent, signal};
use crate::until;

/// A program that runs as a job on a cluster.
#[derive(Debug)]
pub struct Job {
    client: Child,
    output: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// How a job ended.
#[derive(Debug)]
pub struct Outcome {
    /// The client's exit status.
    pub status: ExitStatus,
    /// The lines of both outputs, in the order in which they came.
    pub lines: Vec<String>,
}

impl Job {
    /// Starts it.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(mut command: Command) -> Job {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_parent(&mut command);
        let mut client = command.spawn().expect("`archean` can be executed");
        let output = Arc::new(Mutex::new(Vec::new()));
        let read = |source: Box<dyn Read + Send>| {
            let output = output.clone();
            thread::spawn(move || {
                for line in BufReader::new(source).lines().map_while(Result::ok) {
                    output.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            })
        };
        let stdout = read(Box::new(client.stdout.take().expect("a pipe")));
        let stderr = read(Box::new(client.stderr.take().expect("a pipe")));
        Job { client, output, readers: vec![stdout, stderr] }
    }

    /// The client's process.
    pub fn id(&self) -> u32 {
        self.client.id()
    }

    /// What it has printed so far, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line with this text in it, and gives what follows the text.
    ///
    /// # Panics
    /// When the job ends without it.
    pub fn line(&mut self, text: &str) -> String {
        let find =
            |lines: &[String]| lines.iter().find_map(|line| Some(line.split_once(text)?.1.trim().to_owned()));
        let mut found = None;
        until(text, || {
            let has_ended = self.readers.iter().all(JoinHandle::is_finished);
            found = find(&self.lines());
            assert!(found.is_some() || !has_ended, "{text:?} is not in {:#?}", self.lines());
            found.is_some()
        });
        found.expect("it was found")
    }

    /// Sends the client a signal.
    pub fn signal(&self, number: i32) {
        signal(self.client.id(), number);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When the client can't be waited for.
    pub fn end(mut self) -> Outcome {
        let mut status = None;
        until("the job has ended", || {
            status = self.client.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        Outcome { status: status.expect("it has ended"), lines: self.lines() }
    }

    /// Waits for its end, which has to be a success.
    ///
    /// # Panics
    /// When it is none.
    pub fn succeed(self) -> Outcome {
        let outcome = self.end();
        assert!(outcome.status.success(), "{outcome:#?}");
        outcome
    }

    /// Waits for its end, which has to be a failure, and not a signal, that says this.
    ///
    /// # Panics
    /// When it is none.
    pub fn fail(self, text: &str) -> Outcome {
        let outcome = self.end();
        assert!(!outcome.status.success() && outcome.status.signal().is_none(), "{outcome:#?}");
        assert!(outcome.has(text), "{text:?} is not in {outcome:#?}");
        outcome
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // The readers end when nobody has the output any more.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

impl Outcome {
    /// Whether a line holds this text.
    pub fn has(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }
}
