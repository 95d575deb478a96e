//! Whatever a hostile end of a link may send: to a receiver, as it is and sealed with the right key, and to a sender.
//!
//! The input is a byte for what is tried, one for the most bytes that arrive at once, and what arrives.
#![no_main]
#![expect(
    unsafe_code,
    reason = "the sender's frames are written through a pointer, as a producer writes them"
)]

use std::{
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
};

use libfuzzer_sys::fuzz_target;
use protocol::{
    frame::{HEADER_BYTES, Kind},
    limits::RING_BYTES_MIN,
    link::{CREDIT_BYTES, DESCRIPTION_BYTES, SEALED_CREDIT_BYTES, SEALED_PREFIX_BYTES, Sealed},
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use transport::{
    link::{Incoming, Keys, LinkError, Linked, Outgoing},
    ring::{Consumer, Memory, Producer},
    segment::{Files, Mapped},
};

const KEYS: Keys = Keys { frames: [3; 32], credits: [4; 32] };

fuzz_target!(|input: &[u8]| {
    let Some(([what, most], bytes)) = input.split_first_chunk() else { return };
    let most = usize::from(*most) * 16 + 1;
    match what % 5 {
        0 => receive(bytes, most, None),
        1 => receive(bytes, most, Some(KEYS)),
        2 => receive(&sealed(bytes), most, Some(KEYS)),
        3 => send(bytes, None),
        _ => send(&sealed_credits(bytes), Some(KEYS)),
    }
});

fn seal(key: &[u8; 32], counter: u64, header: &[u8], content: &mut [u8]) -> [u8; 16] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&counter.to_le_bytes());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_separate_tag(nonce, Aad::from(header), content).unwrap().as_ref().try_into().unwrap()
}

/// Bytes that a peer with the key seals: a description, and pieces of 256 bytes.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut description = [0; DESCRIPTION_BYTES];
    let pieces = std::iter::once(&mut description[..]);
    let mut bytes = bytes.to_vec();
    bytes.truncate(bytes.len() & !(HEADER_BYTES - 1));
    let mut all = Vec::new();
    for (counter, piece) in pieces.chain(bytes.chunks_mut(256)).enumerate() {
        let header = Sealed { content_bytes: piece.len(), counter: counter as u64 }.encode();
        let tag = seal(&KEYS.frames, counter as u64, &header, piece);
        all.extend_from_slice(&header);
        all.extend_from_slice(&tag);
        all.extend_from_slice(piece);
    }
    assert!(all.len() >= SEALED_PREFIX_BYTES + DESCRIPTION_BYTES);
    all
}

fn sealed_credits(bytes: &[u8]) -> Vec<u8> {
    let (credits, rest) = bytes.as_chunks::<CREDIT_BYTES>();
    let seal = |(counter, credit): (usize, &[u8; CREDIT_BYTES])| {
        let mut sealed = *credit;
        let tag = seal(&KEYS.credits, counter as u64, &[], &mut sealed);
        [&sealed[..], &tag].concat()
    };
    let mut all = credits.iter().enumerate().flat_map(seal).collect::<Vec<u8>>();
    assert!(all.len().is_multiple_of(SEALED_CREDIT_BYTES));
    all.extend_from_slice(rest);
    all
}

fn memory(for_link: bool) -> Arc<Mapped> {
    let files = Files::create(RING_BYTES_MIN).unwrap();
    let (data, consumer) = (files.data.as_fd(), files.consumer.as_fd());
    Arc::new(if for_link {
        Mapped::for_link(data, consumer, RING_BYTES_MIN).unwrap()
    } else {
        let mapped = Mapped::for_producer(data, consumer, RING_BYTES_MIN).unwrap();
        mapped.take_consumer(consumer).unwrap();
        mapped
    })
}

/// What is published is right, and a reader that reads all of it always leaves space.
fn receive(mut bytes: &[u8], most: usize, keys: Option<Keys>) {
    let memory = memory(true);
    let mut incoming = Incoming::new(memory.clone(), keys);
    let mut consumer = Consumer::new(memory);
    let mut number = 0;
    while !bytes.is_empty() {
        let space = incoming.space();
        let len = space.len().min(bytes.len()).min(most);
        assert!(len > 0, "no space, though all that came was read");
        space[..len].copy_from_slice(&bytes[..len]);
        let taken = incoming.received(len);
        let arrived = incoming.memory().arrived().load(Ordering::Relaxed);
        while let Some(frame) = consumer.peek().expect("a link publishes only what is right") {
            assert!(frame.sequence() == number || frame.sequence() == number + 1);
            number = frame.sequence() + 1;
            std::hint::black_box(consumer.payload(&frame).iter().fold(0u8, |sum, byte| sum ^ byte));
            let _nobody_waits = consumer.release(&frame);
            assert!(consumer.position() <= arrived);
        }
        if let Err(error) = taken {
            assert_eq!(incoming.end(), Err(error));
            assert!(incoming.space().is_empty() && incoming.credit(true).is_none());
            return;
        }
        while let Some(credit) = incoming.credit(true) {
            let len = credit.len();
            incoming.credit_sent(len);
        }
        bytes = &bytes[len..];
    }
    let _any = incoming.end();
}

/// A sender gives back no more than was sent, and goes on, until it says what is wrong.
fn send(mut bytes: &[u8], keys: Option<Keys>) {
    let memory = memory(false);
    memory.describe(1, "fuzz");
    let mut outgoing = Outgoing::new(memory.clone(), keys).expect("the first link");
    let mut producer = Producer::new(memory.clone());
    let mut written = 0;
    while !bytes.is_empty() {
        let size = usize::from(bytes[0]) * 8;
        if let Some(claim) = producer.claim(HEADER_BYTES + size).expect("no ring is broken by credits") {
            // SAFETY: the claim was granted for so many bytes.
            unsafe { claim.payload().write_bytes(1, size) };
            let _nobody_sleeps = claim.hold(Kind::Value, size, &[]).flush();
        }
        if let Some(pending) = outgoing.pending() {
            let len = pending.len();
            let _nobody_waits = outgoing.sent(len - len / 3);
        }
        written = outgoing.position().max(written);
        let space = outgoing.credit_space();
        let len = space.len().min(bytes.len()).min(size + 1);
        space[..len].copy_from_slice(&bytes[..len]);
        match outgoing.credits_received(len) {
            Ok(_) => {}
            Err(LinkError::Credit { .. } | LinkError::ForgedCredit { .. }) => return,
            Err(other) => panic!("a sender is told of {other}"),
        }
        assert!(memory.consumer_words().consumed.load(Ordering::Relaxed) <= written);
        bytes = &bytes[len..];
    }
}
