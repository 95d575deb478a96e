//! Processes that run: how they are started, heard and read.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, Ordering},
};

use protocol::{
    control::{CONTROL_FD, CONTROL_VARIABLE, Framing, FromProcess, HARNESS_STDOUT_FD, Welcome, encode},
    limits::CONTROL_WAITING_BYTES_MAX,
};
use tokio::{io::unix::AsyncFd, net::unix::pipe};
use transport::{layout::COUNTERS_PREFIX, park, segment::Counters, socket::Socket};

use super::{watched::SharedFd, *};
use crate::output::{Lines, Tail};
use tokio::{sync::Mutex, task::spawn_local};

/// A process that runs.
pub(super) struct Live {
    pub(super) pid: i32,
    pub(super) pidfd: Rc<OwnedFd>,
    pub(super) doorbell: OwnedFd,
    /// Kept for whoever looks at the counters from outside.
    _counters: OwnedFd,
    pub(super) slot: u32,
    pub(super) started: Instant,
    socket: Rc<AsyncFd<Socket>>,
    framing: Framing<OwnedFd>,
    outgoing: VecDeque<Outgoing>,
    /// Bytes of messages in there.
    waiting_bytes: usize,
    /// Tells the task that waits for room in the socket that there is need, or that the process is no more.
    writing: Rc<Notify>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.writing.notify_one();
    }
}

/// A message that had no room in the socket, or not all of it.
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    files: Vec<OwnedFd>,
}

/// What else a process will say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// More may be there already.
    Now,
    /// Nothing has come yet.
    Later,
    /// Nothing more will come.
    None,
}

/// How many times a process's socket is read before others have their turn.
const READS: usize = 16;

impl Live {
    /// Queues a message, and sends as much as there is room for.
    pub(super) fn tell(&mut self, message: &ToProcess, files: Vec<OwnedFd>) {
        let bytes = encode(message, files.len());
        if self.waiting_bytes > CONTROL_WAITING_BYTES_MAX {
            // Nobody hears what this one is told any more.
            let _ = launch::kill(self.pidfd.as_fd(), libc::SIGKILL);
            return;
        }
        self.waiting_bytes += bytes.len();
        self.outgoing.push_back(Outgoing { bytes, sent: 0, files });
        self.flush();
        if !self.outgoing.is_empty() {
            self.writing.notify_one();
        }
    }

    /// Sends as much as there is room for.
    fn flush(&mut self) {
        while let Some(first) = self.outgoing.front_mut() {
            let files: Vec<BorrowedFd<'_>> = first.files.iter().map(AsFd::as_fd).collect();
            match self.socket.get_ref().write(&first.bytes[first.sent..], &files) {
                Ok(written) => {
                    first.sent += written;
                    first.files.clear();
                    if first.sent == first.bytes.len() {
                        self.waiting_bytes -= first.bytes.len();
                        self.outgoing.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The process is gone; its end is on its way.
                Err(_) => {
                    self.outgoing.clear();
                    self.waiting_bytes = 0;
                }
            }
        }
    }

    /// Says that there is word.
    pub(super) fn ring_event(&self, word: &AtomicU32) {
        // SYNC: with the load in the SDK's pump: the words were sent before.
        word.fetch_add(1, Ordering::Release);
        park::wake(word);
    }

    /// Reads words.
    pub(super) fn read(&mut self, words: &mut Vec<FromProcess>) -> Result<Rest, String> {
        let mut buffer = [0; 64 << 10];
        for _ in 0..READS {
            // Processes have no descriptors to give; those that come are closed at once.
            match self.socket.get_ref().read(&mut buffer, &mut Vec::new()) {
                Ok(0) => return Ok(Rest::None),
                Ok(read) => self.framing.feed(&buffer[..read], []),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Rest::Later),
                // It has ended, and had not read all that it was told.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Rest::None),
                Err(error) => return Err(format!("its control socket failed: {error}")),
            }
            while let Some((message, _)) =
                self.framing.take::<ToManager>().map_err(|error| error.to_string())?
            {
                words.extend(message.word);
            }
        }
        Ok(Rest::Now)
    }
}

/// The files that a process has for itself, and what it is given of them.
struct OwnFiles {
    doorbell: OwnedFd,
    counters: OwnedFd,
    given: Vec<OwnedFd>,
}

impl Service {
    /// Starts a process.
    pub(super) fn launch(shared: &Shared, launch: &state::Launch) {
        let process = launch.process;
        let started = shared.borrow_mut().start(shared, launch);
        let mut service = shared.borrow_mut();
        let report = match started {
            Ok(()) => Report::Launched(process, launch.rings.clone()),
            Err(text) => {
                if let Some(live) = service.live.remove(&process) {
                    service.free_slots.push(live.slot);
                }
                Report::LaunchFailed(process, text)
            }
        };
        service.mind.report(report);
    }

    fn own_files(&self, pid: i32, name: &str) -> Result<OwnFiles, String> {
        let label =
            CString::new(format!("{COUNTERS_PREFIX}{pid}.{name}")).map_err(|_| "its name holds a NUL")?;
        let doorbell =
            segment::create(c"archean-doorbell", Doorbell::BYTES).map_err(because("making a doorbell"))?;
        let counters = segment::create(&label, Counters::BYTES).map_err(because("making counters"))?;
        let read_only = segment::reopen_read_only(counters.as_fd()).map_err(because("reopening counters"))?;
        let mut given = Vec::new();
        for file in [&doorbell, &self.events_file] {
            given.push(file.try_clone().map_err(because("duplicating a descriptor"))?);
        }
        given.push(counters);
        Ok(OwnFiles { doorbell, counters: read_only, given })
    }

    fn start(&mut self, shared: &Shared, spec: &state::Launch) -> Result<(), String> {
        let (ours, theirs) = Socket::pair().map_err(because("making a control socket"))?;
        let (stdout, stdout_theirs) = io::pipe().map_err(because("making a pipe"))?;
        let (stderr, stderr_theirs) = io::pipe().map_err(because("making a pipe"))?;
        let socket = Rc::new(watched::watch(ours).map_err(because("watching a control socket"))?);
        let is_root = spec.entry.is_none();
        let harness = if is_root { self.spec.root_harness } else { !spec.harness.is_empty() };
        let stdin = if is_root { io::stdin().as_fd().try_clone_to_owned() } else { self.null.try_clone() };
        let stdin = stdin.or_else(|_| self.null.try_clone()).map_err(because("opening standard input"))?;
        let mut descriptors =
            vec![stdin.as_fd(), stdout_theirs.as_fd(), stderr_theirs.as_fd(), theirs.as_fd()];
        if harness {
            descriptors[1] = self.null.as_fd();
            descriptors.push(stdout_theirs.as_fd());
        }
        const { assert!(CONTROL_FD == 3 && HARNESS_STDOUT_FD == 4) };
        let launch = launch::Launch {
            image: self.spec.image.fd.as_fd(),
            argv: &self.arguments_of(spec),
            env: &self.env_of(spec),
            directory: &self.spec.directory,
            descriptors: &descriptors,
        };
        let slot = self.free_slots.pop().ok_or("no slot is left in the events file")?;
        let started = Instant::now();
        let launched = match launch::launch(&launch) {
            Ok(launched) => launched,
            Err(error) => {
                self.free_slots.push(slot);
                return Err(error.to_string());
            }
        };
        // The rest is done while the image is being loaded.
        let own = self.own_files(launched.pid, &spec.name);
        let own = own.inspect_err(|_| {
            let _ = launch::kill(launched.pidfd.as_fd(), libc::SIGKILL);
            self.free_slots.push(slot);
        })?;
        let OwnFiles { doorbell, counters, given: files } = own;
        let welcome = Welcome {
            process: spec.process.0,
            parent: spec.parent.map(|parent| parent.0),
            name: spec.name.clone(),
            entry: spec.entry,
            argument: spec.argument.clone(),
            ends: spec.ends.clone(),
            cores_shares: spec.request.cores.shares(),
            machine: self.machine.0,
            event_slot: slot,
            event_slots: PROCESSES_MAX,
            event_count: self.events.word(slot as usize).load(Ordering::Relaxed),
            harness,
            links: self.links.are_used() || self.linking.is_possible(),
        };
        let mut live = Live {
            pid: launched.pid,
            pidfd: Rc::new(launched.pidfd),
            doorbell,
            _counters: counters,
            slot,
            started,
            socket,
            framing: Framing::default(),
            outgoing: VecDeque::new(),
            waiting_bytes: 0,
            writing: Rc::new(Notify::new()),
        };
        live.tell(&ToProcess { word: Some(FromManager::Welcome(welcome)) }, files);
        self.live.insert(spec.process, live);
        for state::NewRing { ring, capacity, sender } in &spec.rings {
            // Without a ring ahead of need the process asks for one when it has need, and hears then why not.
            if let Err(error) = self.make_ring(spec.process, *ring, *capacity, *sender, false) {
                self.mind.report(Report::RingFailed(*ring, None, error.to_string()));
            }
        }
        self.watch(shared, spec, [stdout.into(), stderr.into()]).inspect_err(|_| {
            // Nobody would notice its end: it must not live.
            if let Some(live) = self.live.get(&spec.process) {
                let _ = launch::kill(live.pidfd.as_fd(), libc::SIGKILL);
            }
        })
    }

    fn arguments_of(&self, spec: &state::Launch) -> Vec<CString> {
        let mut arguments = self.spec.image.command(self.spec.name.clone());
        match spec.entry {
            None => arguments.extend(self.spec.root_arguments.iter().cloned()),
            Some(_) => arguments.extend(spec.harness.iter().flat_map(|text| CString::new(text.as_str()))),
        }
        arguments
    }

    fn env_of(&self, spec: &state::Launch) -> Vec<CString> {
        let own = |name: &[u8], value: &[u8]| CString::new([name, b"=", value].concat()).ok();
        let mut env: Vec<CString> = match spec.entry {
            None => self.spec.root_env.clone(),
            Some(_) => {
                let library_path = self.spec.library_path.clone().into_iter();
                let variables = spec.env.iter();
                library_path.chain(variables.filter_map(|v| own(&v.name, &v.value))).collect()
            }
        };
        env.extend(own(CONTROL_VARIABLE.as_bytes(), CONTROL_FD.to_string().as_bytes()));
        env
    }

    /// Starts the tasks of a process.
    fn watch(&mut self, shared: &Shared, spec: &state::Launch, output: [OwnedFd; 2]) -> Result<(), String> {
        let process = spec.process;
        let Some(live) = self.live.get(&process) else { return Ok(()) };
        let pidfd =
            watched::watch(SharedFd(live.pidfd.clone())).map_err(because("watching a new process"))?;
        let name: Arc<str> = spec.name.as_str().into();
        let mut readers = Vec::new();
        for (pipe, is_stderr) in output.into_iter().zip([false, true]) {
            let reader = Reader {
                pipe: Rc::new(
                    pipe::Receiver::from_owned_fd(pipe).map_err(because("watching a new process"))?,
                ),
                lines: Lines::default(),
                tail: Tail::default(),
                output: self.output.clone(),
                name: name.clone(),
                is_root: spec.entry.is_none(),
                is_stderr,
                over: false,
            };
            readers.push(Rc::new(Mutex::new(reader)));
        }
        self.tasks.retain(|task| !task.is_finished());
        self.tasks.extend(readers.iter().map(|reader| spawn_local(read_output(reader.clone()))));
        spawn_local(await_end(shared.clone(), process, pidfd, readers));
        spawn_local(read_control(shared.clone(), process, live.socket.clone()));
        spawn_local(write_control(shared.clone(), process, live.socket.clone(), live.writing.clone()));
        if let Some(limit) = spec.time_limit {
            let shared = Rc::downgrade(shared);
            spawn_local(async move {
                tokio::time::sleep(limit).await;
                if let Some(shared) = shared.upgrade() {
                    shared.borrow_mut().mind.report(Report::TimeLimit(process, limit));
                    Service::do_deeds(&shared);
                }
            });
        }
        Ok(())
    }
}

async fn read_control(shared: Shared, process: ProcessId, socket: Rc<AsyncFd<Socket>>) {
    while let Ok(mut ready) = socket.readable().await {
        let rest = Service::read(&shared, process);
        Service::do_deeds(&shared);
        match rest {
            Rest::Now => tokio::task::yield_now().await,
            Rest::Later => ready.clear_ready(),
            Rest::None => return,
        }
    }
}

async fn write_control(shared: Shared, process: ProcessId, socket: Rc<AsyncFd<Socket>>, writing: Rc<Notify>) {
    loop {
        writing.notified().await;
        if !shared.borrow().live.contains_key(&process) {
            return;
        }
        let Ok(mut ready) = socket.writable().await else { return };
        let mut service = shared.borrow_mut();
        let service = &mut *service;
        let Some(live) = service.live.get_mut(&process) else { return };
        live.flush();
        live.ring_event(service.events.word(live.slot as usize));
        if !live.outgoing.is_empty() {
            ready.clear_ready();
            live.writing.notify_one();
        }
    }
}

async fn await_end(
    shared: Shared,
    process: ProcessId,
    pidfd: AsyncFd<SharedFd>,
    readers: Vec<Rc<Mutex<Reader>>>,
) {
    // It fails only when the runtime shuts down, and the job with it.
    let Ok(_ready) = pidfd.readable().await else { return };
    let drained = async {
        for reader in &readers {
            reader.lock().await.drain().await;
        }
    };
    // A terminal that is blocked must not keep the end of a process from those who wait for it.
    let _ = tokio::time::timeout(LAST_OUTPUT, drained).await;
    let tails = readers.iter().flat_map(|reader| reader.try_lock()).map(|reader| reader.tail.text());
    Service::on_ended(&shared, process, tails.collect());
}

/// One of a process's two streams of output.
struct Reader {
    pipe: Rc<pipe::Receiver>,
    lines: Lines,
    tail: Tail,
    output: Sender<Output>,
    name: Arc<str>,
    is_root: bool,
    is_stderr: bool,
    over: bool,
}

impl Reader {
    /// Passes on all that has come.
    async fn drain(&mut self) {
        let mut buffer = vec![0; 64 << 10];
        while !self.over {
            match self.pipe.try_read(&mut buffer) {
                Ok(0) => {
                    self.over = true;
                    let mut rest = Vec::new();
                    let output = self.as_output();
                    self.lines.finish(|line| rest.push(output(line.bytes, line.continues)));
                    self.pass_on(rest).await;
                }
                Ok(read) => {
                    let bytes = &buffer[..read];
                    if self.is_stderr {
                        self.tail.feed(bytes);
                    }
                    let output = self.as_output();
                    let mut pieces = Vec::new();
                    if self.is_root {
                        pieces.push(output(bytes, false));
                    } else {
                        self.lines.feed(bytes, |line| pieces.push(output(line.bytes, line.continues)));
                    }
                    self.pass_on(pieces).await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.over = true,
            }
        }
    }

    fn as_output(&self) -> impl Fn(&[u8], bool) -> Output + use<> {
        let (name, is_root, is_stderr) = (self.name.clone(), self.is_root, self.is_stderr);
        move |bytes, continues| Output {
            name: name.clone(),
            is_root,
            is_stderr,
            bytes: bytes.to_vec(),
            continues,
        }
    }

    async fn pass_on(&mut self, pieces: Vec<Output>) {
        for piece in pieces {
            // Without a reader nobody wants it.
            let _ = self.output.send(piece).await;
        }
    }
}

async fn read_output(reader: Rc<Mutex<Reader>>) {
    let pipe = reader.lock().await.pipe.clone();
    while pipe.readable().await.is_ok() {
        let mut reader = reader.lock().await;
        reader.drain().await;
        if reader.over {
            return;
        }
    }
}

fn because<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}
