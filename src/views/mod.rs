//! The views that come with StreamView, one folder each. The engine knows them by their traits
//! ([`crate::engine::view::View`], [`crate::store::rows::Stored`]), the process by a line in [`crate::registrations`].

pub mod orders;
