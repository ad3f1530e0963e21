//! This package has no code of its own: see the example `crypto_shredding`.
