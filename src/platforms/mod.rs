//! Brokers. One folder each; only they name a broker's client library.

pub mod kafka;
