//! Machines that come with a token.

use std::time::Duration;

use cluster::{Acceptor, EnrolError, Identity, Incoming, Revoked, Role, TokenError, enrol};
use protocol::{
    cluster::{Enrol, Heartbeat, Revocations},
    control::encode,
};

use rustls::version::TLS13;

use crate::site::{Site, intrude, listen, meet, pair};

/// Somebody asks at a scheduler of the site for a certificate.
async fn enrol_at(
    site: &Site,
    scheduler: &Identity,
    token: &str,
    role: Role,
    name: &str,
) -> Result<Identity, EnrolError> {
    let (listener, address) = listen().await;
    let acceptor = Acceptor::new(scheduler, Revoked::default());
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(Incoming::Enrolling(enrolling)) = acceptor.accept(stream).await {
            // That they went away shows in their own error.
            let _ = enrolling.serve(&site.authority).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        enrolled = enrol(&address, token, role, name) => enrolled,
        () = serve => unreachable!("it serves for ever"),
    }
}

fn denial(result: Result<Identity, EnrolError>) -> String {
    match result {
        Err(EnrolError::Denied(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_lets_one_machine_in_once() {
    let site = Site::new("life");
    let scheduler = site.member(Role::Scheduler, "s");
    let hour = Duration::from_hours(1);
    let token = site.authority.new_token(Role::Manager, hour).unwrap();

    // A wrong role or a taken name leaves the token as it is.
    let text = denial(enrol_at(&site, &scheduler, &token, Role::Admin, "m1").await);
    assert_eq!(text, TokenError::OtherRole.to_string());
    let text = denial(enrol_at(&site, &scheduler, &token, Role::Manager, "s").await);
    assert!(text.contains("`s` is a name in use"), "{text}");

    let manager = enrol_at(&site, &scheduler, &format!(" {token}\n"), Role::Manager, "m1").await.unwrap();
    assert_eq!((manager.peer().role, &manager.peer().name[..]), (Role::Manager, "m1"));
    let text = denial(enrol_at(&site, &scheduler, &token, Role::Manager, "m2").await);
    assert_eq!(text, TokenError::Used.to_string());

    // It is kept in a file, and is as good as one that was issued.
    let folder = site.folder.path().join("m1");
    manager.save(&folder).unwrap();
    let manager = Identity::load(&folder).unwrap();
    let (connected, accepted) = meet(&manager, &scheduler, Role::Scheduler).await;
    connected.unwrap();
    assert!(matches!(accepted, Ok(Incoming::Peer(peer)) if peer.peer() == manager.peer()));
}

#[tokio::test]
async fn bad_tokens_are_refused() {
    let (site, other) = (Site::new("life"), Site::new("life"));
    let scheduler = site.member(Role::Scheduler, "s");
    let hour = Duration::from_hours(1);
    let expired = site.authority.new_token(Role::Manager, Duration::ZERO).unwrap();
    let text = denial(enrol_at(&site, &scheduler, &expired, Role::Manager, "m1").await);
    assert_eq!(text, TokenError::Expired.to_string());

    // Made up, but for the right authority.
    let fingerprint = expired.rsplit('-').next().unwrap();
    let guessed = format!("archean-{}-{fingerprint}", "0".repeat(32));
    let text = denial(enrol_at(&site, &scheduler, &guessed, Role::Manager, "m1").await);
    assert_eq!(text, TokenError::Unknown.to_string());

    // For another authority: the scheduler does not even get to see it.
    let foreign = other.authority.new_token(Role::Manager, hour).unwrap();
    let result = enrol_at(&site, &scheduler, &foreign, Role::Manager, "m1").await;
    assert!(matches!(result, Err(EnrolError::Connect(cluster::ConnectError::Foreign { .. }))), "{result:?}");
    assert!(matches!(
        site.authority.redeem(&foreign),
        Err(cluster::AuthorityError::Token(TokenError::Unknown))
    ));
    other.authority.redeem(&foreign).unwrap();

    for garbage in
        ["", "archean", "archean--", "archean-../../x-00", &guessed.to_uppercase(), &format!("{guessed}0")]
    {
        let result = enrol("127.0.0.1:1", garbage, Role::Manager, "m1").await;
        assert!(matches!(result, Err(EnrolError::Token(TokenError::Malformed))), "{garbage}");
    }
    let result = enrol("127.0.0.1:1", &guessed, Role::Manager, "../m1").await;
    assert!(matches!(result, Err(EnrolError::Name(_))));
}

#[test]
fn a_token_is_redeemed_by_one_of_many() {
    let site = Site::new("life");
    let token = site.authority.new_token(Role::Manager, Duration::from_hours(1)).unwrap();
    let redeemed = std::thread::scope(|scope| {
        let redeem = || cluster::Authority::open(site.folder.path()).unwrap().redeem(&token).is_ok();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(redeem)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(|is_ok| *is_ok).count()
    });
    assert_eq!(redeemed, 1);
}

#[test]
fn a_request_that_makes_no_sense_costs_no_token() {
    let site = Site::new("life");
    let token = site.authority.new_token(Role::Manager, Duration::from_hours(1)).unwrap();
    let csr = cluster::Request::new().unwrap().csr().to_owned();
    let mut forged = csr.clone().into_bytes();
    // In the middle of the signature.
    let at = csr.len() - 80;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let enrol = |csr: &str| Enrol {
        token: token.clone(),
        csr: csr.into(),
        role: "manager".into(),
        name: "m1".into(),
    };
    for bad in ["", "garbage", &String::from_utf8(forged).unwrap(), &csr[..csr.len() / 2]] {
        let error = site.authority.enrol(&enrol(bad)).unwrap_err();
        assert!(matches!(error, cluster::AuthorityError::Request(_)), "{error}");
    }
    site.authority.enrol(&enrol(&csr)).unwrap();
}

#[tokio::test]
async fn without_a_certificate_little_can_be_said() {
    let site = Site::new("life");
    let scheduler = site.member(Role::Scheduler, "s");
    let acceptor = Acceptor::new(&scheduler, Revoked::default());
    // Another word than the one that is allowed means nothing; a long one is not even read.
    let words =
        [Revocations { serials: vec!["x".into()] }, Revocations { serials: vec!["x".repeat(20 << 10)] }];
    for (word, is_long) in words.iter().zip([false, true]) {
        let (connected, stream) = pair().await;
        let word = encode(word, 0);
        let (accepted, said) = tokio::join!(acceptor.accept(stream), intrude(connected, vec![&TLS13], &word));
        let Incoming::Enrolling(enrolling) = accepted.unwrap() else { panic!("it has no certificate") };
        let served = enrolling.serve(&site.authority).await;
        if is_long {
            assert!(matches!(served, Err(cluster::AcceptError::Connection(_))), "{served:?}");
        } else {
            assert!(served.unwrap().is_err());
        }
        drop(said.unwrap());
    }
    // A manager lets nobody in without one.
    let manager = site.member(Role::Manager, "m1");
    let acceptor = Acceptor::new(&manager, Revoked::default());
    let (connected, stream) = pair().await;
    let word = encode(&Heartbeat { number: 1 }, 0);
    let (accepted, _) = tokio::join!(acceptor.accept(stream), intrude(connected, vec![&TLS13], &word));
    assert!(matches!(accepted, Err(cluster::AcceptError::Handshake(_))), "{accepted:?}");
    // So one that wants to enrol there is told where to go.
    let token = site.authority.new_token(Role::Manager, Duration::from_hours(1)).unwrap();
    let (listener, address) = listen().await;
    let (result, _) = tokio::join!(enrol(&address, &token, Role::Manager, "m2"), async {
        acceptor.accept(listener.accept().await.unwrap().0).await
    });
    assert!(
        matches!(result, Err(EnrolError::Connect(cluster::ConnectError::WrongRole { .. }))),
        "{result:?}"
    );
}
