//! Links: channels whose other end is on another machine.
//!
//! The manager hands over a connected socket, and with it the side of the ring that the peer would have had. Who moves
//! the bytes, and when, is [`transport::uring`]'s; here is who is told of it. The process's io_uring and its background
//! thread are made with the first link.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use protocol::{
    control::{LinkedReceiver, LinkedSender, Malformed},
    ids::{EndId, ProcessId},
};
use transport::{
    link::{Incoming, Keys, Outgoing},
    segment::Mapped,
    uring::{self, Host, Link, Links, Seated, Side},
};

use super::{Hub, lock, rings::UsedRing};
use crate::port::{Bell, News};

/// So long a process that ends may take to hand what it has sent to the kernel.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// What the manager hands over for a sender.
pub(super) struct Handed {
    socket: OwnedFd,
    consumer: OwnedFd,
    process: ProcessId,
    peer: EndId,
    keys: Option<Keys>,
}

impl Hub {
    pub(super) fn on_linked_sender(&self, word: LinkedSender, files: Vec<OwnedFd>) -> Result<(), Malformed> {
        let sender = EndId::from_word(&word.sender)?;
        let [socket, consumer] = files.try_into().map_err(|_| Malformed("link"))?;
        let (process, keys) = (ProcessId(word.process), Keys::from_word(word.keys)?);
        let handed = Handed { socket, consumer, process, peer: EndId::default(), keys };
        let mut rings = lock(&self.rings);
        let is_unused = rings.has_unused(word.ring);
        let made = match rings.used.get_mut(&sender) {
            // Before the sender can be said to be closed: from then on the manager drains the ring if nobody does.
            Some(UsedRing { memory: Some(memory), .. }) => handed.take(sender, memory),
            Some(used) => {
                used.handed = Some(handed);
                return Ok(());
            }
            None => {
                // Otherwise it was dropped.
                if is_unused {
                    rings.handed.insert(sender, handed);
                }
                return Ok(());
            }
        };
        drop(rings);
        self.connect(sender, made);
        Ok(())
    }

    pub(super) fn on_linked_receiver(
        &self,
        word: LinkedReceiver,
        files: Vec<OwnedFd>,
    ) -> Result<(), Malformed> {
        let (receiver, sender) = (EndId::from_word(&word.receiver)?, EndId::from_word(&word.sender)?);
        let [socket, data, consumer] = files.try_into().map_err(|_| Malformed("link"))?;
        let (process, keys) = (ProcessId(word.process), Keys::from_word(word.keys)?);
        let made = Mapped::for_link(data.as_fd(), consumer.as_fd(), word.capacity as usize).map(|memory| {
            let memory = Arc::new(memory);
            let side = Side::Incoming(Incoming::new(memory.clone(), keys));
            (memory, Arc::new(Link::new(socket, process, receiver, sender, side)))
        });
        let news = match made.and_then(|(memory, link)| Ok((memory, link, self.links()?))) {
            Ok((memory, link, links)) => {
                let bell = Bell::Link(links, link.clone());
                self.to_port(receiver, News::Incoming { sender, memory, bell });
                self.keep(links, receiver, link);
                return Ok(());
            }
            Err(error) => News::Broken(failed(process, &error)),
        };
        self.to_port(receiver, news);
        Ok(())
    }

    /// A sender writes that ring from now on.
    pub(crate) fn use_ring(&self, sender: EndId, memory: &Arc<Mapped>) {
        let mut rings = lock(&self.rings);
        let used = rings.used.entry(sender).or_default();
        used.memory = Some(memory.clone());
        let made = used.handed.take().map(|handed| handed.take(sender, memory));
        drop(rings);
        if self.parts.may_link && made.is_none() {
            // When its link comes, that is heard even if no thread of the program's listens. If it can't be, the
            // sender is told then.
            let _ = self.links();
        }
        if let Some(made) = made {
            self.connect(sender, made);
        }
    }

    /// Puts a sender's link to use.
    fn connect(&self, sender: EndId, made: Result<Link, String>) {
        let made = made.and_then(|link| match self.links() {
            Ok(links) => Ok((links, Arc::new(link))),
            Err(error) => Err(failed(link.process, &error)),
        });
        match made {
            Ok((links, link)) => {
                self.to_port(sender, News::Paired { bell: Bell::Link(links, link.clone()) });
                self.keep(links, sender, link);
            }
            Err(text) => self.to_port(sender, News::Broken(text)),
        }
    }

    /// Takes a link up, as long as its end is there.
    fn keep(&self, links: &'static Links, end: EndId, link: Arc<Link>) {
        lock(&self.rings).links.entry(end).or_default().push(link.clone());
        links.add(&link);
        if !self.is_open(end) {
            self.close_links(end);
        }
    }

    /// Gives the links of an end up that is dropped. What was sent still goes.
    pub(super) fn close_links(&self, end: EndId) {
        let mut rings = lock(&self.rings);
        rings.used.remove(&end);
        let closed = rings.links.remove(&end);
        drop(rings);
        if let Some(links) = self.links.get() {
            closed.into_iter().flatten().for_each(|link| links.close(&link));
        }
    }

    fn links(&self) -> std::io::Result<&'static Links> {
        if let Some(links) = self.links.get() {
            return Ok(links);
        }
        let hub = Hub::get().ok_or(std::io::ErrorKind::NotFound)?;
        // The lock keeps two threads from making two.
        let _making = lock(&self.making_links);
        if let Some(links) = self.links.get() {
            return Ok(links);
        }
        let links = Links::new(hub, [hub.parts.doorbell.word(), hub.event_word()])?;
        let links: &'static Links = Box::leak(Box::new(links));
        links.start()?;
        uring::at_exit(drain)?;
        Ok(self.links.get_or_init(|| links))
    }

    /// As [`park`](transport::park::park), on the words that wake this process; the thread may drive its links meanwhile.
    pub(super) fn park(&self, bell: u32, deadline: Option<Instant>, seated: &mut Seated) {
        let handled = self.handled.load(Ordering::Acquire);
        match self.links.get() {
            None => transport::park::park(
                [(self.parts.doorbell.word(), bell), (self.event_word(), handled)],
                deadline,
            ),
            Some(links) => links.park([bell, handled], deadline, seated),
        }
    }

    /// Sends what was committed, because the thread spins and does not drive.
    #[inline]
    pub(super) fn flush_links(&self) {
        if let Some(links) = self.links.get()
            && !self.parts.spin.is_zero()
        {
            links.flush();
        }
    }

    /// Takes in what has come over links.
    pub(crate) fn fetch_links(&self) {
        if let Some(links) = self.links.get() {
            links.poll();
        }
    }

    /// Looks for what has come over links; it is no reason to stop spinning.
    #[inline]
    pub(super) fn poll_links(&self) {
        if let Some(links) = self.links.get()
            && !self.parts.spin.is_zero()
        {
            links.poll();
        }
    }
}

impl Host for Hub {
    fn listen(&self) -> u32 {
        // What is said from now on ends a sleep on this value.
        self.look();
        self.handled.load(Ordering::Acquire)
    }

    fn tell(&self, link: &Link, news: uring::News, asleep: bool) {
        if let Some(slot) = news.wake {
            // SYNC: with `sleeper`: who is not counted yet looks after this.
            if self.sleepers.load(Ordering::SeqCst) > u32::from(asleep) {
                self.parts.doorbell.ring(slot);
            } else {
                self.parts.doorbell.ring_awake(slot);
            }
        }
        if let Some(over) = news.over {
            let news = match over {
                Ok(()) => News::LinkOver { peer: link.peer, error: None },
                Err(failure) if failure.is_peers() => News::Broken(failure.to_string()),
                Err(failure) => News::LinkOver { peer: link.peer, error: Some(failure.to_string()) },
            };
            self.to_port(link.end, news);
            self.wake();
        }
    }
}

impl Handed {
    /// Takes the ring's other side over.
    fn take(self, sender: EndId, memory: &Arc<Mapped>) -> Result<Link, String> {
        let Handed { socket, consumer, process, peer, keys } = self;
        memory.take_consumer(consumer.as_fd()).map_err(|error| failed(process, &error))?;
        let outgoing = Outgoing::new(memory.clone(), keys);
        let outgoing =
            outgoing.ok_or_else(|| format!("the ring for process {process} is drained already"))?;
        Ok(Link::new(socket, process, sender, peer, Side::Outgoing(outgoing)))
    }
}

fn failed(process: ProcessId, error: &std::io::Error) -> String {
    format!("no link to process {process} can be used here: {error}")
}

/// What was sent is delivered, also when the process ends right after.
extern "C" fn drain() {
    if let Some(links) = Hub::get().and_then(|hub| hub.links.get()) {
        links.drain(Instant::now() + DRAIN_TIME);
    }
}
