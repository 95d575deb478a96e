//! A message that still is in its ring.
#![expect(unsafe_code, reason = "a message borrows memory that another process maps")]

use std::{fmt, mem, ops::Deref, sync::Arc};

use protocol::{
    control::{Close, Ends, FromProcess},
    ids::EndId,
};
use rkyv::{Archive, rancor};

use crate::{Data, EndCell, claiming, receiver::Inbound};

/// A message, lent out of the ring: it dereferences to the archived value.
///
/// Its space in the ring is free again when it is dropped, so a message that is kept holds its sender up once the
/// ring is full. Ends in a message that is dropped without [`into_owned`](Self::into_owned) are gone: their other
/// ends are reset.
pub struct Message<'r, T: Archive> {
    inbound: &'r mut Inbound,
    archived: &'r T::Archived,
}

impl<'r, T: Data> Message<'r, T> {
    /// `archived` is the checked value in the message in front of `inbound`'s ring.
    #[inline(always)]
    pub(crate) fn new(inbound: &'r mut Inbound, archived: *const T::Archived) -> Self {
        // SAFETY: the callers pass what `data::check` gave for this message's bytes: aligned, and checked to be a
        // valid value. It lies in the ring's mapping, or in a copy, not in `inbound`, which keeps both for `'r`; the
        // frame's space is given back when the message is dropped, not before.
        let archived = unsafe { &*archived };
        Message { inbound, archived }
    }

    /// The value, on its own, with the ends in it.
    ///
    /// # Panics
    /// When the value's own `Deserialize` fails on an archive that its `CheckBytes` has accepted.
    pub fn into_owned(self) -> T {
        let take = || rkyv::deserialize::<T, rancor::Error>(self.archived);
        let value = if self.inbound.front.ends() == 0 { take() } else { self.adopt(take) };
        let Message { inbound, .. } = &mut *mem::ManuallyDrop::new(self);
        inbound.release();
        value.unwrap_or_else(|error| {
            panic!("a `{}` that was checked can't be deserialised: {error}", std::any::type_name::<T>())
        })
    }

    /// Takes the value out with the ends in it, which become this process's.
    fn adopt<R>(&self, take: impl FnOnce() -> R) -> R {
        let ends = self.adopt_ends();
        let (value, unclaimed) = claiming(ends, take);
        for end in unclaimed {
            let reason = Some("its message was taken without it".to_owned());
            self.inbound.hub.tell(FromProcess::Close(Close { end: end.to_word(), reason }));
        }
        value
    }

    /// Makes the ends in the message this process's.
    fn adopt_ends(&self) -> Vec<EndId> {
        let ends = self.inbound.ends();
        if !ends.is_empty() {
            let word = Ends { via: self.inbound.sender.to_word(), ends: EndId::list_to_word(&ends) };
            self.inbound.hub.tell(FromProcess::Adopt(word));
        }
        ends
    }

    /// The ends in the message, which is to be passed on with them.
    pub(crate) fn take_ends(&self) -> Vec<Arc<EndCell>> {
        self.adopt_ends().into_iter().map(|end| EndCell::unused(end, 0)).collect()
    }

    /// Its archive.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.inbound.bytes(&self.inbound.front)
    }

    /// Ends the message; the ends in it are elsewhere.
    pub(crate) fn moved_on(self) {
        let Message { inbound, .. } = &mut *mem::ManuallyDrop::new(self);
        inbound.release();
    }

    /// Leaves the message in front of its ring, as if it had not been lent.
    pub(crate) fn put_back(self) {
        mem::forget(self);
    }
}

impl<T: Archive> Deref for Message<'_, T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        self.archived
    }
}

impl<T: Archive> Drop for Message<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.inbound.front.ends() > 0 {
            self.inbound.discard_ends();
        }
        self.inbound.release();
    }
}

impl<T: Archive<Archived: fmt::Debug>> fmt::Debug for Message<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.archived.fmt(f)
    }
}
