//! Sealing and opening with a key and a number that counts, so that nothing is replayed, left out or changed unseen.

use protocol::link::{KEY_BYTES, TAG_BYTES};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

/// One direction of one link, at either end. Each number is used once.
#[derive(Debug)]
pub(super) struct Seal {
    key: LessSafeKey,
    counter: u64,
}

impl Seal {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Seal {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("a key of the cipher's size");
        Seal { key: LessSafeKey::new(key), counter: 0 }
    }

    /// The number of what is sealed or opened next.
    pub(super) fn counter(&self) -> u64 {
        self.counter
    }

    /// Seals `content` in place, and gives its tag, which vouches for `header` as well.
    pub(super) fn seal(&mut self, header: &[u8], content: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = self.next_nonce();
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), content);
        let tag = tag.expect("less than what one nonce may seal");
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Opens `content` in place; `None` when it is not what was sealed with this number. Then nothing is to be opened
    /// any more.
    #[must_use]
    pub(super) fn open(&mut self, header: &[u8], tag: [u8; TAG_BYTES], content: &mut [u8]) -> Option<()> {
        let nonce = self.next_nonce();
        let opened =
            self.key.open_in_place_separate_tag(nonce, Aad::from(header), Tag::from(tag), content, 0..);
        opened.ok().map(drop)
    }

    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.counter.to_le_bytes());
        self.counter += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}
