//! What an end that is in use shares with the rest of its process: news from the manager, and what it waits for.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use protocol::{ending::Over, ids::EndId};
use transport::{
    layout::{Address, Record},
    ring::{
        Memory,
        wait::{self, Sleep},
    },
    segment::{Doorbell, Mapped},
    uring::{Link, Links},
};

/// News for one end.
#[derive(Debug)]
pub(crate) enum News {
    /// For a receiver: a sender has opened its ring.
    Incoming { sender: EndId, memory: Arc<Mapped>, bell: Bell },
    /// For a sender: the ring that it has asked for.
    Ring(Arc<Mapped>),
    /// For a sender: its receiver is there.
    Paired { bell: Bell },
    /// For a receiver: a sender is no more.
    SenderOver { sender: EndId, over: Over, last: bool, lost: bool },
    /// For a sender: its receiver is no more.
    ReceiverOver { over: Over },
    /// All that the peer has sent over its link is there; or the link broke.
    LinkOver { peer: EndId, error: Option<String> },
    /// What came could not be used.
    Broken(String),
}

/// How the peer is told that there is something to do.
#[derive(Debug, Clone)]
pub(crate) enum Bell {
    /// Its process is rung.
    Process(Arc<Doorbell>),
    /// It is on another machine: this process's link plays its part.
    Link(&'static Links, Arc<Link>),
}

impl Bell {
    /// Rings for the peer in that slot.
    pub(crate) fn ring(&self, slot: u32) {
        match self {
            Bell::Process(doorbell) => doorbell.ring(slot),
            Bell::Link(links, link) => links.rung(link),
        }
    }
}

/// What an end waits for, beside news.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    pub(crate) memory: Arc<Mapped>,
    pub(crate) position: u64,
    pub(crate) side: Side,
}

/// Which side of a ring waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// For a frame at the position.
    Consumer,
    /// For the consumer to reach the position.
    Producer,
}

impl Wait {
    pub(crate) fn is_over(&self) -> bool {
        match self.side {
            Side::Consumer => wait::is_frame_at(&self.memory, self.position),
            Side::Producer => wait::is_consumed_to(&self.memory, self.position),
        }
    }

    /// Says to the peer by which slot the end is found: who waits for it is not who sleeps.
    fn tell_slot(&self, slot: u32) {
        let (own, _) = self.addresses();
        if own.slot.load(Ordering::Relaxed) != slot {
            own.slot.store(slot, Ordering::Relaxed);
        }
    }

    /// Where this side and the other are found.
    fn addresses(&self) -> (&Address, &Address) {
        let (producer, consumer) = (self.memory.producer_words(), self.memory.consumer_words());
        match self.side {
            Side::Consumer => (&consumer.address, &producer.address),
            Side::Producer => (&producer.address, &consumer.address),
        }
    }

    /// Says on which processor this side waits, and whether it is the other side's too.
    fn meets_peer(&self, cpu: u32) -> bool {
        let (own, peer) = self.addresses();
        wait::tell_cpu(own, cpu);
        wait::is_on_cpu(peer, cpu)
    }

    /// Says on which processor this side waits. `true` when every peer that could end the waiting was last seen on
    /// that one: then nothing comes while this side spins.
    pub(crate) fn all_meet_peers(waits: &[Wait], cpu: u32) -> bool {
        let elsewhere = waits.iter().filter(|wait| !wait.meets_peer(cpu)).count();
        elsewhere == 0 && !waits.is_empty()
    }

    fn begin(&self) -> Sleep {
        match self.side {
            Side::Consumer => wait::begin_frame_wait(&self.memory),
            Side::Producer => wait::begin_room_wait(&self.memory, self.position),
        }
    }

    /// Makes all of them sleep; bounded, if one has to be.
    pub(crate) fn begin_all(waits: &[Wait]) -> Sleep {
        let bounded = waits.iter().fold(false, |bounded, wait| (wait.begin() == Sleep::Bounded) | bounded);
        if bounded { Sleep::Bounded } else { Sleep::Sound }
    }

    pub(crate) fn end_all(waits: &[Wait]) {
        for wait in waits.iter().filter(|wait| wait.side == Side::Producer) {
            wait::end_room_wait(&wait.memory);
        }
    }
}

/// What a process counts for one of its ends: written by that end, and read from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts(pub(crate) &'static Record);

impl Counts {
    #[inline]
    pub(crate) fn message(self, bytes: usize) {
        self.messages(1, bytes);
    }

    #[inline]
    pub(crate) fn messages(self, frames: u64, bytes: usize) {
        add(&self.0.frames, frames);
        add(&self.0.bytes, bytes as u64);
    }

    pub(crate) fn full(self) {
        add(&self.0.full, 1);
    }

    pub(crate) fn sleep(self) {
        add(&self.0.sleeps, 1);
    }

    pub(crate) fn wake(self) {
        add(&self.0.wakes, 1);
    }
}

/// Adds to a number that only this process writes. Two threads that do so at once may lose one count: no counter is
/// worth an interlocked instruction with every message.
#[inline]
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// What became of a port's wait.
#[derive(Debug)]
pub(crate) enum Polled {
    /// It goes on.
    Waits,
    /// It is over, and this is whom it concerns.
    Ready(Waker),
    /// Nobody waits any more.
    Forgotten,
}

/// The shared part of an end in use.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) end: EndId,
    /// By which peers say that they rang for this end.
    pub(crate) slot: u32,
    pub(crate) counts: Counts,
    has_news: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    news: Vec<News>,
    waits: Vec<Wait>,
    waker: Option<Waker>,
    /// It is on the hub's list of those that are to be looked at before anybody sleeps.
    is_listed: bool,
}

impl Port {
    pub(crate) fn new(end: EndId, slot: u32, counts: Counts) -> Arc<Self> {
        Arc::new(Port { end, slot, counts, has_news: AtomicBool::new(false), inner: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in news, and wakes who waits.
    pub(crate) fn deliver(&self, news: News) {
        let waker = {
            let mut inner = self.lock();
            inner.news.push(news);
            self.has_news.store(true, Ordering::Release);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.has_news.load(Ordering::Acquire)
    }

    /// All news, in the order in which they came.
    pub(crate) fn take_news(&self) -> Vec<News> {
        let mut inner = self.lock();
        self.has_news.store(false, Ordering::Release);
        std::mem::take(&mut inner.news)
    }

    /// Whether what is waited for, or news, has come.
    pub(crate) fn is_ready(&self, waits: &[Wait]) -> bool {
        self.has_news() || waits.iter().any(Wait::is_over)
    }

    /// Whether that is what it waits for on behalf of a future.
    pub(crate) fn waits_for(&self, waits: &[Wait]) -> bool {
        let inner = self.lock();
        let is_same = |(one, other): (&Wait, &Wait)| {
            one.position == other.position && Arc::ptr_eq(&one.memory, &other.memory)
        };
        inner.waits.len() == waits.len() && inner.waits.iter().zip(waits).all(is_same)
    }

    /// Remembers who is to be woken, and by what. Gives `true` when the port has to be listed.
    pub(crate) fn register(&self, waker: &Waker, waits: &[Wait]) -> bool {
        let mut inner = self.lock();
        inner.waits.clear();
        inner.waits.extend_from_slice(waits);
        waits.iter().for_each(|wait| wait.tell_slot(self.slot));
        match &mut inner.waker {
            Some(before) => before.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        !std::mem::replace(&mut inner.is_listed, true)
    }

    /// Who is to be woken, if what is waited for has come.
    pub(crate) fn poll(&self) -> Polled {
        let mut inner = self.lock();
        if inner.waker.is_some() && !self.has_news() && !inner.waits.iter().any(Wait::is_over) {
            return Polled::Waits;
        }
        Wait::end_all(&inner.waits);
        inner.is_listed = false;
        inner.waker.take().map_or(Polled::Forgotten, Polled::Ready)
    }

    /// Goes to sleep on behalf of who waits: from now on peers ring for it. To be followed by a last
    /// [`poll`](Self::poll).
    pub(crate) fn begin_wait(&self) -> Sleep {
        let mut inner = self.lock();
        inner.is_listed = false;
        self.counts.sleep();
        Wait::begin_all(&inner.waits)
    }

    /// See [`Wait::all_meet_peers`].
    pub(crate) fn meets_peers(&self, cpu: u32) -> bool {
        Wait::all_meet_peers(&self.lock().waits, cpu)
    }

    /// Forgets who waited; the end is dropped.
    pub(crate) fn forget(&self) {
        let mut inner = self.lock();
        inner.waker = None;
        inner.waits.clear();
    }
}
