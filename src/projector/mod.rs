//! The running loop: from records to one transaction per batch.
//!
//! [`coordinator`] owns the group [`membership`] (whose name comes from [`seating`]), has partitions taken over ([`takeover`]) and gives them to [`lane`]s; a
//! lane takes batches from its [`mailbox`] and has its [`applier`] turn them into rows: [`keyed`] decodes, folds and writes
//! through a connection whose commits are fenced ([`crate::store::fence`]). [`guard`] watches the log's identity, [`keeper`]
//! looks after held keys, [`relay`] publishes dead letters, [`observer`] measures lag; [`supervisor`] sees to it that none of
//! them ends unseen.

pub mod applier;
pub mod compaction;
pub mod context;
pub mod coordinator;
pub mod guard;
pub mod keeper;
pub mod keyed;
pub mod lane;
pub mod mailbox;
mod meaning;
pub mod membership;
pub mod observer;
pub mod relay;
pub mod runtime;
pub mod seating;
pub mod source;
pub mod supervisor;
pub mod takeover;
