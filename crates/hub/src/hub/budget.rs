//! What all windows of the node together may hold.
//!
//! Over the budget, windows of channels without a subscriber are emptied, and then the largest give
//! up their oldest parts until the rest fits: who comes back to a busy channel after a second finds
//! its place, and nothing that is promised depends on a window. It holds no lock but one shard's at
//! a time, and frees an eighth of the budget at once, so that it is seldom at work.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::{Entry, Hub};

/// The budget and what is held of it, in bytes as windows weigh them.
pub(super) struct Budget {
    limit: usize,
    held: AtomicUsize,
    /// One thread at a time makes room; the others go on.
    trimming: Mutex<()>,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, held: AtomicUsize::new(0), trimming: Mutex::new(()) }
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Notes what an entry's window weighs now, under its lock.
    pub(super) fn weigh(&self, entry: &mut Entry) {
        let now = entry.stored.as_ref().map_or(0, |stored| stored.window_weight());
        let before = std::mem::replace(&mut entry.weighed, now);
        if now >= before {
            self.held.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.held.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// An entry is gone.
    pub(super) fn forget(&self, entry: &Entry) {
        self.held.fetch_sub(entry.weighed, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.held() > self.limit
    }
}

impl Hub {
    /// Makes room if the windows hold too much. To be called without a lock.
    pub(super) fn keep_budget(&self) {
        if !self.budget.is_over() {
            return;
        }
        let Some(_trimming) = self.budget.trimming.try_lock() else { return };
        let mut sizes = Sizes::default();
        self.for_windows(|entry| {
            if entry.lanes.is_empty() {
                return Some(0);
            }
            sizes.add(entry.weighed);
            None
        });
        if self.budget.is_over() {
            let level = sizes.level(self.budget.limit - self.budget.limit / 8);
            self.for_windows(|entry| (entry.weighed > level).then_some(level));
        }
        self.metrics.window_trims.increment(1);
    }

    /// Trims each window to the weight that `most` gives, if any.
    fn for_windows(&self, mut most: impl FnMut(&Entry) -> Option<usize>) {
        for shard in &self.shards {
            for entry in shard.lock().channels.values_mut().filter(|entry| entry.weighed > 0) {
                if let Some(most) = most(entry)
                    && let Some(stored) = &mut entry.stored
                {
                    stored.trim_window(most);
                    self.budget.weigh(entry);
                }
            }
        }
    }
}

/// How many windows there are of each size, by powers of two.
struct Sizes {
    counts: [usize; usize::BITS as usize],
    sums: [usize; usize::BITS as usize],
}

impl Default for Sizes {
    fn default() -> Self {
        Self { counts: [0; usize::BITS as usize], sums: [0; usize::BITS as usize] }
    }
}

impl Sizes {
    fn add(&mut self, size: usize) {
        let bucket = size.checked_ilog2().unwrap_or(0) as usize;
        self.counts[bucket] += 1;
        self.sums[bucket] += size;
    }

    /// The weight above which windows are cut, so that all together fit into `target`; not lower
    /// than half of the highest such.
    fn level(&self, target: usize) -> usize {
        let (mut larger, mut smaller): (usize, usize) = (0, self.sums.iter().sum());
        for bucket in (0..self.counts.len()).rev() {
            larger += self.counts[bucket];
            smaller -= self.sums[bucket];
            // Windows of this bucket and above are cut, the smaller ones stay as they are.
            match target.saturating_sub(smaller).checked_div(larger) {
                Some(each) if each >= 1 << bucket => return each,
                _ => {}
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Sizes;

    fn level(sizes: &[usize], target: usize) -> usize {
        let mut all = Sizes::default();
        sizes.iter().for_each(|size| all.add(*size));
        all.level(target)
    }

    #[test]
    fn large_windows_are_cut_and_small_ones_stay() {
        assert_eq!(level(&[10, 10, 1_000], 100), 80);
        assert_eq!(level(&[1_000, 1_000], 1_000), 500);
        assert!(level(&[10, 20], 100) >= 20);
        assert_eq!(level(&[1_000; 3], 2), 0);
    }

    proptest! {
        #[test]
        fn what_is_left_fits_and_is_not_much_less(
            sizes in prop::collection::vec(1_usize..1 << 22, 1..200),
            target in 1_000_usize..1 << 28,
        ) {
            let level = level(&sizes, target);
            let left = |level: usize| sizes.iter().map(|size| *size.min(&level)).sum::<usize>();
            prop_assert!(left(level) <= target);
            let most = *sizes.iter().max().unwrap();
            prop_assert!(level >= most || 2 * (left(level) + sizes.len()) >= target);
        }
    }
}
