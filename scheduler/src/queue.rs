//! Those that wait, in order of arrival, and whose turn it may be.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use protocol::{
    placement::{Locality, Task},
    resources::Request,
};

/// How many later processes that reserve cores or memory may be placed before one that waits.
///
/// Large enough that one large request doesn't idle a machine, small enough that it isn't kept waiting for long.
pub const BACKFILL_MAX: u64 = 64;

/// A place in the order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ticket {
    /// How many processes that reserve something came before: this never falls from one arrival to the next, so
    /// it may lead in the order.
    reserving_before: u64,
    arrival: u64,
}

/// A process that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) task: Task,
    pub(crate) request: Request,
    pub(crate) locality: Locality,
    pub(crate) since: Duration,
    /// When it is refused, on the same clock as `since`.
    pub(crate) deadline: Option<Duration>,
}

/// Those that wait.
pub(crate) struct Queue {
    backfill_max: u64,
    arrivals: u64,
    reserving_arrivals: u64,
    reserving: BTreeMap<Ticket, Waiting>,
    light: BTreeMap<Ticket, Waiting>,
    deadlines: BTreeSet<(Duration, Ticket)>,
}

/// `true` for a process that takes nothing but a place.
pub(crate) fn is_light(request: &Request) -> bool {
    *request == Request::default()
}

impl Queue {
    pub(crate) fn new(backfill_max: u64) -> Self {
        Queue {
            backfill_max,
            arrivals: 0,
            reserving_arrivals: 0,
            reserving: BTreeMap::new(),
            light: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// The ticket of a process that arrives now, whether it will wait or not.
    pub(crate) fn arrive(&mut self, request: &Request) -> Ticket {
        let ticket = Ticket { reserving_before: self.reserving_arrivals, arrival: self.arrivals };
        self.arrivals += 1;
        self.reserving_arrivals += u64::from(!is_light(request));
        ticket
    }

    pub(crate) fn insert(&mut self, ticket: Ticket, waiting: Waiting) {
        self.deadlines.extend(waiting.deadline.map(|deadline| (deadline, ticket)));
        let map = if is_light(&waiting.request) { &mut self.light } else { &mut self.reserving };
        map.insert(ticket, waiting);
    }

    pub(crate) fn remove(&mut self, ticket: Ticket) -> Waiting {
        let waiting = self.reserving.remove(&ticket).or_else(|| self.light.remove(&ticket));
        let waiting = waiting.expect("a ticket is given up once");
        if let Some(deadline) = waiting.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
        waiting
    }

    /// `true` if a process may be placed now, whoever waits before it.
    pub(crate) fn has_turn(&self, ticket: Ticket, request: &Request) -> bool {
        let oldest = self.reserving.keys().next();
        is_light(request)
            || oldest.is_none_or(|oldest| {
                ticket.reserving_before <= oldest.reserving_before.saturating_add(self.backfill_max)
            })
    }

    /// The first after `cursor` that may be placed now.
    pub(crate) fn next_turn(&self, cursor: Option<Ticket>) -> Option<(Ticket, &Waiting)> {
        let later = (cursor.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let reserving = self.reserving.range(later).next();
        // If this one is too late for its turn, so are all behind it.
        let reserving = reserving.filter(|(ticket, waiting)| self.has_turn(**ticket, &waiting.request));
        let light = self.light.range(later).next();
        let (ticket, waiting) = reserving.into_iter().chain(light).min_by_key(|(ticket, _)| **ticket)?;
        Some((*ticket, waiting))
    }

    /// The one that others are held back for.
    pub(crate) fn oldest_reserving(&self) -> Option<&Waiting> {
        self.reserving.values().next()
    }

    /// One that waits.
    pub(crate) fn waiting(&self, ticket: Ticket) -> &Waiting {
        let waiting = self.reserving.get(&ticket).or_else(|| self.light.get(&ticket));
        waiting.expect("a ticket is valid while its process waits")
    }

    /// All that wait, in no useful order.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.reserving.keys().chain(self.light.keys()).copied()
    }

    /// Those whose deadline has come, by deadline.
    pub(crate) fn overdue(&self, now: Duration) -> impl Iterator<Item = Ticket> {
        self.deadlines.iter().take_while(move |(deadline, _)| *deadline <= now).map(|(_, ticket)| *ticket)
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn len(&self) -> usize {
        self.reserving.len() + self.light.len()
    }
}

#[cfg(test)]
mod tests {
    use protocol::resources::{Cores, Memory};

    use super::*;
    use crate::state::task;

    fn push(queue: &mut Queue, process: u64, cores: u32) -> Ticket {
        let request = Request { cores: Cores::whole(cores), memory: Memory::NONE };
        let ticket = queue.arrive(&request);
        let (task, since, deadline) = (task(process), Duration::ZERO, None);
        let locality = Locality::default();
        queue.insert(ticket, Waiting { task, request, locality, since, deadline });
        ticket
    }

    fn turns(queue: &Queue) -> Vec<u64> {
        let first = queue.next_turn(None);
        let all = std::iter::successors(first, |(ticket, _)| queue.next_turn(Some(*ticket)));
        all.map(|(_, waiting)| waiting.task.process.0).collect()
    }

    #[test]
    fn however_many_wait_few_have_their_turn() {
        let mut queue = Queue::new(BACKFILL_MAX);
        let oldest = push(&mut queue, 0, 1);
        for process in 1..10_000 {
            push(&mut queue, process, 1);
        }
        assert_eq!(turns(&queue), (0..=BACKFILL_MAX).collect::<Vec<_>>());
        queue.remove(oldest);
        assert_eq!(turns(&queue), (1..=BACKFILL_MAX + 1).collect::<Vec<_>>());
    }

    #[test]
    fn those_that_have_left_still_count_as_overtaking() {
        let mut queue = Queue::new(2);
        push(&mut queue, 0, 4);
        for process in 1..=2 {
            let ticket = push(&mut queue, process, 1);
            queue.remove(ticket);
        }
        push(&mut queue, 3, 1);
        assert_eq!(turns(&queue), [0]);
    }

    #[test]
    fn the_light_are_never_held_back_and_hold_nobody_back() {
        let mut queue = Queue::new(1);
        for (process, cores) in [(0, 0), (1, 4), (2, 0), (3, 0), (4, 1), (5, 1), (6, 0)] {
            push(&mut queue, process, cores);
        }
        assert_eq!(turns(&queue), [0, 1, 2, 3, 4, 6]);
    }
}
