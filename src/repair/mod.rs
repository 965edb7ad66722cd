//! What operators decide when the projector cannot go on by itself. Decisions are rows: every process and every later
//! build honours them.

pub mod skip_to;
