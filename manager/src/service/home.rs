//! Who decides for a job: its home, or, on other machines, the home from afar.
//!
//! What the job's state wants done is done here or said to the agent of the machine that it concerns. What agents
//! report is taken in as if it had happened here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use protocol::{
    agent::{self, FromAgent, FromHome},
    control::{FromManager, FromProcess, OverWord, ReceiverOver, SenderOver},
    ending::{Over, Usage},
    ids::{EndId, MachineId, ProcessId},
    placement::ToScheduler,
};
use tokio::sync::mpsc::UnboundedSender;

use super::words;
use crate::{
    launch::End,
    state::{Effect, Files, NewRing, State},
};

/// What has happened on a machine.
#[derive(Debug)]
pub(super) enum Report {
    Said(ProcessId, Said),
    Launched(ProcessId, Vec<NewRing>),
    LaunchFailed(ProcessId, String),
    RingFailed(u64, Option<EndId>, String),
    TimeLimit(ProcessId, Duration),
    Violation(ProcessId, String),
    Heard(u64),
    Expecting(agent::Expecting),
    Linked(u64),
    LinkFailed(u64, String),
}

/// What a process has done, in the order in which it was done.
#[derive(Debug)]
pub(super) enum Said {
    Word(Box<FromProcess>),
    Ended(Box<(End, Usage, String)>),
}

/// What has to be done on a machine.
#[derive(Debug)]
pub(super) enum Deed {
    Effect(Effect),
    Hear(u64),
    Expect(agent::Link),
    Dial(agent::Link),
    /// That sender is no more.
    Drain(EndId),
}

/// Who decides for this part of a job.
pub(super) enum Mind {
    Here(Box<Home>),
    Elsewhere(UnboundedSender<FromAgent>),
}

impl Mind {
    /// Takes in what has happened here.
    pub(super) fn report(&mut self, report: Report) {
        match self {
            Mind::Here(home) => home.on_report(home.machine, report),
            // Without a manager the job is ending.
            Mind::Elsewhere(home) => drop(home.send(words::from_report(report))),
        }
    }
}

/// See the [module](self).
pub(super) struct Home {
    pub(super) state: State,
    machine: MachineId,
    /// The first word to an agent.
    begin: agent::Begin,
    to_scheduler: UnboundedSender<ToScheduler>,
    to_agents: UnboundedSender<(MachineId, FromHome)>,
    /// Machines that have an agent.
    agents: BTreeSet<MachineId>,
    /// What was said and not taken in yet.
    said: BTreeMap<ProcessId, VecDeque<Said>>,
    /// Processes whose next word waits until another process has been heard on its machine.
    hearings: BTreeMap<ProcessId, Hearing>,
    /// Hearings and links get their numbers from this.
    count: u64,
    launching: BTreeMap<ProcessId, Vec<NewRing>>,
    /// Rings that were made and not given up: where they are, and their capacities.
    rings: HashMap<u64, (MachineId, usize)>,
    /// Links that are being made, with the machines of their rings.
    links: HashMap<u64, (MachineId, agent::Link)>,
    /// Links that are being dialled, and how many of their two sides have taken them up.
    dialled: HashMap<u64, (agent::Link, u32)>,
    /// Senders that are linked, and where.
    linked: HashMap<EndId, MachineId>,
    /// What is to be done here.
    deeds: Vec<Deed>,
}

#[derive(Debug)]
struct Hearing {
    of: ProcessId,
    machine: MachineId,
    number: u64,
    is_done: bool,
}

impl Home {
    pub(super) fn new(
        state: State,
        machine: MachineId,
        begin: agent::Begin,
        to_scheduler: UnboundedSender<ToScheduler>,
        to_agents: UnboundedSender<(MachineId, FromHome)>,
    ) -> Home {
        Home {
            state,
            machine,
            begin,
            to_scheduler,
            to_agents,
            agents: BTreeSet::new(),
            said: BTreeMap::new(),
            hearings: BTreeMap::new(),
            count: 0,
            launching: BTreeMap::new(),
            rings: HashMap::new(),
            links: HashMap::new(),
            dialled: HashMap::new(),
            linked: HashMap::new(),
            deeds: Vec::new(),
        }
    }

    /// What has to be done here, in this order. The rest was said to the agents.
    pub(super) fn take_deeds(&mut self) -> Vec<Deed> {
        for effect in self.state.take_effects() {
            self.route(effect);
        }
        std::mem::take(&mut self.deeds)
    }

    /// The machines that have agents.
    pub(super) fn agents(&self) -> impl Iterator<Item = MachineId> {
        self.agents.iter().copied()
    }

    // ---- what was said

    pub(super) fn next_said(&mut self, process: ProcessId) -> Option<Said> {
        let queue = self.said.get_mut(&process)?;
        let said = queue.pop_front();
        if queue.is_empty() {
            self.said.remove(&process);
        }
        said
    }

    pub(super) fn put_back(&mut self, process: ProcessId, said: Said) {
        self.said.entry(process).or_default().push_front(said);
    }

    /// A process is not heard any more.
    pub(super) fn forget_words(&mut self, process: ProcessId) {
        if let Some(queue) = self.said.get_mut(&process) {
            queue.retain(|said| matches!(said, Said::Ended(_)));
        }
    }

    /// Whether a process is on this machine, as far as it is known.
    pub(super) fn is_here(&self, process: ProcessId) -> bool {
        self.machine_of(process) == self.machine
    }

    fn machine_of(&self, process: ProcessId) -> MachineId {
        self.state.machine_of(process).unwrap_or(self.machine)
    }

    /// Has all reported that `other` has said on its machine, for the sake of the next word of `process`; `true` when
    /// that was done.
    pub(super) fn hear_out(&mut self, process: ProcessId, other: ProcessId) -> bool {
        match self.hearings.get(&process) {
            Some(hearing) if hearing.of == other => {
                let is_done = hearing.is_done;
                if is_done {
                    self.hearings.remove(&process);
                }
                is_done
            }
            _ => {
                self.count += 1;
                let (machine, number) = (self.machine_of(other), self.count);
                self.hearings.insert(process, Hearing { of: other, machine, number, is_done: false });
                self.tell(machine, Deed::Hear(number));
                false
            }
        }
    }

    /// The next word of a process is taken in: a hearing that was for its sake says nothing about the word after it.
    pub(super) fn waits_no_more(&mut self, process: ProcessId) {
        self.hearings.remove(&process);
    }

    /// Processes that have said what was not taken in yet.
    pub(super) fn unheard(&self) -> Vec<ProcessId> {
        self.said.keys().copied().collect()
    }

    // ---- what has happened

    pub(super) fn on_report(&mut self, machine: MachineId, report: Report) {
        let is_there = |process| self.machine_of(process) == machine;
        match report {
            // An agent speaks for its own processes only.
            Report::Said(process, _)
            | Report::Launched(process, _)
            | Report::LaunchFailed(process, _)
            | Report::TimeLimit(process, _)
            | Report::Violation(process, _)
                if !is_there(process) => {}
            Report::Said(process, said) => self.said.entry(process).or_default().push_back(said),
            Report::Launched(process, rings) => {
                let rings = self.launching.remove(&process).unwrap_or(rings);
                self.state.on_launched(process, &rings);
            }
            Report::LaunchFailed(process, text) => {
                self.launching.remove(&process);
                self.state.on_launch_failed(process, text);
            }
            Report::RingFailed(ring, sender, text) => {
                if self.rings.get(&ring).is_some_and(|(at, _)| *at == machine) {
                    self.rings.remove(&ring);
                    self.state.on_ring_failed(ring, sender, &text);
                }
            }
            Report::TimeLimit(process, limit) => self.state.on_time_limit(process, limit),
            Report::Violation(process, what) => self.state.on_violation(process, &what),
            Report::Heard(number) => {
                for hearing in self.hearings.values_mut().filter(|hearing| hearing.number == number) {
                    hearing.is_done = true;
                }
            }
            Report::Expecting(link) => {
                if let Some((ring_at, dial)) = self.links.remove(&link.link) {
                    if let (false, Ok(sender)) = (dial.is_over, EndId::from_word(&dial.sender)) {
                        self.linked.insert(sender, ring_at);
                    }
                    self.dialled.insert(link.link, (dial.clone(), 0));
                    self.tell(ring_at, Deed::Dial(agent::Link { expecting: Some(link), ..dial }));
                }
            }
            Report::Linked(link) => {
                if let Some((_, sides)) = self.dialled.get_mut(&link) {
                    *sides += 1;
                    if *sides == 2 {
                        self.dialled.remove(&link);
                    }
                }
            }
            Report::LinkFailed(link, text) => self.on_link_failed(link, &text),
        }
    }

    /// A machine is lost, and with it all that ran there.
    pub(super) fn on_machine_lost(&mut self, machine: MachineId, why: &str) {
        self.agents.remove(&machine);
        self.rings.retain(|_, (at, _)| *at != machine);
        let cut = |(_, (at, link)): &(&u64, &(MachineId, agent::Link))| {
            *at == machine || MachineId(link.machine) == machine
        };
        self.links =
            self.links.iter().filter(|link| !cut(link)).map(|(id, link)| (*id, link.clone())).collect();
        let ends = |link: &agent::Link| [link.sender_in, link.receiver_in].map(ProcessId);
        let is_there = |process: &ProcessId| self.state.machine_of(*process) == Some(machine);
        self.dialled.retain(|_, (link, _)| !ends(link).iter().any(is_there));
        self.linked.retain(|_, at| *at != machine);
        // What came before the loss counts, as far as it can be understood without what is lost.
        for hearing in self.hearings.values_mut().filter(|hearing| hearing.machine == machine) {
            hearing.is_done = true;
        }
        let there = |process: &ProcessId| self.state.machine_of(*process) == Some(machine);
        self.said =
            std::mem::take(&mut self.said).into_iter().filter(|(process, _)| !there(process)).collect();
        self.launching.retain(|process, _| self.state.machine_of(*process) != Some(machine));
        self.state.on_machine_lost(machine, why);
    }

    /// Both ends of a link that can't be made are told.
    fn on_link_failed(&mut self, number: u64, text: &str) {
        let link = self.dialled.remove(&number).map(|(link, _)| link);
        let link = link.or_else(|| Some(self.links.remove(&number)?.1));
        let Some(link) = link else { return };
        let over = Over::Reset { reason: format!("its receiver's machine can't be reached: {text}") };
        let word = ReceiverOver { sender: link.sender.clone(), over: Some(OverWord::from(&over)) };
        self.tell_process(ProcessId(link.sender_in), FromManager::ReceiverOver(word));
        let over = Over::Reset { reason: format!("its sender's machine can't be reached: {text}") };
        let (receiver, sender) = (link.receiver, link.sender);
        let word =
            SenderOver { receiver, sender, over: Some(OverWord::from(&over)), last: false, lost: true };
        self.tell_process(ProcessId(link.receiver_in), FromManager::SenderOver(word));
    }

    fn tell_process(&mut self, to: ProcessId, word: FromManager) {
        self.route(Effect::Tell { to, word: Box::new(word), files: Files::None });
    }

    // ---- what is to be done

    fn route(&mut self, effect: Effect) {
        if let Effect::Tell { word, .. } = &effect
            && let FromManager::SenderOver(word) = &**word
        {
            self.on_sender_over(word);
        }
        let machine = match &effect {
            Effect::Schedule(word) => {
                // Without a scheduler the job is ending.
                let _ = self.to_scheduler.send(word.clone());
                return;
            }
            Effect::Tell { to, files: Files::None, .. } | Effect::Kill(to) => self.machine_of(*to),
            Effect::Launch(launch) => {
                let machine = self.machine_of(launch.process);
                self.rings.extend(launch.rings.iter().map(|ring| (ring.ring, (machine, ring.capacity))));
                if machine != self.machine {
                    self.launching.insert(launch.process, launch.rings.clone());
                }
                machine
            }
            Effect::MakeRing { to, ring, capacity, .. } => {
                let machine = self.machine_of(*to);
                self.rings.insert(*ring, (machine, *capacity));
                machine
            }
            Effect::FreeRing(ring) => match self.rings.remove(ring) {
                Some((machine, _)) => machine,
                None => return,
            },
            Effect::Tell { to, files: Files::Doorbell(other), .. } => {
                let machine = self.machine_of(*to);
                if machine != self.machine_of(*other) {
                    // A sender whose receiver is elsewhere hears of it when they are linked.
                    return;
                }
                machine
            }
            Effect::Tell { to, files: Files::Ring { ring, .. }, .. } => {
                let machine = self.machine_of(*to);
                match self.rings.remove(ring) {
                    None => return,
                    Some((at, capacity)) if at != machine => return self.link(effect, at, capacity),
                    Some(_) => machine,
                }
            }
        };
        self.tell(machine, Deed::Effect(effect));
    }

    /// A sender is no more: who has its ring has to know, also if it is only about to be linked.
    fn on_sender_over(&mut self, word: &SenderOver) {
        for (_, link) in self.links.values_mut().filter(|(_, link)| link.sender == word.sender) {
            link.is_over = true;
        }
        if let Ok(sender) = EndId::from_word(&word.sender)
            && let Some(machine) = self.linked.remove(&sender)
        {
            self.tell(machine, Deed::Drain(sender));
        }
    }

    fn tell(&mut self, machine: MachineId, deed: Deed) {
        if machine == self.machine {
            return self.deeds.push(deed);
        }
        let Some(word) = words::from_deed(deed) else { return };
        // If the manager is gone, the job is ending.
        if self.agents.insert(machine) {
            let _ = self.to_agents.send((machine, FromHome::Begin(self.begin.clone())));
        }
        let _ = self.to_agents.send((machine, word));
    }

    /// Has a ring linked to a receiver on another machine, which first waits for the connection.
    fn link(&mut self, effect: Effect, ring_at: MachineId, capacity: usize) {
        let Effect::Tell { to, word, files: Files::Ring { ring, producer } } = effect else { return };
        let FromManager::Incoming(word) = *word else { return };
        let receiver_at = self.machine_of(to);
        self.count += 1;
        let link = agent::Link {
            link: self.count,
            sender: word.sender,
            receiver: word.receiver,
            sender_in: producer.0,
            receiver_in: to.0,
            ring,
            capacity: capacity as u64,
            machine: ring_at.0,
            expecting: None,
            is_over: false,
        };
        self.links.insert(link.link, (ring_at, agent::Link { machine: receiver_at.0, ..link.clone() }));
        self.tell(receiver_at, Deed::Expect(link));
    }
}
