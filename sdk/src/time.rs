//! Waiting for time to pass, under any executor.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use channels::hub::{Hub, TimerKey};

/// Completes when `duration` has passed.
///
/// # Panics
/// When polled in a process that is not part of a job.
///
/// # Cancel safety
/// It may be dropped at any time.
pub fn sleep(duration: Duration) -> Sleep {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    sleep_until(Instant::now() + duration.min(CENTURY))
}

/// Completes at `when`. See [`sleep`].
pub fn sleep_until(when: Instant) -> Sleep {
    Sleep { when, timer: None }
}

/// See [`sleep`].
#[derive(Debug)]
#[must_use = "a sleep does nothing until it is awaited"]
pub struct Sleep {
    when: Instant,
    timer: Option<TimerKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let hub = Hub::get().expect("the process is part of a job");
        if Instant::now() >= self.when {
            return Poll::Ready(());
        }
        let when = self.when;
        let key = *self.timer.get_or_insert_with(|| hub.timer(when));
        hub.set_timer(key, context.waker());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let (Some(key), Some(hub)) = (self.timer, Hub::get()) {
            hub.clear_timer(key);
        }
    }
}

/// Ticks every `period`, first at once.
///
/// # Panics
/// When `period` is zero.
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval needs a period");
    Interval { next: Instant::now(), period }
}

/// See [`interval`].
#[derive(Debug)]
pub struct Interval {
    next: Instant,
    period: Duration,
}

impl Interval {
    /// Waits for the next tick, and gives the time for which it was due. A tick that is late does not move those
    /// after it; ticks that were missed come one after the other, at once.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has lost no tick.
    pub async fn tick(&mut self) -> Instant {
        let due = self.next;
        sleep_until(due).await;
        self.next = due + self.period;
        due
    }
}

/// The time was over before the future completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time was over")]
pub struct Elapsed;

/// Runs `future` for no longer than `duration`.
///
/// # Errors
/// [`Elapsed`] when the time was over first; then `future` is dropped.
///
/// # Cancel safety
/// As that of `future`.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut sleep) = (pin!(future), pin!(sleep(duration)));
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        sleep.as_mut().poll(context).map(|()| Err(Elapsed))
    })
    .await
}
