//! Descriptors that the runtime watches.
#![expect(unsafe_code, reason = "tokio wants a promise about the descriptor")]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    rc::Rc,
};

use tokio::io::unix::AsyncFd;
use transport::socket::Socket;

/// A descriptor that has one owner, who does not exchange it.
pub(crate) trait Steady: AsRawFd {}

impl Steady for Socket {}

/// A pidfd that several tasks use.
pub(crate) struct SharedFd(pub(crate) Rc<OwnedFd>);

impl AsRawFd for SharedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Steady for SharedFd {}

impl Steady for socket2::Socket {}

/// Has the runtime watch a descriptor.
pub(crate) fn watch<T: Steady>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: all implementors own the descriptor, alone or together, never exchange it, and so keep it open and
    // the same until they are dropped.
    unsafe { AsyncFd::register(inner) }.map_err(|error| error.into_parts().1)
}
