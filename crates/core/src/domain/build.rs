//! Which build of which view.

use std::fmt;

use crate::domain::name::{intern, is_view_name};

/// The number of a build among those of its view, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Build(pub i32);

impl fmt::Display for Build {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One materialisation of a view, with its own tables, progress, holds and dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BuildId {
    /// Name of the view.
    pub view: &'static str,
    /// Its number.
    pub build: Build,
}

impl BuildId {
    /// The build of that number of `view`.
    pub fn new(view: &str, number: i32) -> Self {
        BuildId { view: intern(view), build: Build(number) }
    }

    /// Whether its schema has a name that needs no quotes and may stand in any statement as it is. Only such a build is
    /// ever made or dropped.
    pub fn is_well_named(&self) -> bool {
        self.build >= Build(1) && is_view_name(self.view)
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
    fn builds_count_from_one_and_bear_the_name_of_a_view() {
        assert!(BuildId::new("orders", 12).is_well_named());
        for (view, build) in [("orders", 0), ("orders", -1), ("x; drop schema y", 1), ("Orders", 1)] {
            assert!(!BuildId::new(view, build).is_well_named(), "{view} {build}");
        }
        assert_eq!(BuildId::new("orders", 2).to_string(), "build 2 of view orders");
    }
}
