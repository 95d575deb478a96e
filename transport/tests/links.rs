//! A sender's ring, a link and a receiver's ring, against a queue, and against ends that say what they like.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "a claim's space is a pointer")]

#[path = "links/hostile.rs"]
mod hostile;
#[path = "links/queue.rs"]
mod queue;

use std::{collections::VecDeque, os::fd::AsFd, sync::Arc};

use protocol::{
    frame::{Kind, frame_bytes},
    ids::{EndId, ProcessId},
    link::DESCRIPTION_BYTES,
};
use transport::{
    link::{Description, Incoming, Keys, LinkError, Linked, Outgoing},
    ring::{Consumer, Memory, Producer},
    segment::{Files, Mapped},
};

/// New memory of a sender's ring, which is described, and of a receiver's. Both are mapped, since more frames than one
/// are sent and received at a time, and those may wrap.
fn rings(capacity: usize) -> [Arc<Mapped>; 2] {
    let [sender, receiver] = [(); 2].map(|()| Files::create(capacity).unwrap());
    let (data, consumer) = (sender.data.as_fd(), sender.consumer.as_fd());
    let written = Mapped::for_producer(data, consumer, capacity).unwrap();
    written.take_consumer(consumer).unwrap();
    written.set_description(&DESCRIPTION);
    let (data, consumer) = (receiver.data.as_fd(), receiver.consumer.as_fd());
    [written, Mapped::for_link(data, consumer, capacity).unwrap()].map(Arc::new)
}

const DESCRIPTION: Description = {
    let mut description = [7; DESCRIPTION_BYTES];
    description.split_at_mut(8).0.copy_from_slice(b"archean1");
    description
};

const KEYS: Keys = Keys { frames: [3; 32], credits: [4; 32] };

/// Two rings, and what is underway between them.
struct Link {
    producer: Producer<Arc<Mapped>>,
    outgoing: Outgoing<Arc<Mapped>>,
    to_receiver: VecDeque<u8>,
    to_sender: VecDeque<u8>,
    incoming: Incoming<Arc<Mapped>>,
    consumer: Consumer<Arc<Mapped>>,
}

/// A message, as it was sent or received.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    kind: Kind,
    payload: Vec<u8>,
    ends: Vec<EndId>,
}

impl Sent {
    fn new(index: u32, size: usize, kind: Kind, ends: usize) -> Sent {
        let payload = (0..size as u32).map(|place| (place.wrapping_mul(31) ^ index) as u8).collect();
        let ends = (0..ends as u64).map(|place| EndId::new(ProcessId(index.into()), place)).collect();
        Sent { kind, payload, ends }
    }
}

impl Link {
    fn new(capacity: usize, keys: Option<Keys>) -> Self {
        let [sender, receiver] = rings(capacity);
        Link {
            producer: Producer::new(sender.clone()),
            outgoing: Outgoing::new(sender, keys.clone()).unwrap(),
            to_receiver: VecDeque::new(),
            to_sender: VecDeque::new(),
            incoming: Incoming::new(receiver.clone(), keys),
            consumer: Consumer::new(receiver),
        }
    }

    fn capacity(&self) -> usize {
        self.incoming.memory().capacity()
    }

    /// Writes a message, to be published with the next flush; `false` when there is no room.
    fn hold(&mut self, message: &Sent) -> bool {
        let bytes = frame_bytes(message.payload.len(), message.ends.len());
        let Some(claim) = self.producer.claim(bytes).unwrap() else { return false };
        // SAFETY: the claim was granted for a frame with this payload.
        unsafe { claim.payload().copy_from(message.payload.as_ptr(), message.payload.len()) };
        let _to_be_flushed = claim.hold(message.kind, message.payload.len(), &message.ends);
        true
    }

    fn send(&mut self, message: &Sent) -> bool {
        let has_room = self.hold(message);
        let _nobody_sleeps = self.producer.flush();
        has_room
    }

    /// So many pending bytes go into the connection; says how many there were.
    fn depart(&mut self, most: usize) -> usize {
        let Some(pending) = self.outgoing.pending() else { return 0 };
        assert!(!pending.is_empty());
        let bytes = pending.len().min(most);
        self.to_receiver.extend(&pending[..bytes]);
        let again = pending.as_ptr();
        assert_eq!(self.outgoing.pending().unwrap().as_ptr(), again, "pending bytes move");
        let _nobody_waits = self.outgoing.sent(bytes);
        bytes
    }

    /// So many bytes come out of it; says how many there was space for.
    fn arrive(&mut self, most: usize) -> Result<usize, LinkError> {
        let space = self.incoming.space();
        let bytes = space.len().min(most).min(self.to_receiver.len());
        space.iter_mut().zip(self.to_receiver.drain(..bytes)).for_each(|(to, byte)| *to = byte);
        let _nobody_sleeps = self.incoming.received(bytes)?;
        Ok(bytes)
    }

    /// All that is committed arrives.
    fn carry(&mut self) -> Result<(), LinkError> {
        while self.depart(usize::MAX) > 0 {}
        while self.arrive(usize::MAX)? > 0 {}
        Ok(())
    }

    fn receive(&mut self) -> Option<Sent> {
        let frame = self.consumer.peek().unwrap()?;
        let payload = self.consumer.payload(&frame).to_vec();
        let message = Sent { kind: frame.kind(), payload, ends: self.consumer.ends(&frame).collect() };
        let _nobody_waits = self.consumer.release(&frame);
        Some(message)
    }

    /// So many bytes of credits go back, and arrive.
    fn credit(&mut self, idle: bool, most: usize) -> Result<usize, LinkError> {
        if let Some(credit) = self.incoming.credit(idle) {
            let bytes = credit.len().min(most);
            self.to_sender.extend(&credit[..bytes]);
            self.incoming.credit_sent(bytes);
        }
        let space = self.outgoing.credit_space();
        let bytes = space.len().min(most).min(self.to_sender.len());
        space.iter_mut().zip(self.to_sender.drain(..bytes)).for_each(|(to, byte)| *to = byte);
        let _nobody_waits = self.outgoing.credits_received(bytes)?;
        Ok(bytes)
    }
}
