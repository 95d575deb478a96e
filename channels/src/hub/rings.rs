//! Rings that were given to this process and are not used yet.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use protocol::{
    control::{FromProcess, Malformed, NeedRing, OpenSender, Ring},
    ids::EndId,
};
use transport::{
    segment::{Doorbell, Mapped},
    uring::Link,
};

use super::{Hub, links::Handed, lock};
use crate::port::News;

#[derive(Default)]
pub(super) struct Rings {
    unused: Vec<UnusedRing>,
    /// Rings that senders of this process write.
    pub(super) used: HashMap<EndId, UsedRing>,
    /// Links for senders whose rings are not used yet.
    pub(super) handed: HashMap<EndId, Handed>,
    /// The links of each end.
    pub(super) links: HashMap<EndId, Vec<Arc<Link>>>,
    /// Doorbells of the receivers of rings that are meant for senders which were not used yet.
    pub(super) doorbells: HashMap<EndId, Arc<Doorbell>>,
}

impl Rings {
    pub(super) fn has_unused(&self, ring: u64) -> bool {
        self.unused.iter().any(|unused| unused.id == ring)
    }

    /// A sender is about to write its ring.
    fn use_one(&mut self, sender: EndId) {
        let handed = self.handed.remove(&sender);
        self.used.insert(sender, UsedRing { memory: None, handed });
    }
}

/// A ring that a sender writes, or is about to.
#[derive(Default)]
pub(super) struct UsedRing {
    /// Absent before it does.
    pub(super) memory: Option<Arc<Mapped>>,
    /// A link that came before it does.
    pub(super) handed: Option<Handed>,
}

/// A ring that no sender writes yet.
pub(crate) struct UnusedRing {
    id: u64,
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

    /// The word by which the manager learns that the sender writes it.
    pub(crate) fn opened_by(&self, sender: EndId) -> FromProcess {
        FromProcess::OpenSender(OpenSender { sender: sender.to_word(), ring: self.id })
    }

    /// Its memory, as the sender maps it.
    pub(crate) fn map(&self) -> std::io::Result<Arc<Mapped>> {
        Mapped::for_producer(self.data.as_fd(), self.consumer.as_fd(), self.capacity).map(Arc::new)
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
        let unused = UnusedRing { id: ring.ring, data, consumer, capacity: ring.capacity as usize, sender };
        match sender.filter(|sender| ring.asked || self.is_open(*sender)) {
            None => lock(&self.rings).unused.push(unused),
            // The sender waits for it. It is in use from now on, also while nobody sends. One that was closed meanwhile
            // has no port, and the manager has given its ring up already.
            Some(sender) => {
                let is_open = self.tell_if_open(sender, || unused.opened_by(sender));
                if is_open {
                    let mapped = unused.map();
                    if let Ok(memory) = &mapped {
                        self.use_ring(sender, memory);
                    }
                    let news = mapped.map_or_else(|error| News::Broken(error.to_string()), News::Ring);
                    self.to_port(sender, news);
                }
            }
        }
        Ok(())
    }

    /// Gives up what is kept for an end that has moved away or was closed.
    pub(crate) fn forget(&self, end: EndId) {
        let mut rings = lock(&self.rings);
        rings.unused.retain(|ring| ring.sender != Some(end));
        rings.doorbells.remove(&end);
        rings.handed.remove(&end);
    }

    /// A ring for that sender, if there is one; rather the one that is meant for it.
    pub(crate) fn take_ring(&self, sender: EndId, capacity: usize) -> Option<UnusedRing> {
        let mut rings = lock(&self.rings);
        let meant =
            rings.unused.iter().position(|ring| ring.sender == Some(sender) && ring.capacity == capacity);
        let index = meant.or_else(|| rings.unused.iter().position(|ring| ring.is_for(sender, capacity)))?;
        rings.use_one(sender);
        Some(rings.unused.swap_remove(index))
    }

    /// Asks the manager for a ring; it comes as news of the sender's port.
    pub(crate) fn want_ring(&self, sender: EndId, capacity: usize) {
        let word = NeedRing { sender: sender.to_word(), capacity: capacity as u64 };
        self.tell(FromProcess::NeedRing(word));
    }
}
