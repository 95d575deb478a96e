//! Connections that others want with this process, until it accepts them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use channels::{UntypedReceiver, UntypedSender, hub::Hub};
use protocol::{
    control::{Connected, FromProcess, Malformed, Number},
    ids::{EndId, ProcessId},
};

use super::Connection;

/// See the [module](self). The manager bounds how many there are.
#[derive(Debug, Default)]
pub(crate) struct Offers(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Offer>,
    /// Those who wait, by their tickets.
    wakers: BTreeMap<u64, Waker>,
    tickets: u64,
}

#[derive(Debug)]
struct Offer {
    number: u64,
    peer: ProcessId,
    name: String,
    ends: [EndId; 2],
    capacity: usize,
}

impl Offers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process wants a connection.
    pub(crate) fn arrive(&self, word: Connected) -> Result<(), Malformed> {
        let ends = EndId::list_from_word(&word.ends)?.try_into().map_err(|_| Malformed("pair of ends"))?;
        let capacity = usize::try_from(word.capacity).map_err(|_| Malformed("capacity"))?;
        let (number, peer, name) = (word.connection, ProcessId(word.process), word.name);
        let wakers = {
            let mut inner = self.lock();
            inner.queue.push_back(Offer { number, peer, name, ends, capacity });
            // All of them: the first may be about to give up.
            std::mem::take(&mut inner.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
        Ok(())
    }

    /// Accepts the one that has waited for longest.
    pub(super) fn take(&self, hub: &Hub) -> Option<Connection> {
        let offer = self.lock().queue.pop_front()?;
        Some(offer.accept(hub))
    }
}

impl Offer {
    /// From now on the ends are this process's.
    fn accept(self, hub: &Hub) -> Connection {
        hub.tell(FromProcess::Accept(Number { number: self.number }));
        let [sender, receiver] = self.ends;
        Connection {
            peer: self.peer,
            name: self.name,
            sender: UntypedSender::held(sender, self.capacity),
            receiver: UntypedReceiver::held(receiver, self.capacity),
        }
    }
}

/// Somebody who waits for one.
pub(super) struct Ticket<'o> {
    offers: &'o Offers,
    number: u64,
}

impl<'o> Ticket<'o> {
    pub(super) fn new(offers: &'o Offers) -> Self {
        let mut inner = offers.lock();
        inner.tickets += 1;
        Ticket { offers, number: inner.tickets }
    }

    /// Accepts one if there is one; else `waker` is woken when one comes.
    pub(super) fn poll(&mut self, hub: &Hub, waker: &Waker) -> Poll<Connection> {
        let offer = {
            let mut inner = self.offers.lock();
            let offer = inner.queue.pop_front();
            if offer.is_none() {
                inner.wakers.insert(self.number, waker.clone());
            }
            offer
        };
        offer.map_or(Poll::Pending, |offer| Poll::Ready(offer.accept(hub)))
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.offers.lock().wakers.remove(&self.number);
    }
}
