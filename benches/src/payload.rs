//! The work that every contender does: each frame is written whole and read whole.

/// Frames of one size, each with a number in front, made in a buffer of the sender's own.
#[derive(Debug)]
pub struct Frames<const N: usize> {
    bytes: Box<[u8; N]>,
    number: u64,
}

impl<const N: usize> Default for Frames<N> {
    fn default() -> Self {
        const { assert!(N >= 8 && N.is_multiple_of(8), "a frame is made of words") };
        let bytes: Box<[u8]> = (0..N).map(|at| (at * 31) as u8).collect();
        Frames { bytes: bytes.try_into().expect("it has that length"), number: 0 }
    }
}

impl<const N: usize> Frames<N> {
    /// The frame of that number.
    #[inline]
    pub fn numbered(&mut self, number: u64) -> &[u8; N] {
        *self.bytes.first_chunk_mut().expect("a frame has a first word") = number.to_le_bytes();
        &self.bytes
    }

    /// The frame of the next number; the first is 1.
    #[inline]
    pub fn following(&mut self) -> &[u8; N] {
        self.number += 1;
        self.numbered(self.number)
    }

    /// Begins anew with the first number.
    pub fn restart(&mut self) {
        self.number = 0;
    }

    /// What [`sum`] gives for the frame of that number.
    pub fn sum_of(&mut self, number: u64) -> u64 {
        sum(self.numbered(number))
    }

    /// The sum of the first `count` frames.
    pub fn sum_of_first(&mut self, count: u64) -> u64 {
        self.sum_of(0).wrapping_mul(count).wrapping_add(count * (count + 1) / 2)
    }
}

/// The sum of all words: to know it, all bytes have to be read.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    bytes.as_chunks().0.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_tells_one_frame_from_the_next() {
        let mut frames = Frames::<64>::default();
        let base = frames.sum_of(0);
        assert_eq!(sum(frames.following()), base + 1);
        assert_eq!(sum(frames.following()), base + 2);
        frames.restart();
        assert_eq!(sum(frames.following()), base + 1);
    }
}
