//! Each rule by itself, then all of them against a model that looks at everything at each step.

use protocol::resources::{Cores, Memory};

use super::*;

mod model;

const MACHINE: MachineId = MachineId(1);
const NOW: Duration = Duration::ZERO;

fn join(machine: u32, cores: u32, processes: u32) -> Event {
    let capacity = Capacity { cores: Cores::whole(cores), memory: Memory(8 << 30), processes };
    Event::Word(ToScheduler::Join { machine: MachineId(machine), capacity })
}

fn want(process: u64, cores: u32) -> Event {
    want_until(process, cores, None)
}

fn want_until(process: u64, cores: u32, deadline: Option<Duration>) -> Event {
    let request = Request { cores: Cores::whole(cores), memory: Memory::NONE };
    Event::Word(ToScheduler::Want { task: task(process), request, locality: ANY, deadline })
}

fn ended(process: u64) -> Event {
    Event::Word(ToScheduler::Ended { task: task(process) })
}

fn withdraw(process: u64) -> Event {
    Event::Word(ToScheduler::Withdraw { task: task(process) })
}

fn place(process: u64) -> FromScheduler {
    FromScheduler::Place { task: task(process), machine: MACHINE }
}

fn refuse(process: u64, refusal: Refusal) -> FromScheduler {
    FromScheduler::Refuse { task: task(process), refusal }
}

fn cores_short(wanted: u32, free: u32, total: u32) -> Shortage {
    let [wanted, free, total] = [wanted, free, total].map(Cores::whole);
    Shortage::Cores { wanted, free, total }
}

/// One machine of four cores, all taken by process 1.
fn full(backfill_max: u64) -> State {
    let mut state = State::new(backfill_max);
    assert_eq!(state.step(join(1, 4, 100), NOW), []);
    assert_eq!(state.step(want(1, 4), NOW), [place(1)]);
    state
}

#[test]
fn thirds_of_a_core_fill_it_exactly() {
    let mut state = State::default();
    state.step(join(1, 1, 9), NOW);
    let request = Request { cores: "1/3".parse().unwrap(), memory: Memory::NONE };
    for process in 1..=4 {
        let want = ToScheduler::Want { task: task(process), request, locality: ANY, deadline: None };
        let expected = if process < 4 { vec![place(process)] } else { vec![] };
        assert_eq!(state.step(Event::Word(want), NOW), expected);
    }
    assert_eq!(state.report().free.cores, Cores::NONE);
    assert_eq!(state.step(ended(2), NOW), [place(4)]);
}

#[test]
fn what_fits_no_machine_is_refused_at_once_with_the_nearest_miss() {
    let mut state = State::default();
    state.step(join(1, 2, 9), NOW);
    state.step(join(2, 6, 9), NOW);
    let never = Refusal::NeverFits { shortage: cores_short(8, 6, 6) };
    assert_eq!(state.step(want(1, 8), NOW), [refuse(1, never)]);
    assert_eq!(state.report().waiting, 0);
}

#[test]
fn without_machines_all_wait_and_the_first_machine_decides() {
    let mut state = State::default();
    assert_eq!(state.step(want(1, 8), NOW), []);
    assert_eq!(state.step(want(2, 2), NOW), []);
    assert_eq!(state.waiting(task(1)), Some(Shortage::Machines));
    let never = Refusal::NeverFits { shortage: cores_short(8, 4, 4) };
    assert_eq!(state.step(join(1, 4, 9), NOW), [refuse(1, never), place(2)]);
}

#[test]
fn a_machine_that_joins_again_has_its_new_capacity() {
    let mut state = full(9);
    assert_eq!(state.step(want(2, 3), NOW), []);
    assert_eq!(state.step(join(1, 8, 9), NOW), [place(2)]);
    assert_eq!(state.step(want(3, 8), NOW), []);
    let never = Refusal::NeverFits { shortage: cores_short(8, 0, 6) };
    assert_eq!(state.step(join(1, 6, 9), NOW), [refuse(3, never)]);
    let report = state.report();
    assert_eq!((report.machines, report.placed, report.waiting), (1, 2, 0));
}

#[test]
fn a_deadline_is_refused_with_what_was_short() {
    let mut state = full(9);
    let at = Duration::from_secs;
    assert_eq!(state.step(want_until(2, 3, Some(at(5))), at(1)), []);
    assert_eq!(state.step(want_until(3, 2, Some(at(2))), at(1)), []);
    assert_eq!(state.step(want_until(4, 2, Some(Duration::MAX)), at(1)), []);
    assert_eq!(state.next_deadline(), Some(at(3)));
    assert_eq!(state.step(Event::Tick, at(2)), []);
    let third = Refusal::Deadline { waited: at(2), shortage: cores_short(2, 0, 4) };
    assert_eq!(state.step(Event::Tick, at(3)), [refuse(3, third)]);
    assert_eq!(state.next_deadline(), Some(at(6)));

    // The deadline comes before what comes free after it.
    let second = Refusal::Deadline { waited: at(6), shortage: cores_short(3, 0, 4) };
    assert_eq!(state.step(ended(1), at(7)), [refuse(2, second), place(4)]);
    assert_eq!(state.next_deadline(), None);
}

#[test]
fn a_duplicate_does_not_disturb_the_first() {
    let mut state = full(9);
    state.step(want(2, 1), NOW);
    assert_eq!(state.step(want(1, 1), NOW), [refuse(1, Refusal::Duplicate)]);
    assert_eq!(state.step(want(2, 4), NOW), [refuse(2, Refusal::Duplicate)]);
    assert_eq!(state.step(ended(1), NOW), [place(2)]);
    assert_eq!(state.report().free.cores, Cores::whole(3));
}

#[test]
fn strangers_end_without_effect() {
    let mut state = full(9);
    state.step(want(2, 1), NOW);
    let before = state.report();
    for event in [ended(7), withdraw(7), ended(2)] {
        assert_eq!(state.step(event, NOW), []);
    }
    assert_eq!(state.report(), before);
    assert_eq!(state.step(withdraw(1), NOW), [place(2)]);
    assert_eq!(state.step(ended(1), NOW), []);
}

#[test]
fn a_large_one_is_overtaken_so_often_and_no_more() {
    let mut state = State::new(2);
    state.step(join(1, 4, 100), NOW);
    assert_eq!(state.step(want(1, 2), NOW), [place(1)]);
    assert_eq!(state.step(want(2, 4), NOW), []);
    assert_eq!(state.step(want(3, 1), NOW), [place(3)]);
    assert_eq!(state.step(want(4, 1), NOW), [place(4)]);
    // Small ones keep coming while others end: from here on all that comes free is kept for the large one.
    assert_eq!(state.step(ended(3), NOW), []);
    assert_eq!(state.step(want(5, 1), NOW), []);
    assert_eq!(state.waiting(task(5)), Some(cores_short(4, 1, 4)), "it waits for the large one");
    assert_eq!(state.step(ended(1), NOW), []);
    assert_eq!(state.step(want(6, 1), NOW), []);
    assert_eq!(state.step(ended(4), NOW), [place(2)]);
    assert_eq!(state.step(ended(2), NOW), [place(5), place(6)]);
}

#[test]
fn when_the_large_one_gives_up_those_behind_it_go_on() {
    for withdrawn in [true, false] {
        let mut state = State::new(0);
        state.step(join(1, 4, 100), NOW);
        state.step(want(1, 1), NOW);
        state.step(want_until(2, 4, Some(Duration::from_secs(1))), NOW);
        assert_eq!(state.step(want(3, 1), NOW), []);
        if withdrawn {
            assert_eq!(state.step(withdraw(2), NOW), [place(3)]);
        } else {
            let waited = Duration::from_secs(1);
            let late = Refusal::Deadline { waited, shortage: cores_short(4, 3, 4) };
            assert_eq!(state.step(Event::Tick, waited), [refuse(2, late), place(3)]);
        }
    }
}

#[test]
fn those_that_reserve_nothing_are_bounded_by_places_alone() {
    let mut state = State::new(0);
    state.step(join(1, 4, 3), NOW);
    state.step(want(1, 1), NOW);
    assert_eq!(state.step(want(2, 4), NOW), []);
    assert_eq!(state.step(want(3, 0), NOW), [place(3)]);
    assert_eq!(state.step(want(4, 0), NOW), [place(4)]);
    assert_eq!(state.step(want(5, 0), NOW), []);
    assert_eq!(state.waiting(task(5)), Some(Shortage::Processes { total: 3 }));
    assert_eq!(state.step(ended(1), NOW), [place(2)], "the oldest gets the place");
    assert_eq!(state.step(ended(3), NOW), [place(5)]);
}
