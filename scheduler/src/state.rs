//! The decision itself, without a clock.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    ids::MachineId,
    placement::{Capacity, FromScheduler, Locality, Refusal, Shortage, Task, ToScheduler},
    resources::Request,
};

use crate::{
    machines::Machines,
    queue::{BACKFILL_MAX, Queue, Ticket, Waiting, is_light},
};

/// What can happen to the scheduler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A manager said something.
    Word(ToScheduler),
    /// A manager is silent. What it runs may go on; it gets nothing more until it joins again.
    Silent(MachineId),
    /// Time has passed: see [`State::next_deadline`].
    Tick,
}

/// What the machines have, who runs on them and who waits.
///
/// Between two steps it is settled: nobody waits who has the turn and would fit.
pub struct State {
    machines: Machines,
    queue: Queue,
    tasks: BTreeMap<Task, Stage>,
}

/// How far a known process has come.
#[derive(Clone, Copy)]
enum Stage {
    Waits(Ticket),
    Placed { machine: MachineId, request: Request },
}

/// The state in a few numbers, for people to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// How many machines have joined.
    pub machines: usize,
    /// What they have together.
    pub total: Capacity,
    /// What of it nobody has reserved.
    pub free: Capacity,
    /// How many processes hold a reservation.
    pub placed: usize,
    /// How many processes wait for one.
    pub waiting: usize,
}

impl Default for State {
    fn default() -> Self {
        State::new(BACKFILL_MAX)
    }
}

impl State {
    fn new(backfill_max: u64) -> Self {
        State { machines: Machines::default(), queue: Queue::new(backfill_max), tasks: BTreeMap::new() }
    }

    /// Takes one event in and gives the words that follow from it, in the order in which they are to be sent.
    ///
    /// `now` is the time since the scheduler's start, and never less than at the step before. Every `Want` is
    /// answered by exactly one `Place` or `Refuse`, unless it is withdrawn first. An `Ended` or `Withdraw` of a
    /// process that isn't known has no effect. A `Withdraw` may cross the `Place` of the same process on its way;
    /// the reservation is gone then, and the process must not be started.
    ///
    /// # Panics
    /// If the accounts don't add up, which is a defect of the scheduler and not of its input.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<FromScheduler> {
        let mut effects = Vec::new();
        self.expire(now, &mut effects);
        match event {
            Event::Tick => {}
            Event::Silent(machine) => self.machines.silence(machine),
            Event::Word(ToScheduler::Join { machine, capacity }) => {
                self.machines.join(machine, capacity);
                self.refuse_hopeless(&mut effects);
                self.offer(&mut effects);
            }
            Event::Word(ToScheduler::Leave { machine }) => {
                self.machines.leave(machine);
                self.tasks
                    .retain(|_, stage| !matches!(stage, Stage::Placed { machine: on, .. } if *on == machine));
            }
            Event::Word(ToScheduler::Runs { task, machine, request }) => {
                // What was placed there is known, and what waits has not been placed there.
                if !self.tasks.contains_key(&task) && self.machines.take_anyway(machine, &request) {
                    self.tasks.insert(task, Stage::Placed { machine, request });
                }
            }
            Event::Word(ToScheduler::Want { task, request, locality, deadline }) => {
                let deadline = deadline.and_then(|deadline| now.checked_add(deadline));
                self.on_want(Waiting { task, request, locality, since: now, deadline }, &mut effects);
            }
            Event::Word(ToScheduler::Withdraw { task }) => match self.tasks.get(&task) {
                Some(&Stage::Waits(ticket)) => {
                    self.forget(ticket);
                    self.offer(&mut effects);
                }
                _ => self.on_ended(task, &mut effects),
            },
            Event::Word(ToScheduler::Ended { task }) => self.on_ended(task, &mut effects),
        }
        effects
    }

    /// When [`Event::Tick`] is due, if nothing else happens before; a later tick does no harm.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.queue.next_deadline()
    }

    /// What a process waits for; `None` if it doesn't wait.
    ///
    /// One that would fit but is held back behind an older one waits for the same as that one.
    pub fn waiting(&self, task: Task) -> Option<Shortage> {
        match self.tasks.get(&task)? {
            Stage::Waits(ticket) => Some(self.shortage(*ticket)),
            Stage::Placed { .. } => None,
        }
    }

    /// Where a process was placed; `None` if it waits, or is not known.
    pub fn machine_of(&self, task: Task) -> Option<MachineId> {
        match self.tasks.get(&task)? {
            Stage::Waits(_) => None,
            Stage::Placed { machine, .. } => Some(*machine),
        }
    }

    /// The state in a few numbers.
    pub fn report(&self) -> Report {
        let (total, free) = self.machines.sums();
        let waiting = self.queue.len();
        let placed = self.tasks.len() - waiting;
        Report { machines: self.machines.len(), total, free, placed, waiting }
    }

    fn on_want(&mut self, wanted: Waiting, effects: &mut Vec<FromScheduler>) {
        let Waiting { task, request, locality, .. } = wanted;
        if self.tasks.contains_key(&task) {
            return effects.push(FromScheduler::Refuse { task, refusal: Refusal::Duplicate });
        }
        if let Some(shortage) = self.machines.never_fits(&request, &locality) {
            return effects.push(FromScheduler::Refuse { task, refusal: Refusal::NeverFits { shortage } });
        }
        // The others have been tried since something came free, so this one alone is new.
        let ticket = self.queue.arrive(&request);
        let fit =
            self.machines.best_fit(&request, &locality).filter(|_| self.queue.has_turn(ticket, &request));
        match fit {
            Some(machine) => self.place(task, request, machine, effects),
            None => {
                self.tasks.insert(task, Stage::Waits(ticket));
                self.queue.insert(ticket, wanted);
            }
        }
    }

    fn on_ended(&mut self, task: Task, effects: &mut Vec<FromScheduler>) {
        if let Some(&Stage::Placed { machine, request }) = self.tasks.get(&task) {
            self.tasks.remove(&task);
            self.machines.give_back(machine, &request);
            self.offer(effects);
        }
    }

    /// Places those that have the turn and fit, in order of arrival.
    ///
    /// One pass is enough: placing one leaves less for those who were passed over, and lets only later ones in.
    fn offer(&mut self, effects: &mut Vec<FromScheduler>) {
        let mut cursor = None;
        while let Some((ticket, waiting)) = self.queue.next_turn(cursor) {
            let &Waiting { task, request, locality, .. } = waiting;
            match self.machines.best_fit(&request, &locality) {
                Some(machine) => {
                    self.queue.remove(ticket);
                    self.place(task, request, machine, effects);
                }
                // Not even a place is left, and everybody needs one.
                None if is_light(&request) && locality == Locality::default() => return,
                None => {}
            }
            cursor = Some(ticket);
        }
    }

    fn place(&mut self, task: Task, request: Request, machine: MachineId, effects: &mut Vec<FromScheduler>) {
        self.machines.take(machine, &request);
        self.tasks.insert(task, Stage::Placed { machine, request });
        effects.push(FromScheduler::Place { task, machine });
    }

    /// Refuses those whose deadline has come. What each waited for is found before the first one leaves, while the
    /// state is settled.
    fn expire(&mut self, now: Duration, effects: &mut Vec<FromScheduler>) {
        let overdue: Vec<_> = self.queue.overdue(now).map(|ticket| (ticket, self.shortage(ticket))).collect();
        if overdue.is_empty() {
            return;
        }
        for (ticket, shortage) in overdue {
            let Waiting { task, since, .. } = self.forget(ticket);
            let refusal = Refusal::Deadline { waited: now.saturating_sub(since), shortage };
            effects.push(FromScheduler::Refuse { task, refusal });
        }
        self.offer(effects);
    }

    /// Refuses those that fit no machine any more, now that one has changed.
    fn refuse_hopeless(&mut self, effects: &mut Vec<FromScheduler>) {
        let never = |ticket| {
            let waiting = self.queue.waiting(ticket);
            Some((ticket, self.machines.never_fits(&waiting.request, &waiting.locality)?))
        };
        let mut hopeless: Vec<_> = self.queue.tickets().filter_map(never).collect();
        hopeless.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (ticket, shortage) in hopeless {
            let Waiting { task, .. } = self.forget(ticket);
            effects.push(FromScheduler::Refuse { task, refusal: Refusal::NeverFits { shortage } });
        }
    }

    fn forget(&mut self, ticket: Ticket) -> Waiting {
        let waiting = self.queue.remove(ticket);
        self.tasks.remove(&waiting.task);
        waiting
    }

    fn shortage(&self, ticket: Ticket) -> Shortage {
        let of = |waiting: &Waiting| self.machines.shortage(&waiting.request, &waiting.locality);
        let ahead = || of(self.queue.oldest_reserving()?);
        of(self.queue.waiting(ticket))
            .or_else(ahead)
            .expect("in a settled state the oldest that waits doesn't fit")
    }
}

/// A process of the only job that tests have.
#[cfg(test)]
pub(crate) const fn task(process: u64) -> Task {
    Task { job: protocol::ids::JobId(0), process: protocol::ids::ProcessId(process) }
}

/// Any machine will do.
#[cfg(test)]
pub(crate) const ANY: Locality = Locality { on: None, not: None, prefer: None };

#[cfg(test)]
mod tests;
