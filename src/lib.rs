//! StreamView: turns a Kafka log into Postgres views you can trust and serves them over REST.

pub mod api;
pub mod app;
pub mod builds;
pub mod cli;
pub mod codec;
pub mod config;
pub mod crash;
pub mod domain;
pub mod failure;
pub mod memory;
pub mod platforms;
pub mod projector;
pub mod registry;
pub mod repair;
pub mod seed;
pub mod servers;
pub mod store;
pub mod telemetry;
pub mod views;
