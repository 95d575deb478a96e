//! A hint to the processor: which line of a ring will be needed next.
#![cfg_attr(
    all(target_arch = "x86_64", not(loom)),
    expect(unsafe_code, reason = "a prefetch is an instruction")
)]

use super::Memory;

/// The size of a cache line.
pub(super) const LINE_BYTES: u64 = 64;

/// The line at `position` will be read.
#[inline]
pub(super) fn read(memory: &impl Memory, position: u64) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint; it reads nothing that the program could see, and no address makes it fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(memory.bytes(position, 1).cast_const().cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    let _ = (memory, position);
}
