//! Examples only: see the folder above.
