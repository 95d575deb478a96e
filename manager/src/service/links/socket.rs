//! The sockets of links: how they are set up, and how they end.

use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, Shutdown, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use protocol::{limits::RING_BYTES_MAX, link::SEALED_PREFIX_BYTES};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::{io::unix::AsyncFd, sync::Notify, time::timeout};
use transport::{link::Outgoing, ring::Memory, segment::Mapped};

use super::super::watched;

/// For so long what was sent may stay unacknowledged, before the connection counts as lost.
const LINK_TIMEOUT: Duration = Duration::from_secs(10);

/// An idle connection is looked after so often.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// For so long the receiver may take to read a link to its end, when its sender is no more.
const LINGER: Duration = LINK_TIMEOUT;

/// What is best for connections that stay on one machine.
const LOCAL_CONGESTION: &[u8] = b"cubic";

/// A connection within this machine, for a link between rings of `capacity` bytes.
pub(super) fn pair(capacity: usize) -> io::Result<[Socket; 2]> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    set_buffers(&listener, capacity)?;
    listener.bind(&any.into())?;
    listener.listen(1)?;
    let connected = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    set_buffers(&connected, capacity)?;
    connected.connect(&listener.local_addr()?)?;
    let own = connected.local_addr()?;
    let accepted = loop {
        // Another program may be quicker to connect.
        let (accepted, from) = listener.accept()?;
        if from.as_socket() == own.as_socket() {
            break accepted;
        }
    };
    for socket in [&connected, &accepted] {
        set_options(socket, true)?;
    }
    Ok([connected, accepted])
}

/// Sets what has to be set before there is a connection. All that a ring of `capacity` bytes holds goes into the kernel
/// at once, where the system allows for so much.
fn set_buffers(socket: &Socket, capacity: usize) -> io::Result<()> {
    let bytes = capacity.clamp(64 << 10, RING_BYTES_MAX) + SEALED_PREFIX_BYTES;
    socket.set_send_buffer_size(bytes)?;
    socket.set_recv_buffer_size(bytes)
}

/// Sets what all sockets of links have, before they are handed over.
fn set_options(socket: &Socket, is_local: bool) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(LINK_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE))?;
    if is_local {
        // It only makes such a connection faster, and may be missing.
        let _ = socket.set_tcp_congestion(LOCAL_CONGESTION);
    }
    Ok(())
}

/// The manager's copy of a sender's socket. Its mode is never changed, since the sender's process has it as well.
pub(super) struct Kept {
    socket: AsyncFd<Socket>,
    /// The sender's process sends nothing more.
    ended: Notify,
}

impl Kept {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Kept> {
        Ok(Kept { socket: watched::watch(Socket::from(socket))?, ended: Notify::new() })
    }

    /// The sender's process has ended.
    pub(super) fn end(&self) {
        self.ended.notify_one();
    }

    /// Waits for the receiver to have read the link to its end, which comes when the sender's process says so, or ends.
    pub(super) async fn follow(&self) {
        tokio::select! {
            () = self.closed() => {}
            () = self.ended.notified() => self.finish().await,
        }
    }

    /// Sends what is in a ring that nobody writes any more, and ends the link.
    pub(super) async fn drain(&self, mut outgoing: Outgoing<Mapped>) {
        // Twice what a ring holds is more than what sealing adds: who goes on behind that writes it all the time.
        let mut left = 2 * outgoing.memory().capacity();
        while let Some(bytes) = outgoing.pending().filter(|bytes| bytes.len() <= left) {
            match self.send(bytes).await {
                Ok(sent) => {
                    left -= sent;
                    // Nobody waits for room.
                    let _ = outgoing.sent(sent);
                }
                // The receiver is gone, and its end on its way.
                Err(_) => return,
            }
        }
        self.finish().await;
    }

    async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.socket.writable().await?;
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            match self.socket.get_ref().send_with_flags(bytes, flags) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                sent => return sent,
            }
        }
    }

    /// Ends the link, and reads what the receiver still says, so that closing the socket destroys nothing.
    async fn finish(&self) {
        if SockRef::from(&self.socket).shutdown(Shutdown::Write).is_ok() {
            let _too_slow = timeout(LINGER, self.read_out()).await;
        }
    }

    async fn read_out(&self) {
        let mut credits = [MaybeUninit::uninit(); 1024];
        while let Ok(mut ready) = self.socket.readable().await {
            match self.socket.get_ref().recv_with_flags(&mut credits, libc::MSG_DONTWAIT) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(_) => return,
            }
        }
    }

    /// Waits until the other side has closed the connection. Reads nothing.
    async fn closed(&self) {
        while let Ok(mut ready) = self.socket.readable().await {
            if ready.ready().is_read_closed() {
                return;
            }
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::fd::AsFd,
        sync::Arc,
        thread,
    };

    use tokio::{runtime, task::LocalSet};
    use transport::{
        link::{Incoming, Keys},
        ring::{Consumer, Producer},
        segment::Files,
    };

    use super::*;

    const CAPACITY: usize = 64 << 10;

    fn run<T>(what: impl Future<Output = T>) -> T {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, what)
    }

    #[test]
    fn both_sockets_have_the_options_of_links() {
        let [one, other] = pair(CAPACITY).unwrap();
        assert_eq!(
            one.peer_addr().unwrap().as_socket().unwrap(),
            other.local_addr().unwrap().as_socket().unwrap()
        );
        for socket in [one, other] {
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(LINK_TIMEOUT));
            assert!(socket.send_buffer_size().unwrap() >= CAPACITY);
        }
    }

    /// The last to close a socket with something unread in it would destroy what is underway.
    #[test]
    fn what_a_process_has_left_in_the_kernel_arrives() {
        let [mut sender, mut receiver] = pair(1 << 20).unwrap();
        let kept: OwnedFd = sender.try_clone().unwrap().into();
        let sent = vec![7; 100_000];
        sender.write_all(&sent).unwrap();
        receiver.write_all(b"credits").unwrap();
        // The process is killed.
        drop(sender);
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            receiver.read_to_end(&mut received).map(|_| received)
        });
        run(async {
            let kept = Kept::new(kept).unwrap();
            kept.end();
            kept.follow().await;
        });
        assert_eq!(reader.join().unwrap().unwrap(), sent);
    }

    #[test]
    fn a_link_that_was_read_to_its_end_is_let_go() {
        let [sender, receiver] = pair(CAPACITY).unwrap();
        let kept: OwnedFd = sender.try_clone().unwrap().into();
        run(async {
            let kept = Kept::new(kept).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
            // What comes meanwhile is its process's, and stays unread.
            receiver.send(b"credits").unwrap();
            drop(receiver);
            kept.follow().await;
        });
        let mut left = [MaybeUninit::uninit(); 16];
        assert_eq!(sender.recv(&mut left).unwrap(), 7);
    }

    #[test]
    fn a_ring_that_nobody_came_to_is_drained() {
        const KEYS: Keys = Keys { frames: [1; 32], credits: [2; 32] };
        let files = Files::create(CAPACITY).unwrap();
        let (data, consumer) = (files.data.as_fd(), files.consumer.as_fd());
        let written = Mapped::for_producer(data, consumer, CAPACITY).unwrap();
        written.describe(5, "a::B");
        let mut producer = Producer::new(written);
        let mut messages = 0;
        while let Some(claim) = producer.claim(1024).unwrap() {
            let _nobody_sleeps = claim.publish(1000, &[]);
            messages += 1;
        }
        let [sender, mut receiver] = pair(CAPACITY).unwrap();
        let reader = thread::spawn(move || {
            let files = Files::create(CAPACITY).unwrap();
            let ring = Mapped::for_link(files.data.as_fd(), files.consumer.as_fd(), CAPACITY).unwrap();
            let ring = Arc::new(ring);
            let mut incoming = Incoming::new(ring.clone(), Some(KEYS));
            loop {
                match receiver.read(incoming.space()).unwrap() {
                    0 => break,
                    bytes => _ = incoming.received(bytes).unwrap(),
                }
            }
            incoming.end().unwrap();
            assert_eq!(ring.description(), Some((5, "a::B".to_owned())));
            let mut consumer = Consumer::new(ring);
            let mut messages = 0;
            while let Some(frame) = consumer.peek().unwrap() {
                let _nobody_waits = consumer.release(&frame);
                messages += 1;
            }
            messages
        });
        run(async {
            let memory = Mapped::for_consumer(data, consumer, CAPACITY).unwrap();
            let outgoing = Outgoing::new(memory, Some(KEYS)).expect("nobody else drains it");
            Kept::new(sender.into()).unwrap().drain(outgoing).await;
        });
        assert_eq!(reader.join().unwrap(), messages);
        assert!(messages > 50);
    }
}
