//! Where the ends of a process, its threads and its manager meet.
//!
//! A process has one hub. Everything that is rare comes through it: rings, peers, ends of ends. Everything that
//! sleeps, sleeps in it, on two words at once: the process's doorbell, which peers ring, and its event word, which
//! its manager moves when it has said something. Messages themselves pass it by.

mod executor;
mod links;
mod registry;
mod rings;

pub use crate::timers::TimerKey;
pub use executor::block_on;
pub(crate) use registry::Bell;

use std::{
    cell::Cell,
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use protocol::{
    control::{Close, FromManager, FromProcess, Incoming, Malformed},
    ending::Over,
    ids::{EndId, ProcessId},
};
use transport::{
    park::{self, FIRST_SLEEP},
    ring::wait::Sleep,
    segment::{Counters, Doorbell, Mapped, Words},
    uring::{Links, Seated},
};

use registry::Registry;
use rings::Rings;

use crate::{
    port::{Bell as PeerBell, News, Port, Wait},
    timers::Timers,
};

/// The way to the manager and back; the SDK has the socket.
pub trait Wiring: Send + Sync + 'static {
    /// Says a word. Words arrive in the order in which they were said. Without `now`, it may be kept until the
    /// next word that is said with it, or until [`flush`](Self::flush).
    fn tell(&self, word: FromProcess, now: bool);

    /// Sends what was kept.
    fn flush(&self);

    /// Takes in what the manager has said, and hands the words about channels to [`Hub::deliver`]. Gives `true`
    /// when there was any.
    fn pump(&self, hub: &Hub) -> bool;
}

/// What a hub is made of.
pub struct Parts {
    /// The process.
    pub process: ProcessId,
    /// The way to its manager.
    pub wiring: Box<dyn Wiring>,
    /// Its doorbell.
    pub doorbell: Doorbell,
    /// The events file, and the process's slot in it.
    pub events: (Words, usize),
    /// Where it counts what its ends do.
    pub counters: Counters,
    /// What the slot's word was when the process was welcomed.
    pub event_count: u32,
    /// Whether its job has, or may have, processes on other machines.
    pub may_link: bool,
    /// How long it may spin before it sleeps.
    pub spin: Duration,
}

/// See the [module](self).
pub struct Hub {
    parts: Parts,
    /// The value of the event word up to which the manager's words were taken in.
    handled: AtomicU32,
    ends: AtomicU64,
    registry: Mutex<Registry>,
    rings: Mutex<Rings>,
    peers: Mutex<HashMap<ProcessId, Arc<Doorbell>>>,
    /// Until then the sleep of whoever turns must be bounded, because a producer may not have noticed a wait.
    bounded: Mutex<Option<Instant>>,
    /// Threads that sleep here.
    sleepers: AtomicU32,
    /// The thread that made the hub: it runs `main` or the entry, and a panic there mostly ends the process.
    home: ThreadId,
    /// Ends that were dropped by a panic, and the thread that panicked.
    abandoned: Mutex<Vec<(ThreadId, EndId)>>,
    has_abandoned: AtomicBool,
    timers: Timers,
    driver: Once,
    /// Made with the first link.
    links: OnceLock<&'static Links>,
    making_links: Mutex<()>,
}

static HUB: OnceLock<Hub> = OnceLock::new();

thread_local! {
    /// Whether this thread runs the SDK's executor, which turns the hub by itself.
    static TURNS: Cell<bool> = const { Cell::new(false) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Makes the process's hub.
    ///
    /// # Errors
    /// Gives the parts back when the process has a hub already.
    pub fn install(parts: Parts) -> Result<&'static Hub, Parts> {
        let handled = AtomicU32::new(parts.event_count);
        let hub = Hub {
            parts,
            handled,
            ends: AtomicU64::new(0),
            registry: Mutex::default(),
            rings: Mutex::default(),
            peers: Mutex::default(),
            bounded: Mutex::new(None),
            sleepers: AtomicU32::new(0),
            home: thread::current().id(),
            abandoned: Mutex::default(),
            has_abandoned: AtomicBool::new(false),
            timers: Timers::default(),
            driver: Once::new(),
            links: OnceLock::new(),
            making_links: Mutex::default(),
        };
        HUB.set(hub).map_err(|hub| hub.parts)?;
        Ok(HUB.wait())
    }

    /// The process's hub, if it is part of a job.
    pub fn get() -> Option<&'static Hub> {
        HUB.get()
    }

    /// The process.
    pub fn process(&self) -> ProcessId {
        self.parts.process
    }

    /// An id for one more end.
    pub(crate) fn next_end(&self) -> EndId {
        EndId::new(self.parts.process, self.ends.fetch_add(1, Ordering::Relaxed))
    }

    // ---- words to and from the manager

    /// Says a word to the manager at once.
    pub fn tell(&self, word: FromProcess) {
        self.parts.wiring.tell(word, true);
    }

    /// Says a word that nobody waits for: it is sent with the next one that somebody does, or when the process next
    /// sleeps.
    pub fn tell_later(&self, word: FromProcess) {
        self.parts.wiring.tell(word, false);
    }

    /// Keeps an end that was dropped by a panic. If the process lives on, it is reset.
    pub(crate) fn abandon(&self, end: EndId) {
        lock(&self.abandoned).push((thread::current().id(), end));
        self.has_abandoned.store(true, Ordering::Release);
    }

    #[inline]
    fn settle_abandoned(&self) {
        if self.has_abandoned.load(Ordering::Acquire) {
            self.settle_abandoned_now();
        }
    }

    #[cold]
    fn settle_abandoned_now(&self) {
        let mut abandoned = lock(&self.abandoned);
        if abandoned.is_empty() || thread::panicking() {
            return;
        }
        // Another thread, such as the driver's, can't know whether the home thread will live on.
        let here = thread::current().id();
        let lives_on = |(thread, _): &mut (ThreadId, EndId)| *thread != self.home || here == self.home;
        let settled: Vec<_> = abandoned.extract_if(.., lives_on).collect();
        self.has_abandoned.store(!abandoned.is_empty(), Ordering::Release);
        drop(abandoned);
        for (_, end) in settled {
            let reason = Some("its holder panicked".to_owned());
            self.tell(FromProcess::Close(Close { end: end.to_word(), reason }));
        }
    }

    /// By which an end notices, with every message, that the manager has said something.
    pub(crate) fn ear(&'static self) -> Ear {
        Ear { event: self.event_word(), handled: &self.handled }
    }

    /// Whether the manager has said anything that was not taken in.
    #[inline]
    fn has_word(&self) -> bool {
        self.event_word().load(Ordering::Relaxed) != self.handled.load(Ordering::Relaxed)
    }

    /// Takes in what the manager has said, if it has said anything.
    #[inline]
    pub fn look(&self) {
        if self.has_word() {
            self.pump();
        }
    }

    /// As [`look`](Self::look); it is no reason to stop spinning.
    fn hear(&self) -> bool {
        self.look();
        self.poll_links();
        false
    }

    #[cold]
    fn pump(&self) {
        // SYNC: the manager sends its words before it moves the event word, so a pump that starts after this load
        // sees all that the value counts.
        let seen = self.event_word().load(Ordering::Acquire);
        let news = self.parts.wiring.pump(self);
        self.handled.store(seen, Ordering::Release);
        if news {
            self.wake();
        }
    }

    #[inline]
    fn event_word(&self) -> &AtomicU32 {
        self.parts.events.0.word(self.parts.events.1)
    }

    /// Takes in a word about channels, with its descriptors. Words about other things are given back.
    ///
    /// # Errors
    /// [`Malformed`] when the word makes no sense.
    pub fn deliver(&self, word: FromManager, files: Vec<OwnedFd>) -> Result<Option<FromManager>, Malformed> {
        match word {
            FromManager::Ring(ring) => self.on_ring(ring, files)?,
            FromManager::Incoming(incoming) => self.on_incoming(incoming, files)?,
            FromManager::Paired(paired) => {
                let sender = EndId::from_word(&paired.sender)?;
                let [file] = files.try_into().map_err(|_| Malformed("doorbell"))?;
                match self.peer(ProcessId(paired.process), file) {
                    Ok(doorbell) => {
                        // Under the lock that `open` takes after it has made the port: it finds the one or the other.
                        let mut rings = lock(&self.rings);
                        if self.is_open(sender) {
                            drop(rings);
                            self.to_port(sender, News::Paired { bell: PeerBell::Process(doorbell) });
                        } else {
                            rings.doorbells.insert(sender, doorbell);
                        }
                    }
                    Err(error) => self.to_port(sender, News::Broken(error.to_string())),
                }
            }
            FromManager::SenderOver(word) => {
                let (receiver, sender) = (EndId::from_word(&word.receiver)?, EndId::from_word(&word.sender)?);
                let over = Over::try_from(word.over)?;
                let (last, lost) = (word.last, word.lost);
                self.to_port(receiver, News::SenderOver { sender, over, last, lost });
            }
            FromManager::ReceiverOver(word) => {
                let sender = EndId::from_word(&word.sender)?;
                self.to_port(sender, News::ReceiverOver { over: word.over.try_into()? });
            }
            FromManager::LinkedSender(word) => self.on_linked_sender(word, files)?,
            FromManager::LinkedReceiver(word) => self.on_linked_receiver(word, files)?,
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    fn on_incoming(&self, word: Incoming, files: Vec<OwnedFd>) -> Result<(), Malformed> {
        let (receiver, sender) = (EndId::from_word(&word.receiver)?, EndId::from_word(&word.sender)?);
        let [data, consumer, doorbell] = files.try_into().map_err(|_| Malformed("ring"))?;
        let mapped = Mapped::for_consumer(data.as_fd(), consumer.as_fd(), word.capacity as usize)
            .and_then(|memory| Ok((memory, self.peer(ProcessId(word.process), doorbell)?)));
        let news = match mapped {
            Ok((memory, doorbell)) => {
                News::Incoming { sender, memory: Arc::new(memory), bell: PeerBell::Process(doorbell) }
            }
            Err(error) => News::Broken(error.to_string()),
        };
        self.to_port(receiver, news);
        Ok(())
    }

    fn is_open(&self, end: EndId) -> bool {
        self.port(end).is_some()
    }

    fn to_port(&self, end: EndId, news: News) {
        // Without a port the end was dropped meanwhile, and the manager knows or will.
        if let Some(port) = self.port(end) {
            port.deliver(news);
        }
    }

    /// The doorbell of a peer, mapped once.
    fn peer(&self, process: ProcessId, file: OwnedFd) -> std::io::Result<Arc<Doorbell>> {
        let mut peers = lock(&self.peers);
        if let Some(doorbell) = peers.get(&process) {
            return Ok(doorbell.clone());
        }
        peers.retain(|_, doorbell| Arc::strong_count(doorbell) > 1);
        let doorbell = Arc::new(Doorbell::map(file.as_fd())?);
        peers.insert(process, doorbell.clone());
        Ok(doorbell)
    }

    // ---- waiting

    /// To be called before a thread spins or sleeps: what was kept back is said.
    #[inline]
    fn before_wait(&self) {
        self.settle_abandoned();
        self.parts.wiring.flush();
        self.flush_links();
    }

    /// Sleeps until `ready`, which is asked whenever anything has happened; `false` when `deadline` came first.
    pub fn wait_until(&self, deadline: Option<Instant>, mut ready: impl FnMut() -> bool) -> bool {
        self.before_wait();
        spin(self.parts.spin, &mut ready, || self.hear()) || self.sleep(None, &[], deadline, &mut ready)
    }

    /// Spins for a while, if that is of use, until `ready`; `false` when it gave up.
    #[inline]
    pub(crate) fn spin_port(
        &self,
        ear: Ear,
        port: &Port,
        waits: &[Wait],
        mut ready: impl FnMut() -> bool,
    ) -> bool {
        // Without a pause the first answers are seen soonest.
        const EAGER_PROBES: u32 = 256;
        self.before_wait();
        // On the processor of whoever is waited for, spinning would only keep them from it.
        if Wait::all_meet_peers(waits, park::cpu()) {
            return false;
        }
        for _ in 0..EAGER_PROBES {
            if ready() {
                return true;
            }
        }
        let gives_up = || {
            self.poll_links();
            ear.hears() || port.has_news()
        };
        spin(self.parts.spin, ready, gives_up)
    }

    /// Sleeps until a port has what it waits for; `false` when `deadline` came first.
    pub(crate) fn sleep_port(&self, port: &Port, waits: &[Wait], deadline: Option<Instant>) -> bool {
        self.sleep(Some(port), waits, deadline, &mut || port.is_ready(waits))
    }

    /// Spins and then sleeps until a port has what it waits for; `false` when `deadline` came first.
    pub(crate) fn wait_port(&'static self, port: &Port, waits: &[Wait], deadline: Option<Instant>) -> bool {
        self.spin_port(self.ear(), port, waits, || port.is_ready(waits))
            || self.sleep_port(port, waits, deadline)
    }

    fn sleep(
        &self,
        port: Option<&Port>,
        waits: &[Wait],
        deadline: Option<Instant>,
        ready: &mut dyn FnMut() -> bool,
    ) -> bool {
        if let Some(port) = port {
            port.counts.sleep();
        }
        let (mut bound, mut seated) = (None, Seated::default());
        let found = loop {
            let bell = self.bell();
            self.look();
            let _sleeper = self.sleeper();
            if Wait::begin_all(waits) == Sleep::Bounded {
                bound = Some(Instant::now() + FIRST_SLEEP);
            }
            bound = bound.filter(|bound| *bound > Instant::now());
            self.answer_bell();
            if ready() {
                break true;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                break false;
            }
            self.park(bell, earlier(deadline, bound), &mut seated);
            if ready() {
                break true;
            }
        };
        Wait::end_all(waits);
        found
    }

    /// Makes sure that somebody turns the hub while futures wait.
    pub fn drive(&self) {
        if TURNS.get() {
            return;
        }
        self.driver.call_once(|| {
            let turn = || loop {
                if let Some(hub) = Hub::get() {
                    hub.turn(Duration::ZERO, &|| false);
                }
            };
            thread::Builder::new()
                .name("archean-driver".to_owned())
                .spawn(turn)
                .expect("the operating system gives one more thread");
        });
    }

    /// One turn of the executor or the driver: sleeps until something happened, and wakes whom it concerns.
    /// `awake` says that there is something else to do.
    fn turn(&self, budget: Duration, awake: &dyn Fn() -> bool) {
        self.before_wait();
        if !self.all_listed_meet_peers(park::cpu()) {
            let mut seen = self.bell();
            let ready = || {
                let bell = self.bell();
                let is_rung = std::mem::replace(&mut seen, bell) != bell;
                awake() || self.poll_listed() || is_rung && self.answer_bell()
            };
            spin(budget, ready, || self.hear());
        }
        let bell = self.bell();
        self.look();
        let sleeper = self.sleeper();
        let found = self.arm_listed() | self.answer_bell() | self.poll_unnoticed();
        let bound = self.sleep_bound();
        if !found && !awake() {
            self.park(bell, earlier(self.timers.first(), bound), &mut Seated::default());
        }
        drop(sleeper);
        self.look();
        self.answer_bell();
        self.poll_unnoticed();
        self.timers.fire(Instant::now());
    }

    fn bell(&self) -> u32 {
        // SYNC: with the addition in `Doorbell::ring`: what the peer did before it rang is seen after this.
        self.parts.doorbell.word().load(Ordering::SeqCst)
    }

    /// When the sleep of whoever turns has to end, if it has to.
    fn sleep_bound(&self) -> Option<Instant> {
        let mut bounded = lock(&self.bounded);
        *bounded = bounded.filter(|bound| *bound > Instant::now());
        *bounded
    }

    /// Counts a thread that is about to look one last time and then to sleep: whoever changes what it looks for
    /// after that sees the count and rings.
    fn sleeper(&self) -> Sleeper<'_> {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        Sleeper(&self.sleepers)
    }

    /// Wakes whoever sleeps here, or is about to.
    pub fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.parts.doorbell.wake();
        }
    }

    // ---- timers

    /// A key for a timer at `when`.
    pub fn timer(&self, when: Instant) -> TimerKey {
        self.timers.key(when)
    }

    /// Has `waker` woken when the timer's time has come.
    pub fn set_timer(&self, key: TimerKey, waker: &Waker) {
        let first = self.timers.set(key, waker);
        self.drive();
        if first && !TURNS.get() {
            self.wake();
        }
    }

    /// Gives a timer up.
    pub fn clear_timer(&self, key: TimerKey) {
        self.timers.clear(key);
    }
}

/// Spins until `ready`, for no longer than the budget; without one, for a few microseconds. Asks now and then whether to
/// give up.
#[inline]
fn spin(budget: Duration, mut ready: impl FnMut() -> bool, mut gives_up: impl FnMut() -> bool) -> bool {
    const PROBES: u32 = 64;
    let mut until = None;
    loop {
        for _ in 0..PROBES {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if gives_up() || budget.is_zero() {
            return false;
        }
        let now = Instant::now();
        if now >= *until.get_or_insert(now + budget) {
            return false;
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// See [`Hub::ear`].
#[derive(Clone, Copy)]
pub(crate) struct Ear {
    event: &'static AtomicU32,
    handled: &'static AtomicU32,
}

impl Ear {
    /// Whether the manager has said anything that was not taken in.
    #[inline]
    pub(crate) fn hears(self) -> bool {
        self.event.load(Ordering::Relaxed) != self.handled.load(Ordering::Relaxed)
    }
}

/// See [`Hub::sleeper`].
struct Sleeper<'h>(&'h AtomicU32);

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("process", &self.parts.process).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("process", &self.process).finish_non_exhaustive()
    }
}
