//! What the rows of a view tell as they change: those who wait for a write of theirs, and those who follow every change.
//! Knows no web framework and no view.

pub mod changes;
pub mod following;
pub mod merge;
pub mod reader;
pub mod waiters;
pub mod wanted;
