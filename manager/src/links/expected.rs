//! The links that may be opened from elsewhere, and the connections that have not said yet which they open.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::{
    hello::{HELLO_BYTES, Hello, Terms},
    ids::LinkId,
    limits::{HANDSHAKES_MAX, OFFER_TIME_MAX, OFFERS_MAX},
};
use tokio::{sync::oneshot, time::Instant};

use super::{AnswerFlaw, Offer, hello_mac, is_same};

/// The offers of a machine that stand.
#[derive(Debug, Default)]
pub struct Expected {
    inner: Mutex<Inner>,
}

/// No offer can be made now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{OFFERS_MAX} links were offered within {} s; open fewer channels between machines at a time",
    OFFER_TIME_MAX.as_secs()
)]
pub struct TooManyOffers;

#[derive(Debug, Default)]
struct Inner {
    /// One that was taken stays until it would have expired, so that a second hello is known for what it is.
    offers: HashMap<LinkId, Option<Offer>>,
    /// In the order in which they expire.
    expiring: VecDeque<(Instant, LinkId)>,
    /// The connections that are saying hello, the oldest first.
    handshakes: VecDeque<(u64, oneshot::Sender<()>)>,
    handshakes_ever: u64,
}

impl Expected {
    /// Nothing is expected.
    pub fn new() -> Expected {
        Expected::default()
    }

    /// Offers a link, to be opened once and soon.
    ///
    /// # Errors
    /// [`TooManyOffers`] when the table is full.
    pub fn offer(&self, terms: Terms) -> Result<Offer, TooManyOffers> {
        let (offer, now) = (Offer::new(terms), Instant::now());
        let mut inner = self.lock();
        inner.expire(now);
        if inner.offers.len() >= OFFERS_MAX {
            return Err(TooManyOffers);
        }
        inner.offers.insert(offer.link, Some(offer.clone()));
        inner.expiring.push_back((now + OFFER_TIME_MAX, offer.link));
        Ok(offer)
    }

    /// Takes back an offer that nobody needs any more.
    pub fn withdraw(&self, link: LinkId) {
        if let Some(offer) = self.lock().offers.get_mut(&link) {
            *offer = None;
        }
    }

    /// The offer that a hello is about, if the hello's maker knows its secret. It can't be taken again.
    pub(super) fn take(&self, hello: &Hello, bytes: &[u8; HELLO_BYTES]) -> Result<Offer, AnswerFlaw> {
        let mut inner = self.lock();
        inner.expire(Instant::now());
        let slot = inner.offers.get_mut(&hello.link).ok_or(AnswerFlaw::Unexpected(hello.link))?;
        let offer = slot.as_ref().ok_or(AnswerFlaw::Replayed(hello.link))?;
        let (signed, mac) = Hello::signed(bytes);
        if !is_same(hello_mac(&offer.secret, signed), mac) {
            return Err(AnswerFlaw::WrongToken(hello.link));
        }
        let offer = slot.take().ok_or(AnswerFlaw::Replayed(hello.link))?;
        hello.check(&offer.terms).map_err(AnswerFlaw::Hello)?;
        Ok(offer)
    }

    /// Counts a connection until the handshake is dropped. What comes along is filled when others need its place.
    ///
    /// The oldest gives way, since an honest hello arrives at once: connections that never speak keep nobody out.
    pub(super) fn begin(&self) -> (Handshake<'_>, oneshot::Receiver<()>) {
        let (displace, displaced) = oneshot::channel();
        let mut inner = self.lock();
        if inner.handshakes.len() >= HANDSHAKES_MAX
            && let Some((_, oldest)) = inner.handshakes.pop_front()
        {
            // It may have ended just now.
            let _ = oldest.send(());
        }
        let number = inner.handshakes_ever;
        inner.handshakes_ever += 1;
        inner.handshakes.push_back((number, displace));
        (Handshake { expected: self, number }, displaced)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn expire(&mut self, now: Instant) {
        while let Some((_, link)) = self.expiring.pop_front_if(|(end, _)| *end <= now) {
            self.offers.remove(&link);
        }
    }
}

/// A connection that is saying hello.
pub(super) struct Handshake<'a> {
    expected: &'a Expected,
    number: u64,
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        let mut inner = self.expected.lock();
        if let Ok(index) = inner.handshakes.binary_search_by_key(&self.number, |(number, _)| *number) {
            inner.handshakes.remove(index);
        }
    }
}
