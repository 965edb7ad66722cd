//! The rules of StreamView, without clock, I/O or async, so that they can be tested by the ten thousand.
//!
//! ```text
//!  record bytes ─ codec ─▶ head + payload ─ engine::decode ─▶ event ─ engine::fold ─▶ plan
//!                             │                                  │
//!                             └──────────── poison ──────────────┘     domain: the words that all of them share
//! ```
//!
//! Arrows point down: [`engine`] knows [`codec`] and [`domain`], `codec` knows `domain`, `domain` knows nobody.

pub mod codec;
pub mod domain;
pub mod engine;
