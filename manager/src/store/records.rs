//! The records of an image's link: [the layout](protocol::image), sealed or plain.

use std::{io, time::Duration};

use protocol::{
    image::{Kind, RECORD_BYTES_MAX, RECORD_HEADER_BYTES},
    limits::IMAGE_STALL_MAX,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::TransferError;
use crate::links::{Link, Secret};

/// A link on which records go both ways.
pub(super) struct Records {
    stream: TcpStream,
    /// For sending and for receiving.
    seals: Option<(Seal, Seal)>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Records {
    pub(super) fn new(link: Link) -> Result<Records, TransferError> {
        link.stream.set_nonblocking(true).map_err(TransferError::Broken)?;
        let stream = TcpStream::from_std(link.stream).map_err(TransferError::Broken)?;
        let seals = link.keys.map(|keys| Some((Seal::new(&keys.send)?, Seal::new(&keys.receive)?)));
        let seals = match seals {
            Some(None) => return Err(TransferError::Forged),
            other => other.flatten(),
        };
        Ok(Records { stream, seals, outgoing: Vec::new(), incoming: Vec::new() })
    }

    /// Sends a record, whose body is less than [`RECORD_BYTES_MAX`] by at least a kind and a tag.
    pub(super) async fn send(&mut self, kind: Kind, body: &[u8]) -> Result<(), TransferError> {
        let record = &mut self.outgoing;
        let tag_bytes = if self.seals.is_some() { AES_256_GCM.tag_len() } else { 0 };
        let length = ((1 + body.len() + tag_bytes) as u32).to_le_bytes();
        record.clear();
        record.extend(length);
        record.push(kind as u8);
        record.extend(body);
        if let Some((seal, _)) = &mut self.seals {
            let nonce = seal.nonce().ok_or(TransferError::Forged)?;
            let sealed = &mut record[RECORD_HEADER_BYTES..];
            let tag = seal.key.seal_in_place_separate_tag(nonce, Aad::from(length), sealed);
            record.extend(tag.map_err(|_| TransferError::Forged)?.as_ref());
        }
        match timeout(IMAGE_STALL_MAX, self.stream.write_all(record)).await {
            Err(_) => Err(TransferError::Stalled),
            Ok(written) => written.map_err(TransferError::Broken),
        }
    }

    /// The next record; `None` when the other side has ended the link between two of them.
    pub(super) async fn receive(&mut self, wait: Duration) -> Result<Option<(Kind, &[u8])>, TransferError> {
        let mut length = [0; RECORD_HEADER_BYTES];
        match timeout(wait, self.stream.read(&mut length)).await.map_err(|_| TransferError::Stalled)? {
            Ok(0) => return Ok(None),
            Ok(count) => self.read(&mut length[count..]).await?,
            Err(error) => return Err(TransferError::Broken(error)),
        }
        let bytes = u32::from_le_bytes(length) as usize;
        if bytes > RECORD_BYTES_MAX {
            return Err(TransferError::Garbled("a record is longer than records are"));
        }
        let mut incoming = std::mem::take(&mut self.incoming);
        incoming.resize(bytes, 0);
        let read = self.read(&mut incoming).await;
        self.incoming = incoming;
        read?;
        let record = match &mut self.seals {
            None => &self.incoming[..],
            Some((_, seal)) => {
                let nonce = seal.nonce().ok_or(TransferError::Forged)?;
                let opened = seal.key.open_in_place(nonce, Aad::from(length), &mut self.incoming);
                opened.map_err(|_| TransferError::Forged)?
            }
        };
        let (kind, body) = record.split_first().ok_or(TransferError::Garbled("a record is empty"))?;
        Ok(Some((Kind::decode(*kind).ok_or(TransferError::Garbled("a record has an unknown kind"))?, body)))
    }

    async fn read(&mut self, bytes: &mut [u8]) -> Result<(), TransferError> {
        match timeout(IMAGE_STALL_MAX, self.stream.read_exact(bytes)).await {
            Err(_) => Err(TransferError::Stalled),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(TransferError::Truncated),
            Ok(read) => read.map(drop).map_err(TransferError::Broken),
        }
    }
}

/// A key, and how often it was used.
struct Seal {
    key: LessSafeKey,
    count: u64,
}

impl Seal {
    fn new(key: &Secret) -> Option<Seal> {
        Some(Seal { key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key.0).ok()?), count: 0 })
    }

    /// A nonce that this key has not seen; the key is the link's own, and of one direction.
    fn nonce(&mut self) -> Option<Nonce> {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&self.count.to_le_bytes());
        self.count = self.count.checked_add(1)?;
        Some(Nonce::assume_unique_for_key(nonce))
    }
}
