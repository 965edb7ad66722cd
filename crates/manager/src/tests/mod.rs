//! Rehearsals of the whole: an engine that behaves as the contract says, in this process, against the planner alone
//! (`convergence`) and against a real Postgres (`rehearsal`, `defects`).

mod convergence;
mod crashes;
mod defects;
mod mended;
mod model;
mod rehearsal;
mod rounds;
mod sources;
mod stage;
