//! Names in SQL that are generated: the one place that makes them. Everything else names its tables in files.

use crate::domain::build::BuildId;

/// The schema that holds the tables of a build. For statements, only if the build [`BuildId::is_well_named`].
pub fn schema(build: BuildId) -> String {
    format!("{}_{}", build.view, build.build)
}

/// Where unqualified names are looked for by whoever works on a build: in its schema, then among the control tables.
pub fn search_path(build: BuildId) -> String {
    format!("{},public", schema(build))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_named_by_view_and_number() {
        assert_eq!(schema(BuildId::new("orders", 12)), "orders_12");
        assert_eq!(search_path(BuildId::new("orders", 2)), "orders_2,public");
    }
}
