//! What the machines have, and what of it is taken.

use std::collections::BTreeMap;

use protocol::{
    ids::MachineId,
    placement::{Capacity, Locality, Shortage},
    resources::{Cores, Memory, Request},
};

/// All machines that have joined.
#[derive(Default)]
pub(crate) struct Machines(BTreeMap<MachineId, Machine>);

struct Machine {
    total: Capacity,
    taken: Capacity,
    /// It is not known whether it is still there: nothing more is put on it.
    is_silent: bool,
}

impl Machines {
    /// Adds a machine, or changes what it has; one that was silent is back.
    pub(crate) fn join(&mut self, id: MachineId, total: Capacity) {
        let machine = self.0.entry(id).or_insert(Machine { total, taken: NOTHING, is_silent: false });
        (machine.total, machine.is_silent) = (total, false);
    }

    /// A machine is silent: nothing is put on it until it joins again.
    pub(crate) fn silence(&mut self, id: MachineId) {
        if let Some(machine) = self.0.get_mut(&id) {
            machine.is_silent = true;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes a machine out.
    pub(crate) fn leave(&mut self, id: MachineId) {
        self.0.remove(&id);
    }

    /// The machine with room for `request` that is preferred, or else has the fewest free cores; of equals the first.
    pub(crate) fn best_fit(&self, request: &Request, locality: &Locality) -> Option<MachineId> {
        let claim = claim(request);
        let rooms = self.allowed(locality).map(|(id, machine)| (id, machine.free()));
        let fits = rooms.filter(|(_, free)| covers(free, &claim));
        fits.min_by_key(|(id, free)| (locality.prefer != Some(*id), free.cores)).map(|(id, _)| id)
    }

    fn allowed<'a>(&'a self, locality: &'a Locality) -> impl Iterator<Item = (MachineId, &'a Machine)> {
        self.0.iter().map(|(id, machine)| (*id, machine)).filter(|(id, _)| locality.allows(*id))
    }

    /// Reserves what runs there already, whether there is room or not; `false` when there is no such machine.
    pub(crate) fn take_anyway(&mut self, id: MachineId, request: &Request) -> bool {
        let Some(machine) = self.0.get_mut(&id) else { return false };
        machine.taken = each(&machine.taken, &claim(request), u64::saturating_add);
        true
    }

    /// Reserves `request` on a machine that [`Machines::best_fit`] has chosen for it.
    pub(crate) fn take(&mut self, id: MachineId, request: &Request) {
        let machine = self.0.get_mut(&id).expect("it was just chosen");
        assert!(covers(&machine.free(), &claim(request)), "{id:?} has no room for {request:?}");
        machine.taken = each(&machine.taken, &claim(request), u64::saturating_add);
    }

    /// Ends a reservation.
    pub(crate) fn give_back(&mut self, id: MachineId, request: &Request) {
        let Some(machine) = self.0.get_mut(&id) else { return };
        assert!(covers(&machine.taken, &claim(request)), "{request:?} was never taken from {id:?}");
        machine.taken = each(&machine.taken, &claim(request), u64::saturating_sub);
    }

    /// Why `request` could not be held by any machine, even an empty one. `None` if one could hold it, and while
    /// there is none, since nothing is known then.
    pub(crate) fn never_fits(&self, request: &Request, locality: &Locality) -> Option<Shortage> {
        nearest_miss(self.allowed(locality).map(|(_, machine)| machine.shortfall(request, &machine.total)))
    }

    /// What is short for `request` now, on the machine that comes nearest of those that could ever hold it. `None`
    /// if nothing is.
    pub(crate) fn shortage(&self, request: &Request, locality: &Locality) -> Option<Shortage> {
        let allowed: Vec<&Machine> = self.allowed(locality).map(|(_, machine)| machine).collect();
        let possible = || allowed.iter().filter(|machine| covers(&machine.total, &claim(request)));
        if possible().next().is_none() {
            // The machine that could hold it has left; another one may come.
            return Some(Shortage::Machines);
        }
        nearest_miss(possible().map(|machine| machine.shortfall(request, &machine.free())))
    }

    /// What all machines have together, and what of it is free. For people to read: stops at the largest number.
    pub(crate) fn sums(&self) -> (Capacity, Capacity) {
        self.0.values().fold((NOTHING, NOTHING), |(total, free), machine| {
            (
                each(&total, &machine.total, u64::saturating_add),
                each(&free, &machine.free(), u64::saturating_add),
            )
        })
    }
}

impl Machine {
    /// Nothing, rather than less than nothing, on a machine that has shrunk below what is taken.
    fn free(&self) -> Capacity {
        if self.is_silent {
            return NOTHING;
        }
        each(&self.total, &self.taken, u64::saturating_sub)
    }

    /// The resource that `room` lacks most, and how much: in millionths of what is wanted.
    fn shortfall(&self, request: &Request, room: &Capacity) -> Option<(u128, Shortage)> {
        let (free, total) = (self.free(), self.total);
        let lacks = [
            (lack(1, room.processes.into()), Shortage::Processes { total: total.processes }),
            (
                lack(request.memory.bytes(), room.memory.bytes()),
                Shortage::Memory { wanted: request.memory, free: free.memory, total: total.memory },
            ),
            (
                lack(request.cores.shares(), room.cores.shares()),
                Shortage::Cores { wanted: request.cores, free: free.cores, total: total.cores },
            ),
        ];
        lacks.into_iter().filter(|(lack, _)| *lack > 0).max_by_key(|(lack, _)| *lack)
    }
}

const NOTHING: Capacity = Capacity { cores: Cores::NONE, memory: Memory::NONE, processes: 0 };

/// What a process takes from its machine.
fn claim(request: &Request) -> Capacity {
    Capacity { cores: request.cores, memory: request.memory, processes: 1 }
}

fn covers(room: &Capacity, claim: &Capacity) -> bool {
    room.cores >= claim.cores && room.memory >= claim.memory && room.processes >= claim.processes
}

/// The same operation on each resource.
fn each(a: &Capacity, b: &Capacity, operation: fn(u64, u64) -> u64) -> Capacity {
    Capacity {
        cores: Cores::from_shares(operation(a.cores.shares(), b.cores.shares())),
        memory: Memory(operation(a.memory.bytes(), b.memory.bytes())),
        processes: operation(a.processes.into(), b.processes.into()).try_into().unwrap_or(u32::MAX),
    }
}

/// Zero only if nothing is missing.
fn lack(wanted: u64, room: u64) -> u128 {
    (u128::from(wanted.saturating_sub(room)) * 1_000_000).div_ceil(u128::from(wanted.max(1)))
}

/// The smallest shortfall; none if one machine lacks nothing.
fn nearest_miss(shortfalls: impl Iterator<Item = Option<(u128, Shortage)>>) -> Option<Shortage> {
    let nearest = shortfalls.min_by_key(|shortfall| shortfall.map(|(lack, _)| lack))?;
    nearest.map(|(_, shortage)| shortage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: &Locality = &crate::state::ANY;

    fn capacity(cores: u32, gib: u64, processes: u32) -> Capacity {
        Capacity { cores: Cores::whole(cores), memory: Memory(gib << 30), processes }
    }

    fn request(cores: u32, gib: u64) -> Request {
        Request { cores: Cores::whole(cores), memory: Memory(gib << 30) }
    }

    #[test]
    fn the_tightest_machine_is_taken_and_then_the_first() {
        let mut machines = Machines::default();
        machines.join(MachineId(3), capacity(2, 8, 9));
        machines.join(MachineId(1), capacity(8, 8, 9));
        machines.join(MachineId(2), capacity(2, 8, 9));
        assert_eq!(machines.best_fit(&request(1, 1), ANY), Some(MachineId(2)));
        assert_eq!(machines.best_fit(&request(3, 1), ANY), Some(MachineId(1)));
        machines.take(MachineId(3), &request(1, 1));
        assert_eq!(machines.best_fit(&request(1, 1), ANY), Some(MachineId(3)));
        assert_eq!(machines.best_fit(&request(1, 9), ANY), None);
    }

    #[test]
    fn the_nearest_miss_is_named() {
        let mut machines = Machines::default();
        assert_eq!(machines.never_fits(&request(9, 1), ANY), None);
        assert_eq!(machines.shortage(&request(9, 1), ANY), Some(Shortage::Machines));
        machines.join(MachineId(1), capacity(2, 64, 9));
        machines.join(MachineId(2), capacity(16, 8, 9));
        let wanted = request(8, 10);
        let (free, total) = (Memory(8 << 30), Memory(8 << 30));
        let short = Shortage::Memory { wanted: wanted.memory, free, total };
        assert_eq!(machines.never_fits(&wanted, ANY), Some(short));

        machines.take(MachineId(2), &request(10, 0));
        let (free, total) = (Cores::whole(6), Cores::whole(16));
        let short = Shortage::Cores { wanted: Cores::whole(8), free, total };
        assert_eq!(machines.never_fits(&request(8, 1), ANY), None);
        assert_eq!(machines.shortage(&request(8, 1), ANY), Some(short));
        assert_eq!(machines.shortage(&request(6, 1), ANY), None);
    }

    #[test]
    fn places_run_out_too() {
        let mut machines = Machines::default();
        machines.join(MachineId(1), capacity(2, 8, 1));
        machines.take(MachineId(1), &request(0, 0));
        assert_eq!(machines.best_fit(&request(0, 0), ANY), None);
        assert_eq!(machines.shortage(&request(0, 0), ANY), Some(Shortage::Processes { total: 1 }));
    }

    #[test]
    fn a_machine_that_shrinks_keeps_what_runs_and_takes_no_more() {
        let mut machines = Machines::default();
        machines.join(MachineId(1), capacity(4, 8, 9));
        machines.take(MachineId(1), &request(3, 1));
        machines.join(MachineId(1), capacity(2, 8, 9));
        assert_eq!(machines.sums().1, capacity(0, 7, 8));
        assert_eq!(machines.best_fit(&request(1, 0), ANY), None);
        machines.give_back(MachineId(1), &request(3, 1));
        assert_eq!(machines.sums(), (capacity(2, 8, 9), capacity(2, 8, 9)));
    }

    #[test]
    fn a_silent_machine_keeps_what_runs_and_takes_nothing() {
        let mut machines = Machines::default();
        machines.join(MachineId(1), capacity(4, 8, 9));
        machines.take(MachineId(1), &request(1, 1));
        machines.silence(MachineId(1));
        assert_eq!(machines.best_fit(&request(0, 0), ANY), None);
        assert_eq!(machines.never_fits(&request(4, 1), ANY), None);
        assert!(machines.shortage(&request(1, 1), ANY).is_some());
        machines.give_back(MachineId(1), &request(1, 1));
        machines.join(MachineId(1), capacity(4, 8, 9));
        assert_eq!(machines.best_fit(&request(4, 8), ANY), Some(MachineId(1)));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let all =
            Capacity { cores: Cores::from_shares(u64::MAX), memory: Memory(u64::MAX), processes: u32::MAX };
        let most = Request { cores: all.cores, memory: all.memory };
        let mut machines = Machines::default();
        machines.join(MachineId(1), all);
        machines.join(MachineId(2), all);
        machines.take(MachineId(1), &most);
        assert_eq!(machines.best_fit(&most, ANY), Some(MachineId(2)));
        machines.take(MachineId(2), &most);
        assert!(matches!(machines.shortage(&most, ANY), Some(Shortage::Cores { .. })));
        assert_eq!(machines.sums().0, all);
    }

    #[test]
    #[should_panic(expected = "was never taken")]
    fn giving_back_what_was_not_taken_is_a_defect() {
        let mut machines = Machines::default();
        machines.join(MachineId(1), capacity(4, 8, 9));
        machines.give_back(MachineId(1), &request(1, 0));
    }
}
