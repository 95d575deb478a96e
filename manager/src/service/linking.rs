//! Links to other machines, as far as their processes are concerned: the managers make the connections.

use std::os::fd::OwnedFd;

use protocol::{
    agent,
    runner::{FromDaemon, LinkTo, ToDaemon},
};
use tokio::sync::mpsc::UnboundedSender;

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
        self.links.insert(link.link, (link, side));
    }

    /// Takes in what became of a link.
    pub(crate) fn on_link_word(shared: &Shared, word: FromDaemon, files: Vec<OwnedFd>) {
        let mut service = shared.borrow_mut();
        match word {
            FromDaemon::Expecting(link) => service.mind.report(Report::Expecting(link)),
            FromDaemon::NotLinked(failed) => {
                service.links.remove(&failed.link);
                service.mind.report(Report::LinkFailed(failed.link, failed.text));
            }
            FromDaemon::Linked(linked) => {
                if let (Some((link, side)), Some(socket)) =
                    (service.links.remove(&linked.link), files.into_iter().next())
                {
                    let _ = (link, side, socket, linked.keys);
                }
            }
            _ => {}
        }
        drop(service);
        Service::do_deeds(shared);
    }
}
