//! The same rules without any index: the model counts everything anew, and tries everybody until nobody fits.

use proptest::prelude::*;

use super::*;

const BACKFILL: u64 = 2;

#[derive(Default)]
struct Model {
    machines: Vec<(MachineId, Capacity)>,
    silent: Vec<MachineId>,
    placed: Vec<(Task, MachineId, Request)>,
    waiting: Vec<Waiter>,
    reserving_arrivals: u64,
    /// How many `Want`s have come, and how many of them were withdrawn before an answer.
    wants: usize,
    withdrawn: usize,
}

struct Waiter {
    process: Task,
    request: Request,
    locality: Locality,
    deadline: Option<Duration>,
    rank: u64,
    overtaken: u64,
}

/// An answer without its reasons, which the tests of each rule look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Place(Task, MachineId),
    NeverFits(Task),
    Deadline(Task),
    Duplicate(Task),
}

fn answer(word: &FromScheduler) -> Answer {
    match *word {
        FromScheduler::Place { task: process, machine } => Answer::Place(process, machine),
        FromScheduler::Refuse { task: process, ref refusal } => match refusal {
            Refusal::NeverFits { .. } => Answer::NeverFits(process),
            Refusal::Deadline { .. } => Answer::Deadline(process),
            Refusal::Duplicate => Answer::Duplicate(process),
        },
    }
}

impl Model {
    fn step(&mut self, event: &Event, now: Duration) -> Vec<Answer> {
        // Those whose deadlines came first are told first; a sort keeps equals in order of arrival.
        let mut late = self.dismiss(|_, waiter| waiter.deadline.is_some_and(|at| at <= now));
        late.sort_by_key(|waiter| waiter.deadline);
        let mut answers: Vec<_> = late.iter().map(|waiter| Answer::Deadline(waiter.process)).collect();
        self.settle(&mut answers);
        match *event {
            Event::Tick => {}
            Event::Silent(machine) => {
                if self.machines.iter().any(|(id, _)| *id == machine) {
                    self.silent.push(machine);
                }
            }
            Event::Word(ToScheduler::Join { machine, capacity }) => {
                self.silent.retain(|id| *id != machine);
                self.machines.retain(|(id, _)| *id != machine);
                self.machines.push((machine, capacity));
                let hopeless =
                    self.dismiss(|model, waiter| !model.could_hold(&waiter.request, &waiter.locality));
                answers.extend(hopeless.iter().map(|waiter| Answer::NeverFits(waiter.process)));
            }
            Event::Word(ToScheduler::Leave { machine }) => {
                self.silent.retain(|id| *id != machine);
                self.machines.retain(|(id, _)| *id != machine);
                self.placed.retain(|(_, on, _)| *on != machine);
            }
            Event::Word(ToScheduler::Runs { task: process, machine, request }) => {
                if !self.knows(process) && self.machines.iter().any(|(id, _)| *id == machine) {
                    self.placed.push((process, machine, request));
                }
            }
            Event::Word(ToScheduler::Want { task: process, request, locality, deadline }) => {
                self.wants += 1;
                if self.knows(process) {
                    answers.push(Answer::Duplicate(process));
                } else if !self.could_hold(&request, &locality) {
                    answers.push(Answer::NeverFits(process));
                } else {
                    let (rank, overtaken) = (self.reserving_arrivals, 0);
                    self.reserving_arrivals += u64::from(request != Request::default());
                    let deadline = deadline.map(|deadline| now + deadline);
                    self.waiting.push(Waiter { process, request, locality, deadline, rank, overtaken });
                }
            }
            Event::Word(ToScheduler::Withdraw { task: process }) => {
                let before = self.waiting.len();
                self.waiting.retain(|waiter| waiter.process != process);
                self.withdrawn += before - self.waiting.len();
                self.placed.retain(|(id, ..)| *id != process);
            }
            Event::Word(ToScheduler::Ended { task: process }) => {
                self.placed.retain(|(id, ..)| *id != process)
            }
        }
        self.settle(&mut answers);
        answers
    }

    fn knows(&self, process: Task) -> bool {
        self.waiting.iter().any(|waiter| waiter.process == process)
            || self.placed.iter().any(|(id, ..)| *id == process)
    }

    fn could_hold(&self, request: &Request, locality: &Locality) -> bool {
        let mut allowed = self.machines.iter().filter(|(id, _)| locality.allows(*id)).peekable();
        allowed.peek().is_none() || allowed.any(|(_, total)| fits(total, request))
    }

    /// Takes those out for which `test` holds, in order of arrival.
    fn dismiss(&mut self, test: impl Fn(&Model, &Waiter) -> bool) -> Vec<Waiter> {
        let waiting = std::mem::take(&mut self.waiting);
        let (gone, left) = waiting.into_iter().partition(|waiter| test(self, waiter));
        self.waiting = left;
        gone
    }

    fn free(&self, machine: MachineId, total: &Capacity) -> Capacity {
        if self.silent.contains(&machine) {
            return Capacity { cores: Cores::NONE, memory: Memory::NONE, processes: 0 };
        }
        let here = self.placed.iter().filter(|(_, on, _)| *on == machine);
        here.fold(*total, |free, (_, _, request)| Capacity {
            cores: Cores::from_shares(free.cores.shares().saturating_sub(request.cores.shares())),
            memory: Memory(free.memory.bytes().saturating_sub(request.memory.bytes())),
            processes: free.processes.saturating_sub(1),
        })
    }

    fn best_fit(&self, request: &Request, locality: &Locality) -> Option<MachineId> {
        let rooms = self.machines.iter().map(|(id, total)| (*id, self.free(*id, total)));
        let fitting: Vec<_> =
            rooms.filter(|(id, free)| locality.allows(*id) && fits(free, request)).collect();
        let preferred = fitting.iter().map(|(id, _)| *id).find(|id| locality.prefer == Some(*id));
        preferred.or_else(|| fitting.iter().map(|(id, free)| (free.cores, *id)).min().map(|(_, id)| id))
    }

    /// The first in the order of arrival that has the turn and fits, and where.
    fn next(&self) -> Option<(usize, MachineId)> {
        let oldest = self.waiting.iter().find(|waiter| waiter.request != Request::default());
        let mut candidates = self.waiting.iter().enumerate();
        candidates.find_map(|(index, waiter)| {
            let turn = waiter.request == Request::default()
                || oldest.is_some_and(|oldest| waiter.rank <= oldest.rank + BACKFILL);
            self.best_fit(&waiter.request, &waiter.locality).filter(|_| turn).map(|machine| (index, machine))
        })
    }

    fn settle(&mut self, answers: &mut Vec<Answer>) {
        while let Some((index, machine)) = self.next() {
            let Waiter { process, request, .. } = self.waiting.remove(index);
            if request != Request::default() {
                self.waiting[..index].iter_mut().for_each(|waiter| waiter.overtaken += 1);
            }
            self.placed.push((process, machine, request));
            answers.push(Answer::Place(process, machine));
        }
    }
}

fn fits(room: &Capacity, request: &Request) -> bool {
    room.cores >= request.cores && room.memory >= request.memory && room.processes >= 1
}

/// Few ids and small numbers, so that things meet.
fn events() -> impl Strategy<Value = Vec<(Event, Duration)>> {
    let process = || (0u64..24).prop_map(task);
    let machine = || (0u32..3).prop_map(MachineId);
    let one = move || proptest::option::weighted(0.2, machine());
    let locality = (one(), one(), one()).prop_map(|(on, not, prefer)| Locality { on, not, prefer });
    let request = (0u64..6, 0u64..4)
        .prop_map(|(shares, bytes)| Request { cores: Cores::from_shares(shares), memory: Memory(bytes) });
    let deadline = proptest::option::of((0u64..20).prop_map(Duration::from_secs));
    let capacity = (0u64..8, 0u64..8, 0u32..5).prop_map(|(shares, bytes, processes)| Capacity {
        cores: Cores::from_shares(shares),
        memory: Memory(bytes),
        processes,
    });
    let event = prop_oneof![
        2 => (machine(), capacity)
            .prop_map(|(machine, capacity)| Event::Word(ToScheduler::Join { machine, capacity })),
        1 => machine().prop_map(|machine| Event::Word(ToScheduler::Leave { machine })),
        1 => machine().prop_map(Event::Silent),
        1 => (process(), machine(), request.clone())
            .prop_map(|(task, machine, request)| Event::Word(ToScheduler::Runs { task, machine, request })),
        8 => (process(), request, locality, deadline).prop_map(|(task, request, locality, deadline)| {
            Event::Word(ToScheduler::Want { task, request, locality, deadline })
        }),
        4 => process().prop_map(|process| Event::Word(ToScheduler::Ended { task: process })),
        2 => process().prop_map(|process| Event::Word(ToScheduler::Withdraw { task: process })),
        1 => Just(Event::Tick),
    ];
    let timed = proptest::collection::vec((event, 0u64..3), 1..200);
    timed.prop_map(|events| {
        let mut now = Duration::ZERO;
        let at = |(event, later)| {
            now += Duration::from_secs(later);
            (event, now)
        };
        events.into_iter().map(at).collect()
    })
}

/// What must hold between any two steps, whatever the model says.
fn check(state: &State, model: &Model, now: Duration) {
    let report = state.report();
    assert_eq!((report.placed, report.waiting), (model.placed.len(), model.waiting.len()));
    let frees = model.machines.iter().map(|(id, total)| model.free(*id, total));
    let free = frees.fold((0, 0, 0), |sum, free| {
        (sum.0 + free.cores.shares(), sum.1 + free.memory.bytes(), sum.2 + free.processes)
    });
    assert_eq!(free, (report.free.cores.shares(), report.free.memory.bytes(), report.free.processes));
    let deadlines = model.waiting.iter().filter_map(|waiter| waiter.deadline);
    assert_eq!(state.next_deadline(), deadlines.min());
    assert!(model.next().is_none(), "one that has the turn and fits was left waiting");
    for waiter in &model.waiting {
        // One that wants nothing but a place on a certain machine holds nobody back, and so is not protected.
        let is_choosy = waiter.request == Request::default() && waiter.locality != ANY;
        assert!(is_choosy || waiter.overtaken <= BACKFILL, "{:?} was overtaken too often", waiter.process);
        assert!(state.waiting(waiter.process).is_some());
        assert!(waiter.deadline.is_none_or(|deadline| deadline >= now));
    }
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(events in events()) {
        let (mut state, mut again, mut model) = (State::new(BACKFILL), State::new(BACKFILL), Model::default());
        let mut answers_given = 0;
        for (event, now) in &events {
            let effects = state.step(event.clone(), *now);
            prop_assert_eq!(&effects, &again.step(event.clone(), *now), "the same events, other effects");
            let answers: Vec<_> = effects.iter().map(answer).collect();
            prop_assert_eq!(&answers, &model.step(event, *now));
            answers_given += answers.len();
            check(&state, &model, *now);
            prop_assert_eq!(model.wants, answers_given + model.withdrawn + model.waiting.len());
        }

        let now = events.last().map_or(NOW, |(_, now)| *now);
        for process in (0..24).map(task) {
            state.step(Event::Word(ToScheduler::Withdraw { task: process }), now);
        }
        for (machine, capacity) in model.machines {
            state.step(Event::Word(ToScheduler::Join { machine, capacity }), now);
        }
        let report = state.report();
        prop_assert_eq!((report.placed, report.waiting), (0, 0));
        prop_assert_eq!(report.free, report.total);
        prop_assert_eq!(state.next_deadline(), None);
    }
}
