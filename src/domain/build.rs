//! Which build of which view. The one place where the name of a build's schema is made.

use std::fmt;

/// One materialisation of a view, with its own tables, progress, holds and dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BuildId {
    /// Registry name of the view.
    pub view: String,
    /// Its number among the builds of the view, from 1.
    pub build: i32,
}

/// Longest name of a view: Postgres cuts identifiers after 63 bytes, and the number follows.
const MAX_VIEW: usize = 48;

impl BuildId {
    /// Build `build` of `view`.
    pub fn new(view: &str, build: i32) -> Self {
        BuildId { view: view.to_owned(), build }
    }

    /// The schema that holds its tables.
    pub fn schema(&self) -> String {
        format!("{}_{}", self.view, self.build)
    }

    /// Its tables first, then the control tables.
    pub fn search_path(&self) -> String {
        format!("{},public", self.schema())
    }

    /// Whether its schema has a name that needs no quotes, may stand in any statement as it is, and is nobody else's.
    /// Only such a build is ever made or dropped.
    pub fn is_well_named(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        self.build >= 1
            && self.view.len() <= MAX_VIEW
            && self.view.starts_with(|first: char| first.is_ascii_lowercase())
            && !self.view.starts_with("pg_")
            && self.view.bytes().all(is_plain)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "build {} of view {}", self.build, self.view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_named_by_view_and_number_and_nothing_else_gets_into_a_statement() {
        assert_eq!(BuildId::new("orders", 12).schema(), "orders_12");
        for view in ["orders", "a", "order_lines_2"] {
            assert!(BuildId::new(view, 1).is_well_named(), "{view}");
        }
        let long = "v".repeat(MAX_VIEW + 1);
        for view in ["", "Orders", "1st", "_x", "pg_orders", "or ders", "o;drop", "o\"", "o-p", "ö", &long] {
            assert!(!BuildId::new(view, 1).is_well_named(), "{view}");
        }
        assert!(!BuildId::new("orders", 0).is_well_named());
    }
}
