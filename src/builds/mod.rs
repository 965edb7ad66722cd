//! Builds of a view: how one is made and filled.

pub mod load;
