//! What members say to each other once they have met.

use cluster::{Connection, ConnectionError, Incoming, Role};
use prost::Message;
use protocol::{
    cluster::{Heartbeat, Revocations},
    limits::CONTROL_BYTES_MAX,
};

use crate::site::{Site, meet};

/// Two members that have met.
async fn members() -> (Connection, Connection) {
    let site = Site::new("life");
    let (scheduler, manager) = (site.member(Role::Scheduler, "s"), site.member(Role::Manager, "m1"));
    let (connected, accepted) = meet(&manager, &scheduler, Role::Scheduler).await;
    let Incoming::Peer(accepted) = accepted.unwrap() else { panic!("it has a certificate") };
    let connected = connected.unwrap();
    assert_eq!((accepted.peer(), connected.peer()), (manager.peer(), scheduler.peer()));
    (connected, accepted)
}

#[tokio::test]
async fn members_talk_both_ways_until_one_closes() {
    let (mut connected, accepted) = members().await;
    let (mut reader, mut writer) = accepted.split();
    for number in 0..100 {
        connected.send(&Heartbeat { number }).await.unwrap();
        let word = reader.recv::<Heartbeat>().await.unwrap().unwrap();
        writer.send(&word).await.unwrap();
        assert_eq!(connected.recv::<Heartbeat>().await.unwrap(), Some(Heartbeat { number }));
    }
    writer.close().await.unwrap();
    assert_eq!(connected.recv::<Heartbeat>().await.unwrap(), None);
    drop(connected);
    assert!(matches!(reader.recv::<Heartbeat>().await, Err(ConnectionError::Lost(_))));
}

/// The longest list of revocations that fits a message, or one more.
fn long(extra: usize) -> Revocations {
    let serial = "x".repeat(CONTROL_BYTES_MAX - 4 + extra);
    Revocations { serials: vec![serial] }
}

#[tokio::test]
async fn long_messages_go_up_to_the_limit() {
    let (mut connected, mut accepted) = members().await;
    assert_eq!(long(0).encoded_len(), CONTROL_BYTES_MAX);
    assert!(matches!(connected.send(&long(1)).await, Err(ConnectionError::TooLong { .. })));
    let longest = long(0);
    let (sent, received) = tokio::join!(connected.send(&longest), accepted.recv::<Revocations>());
    sent.unwrap();
    assert_eq!(received.unwrap(), Some(longest));
}

#[tokio::test]
async fn a_word_of_a_later_version_is_skipped() {
    #[derive(Clone, PartialEq, Message)]
    struct Later {
        #[prost(uint64, tag = "1")]
        number: u64,
        #[prost(string, tag = "200")]
        news: String,
    }
    let (mut connected, mut accepted) = members().await;
    connected.send(&Later { number: 7, news: "of tomorrow".into() }).await.unwrap();
    assert_eq!(accepted.recv::<Heartbeat>().await.unwrap(), Some(Heartbeat { number: 7 }));
}

#[tokio::test]
async fn a_receive_that_is_dropped_loses_nothing() {
    let (mut connected, mut accepted) = members().await;
    let message = long(0);
    let send = connected.send(&message);
    tokio::pin!(send);
    let mut is_sent = false;
    // Dropped whenever the sender moves on, so in the middle of the message many times.
    let received = loop {
        tokio::select! {
            biased;
            _ = tokio::task::yield_now() => {}
            received = accepted.recv::<Revocations>() => break received,
            sent = &mut send, if !is_sent => { sent.unwrap(); is_sent = true; }
        }
    };
    assert!(received.unwrap() == Some(message.clone()));
}
