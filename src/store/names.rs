//! Names in SQL that are generated: the one place that makes them. Everything else names its tables in files.

use crate::store::progress::Source;

/// The schema that holds the tables of a build.
pub fn schema(view: &str, build: i32) -> String {
    format!("{view}_{build}")
}

/// Where unqualified names are looked for by whoever works on a build: in its schema, then among the control tables.
pub fn search_path(source: &Source) -> String {
    format!("{},public", schema(source.view, source.build))
}
