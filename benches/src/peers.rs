//! Those who carry frames in the benches of channels, each by its fastest way of doing the same work.
//!
//! What needs two processes is set up in step: the lead and its partner call the same function with their [`Role`],
//! and hand each other names over the [`Link`].

mod channels;
mod futex;
mod iceoryx;
mod ipc;
mod ring;
mod streams;
mod tcp;
mod threads;
mod tls;
mod tokio_tcp;
pub mod zeromq;

pub use channels::{Batched, Duplex, duplex};
pub use iceoryx::remove_leftovers;
pub use threads::{rtrb, rtrb_chunks};

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
    path::PathBuf,
    process,
};

use crate::contest::{Contender, Ends, Inlet, Link, Outlet, Partner, Side};

/// Which of the two processes sets up its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that measures, and that sets up first.
    Lead,
    /// The other.
    Partner,
}

/// How a process sets up its sides: in the same order as the other does.
pub struct Setup<'l> {
    role: Role,
    link: &'l mut Link,
    folder: PathBuf,
    iceoryx: Option<iceoryx::Iceoryx>,
    /// Contenders so far whose partner is a process.
    count: u32,
}

impl<'l> Setup<'l> {
    /// To set up in a process with that role; files go into `folder`.
    pub fn new(role: Role, link: &'l mut Link, folder: &str) -> Self {
        Setup { role, link, folder: PathBuf::from(folder), iceoryx: None, count: 0 }
    }

    /// Ours, then everybody else who carries frames of `N` bytes.
    pub fn all<const N: usize>(
        &mut self,
        ours: Ends<N, impl Outlet<N> + 'static, impl Inlet<N> + 'static>,
    ) -> Vec<Contender> {
        vec![
            self.process("archean", ours),
            threads::rtrb::<N>(),
            threads::crossbeam::<N>(),
            self.iceoryx2::<N>(),
            self.with("ipc-channel", |setup| ipc::ipc_channel::<N>(setup.role, setup.link)),
            self.unix_socket::<N>(),
            self.with("pipe", |setup| streams::pipe::<N>(setup.role, setup.link)),
        ]
    }

    /// Ours, with a lead that receives through a `Select` over this receiver and so many idle ones.
    pub fn select<const N: usize>(&mut self, ours: Duplex<[u8; N]>, idle: usize) -> Contender {
        let (outlet, inlet) = ours;
        match self.role {
            Role::Lead => {
                self.process("archean, select", Ends::new(outlet, channels::Selected::new(inlet, idle)))
            }
            Role::Partner => self.process("archean, select", Ends::new(outlet, inlet)),
        }
    }

    /// A Unix socket alone.
    pub fn unix_socket<const N: usize>(&mut self) -> Contender {
        self.with("unix socket", |setup| {
            let path = setup.folder.join(format!("socket-{}", setup.count));
            streams::unix_socket::<N>(setup.role, &path, setup.link)
        })
    }

    /// The ring under a channel, with the check whether its consumer sleeps, and without.
    pub fn rings<const N: usize>(&mut self) -> Vec<Contender> {
        vec![
            self.with("ring", |setup| ring::ring::<N>(setup.role, setup.link)),
            self.with("ring, spin-only", |setup| ring::spin_only::<N>(setup.role, setup.link)),
        ]
    }

    /// `iceoryx2` alone.
    pub fn iceoryx2<const N: usize>(&mut self) -> Contender {
        self.with("iceoryx2", |setup| {
            let node = match setup.iceoryx.take() {
                Some(node) => node,
                None => iceoryx::Iceoryx::new(setup.role, &setup.folder)?,
            };
            setup.iceoryx.insert(node).side::<N>(setup.count, setup.link)
        })
    }

    /// TCP by blocking sockets of the standard library, each frame written by itself.
    pub fn std_tcp<const N: usize>(&mut self) -> Contender {
        self.with("std", |setup| tcp::std_tcp::<N>(setup.role, setup.link))
    }

    /// TCP by tokio, each frame written by itself.
    pub fn tokio<const N: usize>(&mut self) -> Contender {
        self.with("tokio", |setup| tokio_tcp::tokio::<N>(setup.role, setup.link))
    }

    /// TLS 1.3 by rustls, over blocking sockets of the standard library.
    pub fn rustls<const N: usize>(&mut self) -> Contender {
        self.with("rustls", |setup| tls::rustls::<N>(setup.role, &setup.folder, setup.link))
    }

    /// ZeroMQ, if this machine has it.
    pub fn zeromq<const N: usize>(&mut self) -> Option<Contender> {
        let library = zeromq::Library::open()?;
        Some(self.with("ZeroMQ", |setup| zeromq::pair::<N>(library, setup.role, setup.link)))
    }

    /// Two processes that wake each other, and carry nothing.
    pub fn futex(&mut self) -> Contender {
        self.with("futex", |setup| futex::futex(setup.role, setup.link))
    }

    /// A contender with a side in each process.
    pub fn process(&mut self, name: &'static str, side: impl Side + 'static) -> Contender {
        self.boxed(name, Box::new(side))
    }

    fn boxed(&mut self, name: &'static str, side: Box<dyn Side>) -> Contender {
        self.count += 1;
        Contender { name, side, partner: Partner::Process(self.count - 1) }
    }

    fn with(
        &mut self,
        name: &'static str,
        side: impl FnOnce(&mut Self) -> io::Result<Box<dyn Side>>,
    ) -> Contender {
        let side = side(self).unwrap_or_else(|error| panic!("{name} can't be set up: {error}"));
        self.boxed(name, side)
    }
}

/// So many frames a contender holds that counts frames: as many bytes as a channel of ours has.
const fn slots(frame_bytes: usize) -> usize {
    (1 << 20) / frame_bytes
}

/// Tells the partner of an open file.
fn lend(file: &impl AsRawFd, link: &mut Link) {
    link.say_name(format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd()));
}

/// Opens a file that the lead has lent.
fn borrow(link: &mut Link, how: &OpenOptions) -> io::Result<File> {
    how.open(link.hear_name())
}
