//! Realistic order events: for trying StreamView out, for its benchmarks, for its tests.
//!
//! What happens to orders (`life`), how it is written down (`payload`), what goes wrong (`disorder`)
//! and in which order it comes out (`generator`) is pure and repeatable; only `publish` talks to Kafka.

mod disorder;
mod generator;
mod life;
mod payload;
mod publish;

pub use generator::{Generator, SeedFormat, SeedPlan, SeedRecord, SeedSummary};
pub use publish::{Summary, create_topics, publish};
