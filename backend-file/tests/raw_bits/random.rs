//! A small random number generator, so that a trial can be repeated from its name.

/// A xorshift64* generator (<https://arxiv.org/abs/1402.6246>).
pub(crate) struct Random(u64);

impl Random {
    /// Creates the generator of the trial `number` of the kind of damage that has this name.
    pub(crate) fn of_trial(kind: &str, number: u64) -> Self {
        // FNV-1a spreads the name over the seed, which must not be 0.
        let hash = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        let seed = kind.bytes().chain(number.to_le_bytes()).fold(0xCBF2_9CE4_8422_2325, hash);
        let mut random = Self(seed | 1);
        // Seeds that differ in few bits give similar first numbers.
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns a number below `limit`, which must not be 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap();
        usize::try_from((self.next() >> 11) % limit).unwrap()
    }

    /// Returns one of `items`, which must not be empty.
    pub(crate) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// Returns true once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
