//! Ends whose type is said later.

use std::sync::Arc;

use protocol::{
    control::{Declare, FromProcess},
    ids::EndId,
    limits::{RING_BYTES_MAX, RING_BYTES_MIN},
};

use crate::{Data, Receiver, Sender, end::EndCell, hub::Hub};

/// The sending end of a channel, before it is said what it carries.
///
/// It becomes a [`Sender`] by [`typed`](Self::typed) or `into`. If the other end carries another type, then the
/// receiver is told so with the first message ([`RecvError::WrongType`](crate::RecvError::WrongType)). Dropping it
/// closes it.
#[derive(Debug)]
pub struct UntypedSender(Untyped);

/// The receiving end of a channel, before it is said what it carries.
///
/// It becomes a [`Receiver`] by [`typed`](Self::typed) or `into`. If the other end carries another type, then it tells
/// so with the first message ([`RecvError::WrongType`](crate::RecvError::WrongType)). Dropping it closes it.
#[derive(Debug)]
pub struct UntypedReceiver(Untyped);

/// Makes a channel as [`channel_with_capacity`](crate::channel_with_capacity) does.
pub fn untyped_channel(bytes: usize) -> (UntypedSender, UntypedReceiver) {
    let capacity = bytes.clamp(RING_BYTES_MIN, RING_BYTES_MAX).next_power_of_two();
    let Some(hub) = Hub::get() else {
        let end = || Untyped(Some(EndCell::not_initialised(capacity)));
        return (UntypedSender(end()), UntypedReceiver(end()));
    };
    let (sender, receiver) = (hub.next_end(), hub.next_end());
    let word = Declare { receiver: receiver.to_word(), sender: sender.to_word(), capacity: capacity as u64 };
    hub.tell_later(FromProcess::Declare(word));
    (UntypedSender::held(sender, capacity), UntypedReceiver::held(receiver, capacity))
}

macro_rules! untyped {
    ($untyped:ident, $end:ident) => {
        impl $untyped {
            /// An end that the manager has given to this process, and that was not used yet.
            #[doc(hidden)]
            pub fn held(id: EndId, capacity: usize) -> Self {
                $untyped(Untyped(Some(EndCell::unused(id, capacity))))
            }

            /// Says what it carries.
            pub fn typed<T: Data>(self) -> $end<T> {
                $end::from_cell(self.0.take())
            }

            /// Its id.
            #[doc(hidden)]
            pub fn id(&self) -> EndId {
                self.0.cell().id
            }

            /// The capacity of its channel in bytes.
            #[doc(hidden)]
            pub fn capacity(&self) -> usize {
                self.0.cell().capacity
            }

            /// To be called when another process was given it.
            #[doc(hidden)]
            pub fn mark_moved(&self) {
                self.0.cell().mark_moved();
            }
        }

        impl<T: Data> From<$untyped> for $end<T> {
            fn from(untyped: $untyped) -> Self {
                untyped.typed()
            }
        }
    };
}

untyped!(UntypedSender, Sender);
untyped!(UntypedReceiver, Receiver);

/// An end that is nobody's as soon as it was taken.
#[derive(Debug)]
struct Untyped(Option<Arc<EndCell>>);

impl Untyped {
    fn cell(&self) -> &EndCell {
        self.0.as_ref().expect("it is there until it is taken")
    }

    fn take(mut self) -> Arc<EndCell> {
        self.0.take().expect("it is taken once")
    }
}

impl Drop for Untyped {
    fn drop(&mut self) {
        if let Some(cell) = self.0.take() {
            cell.close(None);
        }
    }
}
