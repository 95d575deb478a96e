//! Members that connect to each other over loopback.

#[path = "members/site.rs"]
mod site;

use cluster::{ConnectionError, Incoming, Role};
use protocol::cluster::Heartbeat;
use site::{Site, meet};

#[tokio::test]
async fn members_meet_and_talk_both_ways() {
    let site = Site::new("life");
    let (scheduler, manager) = (site.member(Role::Scheduler, "s"), site.member(Role::Manager, "m1"));
    let (connected, accepted) = meet(&manager, &scheduler, Role::Scheduler).await;
    let mut connected = connected.unwrap();
    let Incoming::Peer(accepted) = accepted.unwrap() else { panic!("it has a certificate") };
    assert_eq!(accepted.peer(), manager.peer());
    assert_eq!(connected.peer(), scheduler.peer());
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
