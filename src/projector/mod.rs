//! The running loop: from records to one transaction per batch.
//!
//! [`coordinator`] owns the group membership, has partitions taken over ([`takeover`]) and gives them to [`lane`]s; a
//! lane takes batches from its [`mailbox`], and each [`attempt`] decodes, [`fold`]s (pure) and [`commit`]s. [`guard`]
//! watches the log's identity, [`keeper`] looks after held keys, [`relay`] publishes dead letters, [`observer`] measures lag.
//! [`supervisor`] sees to it
//! that none of them ends unseen. [`load`] fills an empty build in bulk, by lanes that keep all keys in memory ([`bulk`]).

pub mod attempt;
pub mod bulk;
pub mod cache;
pub mod commit;
pub mod compaction;
pub mod context;
pub mod coordinator;
pub mod decisions;
pub mod decode;
pub mod dlq_headers;
pub mod event_ids;
pub mod fold;
pub mod guard;
pub mod keeper;
pub mod lane;
pub mod load;
pub mod mailbox;
pub mod observer;
pub mod plan;
pub mod relay;
pub mod runtime;
pub mod supervisor;
pub mod takeover;
