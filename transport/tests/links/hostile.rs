//! What arrives is not what a correct end sends: each time that is said, what was right before it is kept, and nothing
//! else happens.

use std::sync::{Arc, atomic::Ordering};

use proptest::{collection::vec, prelude::*};
use protocol::{
    frame::{HEADER_BYTES, Header, HeaderError, Kind},
    limits::RING_BYTES_MIN,
    link::{CREDIT_BYTES, Sealed, SealedError},
};
use ring::aead;
use transport::{
    link::{Incoming, LinkError, Linked},
    ring::{Consumer, Memory},
    segment::Mapped,
};

use crate::{DESCRIPTION, KEYS, Link, Sent, rings};

/// A receiver that takes bytes from anybody.
struct Reader {
    incoming: Incoming<Arc<Mapped>>,
    consumer: Consumer<Arc<Mapped>>,
    received: Vec<Sent>,
}

impl Reader {
    fn new(sealed: bool) -> Reader {
        let [_, receiver] = rings(RING_BYTES_MIN);
        Reader {
            incoming: Incoming::new(receiver.clone(), sealed.then_some(KEYS)),
            consumer: Consumer::new(receiver),
            received: Vec::new(),
        }
    }

    /// Takes the bytes in, at most so many at a time, and reads what becomes of them.
    fn take(&mut self, mut bytes: &[u8], most: usize) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            let space = self.incoming.space();
            let len = space.len().min(bytes.len()).min(most);
            assert!(len > 0, "no space, though all that came was read");
            space[..len].copy_from_slice(&bytes[..len]);
            let taken = self.incoming.received(len);
            self.read();
            let _nobody_sleeps = taken?;
            while let Some(credit) = self.incoming.credit(true) {
                let len = credit.len();
                self.incoming.credit_sent(len);
            }
            bytes = &bytes[len..];
        }
        Ok(())
    }

    fn read(&mut self) {
        let arrived = self.incoming.memory().arrived().load(Ordering::Relaxed);
        while let Some(frame) = self.consumer.peek().expect("a link publishes only what is right") {
            let payload = self.consumer.payload(&frame).to_vec();
            let ends = self.consumer.ends(&frame).collect();
            self.received.push(Sent { kind: frame.kind(), payload, ends });
            let _nobody_waits = self.consumer.release(&frame);
            assert!(self.consumer.position() <= arrived, "more was read than has arrived");
        }
    }
}

/// Messages, and the pieces in which they go over a link.
fn pieces(sizes: &[usize], sealed: bool) -> (Vec<Sent>, Vec<Vec<u8>>) {
    let mut link = Link::new(RING_BYTES_MIN, sealed.then_some(KEYS));
    let (mut messages, mut pieces) = (Vec::new(), Vec::new());
    for (index, size) in sizes.iter().enumerate() {
        let message = Sent::new(index as u32, size % 1000, Kind::Value, index % 3);
        while !link.send(&message) {
            link.carry().unwrap();
            while link.receive().is_some() {}
            link.credit(true, usize::MAX).unwrap();
        }
        messages.push(message);
        loop {
            let before = link.to_receiver.len();
            if link.depart(usize::MAX) == 0 {
                break;
            }
            pieces.push(link.to_receiver.iter().skip(before).copied().collect());
        }
    }
    (messages, pieces)
}

/// What happens to the pieces on their way.
#[derive(Debug, Clone)]
enum Accident {
    Flip { place: usize, bit: u8 },
    Replay(usize),
    Swap(usize),
    Lose(usize),
    Cut(usize),
}

fn accident() -> impl Strategy<Value = Accident> {
    let place = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    prop_oneof![
        4 => (place(), 0..8u8).prop_map(|(place, bit)| Accident::Flip { place, bit }),
        1 => place().prop_map(Accident::Replay),
        1 => place().prop_map(Accident::Swap),
        1 => place().prop_map(Accident::Lose),
        1 => place().prop_map(Accident::Cut),
    ]
}

/// `true` when the receiver can know of it only by what comes afterwards.
fn happens(accident: &Accident, pieces: &mut Vec<Vec<u8>>) -> bool {
    let count = pieces.len();
    match *accident {
        Accident::Flip { place, bit } => {
            let piece = &mut pieces[place % count];
            let len = piece.len();
            piece[(place / count) % len] ^= 1 << bit;
            false
        }
        Accident::Replay(place) => {
            let piece = pieces[place % count].clone();
            pieces.insert(place % count + 1, piece);
            false
        }
        Accident::Swap(place) => {
            pieces.swap(place % (count - 1), place % (count - 1) + 1);
            false
        }
        Accident::Lose(place) => {
            pieces.remove(place % count);
            place % count == count - 1
        }
        Accident::Cut(place) => {
            pieces.truncate(place % count + 1);
            let last = pieces.last_mut().unwrap();
            last.truncate((place / count) % last.len());
            last.is_empty()
        }
    }
}

proptest! {
    #[test]
    fn no_accident_to_what_is_sealed_is_overlooked(
        sizes in vec(any::<usize>(), 2..20),
        accident in accident(),
        most in prop_oneof![Just(usize::MAX), 1..200usize],
    ) {
        let (messages, mut pieces) = pieces(&sizes, true);
        let unseen = happens(&accident, &mut pieces);
        let mut reader = Reader::new(true);
        let taken = reader.take(&pieces.concat(), most).and_then(|()| reader.incoming.end());
        prop_assert_eq!(taken.is_ok(), unseen, "{:?}", taken);
        prop_assert!(messages.starts_with(&reader.received), "a message that was not sent");
        prop_assert_eq!(reader.incoming.end(), taken, "what was wrong is forgotten");
    }

    #[test]
    fn what_comes_plain_is_survived_and_read_as_a_ring_is(
        sizes in vec(any::<usize>(), 2..20),
        accidents in vec(accident(), 1..4),
        most in prop_oneof![Just(usize::MAX), 1..200usize],
    ) {
        let (_, mut pieces) = pieces(&sizes, false);
        for accident in &accidents {
            if pieces.len() > 1 && pieces.iter().all(|piece| !piece.is_empty()) {
                happens(accident, &mut pieces);
            }
        }
        let mut reader = Reader::new(false);
        let _any = reader.take(&pieces.concat(), most).and_then(|()| reader.incoming.end());
    }

    #[test]
    fn any_bytes_are_survived(sealed: bool, bytes in vec(any::<u8>(), 0..2000), most in 1..300usize) {
        let mut reader = Reader::new(sealed);
        let _any = reader.take(&bytes, most).and_then(|()| reader.incoming.end());
        prop_assert!(!sealed || reader.received.is_empty(), "a message that nobody sent");
    }

    /// Whatever the receiver says, the sender overwrites nothing that was not sent, and never takes its own ring for
    /// broken.
    #[test]
    fn any_credits_are_survived(
        sealed: bool,
        steps in vec((0..3000usize, 0..5000u64, any::<bool>(), 0..usize::MAX), 0..50),
    ) {
        let mut link = Link::new(RING_BYTES_MIN, sealed.then_some(KEYS));
        for (index, (size, ahead, aligned, most)) in steps.into_iter().enumerate() {
            link.send(&Sent::new(index as u32, size, Kind::Value, 0));
            link.depart(most % 5000);
            let sent = link.outgoing.position();
            let claimed = (sent + 100).saturating_sub(ahead) & if aligned { !15 } else { !0 };
            let space = link.outgoing.credit_space();
            let len = space.len().min(CREDIT_BYTES);
            space[..len].copy_from_slice(&claimed.to_le_bytes()[..len]);
            match link.outgoing.credits_received(len) {
                Ok(_) => {}
                Err(LinkError::Credit { claimed: told, before, sent }) => {
                    let is_possible = claimed.is_multiple_of(16) && (before..=sent).contains(&claimed);
                    prop_assert!(told == claimed && !is_possible);
                    break;
                }
                Err(LinkError::ForgedCredit { counter }) => {
                    prop_assert!(sealed && counter == 0);
                    break;
                }
                Err(other) => panic!("a sender is told of {other}"),
            }
            let consumed = link.producer.memory().consumer_words().consumed.load(Ordering::Relaxed);
            prop_assert!(consumed <= link.producer.position_for(RING_BYTES_MIN), "more than was written");
        }
    }
}

/// A plain stream up to the first frame.
fn described() -> Reader {
    let mut reader = Reader::new(false);
    reader.take(&DESCRIPTION, usize::MAX).unwrap();
    reader
}

fn header(kind: Kind, payload_bytes: usize, sequence: u32) -> [u8; HEADER_BYTES] {
    Header { payload_bytes, kind, ends: 0, sequence, time: 0 }.encode()
}

#[test]
fn a_frame_longer_than_agreed_is_refused_by_its_header() {
    let long = header(Kind::Value, RING_BYTES_MIN - 31, 0);
    let error = described().take(&long, usize::MAX).unwrap_err();
    assert!(
        matches!(error, LinkError::Header(HeaderError::Length { capacity: RING_BYTES_MIN, .. })),
        "{error}"
    );
    let error = Reader::new(true).take(&[&[0xFF; 4][..], &[7, 0, 0, 0], &[0; 152]].concat(), usize::MAX);
    assert!(
        matches!(error, Err(LinkError::Sealed(SealedError::Length { length: u32::MAX, .. }))),
        "{error:?}"
    );
}

#[test]
fn a_sealed_frame_is_no_frame_of_a_ring() {
    let sealed = Sealed { content_bytes: 64, counter: 0 }.encode();
    let error = described().take(&sealed, usize::MAX);
    assert_eq!(error, Err(LinkError::Header(HeaderError::Kind { kind: 7, flags: 0 })));
}

#[test]
fn a_chain_of_skips_is_refused() {
    let mut reader = described();
    reader.take(&header(Kind::Skip, 0, 0), usize::MAX).unwrap();
    assert_eq!(reader.consumer.peek(), Ok(None), "a skip is published with what is behind it");
    assert_eq!(reader.take(&header(Kind::Skip, 0, 1), usize::MAX), Err(LinkError::Skips));
    assert_eq!(reader.incoming.received(0), Err(LinkError::Skips), "it is forgotten");
    assert!(reader.incoming.space().is_empty());
}

#[test]
fn a_sender_that_overruns_its_window_is_told_so() {
    for sealed in [false, true] {
        let mut link = Link::new(RING_BYTES_MIN, sealed.then_some(KEYS));
        let message = Sent::new(0, 1000, Kind::Value, 0);
        (0..4).for_each(|_| _ = link.send(&message));
        link.carry().unwrap();
        while link.receive().is_some() {}
        // The receiver has room, but has not said so: who sends more can't be told from who never listens.
        let consumed = &link.producer.memory().consumer_words().consumed;
        consumed.store(link.outgoing.position(), Ordering::Relaxed);
        assert!(link.send(&message));
        let end = link.outgoing.position() + 1024;
        let window = (RING_BYTES_MIN - HEADER_BYTES) as u64;
        assert_eq!(link.carry(), Err(LinkError::Overrun { end, window }));
    }
}

#[test]
fn the_end_may_come_between_frames_only() {
    for sealed in [false, true] {
        let (_, pieces) = pieces(&[100, 50], sealed);
        let stream = pieces.concat();
        let mut whole = vec![0];
        whole.extend(pieces.iter().scan(0, |end, piece| {
            *end += piece.len();
            Some(*end)
        }));
        for cut in 0..=stream.len() {
            let mut reader = Reader::new(sealed);
            reader.take(&stream[..cut], usize::MAX).unwrap();
            let ended = reader.incoming.end();
            match whole.binary_search(&cut) {
                Ok(_) => assert_eq!(ended, Ok(())),
                Err(index) => {
                    let bytes = (cut - whole[index - 1]) as u64;
                    assert_eq!(ended, Err(LinkError::HalfFrame { bytes }), "cut at {cut}");
                }
            }
        }
    }
}

/// A peer that has the key seals a frame that goes on behind what it sealed.
#[test]
fn frames_end_where_what_was_sealed_ends() {
    let mut reader = Reader::new(true);
    reader.take(&pieces(&[0], true).1[0], usize::MAX).unwrap();
    let sealed = seal(1, &mut header(Kind::Value, 64, 0));
    assert_eq!(reader.take(&sealed, usize::MAX), Err(LinkError::Cut { counter: 1 }));
}

/// Seals as the layout says, by another hand than the link's own.
fn seal(counter: u64, content: &mut [u8]) -> Vec<u8> {
    let header = Sealed { content_bytes: content.len(), counter }.encode();
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&counter.to_le_bytes());
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &KEYS.frames).unwrap());
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::from(&header), content).unwrap();
    [&header[..], tag.as_ref(), content].concat()
}

#[test]
fn a_ring_that_its_sender_has_broken_is_seen_to_be_so_at_the_other_end() {
    for sealed in [false, true] {
        let mut link = Link::new(RING_BYTES_MIN, sealed.then_some(KEYS));
        assert!(link.send(&Sent::new(0, 48, Kind::Value, 0)));
        let broken = link.outgoing.position() + 64;
        assert!(link.send(&Sent::new(1, 48, Kind::Value, 0)));
        assert!(link.send(&Sent::new(2, 48, Kind::Value, 0)));
        link.producer.memory().length_word(broken).store(1 << 30, Ordering::Relaxed);
        let error = link.carry().unwrap_err();
        assert!(matches!(error, LinkError::Header(HeaderError::Length { .. })), "{error}");
        assert_eq!(link.receive(), Some(Sent::new(0, 48, Kind::Value, 0)), "what was right is lost");
        assert_eq!((link.receive(), link.depart(usize::MAX)), (None, 0));
        assert!(link.outgoing.is_drained());
    }
}
