//! What may be asked of a definition in which state, and what the next step towards what is wanted is. No I/O, no clock.

pub use self::action::Action;
pub use self::plan::{Effect, Plan};

mod action;
mod doubt;
pub(crate) mod heal;
pub(crate) mod look;
pub(crate) mod outcome;
mod plan;
pub(crate) mod record;
pub(crate) mod step;
pub(crate) mod wish;
