//! What the integration tests stand on: real servers started once per run ([`servers`]), one topic and one database
//! per test ([`world`]), the real binary as a child process ([`instance`]), a disorderly load ([`load`]), a producer of [`transactions`], events and their
//! in-order fold ([`orders`]), certificates ([`authority`]), who speaks HTTPS with them ([`https`]) and a Kafka that asks for them or for a login ([`secure_kafka`]), a header that clients choke on ([`odd_header`]), a fold with a mistake in it ([`flawed`]), engines of streams ([`bench`]) a door in front of them ([`door`]), a real Flink ([`flink`]) and a stand-in for ksqlDB ([`ksqldb`]), and how long anything is waited for ([`patience`]).

pub mod authority;
pub mod bench;
pub mod door;
pub mod flawed;
pub mod flink;
pub mod https;
pub mod instance;
pub mod ksqldb;
pub mod listener;
pub mod load;
pub mod odd_header;
pub mod orders;
pub mod patience;
pub mod provider;
pub mod rebuild;
pub mod registry;
pub mod secure_kafka;
pub mod segment;
pub mod servers;
pub mod transactions;
pub mod web_socket;
pub mod wires;
pub mod world;

pub use patience::{PATIENCE, until};
