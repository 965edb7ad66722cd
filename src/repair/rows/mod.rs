//! The desk's own rows and statements: what is read and written of held keys, dead letters, decisions and kept answers.

pub(super) mod read;
pub(super) mod write;
