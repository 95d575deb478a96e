//! Certificates that count no longer.

use std::{collections::HashSet, fmt, sync::Arc};

use tokio::sync::watch;

use crate::member::Peer;

/// The serial numbers of revoked certificates. Clones are the same set: what one is told, all know at once.
#[derive(Clone)]
pub struct Revoked(Arc<watch::Sender<HashSet<String>>>);

impl Revoked {
    /// A set to begin with.
    pub fn new(serials: impl IntoIterator<Item = String>) -> Revoked {
        Revoked(Arc::new(watch::Sender::new(serials.into_iter().collect())))
    }

    /// Takes the place of what was in it. Connections whose peers are in it end.
    pub fn set(&self, serials: impl IntoIterator<Item = String>) {
        let new = serials.into_iter().collect();
        self.0.send_if_modified(|set| {
            let is_other = *set != new;
            *set = new;
            is_other
        });
    }

    /// Whether the peer's certificate counts no longer.
    pub fn is_revoked(&self, peer: &Peer) -> bool {
        self.0.borrow().contains(&peer.serial)
    }

    /// Waits until the peer's certificate counts no longer.
    ///
    /// # Cancel safety
    /// It may be dropped and called again.
    pub async fn revoked(&self, peer: &Peer) {
        // It lives as long as this borrow of the sender.
        let _ = self.0.subscribe().wait_for(|set| set.contains(&peer.serial)).await;
    }
}

impl Default for Revoked {
    fn default() -> Revoked {
        Revoked::new([])
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.borrow().iter()).finish()
    }
}
