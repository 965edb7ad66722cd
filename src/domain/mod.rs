//! Pure rules. No I/O, no async, no clock, no database or broker types.

pub mod build;
pub mod decimal;
pub mod decision;
pub mod identity;
pub mod lag;
pub mod page;
pub mod poison;
pub mod record;
