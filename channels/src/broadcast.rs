//! One sender, many receivers that all get everything.

use std::{
    fmt,
    future::poll_fn,
    ops::Range,
    task::{Context, Poll, ready},
};

use rkyv::util::AlignedVec;

use crate::{PlainData, Reason, Receiver, Sender, channel_with_capacity, data, sender::Large};

/// What happens when a reader of a [`Broadcast`] is too slow, and its ring is full.
///
/// ```no_run
/// # use channels as archean;
/// use archean::{Receiver, RecvError};
///
/// /// Reads what a broadcast with `Lag::Skip` sends, and gives how many messages it has got, and how many not.
/// async fn read(mut numbers: Receiver<u64>) -> Result<(u64, u64), RecvError> {
///     let (mut got, mut missed) = (0, 0);
///     loop {
///         match numbers.recv().await {
///             Ok(_number) => got += 1,
///             Err(RecvError::Missed { messages }) => missed += messages,
///             Err(RecvError::Closed) => return Ok((got, missed)),
///             Err(error) => return Err(error),
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// The sender waits: the slowest reader bounds them all, and nobody misses anything.
    Wait,
    /// The reader misses the message, and hears how many it has missed
    /// ([`RecvError::Missed`](crate::RecvError::Missed)) as soon as there is room again. The sender never waits. What
    /// takes more than a reader's ring, and what is sent before a new reader's ring is there, is missed as well.
    Skip,
}

/// One sender of values that go to many readers.
///
/// ```no_run
/// # use channels as archean;
/// use archean::{Broadcast, Lag, Reason, Sender};
///
/// async fn publish(readers: Vec<Sender<u64>>) -> Result<(), Reason> {
///     let mut numbers = Broadcast::new(Lag::Wait);
///     for reader in readers {
///         numbers.add(reader);
///     }
///     for number in 0..100 {
///         let reached = numbers.send(&number).await?;
///         println!("{reached} readers have {number}");
///     }
///     Ok(())
/// }
/// ```
///
/// Each reader is an ordinary [`Receiver`], which may be moved to another process. A value is serialised once, and its
/// bytes are copied into the ring of each reader. Readers may be added at any time, and get what is sent from then
/// on; one that is dropped, or whose process has ended, is left out from then on.
pub struct Broadcast<T> {
    readers: Vec<Reader<T>>,
    lag: Lag,
    /// The archive of the value that is being sent, or was sent last.
    archive: AlignedVec<16>,
    /// The readers that are still to get it.
    rest: Range<usize>,
    large: Option<Large>,
}

struct Reader<T> {
    sender: Sender<T>,
    missed: u64,
}

impl<T: PlainData> Broadcast<T> {
    /// A broadcast without readers.
    pub fn new(lag: Lag) -> Self {
        Broadcast { readers: Vec::new(), lag, archive: AlignedVec::new(), rest: 0..0, large: None }
    }

    /// One more reader, with a ring of the default capacity (1 MiB).
    pub fn subscribe(&mut self) -> Receiver<T> {
        self.subscribe_with_capacity(protocol::limits::RING_BYTES_DEFAULT)
    }

    /// One more reader, with room for at least `bytes` bytes of messages; see
    /// [`channel_with_capacity`].
    pub fn subscribe_with_capacity(&mut self, bytes: usize) -> Receiver<T> {
        let (sender, receiver) = channel_with_capacity(bytes);
        self.add(sender);
        receiver
    }

    /// Adds the reader behind a sender, which may have come from another process.
    pub fn add(&mut self, sender: Sender<T>) {
        self.readers.push(Reader { sender, missed: 0 });
    }

    /// How many readers there are, as far as is known: of the end of one the next [`send`](Self::send) hears.
    pub fn len(&self) -> usize {
        self.readers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// Sends a value to all readers, and gives how many have got it.
    ///
    /// # Errors
    /// [`Reason::Serialise`] and [`Reason::TooLarge`] (more than 1 GiB); then nobody has got it.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes may have sent the value to some readers. The others get it before
    /// the next value.
    pub async fn send(&mut self, value: &T) -> Result<usize, Reason> {
        poll_fn(|context| self.poll_rest(context)).await?;
        self.begin(value)?;
        poll_fn(|context| self.poll_rest(context)).await
    }

    /// As [`send`](Self::send), blocking the thread.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_blocking(&mut self, value: &T) -> Result<usize, Reason> {
        self.block_rest()?;
        self.begin(value)?;
        self.block_rest()
    }

    fn begin(&mut self, value: &T) -> Result<(), Reason> {
        data::pack_into(value, &mut self.archive).map_err(Reason::Serialise)?;
        self.rest = 0..self.readers.len();
        Ok(())
    }

    /// Sends the value to those that have not got it.
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Reason>> {
        self.rest(|reader, archive, large| reader.sender.poll_archived(context, archive, large))
    }

    fn block_rest(&mut self) -> Result<usize, Reason> {
        match self.rest(|reader, archive, _| Poll::Ready(reader.sender.send_archived_blocking(archive))) {
            Poll::Ready(sent) => sent,
            Poll::Pending => unreachable!("a blocking send has an end"),
        }
    }

    fn rest(
        &mut self,
        mut send: impl FnMut(&mut Reader<T>, &[u8], &mut Option<Large>) -> Poll<Result<(), Reason>>,
    ) -> Poll<Result<usize, Reason>> {
        let mut reached = self.rest.start;
        while let Some(reader) = self.readers.get_mut(self.rest.start).filter(|_| !self.rest.is_empty()) {
            let sent = match self.lag {
                Lag::Wait => ready!(send(reader, &self.archive, &mut self.large)),
                Lag::Skip => reader.sender.try_send_archived(&self.archive, &mut reader.missed),
            };
            self.large = None;
            match (sent, self.lag) {
                (Ok(()), _) => reached += 1,
                (Err(Reason::Full | Reason::TooLarge { .. }), Lag::Skip) => reader.missed += 1,
                (Err(reason @ Reason::TooLarge { .. }), Lag::Wait) => {
                    self.rest = 0..0;
                    return Poll::Ready(Err(reason));
                }
                // It is gone, and so is the need to tell it anything.
                (Err(_), _) => {
                    self.readers.remove(self.rest.start);
                    self.rest.end -= 1;
                    continue;
                }
            }
            self.rest.start += 1;
        }
        Poll::Ready(Ok(reached))
    }
}

impl<T> Drop for Broadcast<T> {
    fn drop(&mut self) {
        // Who has missed the last messages is to hear of it, if there is room.
        for reader in self.readers.iter_mut().filter(|reader| reader.missed > 0) {
            reader.sender.tell_missed(reader.missed);
        }
    }
}

impl<T> fmt::Debug for Broadcast<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast").field("readers", &self.readers.len()).field("lag", &self.lag).finish()
    }
}
