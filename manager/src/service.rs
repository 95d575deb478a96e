//! Runs one job on this machine: the only part of the manager with a clock and sockets.
//!
//! Everything happens on one thread. Each process has a few small tasks: one for its control socket, one for each
//! of its two output pipes, one that waits for its end. They share the [`Service`], which they never hold across an
//! await.

mod hearing;
mod home;
mod job;
mod linking;
mod links;
mod machine;
mod processes;
mod watched;
mod words;

pub use job::{JobEnd, JobError, JobSpec, Output, Stop};
pub use links::Links;
pub use machine::{capacity, prepare};
pub(crate) use watched::{SharedFd, watch};

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::{
    agent::{self, FromAgent, FromHome},
    control::{FromManager, Malformed, Ring, SpawnFailure, ToManager, ToProcess, Variable},
    ending::{Exit, Usage},
    ids::{EndId, JobId, MachineId, ProcessId},
    limits::PROCESSES_MAX,
    placement::{FromScheduler, ToScheduler},
};
use tokio::{
    sync::{
        Notify,
        mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    task::JoinHandle,
};
use transport::{
    layout::EVENT_SLOT_BYTES,
    segment::{self, Doorbell, Files as RingFiles, Words},
};

use crate::{
    image::Image,
    launch, orphans,
    state::{self, Effect, Files, State},
};
use home::{Deed, Home, Mind, Report, Said};
use linking::{Linking, Side};
use processes::{Live, Rest};

/// How long the output of processes that have ended may take to be read to its end.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Runs a job to its end. Afterwards nothing of it is left: no process, file or descriptor.
///
/// It must be called in a `tokio` `LocalSet` on a current-thread runtime, on a thread that lives as long as the
/// process does (processes are bound to that thread's life), in a process that is a child subreaper and has no
/// other children: see [`orphans`].
///
/// # Errors
/// [`JobError`] when the root was not started.
pub async fn run_job(
    spec: JobSpec,
    to_scheduler: UnboundedSender<ToScheduler>,
    mut from_scheduler: UnboundedReceiver<FromScheduler>,
    output: Sender<Output>,
    mut stop: Receiver<Stop>,
) -> Result<JobEnd, JobError> {
    // A scheduler that is gone has told so by closing its channel, which is seen below.
    let _ = to_scheduler.send(ToScheduler::Join { machine: ALONE, capacity: capacity() });
    // There are no agents: all machines that there are is this one.
    let (to_agents, _) = unbounded_channel();
    let service = Service::at_home(JobId(0), ALONE, spec, to_scheduler, to_agents, output)?;
    Service::do_deeds(&service);
    let over = service.borrow().over.clone();
    loop {
        if let Some(end) = Service::take_end(&service) {
            return Service::finish(&service, end).await;
        }
        let event = tokio::select! {
            () = over.notified() => None,
            Some(stop) = stop.recv() => Some(Event::Stop(stop.text().to_owned())),
            word = from_scheduler.recv() => Some(match word {
                Some(word) => Event::Scheduler(word),
                None => Event::Stop("the loss of the scheduler".to_owned()),
            }),
        };
        if let Some(event) = event {
            Service::on_event(&service, event);
        }
    }
}

/// The machine of a job that has no cluster but this machine.
const ALONE: MachineId = MachineId(0);

/// What comes to the home of a job from outside.
#[derive(Debug)]
pub(crate) enum Event {
    Scheduler(FromScheduler),
    Refused { process: ProcessId, failure: SpawnFailure, text: String },
    Agent(MachineId, FromAgent),
    MachineLost(MachineId, String),
    Stop(String),
}

pub(crate) struct Service {
    /// Processes that were listened to because of another, and have perhaps not been heard out.
    overheard: Vec<ProcessId>,
    mind: Mind,
    machine: MachineId,
    spec: Template,
    output: Sender<Output>,
    live: BTreeMap<ProcessId, Live>,
    rings: HashMap<u64, (RingFiles, usize)>,
    links: links::Table,
    events: Words,
    events_file: OwnedFd,
    free_slots: Vec<u32>,
    null: OwnedFd,
    tasks: Vec<JoinHandle<()>>,
    linking: Linking,
    /// Something happened that may have ended the job.
    over: Rc<Notify>,
}

pub(crate) type Shared = Rc<RefCell<Service>>;

/// What all processes of a job have in common.
struct Template {
    image: Image,
    name: CString,
    directory: CString,
    root_arguments: Vec<CString>,
    root_env: Vec<CString>,
    library_path: Option<CString>,
    root_harness: bool,
}

impl Service {
    /// The part of a job where its root is, and where all is decided.
    pub(crate) fn at_home(
        job: JobId,
        machine: MachineId,
        spec: JobSpec,
        to_scheduler: UnboundedSender<ToScheduler>,
        to_agents: UnboundedSender<(MachineId, FromHome)>,
        output: Sender<Output>,
    ) -> Result<Shared, JobError> {
        let name = spec.image.path.file_name().unwrap_or(OsStr::new("root")).to_string_lossy().into_owned();
        let begin = agent::Begin {
            image: spec.image.id.0.to_vec(),
            name: name.clone(),
            home: machine.0,
            directory: spec.directory.as_os_str().as_bytes().to_vec(),
        };
        let root = state::Launch {
            process: state::child_id(ProcessId(0), 0),
            parent: None,
            name,
            entry: None,
            argument: Vec::new(),
            ends: Vec::new(),
            request: spec.request,
            env: Vec::new(),
            harness: Vec::new(),
            time_limit: None,
            rings: Vec::new(),
        };
        let process_env = spec.process_env.iter().map(|(name, value)| Variable {
            name: name.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
        });
        let state = State::new(job, machine, root, process_env.collect(), spec.wait);
        let home = Home::new(state, machine, begin, to_scheduler, to_agents);
        Service::new(spec, machine, Mind::Here(Box::new(home)), output)
    }

    /// The part of a job on a machine that is not its home; `to_home` hears what happens.
    pub(crate) fn away(
        spec: JobSpec,
        machine: MachineId,
        to_home: UnboundedSender<FromAgent>,
        output: Sender<Output>,
    ) -> Result<Shared, JobError> {
        Service::new(spec, machine, Mind::Elsewhere(to_home), output)
    }

    fn new(
        spec: JobSpec,
        machine: MachineId,
        mind: Mind,
        output: Sender<Output>,
    ) -> Result<Shared, JobError> {
        let system = |what| move |error| JobError::System { what, error };
        prepare()?;
        let slots = PROCESSES_MAX as usize;
        let events_file = segment::create(c"archean-events", slots * EVENT_SLOT_BYTES)
            .map_err(system("making the events file"))?;
        let events = Words::map(events_file.as_fd(), slots, EVENT_SLOT_BYTES, true)
            .map_err(system("mapping the events file"))?;
        let events_file = segment::reopen_read_only(events_file.as_fd())
            .map_err(system("reopening the events file (is /proc mounted?)"))?;
        let null = std::fs::File::open("/dev/null").map_err(system("opening /dev/null"))?.into();
        let template = Template {
            name: c_string(spec.image.path.as_os_str())?,
            image: spec.image,
            directory: c_string(spec.directory.as_os_str())?,
            root_arguments: spec
                .arguments
                .iter()
                .map(|argument| c_string(argument))
                .collect::<Result<_, _>>()?,
            root_env: spec.env.iter().map(|(name, value)| variable(name, value)).collect::<Result<_, _>>()?,
            library_path: spec
                .library_path
                .map(|path| variable(OsStr::new("LD_LIBRARY_PATH"), &path))
                .transpose()?,
            root_harness: spec.harness,
        };
        Ok(Rc::new(RefCell::new(Service {
            overheard: Vec::new(),
            mind,
            machine,
            spec: template,
            output,
            live: BTreeMap::new(),
            rings: HashMap::new(),
            links: links::Table::new(spec.links),
            events,
            events_file,
            free_slots: (0..PROCESSES_MAX).rev().collect(),
            null,
            tasks: Vec::new(),
            linking: Linking::default(),
            over: Rc::new(Notify::new()),
        })))
    }

    /// The machines where the job has agents.
    pub(crate) fn agents(shared: &Shared) -> Vec<MachineId> {
        match &shared.borrow().mind {
            Mind::Here(home) => home.agents().collect(),
            Mind::Elsewhere(_) => Vec::new(),
        }
    }

    /// Whoever waits for the end of the job.
    pub(crate) fn over(&self) -> Rc<Notify> {
        self.over.clone()
    }

    /// Kills all that runs here.
    pub(crate) fn kill_all(shared: &Shared) {
        let mut service = shared.borrow_mut();
        for process in service.live.keys().copied().collect::<Vec<_>>() {
            service.kill(process);
        }
    }

    /// Takes in what comes to the home.
    pub(crate) fn on_event(shared: &Shared, event: Event) {
        let mut service = shared.borrow_mut();
        let Mind::Here(home) = &mut service.mind else { return };
        match event {
            Event::Scheduler(FromScheduler::Place { task, machine }) => {
                home.state.on_place(task.process, machine)
            }
            Event::Scheduler(FromScheduler::Refuse { task, refusal }) => {
                home.state.on_refuse(task.process, refusal.failure(), refusal.to_string());
            }
            Event::Refused { process, failure, text } => home.state.on_refuse(process, failure, text),
            Event::Agent(machine, word) => match words::to_report(word) {
                Ok(Some(report)) => home.on_report(machine, report),
                Ok(None) => {}
                Err(Malformed(what)) => {
                    let why = format!("its manager sent a word without a sensible {what}");
                    home.on_machine_lost(machine, &why);
                }
            },
            Event::MachineLost(machine, why) => home.on_machine_lost(machine, &why),
            Event::Stop(by) => home.state.stop(&by),
        }
        service.hear_all();
        drop(service);
        Service::do_deeds(shared);
    }

    /// Does what the home wants done here; an agent is told by words.
    pub(crate) fn on_word(shared: &Shared, word: FromHome) -> Result<(), Malformed> {
        if let Some(deed) = words::to_deed(word)? {
            Service::do_deed(shared, deed);
        }
        Ok(())
    }

    /// Does what is to be done here, until there is nothing more.
    pub(crate) fn do_deeds(shared: &Shared) {
        loop {
            let deeds = match &mut shared.borrow_mut().mind {
                Mind::Here(home) => home.take_deeds(),
                Mind::Elsewhere(_) => return,
            };
            if deeds.is_empty() {
                break;
            }
            for deed in deeds {
                Service::do_deed(shared, deed);
            }
        }
        let service = shared.borrow();
        if let Mind::Here(home) = &service.mind
            && home.state.is_over()
        {
            service.over.notify_one();
        }
    }

    fn do_deed(shared: &Shared, deed: Deed) {
        let mut service = shared.borrow_mut();
        match deed {
            Deed::Effect(Effect::Schedule(_)) => {}
            Deed::Effect(Effect::Tell { to, word, files }) => {
                if let Err(error) = service.tell_in_turn(to, *word, files) {
                    let what = format!("a word could not be sent: {error}");
                    service.mind.report(Report::Violation(to, what));
                }
            }
            Deed::Effect(Effect::Kill(process)) => service.kill(process),
            Deed::Effect(Effect::FreeRing(ring)) => drop(service.rings.remove(&ring)),
            Deed::Effect(Effect::MakeRing { to, ring, capacity, sender }) => {
                if let Err(error) = service.make_ring(to, ring, capacity, sender, true) {
                    service.mind.report(Report::RingFailed(ring, sender, error.to_string()));
                }
            }
            Deed::Effect(Effect::Launch(launch)) => {
                drop(service);
                Service::launch(shared, &launch);
            }
            Deed::Hear(number) => {
                drop(service);
                Service::read_all(shared);
                shared.borrow_mut().mind.report(Report::Heard(number));
            }
            Deed::Expect(link) => service.connect(link, Side::Receiver),
            Deed::Dial(link) => service.connect(link, Side::Sender),
            Deed::Drain(sender) => service.drain(sender),
        }
    }

    /// How the root ended, or why it was not started, once no process is left.
    pub(crate) fn take_end(shared: &Shared) -> Option<Result<Exit, String>> {
        match &mut shared.borrow_mut().mind {
            Mind::Here(home) => home.state.take_end(),
            Mind::Elsewhere(_) => None,
        }
    }

    fn tell(&mut self, to: ProcessId, mut word: FromManager, files: Files) -> io::Result<()> {
        let files = match files {
            Files::None => Vec::new(),
            Files::Doorbell(process) => vec![self.doorbell(process)?],
            Files::Ring { ring, producer } => {
                let Some((RingFiles { data, consumer }, capacity)) = self.rings.remove(&ring) else {
                    return Ok(());
                };
                if let FromManager::Incoming(word) = &mut word {
                    word.capacity = capacity as u64;
                }
                vec![segment::reopen_read_only(data.as_fd())?, consumer, self.doorbell(producer)?]
            }
        };
        let Some(live) = self.live.get_mut(&to) else { return Ok(()) };
        live.tell(&ToProcess { word: Some(word) }, files);
        live.ring_event(self.events.word(live.slot as usize));
        Ok(())
    }

    /// The doorbell of a process; of one that has ended, one that nobody hears.
    fn doorbell(&self, process: ProcessId) -> io::Result<OwnedFd> {
        match self.live.get(&process) {
            Some(live) => live.doorbell.try_clone(),
            None => segment::create(c"archean-doorbell", Doorbell::BYTES),
        }
    }

    /// Makes a ring for a process, and for one of its senders if one is named.
    fn make_ring(
        &mut self,
        to: ProcessId,
        ring: u64,
        capacity: usize,
        meant_for: Option<EndId>,
        asked: bool,
    ) -> io::Result<()> {
        let files = self.new_ring(ring, capacity)?;
        let sender = meant_for.map(EndId::to_word).unwrap_or_default();
        let word = Ring { ring, capacity: capacity as u64, sender, asked };
        if let Some(live) = self.live.get_mut(&to) {
            live.tell(&ToProcess { word: Some(FromManager::Ring(word)) }, files);
            live.ring_event(self.events.word(live.slot as usize));
        }
        Ok(())
    }

    /// Makes a ring, and gives the files that its producer gets.
    fn new_ring(&mut self, ring: u64, capacity: usize) -> io::Result<Vec<OwnedFd>> {
        let files = RingFiles::create(capacity)?;
        let given = vec![files.data.try_clone()?, segment::reopen_read_only(files.consumer.as_fd())?];
        self.rings.insert(ring, (files, capacity));
        Ok(given)
    }

    fn kill(&mut self, process: ProcessId) {
        if let Some(live) = self.live.get(&process) {
            // It can't fail: the process is a child of ours, and one that has ended is fine.
            let _ = launch::kill(live.pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// A process has ended.
    fn on_ended(shared: &Shared, process: ProcessId, stderr_tail: String) {
        // What it had said before its end still counts.
        while Service::read(shared, process) == Rest::Now {}
        let mut service = shared.borrow_mut();
        let Some(live) = service.live.remove(&process) else { return };
        let (end, user, system, memory_max_bytes) = match launch::reap(live.pid) {
            Ok(Some(reaped)) => (reaped.end, reaped.user, reaped.system, reaped.memory_max_bytes),
            // Nobody else reaps our children; should it happen, the process has ended all the same.
            _ => (
                launch::End::Signalled { signal: libc::SIGKILL, core: false },
                Duration::ZERO,
                Duration::ZERO,
                0,
            ),
        };
        let usage = Usage { wall: live.started.elapsed(), user, system, memory_max_bytes };
        service.free_slots.push(live.slot);
        service.links.on_ended(process);
        let ended = Said::Ended(Box::new((end, usage, stderr_tail)));
        service.mind.report(Report::Said(process, ended));
        service.hear_out(process);
        drop(service);
        Service::do_deeds(shared);
    }

    /// The job is over: ends what its processes have left behind, and waits for the last of their output.
    pub(crate) async fn finish(shared: &Shared, end: Result<Exit, String>) -> Result<JobEnd, JobError> {
        let left = Service::clear(shared).await?;
        let processes = match &shared.borrow().mind {
            Mind::Here(home) => home.state.started(),
            Mind::Elsewhere(_) => 0,
        };
        end.map(|exit| JobEnd { exit, processes, left }).map_err(JobError::Root)
    }

    /// Ends what processes have left behind, and waits for the last of their output. Gives how many can't be ended.
    pub(crate) async fn clear(shared: &Shared) -> Result<usize, JobError> {
        let left = orphans::kill_descendants(LAST_OUTPUT)
            .map_err(|error| JobError::System { what: "ending orphans", error })?;
        let deadline = tokio::time::Instant::now() + LAST_OUTPUT;
        let tasks = std::mem::take(&mut shared.borrow_mut().tasks);
        for task in tasks {
            let abort = task.abort_handle();
            if tokio::time::timeout_at(deadline, task).await.is_err() {
                abort.abort();
            }
        }
        Ok(left)
    }
}

fn c_string(text: &OsStr) -> Result<CString, JobError> {
    CString::new(text.as_bytes()).map_err(|_| JobError::Nul(text.to_string_lossy().into_owned()))
}

fn variable(name: &OsStr, value: &OsStr) -> Result<CString, JobError> {
    let mut text = name.to_owned();
    text.push("=");
    text.push(value);
    c_string(&text)
}
