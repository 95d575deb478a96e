//! Channels whose two ends do not share memory: each ring has a connection instead.
//!
//! The sender's process is given one socket and its receiver's process the other; they do the rest. The manager keeps
//! the sender's socket as well, since data that the kernel has taken would be lost if the last one to close it left
//! credits unread. When the sender is over, and its process has not come to draining its ring, the manager drains it.

mod socket;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::{Rc, Weak},
};

use protocol::{
    control::{FromManager, LinkedReceiver, LinkedSender, ToProcess},
    ids::{EndId, ProcessId},
};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::spawn_local;
use transport::{
    link::{Keys, Outgoing},
    segment::{Files as RingFiles, Mapped},
};

use super::{Files, Service};
use socket::Kept;

/// How frames travel when two processes do not share memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// As they are.
    Plain,
    /// Encrypted, and checked when they arrive.
    Sealed,
}

/// The links of a job's senders.
pub(super) struct Table {
    /// How processes of this machine are linked, if they are to be.
    links: Option<Links>,
    /// Senders that are in use.
    open: HashMap<EndId, Sender>,
    /// Sockets of senders that are over, whose processes may still drain them.
    closing: Vec<(ProcessId, Weak<Kept>)>,
}

/// A sender whose ring a link drains.
struct Sender {
    process: ProcessId,
    /// Mapped, since there may be more links than two more descriptors each would leave room for.
    memory: Mapped,
    socket: OwnedFd,
    keys: Option<Keys>,
}

impl Table {
    pub(super) fn new(links: Option<Links>) -> Table {
        Table { links, open: HashMap::new(), closing: Vec::new() }
    }

    /// Whether a channel of the job may be a link.
    pub(super) fn are_used(&self) -> bool {
        self.links.is_some()
    }

    /// A process has ended: what it has left in the kernel goes on, and then its links end.
    pub(super) fn on_ended(&mut self, process: ProcessId) {
        self.closing.retain(|(of, socket)| match socket.upgrade() {
            Some(socket) if *of == process => {
                socket.end();
                false
            }
            socket => socket.is_some(),
        });
    }

    /// A sender is no more: what it has committed arrives all the same.
    fn on_sender_over(&mut self, sender: EndId, has_ended: bool) -> io::Result<()> {
        let Some(Sender { process, memory, socket, keys }) = self.open.remove(&sender) else {
            return Ok(());
        };
        let socket = Rc::new(Kept::new(socket)?);
        match Outgoing::new(memory, keys) {
            Some(outgoing) => drop(spawn_local(async move { socket.drain(outgoing).await })),
            None => {
                if has_ended {
                    socket.end();
                } else {
                    self.closing.retain(|(_, socket)| socket.strong_count() > 0);
                    self.closing.push((process, Rc::downgrade(&socket)));
                }
                drop(spawn_local(async move { socket.follow().await }));
            }
        }
        Ok(())
    }
}

impl Service {
    /// Tells a process something; where it is about a channel to another process, and such channels are links, in the
    /// words for links.
    pub(super) fn tell_linked(&mut self, to: ProcessId, word: FromManager, files: Files) -> io::Result<()> {
        match (&word, &files) {
            // The sender is told when there is a connection.
            (FromManager::Paired(_), Files::Doorbell(receiver)) if self.is_linked(*receiver, to) => Ok(()),
            (FromManager::Incoming(word), Files::Ring { ring, producer })
                if self.is_linked(*producer, to) =>
            {
                let (Some(receiver), Some(sender)) = (end(&word.receiver), end(&word.sender)) else {
                    return Ok(());
                };
                self.link_here(*producer, sender, *ring, to, receiver)
            }
            (FromManager::SenderOver(over), _) => {
                if let Some(sender) = end(&over.sender) {
                    self.end_sender(sender)?;
                }
                self.tell(to, word, files)
            }
            (FromManager::ReceiverOver(over), _) => {
                if let Some(sender) = end(&over.sender) {
                    self.links.open.remove(&sender);
                }
                self.tell(to, word, files)
            }
            _ => self.tell(to, word, files),
        }
    }

    /// A sender is no more.
    pub(super) fn end_sender(&mut self, sender: EndId) -> io::Result<()> {
        let process = self.links.open.get(&sender).map(|sender| sender.process);
        let has_ended = process.is_some_and(|process| !self.live.contains_key(&process));
        self.links.on_sender_over(sender, has_ended)
    }

    fn is_linked(&self, one: ProcessId, other: ProcessId) -> bool {
        self.links.links.is_some() && one != other
    }

    /// Connects two processes of this machine.
    fn link_here(
        &mut self,
        producer: ProcessId,
        sender: EndId,
        ring: u64,
        consumer: ProcessId,
        receiver: EndId,
    ) -> io::Result<()> {
        let Some(capacity) = self.rings.get(&ring).map(|(_, capacity)| *capacity) else { return Ok(()) };
        let keys = (self.links.links == Some(Links::Sealed)).then(random_keys).transpose()?;
        let [to_receiver, to_sender] = socket::pair(capacity)?;
        self.link_sender(producer, sender, ring, consumer, to_receiver.into(), keys.clone())?;
        self.link_receiver(consumer, receiver, producer, sender, capacity, to_sender.into(), keys)
    }

    /// Has a sender's ring drained into a socket that is connected to its receiver's process `receiver_in`: by the
    /// sender's process, `to`, or from here, if it does not come to it. All options of the socket are set.
    ///
    /// # Errors
    /// No descriptors or mappings left.
    pub(super) fn link_sender(
        &mut self,
        to: ProcessId,
        sender: EndId,
        ring: u64,
        receiver_in: ProcessId,
        socket: OwnedFd,
        keys: Option<Keys>,
    ) -> io::Result<()> {
        let Some((RingFiles { data, consumer }, capacity)) = self.rings.remove(&ring) else { return Ok(()) };
        let memory = Mapped::for_consumer(data.as_fd(), consumer.as_fd(), capacity)?;
        let word = LinkedSender {
            sender: sender.to_word(),
            process: receiver_in.0,
            ring,
            capacity: capacity as u64,
            keys: keys.as_ref().map(Keys::to_word),
        };
        let given = vec![socket.try_clone()?, consumer];
        self.links.open.insert(sender, Sender { process: to, memory, socket, keys });
        self.give(to, FromManager::LinkedSender(word), given);
        Ok(())
    }

    /// Gives a receiver's process, `to`, a socket that is connected to the process `sender_in`, and a ring for what
    /// arrives.
    ///
    /// # Errors
    /// No descriptors or no memory left.
    #[expect(clippy::too_many_arguments, reason = "both ends, and what is between them")]
    pub(super) fn link_receiver(
        &mut self,
        to: ProcessId,
        receiver: EndId,
        sender_in: ProcessId,
        sender: EndId,
        capacity: usize,
        socket: OwnedFd,
        keys: Option<Keys>,
    ) -> io::Result<()> {
        let RingFiles { data, consumer } = RingFiles::create(capacity)?;
        let word = LinkedReceiver {
            receiver: receiver.to_word(),
            sender: sender.to_word(),
            capacity: capacity as u64,
            process: sender_in.0,
            keys: keys.as_ref().map(Keys::to_word),
        };
        self.give(to, FromManager::LinkedReceiver(word), vec![socket, data, consumer]);
        Ok(())
    }

    fn give(&mut self, to: ProcessId, word: FromManager, files: Vec<OwnedFd>) {
        if let Some(live) = self.live.get_mut(&to) {
            live.tell(&ToProcess { word: Some(word) }, files);
            live.ring_event(self.events.word(live.slot as usize));
        }
    }
}

fn end(word: &[u8]) -> Option<EndId> {
    Some(EndId::from_bytes(word.try_into().ok()?))
}

fn random_keys() -> io::Result<Keys> {
    let mut keys = Keys { frames: [0; 32], credits: [0; 32] };
    for key in [&mut keys.frames, &mut keys.credits] {
        let filled = SystemRandom::new().fill(key);
        filled.map_err(|_| io::Error::other("the system gives no random numbers for the keys of a link"))?;
    }
    Ok(keys)
}
