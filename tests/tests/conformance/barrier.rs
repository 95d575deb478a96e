//! Members of a barrier.

use std::{thread, time::Duration};

use archean::{Barrier, Member, Receiver, Sender, Tick, channel};
use futures::future::join_all;
use tests::{place::Place, random::Random};

/// Lets others go on, now and then.
fn dawdle(random: &mut Random) {
    if random.below(4) == 0 {
        thread::sleep(Duration::from_micros(random.below(200)));
    }
}

/// Waits by turns as a task and as a thread.
async fn step(member: &mut Member) -> u64 {
    let by_thread = member.tick() % 2 == 1;
    let tick = if by_thread { member.wait_blocking() } else { member.wait().await };
    assert_eq!(tick, Ok(member.tick()));
    member.tick()
}

/// Tells its neighbour in each tick which one it is in, and looks at what it is told itself.
async fn keep_step(
    seed: u64,
    ticks: u64,
    mut member: Member,
    mut left: Receiver<u64>,
    mut right: Sender<u64>,
) -> u64 {
    let mut random = Random::new(seed);
    right.send(0).await.unwrap();
    assert_eq!(left.recv_owned().await, Ok(0));
    let mut heard = 0;
    for tick in 1..=ticks {
        assert_eq!(step(&mut member).await, tick);
        // All have begun the tick before, or this one could not have begun. What they said of it may still be on its
        // way: only within a channel is there an order.
        while heard + 1 < tick {
            heard = left.recv_owned().await.expect("the neighbour was in that tick");
        }
        dawdle(&mut random);
        // After the last one it may be gone.
        assert!(right.send(tick).await.is_ok() || tick == ticks);
        dawdle(&mut random);
        while let Ok(Some(message)) = left.try_recv() {
            heard = message.to_native();
            assert!(heard <= tick, "the neighbour is in tick {heard}, and this one in {tick}");
        }
    }
    heard
}

/// What becomes of a tick in which nobody is late or lost.
fn tick(number: u64, members: usize, joined: &[&str], left: &[&str]) -> Tick {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut tick = Tick::default();
    (tick.number, tick.members, tick.joined, tick.left) = (number, members, names(joined), names(left));
    tick
}

pub(crate) async fn nobody_runs_ahead(place: Place) -> anyhow::Result<()> {
    const MEMBERS: usize = 4;
    const TICKS: u64 = 500;
    let mut barrier = Barrier::new();
    let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..MEMBERS).map(|_| channel()).unzip();
    receivers.rotate_right(1);
    let mut children = Vec::new();
    for (index, (right, left)) in senders.into_iter().zip(receivers).enumerate() {
        let member = barrier.join(format!("member {index}"));
        children.push(place.start(keep_step, (index as u64, TICKS, member, left, right)).await?);
    }
    for number in 1..=TICKS {
        let found = if number % 2 == 0 { barrier.wait().await } else { barrier.wait_blocking() };
        let names = ["member 0", "member 1", "member 2", "member 3"];
        assert_eq!(found, tick(number, MEMBERS, if number == 1 { &names } else { &[] }, &[]));
    }
    for child in children {
        assert!(child.join().await? + 1 >= TICKS);
    }
    let last = barrier.wait().await;
    assert_eq!((last.members, last.left.len()), (0, MEMBERS));
    Ok(())
}

pub(crate) async fn members_are_released_whatever_the_barrier_does_next(place: Place) -> anyhow::Result<()> {
    async fn once(members: Vec<Member>) {
        let mut members = members;
        for tick in join_all(members.iter_mut().map(Member::wait)).await {
            assert_eq!(tick, Ok(1));
        }
    }
    let mut barrier = Barrier::new();
    let mut children = Vec::new();
    for _ in 0..3 {
        let members = (0..20).map(|index| barrier.join(index.to_string())).collect::<Vec<_>>();
        children.push(place.start(once, members).await?);
    }
    assert_eq!(barrier.wait().await.members, 60);
    for child in children {
        child.join().await?;
    }
    Ok(())
}

pub(crate) async fn members_move_in_messages_until_they_are_used(place: Place) -> anyhow::Result<()> {
    async fn relay(mut members: Receiver<Member>, mut others: Sender<Member>) {
        while let Ok(member) = members.recv_owned().await {
            assert!(member.check_movable().is_ok());
            others.send(member).await.unwrap();
        }
    }
    async fn run(mut members: Receiver<Member>, ticks: u64) -> usize {
        let mut all = Vec::new();
        while let Ok(member) = members.recv_owned().await {
            all.push(member);
        }
        for number in 1..=ticks {
            for tick in join_all(all.iter_mut().map(Member::wait)).await {
                assert_eq!(tick, Ok(number));
            }
        }
        assert!(all.iter().all(|member| member.check_movable().is_err()));
        all.len()
    }
    const MEMBERS: usize = 50;
    let mut barrier = Barrier::new();
    let ((mut there, members), (through, last)) = (channel(), channel());
    let children = (place.start(relay, (members, through)).await?, place.start(run, (last, 20)).await?);
    for index in 0..MEMBERS {
        there.send(barrier.join(index.to_string())).await?;
    }
    // One that is lost on its way is not waited for.
    let ((mut nowhere, gone), member) = (channel(), barrier.join("lost"));
    nowhere.send(member).await?;
    drop(gone);
    drop(there);
    let first = barrier.wait().await;
    assert_eq!((first.members, first.joined.len(), first.lost.len()), (MEMBERS, MEMBERS + 1, 1));
    assert_eq!(first.lost[0].0, "lost");
    for number in 2..=20 {
        assert_eq!(barrier.wait().await, tick(number, MEMBERS, &[], &[]));
    }
    children.0.join().await?;
    assert_eq!(children.1.join().await?, MEMBERS);
    Ok(())
}
