//! The loop that compares what is wanted with what is.
