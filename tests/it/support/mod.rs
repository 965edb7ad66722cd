//! What the integration tests stand on: real servers started once per run ([`servers`]), one topic and one database
//! per test ([`world`]), the real binary as a child process ([`instance`]), a disorderly load ([`load`]), events and their
//! in-order fold ([`orders`]), a fold with a mistake in it ([`flawed`]), certificates ([`authority`]), and how long anything is waited for ([`patience`]).

pub mod authority;
pub mod flawed;
pub mod instance;
pub mod listener;
pub mod load;
pub mod orders;
pub mod patience;
pub mod provider;
pub mod rebuild;
pub mod registry;
pub mod segment;
pub mod servers;
pub mod world;

pub use patience::{PATIENCE, until};
