use std::{
    io::{Read, Write},
    net::Shutdown,
};

use protocol::hello::Purpose;
use tokio::{net::TcpListener, spawn, time::advance};

use super::*;

const TERMS: Terms =
    Terms { purpose: Purpose::Channel, is_sealed: true, window_bytes: 1 << 18, frame_bytes_max: 1 << 17 };

/// Who dials says `bytes`, and then nothing more; who answers finds this.
async fn said(expected: &Expected, bytes: &[u8], end: bool) -> (AnswerFlaw, Vec<u8>) {
    let (mut client, server) = connected().await;
    client.write_all(bytes).unwrap();
    if end {
        client.shutdown(Shutdown::Write).unwrap();
    }
    let error = answer(server, expected).await.unwrap_err();
    assert_eq!(error.peer, client.local_addr().unwrap());
    let mut reply = Vec::new();
    // What was not read of garbage resets the connection.
    let _ = client.read_to_end(&mut reply);
    (error.flaw, reply)
}

async fn connected() -> (net::TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().await.unwrap().0)
}

fn hello(offer: &Offer) -> [u8; HELLO_BYTES] {
    Hello { link: offer.link, terms: offer.terms, nonce: [1; 16] }
        .encode(|signed| hello_mac(&offer.secret, signed))
}

fn refused(reply: &[u8]) -> Refusal {
    Reply::decode(reply.try_into().unwrap()).unwrap().verdict.unwrap_err()
}

/// Opens a link over loopback, from both sides.
async fn linked(
    expected: &Expected,
    offer: &Offer,
) -> (Result<Link, DialError>, Result<(Offer, Link), AnswerError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accept = async { answer(listener.accept().await.unwrap().0, expected).await };
    tokio::join!(dial(address, offer), accept)
}

#[tokio::test]
async fn a_link_has_the_same_keys_at_both_ends_and_new_ones_each_time() {
    let expected = Expected::new();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let offer = expected.offer(TERMS).unwrap();
        let (dialled, answered) = linked(&expected, &offer).await;
        let (mut dialled, (taken, mut answered)) = (dialled.unwrap(), answered.unwrap());
        assert_eq!((taken.link, taken.terms), (offer.link, TERMS));
        let (ours, theirs) = (dialled.keys.unwrap(), answered.keys.unwrap());
        assert_eq!(ours.of_sender(), theirs.of_receiver());
        assert_ne!(ours.send, ours.receive);
        seen.extend([ours.send.0, ours.receive.0]);
        // Nothing but the handshake was read, and both block, as a process expects.
        dialled.stream.write_all(b"first").unwrap();
        let mut bytes = [0; 5];
        answered.stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"first");
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 4);
}

#[tokio::test]
async fn a_plain_link_has_no_keys() {
    let expected = Expected::new();
    let offer = expected.offer(Terms { is_sealed: false, ..TERMS }).unwrap();
    let (dialled, answered) = linked(&expected, &offer).await;
    assert_eq!((dialled.unwrap().keys, answered.unwrap().1.keys), (None, None));
}

#[tokio::test]
async fn a_link_may_be_smaller_than_it_was_offered() {
    let expected = Expected::new();
    let mut offer = expected.offer(TERMS).unwrap();
    offer.terms.window_bytes = 4096;
    let (taken, _) = linked(&expected, &offer).await.1.unwrap();
    assert_eq!(taken.terms.window_bytes, 4096);
}

#[tokio::test]
async fn a_window_fits_both_sockets_while_nobody_reads() {
    let expected = Expected::new();
    let offer = expected.offer(TERMS).unwrap();
    let (dialled, answered) = linked(&expected, &offer).await;
    let (mut dialled, (_, mut answered)) = (dialled.unwrap().stream, answered.unwrap());
    dialled.set_nonblocking(true).unwrap();
    dialled.write_all(&vec![1; 1 << 18]).unwrap();
    answered.stream.read_exact(&mut vec![0; 1 << 18]).unwrap();
    for stream in [&dialled, &answered.stream] {
        let socket = socket2::SockRef::from(stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert!(socket.tcp_user_timeout().unwrap().is_some());
        assert!(!socket.tcp_congestion().unwrap().starts_with(b"bbr"));
    }
}

#[tokio::test]
async fn garbage_and_half_a_hello_open_nothing() {
    let expected = Expected::new();
    let (flaw, reply) = said(&expected, &[b'x'; HELLO_BYTES], false).await;
    assert!(matches!(flaw, AnswerFlaw::Hello(HelloError::Garbage)), "{flaw}");
    assert_eq!(reply, b"", "a stranger is told nothing");
    let offer = expected.offer(TERMS).unwrap();
    for bytes in [0, 1, HELLO_BYTES - 1] {
        let (flaw, _) = said(&expected, &hello(&offer)[..bytes], true).await;
        assert!(matches!(flaw, AnswerFlaw::Half { bytes: came } if came == bytes), "{flaw}");
    }
    linked(&expected, &offer).await.1.unwrap();
}

#[tokio::test]
async fn any_changed_byte_opens_nothing_and_spoils_nothing() {
    let expected = Expected::new();
    let offer = expected.offer(TERMS).unwrap();
    for position in 0..HELLO_BYTES {
        let mut bytes = hello(&offer);
        bytes[position] ^= 0x40;
        let (flaw, reply) = said(&expected, &bytes, false).await;
        let is_named = match position {
            0..8 => matches!(flaw, AnswerFlaw::Hello(HelloError::Garbage)),
            8..12 => matches!(flaw, AnswerFlaw::Hello(HelloError::Version { .. })),
            12..14 => matches!(flaw, AnswerFlaw::Hello(HelloError::Format { .. })),
            14..16 => matches!(flaw, AnswerFlaw::Hello(HelloError::Field { .. })),
            32..48 => matches!(flaw, AnswerFlaw::Unexpected(_)),
            _ => matches!(flaw, AnswerFlaw::WrongToken(_) | AnswerFlaw::Hello(HelloError::Window { .. })),
        };
        assert!(is_named, "byte {position}: {flaw}");
        assert!(reply.is_empty() || refused(&reply) != Refusal::Terms || (16..24).contains(&position));
    }
    linked(&expected, &offer).await.1.unwrap();
}

#[tokio::test]
async fn a_hello_opens_one_link() {
    let expected = Expected::new();
    let offer = expected.offer(TERMS).unwrap();
    linked(&expected, &offer).await.1.unwrap();
    let (flaw, reply) = said(&expected, &hello(&offer), false).await;
    assert!(matches!(flaw, AnswerFlaw::Replayed(link) if link == offer.link), "{flaw}");
    assert_eq!(refused(&reply), Refusal::Unexpected);
    let (dialled, _) = linked(&expected, &offer).await;
    assert!(matches!(dialled.unwrap_err().flaw, DialFlaw::Refused(Refusal::Unexpected)));
}

#[tokio::test]
async fn more_than_was_offered_is_refused_and_named() {
    let expected = Expected::new();
    let mut offer = expected.offer(TERMS).unwrap();
    offer.terms.window_bytes += 1;
    let (dialled, answered) = linked(&expected, &offer).await;
    assert!(matches!(dialled.unwrap_err().flaw, DialFlaw::Refused(Refusal::Terms)));
    let limit = TERMS.window_bytes;
    let flaw = answered.unwrap_err().flaw;
    assert!(
        matches!(flaw, AnswerFlaw::Hello(HelloError::Window { asked, limit: at }) if (asked, at) == (limit + 1, limit))
    );
}

#[tokio::test]
async fn a_withdrawn_offer_opens_nothing() {
    let expected = Expected::new();
    let offer = expected.offer(TERMS).unwrap();
    expected.withdraw(offer.link);
    assert!(linked(&expected, &offer).await.1.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_offer_expires() {
    let expected = Expected::new();
    let offer = expected.offer(TERMS).unwrap();
    advance(protocol::limits::OFFER_TIME_MAX).await;
    let flaw = expected.take(&Hello::decode(&hello(&offer)).unwrap(), &hello(&offer)).unwrap_err();
    assert!(matches!(flaw, AnswerFlaw::Unexpected(_)), "{flaw}");
}

#[tokio::test(start_paused = true)]
async fn offers_are_bounded_and_expired_ones_make_room() {
    let expected = Expected::new();
    for _ in 0..protocol::limits::OFFERS_MAX {
        expected.offer(TERMS).unwrap();
    }
    assert_eq!(expected.offer(TERMS).unwrap_err(), TooManyOffers);
    advance(protocol::limits::OFFER_TIME_MAX).await;
    expected.offer(TERMS).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_hello_ends_after_the_deadline() {
    let (expected, offer) = (Expected::new(), Offer::new(TERMS));
    let (flaw, _) = said(&expected, &hello(&offer)[..10], false).await;
    assert!(matches!(flaw, AnswerFlaw::Slow { .. }), "{flaw}");
}

#[tokio::test]
async fn connections_that_never_speak_keep_nobody_out() {
    let expected = std::sync::Arc::new(Expected::new());
    let offer = expected.offer(TERMS).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut silent, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..protocol::limits::HANDSHAKES_MAX + 1 {
        silent.push(net::TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (server, expected) = (listener.accept().await.unwrap().0, expected.clone());
        answers.push(spawn(async move { answer(server, &expected).await.unwrap_err().flaw }));
    }
    let first = answers.remove(0).await.unwrap();
    assert!(matches!(first, AnswerFlaw::Displaced { bytes: 0 }), "{first}");
    linked(&expected, &offer).await.1.unwrap();
    drop(silent);
    for answer in answers {
        let flaw = answer.await.unwrap();
        assert!(matches!(flaw, AnswerFlaw::Half { bytes: 0 } | AnswerFlaw::Displaced { .. }), "{flaw}");
    }
}

#[tokio::test]
async fn who_answers_without_the_secret_is_found_out() {
    let offer = Offer::new(TERMS);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let forged = Reply { verdict: Ok(()), nonce: [0; 16] }.encode(|_| [0; 32]);
    for (answer, is_expected) in [
        (&forged[..], (|flaw| matches!(flaw, DialFlaw::Forged)) as fn(&DialFlaw) -> bool),
        (&[7; REPLY_BYTES], |flaw| matches!(flaw, DialFlaw::Garbage)),
        (&[7; 9], |flaw| matches!(flaw, DialFlaw::Broken(_))),
    ] {
        let say = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; HELLO_BYTES]).await.unwrap();
            stream.write_all(answer).await.unwrap();
        };
        let flaw = tokio::join!(dial(address, &offer), say).0.unwrap_err().flaw;
        assert!(is_expected(&flaw), "{flaw}");
    }
    drop(listener);
    let error = dial(address, &offer).await.unwrap_err();
    assert!(matches!(error.flaw, DialFlaw::Connect(_)));
    assert!(error.to_string().contains(&address.to_string()));
}
