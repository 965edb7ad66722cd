//! What the schemas that records name are, as known when a batch is read. Filled by the registry's client; plain data here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::codec::avro::Program;
use crate::codec::frame::SchemaName;
use crate::domain::poison::Poison;

/// A schema that a record was written with.
#[derive(Debug, Clone)]
pub enum WriterSchema {
    /// JSON Schema: the body is JSON text.
    Json,
    /// Avro, compiled for the view.
    Avro(Arc<Program>),
    /// Nothing that an event could be read with, and why.
    Refused(Poison),
}

/// The schemas that the framed records of a batch name.
#[derive(Debug, Clone, Default)]
pub struct Schemas(HashMap<SchemaName, WriterSchema>);

impl Schemas {
    /// Adds a schema.
    pub fn insert(&mut self, name: SchemaName, schema: WriterSchema) {
        self.0.insert(name, schema);
    }

    /// The schema of that name, if it was looked up.
    pub fn get(&self, name: SchemaName) -> Option<&WriterSchema> {
        self.0.get(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_found_by_the_name_that_it_was_put_in_by() {
        let mut schemas = Schemas::default();
        schemas.insert(SchemaName::Id(7), WriterSchema::Json);
        assert!(matches!(schemas.get(SchemaName::Id(7)), Some(WriterSchema::Json)));
        assert!(schemas.get(SchemaName::Guid(7)).is_none());
    }
}
