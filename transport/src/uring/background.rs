//! The thread that looks after links while the others are busy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Links,
    driver::For,
    link::{Link, News},
    lock,
    seat::Holder,
};
use crate::park;

/// So often it looks.
pub(super) const TICK: Duration = Duration::from_millis(1);

const AWAKE: u32 = 0;
/// It sleeps until it is rung for.
const ASLEEP: u32 = 1;
/// It sits, and sleeps until it is nudged.
const DRIVING: u32 = 2;

/// How it sleeps, and how its sleep is ended.
#[derive(Debug, Default)]
pub(super) struct Rest {
    how: AtomicU32,
    alarm: AtomicU32,
}

impl Rest {
    /// Has it look again every now and then.
    #[inline]
    pub(super) fn end(&self, links: &Links) {
        // SYNC: with the stores below, after which it looks once more whether it may sleep.
        if self.how.load(Ordering::SeqCst) != AWAKE {
            self.end_now(links);
        }
    }

    #[cold]
    fn end_now(&self, links: &Links) {
        match self.how.swap(AWAKE, Ordering::SeqCst) {
            ASLEEP => {
                self.alarm.fetch_add(1, Ordering::SeqCst);
                park::wake(&self.alarm);
            }
            DRIVING => links.nudge(),
            _ => {}
        }
    }
}

/// What the thread does, as long as the process lives.
pub(super) fn run(links: &'static Links) {
    let rest = &links.rest;
    let mut listed = Vec::new();
    loop {
        let (taken, alarm) = (links.seat.taken(), rest.alarm.load(Ordering::SeqCst));
        park::park([(&rest.alarm, alarm)], Some(Instant::now() + TICK));
        tick(links, &mut listed);
        links.host.listen();
        let is_same = links.seat.taken() == taken;
        match links.seat.holder() {
            Holder::Nobody if is_same => drive(links, &mut listed),
            Holder::Waiter if is_same => {
                rest.how.store(ASLEEP, Ordering::SeqCst);
                while rest.how.load(Ordering::SeqCst) == ASLEEP
                    && links.listed_count.load(Ordering::SeqCst) == 0
                    && links.seat.holder() == Holder::Waiter
                {
                    park::park([(&rest.alarm, alarm)], None);
                }
                rest.how.store(AWAKE, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

/// Drives until a thread of the program's wants to.
fn drive(links: &'static Links, listed: &mut Vec<Arc<Link>>) {
    if !links.seat.try_take(Holder::Background) {
        return;
    }
    let mut driver = lock(&links.driver);
    while !links.seat.is_wanted() {
        tick(links, listed);
        links.rest.how.store(DRIVING, Ordering::SeqCst);
        driver.drive(links, For::Busy, None);
        links.rest.how.store(AWAKE, Ordering::SeqCst);
    }
    drop(driver);
    links.leave();
}

/// Looks at the links on the list, and takes those off that need nobody any more.
fn tick(links: &'static Links, listed: &mut Vec<Arc<Link>>) {
    links.copy_listed(listed);
    let mut any_done = false;
    for link in listed.drain(..) {
        let (mut state, mut news) = (link.state(), News::default());
        let is_done = link.look_after(&mut state, &mut news);
        let asks = state.needs_driver();
        if is_done {
            // With the lock held: who lists it again does so after it has seen the state.
            link.is_listed.store(false, Ordering::SeqCst);
            any_done = true;
        }
        drop(state);
        if asks {
            links.ask(&link);
        }
        links.tell(&link, news, false);
    }
    if any_done {
        let mut listed = lock(&links.listed);
        listed.retain(|link| link.is_listed.load(Ordering::SeqCst));
        links.listed_count.store(listed.len(), Ordering::SeqCst);
    }
}
