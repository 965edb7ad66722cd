//! The engine's core against what it promises, in memory.
#![allow(clippy::unwrap_used)]

mod functions;
mod growth;
mod json;
mod numbers;
mod oracle;
mod postgres;
mod queries;
mod refusals;
mod support;
mod windows;

pub(crate) use self::support::{lines_of, register};
