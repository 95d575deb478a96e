//! What the thread in the seat does: receives for all links, sends what could not be sent at once, and waits.
#![expect(unsafe_code, reason = "the rings' memory is lent to the kernel")]

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    Links,
    background::TICK,
    kernel::{Completion, Kernel, Request, Word},
    link::{Link, News, Pulled, State},
};

/// So many links may be read from by turns while a thread spins; others wait in the kernel.
const POLLED_MAX: usize = 4;
/// So many times one link is read from before others are.
const PULLS_MAX: usize = 16;

/// Which words the kernel waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Armed {
    Nothing,
    /// Those by which the driver is nudged and hears of its manager.
    Few,
    /// Those that wake a thread of the program's as well.
    All,
}

/// Whom the driver waits for.
#[derive(Clone, Copy)]
pub(super) enum For {
    /// A thread that is to be woken by its process's words, and what they were when it last looked.
    Waiter([u32; 2]),
    /// Threads that are busy.
    Busy,
}

/// See the [module](self).
pub(super) struct Driver {
    kernel: Kernel,
    links: Vec<Option<Arc<Link>>>,
    free: Vec<u32>,
    /// Links that are not read from in the kernel.
    idle: Vec<u32>,
    /// Links with more to send than their socket takes.
    blocked: Vec<u32>,
    /// What was sent with the last submission, and is done unless the kernel says otherwise.
    sent_now: Vec<(u32, usize)>,
    armed: Armed,
    /// Counts the requests that wait for words: an old one that completes says nothing.
    number: u32,
    /// Used again and again.
    spare: Vec<Arc<Link>>,
}

impl Driver {
    pub(super) fn new() -> io::Result<Driver> {
        Ok(Driver {
            kernel: Kernel::new()?,
            links: Vec::new(),
            free: Vec::new(),
            idle: Vec::new(),
            blocked: Vec::new(),
            sent_now: Vec::new(),
            armed: Armed::Nothing,
            number: 0,
            spare: Vec::new(),
        })
    }

    /// Waits until something happened, or until `deadline`; for those that are busy, as long as nothing is to be
    /// looked after.
    pub(super) fn drive(&mut self, links: &'static Links, whom: For, deadline: Option<Instant>) {
        let own = matches!(whom, For::Waiter(_));
        // SYNC: read before all looks: who asks for something after them moves the word.
        let nudged = links.nudge.load(Ordering::SeqCst);
        let heard = if own { None } else { Some(links.host.listen()) };
        self.take_asked(links);
        if self.reap(links, own) {
            return;
        }
        self.flush(links, own);
        self.receive_all(links);
        self.send_blocked();
        self.wait_words(links, whom, heard, nudged);
        if matches!(whom, For::Busy) && links.seat.is_wanted() {
            return self.submit(links, own);
        }
        let deadline = match whom {
            For::Waiter(_) => deadline,
            For::Busy if links.listed_count.load(Ordering::SeqCst) == 0 => None,
            For::Busy => Some(Instant::now() + TICK),
        };
        self.kernel.submit_and_wait(deadline);
        self.reap(links, own);
        self.settle(links, own);
    }

    /// Looks for what has come, without waiting, on behalf of a thread that spins.
    pub(super) fn poll(&mut self, links: &'static Links) {
        self.take_asked(links);
        self.reap(links, false);
        if self.idle.len() > POLLED_MAX {
            let kept = self.idle.split_off(self.idle.len() - POLLED_MAX);
            self.receive_all(links);
            self.idle = kept;
        }
        for place in (0..self.idle.len()).rev() {
            let index = self.idle[place];
            let Some(link) = self.link(index) else { continue };
            let (mut state, mut news) = (link.state(), News::default());
            let pulled = pull_all(&link, &mut state, &mut news);
            if matches!(pulled, Pulled::Over | Pulled::NoSpace) {
                self.idle.swap_remove(place);
            }
            self.after(links, &link, state, news, pulled, false);
        }
        self.send_blocked();
        self.submit(links, false);
    }

    fn submit(&mut self, links: &'static Links, own: bool) {
        self.kernel.submit();
        self.reap(links, own);
        self.settle(links, own);
    }

    fn link(&self, index: u32) -> Option<Arc<Link>> {
        self.links.get(index as usize).cloned().flatten()
    }

    /// Takes in new links, and those that need the driver.
    fn take_asked(&mut self, links: &'static Links) {
        let mut asked = std::mem::take(&mut self.spare);
        links.take_asked(&mut asked);
        for link in asked.drain(..) {
            let mut index = link.index.load(Ordering::Relaxed);
            if index == u32::MAX {
                index = self.free.pop().unwrap_or(self.links.len() as u32);
                link.index.store(index, Ordering::Relaxed);
                if index as usize == self.links.len() {
                    self.links.push(None);
                }
                self.links[index as usize] = Some(link.clone());
                self.idle.push(index);
            }
            let mut state = link.state();
            if std::mem::take(&mut state.is_stalled) {
                self.idle.push(index);
            }
            if state.is_blocked && state.sending == 0 && !self.blocked.contains(&index) {
                self.blocked.push(index);
            }
            self.forget_if_finished(links, &link, &state);
        }
        self.spare = asked;
    }

    fn forget_if_finished(&mut self, links: &'static Links, link: &Arc<Link>, state: &State) {
        let index = link.index.load(Ordering::Relaxed);
        if !state.is_finished() || self.links.get(index as usize).is_none_or(Option::is_none) {
            return;
        }
        self.links[index as usize] = None;
        self.idle.retain(|other| *other != index);
        self.blocked.retain(|other| *other != index);
        self.free.push(index);
        links.forget(link);
    }

    /// Takes in what was completed; `true` when it was more than an old wait for words.
    fn reap(&mut self, links: &'static Links, own: bool) -> bool {
        let mut any = false;
        while let Some(Completion { request, result }) = self.kernel.next_completion() {
            let (Request::Receive(index)
            | Request::Readable(index)
            | Request::Send(index)
            | Request::SendNow(index)) = request
            else {
                if request == Request::Words(self.number) {
                    self.armed = Armed::Nothing;
                }
                continue;
            };
            any = true;
            let Some(link) = self.link(index) else { continue };
            let (mut state, mut news) = (link.state(), News::default());
            let mut pulled = Pulled::Nothing;
            match request {
                Request::Receive(_) | Request::Readable(_) => {
                    pulled = self.on_receive(&link, &mut state, &mut news, request, result);
                    if !matches!(pulled, Pulled::Over | Pulled::NoSpace) {
                        self.idle.push(index);
                    }
                }
                _ => {
                    self.sent_now.retain(|(other, _)| *other != index);
                    link.on_send(&mut state, result, &mut news);
                    link.push(&mut state, false, &mut news);
                    if state.is_blocked {
                        self.blocked.push(index);
                    }
                }
            }
            self.after(links, &link, state, news, pulled, own);
        }
        any
    }

    fn on_receive(
        &mut self,
        link: &Link,
        state: &mut State,
        news: &mut News,
        request: Request,
        result: i32,
    ) -> Pulled {
        let asked = std::mem::take(&mut state.receiving);
        state.is_receiving = false;
        if matches!(request, Request::Readable(_)) {
            return pull_all(link, state, news);
        }
        let is_full = usize::try_from(result) == Ok(asked);
        let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        match link.received(state, result, news) {
            Pulled::Some if is_full => match pull_all(link, state, news) {
                Pulled::Nothing => Pulled::Some,
                pulled => pulled,
            },
            pulled => pulled,
        }
    }

    /// What follows whatever came over a link.
    fn after(
        &mut self,
        links: &'static Links,
        link: &Arc<Link>,
        mut state: std::sync::MutexGuard<'_, State>,
        news: News,
        pulled: Pulled,
        own: bool,
    ) {
        let is_new = matches!(pulled, Pulled::Some | Pulled::NoSpace) && state.expect_credit();
        let is_new = is_new || state.is_gone();
        if matches!(pulled, Pulled::NoSpace) {
            // A last look: it may be that there is space by now.
            state.is_stalled = state.space().is_empty();
            if !state.is_stalled {
                self.idle.push(link.index.load(Ordering::Relaxed));
            }
        }
        self.forget_if_finished(links, link, &state);
        drop(state);
        if is_new {
            links.list(link);
        }
        links.tell(link, news, own);
    }

    /// Has everything sent that is committed: with the next submission if it is one link's, at once otherwise.
    fn flush(&mut self, links: &'static Links, own: bool) {
        let mut listed = std::mem::take(&mut self.spare);
        links.copy_listed(&mut listed);
        let mut is_first = true;
        for link in listed.drain(..) {
            let (mut state, mut news) = (link.state(), News::default());
            let index = link.index.load(Ordering::Relaxed);
            if !state.is_incoming() && is_first && index != u32::MAX && state.can_send() {
                if let Some(bytes) = state.pending(false) {
                    let (bytes, len) = (std::ptr::from_ref(bytes), bytes.len());
                    // SAFETY: bytes that are pending stay as they are until they are said to be sent, which nobody
                    // does while `sending` is not zero; the ring's memory lives as long as the link, which is kept
                    // in `links` for as long as that.
                    unsafe { self.kernel.send(index, link.socket(), bytes, true) };
                    state.sending = len;
                    self.sent_now.push((index, len));
                    is_first = false;
                }
            } else {
                link.push(&mut state, false, &mut news);
                if state.is_blocked && index != u32::MAX && !self.blocked.contains(&index) {
                    self.blocked.push(index);
                }
            }
            drop(state);
            links.tell(&link, news, own);
        }
        self.spare = listed;
    }

    /// What was sent with a submission that is over, and did not complete, was sent whole.
    fn settle(&mut self, links: &'static Links, own: bool) {
        if !self.kernel.is_submitted() {
            return;
        }
        while let Some((index, len)) = self.sent_now.pop() {
            let Some(link) = self.link(index) else { continue };
            let (mut state, mut news) = (link.state(), News::default());
            link.on_send(&mut state, len as i32, &mut news);
            self.after(links, &link, state, news, Pulled::Nothing, own);
        }
    }

    /// Has the kernel receive for all links that it does not receive for.
    fn receive_all(&mut self, links: &'static Links) {
        while let Some(index) = self.idle.pop() {
            let Some(link) = self.link(index) else { continue };
            let mut state = link.state();
            if state.is_over {
                self.forget_if_finished(links, &link, &state);
                continue;
            }
            if state.is_receiving {
                continue;
            }
            state.is_receiving = true;
            let space = std::ptr::from_mut(state.space());
            state.receiving = space.len();
            if space.is_empty() {
                self.kernel.wait_readable(index, link.socket());
                continue;
            }
            // SAFETY: the space stays the kernel's while `is_receiving` is set, which only the completion takes back;
            // the ring's memory lives as long as the link, which is kept in `links` for as long as that.
            unsafe { self.kernel.receive(index, link.socket(), space) };
        }
    }

    /// Has the kernel send what did not go at once.
    fn send_blocked(&mut self) {
        while let Some(index) = self.blocked.pop() {
            let Some(link) = self.link(index) else { continue };
            let mut state = link.state();
            if state.sending > 0 {
                continue;
            }
            let Some(bytes) = state.pending(false).map(std::ptr::from_ref) else {
                state.is_blocked = false;
                continue;
            };
            // SAFETY: as in `flush`.
            unsafe { self.kernel.send(index, link.socket(), bytes, false) };
            state.sending = bytes.len();
        }
    }

    fn wait_words(&mut self, links: &'static Links, whom: For, heard: Option<u32>, nudged: u32) {
        let nudge: Word = (&links.nudge, nudged);
        let [bell, event] = links.words;
        match (self.armed, whom) {
            (Armed::All, _) | (Armed::Few, For::Busy) => return,
            // What waits for those words only completes now, and says nothing any more.
            (Armed::Few, For::Waiter(_)) => links.nudge(),
            (Armed::Nothing, _) => {}
        }
        self.number = self.number.wrapping_add(1);
        match whom {
            For::Busy => self.kernel.wait_words(self.number, &[(event, heard.unwrap_or_default()), nudge]),
            For::Waiter([was_bell, was_event]) => {
                // The nudge just now was this thread's own.
                let nudged = if self.armed == Armed::Few { nudged.wrapping_add(1) } else { nudged };
                self.kernel
                    .wait_words(self.number, &[(bell, was_bell), (event, was_event), (&links.nudge, nudged)]);
            }
        }
        self.armed = if matches!(whom, For::Busy) { Armed::Few } else { Armed::All };
    }
}

/// Receives until nothing more is there.
fn pull_all(link: &Link, state: &mut State, news: &mut News) -> Pulled {
    let mut pulled = Pulled::Nothing;
    for _ in 0..PULLS_MAX {
        match link.pull(state, news) {
            Pulled::Some => pulled = Pulled::Some,
            Pulled::Nothing => break,
            other => return other,
        }
        if state.was_short {
            break;
        }
    }
    pulled
}
