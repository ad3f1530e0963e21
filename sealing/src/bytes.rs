//! Small helpers for bytes: secret ones on the heap and on the stack, random ones, and reading
//! fields in turn.

use zeroize::{Zeroizing, zeroize_stack};

/// The number of bytes of the stack to overwrite with [`wiping_stack`] after work that is done once
/// for a key. A debug build needs 6 KiB after Argon2.
pub(crate) const SETUP_STACK_LEN: usize = 16 * 1024;

/// The number of bytes of the stack to overwrite with [`wiping_stack`] after work that is done for
/// each message.
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

/// Runs `work` and then overwrites `LEN` bytes of the stack below the caller, where moves and
/// libraries leave secrets behind. `LEN` must be at least what `work` uses.
///
/// The result of `work` is moved, so it must hold its secrets on the heap.
pub(crate) fn wiping_stack<const LEN: usize, T>(work: impl FnOnce() -> T) -> T {
    let result = in_own_frame(work);
    zeroize_stack::<LEN>();
    result
}

/// Runs `work` in a frame that ends when it returns, whatever the caller is inlined into.
#[inline(never)]
fn in_own_frame<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// From the operating system's generator, which does not stall.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system has a working random generator");
}

/// Takes fields off the front of a buffer.
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
