//! Futures that are given up, and ends that move between threads.

use std::{pin::pin, time::Duration};

use archean::{Receiver, RecvError, Sender, channel, channel_with_capacity, time};
use futures::FutureExt;
use tests::place::{Place, on_tokio};

const COUNT: u32 = 20_000;
const SMALL: usize = 4096;

pub(crate) async fn ends_move_between_the_threads_of_tokio(place: Place) -> anyhow::Result<()> {
    async fn back(mut rx: Receiver<u32>, mut tx: Sender<u32>) {
        while let Ok(number) = rx.recv_owned().await {
            tx.send(number).await.unwrap();
        }
    }
    on_tokio(async move {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                tokio::spawn(async move {
                    let ((mut tx, there), (answers, mut rx)) = (channel(), channel());
                    let child = place.start(back, (there, answers)).await?;
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
    .await
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

pub(crate) async fn futures_that_are_given_up_lose_nothing(place: Place) -> anyhow::Result<()> {
    let (tx, rx) = channel_with_capacity(SMALL);
    let child = place.start(impatient_sender, tx).await?;
    assert!(impatient_receiver(rx).await > 0);
    assert!(child.join().await? > 0);
    Ok(())
}
