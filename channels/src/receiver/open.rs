//! A receiver in use: the rings of its senders, and where the next message comes from.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use protocol::{ending::Over, ids::EndId};
use transport::{layout::RECORD_RECEIVER, ring::Frame};

use super::inbound::{Inbound, Next};
use crate::{
    Data,
    error::RecvError,
    hub::{Ear, Hub},
    port::{News, Port, Side, Wait},
};

/// See the [module](self).
pub(super) struct Open {
    pub(super) hub: &'static Hub,
    pub(super) port: Arc<Port>,
    pub(super) ear: Ear,
    pub(super) inbound: Vec<Inbound>,
    /// One for each of `inbound`, in the same order.
    pub(super) waits: Vec<Wait>,
    /// Where the next search for a message starts: every sender has its turn.
    pub(super) turn: usize,
    /// Ends of senders that had no ring, not told yet.
    untold: VecDeque<RecvError>,
    /// No sender is left but those in `inbound`.
    last: bool,
    /// What is told again and again when nothing is left.
    final_word: RecvError,
    broken: Option<RecvError>,
}

/// What a search for a message has found.
pub(super) enum Found {
    /// A message that ends with the frame in front of the ring of that index.
    Frame(usize, Frame),
    /// An end, to be told.
    End(RecvError),
    /// Nothing yet.
    Nothing,
}

impl Open {
    pub(super) fn new(hub: &'static Hub, end: EndId, type_name: &str) -> Self {
        Open {
            hub,
            port: hub.open(end, RECORD_RECEIVER, type_name),
            ear: hub.ear(),
            inbound: Vec::new(),
            waits: Vec::new(),
            turn: 0,
            untold: VecDeque::new(),
            last: false,
            final_word: RecvError::Closed,
            broken: None,
        }
    }

    /// Looks for a message, and for what has to be told when there is none.
    pub(super) fn find<T: Data>(&mut self) -> Found {
        if let Some(error) = &self.broken {
            return Found::End(error.clone());
        }
        loop {
            let count = self.inbound.len();
            for index in (self.turn..count).chain(0..self.turn.min(count)) {
                match self.inbound[index].next::<T>() {
                    Ok(Next::Nothing) => {}
                    Ok(Next::Message(frame)) => {
                        self.turn = index + 1;
                        return Found::Frame(index, frame);
                    }
                    Ok(Next::Missed(messages)) => return Found::End(RecvError::Missed { messages }),
                    Err(error) => return Found::End(error),
                }
            }
            if self.port.has_news() {
                if let Err(error) = self.take_news() {
                    return Found::End(error);
                }
                continue;
            }
            // The search above came after the news that a sender is over, and so after all that it had sent.
            if let Some(index) = self.inbound.iter().position(Inbound::is_over) {
                self.waits.swap_remove(index);
                match self.inbound.swap_remove(index).over.map(RecvError::from) {
                    None | Some(RecvError::Closed) => self.final_word = RecvError::Closed,
                    Some(error) => self.untold.push_back(error),
                }
                continue;
            }
            if let Some(error) = self.untold.pop_front() {
                self.final_word = error.clone();
                return Found::End(error);
            }
            if self.last && count == 0 {
                return Found::End(self.final_word.clone());
            }
            for (wait, inbound) in self.waits.iter_mut().zip(&self.inbound) {
                wait.position = inbound.consumer.position();
            }
            return Found::Nothing;
        }
    }

    /// Waits until there is something; `false` when `deadline` came first.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        // A single sender was looked at while spinning already (`Receiver::spin`).
        if matches!(self.inbound.as_slice(), [inbound] if inbound.is_checked) {
            return self.hub.sleep_port(&self.port, &self.waits, deadline);
        }
        self.hub.wait_port(&self.port, &self.waits, deadline)
    }

    /// Whether anything may come over a link.
    pub(super) fn is_linked(&self) -> bool {
        self.inbound.iter().any(|inbound| inbound.is_linked)
    }

    /// Whether nothing can come any more but the last error, again and again.
    pub(super) fn is_spent(&self) -> bool {
        self.broken.is_some() || self.last && self.inbound.is_empty() && self.untold.is_empty()
    }

    /// Gives everything up: nothing that comes can be believed.
    pub(super) fn break_off(&mut self, error: &RecvError) -> bool {
        if self.broken.is_some() {
            return false;
        }
        self.broken = Some(error.clone());
        self.inbound.clear();
        self.waits.clear();
        true
    }

    fn take_news(&mut self) -> Result<(), RecvError> {
        for news in self.port.take_news() {
            match news {
                News::Incoming { sender, memory, bell } => {
                    self.waits.push(Wait { memory: memory.clone(), position: 0, side: Side::Consumer });
                    self.inbound.push(Inbound::new(self.hub, sender, memory, bell, self.port.counts));
                }
                News::SenderOver { sender, over, last, lost } => {
                    self.last |= last;
                    match self.inbound.iter_mut().find(|inbound| inbound.sender == sender) {
                        Some(inbound) => {
                            inbound.over = Some(over);
                            inbound.is_linked &= !lost;
                        }
                        None if over == Over::Closed => self.final_word = RecvError::Closed,
                        None => self.untold.push_back(over.into()),
                    }
                }
                News::LinkOver { peer, error } => {
                    if let Some(inbound) = self.inbound.iter_mut().find(|inbound| inbound.sender == peer) {
                        inbound.is_linked = false;
                        let broken = error.map(|reason| Over::Reset { reason });
                        inbound.over = inbound.over.take().or(broken);
                    }
                }
                News::Broken(text) => return Err(RecvError::Broken(text)),
                News::Ring(_) | News::Paired { .. } | News::ReceiverOver { .. } => {}
            }
        }
        Ok(())
    }
}
