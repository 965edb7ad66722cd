//! StreamView: turns a Kafka log into Postgres views you can trust and serves them over REST.

pub use streamview_core::{codec, domain, engine};

pub mod api;
pub mod app;
pub mod auth;
pub mod builds;
pub mod cli;
pub mod config;
pub mod crash;
pub mod failure;
pub mod feed;
pub mod memory;
pub mod platforms;
pub mod projector;
pub mod registrations;
pub mod repair;
pub mod schemas;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod views;
