//! A stream of bytes between a process and its manager, on which descriptors travel as well.
#![expect(unsafe_code, reason = "sendmsg and recvmsg with descriptors have no safe wrapper")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use protocol::limits::CONTROL_FDS_MAX;

/// One side of the stream. Reading and writing never block.
#[derive(Debug)]
pub struct Socket(OwnedFd);

/// Room for the descriptors of one message, aligned as the kernel wants it. A `cmsghdr` is 16 bytes.
#[repr(C, align(8))]
struct Ancillary([u8; 16 + CONTROL_FDS_MAX * size_of::<RawFd>()]);

impl Socket {
    /// Both sides of a new stream.
    ///
    /// # Errors
    /// An error of the system call.
    pub fn pair() -> io::Result<(Socket, Socket)> {
        let mut fds = [-1; 2];
        // SAFETY: the call writes two descriptors into the array.
        let result = unsafe {
            libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both descriptors are new, and nobody else's.
        Ok(unsafe { (Socket(OwnedFd::from_raw_fd(fds[0])), Socket(OwnedFd::from_raw_fd(fds[1]))) })
    }

    /// The side that this process has inherited as descriptor `fd`; from now on it is not inherited any further.
    ///
    /// # Errors
    /// When it is no stream between processes of one machine.
    pub fn inherited(fd: RawFd) -> io::Result<Socket> {
        let mut domain: libc::c_int = 0;
        let mut bytes = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the call writes no more than `bytes` bytes into `domain`; a wrong descriptor gives an error.
        let result = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut domain).cast(), &mut bytes)
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        if domain != libc::AF_UNIX {
            return Err(io::Error::other("not a unix socket"));
        }
        // SAFETY: a plain system call on a descriptor that was just found to be open.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is open, and the caller says that it was inherited, so nobody else in this process has it.
        Ok(Socket(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Reads what has come: how many bytes, zero when the other side is gone; descriptors are added to `files`.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come; an error of the system call otherwise.
    pub fn read(&self, buffer: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut ancillary = Ancillary([0; _]);
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut message = message(&mut part, &mut ancillary, size_of::<Ancillary>());
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let read = loop {
            // SAFETY: `message` points to `part` and `ancillary`, which outlive the call, with their sizes.
            let read = unsafe { libc::recvmsg(self.0.as_raw_fd(), &mut message, flags) };
            match check(read) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        // SAFETY: the kernel filled `ancillary` as `message.msg_controllen` says; CMSG_FIRSTHDR and CMSG_NXTHDR stay
        // within it, and each SCM_RIGHTS header is followed by as many descriptors, ours now, as its length says.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(&message);
            while !header.is_null() {
                if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                    let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                    let fds = libc::CMSG_DATA(header).cast::<RawFd>();
                    let count = bytes / size_of::<RawFd>();
                    files.extend(
                        (0..count).map(|index| OwnedFd::from_raw_fd(fds.add(index).read_unaligned())),
                    );
                }
                header = libc::CMSG_NXTHDR(&message, header);
            }
        }
        read
    }

    /// Writes as much as there is room for, and gives how much that was. The descriptors go with the first byte.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; an error of the system call otherwise, `BrokenPipe` among them.
    ///
    /// # Panics
    /// When there are more than [`CONTROL_FDS_MAX`] descriptors.
    pub fn write(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
        assert!(files.len() <= CONTROL_FDS_MAX, "{} descriptors in one message", files.len());
        let mut ancillary = Ancillary([0; _]);
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let payload = size_of_val(files);
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        let (space, length) = unsafe { (libc::CMSG_SPACE(payload as u32), libc::CMSG_LEN(payload as u32)) };
        let space = if files.is_empty() { 0 } else { space as usize };
        let message = message(&mut part, &mut ancillary, space);
        if !files.is_empty() {
            // SAFETY: `ancillary` has room for a header and `CONTROL_FDS_MAX` descriptors, and `files` has no more.
            unsafe {
                let header = libc::CMSG_FIRSTHDR(&message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = length as _;
                let fds = libc::CMSG_DATA(header).cast::<RawFd>();
                for (index, file) in files.iter().enumerate() {
                    fds.add(index).write_unaligned(file.as_raw_fd());
                }
            }
        }
        loop {
            // SAFETY: `message` points to `part` and `ancillary`, which outlive the call, with their sizes.
            let written = unsafe {
                libc::sendmsg(self.0.as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            };
            match check(written) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }

    /// Writes all, waiting for room; for a process, whose manager always reads.
    ///
    /// # Errors
    /// An error of the system calls, `BrokenPipe` among them.
    pub fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes, &[]) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.poll(libc::POLLOUT, None)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until something can be read, or the other side is gone.
    ///
    /// # Errors
    /// An error of the system call.
    pub fn wait_readable(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.poll(libc::POLLIN, timeout)
    }

    fn poll(&self, events: libc::c_short, timeout: Option<Duration>) -> io::Result<()> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events, revents: 0 };
        let timeout =
            timeout.map_or(-1, |timeout| timeout.as_millis().try_into().unwrap_or(libc::c_int::MAX));
        // SAFETY: one entry, which outlives the call.
        match check(unsafe { libc::poll(&mut poll, 1, timeout) } as isize) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn message(part: &mut libc::iovec, ancillary: &mut Ancillary, ancillary_bytes: usize) -> libc::msghdr {
    // SAFETY: a `msghdr` is plain data; all zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    if ancillary_bytes > 0 {
        message.msg_control = ancillary.0.as_mut_ptr().cast();
        message.msg_controllen = ancillary_bytes as _;
    }
    message
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (here, there) = Socket::pair().unwrap();
        let file = crate::segment::create(c"passed", 4096).unwrap();
        assert_eq!(here.write(b"hello", &[file.as_fd(), file.as_fd()]).unwrap(), 5);
        let (mut buffer, mut files) = ([0; 16], Vec::new());
        assert_eq!(there.read(&mut buffer, &mut files).unwrap(), 5);
        assert_eq!((&buffer[..5], files.len()), (&b"hello"[..], 2));
        let nothing = there.read(&mut buffer, &mut files).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(here);
        assert_eq!(there.read(&mut buffer, &mut files).unwrap(), 0);
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        let file = crate::segment::create(c"file", 4096).unwrap();
        let error = Socket::inherited(file.as_raw_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    }
}
