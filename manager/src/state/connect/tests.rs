use protocol::{
    control::{Declare, FromProcess, Number, Spawn},
    ending::{Ending, Usage},
    ids::{JobId, MachineId},
    limits::RING_BYTES_MIN,
    resources::{Cores, Memory, Request},
};

use super::*;
use crate::{
    launch::End,
    state::{Effect, Launch, child_id},
};

/// A job whose root runs.
struct Job {
    state: State,
    root: ProcessId,
    ends: u64,
}

impl Job {
    fn new() -> Job {
        let root = child_id(ProcessId(0), 0);
        let launch = Launch {
            process: root,
            parent: None,
            name: "root".to_owned(),
            entry: None,
            argument: Vec::new(),
            ends: Vec::new(),
            request: Request { cores: Cores::NONE, memory: Memory::NONE },
            env: Vec::new(),
            harness: Vec::new(),
            time_limit: None,
            rings: Vec::new(),
        };
        let mut job =
            Job { state: State::new(JobId(0), MachineId(0), launch, Vec::new(), false), root, ends: 0 };
        job.start(root);
        job
    }

    fn start(&mut self, process: ProcessId) {
        self.state.on_place(process, MachineId(0));
        self.state.on_launched(process, &[]);
    }

    /// The root asks for a process, which does not run yet.
    fn want(&mut self, index: u64) -> ProcessId {
        let spawn = Spawn { request: index, index, name: format!("child {index}"), ..Spawn::default() };
        self.state.on_word(self.root, FromProcess::Spawn(spawn)).unwrap();
        child_id(self.root, index)
    }

    /// A channel of the root's: its sender and its receiver.
    fn channel(&mut self) -> [EndId; 2] {
        let ends = [0, 1].map(|end| EndId::new(self.root, 2 * self.ends + end));
        self.ends += 1;
        let [sender, receiver] = ends.map(EndId::to_word);
        let word = Declare { receiver, sender, capacity: RING_BYTES_MIN as u64 };
        self.state.on_word(self.root, FromProcess::Declare(word)).unwrap();
        ends
    }

    /// The root connects to a process. Gives its near ends, sender and receiver.
    fn connect(&mut self, to: ProcessId) -> [EndId; 2] {
        let ([near_sender, far_receiver], [far_sender, near_receiver]) = (self.channel(), self.channel());
        self.offer(to, &[far_sender, far_receiver]).unwrap();
        [near_sender, near_receiver]
    }

    fn offer(&mut self, to: ProcessId, ends: &[EndId]) -> Result<(), Malformed> {
        let ends = EndId::list_to_word(ends);
        let capacity = RING_BYTES_MIN as u64;
        let word = Connect { request: 0, process: to.0, ends, capacity };
        self.state.on_word(self.root, FromProcess::Connect(word))
    }

    fn end(&mut self, process: ProcessId, code: i32) {
        self.state.on_ended(process, End::Exited(code), Usage::default(), String::new());
    }

    /// What a process was told since this was last asked for anybody.
    fn told(&mut self, process: ProcessId) -> Vec<FromManager> {
        let tells = self.state.take_effects().into_iter().filter_map(|effect| match effect {
            Effect::Tell { to, word, .. } if to == process => Some(*word),
            _ => None,
        });
        tells.collect()
    }

    /// The failure that the root was told of last.
    fn failure(&mut self) -> Option<ConnectFailure> {
        let mut answers = self.told(self.root).into_iter().filter_map(|word| match word {
            FromManager::ConnectAnswer(answer) => Some(answer.refusal.map(|refusal| refusal.failure())),
            _ => None,
        });
        answers.next_back().expect("it was answered")
    }

    /// How the root was told that the receiver of a connection has nobody who sends.
    fn over(&mut self, receiver: EndId) -> Over {
        self.state.take_effects();
        let word = protocol::control::End { end: receiver.to_word() };
        self.state.on_word(self.root, FromProcess::OpenReceiver(word)).unwrap();
        match &self.told(self.root)[..] {
            [FromManager::SenderOver(word)] => word.over.clone().try_into().unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

fn offers(words: &[FromManager]) -> Vec<u64> {
    let number = |word: &FromManager| match word {
        FromManager::Connected(word) => Some(word.connection),
        _ => None,
    };
    words.iter().filter_map(number).collect()
}

#[test]
fn who_does_not_run_yet_is_told_when_it_does() {
    let mut job = Job::new();
    let child = job.want(1);
    job.connect(child);
    job.connect(child);
    assert_eq!(job.told(child), []);
    job.start(child);
    assert_eq!(offers(&job.told(child)), [0, 1]);
    job.connect(child);
    assert_eq!(offers(&job.told(child)), [2]);
}

#[test]
fn who_is_never_started_accepts_nothing() {
    let mut job = Job::new();
    let reset = |reason: &str| Over::Reset { reason: reason.to_owned() };
    let child = job.want(1);
    let [_, receiver] = job.connect(child);
    job.state.on_word(job.root, FromProcess::CancelSpawn(Number { number: 1 })).unwrap();
    assert_eq!(job.over(receiver), reset("the spawn was given up"));
    let child = job.want(2);
    let [_, receiver] = job.connect(child);
    job.state.on_place(child, MachineId(0));
    job.state.on_launch_failed(child, "no room".to_owned());
    assert_eq!(job.over(receiver), reset("the process was not started"));
}

#[test]
fn who_ends_without_accepting_is_told_of() {
    let mut job = Job::new();
    for (index, code) in [(1, 0), (2, 5)] {
        let child = job.want(index);
        job.start(child);
        let [_, receiver] = job.connect(child);
        let [_, accepted] = job.connect(child);
        let number = offers(&job.told(child))[1];
        job.state.on_word(child, FromProcess::Accept(Number { number })).unwrap();
        job.end(child, code);
        let died = Cause { process: child, name: format!("child {index}"), ending: Ending::Exited { code } };
        let reset = Over::Reset { reason: "child 1 has ended without accepting the connection".to_owned() };
        assert_eq!(job.over(receiver), if code == 0 { reset } else { Over::Died(died.clone()) });
        assert_eq!(job.over(accepted), Over::Died(died));
        job.offer(child, &[EndId::default(), EndId::default()]).unwrap();
        assert_eq!(job.failure(), Some(ConnectFailure::Ended));
    }
}

#[test]
fn so_many_wait_and_no_more() {
    let mut job = Job::new();
    let (child, other) = (job.want(1), job.want(2));
    job.start(child);
    job.start(other);
    for _ in 0..CONNECTIONS_WAITING_MAX {
        job.connect(child);
        assert_eq!(job.failure(), None);
    }
    job.connect(child);
    assert_eq!(job.failure(), Some(ConnectFailure::TooMany));
    job.connect(other);
    assert_eq!(job.failure(), None);
    // One that it was not offered makes no room, and is not its.
    for (process, number) in [(other, 0), (child, CONNECTIONS_WAITING_MAX as u64), (child, u64::MAX)] {
        job.state.on_word(process, FromProcess::Accept(Number { number })).unwrap();
    }
    job.connect(child);
    assert_eq!(job.failure(), Some(ConnectFailure::TooMany));
    job.state.on_word(child, FromProcess::Accept(Number { number: 0 })).unwrap();
    job.connect(child);
    assert_eq!(job.failure(), None);
}

#[test]
fn only_ends_of_its_own_are_given() {
    let mut job = Job::new();
    let child = job.want(1);
    job.start(child);
    let ([sender, _], [_, receiver]) = (job.channel(), job.channel());
    let foreign = EndId::new(child, 7);
    job.offer(child, &[sender, foreign]).unwrap();
    assert_eq!(job.failure(), Some(ConnectFailure::Invalid));
    job.offer(ProcessId(77), &[sender, receiver]).unwrap();
    assert_eq!(job.failure(), Some(ConnectFailure::NoProcess));
    for ends in [&[][..], &[sender], &[sender, receiver, foreign]] {
        assert!(job.offer(child, ends).is_err());
    }
    // None of them has moved.
    job.offer(child, &[sender, receiver]).unwrap();
    assert_eq!(job.failure(), None);
    job.offer(child, &[sender, receiver]).unwrap();
    assert_eq!(job.failure(), Some(ConnectFailure::Invalid));
}

#[test]
fn not_all_ends_are_remembered_for_ever() {
    let mut lately = EndedLately::default();
    let cause = |id| Cause { process: ProcessId(id), name: String::new(), ending: Ending::Returned };
    for id in 0..=ENDED_REMEMBERED as u64 {
        lately.add(cause(id));
    }
    assert_eq!(lately.get(ProcessId(0)), None);
    assert_eq!(lately.get(ProcessId(1)), Some(&cause(1)));
    assert_eq!((lately.causes.len(), lately.order.len()), (ENDED_REMEMBERED, ENDED_REMEMBERED));
}
