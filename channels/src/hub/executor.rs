//! The executor of one future on one thread, which turns the hub while it waits.

use std::{
    cell::Cell,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use super::{Hub, TURNS};

#[derive(Default)]
struct Notify {
    notified: AtomicBool,
}

impl Wake for Notify {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notified.store(true, Ordering::SeqCst);
        if let Some(hub) = Hub::get() {
            hub.wake();
        }
    }
}

thread_local! {
    /// What this thread was woken by when it last ran a future, for the next one.
    static SPARE: Cell<Option<Arc<Notify>>> = const { Cell::new(None) };
}

/// Runs a future to its end on this thread. While it waits, the thread sleeps in the hub.
///
/// # Panics
/// When the future panics, and when the process has no hub.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let hub = Hub::get().expect("the process is part of a job");
    let notify = SPARE.take().unwrap_or_default();
    notify.notified.store(true, Ordering::SeqCst);
    let waker = Waker::from(notify.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let _turning = Turning(TURNS.replace(true));
    loop {
        while notify.notified.swap(false, Ordering::SeqCst) {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                SPARE.set(Some(notify));
                return output;
            }
        }
        hub.turn(hub.parts.spin, &|| notify.notified.load(Ordering::SeqCst));
    }
}

/// Puts the thread's mark back, also when the future panics.
struct Turning(bool);

impl Drop for Turning {
    fn drop(&mut self) {
        TURNS.set(self.0);
    }
}
