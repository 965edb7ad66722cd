//! What a batch of records means for a view: decoded ([`decode`]), folded ([`fold`]) with what operators decided
//! ([`decisions`]) into what has to be written ([`plan`]); and a key folded again from its ledger ([`refold`]). Knows a view by
//! its trait only ([`view`]).

pub mod decisions;
pub mod decode;
pub mod event_ids;
pub mod fold;
pub mod plan;
pub mod refold;
pub mod view;
