//! Pure rules. No I/O, no async, no clock, no database or broker types.

pub mod action;
pub mod build;
pub mod changes;
pub mod comparison;
pub mod counters;
pub mod decimal;
pub mod decision;
pub mod explanation;
pub mod held;
pub mod history;
pub mod identity;
pub mod lag;
pub mod ledger;
pub mod letter;
pub mod meaning;
pub mod name;
pub mod operation;
pub mod page;
pub mod pause;
pub mod poison;
pub mod preflight;
pub mod record;
pub mod source;
pub mod units;
pub mod verification;
pub mod word;
