//! One link: a connected socket, and the ring that it drains or fills.
#![expect(unsafe_code, reason = "plain sends and receives on a socket")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::ids::{EndId, ProcessId};

use crate::{
    link::{Incoming, LinkError, Outgoing},
    ring::{
        Memory, Wake,
        wait::{self, Sleep},
    },
    segment::Mapped,
};

/// Why nothing more goes over a link.
#[derive(Debug, thiserror::Error)]
#[error("the link to process {process} broke: {cause}")]
pub struct Failure {
    /// The process at the other end.
    pub process: ProcessId,
    /// What happened.
    pub cause: Cause,
}

/// See [`Failure`].
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// What came is not what a correct peer sends.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The way to the other machine does not work.
    #[error("{0}")]
    Socket(#[from] io::Error),
}

impl Failure {
    /// Whether it is the peer's, of which nothing more can be believed.
    pub fn is_peers(&self) -> bool {
        matches!(self.cause, Cause::Link(_))
    }
}

/// What has to be told of a link, once its lock is given back.
#[derive(Debug, Default)]
pub struct News {
    /// The end of this process in that slot is to be woken.
    pub wake: Option<u32>,
    /// Nothing more comes: all that the peer has sent is there, or the link broke.
    pub over: Option<Result<(), Failure>>,
}

impl News {
    pub(super) fn wake(&mut self, wake: Wake) {
        if let Wake::Peer(slot) = wake {
            self.wake = Some(slot.max(self.wake.unwrap_or(0)));
        }
    }
}

/// Which side of a channel a link serves.
pub enum Side {
    /// The sender's.
    Outgoing(Outgoing<Arc<Mapped>>),
    /// The receiver's.
    Incoming(Incoming<Arc<Mapped>>),
}

/// A connected socket, and the ring that it drains or fills.
pub struct Link {
    socket: OwnedFd,
    /// The process at the other end.
    pub process: ProcessId,
    /// The end in this process.
    pub end: EndId,
    /// The other end.
    pub peer: EndId,
    /// It is on the list of those that somebody has to look after.
    pub(super) is_listed: AtomicBool,
    /// Where the driver has it; `u32::MAX` before it does.
    pub(super) index: AtomicU32,
    state: Mutex<State>,
}

pub(super) struct State {
    side: Side,
    /// A receive is in the kernel, or a wait for it.
    pub(super) is_receiving: bool,
    /// For so many bytes.
    pub(super) receiving: usize,
    /// The last receive was for more than came.
    pub(super) was_short: bool,
    /// Something is there to be received, and there is no space for it.
    pub(super) is_stalled: bool,
    /// So many bytes are in a send in the kernel.
    pub(super) sending: usize,
    /// The socket's buffer is full.
    pub(super) is_blocked: bool,
    /// The end in this process is no more: what is committed still goes.
    is_closing: bool,
    /// Nothing more is sent.
    is_shut: bool,
    /// Nothing more comes.
    pub(super) is_over: bool,
    /// The receiver's process has closed the connection, or it was closed on the way; and since when.
    gone: Option<(Instant, Cause)>,
    /// The ring's other side says when there is something to do next.
    is_armed: bool,
    /// When the ring's other side last said that there is something to do.
    rung: Option<Instant>,
}

/// So long a sender whose connection is gone waits for word of its receiver's end.
const GONE_TIME: Duration = Duration::from_secs(3);

/// What became of an attempt to receive.
pub(super) enum Pulled {
    /// Nothing is there.
    Nothing,
    /// There is no space for it.
    NoSpace,
    /// Something came, and perhaps more is there.
    Some,
    /// Nothing more comes.
    Over,
}

impl Link {
    /// A link to the `peer` in that process. Nothing is read or written before it was given to
    /// [`Links::add`](super::Links::add).
    pub fn new(socket: OwnedFd, process: ProcessId, end: EndId, peer: EndId, side: Side) -> Link {
        let state = State {
            side,
            is_receiving: false,
            receiving: 0,
            was_short: false,
            is_stalled: false,
            sending: 0,
            is_blocked: false,
            is_closing: false,
            is_shut: false,
            is_over: false,
            gone: None,
            is_armed: false,
            rung: None,
        };
        Link {
            socket,
            process,
            end,
            peer,
            is_listed: AtomicBool::new(false),
            index: AtomicU32::new(u32::MAX),
            state: Mutex::new(state),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends all that can go at once, each piece with one system call.
    pub(super) fn push(&self, state: &mut State, idle: bool, news: &mut News) {
        while state.sending == 0 && !state.is_blocked && !state.is_shut {
            let Some(bytes) = state.pending(idle) else { break };
            // SAFETY: the bytes are borrowed for the call.
            let sent = unsafe {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                libc::send(self.socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags)
            };
            match usize::try_from(sent) {
                Ok(sent) => state.sent(sent, news),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.kind() {
                        io::ErrorKind::Interrupted => {}
                        io::ErrorKind::WouldBlock => state.is_blocked = true,
                        _ => self.fail_to_send(state, error, news),
                    }
                }
            }
        }
        self.close_if_done(state);
    }

    /// Receives what has come, with one system call.
    pub(super) fn pull(&self, state: &mut State, news: &mut News) -> Pulled {
        if state.is_receiving {
            return Pulled::Nothing;
        }
        if state.is_over {
            return Pulled::Over;
        }
        let space = state.space();
        if space.is_empty() {
            return self.look_for_end(state, news);
        }
        let (fd, len) = (self.socket.as_raw_fd(), space.len());
        // SAFETY: the space is borrowed for the call.
        let received = unsafe { libc::recv(fd, space.as_mut_ptr().cast(), len, libc::MSG_DONTWAIT) };
        let result = usize::try_from(received).map_err(|_| io::Error::last_os_error());
        state.was_short = result.as_ref().is_ok_and(|bytes| *bytes < len);
        self.received(state, result, news)
    }

    /// Without space nothing can come but the end.
    fn look_for_end(&self, state: &mut State, news: &mut News) -> Pulled {
        let mut byte = 0_u8;
        // SAFETY: one byte is borrowed for the call, and stays in the socket.
        let received = unsafe {
            let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
            libc::recv(self.socket.as_raw_fd(), (&raw mut byte).cast(), 1, flags)
        };
        match received {
            0 => self.received(state, Ok(0), news),
            // It may be that space has come since; otherwise it waits until there is.
            1.. => Pulled::NoSpace,
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Pulled::Nothing,
                error => self.received(state, Err(error), news),
            },
        }
    }

    /// Takes in what a receive has given.
    pub(super) fn received(&self, state: &mut State, result: io::Result<usize>, news: &mut News) -> Pulled {
        if state.is_over {
            return Pulled::Over;
        }
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR | libc::ECANCELED) => return Pulled::Nothing,
                _ => {
                    self.fail(state, error.into(), news);
                    return Pulled::Over;
                }
            },
        };
        let done = match (&mut state.side, bytes) {
            (Side::Outgoing(_), 0) => Ok(Wake::No),
            (Side::Outgoing(outgoing), bytes) => outgoing.credits_received(bytes),
            (Side::Incoming(incoming), 0) => incoming.end().map(|()| Wake::No),
            (Side::Incoming(incoming), bytes) => incoming.received(bytes),
        };
        match done {
            Ok(wake) => news.wake(wake),
            Err(error) => {
                self.fail(state, error.into(), news);
                return Pulled::Over;
            }
        }
        if bytes > 0 {
            return Pulled::Some;
        }
        state.is_over = true;
        if state.is_incoming() {
            self.shut(state, libc::SHUT_RDWR);
        }
        news.over = Some(Ok(()));
        Pulled::Over
    }

    /// Takes in how a send in the kernel went.
    pub(super) fn on_send(&self, state: &mut State, result: i32, news: &mut News) {
        let sending = std::mem::take(&mut state.sending);
        state.is_blocked = usize::try_from(result) != Ok(sending);
        match usize::try_from(result) {
            Ok(sent) => state.sent(sent.min(sending), news),
            Err(_) if matches!(-result, libc::EAGAIN | libc::EINTR | libc::ECANCELED) => {}
            Err(_) => self.fail_to_send(state, io::Error::from_raw_os_error(-result), news),
        }
        self.close_if_done(state);
    }

    /// Does what there is to do a while after something was done; `true` when that was nothing, nor will be before the
    /// ring's other side says so.
    pub(super) fn look_after(&self, state: &mut State, news: &mut News) -> bool {
        if let Some((since, cause)) = state.gone.take() {
            if !state.is_closing && since.elapsed() < GONE_TIME {
                state.gone = Some((since, cause));
                return false;
            }
            news.over = Some(Err(Failure { process: self.process, cause }));
            return true;
        }
        let has_work = state.sending > 0 || state.is_blocked || state.pending(true).is_some();
        self.push(state, true, news);
        if state.is_shut || has_work || state.is_stalled {
            state.is_armed = false;
            return state.is_shut;
        }
        if std::mem::replace(&mut state.is_armed, true) {
            return true;
        }
        // Whoever does not notice has done it by the next time.
        state.arm_for_anything();
        self.push(state, true, news);
        false
    }

    fn fail_to_send(&self, state: &mut State, error: io::Error, news: &mut News) {
        state.is_blocked = false;
        if state.is_incoming() {
            // What has come before can still be received.
            state.is_shut = true;
        } else {
            self.fail(state, error.into(), news);
        }
    }

    /// Nothing more is sent or received.
    fn fail(&self, state: &mut State, cause: Cause, news: &mut News) {
        let was_over = std::mem::replace(&mut state.is_over, true);
        self.shut(state, libc::SHUT_RDWR);
        if was_over {
            return;
        }
        let is_reset = matches!(&cause, Cause::Socket(error)
            if matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE)));
        if is_reset && !state.is_incoming() {
            // Mostly the receiver is no more, and its manager is about to say how that came.
            state.gone = Some((Instant::now(), cause));
        } else {
            news.over = Some(Err(Failure { process: self.process, cause }));
        }
    }

    /// The end in this process is no more.
    pub(super) fn close(&self, state: &mut State) {
        state.is_closing = true;
        if state.is_incoming() {
            state.is_over = true;
            self.shut(state, libc::SHUT_RDWR);
        }
        self.close_if_done(state);
    }

    fn close_if_done(&self, state: &mut State) {
        let is_done = match &state.side {
            Side::Outgoing(outgoing) => state.is_closing && state.sending == 0 && outgoing.is_drained(),
            Side::Incoming(_) => false,
        };
        if is_done && !state.is_shut {
            self.shut(state, libc::SHUT_WR);
        }
    }

    fn shut(&self, state: &mut State, how: libc::c_int) {
        state.is_shut = true;
        // SAFETY: a plain system call on an owned descriptor. On one that the peer has closed it does nothing.
        unsafe { libc::shutdown(self.socket.as_raw_fd(), how) };
    }

    /// Waits until more can be written; `false` when `deadline` came first.
    pub(super) fn wait_writable(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one structure is borrowed for the call.
        let ready = unsafe { libc::poll(&mut poll, 1, left.as_millis().try_into().unwrap_or(i32::MAX)) };
        ready > 0
    }
}

impl State {
    pub(super) fn is_incoming(&self) -> bool {
        matches!(self.side, Side::Incoming(_))
    }

    /// Bytes that can go now.
    pub(super) fn pending(&mut self, idle: bool) -> Option<&[u8]> {
        match &mut self.side {
            Side::Outgoing(outgoing) => outgoing.pending(),
            Side::Incoming(incoming) => incoming.credit(idle),
        }
    }

    pub(super) fn sent(&mut self, bytes: usize, news: &mut News) {
        match &mut self.side {
            Side::Outgoing(outgoing) => news.wake(outgoing.sent(bytes)),
            Side::Incoming(incoming) => incoming.credit_sent(bytes),
        }
    }

    /// Where to receive to.
    pub(super) fn space(&mut self) -> &mut [u8] {
        match &mut self.side {
            Side::Outgoing(outgoing) => outgoing.credit_space(),
            Side::Incoming(incoming) => incoming.space(),
        }
    }

    /// See [`GONE_TIME`].
    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_some()
    }

    /// Whether there is something that only the driver can do.
    pub(super) fn needs_driver(&self) -> bool {
        let is_sending_more = self.sending > 0
            && matches!(&self.side, Side::Outgoing(outgoing)
                if wait::is_frame_at(outgoing.memory(), outgoing.position()));
        self.is_stalled || self.is_blocked && self.sending == 0 || is_sending_more && !self.is_blocked
    }

    /// Whether something may be sent just now.
    pub(super) fn can_send(&self) -> bool {
        self.sending == 0 && !self.is_blocked && !self.is_shut
    }

    /// After what was waited for has been done: has the ring's other side, a thread of this process, say when there is
    /// more to do; or, if that would be all too often, lets it be. `true` when somebody has to look after the link.
    /// To be followed by a last look.
    pub(super) fn next_wait(&mut self, dense: Duration) -> bool {
        let now = Instant::now();
        let is_dense = self.rung.replace(now).is_some_and(|before| now.duration_since(before) < dense);
        match &self.side {
            Side::Outgoing(outgoing) if is_dense => wait::end_frame_wait(outgoing.memory()),
            Side::Outgoing(outgoing) => {
                self.is_armed = true;
                return wait::begin_frame_wait(outgoing.memory()) == Sleep::Bounded;
            }
            Side::Incoming(_) => return self.expect_credit(),
        }
        self.is_armed = false;
        true
    }

    /// Has the consumer say when it has consumed enough for a credit; `true` when somebody has to look after the link.
    pub(super) fn expect_credit(&mut self) -> bool {
        let Side::Incoming(incoming) = &self.side else { return false };
        self.is_armed = false;
        let _ = wait::begin_room_wait(incoming.memory(), incoming.credit_position());
        true
    }

    /// Has the ring's other side say when it does anything.
    fn arm_for_anything(&mut self) {
        match &self.side {
            Side::Outgoing(outgoing) => {
                let _ = wait::begin_frame_wait(outgoing.memory());
            }
            Side::Incoming(incoming) => {
                let consumed = incoming.memory().consumer_words().consumed.load(Ordering::Relaxed);
                let _ = wait::begin_room_wait(incoming.memory(), consumed + 1);
            }
        }
    }

    /// Whether all was sent, or will never be.
    pub(super) fn is_drained(&self) -> bool {
        let is_drained = match &self.side {
            Side::Outgoing(outgoing) => outgoing.is_drained(),
            Side::Incoming(_) => true,
        };
        self.is_shut || is_drained && self.sending == 0
    }

    /// Whether the driver can forget it.
    pub(super) fn is_finished(&self) -> bool {
        self.is_over && self.is_shut && !self.is_receiving && self.sending == 0
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("end", &self.end).field("process", &self.process).finish_non_exhaustive()
    }
}
