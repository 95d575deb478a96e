//! What a process leaves that ends in the middle of its work.

use std::process;

use archean::{Ending, RecvError, Sender, channel};
use tests::{own, place::Place};

/// What fits into a channel of the default capacity together with what each message takes beside it.
const MESSAGES: u32 = 1000;
const BYTES: usize = 1000;

async fn leave(mut tx: Sender<Vec<u32>>) {
    for number in 0..MESSAGES {
        tx.send(vec![number; BYTES / 4]).await.unwrap();
    }
    process::exit(3);
}

pub(crate) async fn an_exit_right_after_the_last_send_loses_nothing(place: Place) -> anyhow::Result<()> {
    // Read while it is sent, and when the sender has been gone for long.
    for waits in [false, true] {
        let (tx, mut rx) = channel();
        let mut child = Some(place.start(leave, tx).await?);
        if waits {
            assert!(child.take().unwrap().join().await.is_err());
        }
        for number in 0..MESSAGES {
            assert_eq!(rx.recv_owned().await?, vec![number; BYTES / 4]);
        }
        let error = rx.recv_owned().await.unwrap_err();
        assert!(
            matches!(&error, RecvError::PeerDied(cause) if cause.ending == Ending::Exited { code: 3 }),
            "{error}"
        );
    }
    Ok(())
}

/// What SIGKILL leaves begins with the first message and has no gap. With shared memory it is all that was committed, else
/// all that the kernel had taken.
pub(crate) async fn a_kill_leaves_whole_messages_in_order(place: Place) -> anyhow::Result<()> {
    async fn pour(mut tx: Sender<Vec<u32>>) {
        for number in 0.. {
            tx.send(vec![number; 1 + number as usize % 3000]).await.unwrap();
        }
    }
    for round in 0..5 {
        let (tx, mut rx) = channel();
        let child = place.start(pour, tx).await?;
        let mut next = 0;
        let error = loop {
            match rx.recv_owned().await {
                Ok(message) => assert_eq!(message, vec![next; 1 + next as usize % 3000]),
                Err(error) => break error,
            }
            next += 1;
            if next == 500 * round + 1 {
                child.kill();
            }
        };
        assert!(next > 500 * round);
        assert!(
            matches!(&error, RecvError::PeerDied(cause) if matches!(cause.ending, Ending::Killed { .. })),
            "{error}"
        );
        assert!(child.join().await.is_err());
    }
    Ok(())
}

/// Else the same transport would be tested twice.
pub(crate) async fn the_transport_is_what_it_is_called(place: Place) -> anyhow::Result<()> {
    let (tx, mut rx) = channel();
    let child = place.start(async |mut tx: Sender<u32>| tx.send(1).await.unwrap(), tx).await?;
    assert_eq!(rx.recv_owned().await, Ok(1));
    assert_eq!(own::has_io_uring(), place.has_links());
    child.join().await?;
    Ok(())
}
