//! Members of a barrier: in step, joining and leaving, late, lost, and waits that are given up.
#![expect(unsafe_code, reason = "a process ends itself by a signal")]

use std::{pin::pin, process, time::Duration};

use archean::{
    Barrier, BarrierError, Child, Ending, Member, Reason, RecvError, Sender, Tick, channel, spawn, time,
};
use futures::FutureExt;
use tests::random::Random;

/// Long enough for some to arrive, and short enough to wait in vain many times.
const SHORT: Duration = Duration::from_millis(1);

/// What becomes of a tick in which nobody is late or lost.
fn tick(number: u64, members: usize, joined: &[&str], left: &[&str]) -> Tick {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut tick = Tick::default();
    (tick.number, tick.members, tick.joined, tick.left) = (number, members, names(joined), names(left));
    tick
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
