//! Words that start at the start of a cache line.

use std::ops::{Deref, DerefMut};

/// Words in a cache line, and in the widest vector register.
pub(super) const LINE_WORDS: usize = 8;

/// A fixed number of words whose first is the first of a cache line.
///
/// Vector loads that cross from one line to the next take twice as long, and an allocator aligns to sixteen bytes.
pub(super) struct Words {
    allocated: Vec<u64>,
    start: usize,
    count: usize,
}

impl Words {
    /// That many zeros.
    pub(super) fn zeroed(count: usize) -> Self {
        let allocated = vec![0u64; count + LINE_WORDS];
        // A pointer may decline to be aligned; then this is slower, not wrong.
        let start = allocated.as_ptr().align_offset(LINE_WORDS * size_of::<u64>()).min(LINE_WORDS);
        Words { allocated, start, count }
    }
}

impl Deref for Words {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.allocated[self.start..][..self.count]
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.allocated[self.start..][..self.count]
    }
}
