//! What a caller asks of one order: as it is, as it is once it holds a write, or as it was.

use std::time::Duration;

use utoipa::IntoParams;

use crate::api::parameters::Parameters;
use crate::api::problem::Problem;
use crate::domain::units::{Micros, Sequence};
use crate::engine::refold::Until;

/// The parameters of one order.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; read by `Asked::parse`")]
pub(super) struct OrderParameters {
    /// Answer only once the order has applied its event of this sequence number: read your own write.
    #[param(rename = "minSequence", minimum = 1, required = false)]
    min_sequence: Option<i64>,
    /// How long to wait for that, in milliseconds; 0 or left out: not at all. Needs `minSequence`.
    #[param(rename = "waitMs", minimum = 0, maximum = 10_000, required = false)]
    wait_ms: Option<u64>,
    /// The order as it was when this was the last sequence number that it had consumed. Inside a run that an operator has
    /// skipped: as it was before the run.
    #[param(rename = "asOfSequence", minimum = 0, required = false)]
    as_of_sequence: Option<i64>,
    /// The order as it was at this moment, RFC 3339 with offset: its last state whose `updatedAt` is not after it.
    #[param(rename = "asOf", value_type = Option<String>, format = DateTime, required = false, example = "2026-01-31T12:00:00Z")]
    as_of: Option<String>,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The order as it is.
    Now,
    /// The order once it holds a write.
    Write(WriteToSee),
    /// The order as it was.
    Then(Until),
}

/// The write that a caller wants to see, and how long it would wait for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WriteToSee {
    pub(super) sequence: i64,
    pub(super) wait: Duration,
}

impl Asked {
    pub(super) fn parse(query: &str, max_wait_ms: u64) -> Result<Asked, Problem> {
        let mut parameters = Parameters::parse(query, &["minSequence", "waitMs", "asOfSequence", "asOf"]);
        // Also where what it says is of no use: then that is the fault.
        let is_write = parameters.has("minSequence");
        let write = parameters.number_from("minSequence", 1);
        let wait = parameters.number("waitMs", 0..=max_wait_ms);
        let sequence = parameters.number_from("asOfSequence", 0);
        let moment = parameters.time("asOf");
        if let (Some(wait), false) = (wait, is_write) {
            parameters.reject("waitMs", &wait.to_string(), "needs `minSequence`: what to wait for");
        }
        if let (Some(sequence), true) = (sequence, is_write || moment.is_some()) {
            let other = if is_write { "minSequence" } else { "asOf" };
            parameters.reject("asOfSequence", &sequence.to_string(), &not_beside(other));
        }
        if let (Some(moment), true) = (moment, is_write) {
            parameters.reject("asOf", &moment.to_string(), &not_beside("minSequence"));
        }
        parameters.finish()?;
        Ok(match (write, sequence, moment) {
            (Some(sequence), ..) => {
                Asked::Write(WriteToSee { sequence, wait: Duration::from_millis(wait.unwrap_or(0)) })
            }
            (_, Some(sequence), _) => Asked::Then(Until::Sequence(Sequence(sequence))),
            (_, _, Some(moment)) => Asked::Then(Until::Moment(Micros(moment.as_microsecond()))),
            (None, None, None) => Asked::Now,
        })
    }
}

fn not_beside(other: &str) -> String {
    format!("cannot be given beside `{other}`: either the order as it was, or as it is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_needs_something_to_wait_for() {
        assert_eq!(Asked::parse("", 1000).unwrap(), Asked::Now);
        let write = WriteToSee { sequence: 3, wait: Duration::from_secs(1) };
        assert_eq!(Asked::parse("minSequence=3&waitMs=1000", 1000).unwrap(), Asked::Write(write));
        for refused in
            ["waitMs=5", "minSequence=0", "minSequence=3&waitMs=1001", "minSequence=3&wait=5", "minSequence=x"]
        {
            assert!(Asked::parse(refused, 1000).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_name_counts_however_it_is_spelled() {
        let write = WriteToSee { sequence: 3, wait: Duration::from_millis(5) };
        assert_eq!(Asked::parse("%6dinSequence=3&waitMs=5", 1000).unwrap(), Asked::Write(write));
        for beside in ["asOfSequence=1", "asOf=2026-01-01T00:00:00Z"] {
            let refused = Asked::parse(&format!("%6dinSequence=3&{beside}"), 1000).unwrap_err();
            assert!(refused.to_string().contains("cannot be given beside `minSequence`"), "{refused}");
        }
        let refused = Asked::parse("waitMs=5&asOfSequence=1&asOf=minSequence=1", 1000).unwrap_err();
        assert!(refused.to_string().contains("`waitMs`: needs `minSequence`"), "{refused}");
    }

    #[test]
    fn the_past_is_a_number_or_a_moment_and_nothing_is_waited_for() {
        let then = |query| match Asked::parse(query, 1000).unwrap() {
            Asked::Then(until) => until,
            other => panic!("{other:?}"),
        };
        assert_eq!(then("asOfSequence=0"), Until::Sequence(Sequence(0)));
        assert_eq!(then("asOf=1970-01-01T01:00:00.0000019%2B01:00"), Until::Moment(Micros(1)), "finer digits are cut");
        for refused in [
            "asOfSequence=-1",
            "asOfSequence=x",
            "asOf=2026-01-01",
            "asOfSequence=3&asOf=2026-01-01T00:00:00Z",
            "asOfSequence=3&minSequence=2",
            "asOf=2026-01-01T00:00:00Z&minSequence=2",
            "asOfSequence=3&waitMs=1",
        ] {
            assert_eq!(Asked::parse(refused, 1000).unwrap_err().code(), "invalid_parameter", "{refused}");
        }
    }
}
