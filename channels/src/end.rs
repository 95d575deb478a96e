//! What the two kinds of end have in common: who they are, whether they may be used, and how they travel.

use std::{
    cell::RefCell,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use protocol::{
    control::{Close, FromProcess},
    ids::{EndId, ProcessId},
    limits::{RING_BYTES_DEFAULT, RING_BYTES_MAX, RING_BYTES_MIN},
};
use rkyv::{Archive, Place, rancor::Fallible};

use crate::{Data, Receiver, Sender, data::Ends, error::Refused, hub::Hub, untyped::untyped_channel};

/// An end's identity and state, shared with a serialiser that has noted it.
#[derive(Debug)]
pub struct EndCell {
    pub(crate) id: EndId,
    pub(crate) capacity: usize,
    state: AtomicU8,
}

const UNUSED: u8 = 0;
const USED: u8 = 1;
const MOVED: u8 = 2;
const NOT_CLAIMED: u8 = 3;
const NOT_INITIALISED: u8 = 4;

impl EndCell {
    fn new(id: EndId, capacity: usize, state: u8) -> Arc<Self> {
        Arc::new(EndCell { id, capacity, state: AtomicU8::new(state) })
    }

    /// An end of this process, not used yet.
    pub(crate) fn unused(id: EndId, capacity: usize) -> Arc<Self> {
        Self::new(id, capacity, UNUSED)
    }

    /// An end in a process that is not part of a job.
    pub(crate) fn not_initialised(capacity: usize) -> Arc<Self> {
        Self::new(EndId::default(), capacity, NOT_INITIALISED)
    }

    /// Makes it stay here, at its first use.
    pub(crate) fn start_use(&self) -> Result<&'static Hub, Refused> {
        match self.state.compare_exchange(UNUSED, USED, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) | Err(USED) => Hub::get().ok_or(Refused::NotInitialised),
            Err(MOVED) => Err(Refused::Moved),
            Err(NOT_CLAIMED) => Err(Refused::NotClaimed),
            Err(_) => Err(Refused::NotInitialised),
        }
    }

    /// Whether it may move now.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check_movable(&self) -> Result<(), Refused> {
        match self.state.load(Ordering::Relaxed) {
            UNUSED => Ok(()),
            USED => Err(Refused::InUse),
            MOVED => Err(Refused::Moved),
            NOT_CLAIMED => Err(Refused::NotClaimed),
            _ => Err(Refused::NotInitialised),
        }
    }

    /// Its id.
    pub fn id(&self) -> EndId {
        self.id
    }

    /// To be called when what it was packed in is committed: from now on it is elsewhere.
    pub fn mark_moved(&self) {
        self.state.store(MOVED, Ordering::Relaxed);
        if let Some(hub) = Hub::get() {
            hub.forget(self.id);
        }
    }

    /// Whether this process holds it.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.state.load(Ordering::Relaxed), UNUSED | USED)
    }

    /// Tells the manager that it is no more.
    pub(crate) fn close(&self, reason: Option<String>) {
        if !self.is_held() {
            return;
        }
        self.mark_moved();
        let Some(hub) = Hub::get() else { return };
        if reason.is_none() && std::thread::panicking() {
            // If the panic ends the process, then the peer is to learn of that death, and not of a mere reset.
            hub.abandon(self.id);
        } else {
            hub.tell(FromProcess::Close(Close { end: self.id.to_word(), reason }));
        }
    }
}

/// Makes a channel that carries values of type `T`, of the default capacity (1 MiB).
///
/// Nothing is allocated until an end is used. Both ends may be moved to other processes.
pub fn channel<T: Data>() -> (Sender<T>, Receiver<T>) {
    channel_with_capacity(RING_BYTES_DEFAULT)
}

/// Makes a channel whose ring, one for every sender, has room for at least `bytes` bytes of messages.
///
/// The capacity is a power of two from 4 KiB to 1 GiB; `bytes` is brought to the next of them. A message takes
/// 16 bytes and its archive, brought to a multiple of 16. Memory is used only as far as messages fill it.
pub fn channel_with_capacity<T: Data>(bytes: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = untyped_channel(bytes);
    (sender.typed(), receiver.typed())
}

/// An end inside a value that travels.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Debug)]
pub struct Token {
    maker: u64,
    count: u64,
    capacity: u32,
}

impl Token {
    fn of(cell: &EndCell) -> Self {
        Token { maker: cell.id.maker().0, count: cell.id.0 as u64, capacity: cell.capacity as u32 }
    }
}

thread_local! {
    /// The ends of the value that this thread is just taking out of a message.
    static CLAIMS: RefCell<Vec<EndId>> = const { RefCell::new(Vec::new()) };
}

/// Runs `take`, which takes a value that holds `ends` out of its archive, and gives back those that the value did
/// not make use of. Each end can be claimed once.
pub fn claiming<R>(ends: Vec<EndId>, take: impl FnOnce() -> R) -> (R, Vec<EndId>) {
    let outer = CLAIMS.replace(ends);
    let taken = take();
    (taken, CLAIMS.replace(outer))
}

impl ArchivedToken {
    fn claim(&self) -> Arc<EndCell> {
        let id = EndId::new(ProcessId(self.maker.to_native()), self.count.to_native());
        let capacity = (self.capacity.to_native() as usize).clamp(RING_BYTES_MIN, RING_BYTES_MAX);
        let capacity = capacity.next_power_of_two();
        let claimed = CLAIMS.with_borrow_mut(|claims| {
            let index = claims.iter().position(|claim| *claim == id)?;
            Some(claims.swap_remove(index))
        });
        EndCell::new(id, capacity, if claimed.is_some() { UNUSED } else { NOT_CLAIMED })
    }
}

macro_rules! travels {
    ($end:ident) => {
        impl<T> Archive for $end<T> {
            type Archived = ArchivedToken;
            type Resolver = TokenResolver;

            fn resolve(&self, resolver: TokenResolver, out: Place<ArchivedToken>) {
                Token::of(self.cell()).resolve(resolver, out);
            }
        }

        impl<T, S: Fallible + Ends + ?Sized> rkyv::Serialize<S> for $end<T> {
            fn serialize(&self, serialiser: &mut S) -> Result<TokenResolver, S::Error> {
                serialiser.note(self.cell());
                rkyv::Serialize::serialize(&Token::of(self.cell()), serialiser)
            }
        }

        impl<T, D: Fallible + ?Sized> rkyv::Deserialize<$end<T>, D> for ArchivedToken {
            fn deserialize(&self, _: &mut D) -> Result<$end<T>, D::Error> {
                Ok($end::from_cell(self.claim()))
            }
        }
    };
}

travels!(Sender);
travels!(Receiver);

/// What a type parameter that is only sent and received does to an end: nothing.
pub(crate) type Carries<T> = PhantomData<fn(T) -> T>;
