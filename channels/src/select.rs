//! Many receivers, of which one or another has something.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use transport::ring::Frame;

use crate::{
    Data, Message, Receiver, RecvError,
    hub::{Bell, block_on},
};

/// A set of receivers, each with a key, that gives whatever comes first.
///
/// It costs time for those that have something, not for those that are idle, of which there may be thousands. It is
/// fair: while several have messages, each has its turn, for up to 32 messages at a time. Messages of one receiver
/// stay in order. Receivers may be put in and taken out between any two messages.
///
/// ```no_run
/// # use channels as archean;
/// use archean::{Receiver, RecvError, Select};
///
/// async fn show(cities: Vec<(String, Receiver<f64>)>) {
///     let mut temperatures = Select::new();
///     for (city, receiver) in cities {
///         temperatures.insert(city, receiver);
///     }
///     while let Some((city, temperature)) = temperatures.recv().await {
///         match temperature {
///             Ok(degrees) => println!("{city}: {} degrees", *degrees),
///             Err(RecvError::Closed) => println!("{city} has ended"),
///             Err(error) => println!("{city}: {error}"),
///         }
///     }
/// }
/// ```
pub struct Select<K, T> {
    members: Vec<Option<Member<K, T>>>,
    vacant: Vec<usize>,
    indices: HashMap<K, usize>,
    queue: Arc<Queue>,
    /// Whose turn it is, and for how many messages more.
    turn: Option<(usize, u32)>,
    bell: Bell,
}

struct Member<K, T> {
    key: K,
    receiver: Receiver<T>,
    place: Arc<Place>,
    waker: Waker,
}

/// Those that may have something.
#[derive(Default)]
struct Queue(Mutex<Queued>);

#[derive(Default)]
struct Queued {
    indices: VecDeque<usize>,
    waker: Option<Waker>,
}

/// A member as its receiver wakes it.
struct Place {
    index: usize,
    is_queued: AtomicBool,
    queue: Arc<Queue>,
}

/// So many messages one receiver may give before the next has its turn.
const TURN: u32 = 32;

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn queue(&self) -> Option<Waker> {
        // SYNC: with the store in `Select::next`, which comes before the receiver is polled.
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return None;
        }
        let mut queued = self.queue.lock();
        queued.indices.push_back(self.index);
        queued.waker.take()
    }
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(waker) = self.queue() {
            waker.wake();
        }
    }
}

impl<K: Clone + Eq + Hash, T: Data> Select<K, T> {
    /// A set without receivers.
    pub fn new() -> Self {
        Select {
            members: Vec::new(),
            vacant: Vec::new(),
            indices: HashMap::new(),
            queue: Arc::default(),
            turn: None,
            bell: Bell::default(),
        }
    }

    /// Puts a receiver in. One that had the same key is taken out, and given back.
    pub fn insert(&mut self, key: K, receiver: Receiver<T>) -> Option<Receiver<T>> {
        let before = self.remove(&key);
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.members.len() - 1
        });
        let place = Arc::new(Place { index, is_queued: AtomicBool::new(false), queue: self.queue.clone() });
        if let Some(waker) = place.queue() {
            waker.wake();
        }
        let waker = Waker::from(place.clone());
        self.indices.insert(key.clone(), index);
        self.members[index] = Some(Member { key, receiver, place, waker });
        before
    }

    /// Takes a receiver out.
    pub fn remove(&mut self, key: &K) -> Option<Receiver<T>> {
        let index = self.indices.remove(key)?;
        self.vacant.push(index);
        self.members[index].take().map(|member| member.receiver)
    }

    /// How many receivers there are.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Lends the next message, with the key of its receiver, or gives what ended it: a receiver from which nothing more
    /// can come is taken out with its last error. `None` when there is no receiver.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has received nothing.
    pub async fn recv(&mut self) -> Option<(K, Result<Message<'_, T>, RecvError>)> {
        let found = match self.quick() {
            Some(found) => found,
            None => poll_fn(|context| self.poll(context)).await?,
        };
        Some(self.lend(found))
    }

    /// As [`recv`](Self::recv), blocking the thread.
    pub fn recv_blocking(&mut self) -> Option<(K, Result<Message<'_, T>, RecvError>)> {
        let found = match self.quick() {
            Some(found) => found,
            None if self.is_empty() => return None,
            None => block_on(poll_fn(|context| self.poll(context)))?,
        };
        Some(self.lend(found))
    }

    /// The next message of the one whose turn it is, if nothing is in the way.
    #[inline]
    fn quick(&mut self) -> Option<Found<K>> {
        let (index, left) = self.turn?;
        if left == 0 {
            return None;
        }
        let frame = self.members.get_mut(index)?.as_mut()?.receiver.quick_frame()?;
        self.turn = Some((index, left - 1));
        Some(Found::Message(index, 0, frame))
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Found<K>>> {
        if self.is_empty() {
            return Poll::Ready(None);
        }
        // Who reads without a pause would else not hear of those that have begun to have something.
        self.bell.answer();
        if let Some((index, _)) = self.turn.take()
            && let Some(Some(member)) = self.members.get(index)
        {
            member.place.queue();
        }
        while let Some(index) = self.next(context) {
            // It may have been taken out meanwhile.
            let Some(Some(member)) = self.members.get_mut(index) else { continue };
            // SYNC: with the swap in `Place::queue`.
            member.place.is_queued.store(false, Ordering::Release);
            match member.receiver.poll(&mut Context::from_waker(&member.waker)) {
                Poll::Pending => {}
                Poll::Ready(Ok((ring, frame))) => {
                    self.turn = Some((index, TURN - 1));
                    return Poll::Ready(Some(Found::Message(index, ring, frame)));
                }
                Poll::Ready(Err(error)) => {
                    let key = member.key.clone();
                    if member.receiver.is_spent() {
                        self.remove(&key);
                    } else {
                        member.place.queue();
                    }
                    return Poll::Ready(Some(Found::End(key, error)));
                }
            }
        }
        Poll::Pending
    }

    /// One that may have something; when there is none, `context` is woken as soon as there is.
    fn next(&self, context: &Context<'_>) -> Option<usize> {
        let mut queued = self.queue.lock();
        let index = queued.indices.pop_front();
        if index.is_none() {
            match &mut queued.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
        }
        index
    }

    pub(crate) fn lend(&mut self, found: Found<K>) -> (K, Result<Message<'_, T>, RecvError>) {
        match found {
            Found::End(key, error) => (key, Err(error)),
            Found::Message(index, ring, frame) => {
                let member = self.members[index].as_mut().expect("a message was found in it just now");
                (member.key.clone(), member.receiver.lend(ring, frame))
            }
        }
    }
}

/// What a search has found: a message of a member, by its place and that of the ring; or the end of one.
pub(crate) enum Found<K> {
    Message(usize, usize, Frame),
    End(K, RecvError),
}

impl<K: Clone + Eq + Hash, T: Data> Default for Select<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, T> fmt::Debug for Select<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select").field("receivers", &self.indices.len()).finish_non_exhaustive()
    }
}
