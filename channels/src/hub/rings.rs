//! Rings that were given to this process and are not used yet.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    task::Waker,
};

use protocol::{
    control::{FromProcess, Malformed, NeedRing, Ring},
    ids::EndId,
};
use transport::segment::{Doorbell, Mapped};

use super::{Hub, lock};

#[derive(Default)]
pub(super) struct Rings {
    unused: Vec<UnusedRing>,
    /// Doorbells of the receivers of rings that are meant for senders which were not used yet.
    pub(super) doorbells: HashMap<EndId, Arc<Doorbell>>,
    wanted: Vec<Waker>,
}

/// A ring that no sender writes yet.
pub(crate) struct UnusedRing {
    pub(crate) id: u64,
    data: OwnedFd,
    consumer: OwnedFd,
    capacity: usize,
    /// The sender that it is meant for, if it is.
    sender: Option<EndId>,
}

impl UnusedRing {
    fn is_for(&self, sender: EndId, capacity: usize) -> bool {
        self.capacity == capacity && self.sender.is_none_or(|meant| meant == sender)
    }

    /// Its memory, as the sender maps it.
    pub(crate) fn map(&self) -> std::io::Result<Mapped> {
        Mapped::for_producer(self.data.as_fd(), self.consumer.as_fd(), self.capacity)
    }
}

impl Hub {
    /// Takes in a ring.
    pub(super) fn on_ring(&self, ring: Ring, files: Vec<OwnedFd>) -> Result<(), Malformed> {
        let [data, consumer] = files.try_into().map_err(|_| Malformed("ring"))?;
        let sender = match ring.sender.as_slice() {
            [] => None,
            sender => Some(EndId::from_word(sender)?),
        };
        if ring.asked && sender.is_some_and(|sender| !self.is_open(sender)) {
            // It was closed meanwhile, and the manager has given the ring up already.
            return Ok(());
        }
        let ring = UnusedRing { id: ring.ring, data, consumer, capacity: ring.capacity as usize, sender };
        let wanted = {
            let mut rings = lock(&self.rings);
            rings.unused.push(ring);
            std::mem::take(&mut rings.wanted)
        };
        wanted.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Gives up what is kept for an end that has moved away or was closed.
    pub(crate) fn forget(&self, end: EndId) {
        let mut rings = lock(&self.rings);
        rings.unused.retain(|ring| ring.sender != Some(end));
        rings.doorbells.remove(&end);
    }

    /// A ring for that sender, if there is one; rather the one that is meant for it.
    pub(crate) fn take_ring(&self, sender: EndId, capacity: usize) -> Option<UnusedRing> {
        let mut rings = lock(&self.rings);
        let meant =
            rings.unused.iter().position(|ring| ring.sender == Some(sender) && ring.capacity == capacity);
        let index = meant.or_else(|| rings.unused.iter().position(|ring| ring.is_for(sender, capacity)))?;
        Some(rings.unused.swap_remove(index))
    }

    /// Whether there is a ring for that sender.
    pub(crate) fn has_ring(&self, sender: EndId, capacity: usize) -> bool {
        lock(&self.rings).unused.iter().any(|ring| ring.is_for(sender, capacity))
    }

    /// Asks the manager for a ring; it comes as news of the hub.
    pub(crate) fn want_ring(&self, sender: EndId, capacity: usize) {
        let word = NeedRing { sender: sender.to_word(), capacity: capacity as u64 };
        self.tell(FromProcess::NeedRing(word));
    }

    /// Has `waker` woken when a ring comes.
    pub(crate) fn wake_for_ring(&self, waker: &Waker) {
        let mut rings = lock(&self.rings);
        if rings.wanted.iter().all(|wanting| !wanting.will_wake(waker)) {
            rings.wanted.push(waker.clone());
        }
        drop(rings);
        self.drive();
    }
}
