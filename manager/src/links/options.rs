//! The options of a link's socket. They are set before a process gets it, since a confined process can't.

use std::{io, net::IpAddr, os::fd::AsFd, time::Duration};

use protocol::{
    hello::{Purpose, Terms},
    limits::LINK_SILENCE_MAX,
};
use socket2::{SockRef, TcpKeepalive};

/// Makes room for the link's window, before the connection is made if it is ours to make.
///
/// Both buffers hold twice the window (the kernel doubles the number, and counts its own structures): a send of a whole
/// window completes at once, and all of it is taken off the wire even if the receiving process is frozen. The kernel
/// gives at most `net.core.wmem_max` and `rmem_max`. An image needs no window of ours; there the kernel's own sizing is best.
pub(super) fn set_buffers(socket: &impl AsFd, terms: &Terms) -> io::Result<()> {
    if terms.purpose == Purpose::Channel {
        let (socket, bytes) = (SockRef::from(socket), buffer_bytes(terms));
        socket.set_send_buffer_size(bytes)?;
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

/// Sets everything else, once the socket is connected.
pub(super) fn set(socket: &impl AsFd, terms: &Terms) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let probe = Duration::from_secs(1);
    let probes = (LINK_SILENCE_MAX - probe).as_secs() as u32;
    let keepalive = TcpKeepalive::new().with_time(probe).with_interval(probe).with_retries(probes);
    socket.set_tcp_keepalive(&keepalive)?;
    // The kernel counts a window that stays closed as silence, too. So this is for links whose receiver's socket holds
    // all that may be under way: a frozen process is slow, and not lost.
    if terms.purpose == Purpose::Channel && socket.recv_buffer_size()? >= 2 * buffer_bytes(terms) {
        socket.set_tcp_user_timeout(Some(LINK_SILENCE_MAX))?;
    }
    // Made for long ways, bbr halves the throughput within a host. Where there is no cubic, so be it.
    if is_within_host(&socket)? && socket.tcp_congestion()?.starts_with(b"bbr") {
        let _ = socket.set_tcp_congestion(b"cubic");
    }
    Ok(())
}

fn buffer_bytes(terms: &Terms) -> usize {
    usize::try_from(terms.window_bytes).unwrap_or(usize::MAX).saturating_mul(2).min(i32::MAX as usize / 2)
}

fn is_within_host(socket: &SockRef<'_>) -> io::Result<bool> {
    let ip = |address: socket2::SockAddr| address.as_socket().map(|address| address.ip());
    let (here, there) = (ip(socket.local_addr()?), ip(socket.peer_addr()?));
    Ok(here == there || there.as_ref().is_some_and(IpAddr::is_loopback))
}
