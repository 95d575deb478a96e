//! Control messages out of a stream of bytes, and into one.

use std::collections::VecDeque;

use prost::Message;

use crate::limits::{CONTROL_BYTES_MAX, CONTROL_FDS_MAX};

/// The bytes in front of every message: its length and its count of descriptors.
pub const PREFIX_BYTES: usize = 8;

/// The peer sent what no peer of ours sends; nothing after it can be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// The length is over the limit.
    #[error("a control message of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// What the message claims.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The count of descriptors is over the limit.
    #[error("a control message with {count} descriptors is over the limit of {CONTROL_FDS_MAX}")]
    TooManyDescriptors {
        /// What the message claims.
        count: usize,
    },
    /// Fewer descriptors came than the messages claim.
    #[error("a control message claims {claimed} descriptors, {arrived} arrived")]
    Descriptors {
        /// What the message claims.
        claimed: usize,
        /// What came.
        arrived: usize,
    },
    /// The bytes are no protocol buffer of ours.
    #[error("a control message can't be decoded: {0}")]
    Decode(String),
}

/// A message as bytes, with its prefix.
///
/// # Panics
/// When the message or its count of descriptors is over the limit: whoever makes messages keeps them small.
pub fn encode(message: &impl Message, descriptors: usize) -> Vec<u8> {
    let length = message.encoded_len();
    assert!(length <= CONTROL_BYTES_MAX, "a control message of {length} bytes");
    assert!(descriptors <= CONTROL_FDS_MAX, "a control message with {descriptors} descriptors");
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.extend_from_slice(&(descriptors as u32).to_le_bytes());
    message.encode_raw(&mut bytes);
    bytes
}

/// Puts messages together from pieces of a stream, and gives each the descriptors that came with it.
///
/// Holds no more than one message and what was read with it.
#[derive(Debug)]
pub struct Framing<D> {
    bytes: Vec<u8>,
    start: usize,
    descriptors: VecDeque<D>,
    limit: usize,
}

impl<D> Default for Framing<D> {
    fn default() -> Self {
        Framing::limited(CONTROL_BYTES_MAX)
    }
}

impl<D> Framing<D> {
    /// For messages of no more than `limit` bytes each.
    pub fn limited(limit: usize) -> Self {
        Framing { bytes: Vec::new(), start: 0, descriptors: VecDeque::new(), limit }
    }

    /// `true` when nothing of another message has come.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Takes in what was read.
    pub fn feed(&mut self, bytes: &[u8], descriptors: impl IntoIterator<Item = D>) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > 64 << 10 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
        self.descriptors.extend(descriptors);
    }

    /// The next whole message, with its descriptors.
    ///
    /// # Errors
    /// [`FramingError`] when the stream makes no sense; it can't be read any further.
    pub fn take<M: Message + Default>(&mut self) -> Result<Option<(M, Vec<D>)>, FramingError> {
        let rest = &self.bytes[self.start..];
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [l0, l1, l2, l3, d0, d1, d2, d3] = *prefix;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let claimed = u32::from_le_bytes([d0, d1, d2, d3]) as usize;
        if length > self.limit {
            return Err(FramingError::TooLong { length, limit: self.limit });
        }
        if claimed > CONTROL_FDS_MAX {
            return Err(FramingError::TooManyDescriptors { count: claimed });
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = M::decode(body).map_err(|error| FramingError::Decode(error.to_string()))?;
        if claimed > self.descriptors.len() {
            return Err(FramingError::Descriptors { claimed, arrived: self.descriptors.len() });
        }
        self.start += PREFIX_BYTES + length;
        Ok(Some((message, self.descriptors.drain(..claimed).collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{FromProcess, Number, ToManager};

    fn kill(number: u64) -> ToManager {
        ToManager { word: Some(FromProcess::Kill(Number { number })) }
    }

    proptest::proptest! {
        #[test]
        fn any_cutting_gives_the_same_messages(cuts in proptest::collection::vec(1usize..9, 1..20)) {
            let mut stream = Vec::new();
            for number in 0..10 {
                stream.extend(encode(&kill(number << (number * 6)), usize::from(number == 3)));
            }
            let mut framing = Framing::default();
            framing.feed(&[], [7]);
            let (mut found, mut cuts) = (Vec::new(), cuts.into_iter().cycle());
            while !stream.is_empty() {
                let piece: Vec<u8> = stream.drain(..cuts.next().unwrap().min(stream.len())).collect();
                framing.feed(&piece, []);
                while let Some((message, descriptors)) = framing.take::<ToManager>().unwrap() {
                    found.push((message, descriptors));
                }
            }
            for (number, (message, descriptors)) in (0..10u64).zip(&found) {
                proptest::prop_assert_eq!(message, &kill(number << (number * 6)));
                proptest::prop_assert_eq!(descriptors.as_slice(), if number == 3 { &[7][..] } else { &[] });
            }
            proptest::prop_assert_eq!(found.len(), 10);
        }

        #[test]
        fn garbage_is_an_error_or_waits(bytes: Vec<u8>) {
            let mut framing = Framing::<()>::default();
            framing.feed(&bytes, []);
            while let Ok(Some(_)) = framing.take::<ToManager>() {}
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_kept() {
        let mut framing = Framing::<()>::default();
        framing.feed(&[255, 255, 255, 255, 0, 0, 0, 0], []);
        let too_long = FramingError::TooLong { length: u32::MAX as usize, limit: CONTROL_BYTES_MAX };
        assert_eq!(framing.take::<ToManager>(), Err(too_long));
        let mut framing = Framing::<()>::limited(7);
        framing.feed(&[8, 0, 0, 0, 0, 0, 0, 0], []);
        assert_eq!(framing.take::<ToManager>(), Err(FramingError::TooLong { length: 8, limit: 7 }));
    }

    #[test]
    fn a_word_of_a_later_version_is_skipped() {
        let mut framing = Framing::<()>::default();
        framing.feed(&[3, 0, 0, 0, 0, 0, 0, 0, 0xfa, 0x07, 0], []);
        assert_eq!(framing.take::<ToManager>(), Ok(Some((ToManager { word: None }, Vec::new()))));
    }
}
