//! `iceoryx2`: publish and subscribe, a service each way; loan, write and send.

use std::{fs, hint::spin_loop, io, path::Path};

use iceoryx2::{
    port::{publisher::Publisher, subscriber::Subscriber},
    prelude::{
        BackpressureStrategy, Config, FileName, LogLevel, Node, NodeBuilder, Path as FilePath,
        SemanticString, SignalHandlingMode, ipc, set_log_level,
    },
};

use super::{Role, slots};
use crate::{
    contest::{Ends, Inlet, Link, Outlet, Side},
    payload::sum,
};

/// So many frames may be on their way at most; more make it slower.
const BUFFERED_MAX: usize = 256;

/// Who has looked so often in vain, for many seconds, waits for a frame that was lost.
const PROBES_MAX: u32 = 1 << 30;

/// A node in one of the two processes.
#[derive(Debug)]
pub(super) struct Iceoryx {
    node: Node<ipc::Service>,
    role: Role,
}

impl Iceoryx {
    /// A node whose files are in `folder`, and whose shared memory begins with the folder's name.
    ///
    /// # Errors
    /// What `iceoryx2` says.
    pub(super) fn new(role: Role, folder: &Path) -> io::Result<Iceoryx> {
        set_log_level(LogLevel::Error);
        let mut config = Config::default();
        let root = FilePath::new(folder.join("iceoryx2").as_os_str().as_encoded_bytes()).map_err(other)?;
        config.global.set_root_path(&root);
        config.global.prefix = FileName::new(prefix(folder)?.as_bytes()).map_err(other)?;
        let node = NodeBuilder::new().config(&config).signal_handling_mode(SignalHandlingMode::Disabled);
        Ok(Iceoryx { node: node.create().map_err(other)?, role })
    }

    /// Services for frames of `N` bytes, both ways.
    ///
    /// # Errors
    /// What `iceoryx2` says.
    pub(super) fn side<const N: usize>(&self, number: u32, link: &mut Link) -> io::Result<Box<dyn Side>> {
        let [mine, theirs] = match self.role {
            Role::Lead => ["there", "back"],
            Role::Partner => ["back", "there"],
        };
        let service = |way: &str| {
            let name = format!("{way}-{number}");
            let name = name.as_str().try_into().map_err(other)?;
            let service = self.node.service_builder(&name).publish_subscribe::<[u8]>();
            let service = service.max_publishers(1).max_subscribers(1).enable_safe_overflow(false);
            let service = service.subscriber_max_buffer_size(slots(N).min(BUFFERED_MAX));
            service.open_or_create().map_err(other)
        };
        if self.role == Role::Partner {
            link.hear_name();
        }
        let subscriber = service(theirs)?.subscriber_builder().create().map_err(other)?;
        let service = service(mine)?;
        let publisher = service.publisher_builder().initial_max_slice_len(N);
        let publisher = publisher.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered);
        let publisher = publisher.create().map_err(other)?;
        link.say_name("made");
        if self.role == Role::Lead {
            link.hear_name();
        }
        Ok(Box::new(Ends::<N, _, _>::new(publisher, subscriber)))
    }
}

/// Removes what a process that was killed has left in shared memory.
pub fn remove_leftovers(folder: &Path) -> io::Result<()> {
    let prefix = prefix(folder)?;
    for entry in fs::read_dir("/dev/shm")? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn prefix(folder: &Path) -> io::Result<&str> {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| io::Error::other(format!("{} has no name to take", folder.display())))
}

fn other(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("iceoryx2: {error:?}"))
}

impl<const N: usize> Outlet<N> for Publisher<ipc::Service, [u8], ()> {
    #[inline]
    fn send(&mut self, frame: &[u8; N]) {
        loop {
            let sample = self.loan_slice_uninit(N).expect("a sample is free");
            // A sample that nobody took because the buffer was full is gone.
            if sample.write_from_slice(frame).send().expect("the subscriber lives") > 0 {
                return;
            }
        }
    }
}

impl<const N: usize> Inlet<N> for Subscriber<ipc::Service, [u8], ()> {
    #[inline]
    fn recv(&mut self) -> u64 {
        for _ in 0..PROBES_MAX {
            if let Some(sample) = self.receive().expect("the publisher lives") {
                return sum(sample.payload());
            }
            spin_loop();
        }
        panic!("a frame was lost: nothing came in {PROBES_MAX} probes")
    }
}
