//! A cluster in a folder of its own, and meetings of its members.
#![allow(dead_code, reason = "each test takes what it needs of it")]

use std::time::Duration;

use cluster::{
    AcceptError, Acceptor, Authority, ConnectError, Connection, Identity, Incoming, Revoked, Role, Validity,
    connect,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

/// A cluster.
pub(crate) struct Site {
    pub(crate) authority: Authority,
    pub(crate) folder: TempDir,
}

impl Site {
    pub(crate) fn new(cluster: &str) -> Site {
        let folder = tempfile::tempdir().unwrap();
        Site { authority: Authority::create(folder.path(), cluster).unwrap(), folder }
    }

    pub(crate) fn member(&self, role: Role, name: &str) -> Identity {
        self.authority.issue(role, name, lasting(60)).unwrap()
    }
}

/// From now on, for so many minutes.
pub(crate) fn lasting(minutes: u64) -> Validity {
    Validity::lasting(Duration::from_mins(minutes))
}

/// A listener on loopback, and its address.
pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A pair of connected sockets: what connected, and what was accepted.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listen().await;
    let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (connected.unwrap(), accepted.unwrap().0)
}

/// The one connects, the other accepts whoever is not revoked.
pub(crate) async fn meet_unless(
    connecting: &Identity,
    accepting: &Identity,
    expect: Role,
    revoked: Revoked,
) -> (Result<Connection, ConnectError>, Result<Incoming, AcceptError>) {
    let (listener, address) = listen().await;
    let acceptor = Acceptor::new(accepting, revoked);
    tokio::join!(connect(&address, connecting, expect), async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await
    })
}

/// The one connects, the other accepts.
pub(crate) async fn meet(
    connecting: &Identity,
    accepting: &Identity,
    expect: Role,
) -> (Result<Connection, ConnectError>, Result<Incoming, AcceptError>) {
    meet_unless(connecting, accepting, expect, Revoked::default()).await
}
