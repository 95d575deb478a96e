//! Members of a barrier: in step, joining and leaving, late, lost, and waits that are given up.
#![expect(unsafe_code, reason = "a process ends itself by a signal")]

use std::{pin::pin, process, thread, time::Duration};

use archean::{
    Barrier, BarrierError, Child, Ending, Member, Reason, Receiver, RecvError, Sender, Tick, channel, spawn,
    time,
};
use futures::{FutureExt, future::join_all};
use tests::random::Random;

/// Long enough for some to arrive, and short enough to wait in vain many times.
const SHORT: Duration = Duration::from_millis(1);

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
        // All have begun the tick before, or this one could not have begun.
        while heard + 1 < tick {
            heard = left.try_recv().unwrap().expect("the neighbour was in that tick").to_native();
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

#[archean::test]
async fn nobody_runs_ahead() -> anyhow::Result<()> {
    const MEMBERS: usize = 4;
    const TICKS: u64 = 500;
    let mut barrier = Barrier::new();
    let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..MEMBERS).map(|_| channel()).unzip();
    receivers.rotate_right(1);
    let mut children = Vec::new();
    for (index, (right, left)) in senders.into_iter().zip(receivers).enumerate() {
        let member = barrier.join(format!("member {index}"));
        children.push(spawn(keep_step, (index as u64, TICKS, member, left, right)).await?);
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

#[archean::test]
async fn members_are_released_whatever_the_barrier_does_next() -> anyhow::Result<()> {
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
        children.push(spawn(once, members).await?);
    }
    assert_eq!(barrier.wait().await.members, 60);
    for child in children {
        child.join().await?;
    }
    Ok(())
}

#[archean::test]
async fn members_join_and_leave_between_ticks() -> anyhow::Result<()> {
    let mut barrier = Barrier::default();
    assert!(barrier.is_empty());
    assert_eq!(barrier.wait().await, tick(1, 0, &[], &[]));
    let mut first = barrier.join("first");
    assert_eq!((first.tick(), barrier.len()), (1, 1));
    let found = futures::join!(barrier.wait(), first.wait());
    assert_eq!(found, (tick(2, 1, &["first"], &[]), Ok(2)));

    // Whom a member invites is waited for in this very tick.
    let mut second = first.invite("second").await?;
    let mut third = first.invite_blocking("third")?;
    assert_eq!((second.tick(), third.tick()), (2, 2));
    {
        let mut own = pin!(first.wait());
        late(&mut barrier, own.as_mut(), &["second", "third"]).await;
        let found = futures::join!(barrier.wait(), own, second.wait(), third.wait());
        assert_eq!(found, (tick(3, 3, &["second", "third"], &[]), Ok(3), Ok(3), Ok(3)));
    }
    second.leave();
    drop(third);
    let (mut found, number) = futures::join!(barrier.wait(), first.wait());
    found.left.sort_unstable();
    assert_eq!((found, number), (tick(4, 1, &[], &["second", "third"]), Ok(4)));
    first.leave();
    assert_eq!(barrier.wait().await, tick(5, 0, &[], &["first"]));
    Ok(())
}

/// Lets one that waits arrive, until those are late and nobody else.
async fn late<F: Future + Unpin>(barrier: &mut Barrier, mut arriving: F, names: &[&str]) {
    loop {
        assert!((&mut arriving).now_or_never().is_none(), "the tick is not over");
        let late = if names.len().is_multiple_of(2) {
            barrier.wait_timeout(SHORT).await.unwrap_err()
        } else {
            barrier.wait_timeout_blocking(SHORT).unwrap_err()
        };
        if late.names == names {
            assert!(late.to_string().ends_with(&names.join(", ")), "{late}");
            return;
        }
    }
}

#[archean::test]
async fn those_that_are_late_are_named_and_catch_up() -> anyhow::Result<()> {
    let mut barrier = Barrier::new();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| barrier.join(name));
    // Nobody is released by a wait in vain.
    {
        let mut own = pin!(a.wait());
        late(&mut barrier, own.as_mut(), &["b", "c"]).await;
        let mut others = pin!(futures::future::join(own, b.wait()));
        late(&mut barrier, others.as_mut(), &["c"]).await;
        let (found, (one, other), last) =
            futures::join!(barrier.wait_timeout(Duration::MAX), others, c.wait());
        assert_eq!((found, one, other, last), (Ok(tick(1, 3, &["a", "b", "c"], &[])), Ok(1), Ok(1), Ok(1)));
    }
    // Without `c`, for several ticks.
    for number in 2..=9 {
        {
            let mut others = pin!(futures::future::join(a.wait(), b.wait()));
            late(&mut barrier, others.as_mut(), &["c"]).await;
            let found = barrier.release();
            let mut expected = tick(number, 3, &[], &[]);
            expected.late = vec!["c".to_owned()];
            assert_eq!(found, expected);
            assert_eq!(others.await, (Ok(number), Ok(number)));
        }
        assert_eq!(a.tick(), number);
    }
    // It goes straight on into the newest, for which it has not arrived yet.
    assert_eq!(c.tick(), 1);
    assert_eq!(c.wait_blocking(), Ok(9));
    {
        let mut others = pin!(futures::future::join(a.wait(), b.wait()));
        late(&mut barrier, others.as_mut(), &["c"]).await;
        let found = futures::join!(barrier.wait(), others, c.wait());
        assert_eq!(found, (tick(10, 3, &[], &[]), (Ok(10), Ok(10)), Ok(10)));
    }
    // More releases than the ring of one that is late holds.
    for _ in 0..1000 {
        barrier.release();
    }
    for member in [&mut a, &mut b] {
        // A release that had no room comes with the next wait of the barrier.
        while member.tick() < 1010 {
            let _ = barrier.wait_timeout(Duration::ZERO).await;
            let tick = member.wait().now_or_never();
            assert!(!matches!(tick, Some(Err(_))), "{tick:?}");
        }
    }
    Ok(())
}

/// Takes part until it is told to end, in one way or another, in the middle of a tick.
async fn end_in(mut member: Member, tick: u64, way: u8) {
    while member.wait().await.unwrap() < tick {}
    match way {
        0 => return,
        1 => process::exit(5),
        2 => panic!("as was asked"),
        3 => process::abort(),
        // SAFETY: the call takes two integers, and the process is this one.
        _ => _ = unsafe { libc::kill(process::id() as i32, libc::SIGKILL) },
    }
    unreachable!("it has ended");
}

#[archean::test]
async fn a_member_that_dies_is_lost_and_the_others_go_on() -> anyhow::Result<()> {
    let is_right: [fn(&Ending) -> bool; 4] = [
        |ending| *ending == Ending::Exited { code: 5 },
        |ending| matches!(ending, Ending::Panicked { message, .. } if message == "as was asked"),
        |ending| matches!(ending, Ending::Signalled { signal: libc::SIGABRT, .. }),
        |ending| matches!(ending, Ending::Signalled { signal: libc::SIGKILL, .. }),
    ];
    let mut barrier = Barrier::new();
    let mut children = Vec::new();
    for way in 0..5_u8 {
        let member = barrier.join(way.to_string());
        let child = spawn(end_in, (member, 10 * (1 + u64::from(way)), way)).name(format!("child {way}"));
        children.push(child.await?);
    }
    let stays: Child<()> = {
        let member = barrier.join("stays");
        spawn(async |mut member: Member| while member.wait().await.is_ok() {}, member).await?
    };
    for number in 1..=60 {
        let found = if number % 3 == 0 {
            barrier.wait_timeout_blocking(Duration::MAX)?
        } else {
            barrier.wait().await
        };
        // Each ends in the tick that begins with its number, so that the next one begins without it.
        let way = (number - 1) / 10;
        if number % 10 != 1 || way == 0 {
            assert!(found.left.is_empty() && found.lost.is_empty(), "{found:?}");
        } else if way == 1 {
            assert_eq!((found.left, found.lost), (vec!["0".to_owned()], vec![]));
        } else if way < 6 {
            assert!(found.left.is_empty());
            let [(name, RecvError::PeerDied(cause))] = &found.lost[..] else { panic!("{found:?}") };
            assert_eq!((name, &cause.name), (&(way - 1).to_string(), &format!("child {}", way - 1)));
            assert!(is_right[way as usize - 2](&cause.ending), "{cause}");
        }
        assert_eq!((found.number, found.late.len()), (number, 0));
        assert_eq!(found.members, 6 - way as usize);
    }
    drop(barrier);
    stays.join().await?;
    for (way, child) in children.into_iter().enumerate() {
        assert_eq!(child.join().await.is_ok(), way == 0);
    }
    Ok(())
}

#[archean::test]
async fn a_member_that_is_killed_while_it_is_waited_for_is_lost() -> anyhow::Result<()> {
    async fn stuck(mut member: Member, mut ready: Sender<()>) {
        member.wait().await.unwrap();
        ready.send(()).await.unwrap();
        std::future::pending::<()>().await
    }
    let mut barrier = Barrier::new();
    let (member, (ready, mut begun)) = (barrier.join("stuck"), channel());
    let child = spawn(stuck, (member, ready)).await?;
    barrier.wait().await;
    begun.recv_owned().await?;
    let mut own = barrier.join("own");
    let mut arrived = pin!(own.wait());
    late(&mut barrier, arrived.as_mut(), &["stuck"]).await;
    let (found, number) = futures::join!(
        async {
            let mut wait = pin!(barrier.wait());
            assert!(wait.as_mut().now_or_never().is_none());
            child.kill();
            wait.await
        },
        arrived
    );
    assert_eq!((found.number, found.members, number), (2, 1, Ok(2)));
    let [(name, RecvError::PeerDied(cause))] = &found.lost[..] else { panic!("{found:?}") };
    assert!(name == "stuck" && matches!(cause.ending, Ending::Killed { .. }), "{cause}");
    assert!(child.join().await.is_err());
    Ok(())
}

#[archean::test]
async fn members_move_in_messages_until_they_are_used() -> anyhow::Result<()> {
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
    let children = (spawn(relay, (members, through)).await?, spawn(run, (last, 20)).await?);
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

#[archean::test]
async fn members_hear_that_the_barrier_is_gone() -> anyhow::Result<()> {
    let mut barrier = Barrier::new();
    let [mut waiting, mut late] = ["waiting", "late"].map(|name| barrier.join(name));
    let child = spawn(async |mut member: Member| member.wait().await.is_err(), barrier.join("child")).await?;
    {
        let mut wait = pin!(waiting.wait());
        assert!(wait.as_mut().now_or_never().is_none());
        drop(barrier);
        let error = wait.await.unwrap_err();
        let is_right = match &error {
            BarrierError::Gone(error) => *error == RecvError::Closed,
            BarrierError::NotTold(reason) => *reason == Reason::Closed,
            _ => false,
        };
        assert!(is_right, "{error}");
    }
    assert!(late.wait_blocking().is_err());
    assert!(late.invite("nobody").await.is_err() && late.invite_blocking("nobody").is_err());
    assert!(child.join().await?);

    // Its process dies.
    async fn die(mut members: Sender<Member>) {
        let mut barrier = Barrier::new();
        for _ in 0..2 {
            members.send(barrier.join("member")).await.unwrap();
        }
        barrier.wait().await;
        process::exit(5);
    }
    let (there, mut members) = channel();
    let owner = spawn(die, there).await?;
    let (mut one, mut other) = (members.recv_owned().await?, members.recv_owned().await?);
    let first = futures::join!(one.wait(), other.wait());
    assert_eq!(first, (Ok(1), Ok(1)));
    for error in [one.wait().await.unwrap_err(), other.wait_blocking().unwrap_err()] {
        let cause = match &error {
            BarrierError::Gone(RecvError::PeerDied(cause)) => cause,
            BarrierError::NotTold(Reason::PeerDied(cause)) => cause,
            _ => panic!("{error}"),
        };
        assert_eq!(cause.ending, Ending::Exited { code: 5 });
    }
    assert!(owner.join().await.is_err());
    Ok(())
}

/// Polls a future up to so many times, and lets others go on in between; `None` when it was given up.
async fn briefly<F: Future>(polls: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Some(output) = future.as_mut().now_or_never() {
            return Some(output);
        }
        time::sleep(Duration::from_micros(20)).await;
    }
    None
}

#[archean::test]
async fn waits_that_are_given_up_lose_no_tick() -> anyhow::Result<()> {
    const TICKS: u64 = 300;
    async fn impatient(seed: u64, mut member: Member) -> u64 {
        let (mut random, mut given_up) = (Random::new(seed), 0);
        for number in 1..=TICKS {
            let tick = loop {
                match briefly(1 + random.below(3), member.wait()).await {
                    Some(tick) => break tick,
                    None => given_up += 1,
                }
            };
            assert_eq!(tick, Ok(number));
        }
        given_up
    }
    let mut barrier = Barrier::new();
    let mut children = Vec::new();
    for seed in 0..3 {
        children.push(spawn(impatient, (seed, barrier.join(seed.to_string()))).await?);
    }
    let mut random = Random::new(9);
    for number in 1..=TICKS {
        let found = loop {
            if random.below(2) == 0 {
                if let Some(tick) = briefly(1 + random.below(3), barrier.wait()).await {
                    break tick;
                }
            } else if let Some(Ok(tick)) = briefly(1 + random.below(3), barrier.wait_timeout(SHORT)).await {
                break tick;
            }
        };
        assert_eq!((found.number, found.members, found.late.len()), (number, 3, 0));
    }
    for child in children {
        assert!(child.join().await? > 0);
    }
    Ok(())
}
