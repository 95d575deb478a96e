//! Who is to be woken when.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::Instant,
};

/// A timer's place in the order of time.
pub type TimerKey = (Instant, u64);

/// The timers of a process.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    waiting: Mutex<BTreeMap<TimerKey, Waker>>,
    count: AtomicU64,
}

impl Timers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TimerKey, Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new key for a timer at `when`.
    pub(crate) fn key(&self, when: Instant) -> TimerKey {
        (when, self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// Sets or renews a timer; `true` when it is now the first to come.
    pub(crate) fn set(&self, key: TimerKey, waker: &Waker) -> bool {
        let mut waiting = self.lock();
        waiting.insert(key, waker.clone());
        waiting.first_key_value().is_some_and(|(first, _)| *first == key)
    }

    pub(crate) fn clear(&self, key: TimerKey) {
        self.lock().remove(&key);
    }

    /// When the first comes.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.lock().first_key_value().map(|((when, _), _)| *when)
    }

    /// Wakes all whose time has come.
    pub(crate) fn fire(&self, now: Instant) {
        let due = {
            let mut waiting = self.lock();
            if waiting.first_key_value().is_none_or(|((when, _), _)| *when > now) {
                return;
            }
            let later = waiting.split_off(&(now, u64::MAX));
            std::mem::replace(&mut *waiting, later)
        };
        due.into_values().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Wake, time::Duration};

    use super::*;

    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_those_whose_time_has_come_are_woken() {
        let (timers, count) = (Timers::default(), Arc::new(Count(AtomicU64::new(0))));
        let (now, waker) = (Instant::now(), Waker::from(count.clone()));
        let [first, second, third] = [1, 2, 3].map(|s| timers.key(now + Duration::from_secs(s)));
        assert!(timers.set(second, &waker));
        assert!(!timers.set(third, &waker));
        assert!(timers.set(first, &waker));
        timers.fire(now + Duration::from_secs(2));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        timers.clear(third);
        assert_eq!(timers.first(), None);
    }
}
