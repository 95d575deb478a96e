//! Which ends are in use, and which of them wait on behalf of futures.
//!
//! An end that begins to wait is *listed*: whoever turns the hub looks at it again and again while it spins. Before it
//! sleeps, it *arms* what is listed: from then on the peer says, by the end's slot, that it rang for this end. So a
//! turn costs time for those ends that have just begun to wait and those that were rung for, and not for thousands
//! that are idle.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, LazyLock},
    task::Waker,
    time::Instant,
};

use protocol::{control::FromProcess, ids::EndId};
use transport::{
    layout::{Record, SLOT_SHARED, SLOTS},
    park::FIRST_SLEEP,
    ring::wait::Sleep,
};

use super::{Hub, TURNS, lock};
use crate::port::{Bell as PeerBell, Counts, News, Polled, Port, Wait};

#[derive(Default)]
pub(super) struct Registry {
    ports: HashMap<EndId, Arc<Port>>,
    /// The port in each slot; none in slot 0 and in the one that is shared.
    slots: Vec<Option<Arc<Port>>>,
    free: BinaryHeap<Reverse<u32>>,
    listed: Vec<Arc<Port>>,
    /// Armed, but the producer may not have noticed: to be looked at again when its store buffer has drained.
    unnoticed: Vec<Arc<Port>>,
}

/// What is counted for ends without a slot, which nobody can read.
static UNCOUNTED: LazyLock<Record> = LazyLock::new(Record::default);

impl Registry {
    fn free_slot(&mut self) -> u32 {
        if self.slots.is_empty() {
            self.slots.resize(SLOT_SHARED as usize + 1, None);
        }
        match self.free.pop() {
            Some(Reverse(slot)) => slot,
            None if self.slots.len() < SLOTS => {
                self.slots.push(None);
                self.slots.len() as u32 - 1
            }
            None => SLOT_SHARED,
        }
    }
}

impl Hub {
    /// Makes the port of an end that is used for the first time, with the name of the type that it carries.
    pub(crate) fn open(&'static self, end: EndId, kind: u32, type_name: &str) -> Arc<Port> {
        let port = {
            let mut registry = lock(&self.registry);
            let slot = registry.free_slot();
            let counts = Counts(self.record(slot, end, kind, type_name));
            let port = Port::new(end, slot, counts);
            registry.ports.insert(end, port.clone());
            if slot != SLOT_SHARED {
                registry.slots[slot as usize] = Some(port.clone());
            }
            port
        };
        if let Some(doorbell) = lock(&self.rings).doorbells.remove(&end) {
            port.deliver(News::Paired { bell: PeerBell::Process(doorbell) });
        }
        self.look();
        port
    }

    /// Forgets the port of an end that is dropped.
    pub(crate) fn close(&self, port: &Port) {
        let mut registry = lock(&self.registry);
        registry.ports.remove(&port.end);
        if port.slot != SLOT_SHARED {
            port.counts.0.end();
            registry.slots[port.slot as usize] = None;
            registry.free.push(Reverse(port.slot));
        }
        drop(registry);
        port.forget();
        self.close_links(port.end);
    }

    /// Says a word about an end before its closing can be said; `false` when it is closed already.
    pub(super) fn tell_if_open(&self, end: EndId, word: impl FnOnce() -> FromProcess) -> bool {
        let registry = lock(&self.registry);
        let is_open = registry.ports.contains_key(&end);
        if is_open {
            self.tell(word());
        }
        is_open
    }

    pub(super) fn port(&self, end: EndId) -> Option<Arc<Port>> {
        lock(&self.registry).ports.get(&end).cloned()
    }

    /// A fresh record of counters.
    fn record(&'static self, slot: u32, end: EndId, kind: u32, type_name: &str) -> &'static Record {
        if slot == SLOT_SHARED {
            return &UNCOUNTED;
        }
        let record = self.parts.counters.record(slot);
        record.begin(end, kind, type_name);
        record
    }

    // ---- ends that wait on behalf of futures

    /// Registers the waker of a port, to be woken when it has what it waits for.
    pub(crate) fn register(&self, port: &Arc<Port>, waits: &[Wait], waker: &Waker) {
        let is_new = port.register(waker, waits);
        if TURNS.get() {
            if is_new {
                lock(&self.registry).listed.push(port.clone());
            }
            return;
        }
        // Nobody but the driver's thread will look, and it may sleep already: begin the wait here.
        self.drive();
        if self.arm(port) == Sleep::Bounded {
            self.parts.doorbell.wake();
        }
        self.look();
        self.answer(port);
    }

    /// Has peers ring for what a port waits for. To be followed by a last look.
    fn arm(&self, port: &Arc<Port>) -> Sleep {
        let sleep = port.begin_wait();
        if sleep == Sleep::Bounded {
            *lock(&self.bounded) = Some(Instant::now() + FIRST_SLEEP);
            lock(&self.registry).unnoticed.push(port.clone());
        }
        sleep
    }

    /// Wakes who waits at a port, if what it waits for has come.
    fn answer(&self, port: &Port) -> bool {
        match port.poll() {
            Polled::Ready(waker) => {
                waker.wake();
                true
            }
            Polled::Waits | Polled::Forgotten => false,
        }
    }

    /// Looks at all listed ports, and wakes who waits at those that have something; `true` when there was one.
    pub(super) fn poll_listed(&self) -> bool {
        self.poll_list(|registry| &mut registry.listed)
    }

    fn poll_list(&self, list: impl Fn(&mut Registry) -> &mut Vec<Arc<Port>>) -> bool {
        // Mostly there is one, or none: no list is made then.
        let mut first = None;
        let mut more = Vec::new();
        list(&mut lock(&self.registry)).retain(|port| match port.poll() {
            Polled::Waits => true,
            Polled::Forgotten => false,
            Polled::Ready(waker) => {
                match first {
                    None => first = Some(waker),
                    Some(_) => more.push(waker),
                }
                false
            }
        });
        let any = first.is_some();
        first.into_iter().chain(more).for_each(Waker::wake);
        any
    }

    /// Arms what is listed; `true` when one of them has something already.
    pub(super) fn arm_listed(&self) -> bool {
        let listed = std::mem::take(&mut lock(&self.registry).listed);
        let mut any = false;
        for port in &listed {
            let _ = self.arm(port);
            any |= self.answer(port);
        }
        any
    }

    /// Takes in for which ends the bell was rung, and wakes who waits at them; `true` when there was one.
    pub(super) fn answer_bell(&self) -> bool {
        let mut any = false;
        self.parts.doorbell.take_slots(|slot| match slot {
            SLOT_SHARED => {
                let registry = lock(&self.registry);
                let sharing = registry.ports.values().filter(|port| port.slot == SLOT_SHARED);
                let ports: Vec<Arc<Port>> = sharing.cloned().collect();
                drop(registry);
                ports.iter().for_each(|port| any |= self.answer_rung(port));
            }
            slot => {
                let port = lock(&self.registry).slots.get(slot as usize).cloned().flatten();
                any |= port.is_some_and(|port| self.answer_rung(&port));
            }
        });
        any
    }

    fn answer_rung(&self, port: &Arc<Port>) -> bool {
        match port.poll() {
            Polled::Ready(waker) => {
                waker.wake();
                true
            }
            Polled::Forgotten => false,
            // It was rung for something that is gone again: the peer will not ring once more for that wait.
            Polled::Waits => {
                let _ = self.arm(port);
                self.answer(port)
            }
        }
    }

    /// Looks at those that may have been armed unnoticed; `true` when one of them has something. Once the bounded
    /// sleep is over, the peers have noticed.
    pub(super) fn poll_unnoticed(&self) -> bool {
        if lock(&self.registry).unnoticed.is_empty() {
            return false;
        }
        let any = self.poll_list(|registry| &mut registry.unnoticed);
        if self.sleep_bound().is_none() {
            lock(&self.registry).unnoticed.clear();
        }
        any
    }

    /// Whether spinning is of no use to those that are listed, because all that they wait for has to be done on this
    /// very processor.
    pub(super) fn all_listed_meet_peers(&self, cpu: u32) -> bool {
        let registry = lock(&self.registry);
        !registry.listed.is_empty() && registry.listed.iter().all(|port| port.meets_peers(cpu))
    }
}

/// By which somebody who never sleeps notices now and then that the bell was rung.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    seen: u32,
}

impl Bell {
    /// Takes in for which ends the bell was rung, if it was.
    pub(crate) fn answer(&mut self) {
        let Some(hub) = Hub::get() else { return };
        hub.look();
        let bell = hub.bell();
        if std::mem::replace(&mut self.seen, bell) != bell {
            hub.answer_bell();
        }
        // Those that have begun to wait since the last turn are not rung for, and there may be no other turn.
        hub.arm_listed();
        hub.poll_unnoticed();
    }
}
