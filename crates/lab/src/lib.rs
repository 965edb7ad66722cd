//! For trying StreamView, for its tests and its benchmarks: real servers as child processes ([`servers`]), a stand-in for the
//! one that cannot be had everywhere ([`ksqldb_stand_in`]) and believable
//! order events ([`seed`]). Nothing of this is in a production image.

pub mod ksqldb_stand_in;
pub mod seed;
pub mod servers;
