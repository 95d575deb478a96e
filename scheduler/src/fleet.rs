//! The scheduler of a cluster: members connect, and what they say becomes events of the [`State`].
//!
//! What a manager says of its jobs is true; what the scheduler knows of them is a copy. A manager that is lost is
//! waited for; when it comes back, or when the scheduler is new, it says what runs, and the copy follows.

mod members;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    rc::Rc,
    time::{Duration, SystemTime},
};

use cluster::{Acceptor, Authority, Identity, Incoming, Peer, Revoked};
use protocol::{
    cluster::Revocations,
    fleet::{
        Accepted, Answered, Denied, Host, JobPlaced, JobRefused, Join, Machine, Machines, Runs, Submit,
        Welcome,
    },
    ids::{JobId, MachineId, ProcessId},
    limits::LINK_SILENCE_MAX,
    placement::{Capacity, FromScheduler, Locality, Task, ToScheduler},
    resources::{Cores, Memory, Request},
    runner::{Placed, Refused, Want},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc::UnboundedSender},
    task::spawn_local,
    time::{Instant, interval, sleep, sleep_until},
};
use tracing::{info, warn};

use crate::state::{Event, State};

/// The process that stands for the root of a job, whose real number its home knows.
const ROOT: ProcessId = ProcessId(0);

/// How often the authority is asked which certificates count no longer.
const REVOCATION_INTERVAL: Duration = Duration::from_secs(1);

/// Serves a cluster, for as long as the future lives. To be called in a `LocalSet`.
///
/// # Errors
/// When nobody can be listened to any more.
pub async fn serve(listener: TcpListener, identity: &Identity, authority: Authority) -> io::Result<()> {
    let revoked = Revoked::new(authority.revoked().map_err(io::Error::other)?);
    let acceptor = Acceptor::new(identity, revoked.clone());
    let fleet = Rc::new(RefCell::new(Fleet::new(revoked.clone())));
    spawn_local(tick(fleet.clone()));
    spawn_local(watch_revocations(fleet.clone(), authority.clone()));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            // A connection that ended before it was accepted, or no descriptor left for now.
            Err(error) => {
                warn!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let (acceptor, fleet, authority) = (acceptor.clone(), fleet.clone(), authority.clone());
        spawn_local(async move {
            match acceptor.accept(stream).await {
                Ok(Incoming::Peer(connection)) => members::serve(fleet, authority, connection).await,
                Ok(Incoming::Enrolling(enrolling)) => match enrolling.serve(&authority).await {
                    Ok(Ok(peer)) => info!(%peer, "enrolled"),
                    Ok(Err(why)) => warn!(%address, why, "not enrolled"),
                    Err(error) => warn!(%address, %error, "not enrolled"),
                },
                Err(error) => warn!(%address, %error, "not let in"),
            }
        });
    }
}

type Shared = Rc<RefCell<Fleet>>;

/// All that the scheduler knows.
struct Fleet {
    state: State,
    start: Instant,
    machines: BTreeMap<MachineId, Known>,
    /// The home of each job.
    homes: HashMap<JobId, MachineId>,
    /// Which tasks are known, by the machine of their home.
    tasks: BTreeMap<MachineId, BTreeSet<Task>>,
    /// What is said to run on machines that have not joined yet.
    early: HashMap<MachineId, Vec<(Task, Request)>>,
    /// Clients that wait for the homes of their jobs.
    submitted: HashMap<JobId, Submitted>,
    last_job: u64,
    revoked: Revoked,
    /// What is in it, as the authority lists it.
    serials: Vec<String>,
    /// The next deadline may have changed.
    changed: Rc<Notify>,
}

/// A machine that has joined.
struct Known {
    name: String,
    address: String,
    /// The way to its manager, and which of its connections that is; nothing while it is silent.
    way: Option<(u64, UnboundedSender<Answered>)>,
    /// What it has named since it joined last.
    named: BTreeSet<Task>,
}

struct Submitted {
    client: UnboundedSender<Answered>,
    principal: String,
    request: Request,
}

impl Fleet {
    fn new(revoked: Revoked) -> Fleet {
        Fleet {
            state: State::default(),
            start: Instant::now(),
            machines: BTreeMap::new(),
            homes: HashMap::new(),
            tasks: BTreeMap::new(),
            early: HashMap::new(),
            submitted: HashMap::new(),
            last_job: 0,
            revoked,
            serials: Vec::new(),
            changed: Rc::new(Notify::new()),
        }
    }

    fn step(&mut self, event: Event) {
        let answers = self.state.step(event, self.start.elapsed());
        for answer in answers {
            self.on_answer(answer);
        }
        self.changed.notify_one();
    }

    fn on_answer(&mut self, answer: FromScheduler) {
        let (FromScheduler::Place { task, .. } | FromScheduler::Refuse { task, .. }) = &answer;
        let task = *task;
        if task.process == ROOT
            && let Some(submitted) = self.submitted.remove(&task.job)
        {
            return self.on_submitted(task.job, submitted, answer);
        }
        let Some(home) = self.homes.get(&task.job).copied() else { return };
        let word = match answer {
            FromScheduler::Place { machine, .. } => Answered::Placed(JobPlaced {
                job: task.job.0,
                placed: Some(Placed { process: task.process.0, machine: machine.0 }),
            }),
            FromScheduler::Refuse { refusal, .. } => {
                self.forget(home, task);
                Answered::Refused(JobRefused {
                    job: task.job.0,
                    refused: Some(Refused {
                        process: task.process.0,
                        failure: refusal.failure().into(),
                        text: refusal.to_string(),
                    }),
                })
            }
        };
        self.tell(home, word);
    }

    /// The root of a job is placed, or is not: now the job has a home, or none.
    fn on_submitted(&mut self, job: JobId, submitted: Submitted, answer: FromScheduler) {
        let Submitted { client, principal, request } = submitted;
        match answer {
            FromScheduler::Place { machine, task } => {
                self.homes.insert(job, machine);
                self.tasks.entry(machine).or_default().insert(task);
                let host = Host {
                    job: job.0,
                    principal,
                    cores_shares: request.cores.shares(),
                    memory_bytes: request.memory.bytes(),
                };
                self.tell(machine, Answered::Host(host));
                let machine = self.describe(machine);
                let _ = client.send(Answered::Accepted(Accepted { job: job.0, machine }));
            }
            FromScheduler::Refuse { refusal, .. } => {
                let text = format!("the job's first process can't be placed: {refusal}");
                let _ = client.send(Answered::Denied(Denied { text }));
            }
        }
    }

    fn describe(&self, machine: MachineId) -> Option<Machine> {
        let Known { name, address, .. } = self.machines.get(&machine)?;
        Some(Machine { machine: machine.0, name: name.clone(), address: address.clone() })
    }

    fn tell(&self, machine: MachineId, word: Answered) {
        // One that is silent says again what it wants when it is back.
        if let Some((_, way)) = self.machines.get(&machine).and_then(|known| known.way.as_ref()) {
            let _ = way.send(word);
        }
    }

    fn tell_all_machines(&self) {
        let machines = self.machines.keys().filter_map(|machine| self.describe(*machine)).collect();
        let word = Answered::Machines(Machines { machines });
        for machine in self.machines.keys() {
            self.tell(*machine, word.clone());
        }
    }

    // ---- what managers say

    /// A machine is there, or there again.
    fn on_join(
        &mut self,
        peer: &Peer,
        had: Option<MachineId>,
        address: String,
        capacity: Capacity,
        way: (u64, UnboundedSender<Answered>),
    ) -> Result<MachineId, String> {
        if address.parse::<std::net::SocketAddr>().is_err() {
            return Err(format!("`{address}` is no address of a machine"));
        }
        let by_name = self.machines.iter().find(|(_, known)| known.name == peer.name).map(|(id, _)| *id);
        let is_free = |id: &MachineId| !self.machines.contains_key(id);
        let next = || (1..).map(MachineId).find(is_free).unwrap_or(MachineId(u32::MAX));
        let machine = by_name.or(had.filter(|had| had.0 > 0 && is_free(had))).unwrap_or_else(next);
        let known = Known { name: peer.name.clone(), address, way: Some(way), named: BTreeSet::new() };
        let word = Answered::Welcome(Welcome { machine: machine.0 });
        self.machines.insert(machine, known);
        self.tell(machine, word);
        self.tell(machine, Answered::Revocations(Revocations { serials: self.serials.clone() }));
        self.step(Event::Word(ToScheduler::Join { machine, capacity }));
        for (task, request) in self.early.remove(&machine).unwrap_or_default() {
            self.step(Event::Word(ToScheduler::Runs { task, machine, request }));
        }
        self.tell_all_machines();
        info!(machine = machine.0, name = peer.name, "machine joined");
        Ok(machine)
    }

    fn on_runs(&mut self, home: MachineId, runs: Runs) {
        let task = Task { job: JobId(runs.job), process: ProcessId(runs.process) };
        let machine = MachineId(runs.machine);
        let request =
            Request { cores: Cores::from_shares(runs.cores_shares), memory: Memory(runs.memory_bytes) };
        self.note(home, task);
        if self.machines.contains_key(&machine) {
            self.step(Event::Word(ToScheduler::Runs { task, machine, request }));
        } else {
            self.early.entry(machine).or_default().push((task, request));
        }
    }

    /// A manager has said all that its jobs have; what it did not name is over.
    fn on_joined(&mut self, home: MachineId) {
        let Some(known) = self.machines.get_mut(&home) else { return };
        let named = std::mem::take(&mut known.named);
        let gone: Vec<Task> = self.tasks.get(&home).into_iter().flatten().copied().collect();
        for task in gone.into_iter().filter(|task| !named.contains(task)) {
            self.on_gone(home, task);
        }
    }

    fn on_want(&mut self, home: MachineId, job: JobId, want: &Want) {
        let task = Task { job, process: ProcessId(want.process) };
        let is_known = self.is_of(home, task);
        self.note(home, task);
        if is_known {
            // It is said again after a connection was lost, and with it the answer, if there was one.
            if let Some(machine) = self.state.machine_of(task) {
                self.on_answer(FromScheduler::Place { task, machine });
            }
            return;
        }
        self.step(Event::Word(ToScheduler::Want {
            task,
            request: Request {
                cores: Cores::from_shares(want.cores_shares),
                memory: Memory(want.memory_bytes),
            },
            locality: Locality {
                on: want.on.map(MachineId),
                not: want.not.map(MachineId),
                prefer: want.prefer.map(MachineId),
            },
            deadline: want.deadline_ns.map(Duration::from_nanos),
        }));
    }

    fn on_withdraw(&mut self, home: MachineId, task: Task) {
        if self.is_of(home, task) {
            self.forget(home, task);
            self.step(Event::Word(ToScheduler::Withdraw { task }));
        }
    }

    fn on_gone(&mut self, home: MachineId, task: Task) {
        if self.is_of(home, task) {
            self.forget(home, task);
            self.step(Event::Word(ToScheduler::Ended { task }));
        }
    }

    fn is_of(&self, home: MachineId, task: Task) -> bool {
        self.tasks.get(&home).is_some_and(|tasks| tasks.contains(&task))
    }

    fn note(&mut self, home: MachineId, task: Task) {
        self.homes.insert(task.job, home);
        self.tasks.entry(home).or_default().insert(task);
        if let Some(known) = self.machines.get_mut(&home) {
            known.named.insert(task);
        }
    }

    fn forget(&mut self, home: MachineId, task: Task) {
        if let Some(tasks) = self.tasks.get_mut(&home) {
            tasks.remove(&task);
        }
        // A job is over with its root.
        if task.process == ROOT {
            self.homes.remove(&task.job);
        }
    }

    /// A connection of a manager is lost. `true` if it was the one in use.
    fn on_silent(&mut self, machine: MachineId, connection: u64) -> bool {
        let Some(known) = self.machines.get_mut(&machine) else { return false };
        let is_current = known.way.as_ref().is_some_and(|(current, _)| *current == connection);
        if is_current {
            known.way = None;
            self.step(Event::Silent(machine));
        }
        is_current
    }

    /// A machine has been silent for long enough.
    fn on_lost(&mut self, machine: MachineId) {
        if self.machines.get(&machine).is_none_or(|known| known.way.is_some()) {
            return;
        }
        warn!(machine = machine.0, "machine lost");
        self.machines.remove(&machine);
        // The jobs that had their homes there are over.
        for task in self.tasks.remove(&machine).unwrap_or_default() {
            self.homes.remove(&task.job);
            self.step(Event::Word(ToScheduler::Withdraw { task }));
        }
        self.step(Event::Word(ToScheduler::Leave { machine }));
        self.tell_all_machines();
    }

    // ---- what clients say

    fn on_submit(&mut self, principal: &Peer, submit: &Submit, client: UnboundedSender<Answered>) -> JobId {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Also after a restart no number comes twice.
        self.last_job = (since.as_millis() as u64).max(self.last_job + 1);
        let job = JobId(self.last_job);
        let request =
            Request { cores: Cores::from_shares(submit.cores_shares), memory: Memory(submit.memory_bytes) };
        info!(job = job.0, name = submit.name, principal = principal.name, "job submitted");
        let principal = principal.name.clone();
        self.submitted.insert(job, Submitted { client, principal, request });
        let task = Task { job, process: ROOT };
        let locality = Locality::default();
        self.step(Event::Word(ToScheduler::Want { task, request, locality, deadline: None }));
        job
    }

    /// A client is gone. Its job, if it has no home yet, is not wanted any more.
    fn on_client_gone(&mut self, job: JobId) {
        if self.submitted.remove(&job).is_some() {
            self.step(Event::Word(ToScheduler::Withdraw { task: Task { job, process: ROOT } }));
        }
    }
}

/// Lets deadlines pass.
async fn tick(fleet: Shared) {
    let changed = fleet.borrow().changed.clone();
    loop {
        let start = fleet.borrow().start;
        // A deadline that the clock can't express never comes.
        let deadline = fleet.borrow().state.next_deadline().and_then(|deadline| start.checked_add(deadline));
        match deadline {
            Some(deadline) => tokio::select! {
                () = sleep_until(deadline) => fleet.borrow_mut().step(Event::Tick),
                () = changed.notified() => {}
            },
            None => changed.notified().await,
        }
    }
}

/// Sees what the authority has revoked, also by another process, and tells the managers.
async fn watch_revocations(fleet: Shared, authority: Authority) {
    let mut interval = interval(REVOCATION_INTERVAL);
    loop {
        interval.tick().await;
        let serials = match authority.revoked() {
            Ok(serials) => serials,
            Err(error) => {
                warn!(%error, "the list of revoked certificates can't be read");
                continue;
            }
        };
        let mut fleet = fleet.borrow_mut();
        if fleet.serials != serials {
            fleet.serials = serials.clone();
            fleet.revoked.set(serials.clone());
            for machine in fleet.machines.keys() {
                fleet.tell(*machine, Answered::Revocations(Revocations { serials: serials.clone() }));
            }
        }
    }
}

/// Waits until a machine that is silent is lost, or is back.
async fn await_loss(fleet: Shared, machine: MachineId) {
    sleep(LINK_SILENCE_MAX).await;
    fleet.borrow_mut().on_lost(machine);
}

fn capacity_of(join: &Join) -> Capacity {
    Capacity {
        cores: Cores::from_shares(join.cores_shares),
        memory: Memory(join.memory_bytes),
        processes: join.processes,
    }
}
