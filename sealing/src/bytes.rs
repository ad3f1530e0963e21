//! Helpers for secret bytes on the heap and the stack, for random bytes, and for parsing fields.

use zeroize::{Zeroizing, zeroize_stack};

/// The number of bytes of the stack that [`wiping_stack`] must overwrite after work that is done
/// once per key. Argon2 uses 6 KiB in a debug build.
pub(crate) const SETUP_STACK_LEN: usize = 16 * 1024;

/// The number of bytes of the stack that [`wiping_stack`] must overwrite after work that is done
/// for each message.
pub(crate) const MESSAGE_STACK_LEN: usize = 2 * 1024;

/// 32 secret bytes that never leave the heap and are wiped when dropped.
pub(crate) struct Key32(Box<Zeroizing<[u8; 32]>>);

impl Key32 {
    pub(crate) fn random() -> Self {
        let mut key = Self::zero();
        fill_random(key.0.as_mut_slice());
        key
    }

    pub(crate) fn copy_of(bytes: &[u8; 32]) -> Self {
        let mut key = Self::zero();
        key.0.copy_from_slice(bytes);
        key
    }

    pub(crate) fn zero() -> Self {
        Self(Box::new(Zeroizing::new([0; 32])))
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

impl Clone for Key32 {
    fn clone(&self) -> Self {
        Self::copy_of(self.expose())
    }
}

/// Runs `work` and then overwrites `LEN` bytes of the stack below the caller, because moves and
/// libraries leave secrets there. `LEN` must be at least the number of bytes that `work` uses.
///
/// The result of `work` is moved, so its secrets must be on the heap.
pub(crate) fn wiping_stack<const LEN: usize, T>(work: impl FnOnce() -> T) -> T {
    let result = in_own_frame(work);
    zeroize_stack::<LEN>();
    result
}

/// Runs `work` in a stack frame of its own, even if the caller is inlined.
#[inline(never)]
fn in_own_frame<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Fills a buffer with random bytes from the operating system.
///
/// # Panics
/// If the operating system's random generator fails.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system has a working random generator");
}

/// A parser that takes fields from the beginning of a buffer.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }

    pub(crate) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(field)
    }

    /// Reports whether the remaining bytes are all zero.
    pub(crate) fn is_padding(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}
