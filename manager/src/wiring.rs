//! Who holds which end of which channel; a pure state machine.
//!
//! Each end has one holder: a process, a message in flight in another channel, or the arguments or the result of a
//! process. When both ends of a ring are open they are paired. When a holder is no more, the other end is told:
//! closing, a reset and death take the same way, and so does an end in a message that nobody will read.
//!
//! What a process says about an end that it does not hold changes nothing: a peer can have given it a made-up end,
//! and is not to be able to harm it that way.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    ending::{Cause, Over},
    ids::{EndId, ProcessId},
};

/// Something other than a frame that can hold ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Package {
    /// The arguments of a process that does not run yet.
    Arguments(ProcessId),
    /// The result of a process.
    Result(ProcessId),
    /// A connection that was not accepted yet.
    Connection(u64),
}

/// What has to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Tell a sender's process that its receiver is there, in that process.
    Paired { to: ProcessId, sender: EndId, receiver_in: ProcessId },
    /// Hand a sender's ring to its receiver's process.
    Incoming { to: ProcessId, receiver: EndId, sender: EndId, ring: u64, sender_in: ProcessId },
    /// Tell a receiver's process that a sender is no more.
    SenderOver { to: ProcessId, receiver: EndId, sender: EndId, over: Over, last: bool },
    /// Tell a sender's process that its receiver is no more.
    ReceiverOver { to: ProcessId, sender: EndId, over: Over },
    /// Nobody will read that ring.
    FreeRing(u64),
}

/// An end is not where it would have to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotHeld(pub(crate) EndId);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Holder {
    Process(ProcessId),
    /// In a frame on its way to the receiver of that channel.
    InFlight(EndId),
    Package(Package),
}

#[derive(Debug)]
struct End {
    /// The receiver of its channel, which names the channel.
    channel: EndId,
    holder: Holder,
    open: bool,
    /// For a sender that is not paired yet: its ring.
    ring: Option<u64>,
    /// For a sender that is not open: the ring that was given to its process for it, paired or not.
    reserved: Option<u64>,
}

/// A sender that was over before its receiver was open.
#[derive(Debug)]
struct Past {
    sender: EndId,
    ring: Option<(u64, ProcessId)>,
    over: Over,
}

#[derive(Debug, Default)]
struct Channel {
    capacity: usize,
    senders: BTreeSet<EndId>,
    past: Vec<Past>,
    receiver_over: Option<Over>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Wiring {
    ends: BTreeMap<EndId, End>,
    channels: BTreeMap<EndId, Channel>,
    held: BTreeMap<Holder, BTreeSet<EndId>>,
}

impl Wiring {
    /// A process has made a channel.
    pub(crate) fn on_declare(&mut self, process: ProcessId, receiver: EndId, sender: EndId, capacity: usize) {
        let fresh = |end| !self.ends.contains_key(&end) && !self.channels.contains_key(&end);
        if receiver == sender || !fresh(receiver) || !fresh(sender) {
            return;
        }
        self.channels.insert(receiver, Channel { capacity, senders: [sender].into(), ..Channel::default() });
        self.add(receiver, receiver, Holder::Process(process));
        self.add(sender, receiver, Holder::Process(process));
    }

    /// A process has cloned a sender.
    pub(crate) fn on_clone(&mut self, process: ProcessId, sender: EndId, clone: EndId) {
        let Some(channel) = self.held_by(process, sender).map(|end| end.channel) else { return };
        if channel == sender || self.ends.contains_key(&clone) || self.channels.contains_key(&clone) {
            return;
        }
        if let Some(record) = self.channels.get_mut(&channel) {
            record.senders.insert(clone);
            self.add(clone, channel, Holder::Process(process));
        }
    }

    /// The senders in a package, with the capacities of their rings.
    pub(crate) fn senders_in(&self, package: Package) -> Vec<(EndId, usize)> {
        let ends = self.held.get(&Holder::Package(package)).into_iter().flatten();
        let capacity = |end: &EndId| {
            let channel = self.ends.get(end)?.channel;
            (channel != *end).then(|| self.channels.get(&channel).map(|record| (*end, record.capacity)))?
        };
        ends.filter_map(capacity).collect()
    }

    /// A process was given `ring` for a sender that it has not used yet. The receiver learns of it already, so that
    /// the first message takes no detour.
    pub(crate) fn on_reserve(
        &mut self,
        process: ProcessId,
        sender: EndId,
        ring: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(end) = self.held_by(process, sender).filter(|end| !end.open && end.channel != sender) else {
            effects.push(Effect::FreeRing(ring));
            return;
        };
        let channel = end.channel;
        end.reserved = Some(ring);
        end.ring = Some(ring);
        self.pair(sender, channel, effects);
    }

    /// A process writes `ring` through a sender.
    pub(crate) fn on_open_sender(
        &mut self,
        process: ProcessId,
        sender: EndId,
        ring: u64,
        effects: &mut Vec<Effect>,
    ) {
        let channel = match self.held_by(process, sender) {
            Some(end)
                if !end.open
                    && end.channel != sender
                    && end.reserved.is_none_or(|reserved| reserved == ring) =>
            {
                end.open = true;
                if end.reserved.take().is_none() {
                    end.ring = Some(ring);
                }
                end.channel
            }
            _ => {
                effects.push(Effect::FreeRing(ring));
                effects.push(Effect::ReceiverOver { to: process, sender, over: not_yours() });
                return;
            }
        };
        if let Some(over) = self.channels.get(&channel).and_then(|channel| channel.receiver_over.clone()) {
            effects.push(Effect::ReceiverOver { to: process, sender, over });
            effects.extend(self.ends.get_mut(&sender).and_then(|end| end.ring.take()).map(Effect::FreeRing));
            return;
        }
        self.pair(sender, channel, effects);
    }

    /// A process reads a receiver.
    pub(crate) fn on_open_receiver(
        &mut self,
        process: ProcessId,
        receiver: EndId,
        effects: &mut Vec<Effect>,
    ) {
        match self.held_by(process, receiver) {
            Some(end) if !end.open && end.channel == receiver => end.open = true,
            _ => {
                let over = not_yours();
                effects.push(Effect::SenderOver {
                    to: process,
                    receiver,
                    sender: receiver,
                    over,
                    last: true,
                });
                return;
            }
        }
        let Some(channel) = self.channels.get_mut(&receiver) else { return };
        let (past, senders) = (std::mem::take(&mut channel.past), channel.senders.clone());
        let count = past.len();
        for (index, Past { sender, ring, over }) in past.into_iter().enumerate() {
            if let Some((ring, sender_in)) = ring {
                effects.push(Effect::Incoming { to: process, receiver, sender, ring, sender_in });
            }
            let last = senders.is_empty() && index + 1 == count;
            effects.push(Effect::SenderOver { to: process, receiver, sender, over, last });
        }
        for sender in senders {
            self.pair(sender, receiver, effects);
        }
    }

    /// A process has dropped an end, or given it up.
    pub(crate) fn on_close(&mut self, process: ProcessId, end: EndId, over: Over, effects: &mut Vec<Effect>) {
        if self.held_by(process, end).is_some() {
            self.finish(vec![(end, over)], effects);
        }
    }

    /// A process is about to send ends through `via`. Those that it does not hold, or has used, stay where they
    /// are.
    pub(crate) fn on_transfer(
        &mut self,
        process: ProcessId,
        via: EndId,
        ends: &[EndId],
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.held_by(process, via).map(|end| end.channel) else { return };
        let lost = self.channels.get(&channel).is_none_or(|channel| channel.receiver_over.is_some());
        for end in ends.iter().copied() {
            if !self.can_move(process, end) {
                continue;
            }
            self.on_unreserve(end, effects);
            if lost || self.travels_in(channel, end) {
                self.finish(vec![(end, never_read())], effects);
            } else {
                self.hand(end, Holder::InFlight(channel));
            }
        }
    }

    /// Whether the receiver of `channel` is itself on its way through the channel of `receiver`: who sent the one
    /// through the other would put both where nobody can reach them.
    fn travels_in(&self, channel: EndId, receiver: EndId) -> bool {
        let mut outer = channel;
        while outer != receiver {
            match self.ends.get(&outer).map(|end| end.holder) {
                Some(Holder::InFlight(next)) => outer = next,
                _ => return false,
            }
        }
        true
    }

    /// A process has taken ends out of a message.
    ///
    /// # Errors
    /// [`NotHeld`] for the first end that is not on its way to that process. See [`unheard`](Self::unheard).
    pub(crate) fn on_adopt(&mut self, process: ProcessId, ends: &[EndId]) -> Result<(), NotHeld> {
        for end in ends {
            match self.ends.get(end).map(|end| end.holder) {
                Some(Holder::InFlight(channel)) if self.held_by(process, channel).is_some() => {
                    self.hand(*end, Holder::Process(process));
                }
                Some(Holder::Process(holder)) if holder == process => {}
                _ => return Err(NotHeld(*end)),
            }
        }
        Ok(())
    }

    /// Who has to be heard before it is known whether an end is on its way to that process: each who had it before
    /// has said on its own socket that it passed it on, but that may not have been read yet.
    pub(crate) fn unheard(&self, process: ProcessId, end: EndId) -> Option<ProcessId> {
        let mut end = end;
        let holder = loop {
            match self.ends.get(&end).map(|end| end.holder) {
                None => break end.maker(),
                Some(Holder::Process(holder)) => break holder,
                // If it has arrived, then so has the receiver through which it came.
                Some(Holder::InFlight(channel)) => end = channel,
                Some(Holder::Package(_)) => return None,
            }
        };
        (holder != process).then_some(holder)
    }

    /// A process has dropped a message with ends in it.
    ///
    /// # Errors
    /// As for [`on_adopt`](Self::on_adopt).
    pub(crate) fn on_discard(
        &mut self,
        process: ProcessId,
        ends: &[EndId],
        effects: &mut Vec<Effect>,
    ) -> Result<(), NotHeld> {
        self.on_adopt(process, ends)?;
        self.finish(ends.iter().map(|end| (*end, never_read())).collect(), effects);
        Ok(())
    }

    /// Puts ends that a process holds into a package.
    ///
    /// # Errors
    /// [`NotHeld`] for the first end that the process does not hold, or has used; then none has moved.
    pub(crate) fn pack(
        &mut self,
        process: ProcessId,
        ends: &[EndId],
        package: Package,
        effects: &mut Vec<Effect>,
    ) -> Result<(), NotHeld> {
        let distinct: BTreeSet<EndId> = ends.iter().copied().collect();
        if let Some(end) = distinct.iter().copied().find(|end| !self.can_move(process, *end)) {
            return Err(NotHeld(end));
        }
        for end in distinct {
            self.on_unreserve(end, effects);
            self.hand(end, Holder::Package(package));
        }
        Ok(())
    }

    /// Gives what is in a package to a process.
    pub(crate) fn unpack(&mut self, package: Package, process: ProcessId) {
        for end in self.held.get(&Holder::Package(package)).cloned().unwrap_or_default() {
            self.hand(end, Holder::Process(process));
        }
    }

    /// Nobody will open that package.
    pub(crate) fn on_package_lost(&mut self, package: Package, over: &Over, effects: &mut Vec<Effect>) {
        self.finish_all_of(Holder::Package(package), over, effects);
    }

    /// A process has ended; all that it said before was taken in.
    pub(crate) fn on_death(&mut self, cause: &Cause, effects: &mut Vec<Effect>) {
        self.finish_all_of(Holder::Process(cause.process), &Over::Died(cause.clone()), effects);
    }

    /// Whether an end is in use.
    pub(crate) fn is_open(&self, end: EndId) -> bool {
        self.ends.get(&end).is_some_and(|end| end.open)
    }

    /// How many ends there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether nothing is known of any channel.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.channels.is_empty() && self.held.is_empty()
    }

    fn held_by(&mut self, process: ProcessId, end: EndId) -> Option<&mut End> {
        self.ends.get_mut(&end).filter(|end| end.holder == Holder::Process(process))
    }

    fn can_move(&self, process: ProcessId, end: EndId) -> bool {
        self.ends.get(&end).is_some_and(|end| end.holder == Holder::Process(process) && !end.open)
    }

    /// An end moves on without having been used: the ring that was meant for it is not its any more.
    fn on_unreserve(&mut self, sender: EndId, effects: &mut Vec<Effect>) {
        let Some(end) = self.ends.get_mut(&sender) else { return };
        let (Some(_), receiver) = (end.reserved.take(), end.channel) else { return };
        if let Some(ring) = end.ring.take() {
            effects.push(Effect::FreeRing(ring));
        } else if let Some(End { holder: Holder::Process(to), open: true, .. }) = self.ends.get(&receiver) {
            let over = Over::Closed;
            effects.push(Effect::SenderOver { to: *to, receiver, sender, over, last: false });
        }
    }

    fn add(&mut self, end: EndId, channel: EndId, holder: Holder) {
        self.ends.insert(end, End { channel, holder, open: false, ring: None, reserved: None });
        self.held.entry(holder).or_default().insert(end);
    }

    fn hand(&mut self, end: EndId, holder: Holder) {
        if let Some(record) = self.ends.get_mut(&end) {
            let before = std::mem::replace(&mut record.holder, holder);
            self.let_go(before, end);
            self.held.entry(holder).or_default().insert(end);
        }
    }

    fn let_go(&mut self, holder: Holder, end: EndId) {
        if let Some(ends) = self.held.get_mut(&holder) {
            ends.remove(&end);
            if ends.is_empty() {
                self.held.remove(&holder);
            }
        }
    }

    /// Pairs a sender with its receiver if both are open and this has not happened yet.
    fn pair(&mut self, sender: EndId, receiver: EndId, effects: &mut Vec<Effect>) {
        let Some(End { holder: Holder::Process(receiver_in), open: true, .. }) = self.ends.get(&receiver)
        else {
            return;
        };
        let to = *receiver_in;
        let Some(end) = self.ends.get_mut(&sender) else { return };
        let Holder::Process(sender_in) = end.holder else { return };
        let Some(ring) = end.ring.take() else { return };
        // The sender first: when the receiver can go to sleep on the ring, the sender can wake it.
        effects.push(Effect::Paired { to: sender_in, sender, receiver_in: to });
        effects.push(Effect::Incoming { to, receiver, sender, ring, sender_in });
    }

    fn finish_all_of(&mut self, holder: Holder, over: &Over, effects: &mut Vec<Effect>) {
        let ends = self.held.get(&holder).cloned().unwrap_or_default();
        self.finish(ends.into_iter().map(|end| (end, over.clone())).collect(), effects);
    }

    /// Ends ends, and with a receiver the ends in messages that are on their way to it.
    fn finish(&mut self, mut ends: Vec<(EndId, Over)>, effects: &mut Vec<Effect>) {
        while let Some((id, over)) = ends.pop() {
            let Some(end) = self.ends.remove(&id) else { continue };
            self.let_go(end.holder, id);
            if end.channel != id {
                self.finish_sender(id, end, over, effects);
                continue;
            }
            let in_flight = self.held.get(&Holder::InFlight(id)).cloned().unwrap_or_default();
            ends.extend(in_flight.into_iter().map(|end| (end, never_read())));
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            let rings = channel.past.drain(..).filter_map(|past| past.ring);
            effects.extend(rings.map(|(ring, _)| Effect::FreeRing(ring)));
            for sender in &channel.senders {
                let Some(end) = self.ends.get_mut(sender) else { continue };
                // One with a reserved ring may be in use without having said so yet.
                if let (Holder::Process(to), true) = (end.holder, end.open || end.reserved.is_some()) {
                    effects.push(Effect::ReceiverOver { to, sender: *sender, over: over.clone() });
                }
                effects.extend(end.ring.take().map(Effect::FreeRing));
            }
            channel.receiver_over = Some(over);
            if channel.senders.is_empty() {
                self.channels.remove(&id);
            }
        }
    }

    fn finish_sender(&mut self, sender: EndId, end: End, over: Over, effects: &mut Vec<Effect>) {
        let receiver = end.channel;
        let Some(channel) = self.channels.get_mut(&receiver) else { return };
        channel.senders.remove(&sender);
        let last = channel.senders.is_empty();
        if channel.receiver_over.is_some() {
            effects.extend(end.ring.map(Effect::FreeRing));
            if last {
                self.channels.remove(&receiver);
            }
            return;
        }
        match self.ends.get(&receiver) {
            Some(End { holder: Holder::Process(to), open: true, .. }) => {
                effects.push(Effect::SenderOver { to: *to, receiver, sender, over, last });
            }
            _ => {
                let ring = match (end.ring, end.holder) {
                    (Some(ring), Holder::Process(process)) if end.open => Some((ring, process)),
                    (ring, _) => {
                        effects.extend(ring.map(Effect::FreeRing));
                        None
                    }
                };
                // One that sent nothing and closed in good order matters only if it was the last.
                if last || ring.is_some() || over != Over::Closed {
                    channel.past.push(Past { sender, ring, over });
                }
            }
        }
    }
}

fn never_read() -> Over {
    Over::Reset { reason: "the message that it was in was never read".to_owned() }
}

fn not_yours() -> Over {
    Over::Reset { reason: "this end does not belong to this process".to_owned() }
}

#[cfg(test)]
mod tests;
