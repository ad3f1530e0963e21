//! This package has no code of its own: see the examples in the parent directory.
