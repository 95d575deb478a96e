//! The scheduler as a task: the only file with a clock.

use protocol::placement::{FromScheduler, ToScheduler};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{Instant, timeout_at},
};

use crate::state::{Event, State};

/// Answers the words of `inbox` into `outbox`, until `inbox` is closed or nobody hears the answers any more.
///
/// The channels have no bound of their own: a process has a few words outstanding at most (it is wanted, then
/// withdrawn or ended, and answered once), and the number of processes is bounded by those who start them.
///
/// # Cancel safety
/// Dropping the future ends the scheduler; what it had reserved is forgotten.
pub async fn run(mut inbox: UnboundedReceiver<ToScheduler>, outbox: UnboundedSender<FromScheduler>) {
    let start = Instant::now();
    let mut state = State::default();
    loop {
        // A deadline that the clock can't express never comes.
        let tick = state.next_deadline().and_then(|deadline| start.checked_add(deadline));
        let received = match tick {
            Some(tick) => timeout_at(tick, inbox.recv()).await,
            None => Ok(inbox.recv().await),
        };
        let event = match received {
            Ok(Some(word)) => Event::Word(word),
            Ok(None) => return,
            Err(_) => Event::Tick,
        };
        for answer in state.step(event, start.elapsed()) {
            if outbox.send(answer).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::{
        ids::MachineId,
        placement::{Capacity, Refusal, Shortage},
        resources::{Cores, Memory, Request},
    };
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::state::{ANY, task};

    const MACHINE: MachineId = MachineId(1);

    fn join() -> ToScheduler {
        let capacity = Capacity { cores: Cores::whole(1), memory: Memory(1 << 30), processes: 8 };
        ToScheduler::Join { machine: MACHINE, capacity }
    }

    fn want(process: u64, deadline: Option<Duration>) -> ToScheduler {
        let request = Request { cores: Cores::whole(1), memory: Memory::NONE };
        ToScheduler::Want { task: task(process), request, locality: ANY, deadline }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_passes_by_itself() {
        let (words, inbox) = unbounded_channel();
        let (outbox, mut answers) = unbounded_channel();
        let service = tokio::spawn(run(inbox, outbox));
        let deadline = Duration::from_secs(5);
        for word in [join(), want(1, None), want(2, Some(deadline)), want(3, Some(Duration::MAX))] {
            words.send(word).unwrap();
        }
        let task_1 = task(1);
        assert_eq!(answers.recv().await, Some(FromScheduler::Place { task: task_1, machine: MACHINE }));

        let before = Instant::now();
        let Some(FromScheduler::Refuse { task: refused, refusal }) = answers.recv().await else {
            panic!("the second was not refused");
        };
        assert_eq!(refused, task(2));
        let Refusal::Deadline { waited, shortage } = refusal else { panic!("{refusal}") };
        assert!(waited >= deadline && before.elapsed() >= deadline, "{waited:?}");
        let one = Cores::whole(1);
        assert_eq!(shortage, Shortage::Cores { wanted: one, free: Cores::NONE, total: one });

        words.send(ToScheduler::Ended { task: task_1 }).unwrap();
        let task_3 = task(3);
        assert_eq!(answers.recv().await, Some(FromScheduler::Place { task: task_3, machine: MACHINE }));

        drop(words);
        service.await.unwrap();
        assert_eq!(answers.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_nobody_hears_it() {
        let (words, inbox) = unbounded_channel();
        let (outbox, answers) = unbounded_channel();
        let service = tokio::spawn(run(inbox, outbox));
        drop(answers);
        words.send(join()).unwrap();
        words.send(want(1, None)).unwrap();
        service.await.unwrap();
        assert!(words.is_closed());
    }
}
