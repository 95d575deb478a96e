//! Links to other machines, as far as their processes are concerned: the managers make the connections.

use std::{collections::HashMap, io, os::fd::OwnedFd};

use protocol::{
    agent,
    control::{FromManager, LinkKeys, Malformed, OverWord, SenderOver},
    ending::Over,
    ids::{EndId, ProcessId},
    runner::{FromDaemon, LinkTo, ToDaemon},
};
use tokio::sync::mpsc::UnboundedSender;
use transport::{link::Keys, segment::check_capacity};

use super::{Files, Service, Shared, home::Report};

/// Which end of a link is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Sender,
    Receiver,
}

/// Links that are being made.
#[derive(Default)]
pub(super) struct Linking {
    /// Those that are not connected yet. One that can't be is kept on its receiver's side until its sender is said to
    /// be lost.
    links: HashMap<u64, (agent::Link, Side)>,
    /// Ends of senders, told before what these had sent could be on its way; with the processes of the receivers.
    held: Vec<(ProcessId, SenderOver)>,
    /// The way to who makes connections, in a cluster.
    dialer: Option<UnboundedSender<ToDaemon>>,
}

impl Linking {
    /// Whether there are other machines to link to.
    pub(super) fn is_possible(&self) -> bool {
        self.dialer.is_some()
    }

    /// Whether a receiver would miss messages if it heard that a sender is over: they come over a link that is not
    /// there yet. That it was the last sender, too, makes a receiver wait for nothing more.
    fn must_wait(&self, over: &SenderOver) -> bool {
        self.links.values().any(|(link, side)| {
            *side == Side::Receiver
                && link.receiver == over.receiver
                && (over.last || link.sender == over.sender)
        })
    }
}

impl Service {
    /// From now on, connections to other machines can be asked for.
    pub(crate) fn set_dialer(&mut self, dialer: UnboundedSender<ToDaemon>) {
        self.linking.dialer = Some(dialer);
    }

    /// Tells a process something; that a sender is over only after all links on which messages may come.
    pub(super) fn tell_in_turn(&mut self, to: ProcessId, word: FromManager, files: Files) -> io::Result<()> {
        let FromManager::SenderOver(over) = word else { return self.tell_linked(to, word, files) };
        if over.lost {
            // Nothing comes any more.
            let is_it = |link: &agent::Link| link.sender == over.sender && link.receiver == over.receiver;
            self.linking.links.retain(|_, (link, side)| *side == Side::Sender || !is_it(link));
            // If it is the last as well, others may still have to come.
            let told = SenderOver { last: over.last && !self.linking.must_wait(&over), ..over.clone() };
            let is_told = told.last == over.last;
            self.tell_linked(to, FromManager::SenderOver(told), files)?;
            if !is_told {
                let closed = OverWord::from(&Over::Closed);
                self.linking.held.push((to, SenderOver { over: Some(closed), lost: false, ..over }));
            }
            return self.tell_held();
        }
        if self.linking.must_wait(&over) {
            self.linking.held.push((to, over));
            return Ok(());
        }
        self.tell_linked(to, FromManager::SenderOver(over), files)
    }

    /// Tells what had to wait for links.
    fn tell_held(&mut self) -> io::Result<()> {
        for (to, over) in std::mem::take(&mut self.linking.held) {
            if self.linking.must_wait(&over) {
                self.linking.held.push((to, over));
            } else {
                self.tell_linked(to, FromManager::SenderOver(over), Files::None)?;
            }
        }
        Ok(())
    }

    /// Has a link's connection waited for, or made.
    pub(super) fn connect(&mut self, link: agent::Link, side: Side) {
        let to = LinkTo {
            link: link.link,
            machine: link.machine,
            window: link.capacity,
            expecting: link.expecting.clone(),
        };
        let word = match side {
            Side::Receiver => ToDaemon::Expect(to),
            Side::Sender => ToDaemon::Dial(to),
        };
        match &self.linking.dialer {
            // If the manager is gone, the job is ending.
            Some(dialer) => drop(dialer.send(word)),
            None => {
                let text = "this machine belongs to no cluster".to_owned();
                return self.mind.report(Report::LinkFailed(link.link, text));
            }
        }
        self.linking.links.insert(link.link, (link, side));
    }

    /// A sender is no more: its ring is drained, if its process does not do it.
    pub(super) fn drain(&mut self, sender: EndId) {
        for (link, _) in self.linking.links.values_mut().filter(|(link, _)| link.sender == sender.to_bytes())
        {
            link.is_over = true;
        }
        // A socket that can't be watched is closed, and with it the link: the receiver sees that it broke.
        let _ = self.end_sender(sender);
    }

    /// Hands a connected socket to the process that it is for.
    fn hand_over(
        &mut self,
        link: &agent::Link,
        side: Side,
        socket: OwnedFd,
        keys: Option<LinkKeys>,
    ) -> Result<(), String> {
        let malformed = |error: Malformed| error.to_string();
        let sender = EndId::from_word(&link.sender).map_err(malformed)?;
        let receiver = EndId::from_word(&link.receiver).map_err(malformed)?;
        let (sender_in, receiver_in) = (ProcessId(link.sender_in), ProcessId(link.receiver_in));
        let keys = Keys::from_word(keys).map_err(malformed)?;
        let handed = match side {
            Side::Receiver => {
                let capacity = usize::try_from(link.capacity).unwrap_or(usize::MAX);
                if !check_capacity(capacity) {
                    return Err(format!("{capacity} is no capacity of a ring"));
                }
                self.link_receiver(receiver_in, receiver, sender_in, sender, capacity, socket, keys)
            }
            Side::Sender => {
                let linked = self.link_sender(sender_in, sender, link.ring, receiver_in, socket, keys);
                linked.and_then(|()| if link.is_over { self.end_sender(sender) } else { Ok(()) })
            }
        };
        handed.map_err(|error| error.to_string())
    }

    fn not_linked(&mut self, link: u64, text: String) {
        // A receiver hears from the home that its sender is lost.
        if self.linking.links.get(&link).is_some_and(|(_, side)| *side == Side::Sender) {
            self.linking.links.remove(&link);
        }
        self.mind.report(Report::LinkFailed(link, text));
    }

    /// Takes in what became of a link.
    pub(crate) fn on_link_word(shared: &Shared, word: FromDaemon, files: Vec<OwnedFd>) {
        let mut service = shared.borrow_mut();
        match word {
            FromDaemon::Expecting(link) => service.mind.report(Report::Expecting(link)),
            FromDaemon::NotLinked(failed) => service.not_linked(failed.link, failed.text),
            FromDaemon::Linked(linked) => {
                let link = service.linking.links.get(&linked.link).cloned();
                if let (Some((link, side)), Some(socket)) = (link, files.into_iter().next()) {
                    let handed = service.hand_over(&link, side, socket, linked.keys).and_then(|()| {
                        service.linking.links.remove(&link.link);
                        service.tell_held().map_err(|error| error.to_string())
                    });
                    match handed {
                        Ok(()) => service.mind.report(Report::Linked(link.link)),
                        Err(text) => service.not_linked(link.link, text),
                    }
                }
            }
            _ => {}
        }
        drop(service);
        Service::do_deeds(shared);
    }
}
