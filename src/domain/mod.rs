//! Pure rules. No I/O, no async, no clock, no database or broker types.

pub mod decimal;
pub mod decision;
pub mod envelope;
pub mod lag;
pub mod poison;
