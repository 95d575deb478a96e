//! What a manager knows of one job; a pure state machine.
//!
//! Words from processes, answers of the scheduler and ends of processes come in, effects go out. There is no clock
//! and no system call here.

mod connect;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use protocol::{
    control::{
        Ended, EndingWord, ExitWord, Finished, FromManager, FromProcess, Incoming, Malformed, NotSpawned,
        OverWord, Paired, ReceiverOver, SenderOver, Spawn, SpawnFailure, Spawned, Variable,
    },
    ending::{Cause, Ending, Exit, Over, Usage},
    ids::{EndId, JobId, MachineId, ProcessId},
    limits::{
        ARGUMENT_BYTES_MAX, ENDS_MAX, ENV_BYTES_MAX, ENV_VARIABLES_MAX, NAME_BYTES_MAX, RING_BYTES_DEFAULT,
        SPARE_RINGS, TEXT_BYTES_MAX, UNUSED_RINGS_MAX,
    },
    placement::{Locality, Task, ToScheduler},
    resources::{Cores, Memory, Request},
};

use crate::{
    launch::End,
    wiring::{self, Package, Wiring},
};
use connect::{Connection, EndedLately, not_accepted};

/// What has to be done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Tell a process.
    Tell { to: ProcessId, word: Box<FromManager>, files: Files },
    /// Tell the scheduler.
    Schedule(ToScheduler),
    /// Start a process, with these rings.
    Launch(Box<Launch>),
    /// Kill a process.
    Kill(ProcessId),
    /// Make a ring and give it to its process; `sender` waits for it.
    MakeRing { to: ProcessId, ring: u64, capacity: usize, sender: Option<EndId> },
    /// Give a ring's files up.
    FreeRing(u64),
}

/// The files that go along with a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Files {
    None,
    /// The doorbell of that process.
    Doorbell(ProcessId),
    /// A ring, for its consumer, and the doorbell of its producer; the ring is given up after that.
    Ring {
        ring: u64,
        producer: ProcessId,
    },
}

/// What is needed to start a process.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) process: ProcessId,
    pub(crate) parent: Option<ProcessId>,
    pub(crate) name: String,
    pub(crate) entry: Option<u64>,
    pub(crate) argument: Vec<u8>,
    pub(crate) ends: Vec<u8>,
    pub(crate) request: Request,
    pub(crate) env: Vec<Variable>,
    pub(crate) harness: Vec<String>,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) rings: Vec<NewRing>,
}

/// A ring that a process is given when it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NewRing {
    pub(crate) ring: u64,
    pub(crate) capacity: usize,
    /// The sender in its arguments that it is meant for.
    pub(crate) sender: Option<EndId>,
}

/// The record of one process.
#[derive(Debug)]
struct Process {
    parent: Option<ProcessId>,
    name: String,
    /// Where it is, once it is placed.
    machine: Option<MachineId>,
    /// The parent's name for the spawn.
    request: u64,
    /// What to start, until it is started.
    waiting: Option<Box<Launch>>,
    /// It can be told something.
    runs: bool,
    detached: bool,
    /// It is being killed, and this is how it will have ended.
    killing: Option<Ending>,
    /// It did not keep to the rules, or is lost with its machine: however it ended then, this is why.
    verdict: Option<Ending>,
    last_words: Option<Ending>,
    finished: Option<Finished>,
    /// The first death that this process heard of.
    bereaved: Option<Cause>,
    wanted_rings: VecDeque<(EndId, usize)>,
    unused_rings: usize,
    /// What it has not accepted yet.
    connections: BTreeMap<u64, Connection>,
}

/// A ring that no sender writes yet.
#[derive(Clone, Copy, Debug)]
struct Unused {
    owner: ProcessId,
    /// It was given ahead of need, and is to be replaced when it is used.
    spare: bool,
    /// The sender that it is meant for.
    sender: Option<EndId>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct State {
    processes: BTreeMap<ProcessId, Process>,
    wiring: Wiring,
    /// Rings that no sender writes yet.
    unused: BTreeMap<u64, Unused>,
    /// Those of them that are meant for one sender.
    meant: BTreeMap<EndId, u64>,
    rings: u64,
    job: JobId,
    connections: u64,
    ended_lately: EndedLately,
    root: ProcessId,
    root_exit: Option<Exit>,
    root_refused: Option<String>,
    wait: bool,
    stopping: Option<String>,
    started: u64,
    process_env: Vec<Variable>,
    effects: Vec<Effect>,
}

/// The id of a parent's `index`th spawn.
pub(crate) fn child_id(parent: ProcessId, index: u64) -> ProcessId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&parent.0.to_le_bytes());
    bytes[8..].copy_from_slice(&index.to_le_bytes());
    let hash = blake3::hash(&bytes);
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    ProcessId(u64::from_le_bytes(*first))
}

impl State {
    /// A job whose root asks for `request`. With `wait`, it lasts until its last process has ended, and not only
    /// until its root has.
    pub(crate) fn new(
        job: JobId,
        home: MachineId,
        root: Launch,
        process_env: Vec<Variable>,
        wait: bool,
    ) -> State {
        let id = root.process;
        let mut state = State {
            processes: BTreeMap::new(),
            wiring: Wiring::default(),
            unused: BTreeMap::new(),
            meant: BTreeMap::new(),
            rings: 0,
            job,
            connections: 0,
            ended_lately: EndedLately::default(),
            root: id,
            root_exit: None,
            root_refused: None,
            wait,
            stopping: None,
            started: 0,
            process_env,
            effects: Vec::new(),
        };
        let here = Locality { on: Some(home), ..Locality::default() };
        state.want(root, 0, here, None);
        state
    }

    /// What has to be done, in this order.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// How the root ended, or why it was not started, once no process is left.
    pub(crate) fn take_end(&mut self) -> Option<Result<Exit, String>> {
        if !self.is_over() {
            return None;
        }
        match self.root_refused.take() {
            Some(refused) => Some(Err(refused)),
            None => self.root_exit.take().map(Ok),
        }
    }

    /// Whether no process is left.
    pub(crate) fn is_over(&self) -> bool {
        self.processes.is_empty()
    }

    /// How many processes were started.
    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    fn want(&mut self, launch: Launch, request: u64, locality: Locality, deadline: Option<Duration>) {
        let process = launch.process;
        let record = Process {
            parent: launch.parent,
            name: launch.name.clone(),
            machine: None,
            request,
            runs: false,
            detached: false,
            killing: None,
            verdict: None,
            last_words: None,
            finished: None,
            bereaved: None,
            wanted_rings: VecDeque::new(),
            unused_rings: 0,
            connections: BTreeMap::new(),
            waiting: None,
        };
        let want =
            ToScheduler::Want { task: self.task(process), request: launch.request, locality, deadline };
        self.processes.insert(process, Process { waiting: Some(Box::new(launch)), ..record });
        self.effects.push(Effect::Schedule(want));
    }

    // ---- what processes say

    /// Takes in a word. An error means that the process does not keep to the rules, and is to be killed.
    pub(crate) fn on_word(&mut self, process: ProcessId, word: FromProcess) -> Result<(), Malformed> {
        if !self.processes.contains_key(&process) {
            return Ok(());
        }
        let mut effects = Vec::new();
        match word {
            FromProcess::Hello(_) => {}
            FromProcess::Spawn(spawn) => self.on_spawn(process, spawn)?,
            FromProcess::CancelSpawn(number) => self.on_cancel(process, number.number),
            FromProcess::Kill(number) => {
                let by = format!("its parent, {}", self.describe(process));
                if self.is_child(process, ProcessId(number.number)) {
                    self.kill(ProcessId(number.number), Ending::Killed { by });
                }
            }
            FromProcess::Detach(number) => {
                if self.is_child(process, ProcessId(number.number))
                    && let Some(child) = self.processes.get_mut(&ProcessId(number.number))
                {
                    child.detached = true;
                }
            }
            FromProcess::Declare(word) => {
                self.check_ends()?;
                let (receiver, sender) = (EndId::from_word(&word.receiver)?, EndId::from_word(&word.sender)?);
                self.wiring.on_declare(process, receiver, sender, check_capacity(word.capacity)?);
            }
            FromProcess::Clone(word) => {
                self.check_ends()?;
                let (sender, clone) = (EndId::from_word(&word.sender)?, EndId::from_word(&word.clone)?);
                self.wiring.on_clone(process, sender, clone);
            }
            FromProcess::OpenSender(word) => {
                let sender = EndId::from_word(&word.sender)?;
                if self.unused.get(&word.ring).is_none_or(|unused| unused.owner != process) {
                    return Err(Malformed("ring of its own"));
                }
                if let Some(Unused { spare: true, .. }) = self.take_unused(word.ring) {
                    self.give_ring(process, RING_BYTES_DEFAULT, None);
                }
                self.give_rings(process);
                self.wiring.on_open_sender(process, sender, word.ring, &mut effects);
            }
            FromProcess::OpenReceiver(word) => {
                self.wiring.on_open_receiver(process, EndId::from_word(&word.end)?, &mut effects);
            }
            FromProcess::Close(word) => {
                let over = match word.reason {
                    None => Over::Closed,
                    Some(reason) => Over::Reset { reason: cut(reason) },
                };
                let end = EndId::from_word(&word.end)?;
                self.forget_sender(process, end);
                self.wiring.on_close(process, end, over, &mut effects);
            }
            FromProcess::Transfer(word) => {
                let (via, ends) = (EndId::from_word(&word.via)?, EndId::list_from_word(&word.ends)?);
                ends.iter().for_each(|end| self.forget_sender(process, *end));
                self.wiring.on_transfer(process, via, &ends, &mut effects);
            }
            FromProcess::Adopt(word) => {
                // Ends that it does not hold stay where they are, and are of no use to it.
                let _ = self.wiring.on_adopt(process, &EndId::list_from_word(&word.ends)?);
            }
            FromProcess::Discard(word) => {
                let ends = EndId::list_from_word(&word.ends)?;
                let _ = self.wiring.on_discard(process, &ends, &mut effects);
            }
            FromProcess::NeedRing(word) => {
                self.on_need_ring(process, EndId::from_word(&word.sender)?, check_capacity(word.capacity)?)?;
            }
            FromProcess::LastWords(word) => {
                let ending = Ending::Panicked { message: cut(word.message), location: cut(word.location) };
                self.record(process, |record| record.last_words = Some(ending));
            }
            FromProcess::Finished(word) => self.on_finished(process, word)?,
            FromProcess::Connect(word) => self.on_connect(process, word)?,
            FromProcess::Accept(word) => self.on_accept(process, word.number),
        }
        self.run_wiring(effects);
        Ok(())
    }

    /// Who has to be heard before that word of a process can be taken in.
    pub(crate) fn unheard(&self, process: ProcessId, word: &FromProcess) -> Option<ProcessId> {
        let (FromProcess::Adopt(word) | FromProcess::Discard(word)) = word else { return None };
        let ends = EndId::list_from_word(&word.ends).ok()?;
        ends.into_iter().find_map(|end| self.wiring.unheard(process, end))
    }

    /// A process does not keep to the rules.
    pub(crate) fn on_violation(&mut self, process: ProcessId, what: &str) {
        let ending = Ending::Killed { by: format!("the manager: {what}") };
        self.record(process, |record| {
            record.verdict.get_or_insert_with(|| ending.clone());
        });
        self.kill(process, ending);
    }

    fn on_spawn(&mut self, parent: ProcessId, spawn: Spawn) -> Result<(), Malformed> {
        let ends = EndId::list_from_word(&spawn.ends)?;
        let (request, process) = (spawn.request, child_id(parent, spawn.index));
        let refuse = |state: &mut State, failure: SpawnFailure, text: String| {
            let word = NotSpawned { request, failure: failure.into(), text };
            state.tell(parent, FromManager::NotSpawned(word));
            Ok(())
        };
        if let Some(stopping) = &self.stopping {
            let text = format!("the job is ending: {stopping}");
            return refuse(self, SpawnFailure::Stopping, text);
        }
        if let Err(text) = check_spawn(&spawn) {
            return refuse(self, SpawnFailure::Invalid, text);
        }
        if self.processes.contains_key(&process) {
            return refuse(self, SpawnFailure::Invalid, format!("a process {process} exists already"));
        }
        let locality = match self.locality(parent, &spawn) {
            Ok(locality) => locality,
            Err(text) => return refuse(self, SpawnFailure::Invalid, text),
        };
        let (mut effects, package) = (Vec::new(), Package::Arguments(process));
        ends.iter().for_each(|end| self.forget_sender(parent, *end));
        let packed = self.wiring.pack(parent, &ends, package, &mut effects);
        self.run_wiring(effects);
        if let Err(wiring::NotHeld(end)) = packed {
            let text = format!("the channel end {end} in the arguments was used, or is not this process's");
            return refuse(self, SpawnFailure::Invalid, text);
        }
        let mut env = self.process_env.clone();
        env.retain(|variable| spawn.env.iter().all(|other| other.name != variable.name));
        env.extend(spawn.env);
        let launch = Launch {
            process,
            parent: Some(parent),
            name: spawn.name,
            entry: Some(spawn.entry),
            argument: spawn.argument,
            ends: spawn.ends,
            request: Request {
                cores: Cores::from_shares(spawn.cores_shares),
                memory: Memory(spawn.memory_bytes),
            },
            env,
            harness: spawn.harness,
            time_limit: spawn.time_limit_ns.map(Duration::from_nanos),
            rings: Vec::new(),
        };
        self.want(launch, request, locality, spawn.deadline_ns.map(Duration::from_nanos));
        Ok(())
    }

    /// Where a process may be.
    fn locality(&self, parent: ProcessId, spawn: &Spawn) -> Result<Locality, String> {
        let machine_of = |process: u64| {
            let process = ProcessId(process);
            let unknown =
                || format!("process {process} has no machine: it has not started yet, or has ended");
            self.machine_of(process).ok_or_else(unknown)
        };
        Ok(Locality {
            on: spawn.near.map(machine_of).transpose()?,
            not: spawn.apart_from.map(machine_of).transpose()?,
            prefer: self.machine_of(parent),
        })
    }

    /// Where a process is, if it is placed.
    pub(crate) fn machine_of(&self, process: ProcessId) -> Option<MachineId> {
        self.processes.get(&process)?.machine
    }

    const fn task(&self, process: ProcessId) -> Task {
        Task { job: self.job, process }
    }

    fn on_cancel(&mut self, parent: ProcessId, request: u64) {
        let child = self.processes.iter().find(|(_, c)| c.parent == Some(parent) && c.request == request);
        let Some((child, record)) = child.map(|(id, record)| (*id, record)) else { return };
        if record.waiting.is_some() {
            self.withdraw(child);
        } else {
            let by = format!("its parent, {}, which gave the spawn up", self.describe(parent));
            self.record(child, |record| record.detached = true);
            self.kill(child, Ending::Killed { by });
        }
    }

    fn on_finished(&mut self, process: ProcessId, word: Finished) -> Result<(), Malformed> {
        let ends = EndId::list_from_word(&word.ends)?;
        if word.result.len() > ARGUMENT_BYTES_MAX {
            return Err(Malformed("result within the limit"));
        }
        if self.processes.get(&process).is_none_or(|record| record.finished.is_some()) {
            return Err(Malformed("second end"));
        }
        // Ends that are not there are not in the result either; the parent finds them closed.
        let mut effects = Vec::new();
        let _ = self.wiring.pack(process, &ends, Package::Result(process), &mut effects);
        self.run_wiring(effects);
        self.record(process, |record| record.finished = Some(word));
        Ok(())
    }

    fn check_ends(&self) -> Result<(), Malformed> {
        if self.wiring.len() < ENDS_MAX { Ok(()) } else { Err(Malformed("number of channel ends")) }
    }

    // ---- rings

    fn on_need_ring(&mut self, process: ProcessId, sender: EndId, capacity: usize) -> Result<(), Malformed> {
        if self.meant.contains_key(&sender) || self.wiring.is_open(sender) {
            // One is on its way, or was there already; its receiver may have it already, and would wait at it while another is written.
            return Ok(());
        }
        let Some(record) = self.processes.get_mut(&process) else { return Ok(()) };
        if record.wanted_rings.len() >= ENDS_MAX {
            return Err(Malformed("number of rings"));
        }
        record.wanted_rings.push_back((sender, capacity));
        self.give_rings(process);
        Ok(())
    }

    fn give_rings(&mut self, process: ProcessId) {
        while let Some(record) = self.processes.get_mut(&process)
            && record.unused_rings < UNUSED_RINGS_MAX
            && let Some((sender, capacity)) = record.wanted_rings.pop_front()
        {
            self.give_ring(process, capacity, Some(sender));
        }
    }

    fn give_ring(&mut self, to: ProcessId, capacity: usize, sender: Option<EndId>) {
        let ring = self.new_ring(to, sender.is_none(), sender);
        self.effects.push(Effect::MakeRing { to, ring, capacity, sender });
    }

    fn new_ring(&mut self, owner: ProcessId, spare: bool, sender: Option<EndId>) -> u64 {
        self.rings += 1;
        self.unused.insert(self.rings, Unused { owner, spare, sender });
        self.meant.extend(sender.map(|sender| (sender, self.rings)));
        self.record(owner, |record| record.unused_rings += 1);
        self.rings
    }

    /// A ring is used, or is none any more.
    fn take_unused(&mut self, ring: u64) -> Option<Unused> {
        let unused = self.unused.remove(&ring)?;
        self.record(unused.owner, |record| record.unused_rings = record.unused_rings.saturating_sub(1));
        if let Some(sender) = unused.sender {
            self.meant.remove(&sender);
        }
        Some(unused)
    }

    /// A sender is closed, or moves away: it needs no ring here any more.
    fn forget_sender(&mut self, process: ProcessId, sender: EndId) {
        self.record(process, |record| record.wanted_rings.retain(|(wanting, _)| *wanting != sender));
        let Some(ring) = self.meant.get(&sender).copied() else { return };
        if self.unused.get(&ring).is_some_and(|unused| unused.owner == process) {
            self.take_unused(ring);
            self.effects.push(Effect::FreeRing(ring));
            self.give_rings(process);
        }
    }

    /// A ring could not be made.
    pub(crate) fn on_ring_failed(&mut self, ring: u64, sender: Option<EndId>, text: &str) {
        let Some(Unused { owner: process, .. }) = self.take_unused(ring) else { return };
        if let Some(sender) = sender {
            let over = Over::Reset { reason: format!("no ring can be made: {text}") };
            let word = ReceiverOver { sender: sender.to_word(), over: Some(OverWord::from(&over)) };
            self.tell(process, FromManager::ReceiverOver(word));
        }
    }

    // ---- what the scheduler says

    /// A process was placed.
    pub(crate) fn on_place(&mut self, process: ProcessId, machine: MachineId) {
        let Some(record) = self.processes.get_mut(&process) else { return };
        // Without, it was withdrawn meanwhile, and its reservation with it.
        let Some(mut launch) = record.waiting.take() else { return };
        record.machine = Some(machine);
        // Rings for the senders in the arguments, then spares for whatever comes.
        for (sender, capacity) in
            self.wiring.senders_in(Package::Arguments(process)).into_iter().take(SPARE_RINGS)
        {
            let ring = self.new_ring(process, true, Some(sender));
            launch.rings.push(NewRing { ring, capacity, sender: Some(sender) });
        }
        while launch.rings.len() < SPARE_RINGS {
            let ring = self.new_ring(process, true, None);
            launch.rings.push(NewRing { ring, capacity: RING_BYTES_DEFAULT, sender: None });
        }
        self.effects.push(Effect::Launch(launch));
    }

    /// A process will not be placed.
    pub(crate) fn on_refuse(&mut self, process: ProcessId, failure: SpawnFailure, text: String) {
        self.not_spawned(process, failure, text);
    }

    /// A process runs.
    pub(crate) fn on_launched(&mut self, process: ProcessId, rings: &[NewRing]) {
        self.started += 1;
        self.wiring.unpack(Package::Arguments(process), process);
        let mut effects = Vec::new();
        for NewRing { ring, sender, .. } in rings {
            if let Some(sender) = sender {
                self.wiring.on_reserve(process, *sender, *ring, &mut effects);
            }
        }
        self.run_wiring(effects);
        let Some(record) = self.processes.get_mut(&process) else { return };
        record.runs = true;
        if let Some(parent) = record.parent {
            let word = Spawned { request: record.request, process: process.0 };
            self.tell(parent, FromManager::Spawned(word));
        }
        self.tell_connections(process);
        if let Some(stopping) = self.stopping.clone() {
            self.kill(process, Ending::Killed { by: stopping });
        }
    }

    /// A process could not be started.
    pub(crate) fn on_launch_failed(&mut self, process: ProcessId, text: String) {
        self.effects.push(Effect::Schedule(ToScheduler::Ended { task: self.task(process) }));
        self.not_spawned(process, SpawnFailure::Launch, text);
    }

    fn not_spawned(&mut self, process: ProcessId, failure: SpawnFailure, text: String) {
        let Some(record) = self.processes.remove(&process) else { return };
        self.free_unused(process);
        self.lose_connections(&record, "the process was not started");
        match record.parent {
            Some(parent) if self.processes.contains_key(&parent) => {
                self.wiring.unpack(Package::Arguments(process), parent);
                let word = NotSpawned { request: record.request, failure: failure.into(), text };
                self.tell(parent, FromManager::NotSpawned(word));
            }
            Some(_) => self.lose(Package::Arguments(process), "the process was not started"),
            None => self.root_refused = Some(text),
        }
    }

    /// Gives a process up that has not been started.
    fn withdraw(&mut self, process: ProcessId) {
        if let Some(record) = self.processes.remove(&process) {
            self.lose_connections(&record, "the spawn was given up");
        }
        self.effects.push(Effect::Schedule(ToScheduler::Withdraw { task: self.task(process) }));
        self.lose(Package::Arguments(process), "the spawn was given up");
    }

    fn lose(&mut self, package: Package, reason: &str) {
        let mut effects = Vec::new();
        let over = Over::Reset { reason: reason.to_owned() };
        self.wiring.on_package_lost(package, &over, &mut effects);
        self.run_wiring(effects);
    }

    // ---- ends

    /// A process has run as long as it may.
    pub(crate) fn on_time_limit(&mut self, process: ProcessId, limit: Duration) {
        self.kill(process, Ending::TimedOut { limit });
    }

    /// A machine is lost, and with it all that ran there.
    pub(crate) fn on_machine_lost(&mut self, machine: MachineId, why: &str) {
        let there = |(_, record): &(&ProcessId, &Process)| record.machine == Some(machine);
        let lost = self.processes.iter().filter(there).map(|(id, record)| (*id, record.runs));
        for (process, is_launched) in lost.collect::<Vec<_>>() {
            let text = format!("machine {machine}: {why}");
            if !is_launched {
                self.on_launch_failed(process, text);
                continue;
            }
            self.record(process, |record| record.verdict = Some(Ending::MachineLost { text }));
            let end = End::Signalled { signal: libc::SIGKILL, core: false };
            self.on_ended(process, end, Usage::default(), String::new());
        }
    }

    /// The job has to end.
    pub(crate) fn stop(&mut self, by: &str) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(by.to_owned());
        for process in self.processes.keys().copied().collect::<Vec<_>>() {
            if self.processes[&process].waiting.is_some() {
                let text = format!("the job is ending: {by}");
                self.effects.push(Effect::Schedule(ToScheduler::Withdraw { task: self.task(process) }));
                self.not_spawned(process, SpawnFailure::Stopping, text);
            } else {
                self.kill(process, Ending::Killed { by: by.to_owned() });
            }
        }
    }

    fn kill(&mut self, process: ProcessId, ending: Ending) {
        if let Some(record) = self.processes.get_mut(&process).filter(|record| record.killing.is_none()) {
            record.killing = Some(ending);
            self.effects.push(Effect::Kill(process));
        }
    }

    /// A process has ended, and all that it had said was taken in.
    pub(crate) fn on_ended(&mut self, process: ProcessId, status: End, usage: Usage, stderr_tail: String) {
        let Some(record) = self.processes.remove(&process) else { return };
        self.effects.push(Effect::Schedule(ToScheduler::Ended { task: self.task(process) }));
        self.free_unused(process);
        let (ending, result, ends) = ending_of(&record, status);
        let cause = if ending.is_success() { None } else { record.bereaved };
        let exit = Exit { process, name: record.name, ending, usage, stderr_tail, cause };
        let own = Cause { process, name: exit.name.clone(), ending: exit.ending.clone() };
        let first = exit.cause.clone().unwrap_or_else(|| own.clone());

        for child in self.waiting_children(process) {
            self.withdraw(child);
        }
        let mut effects = Vec::new();
        let not_accepted = not_accepted(&own);
        for connection in record.connections.keys() {
            self.wiring.on_package_lost(Package::Connection(*connection), &not_accepted, &mut effects);
        }
        self.wiring.on_death(&own, &mut effects);
        self.ended_lately.add(own.clone());
        if !own.ending.is_success() {
            let told = effects.iter().filter_map(|effect| match effect {
                wiring::Effect::SenderOver { to, over: Over::Died(_), .. }
                | wiring::Effect::ReceiverOver { to, over: Over::Died(_), .. } => Some(*to),
                _ => None,
            });
            told.collect::<Vec<_>>().into_iter().for_each(|to| self.bereave(to, &first));
        }
        self.run_wiring(effects);

        match record.parent {
            Some(parent) if !record.detached && self.processes.contains_key(&parent) => {
                if !own.ending.is_success() {
                    self.bereave(parent, &first);
                }
                self.wiring.unpack(Package::Result(process), parent);
                let word = Ended { exit: Some(ExitWord::from(&exit)), result, ends };
                self.tell(parent, FromManager::Ended(word));
            }
            _ => self.lose(Package::Result(process), "nobody asked for the result that it was in"),
        }
        if process == self.root {
            self.root_exit = Some(exit);
            if !self.wait {
                self.stop("the end of the job's root process");
            }
        }
    }

    fn bereave(&mut self, process: ProcessId, cause: &Cause) {
        self.record(process, |record| {
            record.bereaved.get_or_insert_with(|| cause.clone());
        });
    }

    fn waiting_children(&self, parent: ProcessId) -> Vec<ProcessId> {
        let waiting =
            |(_, child): &(&ProcessId, &Process)| child.parent == Some(parent) && child.waiting.is_some();
        self.processes.iter().filter(waiting).map(|(id, _)| *id).collect()
    }

    fn free_unused(&mut self, process: ProcessId) {
        let owned = |(_, unused): &(&u64, &Unused)| unused.owner == process;
        for ring in self.unused.iter().filter(owned).map(|(ring, _)| *ring).collect::<Vec<_>>() {
            self.take_unused(ring);
            self.effects.push(Effect::FreeRing(ring));
        }
    }

    // ---- small things

    fn record(&mut self, process: ProcessId, change: impl FnOnce(&mut Process)) {
        if let Some(record) = self.processes.get_mut(&process) {
            change(record);
        }
    }

    fn is_child(&self, parent: ProcessId, child: ProcessId) -> bool {
        self.processes.get(&child).is_some_and(|record| record.parent == Some(parent))
    }

    fn describe(&self, process: ProcessId) -> String {
        match self.processes.get(&process) {
            Some(record) => format!("{} ({process})", record.name),
            None => process.to_string(),
        }
    }

    fn tell(&mut self, to: ProcessId, word: FromManager) {
        self.effects.push(Effect::Tell { to, word: Box::new(word), files: Files::None });
    }

    fn run_wiring(&mut self, effects: Vec<wiring::Effect>) {
        for effect in effects {
            let (to, word, files) = match effect {
                wiring::Effect::FreeRing(ring) => {
                    self.effects.push(Effect::FreeRing(ring));
                    continue;
                }
                wiring::Effect::Paired { to, sender, receiver_in } => {
                    let word = Paired { sender: sender.to_word(), process: receiver_in.0 };
                    (to, FromManager::Paired(word), Files::Doorbell(receiver_in))
                }
                wiring::Effect::Incoming { to, receiver, sender, ring, sender_in } => {
                    let word = Incoming {
                        receiver: receiver.to_word(),
                        sender: sender.to_word(),
                        // The service knows the ring.
                        capacity: 0,
                        process: sender_in.0,
                    };
                    (to, FromManager::Incoming(word), Files::Ring { ring, producer: sender_in })
                }
                wiring::Effect::SenderOver { to, receiver, sender, over, last } => {
                    let lost = matches!(&over, Over::Died(cause) if cause.ending.is_lost());
                    let word = SenderOver {
                        receiver: receiver.to_word(),
                        sender: sender.to_word(),
                        over: Some(OverWord::from(&over)),
                        last,
                        lost,
                    };
                    (to, FromManager::SenderOver(word), Files::None)
                }
                wiring::Effect::ReceiverOver { to, sender, over } => {
                    let word = ReceiverOver { sender: sender.to_word(), over: Some(OverWord::from(&over)) };
                    (to, FromManager::ReceiverOver(word), Files::None)
                }
            };
            self.effects.push(Effect::Tell { to, word: Box::new(word), files });
        }
    }
}

/// How a process ended, and its result if it returned.
fn ending_of(record: &Process, status: End) -> (Ending, Vec<u8>, Vec<u8>) {
    let nothing = |ending| (ending, Vec::new(), Vec::new());
    if let Some(verdict) = &record.verdict {
        return nothing(verdict.clone());
    }
    if let (End::Signalled { signal: libc::SIGKILL, .. }, Some(killing)) = (status, &record.killing) {
        return nothing(killing.clone());
    }
    let finished = record.finished.as_ref();
    let told = finished.and_then(|word| word.ending.clone()).and_then(|word: EndingWord| {
        // Its texts go on to others, in words that have limits.
        let word = EndingWord { text: cut(word.text), location: cut(word.location), ..word };
        word.try_into().ok()
    });
    match (status, told) {
        (End::Exited(0), Some(Ending::Returned)) => {
            let word = finished.cloned().unwrap_or_default();
            (Ending::Returned, word.result, word.ends)
        }
        (End::Exited(_), Some(told)) if told != Ending::Returned => nothing(told),
        (End::Exited(PANIC_CODE) | End::Signalled { signal: libc::SIGABRT, .. }, _)
            if record.last_words.is_some() =>
        {
            nothing(record.last_words.clone().unwrap_or(Ending::Returned))
        }
        (End::Exited(code), _) => nothing(Ending::Exited { code }),
        (End::Signalled { signal, core }, _) => nothing(Ending::Signalled { signal, core }),
    }
}

/// What the standard library exits with after a panic.
const PANIC_CODE: i32 = 101;

fn check_spawn(spawn: &Spawn) -> Result<(), String> {
    if spawn.argument.len() > ARGUMENT_BYTES_MAX {
        let bytes = spawn.argument.len();
        return Err(format!("arguments of {bytes} bytes are over the limit of {ARGUMENT_BYTES_MAX}"));
    }
    if spawn.name.len() > NAME_BYTES_MAX || spawn.name.chars().any(char::is_control) {
        return Err(format!("a name has at most {NAME_BYTES_MAX} bytes and no control characters"));
    }
    let bytes: usize = spawn.env.iter().map(|variable| variable.name.len() + variable.value.len()).sum();
    if spawn.env.len() > ENV_VARIABLES_MAX || bytes > ENV_BYTES_MAX {
        return Err(format!(
            "an environment has at most {ENV_VARIABLES_MAX} variables and {ENV_BYTES_MAX} bytes"
        ));
    }
    for variable in &spawn.env {
        let name = String::from_utf8_lossy(&variable.name);
        if name.is_empty() || name.contains('=') || name.contains('\0') || variable.value.contains(&0) {
            return Err(format!("`{}` can't be a variable of the environment", name.escape_default()));
        }
    }
    if spawn.harness.iter().any(|argument| argument.contains('\0')) {
        return Err("an argument of the test harness holds a NUL".to_owned());
    }
    Ok(())
}

fn check_capacity(bytes: u64) -> Result<usize, Malformed> {
    let capacity =
        usize::try_from(bytes).ok().filter(|capacity| transport::segment::check_capacity(*capacity));
    capacity.ok_or(Malformed("capacity of a ring"))
}

/// A text within the limit.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
