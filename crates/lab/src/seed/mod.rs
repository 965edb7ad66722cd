//! Realistic order events: for trying StreamView out, for its benchmarks, for its tests.
//!
//! What happens to orders (`life`), how it is written down (`payload`), what goes wrong (`disorder`)
//! and in which order it comes out (`generator`) is pure and repeatable; only `publish` talks to Kafka.
//! `purchases` are the rows of the stream manager's example, plain facts without a life.

mod disorder;
mod generator;
mod life;
mod payload;
mod publish;
mod purchases;

pub use generator::{Generator, SeedFormat, SeedPlan, SeedRecord, SeedSummary};
pub use publish::{Confirmed, Summary, create_topics, publish, publish_records};
pub use purchases::Purchases;
