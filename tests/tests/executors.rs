//! Channels under all kinds of executors, threads, and futures that are given up.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Context,
    thread,
    time::Duration,
};

use archean::{Receiver, RecvError, Sender, channel, channel_with_capacity, spawn, time};
use futures::{
    FutureExt, SinkExt, StreamExt,
    executor::block_on,
    future::{Either, select},
    stream,
};

const COUNT: u32 = 20_000;
const SMALL: usize = 4096;

async fn count(mut tx: Sender<u32>) {
    for number in 0..COUNT {
        tx.send(number).await.unwrap();
    }
}

async fn expect(mut rx: Receiver<u32>) {
    for number in 0..COUNT {
        assert_eq!(rx.recv_owned().await, Ok(number));
    }
    assert_eq!(rx.recv().await.unwrap_err(), RecvError::Closed);
}

#[archean::test]
async fn both_ends_in_one_process() -> anyhow::Result<()> {
    let (tx, rx) = channel_with_capacity(SMALL);
    futures::join!(count(tx), expect(rx));
    Ok(())
}

#[archean::test]
fn two_threads_that_block() -> anyhow::Result<()> {
    let (mut tx, mut rx) = channel_with_capacity(SMALL);
    thread::scope(|scope| {
        scope.spawn(move || (0..COUNT).for_each(|number| tx.send_blocking(number).unwrap()));
        for number in 0..COUNT {
            assert_eq!(rx.recv_owned_blocking(), Ok(number));
        }
        assert_eq!(rx.recv_owned_blocking(), Err(RecvError::Closed));
    });
    Ok(())
}

#[archean::test]
fn any_executor_on_either_side() {
    fn foreign(tx: Sender<u32>) {
        block_on(count(tx));
    }
    fn blocking(mut tx: Sender<u32>) {
        (0..COUNT).for_each(|number| tx.send_blocking(number).unwrap());
    }
    for (capacity, is_foreign) in [(SMALL, true), (SMALL, false), (1 << 20, true), (1 << 20, false)] {
        let (tx, rx) = channel_with_capacity(capacity);
        let child = if is_foreign {
            spawn(foreign, tx).start_blocking().unwrap()
        } else {
            spawn(blocking, tx).start_blocking().unwrap()
        };
        block_on(expect(rx));
        block_on(child.join()).unwrap();
        let (tx, rx) = channel_with_capacity(capacity);
        let child = block_on(spawn(expect, rx).into_future()).unwrap();
        if is_foreign {
            block_on(count(tx))
        } else {
            blocking(tx)
        }
        child.join_blocking().unwrap();
    }
}

/// Polls a future a few times at most; `None` when it was given up.
async fn briefly<F: Future>(polls: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Some(output) = future.as_mut().now_or_never() {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn impatient_sender(mut tx: Sender<u32>) -> u32 {
    let mut given_up = 0;
    for number in 0..COUNT {
        while briefly(1 + number % 3, tx.send(number)).await.is_none() {
            given_up += 1;
            if given_up % 16 == 0 {
                time::sleep(Duration::from_micros(50)).await;
            }
        }
    }
    given_up
}

async fn impatient_receiver(mut rx: Receiver<u32>) -> u32 {
    let (mut next, mut given_up) = (0, 0);
    loop {
        match briefly(1 + next % 3, rx.recv_owned()).await {
            Some(Ok(number)) => {
                assert_eq!(number, next);
                next += 1;
            }
            Some(Err(error)) => break assert_eq!(error, RecvError::Closed),
            None => {
                given_up += 1;
                if given_up % 16 == 0 {
                    time::sleep(Duration::from_micros(50)).await;
                }
            }
        }
    }
    assert_eq!(next, COUNT);
    given_up
}

#[archean::test]
fn futures_that_are_given_up_lose_nothing_under_tokio() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    runtime.block_on(async {
        let (tx, rx) = channel_with_capacity(SMALL);
        let child = spawn(impatient_receiver, rx).await?;
        assert!(impatient_sender(tx).await + child.join().await? > 0);
        Ok(())
    })
}

#[archean::test]
async fn whichever_comes_first() -> anyhow::Result<()> {
    let ((one, mut first), (other, mut second)) = (channel(), channel());
    let children = [spawn(count, one).await?, spawn(count, other).await?];
    let mut counts = [0, 0];
    for _ in 0..2 * COUNT {
        let (index, number) = {
            let (first, second) = (pin!(first.recv_owned()), pin!(second.recv_owned()));
            match select(first, second).await {
                Either::Left((Ok(number), _)) => (0, number),
                Either::Right((Ok(number), _)) => (1, number),
                // The other may have more to say.
                Either::Left((Err(_), second)) => (1, second.await?),
                Either::Right((Err(_), first)) => (0, first.await?),
            }
        };
        assert_eq!(number, counts[index]);
        counts[index] += 1;
    }
    assert_eq!(counts, [COUNT, COUNT]);
    for child in children {
        child.join().await?;
    }
    Ok(())
}

#[archean::test]
async fn streams_and_sinks() -> anyhow::Result<()> {
    async fn double(rx: Receiver<u32>, tx: Sender<u32>) {
        let doubled = rx.into_stream().map(|number| Ok(2 * number.unwrap()));
        doubled.forward(tx.into_sink()).await.unwrap();
    }
    let ((tx, there), (answers, rx)) = (channel_with_capacity(SMALL), channel_with_capacity(SMALL));
    let child = spawn(double, (there, answers)).await?;
    let mut sink = tx.into_sink();
    let send = async {
        sink.send_all(&mut stream::iter((0..COUNT).map(Ok))).await.unwrap();
        sink.close().await.unwrap();
        assert!(sink.send(1).await.is_err(), "it is closed");
    };
    let receive = rx.into_stream().map(Result::unwrap).collect::<Vec<u32>>();
    let ((), found) = futures::join!(send, receive);
    assert!(found.into_iter().eq((0..COUNT).map(|number| 2 * number)));
    child.join().await?;
    Ok(())
}

#[archean::test]
async fn a_stream_goes_on_while_one_sender_is_left() -> anyhow::Result<()> {
    let (mut tx, rx) = channel::<u32>();
    let mut stream = rx.into_stream();
    let reset = Some(Err(RecvError::Reset("same".into())));
    for _ in 0..3 {
        tx.clone().reset("same");
        assert_eq!(stream.next().await, reset);
    }
    tx.send(1).await?;
    assert_eq!(stream.next().await, Some(Ok(1)));
    tx.reset("same");
    assert_eq!(stream.next().await, reset);
    assert_eq!(stream.next().await, None, "the last word is told once");
    Ok(())
}

#[archean::test]
async fn time_passes_under_any_executor() -> anyhow::Result<()> {
    let start = std::time::Instant::now();
    let nap = Duration::from_millis(5);
    time::sleep(nap).await;
    assert_eq!(time::timeout(nap, std::future::pending::<()>()).await, Err(time::Elapsed));
    assert_eq!(time::timeout(Duration::MAX, async { 1 }).await, Ok(1));
    thread::spawn(move || block_on(time::sleep(nap))).join().unwrap();
    let mut interval = time::interval(nap);
    let first = interval.tick().await;
    assert_eq!(interval.tick().await, first + nap);
    assert!(start.elapsed() >= 4 * nap);
    Ok(())
}

#[archean::test]
fn smol_moves_ends_between_its_threads() -> anyhow::Result<()> {
    let executor = smol::Executor::new();
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| smol::block_on(executor.run(stopped.recv())));
        }
        let found = smol::block_on(async {
            let mut tasks = Vec::new();
            for capacity in [SMALL, 1 << 20] {
                // Within the process, to a child, and from one.
                let (tx, rx) = channel_with_capacity(capacity);
                tasks.push(executor.spawn(count(tx)));
                tasks.push(executor.spawn(expect(rx)));
                let (tx, rx) = channel_with_capacity(capacity);
                let child = spawn(expect, rx).await?;
                tasks.push(executor.spawn(async move {
                    count(tx).await;
                    child.join().await.unwrap();
                }));
                let (tx, rx) = channel_with_capacity(capacity);
                let child = spawn(count, tx).await?;
                tasks.push(executor.spawn(async move {
                    expect(rx).await;
                    child.join().await.unwrap();
                }));
            }
            for task in tasks {
                task.await;
            }
            anyhow::Ok(())
        });
        drop(stop);
        found
    })
}

/// Polls a future each time on another thread.
async fn hopping<F: Future<Output: Send> + Send>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        let waker = context.waker().clone();
        let future = future.as_mut();
        let poll = move || future.poll(&mut Context::from_waker(&waker));
        thread::scope(|scope| scope.spawn(poll).join()).expect("it does not panic")
    })
    .await
}

#[archean::test]
fn each_poll_may_be_on_another_thread() -> anyhow::Result<()> {
    async fn both_ways() -> anyhow::Result<()> {
        let (tx, rx) = channel_with_capacity(SMALL);
        let child = spawn(count, tx).await?;
        expect(rx).await;
        child.join().await?;
        let (tx, rx) = channel_with_capacity(SMALL);
        let child = spawn(expect, rx).await?;
        count(tx).await;
        child.join().await?;
        Ok(())
    }
    archean::block_on(hopping(both_ways()))?;
    smol::block_on(hopping(both_ways()))?;
    block_on(hopping(both_ways()))
}

/// Polls a future so many times, and does something after each; `None` when it was given up.
fn polled<F: Future>(polls: u32, future: F, mut between: impl FnMut()) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Some(output) = future.as_mut().now_or_never() {
            return Some(output);
        }
        between();
        thread::yield_now();
    }
    None
}

/// Gives up what is tried after one poll, after two, and so on, until it is done before that.
fn at_every_poll(mut is_done: impl FnMut(u32) -> bool) {
    let done = (0..10_000).find(|polls| is_done(*polls));
    assert!(done.is_some_and(|polls| polls > 0), "{done:?}");
}

fn large(first: u8) -> Vec<u8> {
    (0..5 * SMALL).map(|index| first.wrapping_add(index as u8)).collect()
}

/// Both ends of a channel that carry something already, so that both have their ring.
fn connected<T: archean::Data + Default>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (mut tx, mut rx) = channel_with_capacity(capacity);
    tx.send_blocking(T::default()).unwrap();
    rx.recv_owned_blocking().unwrap();
    (tx, rx)
}

#[archean::test]
fn a_send_that_is_given_up_at_any_poll_has_sent_nothing() {
    type Sending<'a> = Pin<Box<dyn Future<Output = bool> + 'a>>;
    type Send = for<'a> fn(&'a mut Sender<Vec<u8>>, &'a Vec<u8>) -> Sending<'a>;
    let ways: [Send; 3] = [
        |tx, value| Box::pin(async { tx.send(value.clone()).await.is_ok() }),
        |tx, value| Box::pin(async { tx.send_ref(value).await.is_ok() }),
        |tx, value| Box::pin(async { tx.send_batch([value.clone()]).await.is_ok() }),
    ];
    for (way, before) in ways.into_iter().flat_map(|way| [(way, 0), (way, 3)]) {
        at_every_poll(|polls| {
            let (mut tx, mut rx) = connected::<Vec<u8>>(SMALL);
            let mut expected: Vec<Vec<u8>> = (0..before).map(|number| vec![number; 1000]).collect();
            expected.iter().for_each(|value| tx.send_ref_blocking(value).unwrap());
            let mut found = Vec::new();
            let mut take = || found.extend(rx.try_recv().unwrap().map(|message| message.into_owned()));
            let sent = polled(polls, way(&mut tx, &large(7)), &mut take);
            assert_ne!(sent, Some(false));
            expected.extend(sent.map(|_| large(7)));
            expected.push(vec![9]);
            while tx.try_send(vec![9]).is_err() {
                take();
            }
            drop(tx);
            found.extend(std::iter::from_fn(|| rx.recv_owned_blocking().ok()));
            assert!(found == expected, "after {polls} polls");
            sent.is_some()
        });
    }
}

#[archean::test]
fn a_batch_that_is_given_up_at_any_poll_has_sent_its_first() {
    at_every_poll(|polls| {
        let (mut tx, mut rx) = connected::<Vec<u8>>(SMALL);
        let mut found = Vec::new();
        let mut take = || found.extend(rx.try_recv().unwrap().map(|message| message.into_owned()));
        let value = |number: u8| if number % 4 == 3 { large(number) } else { vec![number; 500] };
        let sent = polled(polls, tx.send_batch((0..12).map(value)), &mut take);
        while tx.try_send(vec![99]).is_err() {
            take();
        }
        drop(tx);
        found.extend(std::iter::from_fn(|| rx.recv_owned_blocking().ok()));
        assert_eq!(found.pop(), Some(vec![99]));
        assert!(found.iter().eq((0..found.len() as u8).map(value).collect::<Vec<_>>().iter()));
        assert!(sent.is_none() || found.len() == 12);
        sent.is_some()
    });
}

#[archean::test]
fn what_was_reserved_or_passed_on_is_sent_whole_or_not() {
    at_every_poll(|polls| {
        let (mut tx, mut rx) = connected::<archean::Bytes>(SMALL);
        tx.send_blocking(vec![1; 3000].into()).unwrap();
        let mut found = Vec::new();
        let reserved = polled(polls, tx.reserve(3000), || {
            found.extend(rx.try_recv().unwrap().map(|message| message.into_owned()));
        });
        let is_done = reserved.is_some_and(|slot| slot.is_ok_and(|slot| slot.len() == 3000));
        drop(tx);
        found.extend(std::iter::from_fn(|| rx.recv_owned_blocking().ok()));
        assert_eq!(found, [vec![1; 3000]]);
        is_done
    });
    at_every_poll(|polls| {
        type Item = (Vec<u8>, Option<Sender<u32>>);
        let (mut tx, mut rx) = connected::<Item>(1 << 20);
        let (mut through, mut beyond) = connected::<Item>(SMALL);
        let (reply, mut answer) = channel();
        tx.send_blocking((large(3), Some(reply))).unwrap();
        tx.send_blocking((vec![4], None)).unwrap();
        let mut found = Vec::new();
        let mut take = || found.extend(beyond.try_recv().unwrap().map(|message| message.into_owned()));
        let message = rx.recv_blocking().unwrap();
        let sent = polled(polls, through.forward(message), &mut take).map(|sent| sent.unwrap());
        // It is gone from where it was, in both cases.
        assert_eq!(rx.recv_blocking().unwrap().0.as_slice(), [4]);
        drop(through);
        found.extend(std::iter::from_fn(|| beyond.recv_owned_blocking().ok()));
        assert_eq!(found.len(), usize::from(sent.is_some()));
        for (value, reply) in found {
            assert!(value == large(3));
            reply.unwrap().send_blocking(5).unwrap();
        }
        let answer = answer.recv_owned_blocking();
        assert_eq!(answer.is_ok(), sent.is_some(), "{answer:?}");
        sent.is_some()
    });
}

#[archean::test]
fn a_receive_that_is_given_up_at_any_poll_has_received_nothing() {
    type Receiving<'a> = Pin<Box<dyn Future<Output = Vec<u8>> + 'a>>;
    type Receive = for<'a> fn(&'a mut Receiver<Vec<u8>>) -> Receiving<'a>;
    let ways: [Receive; 3] = [
        |rx| Box::pin(async { rx.recv().await.unwrap().into_owned() }),
        |rx| Box::pin(async { rx.recv_owned().await.unwrap() }),
        |rx| Box::pin(async { rx.recv_where(|value| !value.is_empty()).await.unwrap().into_owned() }),
    ];
    for way in ways {
        at_every_poll(|polls| {
            let (mut tx, mut rx) = channel_with_capacity(SMALL);
            // One that is larger than the ring comes in parts, between polls.
            let mut first = Box::pin(async {
                tx.send(large(1)).await.unwrap();
                tx.send(vec![2]).await.unwrap();
            });
            let mut is_sent = false;
            let found = polled(polls, way(&mut rx), || {
                is_sent = is_sent || first.as_mut().now_or_never().is_some();
            });
            assert!(found.as_ref().is_none_or(|found| *found == large(1)));
            // All the rest comes, once.
            let rest = block_on(async {
                let send = async {
                    if !is_sent {
                        first.await;
                    }
                };
                let receive = async {
                    let mut rest = Vec::new();
                    while rest.last() != Some(&vec![2]) {
                        rest.push(rx.recv_owned().await.unwrap());
                    }
                    rest
                };
                futures::join!(send, receive).1
            });
            let expected = if found.is_some() { vec![vec![2]] } else { vec![large(1), vec![2]] };
            assert!(rest == expected, "after {polls} polls");
            found.is_some()
        });
    }
}

#[archean::test]
fn a_spawn_that_is_given_up_at_any_poll_ends_what_was_started() {
    async fn endless(mut tx: Sender<u32>) {
        let mut number = 0;
        while tx.send(number).await.is_ok() {
            number += 1;
        }
    }
    at_every_poll(|polls| {
        let (tx, mut rx) = channel_with_capacity(SMALL);
        match polled(polls * polls, spawn(endless, tx).into_future(), || ()) {
            Some(child) => {
                assert_eq!(rx.recv_owned_blocking(), Ok(0));
                drop(rx);
                child.unwrap().join_blocking().unwrap();
                true
            }
            None => {
                // What it has sent until its end comes first.
                let numbers = std::iter::from_fn(|| rx.recv_owned_blocking().ok());
                numbers.enumerate().for_each(|(index, number)| assert_eq!(number, index as u32));
                false
            }
        }
    });
}
