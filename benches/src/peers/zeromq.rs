//! ZeroMQ, by the library that the machine has: a pair of sockets over TCP on the loopback.
#![expect(unsafe_code, reason = "the library is C")]

use std::{
    ffi::{CString, c_char, c_int, c_void},
    io, ptr,
    sync::LazyLock,
};

use super::{Role, slots};
use crate::{
    contest::{Ends, Inlet, Link, Outlet, Side},
    payload::sum,
};

const PAIR: c_int = 0;
const SNDHWM: c_int = 23;
const RCVHWM: c_int = 24;
const LAST_ENDPOINT: c_int = 32;

/// The functions that are used, as `zmq.h` has them.
#[derive(Debug, Clone, Copy)]
pub struct Library {
    context: *mut c_void,
    version: unsafe extern "C" fn(*mut c_int, *mut c_int, *mut c_int),
    socket: unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void,
    bind: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    connect: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    set: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize) -> c_int,
    get: unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, *mut usize) -> c_int,
    send: unsafe extern "C" fn(*mut c_void, *const c_void, usize, c_int) -> c_int,
    recv: unsafe extern "C" fn(*mut c_void, *mut c_void, usize, c_int) -> c_int,
}

// SAFETY: a context may be used by all threads, and functions are.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// Debian's name for it.
pub const FILE: &str = "libzmq.so.5";

static LIBRARY: LazyLock<Option<Library>> = LazyLock::new(load);

fn load() -> Option<Library> {
    // SAFETY: the library's initialisers ask for nothing; the functions have the types that `zmq.h` gives them, and
    // are there as long as the library, which is never unloaded.
    unsafe {
        let library = Box::leak(Box::new(libloading::Library::new(FILE).ok()?));
        let new: libloading::Symbol<'_, unsafe extern "C" fn() -> *mut c_void> =
            library.get("zmq_ctx_new").ok()?;
        let context = new();
        (!context.is_null()).then_some(())?;
        Some(Library {
            context,
            version: *library.get("zmq_version").ok()?,
            socket: *library.get("zmq_socket").ok()?,
            bind: *library.get("zmq_bind").ok()?,
            connect: *library.get("zmq_connect").ok()?,
            set: *library.get("zmq_setsockopt").ok()?,
            get: *library.get("zmq_getsockopt").ok()?,
            send: *library.get("zmq_send").ok()?,
            recv: *library.get("zmq_recv").ok()?,
        })
    }
}

impl Library {
    /// The library, if this machine has it.
    pub fn open() -> Option<&'static Library> {
        LIBRARY.as_ref()
    }

    /// Its version.
    pub fn version(&self) -> String {
        let [mut major, mut minor, mut patch] = [0; 3];
        // SAFETY: three numbers are written by the call.
        unsafe { (self.version)(&mut major, &mut minor, &mut patch) };
        format!("{major}.{minor}.{patch}")
    }
}

/// A socket that is connected to the other side's.
///
/// # Errors
/// An error of the library's.
pub(super) fn pair<const N: usize>(
    library: &'static Library,
    role: Role,
    link: &mut Link,
) -> io::Result<Box<dyn Side>> {
    // As many as a channel of ours holds.
    let messages = c_int::try_from(slots(N)).unwrap_or(c_int::MAX).max(1);
    // SAFETY: a context that is never ended; a socket that is used by this thread alone; strings that end with NUL;
    // values and buffers of the sizes that are said.
    let socket = unsafe {
        let socket = (library.socket)(library.context, PAIR);
        if socket.is_null() {
            return Err(io::Error::last_os_error());
        }
        for option in [SNDHWM, RCVHWM] {
            check((library.set)(socket, option, (&raw const messages).cast(), size_of_val(&messages)))?;
        }
        match role {
            Role::Lead => {
                check((library.bind)(socket, c"tcp://127.0.0.1:*".as_ptr()))?;
                let mut endpoint = [0_u8; 64];
                let mut length = endpoint.len();
                check((library.get)(socket, LAST_ENDPOINT, endpoint.as_mut_ptr().cast(), &raw mut length))?;
                let text = String::from_utf8_lossy(&endpoint[..length]);
                link.say_name(text.trim_end_matches('\0'));
            }
            Role::Partner => {
                let endpoint = CString::new(link.hear_name())?;
                check((library.connect)(socket, endpoint.as_ptr()))?;
            }
        }
        socket
    };
    let (outlet, inlet) = (Socket(library, socket), Socket(library, socket));
    Ok(Box::new(Ends::<N, _, _>::new(outlet, Read { from: inlet, frame: vec![0; N].into() })))
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

struct Socket(&'static Library, *mut c_void);

impl<const N: usize> Outlet<N> for Socket {
    #[inline]
    fn send(&mut self, frame: &[u8; N]) {
        // SAFETY: the socket lives as long as its context, and is used by one thread; the frame is borrowed.
        let sent = unsafe { (self.0.send)(self.1, ptr::from_ref(frame).cast(), N, 0) };
        assert_eq!(usize::try_from(sent), Ok(N), "a message is sent whole");
    }
}

struct Read {
    from: Socket,
    frame: Box<[u8]>,
}

impl<const N: usize> Inlet<N> for Read {
    #[inline]
    fn recv(&mut self) -> u64 {
        let Read { from: Socket(library, socket), frame } = self;
        // SAFETY: as in `send`; the frame has the size that is said.
        let received = unsafe { (library.recv)(*socket, frame.as_mut_ptr().cast(), N, 0) };
        assert_eq!(usize::try_from(received), Ok(N), "a message comes whole");
        sum(frame)
    }
}
