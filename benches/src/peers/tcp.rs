//! Blocking TCP sockets of the standard library, over the loopback.

use std::{
    io::{self, BufReader, Read},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use socket2::SockRef;

use super::{Role, streams::Whole};
use crate::{
    contest::{Ends, Inlet, Link, Side},
    payload::sum,
};

/// What is received of small frames at once.
const BUFFER_BYTES: usize = 64 << 10;

/// How much is read at once: many small frames; a large one goes to where it is wanted.
pub(super) const fn buffer_bytes(frame_bytes: usize) -> usize {
    if frame_bytes < 4096 { BUFFER_BYTES } else { 1 }
}

/// A connection, with the options that a link within a host has.
///
/// # Errors
/// An error of the system calls.
pub(super) fn connection(role: Role, link: &mut Link) -> io::Result<TcpStream> {
    let stream = match role {
        Role::Lead => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            link.say_name(listener.local_addr()?.to_string());
            listener.accept()?.0
        }
        Role::Partner => TcpStream::connect(link.hear_name())?,
    };
    stream.set_nodelay(true)?;
    // As for links: the default may be made for long ways.
    let _ = SockRef::from(&stream).set_tcp_congestion(b"cubic");
    Ok(stream)
}

/// Each frame is written by itself.
pub(super) fn std_tcp<const N: usize>(role: Role, link: &mut Link) -> io::Result<Box<dyn Side>> {
    let stream = connection(role, link)?;
    let inlet = Buffered::<_, N>::new(stream.try_clone()?);
    Ok(Box::new(Ends::<N, _, _>::new(Whole(stream), inlet)))
}

/// Reads many small frames at once.
pub(super) struct Buffered<R, const N: usize> {
    from: BufReader<R>,
    frame: Box<[u8]>,
}

impl<R: Read, const N: usize> Buffered<R, N> {
    pub(super) fn new(from: R) -> Self {
        Buffered { from: BufReader::with_capacity(buffer_bytes(N), from), frame: vec![0; N].into() }
    }
}

impl<R: Read, const N: usize> Inlet<N> for Buffered<R, N> {
    #[inline]
    fn recv(&mut self) -> u64 {
        self.from.read_exact(&mut self.frame).expect("the writer lives");
        sum(&self.frame)
    }
}
