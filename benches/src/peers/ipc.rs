//! `ipc-channel`, by its channels of bytes, which spare it a serialiser.

use std::io;

use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel};

use super::Role;
use crate::{
    contest::{Ends, Inlet, Link, Outlet, Side},
    payload::sum,
};

/// A channel each way. Its sockets have names in the temporary folder until both sides are there.
pub(super) fn ipc_channel<const N: usize>(role: Role, link: &mut Link) -> io::Result<Box<dyn Side>> {
    type Both = (IpcBytesSender, IpcBytesReceiver);
    let (outlet, inlet) = match role {
        Role::Lead => {
            let (server, name) = IpcOneShotServer::<Both>::new()?;
            link.say_name(name);
            server.accept().map_err(io::Error::other)?.1
        }
        Role::Partner => {
            let lead = IpcSender::<Both>::connect(link.hear_name())?;
            let (there, back) = (bytes_channel()?, bytes_channel()?);
            lead.send((there.0, back.1)).map_err(io::Error::other)?;
            (back.0, there.1)
        }
    };
    Ok(Box::new(Ends::<N, _, _>::new(outlet, inlet)))
}

impl<const N: usize> Outlet<N> for IpcBytesSender {
    fn send(&mut self, frame: &[u8; N]) {
        IpcBytesSender::send(self, frame).expect("the receiver lives");
    }
}

impl<const N: usize> Inlet<N> for IpcBytesReceiver {
    fn recv(&mut self) -> u64 {
        sum(&IpcBytesReceiver::recv(self).expect("the sender lives"))
    }
}
