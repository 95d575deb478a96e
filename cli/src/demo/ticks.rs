//! How long generations took.

use std::time::Duration;

/// A histogram of durations. Its size is bounded however many there are, and a percentile is off by one in a
/// hundred at most.
///
/// A bucket holds the numbers of nanoseconds that have the same [`DIGITS`] leading binary digits.
#[archean::data]
#[derive(Debug, Default)]
pub(crate) struct Ticks {
    /// Up to the last bucket that is not empty.
    counts: Vec<u64>,
}

const DIGITS: u32 = 7;

/// Buckets of the numbers of one length.
const HALF: usize = 1 << (DIGITS - 1);

impl Ticks {
    pub(crate) fn add(&mut self, tick: Duration) {
        let bucket = bucket(tick.as_nanos().try_into().unwrap_or(u64::MAX));
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
    }

    /// Adds all of another histogram.
    pub(crate) fn merge(&mut self, other: &Ticks) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
    }

    /// The duration that so many of a hundred ticks did not exceed; zero when there were none.
    pub(crate) fn percentile(&self, percent: u64) -> Duration {
        let total: u64 = self.counts.iter().sum();
        let rank = (u128::from(total) * u128::from(percent)).div_ceil(100);
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen > 0 && seen >= rank
        });
        Duration::from_nanos(reached.map_or(0, middle))
    }
}

const fn bucket(ns: u64) -> usize {
    let dropped = (u64::BITS - DIGITS).saturating_sub(ns.leading_zeros());
    dropped as usize * HALF + (ns >> dropped) as usize
}

/// The number in the middle of a bucket.
const fn middle(bucket: usize) -> u64 {
    let dropped = (bucket / HALF).saturating_sub(1);
    let digits = (bucket - dropped * HALF) as u64;
    (digits << dropped) + (1 << dropped) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(of_ns: impl IntoIterator<Item = u64>) -> Ticks {
        let mut ticks = Ticks::default();
        of_ns.into_iter().for_each(|ns| ticks.add(Duration::from_nanos(ns)));
        ticks
    }

    #[test]
    fn percentiles_are_off_by_one_in_a_hundred_at_most() {
        let even = ticks((1..=100).map(|i| i * 12_345));
        for percent in [1, 50, 99, 100] {
            let found = even.percentile(percent).as_nanos() as u64;
            assert!(found.abs_diff(percent * 12_345) <= percent * 123, "{percent}: {found}");
        }
        let rare = ticks([5; 98].into_iter().chain([100_000; 2]));
        assert_eq!(rare.percentile(98), Duration::from_nanos(5));
        assert!(rare.percentile(99) > Duration::from_nanos(99_000));
        assert_eq!(Ticks::default().percentile(50), Duration::ZERO);
    }

    #[test]
    fn buckets_follow_one_another() {
        let numbers =
            (0..100_000).chain((0..64).flat_map(|shift| [(1 << shift) - 1, 1 << shift])).chain([u64::MAX]);
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        assert!(numbers.is_sorted_by_key(|ns| bucket(*ns)));
        for ns in numbers {
            assert_eq!(bucket(middle(bucket(ns))), bucket(ns), "{ns}");
            assert!(middle(bucket(ns)).abs_diff(ns) <= ns / 100, "{ns}");
        }
        assert!(bucket(u64::MAX) < 4096);
    }

    #[test]
    fn histograms_add_up() {
        let (few, many) = (ticks([7, 3000]), ticks([9, 100, 1 << 40]));
        let mut merged = Ticks::default();
        merged.merge(&many);
        merged.merge(&few);
        assert_eq!(merged.counts, ticks([7, 3000, 9, 100, 1 << 40]).counts);
    }
}
