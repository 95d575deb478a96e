//! The process that holds one job's part on one machine: its home, or an agent.
//!
//! Its manager has started it and talks to it over a socket that it inherits; when that socket closes, the job's part
//! ends. It has no network of its own.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{
    agent::{End, FromAgent, FromHome, Printed, ToAgent, ToHome},
    control::{ExitWord, Framing, Malformed, Number, Variable, encode},
    ids::{ImageId, JobId, MachineId, ProcessId},
    placement::{FromScheduler, ToScheduler},
    resources::{Cores, Memory, Request},
    runner::{FromDaemon, FromRunner, HomeToMachine, Over, Spec, Start, ToDaemon, ToRunner, Want},
};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc::{self, UnboundedReceiver, unbounded_channel},
    time::{Instant, sleep_until},
};
use transport::socket::Socket;

use crate::{
    image::Image,
    service::{Event, JobEnd, JobError, JobSpec, Output, Service, Shared, watch},
    store::{Store, StoreError},
};

/// Why a runner gave up.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The manager did not say what to run.
    #[error("the manager said no sensible {0}")]
    Word(&'static str),
    /// The socket failed, or is none.
    #[error("the manager's socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The image is not there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The job can't be run here.
    #[error(transparent)]
    Job(#[from] JobError),
}

impl From<Malformed> for RunnerError {
    fn from(Malformed(what): Malformed) -> Self {
        RunnerError::Word(what)
    }
}

/// How long agents may take to end after their job, and to tell the last that was printed on their machines.
const AGENTS_END_TIME_MAX: Duration = Duration::from_secs(2);

/// Portions of output that may wait.
const OUTPUT_PORTIONS: usize = 64;

/// No more output is taken while so many bytes wait for the manager.
const WAITING_BYTES_MAX: usize = 256 << 10;

/// Runs the part of a job that the manager at the other end of `socket` names, to its end.
///
/// To be called as [`run_job`](crate::run_job).
///
/// # Errors
/// [`RunnerError`] when there is no part to run. What ends the job is no error.
pub async fn run(socket: Socket) -> Result<(), RunnerError> {
    let mut port = Port::new(socket)?;
    let start = loop {
        match port.next().await? {
            Heard::Word(FromDaemon::Start(start), _) => break start,
            Heard::Word(..) | Heard::Room => {}
            Heard::Gone => return Ok(()),
        }
    };
    let (output, printed) = mpsc::channel(OUTPUT_PORTIONS);
    let machine = MachineId(start.machine);
    let spec = spec_of(&start)?;
    let (dial, dials) = unbounded_channel();
    if start.home == start.machine {
        let (to_scheduler, wants) = unbounded_channel();
        let (to_agents, words) = unbounded_channel();
        let service = Service::at_home(JobId(start.job), machine, spec, to_scheduler, to_agents, output)?;
        service.borrow_mut().set_dialer(dial);
        Home { port, service, wants, words, dials, printed }.run().await
    } else {
        let (to_home, words) = unbounded_channel();
        let service = Service::away(spec, machine, to_home, output)?;
        service.borrow_mut().set_dialer(dial);
        Agent { port, service, words, dials, printed }.run().await
    }
}

struct Home {
    port: Port,
    service: Shared,
    wants: UnboundedReceiver<ToScheduler>,
    words: UnboundedReceiver<(MachineId, FromHome)>,
    dials: UnboundedReceiver<ToDaemon>,
    printed: mpsc::Receiver<Output>,
}

impl Home {
    async fn run(mut self) -> Result<(), RunnerError> {
        Service::do_deeds(&self.service);
        let over = self.service.borrow().over();
        let mut is_alone = false;
        let end = loop {
            if let Some(end) = Service::take_end(&self.service) {
                break end;
            }
            tokio::select! {
                () = over.notified() => {}
                word = self.port.next(), if !is_alone => match word? {
                    Heard::Word(word, files) => self.on_word(word, files),
                    Heard::Room => {}
                    Heard::Gone => {
                        is_alone = true;
                        Service::on_event(&self.service, Event::Stop("the loss of the machine's manager".into()));
                    }
                },
                Some(word) = self.wants.recv() => self.port.say(to_daemon(word)),
                Some((machine, word)) = self.words.recv() => {
                    let word = Some(ToAgent { word: Some(word) });
                    self.port.say(ToDaemon::ToAgent(HomeToMachine { machine: machine.0, word }));
                }
                Some(word) = self.dials.recv() => self.port.say(word),
                Some(output) = self.printed.recv(), if self.port.has_room() => {
                    self.port.say(ToDaemon::Printed(to_printed(output)));
                }
            }
        };
        let mut agents: BTreeSet<MachineId> = Service::agents(&self.service).into_iter().collect();
        for machine in &agents {
            let word = Some(ToAgent { word: Some(FromHome::End(End {})) });
            self.port.say(ToDaemon::ToAgent(HomeToMachine { machine: machine.0, word }));
        }
        let service = self.service.clone();
        let mut finish = Box::pin(Service::finish(&service, end));
        let (mut finished, deadline) = (None, Instant::now() + AGENTS_END_TIME_MAX);
        let end = loop {
            // What was printed elsewhere is on its way until the agents are gone.
            if (is_alone || agents.is_empty())
                && let Some(end) = finished.take()
            {
                break end;
            }
            tokio::select! {
                end = &mut finish, if finished.is_none() => finished = Some(end),
                word = self.port.next(), if !is_alone => match word? {
                    Heard::Word(FromDaemon::FromAgent(word), _) => {
                        if let Some(FromAgent::Printed(printed)) = word.word.and_then(|word| word.word) {
                            self.port.say(ToDaemon::Printed(printed));
                        }
                    }
                    Heard::Word(FromDaemon::MachineLost(lost), _) => drop(agents.remove(&MachineId(lost.machine))),
                    Heard::Word(..) | Heard::Room => {}
                    Heard::Gone => is_alone = true,
                },
                () = sleep_until(deadline), if !agents.is_empty() => agents.clear(),
                Some(output) = self.printed.recv(), if self.port.has_room() => {
                    self.port.say(ToDaemon::Printed(to_printed(output)));
                }
            }
        };
        while let Ok(output) = self.printed.try_recv() {
            self.port.say(ToDaemon::Printed(to_printed(output)));
        }
        self.port.say(ToDaemon::Over(to_over(end)));
        self.port.flush().await;
        Ok(())
    }

    fn on_word(&mut self, word: FromDaemon, files: Vec<OwnedFd>) {
        let event = match word {
            FromDaemon::Placed(placed) => {
                let task = protocol::placement::Task { job: JobId(0), process: ProcessId(placed.process) };
                Event::Scheduler(FromScheduler::Place { task, machine: MachineId(placed.machine) })
            }
            FromDaemon::Refused(refused) => {
                let (process, failure) = (ProcessId(refused.process), refused.failure());
                Event::Refused { process, failure, text: refused.text }
            }
            FromDaemon::FromAgent(word) => match word.word.and_then(|word| word.word) {
                Some(FromAgent::Printed(printed)) => {
                    // It was counted where it was printed, and its way here is bounded by the managers.
                    return self.port.say(ToDaemon::Printed(printed));
                }
                Some(said) => Event::Agent(MachineId(word.machine), said),
                None => return,
            },
            FromDaemon::MachineLost(lost) => Event::MachineLost(MachineId(lost.machine), lost.why),
            FromDaemon::Stop(stop) => Event::Stop(stop.by),
            word => return Service::on_link_word(&self.service, word, files),
        };
        Service::on_event(&self.service, event);
    }
}

struct Agent {
    port: Port,
    service: Shared,
    words: UnboundedReceiver<FromAgent>,
    dials: UnboundedReceiver<ToDaemon>,
    printed: mpsc::Receiver<Output>,
}

impl Agent {
    async fn run(mut self) -> Result<(), RunnerError> {
        loop {
            tokio::select! {
                word = self.port.next() => match word? {
                    Heard::Gone | Heard::Word(FromDaemon::Stop(_) | FromDaemon::MachineLost(_), _) => break,
                    Heard::Word(FromDaemon::ToAgent(ToAgent { word: Some(FromHome::End(_)) }), _) => break,
                    Heard::Word(FromDaemon::ToAgent(ToAgent { word: Some(word) }), _) => {
                        Service::on_word(&self.service, word)?;
                    }
                    Heard::Room => {}
                    Heard::Word(word, files) => Service::on_link_word(&self.service, word, files),
                },
                Some(word) = self.words.recv() => self.say(word),
                Some(word) = self.dials.recv() => self.port.say(word),
                Some(output) = self.printed.recv(), if self.port.has_room() => {
                    self.say(FromAgent::Printed(to_printed(output)));
                }
            }
        }
        Service::kill_all(&self.service);
        let service = self.service.clone();
        let mut clear = Box::pin(Service::clear(&service));
        loop {
            tokio::select! {
                cleared = &mut clear => {
                    cleared?;
                    break;
                }
                Some(output) = self.printed.recv(), if self.port.has_room() => {
                    self.say(FromAgent::Printed(to_printed(output)));
                }
                () = self.port.flush(), if !self.port.is_idle() => {}
            }
        }
        while let Ok(output) = self.printed.try_recv() {
            self.say(FromAgent::Printed(to_printed(output)));
        }
        self.port.flush().await;
        Ok(())
    }

    fn say(&mut self, word: FromAgent) {
        self.port.say(ToDaemon::ToHome(ToHome { word: Some(word) }));
    }
}

/// What comes from the manager.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it comes from")]
enum Heard {
    Word(FromDaemon, Vec<OwnedFd>),
    /// There is room again for what is printed.
    Room,
    /// The manager is gone.
    Gone,
}

/// The socket to the manager.
struct Port {
    socket: AsyncFd<Socket>,
    framing: Framing<OwnedFd>,
    outgoing: Vec<u8>,
    sent: usize,
}

impl Port {
    fn new(socket: Socket) -> io::Result<Port> {
        let socket = watch(socket)?;
        Ok(Port { socket, framing: Framing::default(), outgoing: Vec::new(), sent: 0 })
    }

    fn say(&mut self, word: ToDaemon) {
        self.outgoing.extend_from_slice(&encode(&FromRunner { word: Some(word) }, 0));
        self.write();
    }

    fn write(&mut self) {
        while self.sent < self.outgoing.len() {
            match self.socket.get_ref().write(&self.outgoing[self.sent..], &[]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The manager is gone, which is seen by reading.
                Err(_) => break,
            }
        }
        self.outgoing.clear();
        self.sent = 0;
    }

    fn has_room(&self) -> bool {
        self.outgoing.len() - self.sent < WAITING_BYTES_MAX
    }

    fn is_idle(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Waits until all that was said is sent, or can't be.
    async fn flush(&mut self) {
        while !self.is_idle() {
            let Ok(mut ready) = self.socket.writable().await else { return };
            ready.clear_ready();
            self.write();
        }
    }

    /// What comes next, while what was said is being sent. It can be given up at any time.
    async fn next(&mut self) -> Result<Heard, RunnerError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.framing.take::<ToRunner>() {
                Ok(Some((ToRunner { word: Some(word) }, files))) => return Ok(Heard::Word(word, files)),
                // A word that this version does not know.
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(_) => return Err(RunnerError::Word("message")),
            }
            let mut files = Vec::new();
            match self.socket.get_ref().read(&mut buffer, &mut files) {
                Ok(0) => return Ok(Heard::Gone),
                Ok(read) => {
                    self.framing.feed(&buffer[..read], files);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Heard::Gone),
                Err(error) => return Err(error.into()),
            }
            let is_idle = self.is_idle();
            tokio::select! {
                ready = self.socket.readable() => ready?.clear_ready(),
                ready = self.socket.writable(), if !is_idle => {
                    ready?.clear_ready();
                    let had_room = self.has_room();
                    self.write();
                    if !had_room && self.has_room() {
                        return Ok(Heard::Room);
                    }
                }
            }
        }
    }
}

fn spec_of(start: &Start) -> Result<JobSpec, RunnerError> {
    let Start { spec, image: id, store, .. } = start.clone();
    let spec: Spec = spec.ok_or(RunnerError::Word("job"))?;
    let id = ImageId(id.try_into().map_err(|_| RunnerError::Word("image's id"))?);
    let variables = |variables: Vec<Variable>| {
        let pair =
            |variable: Variable| (OsString::from_vec(variable.name), OsString::from_vec(variable.value));
        variables.into_iter().map(pair).collect::<Vec<_>>()
    };
    let directory = PathBuf::from(OsString::from_vec(spec.directory));
    let store = Store::open(Path::new(OsStr::from_bytes(&store)), u64::MAX)?;
    Ok(JobSpec {
        image: Image { path: spec.name.into(), ..Image::from_store(&store, id)? },
        arguments: spec.arguments.into_iter().map(OsString::from_vec).collect(),
        directory: if directory.is_dir() { directory } else { "/".into() },
        env: variables(spec.env),
        process_env: variables(spec.process_env),
        library_path: None,
        request: Request { cores: Cores::from_shares(spec.cores_shares), memory: Memory(spec.memory_bytes) },
        wait: spec.wait,
        harness: spec.harness,
        links: None,
    })
}

fn to_daemon(word: ToScheduler) -> ToDaemon {
    let number = |process: ProcessId| Number { number: process.0 };
    match word {
        ToScheduler::Want { task, request, locality, deadline } => ToDaemon::Want(Want {
            process: task.process.0,
            cores_shares: request.cores.shares(),
            memory_bytes: request.memory.bytes(),
            deadline_ns: deadline
                .map(|deadline: Duration| deadline.as_nanos().try_into().unwrap_or(u64::MAX)),
            on: locality.on.map(|machine| machine.0),
            prefer: locality.prefer.map(|machine| machine.0),
            not: locality.not.map(|machine| machine.0),
        }),
        ToScheduler::Withdraw { task } => ToDaemon::Withdraw(number(task.process)),
        ToScheduler::Ended { task } => ToDaemon::Gone(number(task.process)),
        ToScheduler::Join { .. } | ToScheduler::Leave { .. } | ToScheduler::Runs { .. } => {
            unreachable!("a job's state speaks of processes only")
        }
    }
}

fn to_printed(output: Output) -> Printed {
    let Output { name, is_root, is_stderr, bytes, continues } = output;
    Printed { name: name.to_string(), is_root, is_stderr, bytes, continues }
}

fn to_over(end: Result<JobEnd, JobError>) -> Over {
    match end {
        Ok(end) => {
            Over { exit: Some(ExitWord::from(&end.exit)), processes: end.processes, failed: String::new() }
        }
        Err(error) => Over { failed: error.to_string(), ..Over::default() },
    }
}
