//! What an end that is in use shares with the rest of its process: news from the manager, and what it waits for.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use protocol::{ending::Over, ids::EndId};
use transport::{
    ring::wait::{self, Sleep},
    segment::{Doorbell, Mapped},
};

/// News for one end.
#[derive(Debug)]
pub(crate) enum News {
    /// For a receiver: a sender has opened its ring.
    Incoming { sender: EndId, memory: Mapped, doorbell: Arc<Doorbell> },
    /// For a sender: its receiver is there.
    Paired { doorbell: Arc<Doorbell> },
    /// For a receiver: a sender is no more.
    SenderOver { sender: EndId, over: Over, last: bool },
    /// For a sender: its receiver is no more.
    ReceiverOver { over: Over },
    /// What came could not be used.
    Broken(String),
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
    has_news: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    news: Vec<News>,
    waits: Vec<Wait>,
    waker: Option<Waker>,
}

impl Port {
    pub(crate) fn new(end: EndId) -> Arc<Self> {
        Arc::new(Port { end, has_news: AtomicBool::new(false), inner: Mutex::default() })
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

    /// Remembers who is to be woken, and by what. Gives `false` when the port waited already.
    pub(crate) fn register(&self, waker: &Waker, waits: &[Wait]) -> bool {
        let mut inner = self.lock();
        inner.waits.clear();
        inner.waits.extend_from_slice(waits);
        match &mut inner.waker {
            Some(before) => {
                before.clone_from(waker);
                false
            }
            none => {
                *none = Some(waker.clone());
                true
            }
        }
    }

    /// For the driver: who is to be woken, if what is waited for has come.
    pub(crate) fn poll(&self) -> Polled {
        let mut inner = self.lock();
        if inner.waker.is_some() && !self.has_news() && !inner.waits.iter().any(Wait::is_over) {
            return Polled::Waits;
        }
        Wait::end_all(&inner.waits);
        inner.waker.take().map_or(Polled::Forgotten, Polled::Ready)
    }

    /// For the driver: goes to sleep on behalf of who waits.
    pub(crate) fn begin_wait(&self) -> Sleep {
        Wait::begin_all(&self.lock().waits)
    }

    /// Forgets who waited; the end is dropped.
    pub(crate) fn forget(&self) {
        let mut inner = self.lock();
        inner.waker = None;
        inner.waits.clear();
    }
}
