//! Reads Avro event bodies: a writer's schema is compiled once, for one view's fields, into a [`Program`] that walks
//! bodies without building a tree. Pure.
//!
//! `compile` resolves the writer's schema against the view's; `walk` reads one body: what the view wants goes into a
//! field set that borrows from the record, and everything, wanted or not, into a JSON text for the ledger. Schemas are
//! parsed by `apache_avro`, after `lenient` has taken out of them what Java's and Python's Avro let through and it does
//! not; bodies are not, because its values are a tree of their own per record.

mod bytes;
mod compile;
mod lenient;
mod render;
mod walk;

pub use compile::{Program, Reader, Unsupported};

use crate::codec::fields::FieldSet;
use crate::domain::poison::Poison;

/// What a view wants of Avro records.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Names of the fields that it reads, at any depth; a field is known by its position here.
    pub fields: &'static [&'static str],
    /// The view's own schemas (`.avsc` texts, records), one or more per event: their names, aliases and defaults say
    /// which field of a writer is which of ours. A record may stand in several, as its versions.
    pub schemas: &'static [&'static str],
    /// Whether times of day and times without a zone are written out in the JSON text, as SQL knows them (`12:34:56.5`,
    /// `2026-01-31T12:00:00`), and moments beyond 9999-12-30T22:00Z as well. Else they are the numbers that they are in Avro,
    /// which is what ledgers hold.
    pub spells_times: bool,
}

impl Shape {
    /// Of a view that reads no Avro.
    pub const NONE: Shape = Shape { fields: &[], schemas: &[], spells_times: false };
    /// Of SQL, which reads the JSON text of any record.
    pub const SQL: Shape = Shape { spells_times: true, ..Shape::NONE };
}

/// One Avro event, read.
#[derive(Debug)]
pub struct Event<'a> {
    /// Name of its record: ours if one of our schemas goes by that name or alias, else the writer's short name.
    pub record: &'a str,
    /// Whether one of our schemas goes by that name.
    pub is_ours: bool,
    /// The fields that the view wants.
    pub fields: FieldSet<'a>,
    /// All fields as one JSON object: decimals as strings, times as RFC 3339, bytes as base64.
    pub json: String,
}

impl Program {
    /// Reads one body.
    pub fn read<'a>(&'a self, body: &'a [u8]) -> Result<Event<'a>, Poison> {
        walk::read(self, body)
    }
}

#[cfg(test)]
mod tests;
