//! Processes that connect to each other, and hold no channel before.

use std::{process, thread, time::Duration};

use archean::{
    AcceptError, ConnectError, Ending, ProcessId, Reason, Receiver, RecvError, Sender, accept, channel,
    connect, me, spawn,
};
use futures::FutureExt;
use protocol::limits::{CONNECTIONS_WAITING_MAX, RING_BYTES_MIN};
use tests::own;

/// Long enough to be waited for, and in vain.
const SHORT: Duration = Duration::from_millis(1);

/// Answers what comes from those who connect, so many of them one after the other.
async fn serve(connections: u32) {
    for _ in 0..connections {
        let connection = accept().await.unwrap();
        let (mut answers, mut questions) = connection.typed::<u64, u32>();
        while let Ok(number) = questions.recv_owned().await {
            answers.send(2 * u64::from(number)).await.unwrap();
        }
    }
}

async fn ask(process: ProcessId, count: u32) {
    let (mut questions, mut answers) = connect::<u32, u64>(process).await.unwrap();
    for number in 0..count {
        questions.send(number).await.unwrap();
        assert_eq!(answers.recv_owned().await, Ok(2 * u64::from(number)));
    }
    drop(questions);
    assert_eq!(answers.recv_owned().await, Err(RecvError::Closed));
}

#[archean::test]
async fn a_process_is_asked_and_answers() -> anyhow::Result<()> {
    let child = spawn(serve, 2).await?;
    ask(child.id(), 1000).await;
    ask(child.id(), 10).await;
    child.join().await?;
    Ok(())
}

#[archean::test]
async fn siblings_find_each_other_by_their_ids() -> anyhow::Result<()> {
    const SIBLINGS: u32 = 8;
    let server = spawn(serve, SIBLINGS).await?;
    let mut children = Vec::new();
    for _ in 0..SIBLINGS {
        children.push(spawn(async |id: u64| ask(ProcessId(id), 100).await, server.id().0).await?);
    }
    for child in children {
        child.join().await?;
    }
    server.join().await?;
    Ok(())
}

#[archean::test]
async fn who_accepts_learns_who_has_connected() -> anyhow::Result<()> {
    async fn call(number: u32) {
        let parent = me().parent().unwrap();
        let (mut sender, mut receiver) = connect::<u32, ()>(parent).await.unwrap();
        sender.send(number).await.unwrap();
        receiver.recv_owned().await.unwrap();
    }
    let mut children = Vec::new();
    for number in 0..4 {
        children.push(spawn(call, number).name(format!("caller {number}")).await?);
    }
    for _ in 0..4 {
        let connection = accept().await?;
        let (peer, name) = (connection.peer, connection.name.clone());
        let (mut outbox, mut inbox): (Sender<()>, Receiver<u32>) =
            (connection.sender.into(), connection.receiver.into());
        let number = inbox.recv_owned().await?;
        assert_eq!((peer, name), (children[number as usize].id(), format!("caller {number}")));
        outbox.send(()).await?;
    }
    for child in children {
        child.join().await?;
    }
    Ok(())
}

#[archean::test]
async fn what_was_sent_before_it_was_accepted_arrives() -> anyhow::Result<()> {
    async fn send(way: u8) {
        let (mut sender, _receiver) = connect::<u32, ()>(me().parent().unwrap()).await.unwrap();
        for number in 0..1000 {
            sender.send(number).await.unwrap();
        }
        match way {
            0 => (),
            1 => sender.reset("enough"),
            _ => process::exit(5),
        }
    }
    for way in 0..3 {
        let child = spawn(send, way).await?;
        assert_eq!(child.join().await.is_ok(), way < 2);
        let (mut sender, mut receiver) = accept().await?.typed::<(), u32>();
        for number in 0..1000 {
            assert_eq!(receiver.recv_owned().await, Ok(number));
        }
        let error = receiver.recv_owned().await.unwrap_err();
        let is_right = match way {
            0 => error == RecvError::Closed,
            1 => error == RecvError::Reset("enough".to_owned()),
            _ => matches!(&error, RecvError::PeerDied(cause) if cause.ending == Ending::Exited { code: 5 }),
        };
        assert!(is_right, "{way}: {error}");
        let reason = sender.send(()).await.err().map(|error| error.reason);
        assert!(matches!(reason, Some(Reason::Closed | Reason::PeerDied(_)) | None), "{reason:?}");
    }
    Ok(())
}

#[archean::test]
async fn who_ends_without_accepting_resets_the_ends() -> anyhow::Result<()> {
    async fn end(code: i32, mut go: Receiver<()>) {
        go.recv_owned().await.unwrap();
        if code != 0 {
            process::exit(code);
        }
    }
    for code in [0, 5] {
        let (mut go, gone) = channel();
        let child = spawn(end, (code, gone)).name("deaf").await?;
        let (mut sender, mut receiver) = connect::<u32, u32>(child.id()).await?;
        sender.send(1).await?;
        go.send(()).await?;
        let error = receiver.recv_owned().await.unwrap_err();
        let reason = loop {
            if let Err(error) = sender.send(1).await {
                break error.reason;
            }
        };
        match (code, error, reason) {
            (0, RecvError::Reset(one), Reason::Reset(other)) => {
                assert!(one == other && one.contains("deaf") && one.contains("without accepting"), "{one}");
            }
            (_, RecvError::PeerDied(one), Reason::PeerDied(other)) => {
                assert_eq!((&one, &one.ending), (&other, &Ending::Exited { code: 5 }));
            }
            other => panic!("{other:?}"),
        }
        let id = child.id();
        assert_eq!(child.join().await.is_ok(), code == 0);
        // The process is not there any more.
        match connect::<u32, u32>(id).await.unwrap_err() {
            ConnectError::Ended(cause) => assert_eq!((cause.process, cause.name.as_str()), (id, "deaf")),
            error => panic!("{error}"),
        }
    }
    Ok(())
}

#[archean::test]
async fn a_process_that_is_not_there_is_told_at_once() {
    let nobody = ProcessId(12);
    let errors = [
        connect::<u8, u8>(nobody).await.unwrap_err(),
        connect::<u8, u8>(nobody).start_blocking().unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error, ConnectError::NoProcess(nobody));
        assert!(error.to_string().contains(&nobody.to_string()), "{error}");
    }
}

#[archean::test]
async fn a_process_connects_to_itself_until_too_many_wait() -> anyhow::Result<()> {
    let (own, mut ends) = (me().id(), Vec::new());
    for number in 0..CONNECTIONS_WAITING_MAX as u32 {
        let (mut sender, receiver) = connect::<u32, u32>(own).capacity(RING_BYTES_MIN).await?;
        if number < 100 {
            sender.send(number).await?;
        }
        ends.push((sender, receiver));
    }
    let error = connect::<u32, u32>(own).await.unwrap_err();
    assert!(matches!(error, ConnectError::TooMany(_)), "{error}");
    assert!(error.to_string().contains(&CONNECTIONS_WAITING_MAX.to_string()), "{error}");
    // In order, and each that is accepted makes room for one.
    for number in 0..100 {
        let (_, mut receiver) = accept().await?.typed::<u32, u32>();
        assert_eq!(receiver.recv_owned().await, Ok(number));
    }
    ends.push(connect(own).await?);
    drop(ends);
    // Those that were given up meanwhile are closed.
    for _ in 0..CONNECTIONS_WAITING_MAX - 99 {
        let (_, mut receiver) = accept().await?.typed::<u32, u32>();
        assert_eq!(receiver.recv_owned().await, Err(RecvError::Closed));
    }
    assert_eq!(accept().deadline(SHORT).await.unwrap_err(), AcceptError::TimedOut);
    Ok(())
}

#[archean::test]
async fn waiting_has_an_end() -> anyhow::Result<()> {
    assert_eq!(accept().deadline(SHORT).await.unwrap_err(), AcceptError::TimedOut);
    assert_eq!(accept().deadline(SHORT).wait_blocking().unwrap_err(), AcceptError::TimedOut);
    assert_eq!(accept().deadline(Duration::ZERO).wait_blocking().unwrap_err(), AcceptError::TimedOut);
    // The manager may have answered by then.
    let late = connect::<u8, u8>(me().id()).deadline(Duration::ZERO).start_blocking();
    if let Err(error) = late {
        assert_eq!(error, ConnectError::TimedOut(me().id()));
    } else {
        drop(late);
    }
    // Given up or not, the connection is there, and closed.
    let (mut sender, mut receiver) = accept().deadline(Duration::MAX).await?.typed::<u8, u8>();
    assert_eq!(receiver.recv_owned().await, Err(RecvError::Closed));
    while sender.send(1).await.is_ok() {}
    let _open = connect::<u8, u8>(me().id()).deadline(Duration::MAX).await?;
    accept().deadline(Duration::MAX).wait_blocking()?;
    Ok(())
}

#[archean::test]
async fn what_is_given_up_loses_nothing() -> anyhow::Result<()> {
    // A future that has asked is dropped: the other side finds it closed.
    assert!(connect::<u8, u8>(me().id()).into_future().now_or_never().is_none());
    let (_, mut receiver) = accept().await?.typed::<u8, u8>();
    assert_eq!(receiver.recv_owned().await, Err(RecvError::Closed));
    // Those that have waited and were dropped take no connection along.
    for round in 0..50_u8 {
        for _ in 0..3 {
            assert!(accept().into_future().now_or_never().is_none());
        }
        let (mut sender, _) = connect::<u8, u8>(me().id()).await?;
        sender.send(round).await?;
        let connection = match round % 2 {
            0 => accept().await?,
            _ => accept().wait_blocking()?,
        };
        assert_eq!(connection.typed::<u8, u8>().1.recv_owned().await, Ok(round));
    }
    Ok(())
}

#[archean::test]
async fn an_accepted_connection_that_is_dropped_is_closed() -> anyhow::Result<()> {
    let (mut sender, mut receiver) = connect::<u8, u8>(me().id()).await?;
    let connection = accept().await?;
    drop(connection.sender);
    assert_eq!(receiver.recv_owned().await, Err(RecvError::Closed));
    sender.send(1).await?;
    drop(connection.receiver);
    let reason = loop {
        if let Err(error) = sender.send(1).await {
            break error.reason;
        }
    };
    assert_eq!(reason, Reason::Closed);
    Ok(())
}

#[archean::test]
async fn who_says_another_type_is_told() -> anyhow::Result<()> {
    let (mut sender, mut receiver) = connect::<u32, String>(me().id()).await?;
    let (mut outbox, mut inbox) = accept().await?.typed::<Vec<u8>, u64>();
    sender.send(1).await?;
    outbox.send(vec![1]).await?;
    let is_right = |error: RecvError, one: &str, other: &str| match error {
        RecvError::WrongType { expected, found } => expected.contains(one) && found.contains(other),
        _ => false,
    };
    assert!(is_right(inbox.recv_owned().await.unwrap_err(), "u64", "u32"));
    assert!(is_right(receiver.recv_owned().await.unwrap_err(), "String", "Vec"));
    Ok(())
}

#[archean::test]
async fn ends_of_a_connection_move_on_until_they_are_used() -> anyhow::Result<()> {
    async fn echo(mut receiver: Receiver<u32>, mut sender: Sender<u32>) {
        while let Ok(number) = receiver.recv_owned().await {
            sender.send(number + 1).await.unwrap();
        }
    }
    let (mut sender, mut receiver) = connect::<u32, u32>(me().id()).await?;
    sender.send(0).await?;
    let (outbox, inbox) = accept().await?.typed::<u32, u32>();
    let (mut there, parcels) = channel::<(Receiver<u32>, Sender<u32>)>();
    there.send((inbox, outbox)).await?;
    let child = spawn(
        async |mut parcels: Receiver<(Receiver<u32>, Sender<u32>)>| {
            let (receiver, sender) = parcels.recv_owned().await.unwrap();
            echo(receiver, sender).await;
        },
        parcels,
    );
    let child = child.await?;
    for number in 0..100 {
        assert_eq!(receiver.recv_owned().await, Ok(number + 1));
        sender.send(number + 1).await?;
    }
    drop(sender);
    assert_eq!(receiver.recv_owned().await, Ok(101));
    assert_eq!(receiver.recv_owned().await, Err(RecvError::Closed));
    child.join().await?;
    Ok(())
}

/// Connects to itself and accepts on two tasks of that executor.
async fn meet() {
    const COUNT: u32 = 50;
    let call = async {
        for number in 0..COUNT {
            let (mut sender, mut receiver) = connect::<u32, u32>(me().id()).await.unwrap();
            sender.send(number).await.unwrap();
            assert_eq!(receiver.recv_owned().await, Ok(number + 1));
        }
    };
    let take = async {
        for _ in 0..COUNT {
            let (mut sender, mut receiver) = accept().await.unwrap().typed::<u32, u32>();
            sender.send(receiver.recv_owned().await.unwrap() + 1).await.unwrap();
        }
    };
    futures::join!(call, take);
}

#[archean::test]
fn under_any_executor_and_on_threads() -> anyhow::Result<()> {
    archean::block_on(meet());
    futures::executor::block_on(meet());
    smol::block_on(meet());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    runtime.block_on(async { tokio::spawn(meet()).await })?;

    // Several who accept get one each.
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(|| {
                let (mut sender, mut receiver) = accept().wait_blocking().unwrap().typed::<u32, u32>();
                sender.send_blocking(receiver.recv_owned_blocking().unwrap() + 1).unwrap();
            })
        })
        .collect();
    for number in 0..4 {
        let (mut sender, mut receiver) = connect::<u32, u32>(me().id()).start_blocking()?;
        sender.send_blocking(number)?;
        assert_eq!(receiver.recv_owned_blocking(), Ok(number + 1));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    Ok(())
}

#[archean::test]
async fn connections_that_are_over_leave_nothing() -> anyhow::Result<()> {
    let launcher = std::os::unix::process::parent_id();
    let child = spawn(serve, 301).await?;
    ask(child.id(), 1).await;
    let before = own::descriptors(process::id());
    let there = own::descriptors(launcher);
    for _ in 0..300 {
        ask(child.id(), 2).await;
    }
    assert!(own::descriptors(process::id()) <= before + 4);
    tests::until("the launcher holds no more than before", || own::descriptors(launcher) <= there + 4);
    child.join().await?;
    Ok(())
}

#[test]
fn outside_of_a_job_it_says_so() {
    assert_eq!(connect::<u8, u8>(ProcessId(1)).start_blocking().unwrap_err(), ConnectError::NotInitialised);
    assert_eq!(accept().wait_blocking().unwrap_err(), AcceptError::NotInitialised);
    let connected = connect::<u8, u8>(ProcessId(1)).deadline(SHORT).into_future().now_or_never();
    assert_eq!(connected.unwrap().unwrap_err(), ConnectError::NotInitialised);
    assert_eq!(
        accept().deadline(SHORT).into_future().now_or_never().unwrap().unwrap_err(),
        AcceptError::NotInitialised
    );
}
