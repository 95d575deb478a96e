//! The process's side of its links: who moves their bytes, and when.
//!
//! **Sending.** What a sender commits goes out
//! * at once, by the sender's own thread and one system call, when it comes after quiet: the ring is *armed*, so its
//!   producer says so ([`Links::rung`]);
//! * with whatever its thread waits for next, in the same `io_uring_enter`; or before it spins, if it does;
//! * when a good part of the ring is committed ([`Links::push`]);
//! * about a millisecond after it was committed, by the background thread.
//!
//! So a link that is not armed is on the *list*, and while the list is not empty the background thread looks at it
//! every millisecond. A link with nothing to send is armed again, and a while later, when its producer must have
//! noticed, taken off the list. Credits are sent in the same way: by the thread that has consumed enough, or, when
//! something was consumed but not enough, by the background thread.
//!
//! **Receiving.** One thread *drives* ([`seat`]): it has the kernel receive for all links straight into their rings, and
//! sleeps there until something came, until its process's words are woken (a doorbell, word from the manager), or until
//! its deadline. It wakes those for whom something came. A thread that spins drives without sleeping. If no thread drives
//! for about a millisecond, because all are busy, the background thread does, until one of them wants to.
//!
//! What nobody waits for costs nothing: when the list is empty, and a thread sleeps in the seat, the background thread
//! sleeps as well, and no timer runs. Whoever puts a link on the list, or leaves the seat, wakes it.
//!
//! A request to the kernel is completed on behalf of the thread that made it, also while that thread computes. When a
//! thread ends, its requests are cancelled; whoever drives then makes them anew.

mod background;
mod driver;
mod exit;
mod kernel;
mod link;
pub mod seat;

pub use exit::at_exit;
pub use link::{Cause, Failure, Link, News, Side};

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::park;
use background::Rest;
use driver::{Driver, For};
use seat::{Holder, Seat};

/// The process whose links these are.
pub trait Host: Send + Sync + 'static {
    /// Takes in what the manager has said, and gives the event word's value up to which it did.
    fn listen(&self) -> u32;

    /// Takes in what happened on a link. When `asleep`, the calling thread is one of those that are counted as asleep,
    /// and looks by itself.
    fn tell(&self, link: &Link, news: News, asleep: bool);
}

/// See the [module](self).
pub struct Links {
    host: &'static dyn Host,
    /// The words by which a thread that sleeps is woken: the process's doorbell, and its event word.
    words: [&'static AtomicU32; 2],
    seat: Seat,
    /// Locked by who sits.
    driver: Mutex<Driver>,
    /// Moved by who wants something of who sits.
    nudge: AtomicU32,
    /// Links that are new, or that need who sits.
    asked: Mutex<Vec<Arc<Link>>>,
    has_asked: AtomicBool,
    /// Links that the background thread has to look after.
    listed: Mutex<Vec<Arc<Link>>>,
    listed_count: AtomicUsize,
    rest: Rest,
    /// All of them.
    open: Mutex<Vec<Arc<Link>>>,
}

/// Messages that come closer to one another than this are not sent one by one.
const DENSE: Duration = Duration::from_micros(100);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// Makes the process's io_uring.
    ///
    /// # Errors
    /// An error of the system calls: the kernel has no io_uring, or refuses it.
    pub fn new(host: &'static dyn Host, words: [&'static AtomicU32; 2]) -> io::Result<Links> {
        Ok(Links {
            host,
            words,
            seat: Seat::default(),
            driver: Mutex::new(Driver::new()?),
            nudge: AtomicU32::new(0),
            asked: Mutex::default(),
            has_asked: AtomicBool::new(false),
            listed: Mutex::default(),
            listed_count: AtomicUsize::new(0),
            rest: Rest::default(),
            open: Mutex::default(),
        })
    }

    /// Starts the background thread; to be called once.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(&'static self) -> io::Result<()> {
        std::thread::Builder::new()
            .name("archean-links".to_owned())
            .spawn(move || background::run(self))
            .map(drop)
    }

    /// Takes a link up.
    pub fn add(&'static self, link: &Arc<Link>) {
        lock(&self.open).push(link.clone());
        self.ask(link);
        self.rung(link);
    }

    /// The end in this process is no more. What is committed still goes out.
    pub fn close(&'static self, link: &Arc<Link>) {
        let (mut state, mut news) = (link.state(), News::default());
        link.push(&mut state, false, &mut news);
        link.close(&mut state);
        let (asks, lists) = (state.is_finished() || state.is_blocked, !state.is_drained());
        drop(state);
        if asks {
            self.ask(link);
        }
        if lists {
            self.list(link);
        }
        self.tell(link, news, false);
    }

    /// Takes in that the ring's other side, a thread of this process, has done what was waited for: it has committed
    /// something, or consumed enough for a credit.
    #[cold]
    pub fn rung(&'static self, link: &Arc<Link>) {
        let (mut state, mut news) = (link.state(), News::default());
        link.push(&mut state, false, &mut news);
        let lists = state.next_wait(DENSE) | state.is_gone();
        // A last look: what came before the producer could know that it is waited for.
        link.push(&mut state, false, &mut news);
        let asks = state.needs_driver();
        drop(state);
        if asks {
            self.ask(link);
        }
        if lists {
            self.list(link);
        }
        self.tell(link, news, false);
    }

    /// Sends what is committed, and takes in credits, because much is committed.
    #[cold]
    pub fn push(&'static self, link: &Arc<Link>) {
        let (mut state, mut news) = (link.state(), News::default());
        link.push(&mut state, false, &mut news);
        link.pull(&mut state, &mut news);
        let (asks, lists) = (state.needs_driver(), state.is_gone());
        drop(state);
        if asks {
            self.ask(link);
        }
        if lists {
            self.list(link);
        }
        self.tell(link, news, false);
    }

    /// Sends what is committed, before the thread spins.
    #[inline]
    pub fn flush(&'static self) {
        if self.listed_count.load(Ordering::Relaxed) > 0 {
            self.flush_now();
        }
    }

    #[cold]
    fn flush_now(&'static self) {
        for place in 0.. {
            // One by one, since others may list and be told meanwhile.
            let Some(link) = lock(&self.listed).get(place).cloned() else { break };
            let (mut state, mut news) = (link.state(), News::default());
            link.push(&mut state, false, &mut news);
            let asks = state.needs_driver();
            drop(state);
            if asks {
                self.ask(&link);
            }
            self.tell(&link, news, false);
        }
    }

    /// Looks for what has come, for a thread that spins.
    pub fn poll(&'static self) {
        if self.seat.try_take(Holder::Waiter) {
            lock(&self.driver).poll(self);
            self.leave();
        }
    }

    /// Sleeps until something came, until the words are no longer those, or until `deadline`. It may also return for no
    /// reason. The thread keeps the seat, if it took it, until `seated` is dropped.
    pub fn park(&'static self, words: [u32; 2], deadline: Option<Instant>, seated: &mut Seated) {
        if seated.sits(self) {
            return lock(&self.driver).drive(self, For::Waiter(words), deadline);
        }
        let turn = self.seat.turn().load(Ordering::SeqCst);
        let waiting = self.seat.wait();
        if self.seat.try_take(Holder::Waiter) {
            drop(waiting);
            seated.0 = Some((self, true));
            return lock(&self.driver).drive(self, For::Waiter(words), deadline);
        }
        self.flush();
        if self.seat.holder() == Holder::Background {
            self.nudge();
        }
        let [bell, event] = self.words;
        park::park([(bell, words[0]), (event, words[1]), (self.seat.turn(), turn)], deadline);
        seated.0 = Some((self, false));
    }

    /// Hands all that is committed to the kernel, and says to the peers that it was all; before the process ends.
    pub fn drain(&'static self, deadline: Instant) {
        let open: Vec<_> = lock(&self.open).clone();
        for link in open {
            loop {
                let (mut state, mut news) = (link.state(), News::default());
                if state.sending == 0 {
                    state.is_blocked = false;
                }
                link.push(&mut state, true, &mut news);
                if state.is_drained() || Instant::now() >= deadline {
                    link.close(&mut state);
                    break;
                }
                drop(state);
                // It may be that who sits has not seen yet that what it sends was sent.
                self.nudge();
                self.poll();
                link.wait_writable(deadline.min(Instant::now() + background::TICK));
            }
        }
    }

    // ---- what the parts do for one another

    fn tell(&self, link: &Link, news: News, asleep: bool) {
        if news.wake.is_some() || news.over.is_some() {
            self.host.tell(link, news, asleep);
        }
    }

    /// Has the driver look at a link.
    fn ask(&self, link: &Arc<Link>) {
        lock(&self.asked).push(link.clone());
        self.has_asked.store(true, Ordering::SeqCst);
        self.nudge();
    }

    fn take_asked(&self, into: &mut Vec<Arc<Link>>) {
        if self.has_asked.swap(false, Ordering::SeqCst) {
            into.append(&mut lock(&self.asked));
        }
    }

    /// Wakes who sits, if it sleeps.
    fn nudge(&self) {
        // SYNC: with the load in `Driver::drive`.
        self.nudge.fetch_add(1, Ordering::SeqCst);
        if self.seat.holder() != Holder::Nobody {
            park::wake(&self.nudge);
        }
    }

    /// Has the background thread look after a link.
    fn list(&self, link: &Arc<Link>) {
        if link.is_listed.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut listed = lock(&self.listed);
        listed.push(link.clone());
        self.listed_count.store(listed.len(), Ordering::SeqCst);
        drop(listed);
        self.rest.end(self);
    }

    fn copy_listed(&self, into: &mut Vec<Arc<Link>>) {
        if self.listed_count.load(Ordering::Relaxed) > 0 {
            into.extend_from_slice(&lock(&self.listed));
        }
    }

    fn forget(&self, link: &Arc<Link>) {
        lock(&self.open).retain(|other| !Arc::ptr_eq(other, link));
    }

    fn pass_on(&self) {
        if self.seat.pass_on() {
            park::wake_one(self.seat.turn());
        }
    }

    fn leave(&self) {
        if self.seat.leave() {
            park::wake_one(self.seat.turn());
        }
        self.rest.end(self);
    }
}

/// Whether a thread sits, or has waited to; dropped when it stops waiting.
#[derive(Default)]
pub struct Seated(Option<(&'static Links, bool)>);

impl Seated {
    fn sits(&self, _: &Links) -> bool {
        matches!(self.0, Some((_, true)))
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        match self.0 {
            None => {}
            Some((links, true)) => links.leave(),
            Some((links, false)) => links.pass_on(),
        }
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("seat", &self.seat).finish_non_exhaustive()
    }
}
