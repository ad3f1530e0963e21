//! [`RowKey`]: the name under which a store keeps a record.

use std::fmt;

/// The name under which a store keeps the record of an id: the id's HMAC-SHA-256 under the store's
/// name key.
///
/// A row key is not secret, and nobody can compute the id from it without the name key. It still
/// identifies one user within one store, so treat it as personal data. `Debug` and `Display` show
/// it in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey([u8; Self::LEN]);

impl RowKey {
    /// The length in bytes of a row key.
    pub const LEN: usize = 32;

    /// Creates a row key from the bytes that a store or a report keeps.
    ///
    /// [`Keyring::row_key`](crate::Keyring::row_key) computes the row key of an id.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the row key.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl AsRef<[u8]> for RowKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_and_display_are_lower_case_hexadecimal() {
        let row = RowKey::from_bytes(std::array::from_fn(|i| 0xf0 ^ i as u8));
        let digits = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeffe0e1e2e3e4e5e6e7e8e9eaebecedeeef";
        assert_eq!(row.to_string(), digits);
        assert_eq!(format!("{row:?}"), format!("RowKey({digits})"));
    }
}
