//! This project's own.

use archean::{Bytes, Data, Receiver, Select, Sender};

use crate::{
    contest::{Inlet, Outlet},
    payload::{Frames, sum},
};

/// A channel each way, as one side has them.
pub type Duplex<T> = (Sender<T>, Receiver<T>);

/// A channel each way, of so many bytes each; a side for the lead and one for its partner.
pub fn duplex<T: Data>(capacity: usize) -> (Duplex<T>, Duplex<T>) {
    let there = archean::channel_with_capacity(capacity);
    let back = archean::channel_with_capacity(capacity);
    ((there.0, back.1), (back.0, there.1))
}

impl<const N: usize> Outlet<N> for Sender<[u8; N]> {
    #[inline]
    fn send(&mut self, frame: &[u8; N]) {
        self.send_ref_blocking(frame).expect("the receiver lives");
    }
}

impl<const N: usize> Inlet<N> for Receiver<[u8; N]> {
    #[inline]
    fn recv(&mut self) -> u64 {
        sum(&*self.recv_blocking().expect("the sender lives"))
    }
}

impl<const N: usize> Outlet<N> for Sender<Bytes> {
    #[inline]
    fn send(&mut self, frame: &[u8; N]) {
        let mut slot = self.reserve_blocking(N).expect("the receiver lives");
        slot.copy_from_slice(frame);
        slot.commit(N);
    }
}

impl<const N: usize> Inlet<N> for Receiver<Bytes> {
    #[inline]
    fn recv(&mut self) -> u64 {
        sum(self.recv_blocking().expect("the sender lives").as_slice())
    }
}

/// A sender that publishes many frames at once.
#[derive(Debug)]
pub struct Batched<const N: usize>(pub Sender<[u8; N]>);

impl<const N: usize> Outlet<N> for Batched<N> {
    fn send(&mut self, frame: &[u8; N]) {
        Outlet::send(&mut self.0, frame);
    }

    fn send_all(&mut self, frames: &mut Frames<N>, count: u64) {
        let batch = (0..count).map(|_| *frames.following());
        self.0.send_batch_blocking(batch).expect("the receiver lives");
    }
}

/// A receiver among others to which nobody sends.
pub(super) struct Selected<const N: usize> {
    select: Select<usize, [u8; N]>,
    _idle: Vec<Sender<[u8; N]>>,
}

impl<const N: usize> Selected<N> {
    pub(super) fn new(busy: Receiver<[u8; N]>, idle: usize) -> Self {
        let mut select = Select::new();
        select.insert(idle, busy);
        let insert = |key| {
            let (sender, receiver) = archean::channel();
            select.insert(key, receiver);
            sender
        };
        let _idle = (0..idle).map(insert).collect();
        Selected { select, _idle }
    }
}

impl<const N: usize> Inlet<N> for Selected<N> {
    #[inline]
    fn recv(&mut self) -> u64 {
        let (_, message) = self.select.recv_blocking().expect("there are receivers");
        sum(&*message.expect("the sender lives"))
    }
}
