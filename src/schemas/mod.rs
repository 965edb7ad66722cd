//! The schema registry: fetching the schemas that records were written with ([`source`]), and publishing our own
//! ([`subjects`]); and what the stream manager needs of them ([`values`]). The only room that names an HTTP client or
//! `schema_registry_converter`.
//!
//! That crate's decoder is not used: it caches answers without telling passing errors from lasting ones, and takes 500,
//! 504, 429 and a wrong password for final. What an answer means is decided in [`client`], once.

pub mod client;
pub mod source;
pub mod subjects;
pub mod values;

pub use source::SchemaSource;
