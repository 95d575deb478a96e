//! Whatever a hostile process, machine or client may say: a stream of control messages, cut anywhere.
//!
//! The input is a byte for the kind of message, one for the limit, one for how the stream is cut, and the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use protocol::{
    cluster::{Certified, Enrol, Greeting, Renew, Revocations},
    control::{
        EndingWord, ExitWord, Framing, FromManager, FromProcess, OverWord, PREFIX_BYTES, ToManager,
        ToProcess, encode,
    },
    ending::{Ending, Exit, Over},
    ids::EndId,
    limits::{CONTROL_BYTES_MAX, ENROL_BYTES_MAX},
};

fuzz_target!(|input: &[u8]| {
    let Some(([kind, limit, cut], stream)) = input.split_first_chunk() else { return };
    let limit = [CONTROL_BYTES_MAX, ENROL_BYTES_MAX, 64, 1][usize::from(*limit) % 4];
    let reading = Reading { stream, limit, cut: usize::from(*cut) + 1 };
    match kind % 7 {
        0 => reading.read(check_process),
        1 => reading.read(check_manager),
        2 => reading.read(|_: Enrol| {}),
        3 => reading.read(|_: Certified| {}),
        4 => reading.read(|_: Greeting| {}),
        5 => reading.read(|_: Renew| {}),
        _ => reading.read(|_: Revocations| {}),
    }
});

/// A stream that comes in pieces.
struct Reading<'a> {
    stream: &'a [u8],
    limit: usize,
    cut: usize,
}

impl Reading<'_> {
    /// Reads all that makes sense: the same, however it is cut.
    fn read<M: Message + Default + PartialEq>(&self, check: impl Fn(M)) {
        let whole = self.messages::<M>(self.stream.len().max(1));
        assert!(whole == self.messages::<M>(self.cut), "a stream that says something else when it is cut");
        for message in whole {
            let bytes = encode(&message, 0);
            assert!(M::decode(&bytes[PREFIX_BYTES..]).is_ok_and(|again| again == message));
            check(message);
        }
    }

    fn messages<M: Message + Default>(&self, piece: usize) -> Vec<M> {
        let mut framing = Framing::<()>::limited(self.limit);
        let (mut messages, mut bytes_left) = (Vec::new(), self.stream.len());
        for piece in self.stream.chunks(piece) {
            framing.feed(piece, []);
            loop {
                match framing.take::<M>() {
                    Ok(Some((message, descriptors))) => {
                        assert!(descriptors.is_empty(), "descriptors out of nothing");
                        bytes_left = bytes_left.checked_sub(PREFIX_BYTES).expect("more messages than bytes");
                        messages.push(message);
                    }
                    Ok(None) => break,
                    Err(_) => return messages,
                }
            }
        }
        messages
    }
}

/// What is accepted of a process's word says the same again.
fn check_process(word: ToManager) {
    match word.word {
        Some(FromProcess::Finished(finished)) => {
            check_ends(&finished.ends);
            let Some(Ok(ending)) = finished.ending.map(Ending::try_from) else { return };
            assert_eq!(Ending::try_from(EndingWord::from(&ending)), Ok(ending));
        }
        Some(FromProcess::Spawn(spawn)) => check_ends(&spawn.ends),
        Some(FromProcess::Transfer(ends) | FromProcess::Adopt(ends) | FromProcess::Discard(ends)) => {
            check_end(&ends.via);
            check_ends(&ends.ends);
        }
        Some(FromProcess::Close(close)) => check_end(&close.end),
        _ => {}
    }
}

/// What is accepted of a manager's word says the same again.
fn check_manager(word: ToProcess) {
    match word.word {
        Some(FromManager::Ended(ended)) => {
            let Ok(exit) = Exit::try_from(ended.exit) else { return };
            assert_eq!(Exit::try_from(Some(ExitWord::from(&exit))), Ok(exit));
        }
        Some(FromManager::SenderOver(over)) => {
            let Ok(over) = Over::try_from(over.over) else { return };
            assert_eq!(Over::try_from(Some(OverWord::from(&over))), Ok(over));
        }
        _ => {}
    }
}

fn check_end(word: &[u8]) {
    if let Ok(end) = EndId::from_word(word) {
        assert_eq!(end.to_word(), word);
    }
}

fn check_ends(word: &[u8]) {
    if let Ok(ends) = EndId::list_from_word(word) {
        assert_eq!(EndId::list_to_word(&ends), word);
    }
}
