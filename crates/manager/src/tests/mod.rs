//! Rehearsals of the whole: an engine that behaves as the contract says, in this process, against the planner alone
//! (`convergence`) and against a real Postgres (`rehearsal`, `defects`).

mod bounds;
pub(crate) mod convergence;
mod crashes;
mod defects;
mod healing;
mod mended;
mod model;
mod queries;
mod rehearsal;
mod rounds;
mod sources;
mod stage;
