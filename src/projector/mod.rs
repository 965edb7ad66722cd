//! The running loop.
pub mod event_ids;
pub mod fold;
pub mod state;
