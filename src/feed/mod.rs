//! What the rows of a view tell as they change: those who wait for a write of theirs. Knows no web framework and no view.

pub mod waiters;
