//! Framed messages over TLS.

use std::io;

use prost::Message;
use protocol::{
    control::{Framing, FramingError, encode},
    limits::CONTROL_BYTES_MAX,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use crate::{member::Peer, revoked::Revoked};

/// So much is read at once.
const CHUNK_BYTES: usize = 4 << 10;

/// Why nothing more comes, or goes.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The connection broke, or the other side went away without a word.
    #[error("the connection is lost: {0}")]
    Lost(#[from] io::Error),
    /// What came makes no sense.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// What is to go is too long.
    #[error("a control message of {length} bytes is over the limit of {CONTROL_BYTES_MAX}")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The peer's certificate was revoked.
    #[error("the certificate of {0} was revoked")]
    Revoked(Peer),
}

/// A connection to another member.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    reader: Reader,
    writer: Writer,
}

impl Connection {
    pub(crate) fn new(peer: Peer, reader: Reader, writer: Writer) -> Connection {
        Connection { peer, reader, writer }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Ends the connection when the peer's certificate is revoked. An accepted connection does so anyway.
    #[must_use]
    pub fn until_revoked(mut self, revoked: &Revoked) -> Connection {
        self.reader.revoked = Some((revoked.clone(), self.peer.clone()));
        self
    }

    /// Both directions apart.
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// See [`Reader::recv`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv<M: Message + Default>(&mut self) -> Result<Option<M>, ConnectionError> {
        self.reader.recv().await
    }

    /// See [`Writer::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&mut self, message: &impl Message) -> Result<(), ConnectionError> {
        self.writer.send(message).await
    }
}

/// The two directions of a stream, for messages of no more than so many bytes from the other side.
pub(crate) fn halves(stream: TlsStream<TcpStream>, limit: usize) -> (Reader, Writer) {
    let (read, write) = tokio::io::split(stream);
    let framing = Framing::limited(limit);
    let reader = Reader { stream: read, framing, chunk: Vec::with_capacity(CHUNK_BYTES), revoked: None };
    (reader, Writer { stream: write, bytes: Vec::new(), written: 0 })
}

/// What comes.
#[derive(Debug)]
pub struct Reader {
    stream: ReadHalf<TlsStream<TcpStream>>,
    framing: Framing<()>,
    chunk: Vec<u8>,
    revoked: Option<(Revoked, Peer)>,
}

impl Reader {
    /// The next message; nothing when the other side has closed the connection in good order.
    ///
    /// # Errors
    /// [`ConnectionError`] when there will be none.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn recv<M: Message + Default>(&mut self) -> Result<Option<M>, ConnectionError> {
        loop {
            if let Some((revoked, peer)) = &self.revoked
                && revoked.is_revoked(peer)
            {
                return Err(ConnectionError::Revoked(peer.clone()));
            }
            if let Some((message, _)) = self.framing.take()? {
                return Ok(Some(message));
            }
            self.chunk.clear();
            let bytes = match &self.revoked {
                None => self.stream.read_buf(&mut self.chunk).await?,
                Some((revoked, peer)) => tokio::select! {
                    biased;
                    () = revoked.revoked(peer) => continue,
                    bytes = self.stream.read_buf(&mut self.chunk) => bytes?,
                },
            };
            if bytes == 0 {
                return if self.framing.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
            self.framing.feed(&self.chunk, []);
        }
    }
}

/// What goes.
#[derive(Debug)]
pub struct Writer {
    stream: WriteHalf<TlsStream<TcpStream>>,
    bytes: Vec<u8>,
    written: usize,
}

impl Writer {
    /// Sends a message, and waits until the kernel has it.
    ///
    /// # Errors
    /// [`ConnectionError`] when the message is too long (nothing was sent then), or when the connection is lost.
    ///
    /// # Cancel safety
    /// A message whose future was dropped may go or not go; if it was begun, the next one finishes it first.
    pub async fn send(&mut self, message: &impl Message) -> Result<(), ConnectionError> {
        let length = message.encoded_len();
        if length > CONTROL_BYTES_MAX {
            return Err(ConnectionError::TooLong { length });
        }
        self.flush().await?;
        (self.bytes, self.written) = (encode(message, 0), 0);
        self.flush().await
    }

    /// Says that no more will be sent; the other side reads to the end in good order.
    ///
    /// # Errors
    /// [`ConnectionError`] when the connection is lost.
    pub async fn close(mut self) -> Result<(), ConnectionError> {
        self.flush().await?;
        Ok(self.stream.shutdown().await?)
    }

    async fn flush(&mut self) -> Result<(), ConnectionError> {
        while self.written < self.bytes.len() {
            self.written += match self.stream.write(&self.bytes[self.written..]).await? {
                0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                bytes => bytes,
            };
        }
        Ok(self.stream.flush().await?)
    }
}
