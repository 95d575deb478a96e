//! Ends as streams and sinks of values.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::{FusedStream, Stream};
use futures_sink::Sink;

use crate::{Data, Message, Reason, Receiver, RecvError, SendError, Sender, sender::Large};

/// The messages of a receiver as a stream; see [`Receiver::into_stream`].
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct IntoStream<T> {
    receiver: Receiver<T>,
    over: bool,
}

impl<T: Data> IntoStream<T> {
    pub(crate) fn new(receiver: Receiver<T>) -> Self {
        IntoStream { receiver, over: false }
    }

    /// The receiver.
    pub fn into_inner(self) -> Receiver<T> {
        self.receiver
    }
}

impl<T: Data> Stream for IntoStream<T> {
    type Item = Result<T, RecvError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut();
        if stream.over {
            return Poll::Ready(None);
        }
        let item = ready!(stream.receiver.poll_message(context)).map(Message::into_owned);
        let item = Some(item).filter(|item| !matches!(item, Err(RecvError::Closed)));
        // A receiver without senders repeats its last word: once is enough.
        stream.over = !matches!(item, Some(Ok(_))) && stream.receiver.is_spent();
        Poll::Ready(item)
    }
}

impl<T: Data> FusedStream for IntoStream<T> {
    fn is_terminated(&self) -> bool {
        self.over
    }
}

/// A sender as a sink; see [`Sender::into_sink`].
#[must_use = "a sink does nothing unless it is polled"]
pub struct IntoSink<T> {
    sender: Option<Sender<T>>,
    /// Accepted, and not sent yet.
    pending: Option<T>,
    /// What of it has gone out in parts.
    large: Option<Large>,
}

impl<T: Data> IntoSink<T> {
    pub(crate) fn new(sender: Sender<T>) -> Self {
        IntoSink { sender: Some(sender), pending: None, large: None }
    }
}

impl<T> fmt::Debug for IntoSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoSink").field("sender", &self.sender).finish_non_exhaustive()
    }
}

impl<T: Data + Unpin> Sink<T> for IntoSink<T> {
    type Error = SendError<Option<T>>;

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_flush(context)
    }

    fn start_send(self: Pin<&mut Self>, value: T) -> Result<(), Self::Error> {
        let sink = self.get_mut();
        assert!(sink.pending.is_none(), "a sink that is not ready was given a value");
        sink.pending = Some(value);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let sink = self.get_mut();
        let Some(value) = &sink.pending else { return Poll::Ready(Ok(())) };
        let Some(sender) = &mut sink.sender else {
            return Poll::Ready(Err(SendError { value: sink.pending.take(), reason: Reason::Closed }));
        };
        let sent = ready!(sender.poll_value(context, value, &mut sink.large));
        sink.large = None;
        let value = sink.pending.take();
        Poll::Ready(sent.map_err(|reason| SendError { value, reason }))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.as_mut().poll_flush(context))?;
        self.get_mut().sender = None;
        Poll::Ready(Ok(()))
    }
}
