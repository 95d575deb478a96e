//! Who is let in, and who is not.

use std::time::{Duration, SystemTime};

use cluster::{AcceptError, ConnectError, ConnectionError, Incoming, Revoked, Role, Validity};
use protocol::cluster::Heartbeat;

use crate::site::{Site, lasting, meet, meet_unless};

#[tokio::test]
async fn only_the_expected_role_is_connected_to() {
    let site = Site::new("life");
    let manager = site.member(Role::Manager, "m1");
    let client = site.member(Role::View, "v");
    let (connected, accepted) = meet(&client, &manager, Role::Manager).await;
    let Incoming::Peer(accepted) = accepted.unwrap() else { panic!("it has a certificate") };
    assert_eq!((accepted.peer().role, connected.unwrap().peer().role), (Role::View, Role::Manager));

    let (connected, accepted) = meet(&client, &manager, Role::Scheduler).await;
    let error = connected.unwrap_err();
    assert!(matches!(error, ConnectError::WrongRole { expect: Role::Scheduler, .. }), "{error}");
    assert!(matches!(accepted, Err(AcceptError::Handshake(_))));

    // A client that waits at the address of a manager.
    for expect in [Role::Manager, Role::View] {
        let (connected, _) = meet(&manager, &client, expect).await;
        let error = connected.unwrap_err();
        assert!(matches!(error, ConnectError::WrongRole { .. }), "{error}");
    }
}

#[tokio::test]
async fn another_cluster_of_the_same_name_is_foreign() {
    let (here, there) = (Site::new("life"), Site::new("life"));
    let (scheduler, manager) = (here.member(Role::Scheduler, "s"), there.member(Role::Manager, "m1"));
    let (connected, accepted) = meet(&manager, &scheduler, Role::Scheduler).await;
    assert!(matches!(connected, Err(ConnectError::Foreign { .. })));
    assert!(matches!(accepted, Err(AcceptError::Handshake(_))));
}

/// Counted until a minute ago.
fn over() -> Validity {
    let now = SystemTime::now();
    let ago = |minutes| now - Duration::from_mins(minutes);
    Validity { not_before: ago(60), not_after: ago(1) }
}

/// Counts for so little time more.
fn nearly_over(left: Duration) -> Validity {
    Validity { not_after: SystemTime::now() + left, ..over() }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_its_owner_and_by_others() {
    let site = Site::new("life");
    let manager = site.authority.issue(Role::Manager, "m1", over()).unwrap();
    let scheduler = site.member(Role::Scheduler, "s");
    let error = cluster::connect("127.0.0.1:1", &manager, Role::Scheduler).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Expired { peer } if peer == manager.peer()), "{error}");
    let (connected, _) = meet(&scheduler, &manager, Role::Manager).await;
    let error = connected.unwrap_err();
    assert!(matches!(error, ConnectError::PeerExpired { expect: Role::Manager, .. }), "{error}");

    // Its clock says that it has a little time left; that of the scheduler, which looks later, does not.
    let late = site.authority.issue(Role::Manager, "m2", nearly_over(Duration::from_secs(2))).unwrap();
    let (listener, address) = crate::site::listen().await;
    let acceptor = cluster::Acceptor::new(&scheduler, Revoked::default());
    let (connected, accepted) = tokio::join!(cluster::connect(&address, &late, Role::Scheduler), async {
        let (stream, _) = listener.accept().await.unwrap();
        // A certificate's times are whole seconds.
        while SystemTime::now() <= late.not_after() + Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        acceptor.accept(stream).await
    });
    assert!(matches!(accepted, Err(AcceptError::Handshake(_))), "{accepted:?}");
    let error = connected.unwrap_err();
    assert!(matches!(&error, ConnectError::Denied { text, .. } if text.contains("expired")), "{error}");
}

#[tokio::test]
async fn who_is_revoked_is_told_so() {
    let site = Site::new("life");
    let (scheduler, manager) = (site.member(Role::Scheduler, "s"), site.member(Role::Manager, "m1"));
    assert_eq!(site.authority.revoke("m1").unwrap(), [manager.peer().clone()]);
    let revoked = Revoked::new(site.authority.revoked().unwrap());
    let (connected, accepted) = meet_unless(&manager, &scheduler, Role::Scheduler, revoked.clone()).await;
    let error = connected.unwrap_err();
    assert!(matches!(&error, ConnectError::Denied { text, .. } if text.contains("revoked")), "{error}");
    assert!(matches!(accepted, Err(AcceptError::Revoked(peer)) if peer == *manager.peer()));
    // Others of the same cluster are as welcome as before.
    let other = site.member(Role::Manager, "m2");
    let (connected, _) = meet_unless(&other, &scheduler, Role::Scheduler, revoked).await;
    connected.unwrap();
}

#[tokio::test]
async fn a_connection_ends_when_its_peer_is_revoked() {
    let site = Site::new("life");
    let (scheduler, manager) = (site.member(Role::Scheduler, "s"), site.member(Role::Manager, "m1"));
    let revoked = Revoked::default();
    let (connected, accepted) = meet_unless(&manager, &scheduler, Role::Scheduler, revoked.clone()).await;
    let Incoming::Peer(mut accepted) = accepted.unwrap() else { panic!("it has a certificate") };
    let mut connected = connected.unwrap().until_revoked(&revoked);
    connected.send(&Heartbeat { number: 1 }).await.unwrap();
    accepted.recv::<Heartbeat>().await.unwrap().unwrap();
    // In the middle of waiting.
    let (received, ()) = tokio::join!(accepted.recv::<Heartbeat>(), async {
        tokio::task::yield_now().await;
        revoked.set([manager.peer().serial.clone()]);
    });
    assert!(matches!(received, Err(ConnectionError::Revoked(peer)) if peer == *manager.peer()));
    // And who connected hears when the other side is.
    revoked.set([scheduler.peer().serial.clone()]);
    assert!(matches!(connected.recv::<Heartbeat>().await, Err(ConnectionError::Revoked(_))));
}

#[tokio::test]
async fn a_renewed_certificate_outlives_the_first() {
    let site = Site::new("life");
    let (scheduler, first) = (site.member(Role::Scheduler, "s"), site.member(Role::Manager, "m1"));
    let third = first.not_after().duration_since(first.renew_at()).unwrap().as_secs();
    // It counts since an hour ago and for another one.
    assert!((2390..=2410).contains(&third), "{third}");
    let (connected, accepted) = meet(&first, &scheduler, Role::Scheduler).await;
    let (mut connected, Incoming::Peer(mut accepted)) = (connected.unwrap(), accepted.unwrap()) else {
        panic!("it has a certificate")
    };
    let (renewed, ()) = tokio::join!(cluster::renew(&mut connected, &first), async {
        let wish = accepted.recv::<protocol::cluster::Renew>().await.unwrap().unwrap();
        let answer = site.authority.renew(accepted.peer(), &wish);
        accepted.send(&cluster::answer(answer)).await.unwrap();
    });
    let second = renewed.unwrap();
    assert_eq!((second.peer().role, &second.peer().name), (Role::Manager, &first.peer().name));
    assert_ne!(second.peer().serial, first.peer().serial);
    assert!(second.not_after() > first.not_after());
    let (connected, _) = meet(&second, &scheduler, Role::Scheduler).await;
    connected.unwrap();

    // By its name both end, and neither is renewed.
    assert_eq!(site.authority.revoke("m1").unwrap().len(), 2);
    let wish = protocol::cluster::Renew { csr: cluster::Request::new().unwrap().csr().to_owned() };
    let error = site.authority.renew(second.peer(), &wish).unwrap_err();
    assert!(matches!(error, cluster::AuthorityError::NotRenewable(_)), "{error}");
    // Then the name is free again.
    site.authority.issue(Role::Manager, "m1", lasting(5)).unwrap();
}
