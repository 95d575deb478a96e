//! Many processes that take steps together.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::{
    Message, Reason, Receiver, RecvError, Refused, Select, Sender, channel_with_capacity,
    hub::{Hub, TimerKey, block_on},
};

/// The one that says when a tick is over: it waits until every [`Member`] has arrived, and then releases them all into
/// the next tick.
///
/// Members join and leave between ticks: whoever makes a member, by [`join`](Self::join) or by [`Member::invite`], does so
/// before it arrives itself, and the next tick waits for the new one already. A member that is dropped, or whose
/// process ends, is not waited for any more.
///
/// It costs two channels of 4 KiB for each member; a tick takes one message from each and one to each.
///
/// ```no_run
/// # use channels as archean;
/// use archean::{Barrier, Sender};
///
/// async fn lead(cells: Vec<Sender<archean::Member>>) {
///     let mut barrier = Barrier::new();
///     for (mut cell, index) in cells.into_iter().zip(0..) {
///         if cell.send(barrier.join(format!("cell-{index}"))).await.is_err() {
///             println!("cell-{index} does not take part");
///         }
///     }
///     while !barrier.is_empty() {
///         let tick = barrier.wait().await;
///         println!("tick {} begins with {} members", tick.number, tick.members);
///     }
/// }
/// ```
pub struct Barrier {
    arrivals: Select<u64, Arrival>,
    members: HashMap<u64, State>,
    next_id: u64,
    tick: u64,
    /// Members that have not arrived.
    missing: usize,
    report: Report,
}

/// What became of a tick.
///
/// ```no_run
/// # use channels as archean;
/// fn tell(tick: &archean::Tick) {
///     println!("tick {}: {} members", tick.number, tick.members);
///     for (name, error) in &tick.lost {
///         println!("{name} was lost: {error}");
///     }
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// The number of the tick that begins; the first is 1.
    pub number: u64,
    /// How many members take part in it.
    pub members: usize,
    /// Members that have joined since the tick before.
    pub joined: Vec<String>,
    /// Members that have left.
    pub left: Vec<String>,
    /// Members that were lost, and why.
    pub lost: Vec<(String, RecvError)>,
    /// Members that were not waited for any longer; they take part when they have caught up.
    pub late: Vec<String>,
}

type Report = Tick;

/// Not everybody has arrived in time.
///
/// ```no_run
/// # use channels as archean;
/// use std::time::Duration;
///
/// use archean::{Barrier, Late, Tick};
///
/// /// Waits for a second, and then goes on without those that are missing.
/// async fn tick(barrier: &mut Barrier) -> Tick {
///     match barrier.wait_timeout(Duration::from_secs(1)).await {
///         Ok(tick) => tick,
///         Err(Late { tick, names }) => {
///             println!("tick {tick} is over without {names:?}");
///             barrier.release()
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tick {tick} is late: waiting for {}", .names.join(", "))]
pub struct Late {
    /// The number of the tick that is not over.
    pub tick: u64,
    /// Who has not arrived.
    pub names: Vec<String>,
}

/// One that takes part in the ticks of a [`Barrier`]. It may be moved to another process until it is used.
///
/// ```no_run
/// # use channels as archean;
/// use archean::{BarrierError, Member};
///
/// async fn follow(mut member: Member) -> Result<(), BarrierError> {
///     while member.wait().await? < 100 {
///         println!("this is tick {}", member.tick());
///     }
///     member.leave();
///     Ok(())
/// }
/// ```
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Member {
    arrivals: Sender<Arrival>,
    releases: Receiver<u64>,
    tick: u64,
    has_arrived: bool,
}

/// Why a member can't go on.
///
/// ```no_run
/// # use channels as archean;
/// use archean::{BarrierError, Member, Reason, RecvError};
///
/// /// Whether there is one more tick; that the barrier was dropped is the end, and no error.
/// async fn goes_on(member: &mut Member) -> Result<bool, BarrierError> {
///     match member.wait().await {
///         Ok(_tick) => Ok(true),
///         Err(BarrierError::Gone(RecvError::Closed) | BarrierError::NotTold(Reason::Closed)) => Ok(false),
///         Err(error) => Err(error),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BarrierError {
    /// The barrier is no more, or has lost this member.
    #[error("the barrier is gone: {0}")]
    Gone(RecvError),
    /// It could not be told.
    #[error("the barrier can't be told: {0}")]
    NotTold(Reason),
}

/// What members say.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum Arrival {
    /// The tick of that number is over for this member.
    Done(u64),
    /// There is one more.
    Join { name: String, arrivals: Receiver<Arrival>, releases: Sender<u64> },
}

struct State {
    name: String,
    releases: Sender<u64>,
    has_arrived: bool,
    /// A release that had no room yet.
    owed: Option<u64>,
}

/// The capacity of a member's channels.
const CAPACITY: usize = 4 << 10;

/// Both sides of a new member.
fn pair() -> (Member, Receiver<Arrival>, Sender<u64>) {
    let ((arrivals, theirs), (releases, own)) =
        (channel_with_capacity(CAPACITY), channel_with_capacity(CAPACITY));
    (Member { arrivals, releases: own, tick: 0, has_arrived: false }, theirs, releases)
}

impl Barrier {
    /// A barrier without members.
    pub fn new() -> Self {
        Barrier {
            arrivals: Select::new(),
            members: HashMap::new(),
            next_id: 0,
            tick: 0,
            missing: 0,
            report: Report::default(),
        }
    }

    /// One more member, for which the tick that is under way waits too. The name is for reports.
    pub fn join(&mut self, name: impl Into<String>) -> Member {
        let (member, arrivals, releases) = pair();
        self.add(name.into(), arrivals, releases);
        Member { tick: self.tick, ..member }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Waits until every member has arrived, and releases them.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has released nobody; who has arrived is not forgotten.
    pub async fn wait(&mut self) -> Tick {
        poll_fn(|context| self.poll(context)).await;
        self.release()
    }

    /// As [`wait`](Self::wait), blocking the thread.
    pub fn wait_blocking(&mut self) -> Tick {
        block_on(self.wait())
    }

    /// As [`wait`](Self::wait), for no longer than `limit`.
    ///
    /// # Errors
    /// [`Late`] names who has not arrived. Nobody is released: wait once more, or [`release`](Self::release) the others.
    ///
    /// # Cancel safety
    /// As for [`wait`](Self::wait).
    pub async fn wait_timeout(&mut self, limit: Duration) -> Result<Tick, Late> {
        let mut timer = Timer(None);
        let deadline = Instant::now().checked_add(limit);
        let in_time = poll_fn(|context| match (self.poll(context), deadline) {
            (Poll::Ready(()), _) => Poll::Ready(true),
            (Poll::Pending, Some(deadline)) if deadline <= Instant::now() => Poll::Ready(false),
            (Poll::Pending, Some(deadline)) => {
                timer.set(deadline, context);
                Poll::Pending
            }
            (Poll::Pending, None) => Poll::Pending,
        });
        if in_time.await { Ok(self.release()) } else { Err(Late { tick: self.tick, names: self.late() }) }
    }

    /// As [`wait_timeout`](Self::wait_timeout), blocking the thread.
    ///
    /// # Errors
    /// As for [`wait_timeout`](Self::wait_timeout).
    pub fn wait_timeout_blocking(&mut self, limit: Duration) -> Result<Tick, Late> {
        block_on(self.wait_timeout(limit))
    }

    /// Begins the next tick now, whoever is missing. Those that are late go straight on into the tick that is under way
    /// when they arrive. A member whose ring is full, or is not there yet, is told with the next call that waits.
    pub fn release(&mut self) -> Tick {
        let late = self.late();
        self.tick += 1;
        let tick = self.tick;
        let mut gone = Vec::new();
        for (id, member) in &mut self.members {
            member.has_arrived = false;
            match member.releases.try_send(tick).map_err(|error| error.reason) {
                Ok(()) => member.owed = None,
                Err(Reason::Full) => member.owed = Some(tick),
                // Its end comes as news of its other channel too, but perhaps later.
                Err(reason) => gone.push((*id, lost(reason))),
            }
        }
        for (id, error) in gone {
            self.remove(id, error);
        }
        self.missing = self.members.len();
        let report = std::mem::take(&mut self.report);
        Tick { number: tick, members: self.members.len(), late, ..report }
    }

    fn late(&self) -> Vec<String> {
        let missing = self.members.values().filter(|member| !member.has_arrived);
        let mut names: Vec<String> = missing.map(|member| member.name.clone()).collect();
        names.sort_unstable();
        names
    }

    fn add(&mut self, name: String, arrivals: Receiver<Arrival>, releases: Sender<u64>) {
        let id = self.next_id;
        self.next_id += 1;
        self.arrivals.insert(id, arrivals);
        self.report.joined.push(name.clone());
        self.members.insert(id, State { name, releases, has_arrived: false, owed: None });
        self.missing += 1;
    }

    fn remove(&mut self, id: u64, error: RecvError) {
        let Some(member) = self.members.remove(&id) else { return };
        self.arrivals.remove(&id);
        if !member.has_arrived {
            self.missing = self.missing.saturating_sub(1);
        }
        match error {
            RecvError::Closed => self.report.left.push(member.name),
            error => self.report.lost.push((member.name, error)),
        }
    }

    /// Takes in who arrives, until all have.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.pay(context);
        while self.missing > 0 {
            let found = match self.arrivals.poll(context) {
                Poll::Ready(Some(found)) => found,
                Poll::Ready(None) => break,
                Poll::Pending => return Poll::Pending,
            };
            let (id, arrival) = self.arrivals.lend(found);
            match arrival.map(Message::into_owned) {
                Ok(Arrival::Done(tick)) => self.arrive(id, tick),
                Ok(Arrival::Join { name, arrivals, releases }) => self.add(name, arrivals, releases),
                Err(error) => self.remove(id, error),
            }
        }
        // A release that has no ring yet would wait for the next wait; all rings are asked for together.
        let rings = self.members.values_mut().map(|member| member.releases.poll_ring(context));
        if rings.filter(Poll::is_pending).count() == 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    fn arrive(&mut self, id: u64, tick: u64) {
        let Some(member) = self.members.get_mut(&id) else { return };
        // One that is late says so of an earlier tick; its release is in its ring already.
        if tick == self.tick && !std::mem::replace(&mut member.has_arrived, true) {
            self.missing -= 1;
        }
    }

    /// Sends the releases that had no room when they were due: the ring of a new member may not have been there.
    fn pay(&mut self, context: &mut Context<'_>) {
        for member in self.members.values_mut() {
            if let Some(tick) = member.owed
                && member.releases.poll_value(context, &tick, &mut None).is_ready()
            {
                member.owed = None;
            }
        }
    }
}

fn lost(reason: Reason) -> RecvError {
    match reason {
        Reason::Closed => RecvError::Closed,
        Reason::Reset(reason) => RecvError::Reset(reason),
        Reason::PeerDied(cause) => RecvError::PeerDied(cause),
        other => RecvError::Broken(other.to_string()),
    }
}

/// A timer that is given up when it is dropped.
struct Timer(Option<TimerKey>);

impl Timer {
    fn set(&mut self, when: Instant, context: &Context<'_>) {
        let Some(hub) = Hub::get() else { return };
        hub.set_timer(*self.0.get_or_insert_with(|| hub.timer(when)), context.waker());
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let (Some(key), Some(hub)) = (self.0, Hub::get()) {
            hub.clear_timer(key);
        }
    }
}

impl Member {
    /// Says that this member is done with its tick, and waits until all are. Gives the number of the tick that begins;
    /// for a member that was late it may be more than one later than the last.
    ///
    /// # Errors
    /// [`BarrierError`].
    ///
    /// # Cancel safety
    /// A member whose future was dropped may have arrived; the next call waits on.
    pub async fn wait(&mut self) -> Result<u64, BarrierError> {
        if !self.has_arrived {
            let told = self.arrivals.send(Arrival::Done(self.tick)).await;
            told.map_err(|error| BarrierError::NotTold(error.reason))?;
            self.has_arrived = true;
        }
        let tick = self.releases.recv_owned().await.map_err(BarrierError::Gone)?;
        self.begin(tick)
    }

    /// As [`wait`](Self::wait), blocking the thread.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_blocking(&mut self) -> Result<u64, BarrierError> {
        if !self.has_arrived {
            let told = self.arrivals.send_blocking(Arrival::Done(self.tick));
            told.map_err(|error| BarrierError::NotTold(error.reason))?;
            self.has_arrived = true;
        }
        let tick = self.releases.recv_owned_blocking().map_err(BarrierError::Gone)?;
        self.begin(tick)
    }

    /// Makes one more member of the same barrier, for which the tick that is under way waits too. To be called before
    /// this member arrives.
    ///
    /// # Errors
    /// [`BarrierError`].
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has invited nobody.
    pub async fn invite(&mut self, name: impl Into<String>) -> Result<Member, BarrierError> {
        let (member, arrivals, releases) = pair();
        let join = Arrival::Join { name: name.into(), arrivals, releases };
        let told = self.arrivals.send(join).await;
        told.map_err(|error| BarrierError::NotTold(error.reason))?;
        Ok(Member { tick: self.tick, ..member })
    }

    /// As [`invite`](Self::invite), blocking the thread.
    ///
    /// # Errors
    /// As for [`invite`](Self::invite).
    pub fn invite_blocking(&mut self, name: impl Into<String>) -> Result<Member, BarrierError> {
        let (member, arrivals, releases) = pair();
        let join = Arrival::Join { name: name.into(), arrivals, releases };
        let told = self.arrivals.send_blocking(join);
        told.map_err(|error| BarrierError::NotTold(error.reason))?;
        Ok(Member { tick: self.tick, ..member })
    }

    /// The number of the tick that this member is in; zero before the first.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// Takes part no longer. Dropping it does the same.
    pub fn leave(self) {}

    /// Why the member can't move to another process, if it can't.
    ///
    /// # Errors
    /// [`Refused`]: it was used, or it has moved already.
    pub fn check_movable(&self) -> Result<(), Refused> {
        self.arrivals.check_movable()
    }

    /// Goes on with the newest tick that it was released into.
    fn begin(&mut self, tick: u64) -> Result<u64, BarrierError> {
        self.tick = tick;
        while let Ok(Some(tick)) = self.releases.try_recv() {
            self.tick = tick.to_native();
        }
        self.has_arrived = false;
        Ok(self.tick)
    }
}

impl Default for Barrier {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("members", &self.members.len()).field("tick", &self.tick).finish()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("tick", &self.tick).finish_non_exhaustive()
    }
}
