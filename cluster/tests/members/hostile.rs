//! Whoever speaks no TLS, or half of it, or nothing.

use std::time::Duration;

use cluster::{AcceptError, Acceptor, ConnectError, Incoming, Revoked, Role, connect};
use protocol::{cluster::Heartbeat, control::encode, limits::HANDSHAKE_TIME_MAX};
use rustls::version::{TLS12, TLS13};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::site::{Site, intrude, listen, pair};

fn acceptor(site: &Site) -> Acceptor {
    Acceptor::new(&site.member(Role::Scheduler, "s"), Revoked::default())
}

/// The beginning of what a member says first.
async fn client_hello(site: &Site) -> Vec<u8> {
    let member = site.member(Role::Manager, "m1");
    let (listener, address) = listen().await;
    let read = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 100];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    };
    let (bytes, refused) = tokio::join!(read, connect(&address, &member, Role::Scheduler));
    assert!(matches!(refused, Err(ConnectError::Handshake { .. })), "{refused:?}");
    bytes
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_given_up() {
    let site = Site::new("life");
    let (acceptor, hello) = (acceptor(&site), client_hello(&site).await);
    for begun in [&[][..], &hello[..1], &hello[..50], &hello] {
        let (mut client, stream) = pair().await;
        client.write_all(begun).await.unwrap();
        let start = Instant::now();
        let accepted = acceptor.accept(stream).await;
        assert!(matches!(accepted, Err(AcceptError::TimedOut)), "{accepted:?}");
        assert!(start.elapsed() >= HANDSHAKE_TIME_MAX);
        drop(client);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_given_up() {
    let site = Site::new("life");
    let (acceptor, hello) = (acceptor(&site), client_hello(&site).await);
    let (mut client, stream) = pair().await;
    let drip = async {
        for byte in hello {
            client.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        accepted = acceptor.accept(stream) => assert!(matches!(accepted, Err(AcceptError::TimedOut)), "{accepted:?}"),
        () = drip => unreachable!("it never ends"),
    }
}

#[tokio::test]
async fn garbage_is_refused_at_once() {
    let site = Site::new("life");
    let (acceptor, hello) = (acceptor(&site), client_hello(&site).await);
    let mut bent = hello.clone();
    // The version of the handshake's record, and its length.
    bent[1..5].fill(0xff);
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 64], vec![0xff; 70_000], bent] {
        let (mut client, stream) = pair().await;
        let (accepted, _) = tokio::join!(acceptor.accept(stream), client.write_all(&garbage));
        assert!(matches!(accepted, Err(AcceptError::Handshake(_))), "{accepted:?}");
    }
    // And one that goes away in the middle.
    let (mut client, stream) = pair().await;
    client.write_all(&hello).await.unwrap();
    drop(client);
    assert!(matches!(acceptor.accept(stream).await, Err(AcceptError::Handshake(_))));
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let site = Site::new("life");
    let acceptor = acceptor(&site);
    let word = encode(&Heartbeat { number: 1 }, 0);
    let (client, stream) = pair().await;
    let (accepted, said) = tokio::join!(acceptor.accept(stream), intrude(client, vec![&TLS12], &word));
    assert!(matches!(accepted, Err(AcceptError::Handshake(_))), "{accepted:?}");
    assert!(said.is_err());
    // Not for another reason than that.
    let (client, stream) = pair().await;
    let (accepted, said) =
        tokio::join!(acceptor.accept(stream), intrude(client, vec![&TLS12, &TLS13], &word));
    assert!(matches!(accepted, Ok(Incoming::Enrolling(_))), "{accepted:?}");
    said.unwrap();
}

#[tokio::test(start_paused = true)]
async fn somebody_without_a_certificate_who_wants_nothing_is_given_up() {
    let site = Site::new("life");
    let acceptor = acceptor(&site);
    let (client, stream) = pair().await;
    let word = encode(&Heartbeat { number: 1 }, 0);
    let half = &word[..word.len() / 2];
    let (accepted, said) = tokio::join!(acceptor.accept(stream), intrude(client, vec![&TLS13], half));
    let Incoming::Enrolling(enrolling) = accepted.unwrap() else { panic!("it has no certificate") };
    let served = enrolling.serve(&site.authority).await;
    assert!(matches!(served, Err(AcceptError::TimedOut)), "{served:?}");
    drop(said.unwrap());
}

#[tokio::test]
async fn one_that_answers_nonsense_is_no_member() {
    let site = Site::new("life");
    let member = site.member(Role::Manager, "m1");
    for nonsense in [&b"220 ready\r\n"[..], &[0x16, 3, 3, 0xff, 0xff, 1]] {
        let (listener, address) = listen().await;
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(nonsense).await.unwrap();
            stream.shutdown().await.unwrap();
            stream
        };
        let (connected, _) = tokio::join!(connect(&address, &member, Role::Scheduler), answer);
        assert!(matches!(connected, Err(ConnectError::Handshake { .. })), "{connected:?}");
    }
    let (listener, address) = listen().await;
    drop(listener);
    let connected = connect(&address, &member, Role::Scheduler).await;
    assert!(matches!(connected, Err(ConnectError::Unreachable { .. })), "{connected:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_never_answers_is_given_up() {
    let site = Site::new("life");
    let member = site.member(Role::Manager, "m1");
    let (listener, address) = listen().await;
    let connected = connect(&address, &member, Role::Scheduler).await;
    assert!(matches!(connected, Err(ConnectError::TimedOut { .. })), "{connected:?}");
    drop(listener);
}
