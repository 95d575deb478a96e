//! The process's side of its control socket.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
};

use channels::hub::{Hub, Wiring};
use protocol::{
    control::{
        Close, ConnectAnswer, ConnectRefusal, Ended, Framing, FromManager, FromProcess, Malformed,
        NotSpawned, SpawnFailure, ToManager, ToProcess, encode,
    },
    ending::Exit,
    ids::{EndId, ProcessId},
};
use transport::socket::Socket;

use crate::connect::Offers;

/// The process's side of its control socket.
pub(crate) struct Control {
    socket: Socket,
    /// Words that were not sent yet.
    outgoing: Mutex<Vec<u8>>,
    /// Whether there are any.
    has_kept: AtomicBool,
    incoming: Mutex<Framing<OwnedFd>>,
    spawns: Mutex<HashMap<u64, Waiting<SpawnAnswer>>>,
    exits: Mutex<HashMap<ProcessId, Waiting<Finish>>>,
    requests: AtomicU64,
    connects: Mutex<HashMap<u64, Waiting<Option<ConnectRefusal>>>>,
    connect_requests: AtomicU64,
    pub(crate) offers: Offers,
}

/// How the manager answers a wish for a process.
pub(crate) type SpawnAnswer = Result<ProcessId, (SpawnFailure, String)>;

/// How a child ended, with its result.
#[derive(Debug)]
pub(crate) struct Finish {
    pub(crate) exit: Exit,
    pub(crate) result: Vec<u8>,
    pub(crate) ends: Vec<EndId>,
}

/// Something that somebody waits for, or may.
struct Waiting<T> {
    found: Option<T>,
    waker: Option<Waker>,
}

impl<T> Waiting<T> {
    const fn new() -> Self {
        Waiting { found: None, waker: None }
    }

    fn arrive(&mut self, found: T) -> Option<Waker> {
        self.found = Some(found);
        self.waker.take()
    }
}

/// So many bytes of words that matter only to later ones are kept back at most.
const KEPT_BYTES: usize = 4 << 10;

static CONTROL: OnceLock<Control> = OnceLock::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    /// Makes the socket the process's own; what was read from it already is in `incoming`.
    pub(crate) fn install(socket: Socket, incoming: Framing<OwnedFd>) -> &'static Control {
        CONTROL.get_or_init(|| Control {
            socket,
            outgoing: Mutex::default(),
            has_kept: AtomicBool::new(false),
            incoming: Mutex::new(incoming),
            spawns: Mutex::default(),
            exits: Mutex::default(),
            requests: AtomicU64::new(0),
            connects: Mutex::default(),
            connect_requests: AtomicU64::new(0),
            offers: Offers::default(),
        })
    }

    /// The process's control socket, if it is part of a job.
    pub(crate) fn get() -> Option<&'static Control> {
        CONTROL.get()
    }

    fn tell(&self, word: FromProcess, now: bool) {
        let bytes = encode(&ToManager { word: Some(word) }, 0);
        let mut outgoing = lock(&self.outgoing);
        outgoing.extend_from_slice(&bytes);
        self.has_kept.store(true, Ordering::Release);
        if now || outgoing.len() > KEPT_BYTES {
            self.send(&mut outgoing);
        }
    }

    fn flush(&self) {
        if self.has_kept.load(Ordering::Acquire) {
            self.send(&mut lock(&self.outgoing));
        }
    }

    fn send(&self, outgoing: &mut Vec<u8>) {
        // A manager that is gone takes its processes along; there is nobody to tell an error to.
        let _ = self.socket.write_all(outgoing);
        outgoing.clear();
        self.has_kept.store(false, Ordering::Release);
    }

    fn pump(&self, hub: &Hub) -> bool {
        let mut incoming = lock(&self.incoming);
        let mut buffer = [0; 4 << 10];
        let mut any = false;
        loop {
            loop {
                match incoming.take::<ToProcess>() {
                    Ok(None) => break,
                    Ok(Some((message, files))) => {
                        any = true;
                        let Some(word) = message.word else { continue };
                        if let Err(Malformed(what)) = self.on_word(hub, word, files) {
                            panic!("the manager sent a word without a sensible {what}");
                        }
                    }
                    Err(error) => panic!("the manager sent what can't be understood: {error}"),
                }
            }
            let mut files = Vec::new();
            match self.socket.read(&mut buffer, &mut files) {
                Ok(read) if read > 0 => incoming.feed(&buffer[..read], files),
                // Nothing more, or the manager is gone and this process is about to be ended.
                _ => return any,
            }
        }
    }

    fn on_word(&self, hub: &Hub, word: FromManager, files: Vec<OwnedFd>) -> Result<(), Malformed> {
        let waker = match hub.deliver(word, files)? {
            Some(FromManager::Spawned(word)) => {
                let process = ProcessId(word.process);
                lock(&self.spawns).get_mut(&word.request).and_then(|waiting| {
                    lock(&self.exits).insert(process, Waiting::new());
                    waiting.arrive(Ok(process))
                })
            }
            Some(FromManager::NotSpawned(word)) => {
                let NotSpawned { request, text, .. } = word.clone();
                lock(&self.spawns)
                    .get_mut(&request)
                    .and_then(|waiting| waiting.arrive(Err((word.failure(), text))))
            }
            Some(FromManager::Ended(Ended { exit, result, ends })) => {
                let finish = Finish { exit: exit.try_into()?, result, ends: EndId::list_from_word(&ends)? };
                match lock(&self.exits).get_mut(&finish.exit.process) {
                    Some(waiting) => waiting.arrive(finish),
                    None => {
                        close_all(hub, finish.ends);
                        None
                    }
                }
            }
            Some(FromManager::ConnectAnswer(ConnectAnswer { request, refusal })) => {
                lock(&self.connects).get_mut(&request).and_then(|waiting| waiting.arrive(refusal))
            }
            Some(FromManager::Connected(word)) => {
                self.offers.arrive(word)?;
                None
            }
            // A word of a later version, or the second welcome of a confused manager.
            _ => None,
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// A number for one more spawn, which names the answer and counts the spawns.
    pub(crate) fn next_request(&self) -> u64 {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        lock(&self.spawns).insert(request, Waiting::new());
        request
    }

    /// The answer to a spawn, once; `waker` is woken when it comes.
    pub(crate) fn poll_spawn(&self, request: u64, waker: Option<&Waker>) -> Poll<SpawnAnswer> {
        poll(&self.spawns, &request, waker)
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn forget_spawn(&self, request: u64) {
        let waiting = lock(&self.spawns).remove(&request);
        if let Some(Waiting { found: Some(Ok(process)), .. }) = waiting {
            lock(&self.exits).remove(&process);
        }
    }

    /// A number for one more wish for a connection, which names the answer.
    pub(crate) fn next_connect(&self) -> u64 {
        let request = self.connect_requests.fetch_add(1, Ordering::Relaxed);
        lock(&self.connects).insert(request, Waiting::new());
        request
    }

    /// The answer to a wish for a connection, once; `waker` is woken when it comes.
    pub(crate) fn poll_connect(&self, request: u64, waker: Option<&Waker>) -> Poll<Option<ConnectRefusal>> {
        poll(&self.connects, &request, waker)
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn forget_connect(&self, request: u64) {
        lock(&self.connects).remove(&request);
    }

    /// How a child ended, once; `waker` is woken when it does.
    pub(crate) fn poll_exit(&self, process: ProcessId, waker: Option<&Waker>) -> Poll<Finish> {
        poll(&self.exits, &process, waker)
    }

    /// Nobody will ask how that child ends. Ends in its result are closed.
    pub(crate) fn forget_exit(&self, hub: &Hub, process: ProcessId) {
        let waiting = lock(&self.exits).remove(&process);
        if let Some(Waiting { found: Some(finish), .. }) = waiting {
            close_all(hub, finish.ends);
        }
    }
}

fn poll<K: std::hash::Hash + Eq, T>(
    table: &Mutex<HashMap<K, Waiting<T>>>,
    key: &K,
    waker: Option<&Waker>,
) -> Poll<T> {
    let mut table = lock(table);
    match table.get_mut(key) {
        Some(Waiting { found: None, waker: stored }) => {
            if let Some(waker) = waker {
                *stored = Some(waker.clone());
            }
            Poll::Pending
        }
        _ => match table.remove(key).and_then(|waiting| waiting.found) {
            Some(found) => Poll::Ready(found),
            None => Poll::Pending,
        },
    }
}

/// Closes ends that came in a result and were not taken out of it.
pub(crate) fn close_all(hub: &Hub, ends: Vec<EndId>) {
    for end in ends {
        let reason = Some("nobody took the result that it was in".to_owned());
        hub.tell(FromProcess::Close(Close { end: end.to_word(), reason }));
    }
}

/// The hub's way to the control socket.
pub(crate) struct Wire(pub(crate) &'static Control);

impl Wiring for Wire {
    fn tell(&self, word: FromProcess, now: bool) {
        self.0.tell(word, now);
    }

    fn flush(&self) {
        self.0.flush();
    }

    fn pump(&self, hub: &Hub) -> bool {
        self.0.pump(hub)
    }
}
