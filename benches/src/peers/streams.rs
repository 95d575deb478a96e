//! What the kernel carries: a Unix socket, and pipes.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
};

use super::{Role, borrow, lend};
use crate::{
    contest::{Ends, Inlet, Link, Outlet, Side},
    payload::sum,
};

/// A Unix stream socket.
pub(super) fn unix_socket<const N: usize>(
    role: Role,
    path: &Path,
    link: &mut Link,
) -> io::Result<Box<dyn Side>> {
    let stream = match role {
        Role::Lead => {
            let listener = UnixListener::bind(path)?;
            link.say_name("bound");
            listener.accept()?.0
        }
        Role::Partner => {
            link.hear_name();
            UnixStream::connect(path)?
        }
    };
    Ok(Box::new(Ends::<N, _, _>::new(Whole(stream.try_clone()?), Buffered::<_, N>::new(stream))))
}

/// A pipe each way.
pub(super) fn pipe<const N: usize>(role: Role, link: &mut Link) -> io::Result<Box<dyn Side>> {
    Ok(match role {
        Role::Lead => {
            let (there, back) = (io::pipe()?, io::pipe()?);
            lend(&there.0, link);
            lend(&back.1, link);
            // The partner has opened both.
            link.hear_name();
            Box::new(Ends::<N, _, _>::new(Whole(there.1), Buffered::<_, N>::new(back.0)))
        }
        Role::Partner => {
            let there = borrow(link, OpenOptions::new().read(true))?;
            let back = borrow(link, OpenOptions::new().write(true))?;
            link.say_name("opened");
            Box::new(Ends::<N, _, _>::new(Whole(back), Buffered::<_, N>::new(there)))
        }
    })
}

/// Writes each frame by itself.
pub(super) struct Whole<W>(pub(super) W);

impl<const N: usize, W: Write> Outlet<N> for Whole<W> {
    fn send(&mut self, frame: &[u8; N]) {
        self.0.write_all(frame).expect("the reader lives");
    }
}

/// Reads each frame into a buffer.
struct Buffered<R, const N: usize> {
    from: R,
    buffer: Box<[u8]>,
}

impl<R, const N: usize> Buffered<R, N> {
    fn new(from: R) -> Self {
        Buffered { from, buffer: vec![0; N].into() }
    }
}

impl<const N: usize, R: Read> Inlet<N> for Buffered<R, N> {
    fn recv(&mut self) -> u64 {
        self.from.read_exact(&mut self.buffer).expect("the writer lives");
        sum(&self.buffer)
    }
}
