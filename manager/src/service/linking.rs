//! Links to other machines, as far as their processes are concerned: the managers make the connections.

use std::os::fd::OwnedFd;

use protocol::{
    agent,
    control::{LinkKeys, Malformed},
    ids::{EndId, ProcessId},
    runner::{FromDaemon, LinkTo, ToDaemon},
};
use tokio::sync::mpsc::UnboundedSender;
use transport::{link::Keys, segment::check_capacity};

use super::{Service, Shared, home::Report};

/// Which end of a link is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Sender,
    Receiver,
}

impl Service {
    /// From now on, connections to other machines can be asked for.
    pub(crate) fn set_dialer(&mut self, dialer: UnboundedSender<ToDaemon>) {
        self.dialer = Some(dialer);
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
        match &self.dialer {
            // If the manager is gone, the job is ending.
            Some(dialer) => drop(dialer.send(word)),
            None => {
                let text = "this machine belongs to no cluster".to_owned();
                return self.mind.report(Report::LinkFailed(link.link, text));
            }
        }
        self.connecting.insert(link.link, (link, side));
    }

    /// A sender is no more: its ring is drained, if its process does not do it.
    pub(super) fn drain(&mut self, sender: EndId) {
        for (link, _) in self.connecting.values_mut().filter(|(link, _)| link.sender == sender.to_bytes()) {
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

    /// Takes in what became of a link.
    pub(crate) fn on_link_word(shared: &Shared, word: FromDaemon, files: Vec<OwnedFd>) {
        let mut service = shared.borrow_mut();
        match word {
            FromDaemon::Expecting(link) => service.mind.report(Report::Expecting(link)),
            FromDaemon::NotLinked(failed) => {
                service.connecting.remove(&failed.link);
                service.mind.report(Report::LinkFailed(failed.link, failed.text));
            }
            FromDaemon::Linked(linked) => {
                if let (Some((link, side)), Some(socket)) =
                    (service.connecting.remove(&linked.link), files.into_iter().next())
                {
                    let number = link.link;
                    let report = match service.hand_over(&link, side, socket, linked.keys) {
                        Ok(()) if side == Side::Sender => Some(Report::Linked(number)),
                        Ok(()) => None,
                        Err(text) => Some(Report::LinkFailed(number, text)),
                    };
                    report.into_iter().for_each(|report| service.mind.report(report));
                }
            }
            _ => {}
        }
        drop(service);
        Service::do_deeds(shared);
    }
}
