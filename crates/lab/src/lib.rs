//! For trying StreamView, for its tests and its benchmarks: real servers as child processes ([`servers`]) and believable
//! order events ([`seed`]). Nothing of this is in a production image.

pub mod seed;
pub mod servers;
