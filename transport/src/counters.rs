//! What a process counts for its ends, as it writes it and as others read it.
//!
//! One thread writes a record at a time, nobody waits for anybody, and a reader sees numbers that may be a few
//! messages apart.

use std::sync::atomic::Ordering;

use protocol::ids::EndId;

use crate::layout::{RECORD_NAME_BYTES, RECORD_SENDER, Record};

/// A record as it was read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The end.
    pub end: EndId,
    /// Whether it sends; otherwise it receives.
    pub sends: bool,
    /// The type of its messages, or the end of a long name.
    pub type_name: String,
    /// Messages sent or received.
    pub frames: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// How many times a sender found too little room.
    pub full: u64,
    /// How many times the process was about to sleep for this end.
    pub sleeps: u64,
    /// How many times the peer was woken.
    pub wakes: u64,
}

impl Record {
    /// Begins to count for an end.
    pub fn begin(&self, end: EndId, kind: u32, type_name: &str) {
        self.end();
        for (word, value) in self.end.iter().zip([end.0 as u64, (end.0 >> 64) as u64]) {
            word.store(value, Ordering::Relaxed);
        }
        for number in [&self.frames, &self.bytes, &self.full, &self.sleeps, &self.wakes] {
            number.store(0, Ordering::Relaxed);
        }
        // The end of a long name says more than its beginning.
        let name = &type_name.as_bytes()[type_name.len().saturating_sub(RECORD_NAME_BYTES)..];
        for (word, bytes) in self.name.iter().zip(name.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(whole), Ordering::Relaxed);
        }
        self.name_bytes.store(name.len() as u32, Ordering::Relaxed);
        // SYNC: with the first load in `read`.
        self.kind.store(kind, Ordering::Release);
    }

    /// Counts no longer for the end; the record may be used for another.
    pub fn end(&self) {
        self.kind.store(0, Ordering::Release);
    }

    /// Reads the record, if it is in use.
    pub fn read(&self) -> Option<Counted> {
        // SYNC: with the last store in `begin`.
        let kind = self.kind.load(Ordering::Acquire);
        if kind == 0 {
            return None;
        }
        let [low, high] = self.end.each_ref().map(|word| u128::from(word.load(Ordering::Relaxed)));
        let [frames, bytes, full, sleeps, wakes] =
            [&self.frames, &self.bytes, &self.full, &self.sleeps, &self.wakes]
                .map(|number| number.load(Ordering::Relaxed));
        let name: Vec<u8> =
            self.name.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        let name_bytes = (self.name_bytes.load(Ordering::Relaxed) as usize).min(name.len());
        let type_name = String::from_utf8_lossy(&name[..name_bytes]).into_owned();
        let end = EndId(low | high << 64);
        Some(Counted { end, sends: kind == RECORD_SENDER, type_name, frames, bytes, full, sleeps, wakes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::RECORD_RECEIVER;

    #[test]
    fn a_record_reads_back() {
        let record = Record::default();
        assert_eq!(record.read(), None);
        let (end, name) = (EndId(7 << 64 | 9), format!("a{}::Border", "::long".repeat(20)));
        record.begin(end, RECORD_RECEIVER, &name);
        record.frames.store(3, Ordering::Relaxed);
        let counted = record.read().unwrap();
        assert_eq!((counted.end, counted.sends, counted.frames, counted.wakes), (end, false, 3, 0));
        assert_eq!(counted.type_name.len(), RECORD_NAME_BYTES);
        assert!(counted.type_name.ends_with("::Border"));
        record.begin(end, RECORD_SENDER, "u8");
        assert_eq!(
            record.read().map(|counted| (counted.type_name, counted.frames)),
            Some(("u8".to_owned(), 0))
        );
        record.end();
        assert_eq!(record.read(), None);
    }
}
