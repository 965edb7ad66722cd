//! The running loop.
pub mod state;
