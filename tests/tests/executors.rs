//! Channels under all kinds of executors, threads, and futures that are given up.

use std::{pin::pin, thread, time::Duration};

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

#[archean::test]
fn ends_move_between_the_threads_of_tokio() -> anyhow::Result<()> {
    async fn back(mut rx: Receiver<u32>, mut tx: Sender<u32>) {
        while let Ok(number) = rx.recv_owned().await {
            tx.send(number).await.unwrap();
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build()?;
    runtime.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                tokio::spawn(async {
                    let ((mut tx, there), (answers, mut rx)) = (channel(), channel());
                    let child = spawn(back, (there, answers)).await?;
                    for number in 0..500 {
                        // Each time another thread may have them.
                        (tx, rx) = tokio::spawn(async move {
                            tx.send(number).await.unwrap();
                            assert_eq!(rx.recv_owned().await, Ok(number));
                            (tx, rx)
                        })
                        .await?;
                    }
                    drop(tx);
                    child.join().await?;
                    anyhow::Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        let (mut tx, mut rx) = channel();
        let waiting = tokio::spawn(async move { rx.recv_owned().await });
        tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
        tx.send(5).await?;
        assert_eq!(waiting.await??, 5);
        Ok(())
    })
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
async fn futures_that_are_given_up_lose_nothing() -> anyhow::Result<()> {
    let (tx, rx) = channel_with_capacity(SMALL);
    let child = spawn(impatient_sender, tx).await?;
    assert!(impatient_receiver(rx).await > 0);
    assert!(child.join().await? > 0);
    Ok(())
}

#[archean::test]
fn futures_that_are_given_up_lose_nothing_under_tokio() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    runtime.block_on(async {
        let (tx, rx) = channel_with_capacity(SMALL);
        let child = spawn(impatient_receiver, rx).await?;
        assert!(impatient_sender(tx).await > 0);
        assert!(child.join().await? > 0);
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
