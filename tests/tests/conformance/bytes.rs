//! Bytes written in place, batches, and messages that are passed on.

use archean::{Bytes, Receiver, RecvError, Sender, channel, channel_with_capacity};
use protocol::frame::payload_bytes_max;
use tests::{place::Place, random::Random};

/// The least capacity that a channel can have.
const SMALL: usize = protocol::limits::RING_BYTES_MIN;

/// The most bytes that can be reserved in the smallest channel: what an archived vector takes comes behind them.
const MOST: usize = payload_bytes_max(SMALL) - 8;

/// How many bytes are reserved, and how many of them are sent, for each message of a long row: all lengths and
/// alignments, whole, shorter and empty, and some that fill the ring.
fn sizes() -> impl Iterator<Item = (usize, usize)> {
    let mut random = Random::new(5);
    let short = (0..=66).flat_map(|len| [len, len / 2, 0].map(|sent| (len, sent)));
    let long = (0..600).map(move |number| {
        let len = random.below(if number % 10 == 0 { MOST as u64 + 1 } else { 700 }) as usize;
        (len, if number % 3 == 0 { random.below(len as u64 + 1) as usize } else { len })
    });
    short.chain(long).chain([(MOST, MOST), (MOST, 0), (MOST, 1)])
}

fn fill(number: usize, bytes: &mut [u8]) {
    let mut random = Random::new(number as u64);
    bytes.iter_mut().for_each(|byte| *byte = random.number() as u8);
}

/// The bytes of that message.
fn filled(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(number, &mut bytes);
    bytes
}

async fn write(mut outbox: Sender<Bytes>) {
    for (number, (len, sent)) in sizes().enumerate() {
        let mut slot = outbox.reserve(len).await.unwrap();
        assert_eq!(slot.len(), len);
        fill(number, &mut slot[..sent]);
        slot.commit(sent);
    }
}

fn write_blocking(mut outbox: Sender<Bytes>) {
    for (number, (len, sent)) in sizes().enumerate() {
        // One that is given up beforehand leaves nothing.
        outbox.reserve_blocking(len / 2).unwrap().fill(0xee);
        let mut slot = outbox.reserve_blocking(len).unwrap();
        fill(number, &mut slot[..sent]);
        slot.commit(sent);
    }
}

pub(crate) async fn what_was_written_in_place_arrives(place: Place) -> anyhow::Result<()> {
    for capacity in [SMALL, 1 << 20] {
        let (outbox, mut inbox) = channel_with_capacity(capacity);
        let child = place.start(write, outbox).await?;
        for (number, (_, sent)) in sizes().enumerate() {
            assert_eq!(inbox.recv().await?.as_slice(), filled(number, sent), "{number}");
        }
        assert_eq!(inbox.recv_owned().await, Err(RecvError::Closed));
        child.join().await?;

        let (outbox, mut inbox) = channel_with_capacity(capacity);
        let child = place.start(write_blocking, outbox).await?;
        for (number, (_, sent)) in sizes().enumerate() {
            assert_eq!(inbox.recv_owned_blocking()?, filled(number, sent), "{number}");
        }
        assert_eq!(inbox.recv_owned_blocking(), Err(RecvError::Closed));
        child.join().await?;
    }
    Ok(())
}

/// Receives numbers, which have to be those from zero on, until there are no more.
async fn count(mut inbox: Receiver<u32>) -> u32 {
    let mut count = 0;
    while let Ok(number) = inbox.recv_owned().await {
        assert_eq!(number, count);
        count += 1;
    }
    count
}

pub(crate) async fn a_batch_may_be_more_than_the_ring_holds(place: Place) -> anyhow::Result<()> {
    const COUNT: u32 = 100_000;
    for capacity in [SMALL, 1 << 20] {
        let (mut outbox, inbox) = channel_with_capacity(capacity);
        let child = place.start(count, inbox).await?;
        outbox.send_batch(0..COUNT).await?;
        outbox.send_batch_blocking(COUNT..2 * COUNT)?;
        outbox.send_batch([]).await?;
        for start in (2 * COUNT..3 * COUNT).step_by(100) {
            outbox.send_batch(start..start + 50).await?;
            outbox.send_batch_blocking(start + 50..start + 100)?;
        }
        drop(outbox);
        assert_eq!(child.join().await?, 3 * COUNT);
    }
    Ok(())
}

pub(crate) async fn a_batch_goes_on_after_large_values(place: Place) -> anyhow::Result<()> {
    async fn check(mut inbox: Receiver<Vec<u8>>) -> usize {
        let mut count = 0;
        while let Ok(value) = inbox.recv_owned().await {
            assert_eq!(value, filled(count, len(count)));
            count += 1;
        }
        count
    }
    fn len(number: usize) -> usize {
        if number % 5 == 3 { 3 * SMALL + number } else { number % 300 }
    }
    let (mut outbox, inbox) = channel_with_capacity(SMALL);
    let child = place.start(check, inbox).await?;
    outbox.send_batch((0..500).map(|number| filled(number, len(number)))).await?;
    outbox.send_batch_blocking((500..1000).map(|number| filled(number, len(number))))?;
    drop(outbox);
    assert_eq!(child.join().await?, 1000);
    Ok(())
}

#[archean::data]
struct Parcel {
    number: usize,
    bytes: Vec<u8>,
    reply: Option<Sender<usize>>,
}

/// Passes everything on, by either way in turn.
async fn pass_on(mut inbox: Receiver<Parcel>, mut outbox: Sender<Parcel>) {
    for number in 0.. {
        let Ok(parcel) = inbox.recv().await else { return };
        assert_eq!(parcel.number.to_native() as usize, number);
        if number % 2 == 0 {
            outbox.forward(parcel).await.unwrap();
        } else {
            outbox.forward_blocking(parcel).unwrap();
        }
    }
}

pub(crate) async fn messages_are_passed_on_with_their_ends(place: Place) -> anyhow::Result<()> {
    const COUNT: usize = 400;
    // Of the three channels in a row one is small: there large messages go in parts.
    for small in 0..3 {
        let capacity = |index| if index == small { SMALL } else { 1 << 16 };
        let len = |number: usize| if number % 7 == 2 { 90_000 + number } else { number };
        let (mut outbox, first) = channel_with_capacity(capacity(0));
        let (through, second) = channel_with_capacity(capacity(1));
        let (last, mut inbox) = channel_with_capacity(capacity(2));
        let children =
            [place.start(pass_on, (first, through)).await?, place.start(pass_on, (second, last)).await?];
        let (replies, mut answers) = channel::<usize>();
        let send = async {
            for number in 0..COUNT {
                let bytes = filled(number, len(number));
                let reply = (number % 5 == 1 || len(number) > SMALL).then(|| replies.clone());
                outbox.send(Parcel { number, bytes, reply }).await.unwrap();
            }
            drop((outbox, replies));
        };
        let receive = async {
            for number in 0..COUNT {
                let parcel = inbox.recv_owned().await.unwrap();
                assert_eq!((parcel.number, parcel.bytes), (number, filled(number, len(number))));
                if let Some(mut reply) = parcel.reply {
                    reply.send(number).await.unwrap();
                }
            }
            assert_eq!(inbox.recv_owned().await.err(), Some(RecvError::Closed));
        };
        let answer = async {
            let mut numbers = Vec::new();
            while let Ok(number) = answers.recv_owned().await {
                numbers.push(number);
            }
            numbers.sort_unstable();
            assert!(
                numbers.into_iter().eq((0..COUNT).filter(|number| number % 5 == 1 || len(*number) > SMALL))
            );
        };
        futures::join!(send, receive, answer);
        for child in children {
            child.join().await?;
        }
    }
    Ok(())
}
