//! StreamView: turns a Kafka log into Postgres views you can trust and serves them over REST.
//!
//! ```text
//!   Kafka            one lane of several                                          Postgres
//!  ┌───────┐      ┌────────────────────────────────────────────┐  one fenced   ┌──────────────┐
//!  │ topic ├─────▶│ decode ─▶ fold ─▶ plan   (engine, pure)    ├──────────────▶│ rows, ledger,│
//!  └───────┘      └────────────────────────────────────────────┘  transaction  │ progress,    │
//!  platforms::kafka   projector: lane, keyed             store: fence          │ holds, letters│
//!                                                                              └──────┬───────┘
//!   status ◀── every part reports                     decisions ▲                     │ reads
//!      │                                                        │                     ▼
//!      └──────────▶ api ◀───────────────────── repair ──────────┘        views::*::queries ─▶ api
//! ```
//!
//! From the bottom to the top, each naming only what stands above it in this list (`tests/tidy.rs` holds the table):
//!
//! - [`domain`], [`codec`], [`engine`]: the rules, a crate of their own without clock, I/O or async
//! - [`ui`]: the files of the console; [`crash`], [`config`], [`failure`], [`status`], [`telemetry`], [`auth`], [`board`]: what every room needs
//! - [`store`]: Postgres; [`platforms`]: Kafka; [`schemas`]: the schema registry
//! - [`projector`]: from records to one transaction per batch; [`builds`]: builds of a view made, filled, dropped
//! - [`feed`]: who waits for a commit; [`repair`]: what operators see and decide; [`login`]: who a caller is;
//!   [`certificates`]: TLS of the listener
//! - [`api`]: HTTP; [`views`]: one folder for each view
//! - [`streams`]: the stream manager as a part of the process
//! - [`registrations`]: the list of views; [`steward`]: which builds run, and what operators do with them; [`app`], [`doctor`],
//!   [`cli`]: the service, what it stands on, and its commands

pub use streamview_core::{codec, domain, engine};
#[cfg(feature = "embedded-engine")]
pub use streamview_embedded as embedded;
pub use streamview_manager as manager;

pub mod api;
pub mod app;
pub mod auth;
pub mod board;
pub mod builds;
pub mod certificates;
pub mod cli;
pub mod config;
pub mod crash;
pub mod doctor;
pub mod failure;
pub mod feed;
pub mod login;
pub mod platforms;
pub mod projector;
pub mod registrations;
pub mod repair;
pub mod schemas;
pub mod status;
pub mod steward;
pub mod store;
pub mod streams;
pub mod telemetry;
pub mod ui;
pub mod views;
