//! The hub methods.
