//! A sender in use: its ring, its receiver, and how one message goes out.
#![expect(unsafe_code, reason = "parts of large messages are copied into the ring's memory")]

use std::sync::Arc;

use protocol::{
    control::{Ends, FromProcess},
    ending::Over,
    frame::{HEADER_BYTES, Kind, frame_bytes, payload_bytes_max},
    ids::EndId,
    limits::{FRAME_ENDS_MAX, MESSAGE_BYTES_MAX},
};
use rkyv::util::AlignedVec;
use transport::{
    layout::RECORD_SENDER,
    park,
    ring::{Claim, Corrupt, Memory, Producer, Wake, wait},
    segment::Mapped,
};

use crate::{
    end::EndCell,
    error::Reason,
    hub::{Ear, Hub},
    port::{Bell, News, Port, Side, Wait},
};

/// See the [module](self).
pub(super) struct Open {
    pub(super) hub: &'static Hub,
    pub(super) port: Arc<Port>,
    /// Absent until the manager has given it a ring.
    pub(super) ring: Option<Ring>,
    pub(super) peer: Peer,
    ear: Ear,
    carries: Carried,
    asked: bool,
}

/// A link is told to send whenever such a part of the ring was committed.
const PUSHED_PART: usize = 8;

/// The type of a sender's messages, as receivers are told.
#[derive(Clone, Copy)]
pub(super) struct Carried {
    pub(super) hash: u64,
    pub(super) name: &'static str,
}

/// What is known of the receiver.
#[derive(Default)]
pub(super) struct Peer {
    bell: Option<Bell>,
    over: Option<Over>,
    broken: Option<String>,
}

/// The ring that a sender writes.
pub(super) struct Ring {
    pub(super) producer: Producer<Arc<Mapped>>,
    /// What the next frame is known to take at least.
    needed: usize,
    /// Whether the receiver must be woken.
    wake: Wake,
    wait: [Wait; 1],
    /// The link that drains it, and up to where it was told to.
    link: Option<(Bell, u64)>,
}

/// What a value's serialiser says: how many bytes it takes, and the ends that it holds.
pub(super) type Written = Result<(usize, Vec<Arc<EndCell>>), String>;

/// Writes a value into so many bytes at that place, or only says how many it takes.
pub(super) type Write<'w> = &'w mut dyn FnMut(*mut u8, usize) -> Written;

/// A message that is larger than its ring, on its way in parts.
pub(crate) struct Large {
    bytes: AlignedVec<16>,
    ends: Vec<Arc<EndCell>>,
    sent: usize,
}

/// What became of an attempt to send.
enum Attempt {
    Sent {
        bytes: usize,
    },
    /// There is too little room now.
    Full,
    /// There will never be room for all of it at once.
    TooLarge {
        bytes: usize,
    },
}

impl Open {
    pub(super) fn new(hub: &'static Hub, end: EndId, carries: Carried) -> Self {
        let port = hub.open(end, RECORD_SENDER, carries.name);
        Open { hub, port, ring: None, peer: Peer::default(), ear: hub.ear(), carries, asked: false }
    }

    /// Takes a ring, or asks for one.
    pub(super) fn equip(&mut self, cell: &EndCell) -> Result<(), Reason> {
        self.take_news();
        if self.asked || self.ring.is_some() {
            return Ok(());
        }
        let Some(unused) = self.hub.take_ring(cell.id, cell.capacity) else {
            self.asked = true;
            self.hub.want_ring(cell.id, cell.capacity);
            return Ok(());
        };
        let memory = unused.map().map_err(|error| Reason::Broken(error.to_string()))?;
        self.take_up(memory.clone());
        self.hub.use_ring(cell.id, &memory);
        if self.peer.bell.is_some() {
            // The receiver has the ring already; the manager need not hear of its use before it does.
            self.hub.tell_later(unused.opened_by(cell.id));
        } else {
            self.hub.tell(unused.opened_by(cell.id));
        }
        Ok(())
    }

    fn take_news(&mut self) {
        if let Some(memory) = self.peer.take_news(&self.port)
            && self.ring.is_none()
        {
            self.take_up(memory);
        }
        if let (Some(ring), Some(bell @ Bell::Link(..))) = (&mut self.ring, &self.peer.bell)
            && ring.link.is_none()
        {
            ring.producer.set_stride(ring.producer.memory().capacity() / PUSHED_PART);
            ring.link = Some((bell.clone(), 0));
        }
    }

    /// Begins to write a ring.
    fn take_up(&mut self, memory: Arc<Mapped>) {
        memory.describe(self.carries.hash, self.carries.name);
        let wait = [Wait { memory: memory.clone(), position: 0, side: Side::Producer }];
        self.ring = Some(Ring {
            producer: Producer::new(memory),
            needed: HEADER_BYTES,
            wake: Wake::No,
            wait,
            link: None,
        });
    }

    /// What has to come before another attempt.
    pub(super) fn wait(&self) -> &[Wait] {
        self.ring.as_ref().map_or(&[], |ring| &ring.wait)
    }

    /// The ring, if nothing stands in the way of writing it, and how to wake who reads it.
    #[inline(always)]
    pub(super) fn clear(&mut self) -> Option<(&mut Ring, Waker<'_>)> {
        if self.ear.hears() || self.port.has_news() || self.peer.is_gone() {
            return None;
        }
        let Open { hub, port, ring, peer, .. } = self;
        Some((ring.as_mut()?, Waker { hub, port, peer }))
    }

    /// Takes in what the manager has said.
    ///
    /// # Errors
    /// Why nothing can be sent any more.
    pub(super) fn check(&mut self) -> Result<(), Reason> {
        self.hub.look();
        self.take_news();
        match &self.peer {
            Peer { over: Some(over), .. } => Err(over.into()),
            Peer { broken: Some(broken), .. } => Err(Reason::Broken(broken.clone())),
            _ => Ok(()),
        }
    }

    /// Begins a message: how much the one before needed, if it was given up, says nothing about this one.
    pub(super) fn begin(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.needed = HEADER_BYTES;
        }
    }

    /// Sends if there is room now; `false` when there is none. A message that is larger than the ring goes on from
    /// `large`; without it, such a message is not sent at all.
    pub(super) fn attempt(
        &mut self,
        sender: EndId,
        write: Write<'_>,
        large: Option<&mut Option<Large>>,
    ) -> Result<bool, Reason> {
        self.check()?;
        let Some(ring) = &mut self.ring else { return Ok(false) };
        let (hub, counts) = (self.hub, self.port.counts);
        let attempt = match large {
            Some(large) => ring.send_any(hub, sender, write, large),
            None => ring.send(hub, sender, write),
        };
        // Parts may have gone out, whatever came after them.
        let wake = std::mem::replace(&mut ring.wake, Wake::No);
        let capacity = ring.producer.memory().capacity();
        self.answer(wake);
        match attempt? {
            Attempt::Sent { bytes } => {
                counts.message(bytes);
                Ok(true)
            }
            Attempt::Full => {
                counts.full();
                Ok(false)
            }
            Attempt::TooLarge { bytes } => {
                Err(Reason::TooLarge { bytes, limit: payload_bytes_max(capacity) })
            }
        }
    }

    /// Says to the receiver that messages were left out, together with the next frame.
    pub(super) fn hold_missed(&mut self, messages: u64) -> Result<(), Reason> {
        self.check()?;
        let bytes = messages.to_le_bytes();
        let ring = self.ring.as_mut().ok_or(Reason::Full)?;
        let claim = ring.claim(frame_bytes(bytes.len(), 0))?.ok_or(Reason::Full)?;
        // SAFETY: the claim was granted for a payload of this size, which is the producer's to write.
        unsafe { claim.payload().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        claim.hold(Kind::Missed, bytes.len(), &[]);
        ring.needed = HEADER_BYTES;
        Ok(())
    }

    /// Wakes the receiver if it has to be woken.
    fn answer(&mut self, wake: Wake) {
        if let Some(ring) = &self.ring {
            let Open { hub, port, peer, .. } = self;
            Waker { hub, port, peer }.answer(wake, ring.producer.memory());
        }
    }

    /// Publishes what is held, and wakes the receiver if it has to be woken.
    pub(super) fn flush(&mut self) {
        if let Some(ring) = &mut self.ring {
            let wake = ring.producer.flush();
            self.answer(wake);
        }
    }
}

/// How the receiver is woken while its ring is borrowed.
pub(super) struct Waker<'o> {
    pub(super) hub: &'static Hub,
    pub(super) port: &'o Port,
    pub(super) peer: &'o mut Peer,
}

impl Waker<'_> {
    /// Wakes the receiver if it has to be woken.
    #[inline]
    pub(super) fn answer(&mut self, wake: Wake, memory: &Mapped) {
        if let Wake::Peer(slot) = wake {
            self.peer.ring(self.hub, self.port, memory, slot);
        }
    }
}

impl Peer {
    /// Whether nothing can be sent any more.
    #[inline]
    fn is_gone(&self) -> bool {
        self.over.is_some() || self.broken.is_some()
    }

    /// Takes in what the manager has said; gives the ring that was asked for, if it has come.
    fn take_news(&mut self, port: &Port) -> Option<Arc<Mapped>> {
        let mut ring = None;
        if !port.has_news() {
            return ring;
        }
        for news in port.take_news() {
            match news {
                News::Ring(memory) => ring = Some(memory),
                News::Paired { bell } => self.bell = Some(bell),
                News::LinkOver { error, .. } => self.broken = self.broken.take().or(error),
                News::ReceiverOver { over } => self.over = Some(over),
                News::Broken(text) => self.broken = Some(text),
                News::Incoming { .. } | News::SenderOver { .. } => {}
            }
        }
        ring
    }

    /// Rings the receiver's doorbell for its end in that slot.
    #[cold]
    fn ring(&mut self, hub: &Hub, port: &Port, memory: &Mapped, slot: u32) {
        if self.bell.is_none() {
            // Whoever sleeps on this ring is paired with it, and the manager told us before it told them.
            hub.look();
            self.take_news(port);
        }
        wait::tell_cpu(&memory.producer_words().address, park::cpu());
        if let Some(bell) = &self.bell {
            bell.ring(slot);
            port.counts.wake();
        }
    }
}

fn broken(corrupt: Corrupt) -> Reason {
    Reason::Broken(corrupt.to_string())
}

impl Ring {
    /// Claims room for the next frame, of which so much is known.
    pub(super) fn claim(&mut self, frame: usize) -> Result<Option<Claim<'_, Arc<Mapped>>>, Reason> {
        self.needed = frame;
        self.push();
        let position = self.producer.position_for(frame);
        let claim = self.producer.claim(frame).map_err(broken)?;
        if claim.is_none() {
            self.wait[0].position = position;
        }
        Ok(claim)
    }

    /// Has the link send what is committed, if that is much.
    fn push(&mut self) {
        let Some((Bell::Link(links, link), pushed)) = &mut self.link else { return };
        let (position, capacity) = (self.producer.position(), self.producer.memory().capacity());
        if position - *pushed >= (capacity / PUSHED_PART) as u64 {
            *pushed = position;
            links.push(link);
        }
    }

    /// Sends if there is room now.
    fn send(&mut self, hub: &Hub, sender: EndId, write: Write<'_>) -> Result<Attempt, Reason> {
        let capacity = self.producer.memory().capacity();
        loop {
            let needed = self.needed;
            let Some(claim) = self.claim(needed)? else { return Ok(Attempt::Full) };
            let room = claim.payload_bytes_max();
            let (bytes, ends) = write(claim.payload(), room).map_err(Reason::Serialise)?;
            let frame = frame_bytes(bytes, ends.len());
            if frame <= room + HEADER_BYTES {
                self.wake = commit(claim, hub, sender, Kind::Value, bytes, &ends)?;
                self.needed = HEADER_BYTES;
                return Ok(Attempt::Sent { bytes });
            }
            if frame > capacity - HEADER_BYTES {
                return Ok(Attempt::TooLarge { bytes });
            }
            // Once more, now that its size is known; it may take more room than there is.
            self.needed = frame;
        }
    }

    /// Sends a message of any size, as far as there is room now.
    fn send_any(
        &mut self,
        hub: &Hub,
        sender: EndId,
        write: Write<'_>,
        large: &mut Option<Large>,
    ) -> Result<Attempt, Reason> {
        if large.is_none() {
            match self.send(hub, sender, write)? {
                Attempt::TooLarge { bytes } => *large = Some(Large::pack(bytes, write)?),
                attempt => return Ok(attempt),
            }
        }
        large.as_mut().map_or(Ok(Attempt::Full), |large| self.send_parts(hub, sender, large))
    }

    /// Sends as many parts as there is room for now.
    fn send_parts(&mut self, hub: &Hub, sender: EndId, large: &mut Large) -> Result<Attempt, Reason> {
        // Several parts fit at once, so that both sides work.
        let part_bytes = self.producer.memory().capacity() / 4;
        let whole = large.bytes.len();
        loop {
            let (start, end) = (large.sent, (large.sent + part_bytes).min(whole));
            let (kind, ends) = match (start, end) {
                (0, _) => (Kind::FirstPart, &[][..]),
                (_, end) if end == whole => (Kind::LastPart, &large.ends[..]),
                _ => (Kind::MiddlePart, &[][..]),
            };
            let Some(claim) = self.claim(frame_bytes(end - start, ends.len()))? else {
                return Ok(Attempt::Full);
            };
            let part = &large.bytes[start..end];
            // SAFETY: the claim was granted for a payload of this size, which is the producer's to write.
            unsafe { claim.payload().copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            let wake = commit(claim, hub, sender, kind, part.len(), ends)?;
            if wake != Wake::No {
                self.wake = wake;
            }
            large.sent = end;
            if end == whole {
                self.needed = HEADER_BYTES;
                return Ok(Attempt::Sent { bytes: whole });
            }
        }
    }
}

/// Publishes a frame. The ends in it move.
fn commit(
    claim: Claim<'_, Arc<Mapped>>,
    hub: &Hub,
    sender: EndId,
    kind: Kind,
    bytes: usize,
    ends: &[Arc<EndCell>],
) -> Result<Wake, Reason> {
    if ends.is_empty() {
        return Ok(claim.hold(kind, bytes, &[]).flush());
    }
    if ends.len() > FRAME_ENDS_MAX {
        return Err(Reason::TooManyEnds { ends: ends.len(), limit: FRAME_ENDS_MAX });
    }
    ends.iter().try_for_each(|end| end.check_movable()).map_err(Reason::End)?;
    let ids: Vec<EndId> = ends.iter().map(|end| end.id).collect();
    // The manager hears of the transfer before anybody can read the frame.
    let word = Ends { via: sender.to_word(), ends: EndId::list_to_word(&ids) };
    hub.tell(FromProcess::Transfer(word));
    let wake = claim.hold(kind, bytes, &ids).flush();
    ends.iter().for_each(|end| end.mark_moved());
    Ok(wake)
}

impl Large {
    /// Serialises a value that takes so many bytes.
    fn pack(bytes: usize, write: Write<'_>) -> Result<Self, Reason> {
        if bytes > MESSAGE_BYTES_MAX {
            return Err(Reason::TooLarge { bytes, limit: MESSAGE_BYTES_MAX });
        }
        let mut whole = AlignedVec::with_capacity(bytes);
        let (written, ends) = write(whole.as_mut_ptr(), bytes).map_err(Reason::Serialise)?;
        if written != bytes {
            return Err(Reason::Serialise("the value changed while it was serialised".to_owned()));
        }
        // SAFETY: the serialiser has written all of them, since it says that it took no more than it was given.
        unsafe { whole.set_len(bytes) };
        Ok(Large { bytes: whole, ends, sent: 0 })
    }
}
