//! Problems of queries and previews, and which of them each refusal is.

use actix_web::http::StatusCode;

use crate::api::problem::{Code, Problem, codes};
use crate::api::streams::problems::{STREAM_NOT_FOUND, sentence};
use crate::manager::ports::PortError;
use crate::manager::{Fault, preview, queries};

codes! {
    QUERY_NOT_FOUND = "query_not_found" NOT_FOUND "No such query runs"
        "No query with this id runs on any instance: it has ended, or nobody came to read it."
        "`GET /api/queries` lists those that run; begin it anew with `POST /api/queries`.";
    QUERY_ELSEWHERE = "query_elsewhere" MISDIRECTED_REQUEST "Another instance runs the query"
        "Queries live in the process that began them, which alone can show their rows and end them. `instance` says which."
        "Send the call there: have the balancer send whoever began a query to the same instance again.";
    QUERY_ALREADY_READ = "query_already_read" CONFLICT "The query is read already"
        "Each query is read once, and somebody reads this one."
        "Begin another one with the same text: `POST /api/queries`.";
    QUERY_ENDED = "query_ended" CONFLICT "The query has ended before it began"
        "Somebody has ended it, or its time was over, while its engine was still beginning it: `detail` says which."
        "Begin another one with the same text: `POST /api/queries`.";
    QUERY_LIMIT_REACHED = "query_limit_reached" TOO_MANY_REQUESTS "As many queries run as may"
        "`manager.limits.queries_per_user` or `queries` allows no more at once."
        "End one (`GET /api/queries`, `DELETE /api/queries/{id}`), repeat after `Retry-After` seconds, or ask an operator to raise the limit.";
    QUERIES_TOO_OFTEN = "queries_too_often" TOO_MANY_REQUESTS "Too many queries within a minute"
        "`manager.limits.queries_per_minute` allows no more, whatever became of those before."
        "Repeat after `Retry-After` seconds.";
    TOPIC_NOT_WATCHABLE = "topic_not_watchable" NOT_FOUND "This topic cannot be watched"
        "Outputs of streams and sources of the catalog can be watched, no other topic."
        "`GET /api/catalog` lists the sources, `GET /api/streams` the streams with their `outputTopic`.";
    TOPIC_NOT_FOUND = "topic_not_found" NOT_FOUND "There is no such topic"
        "Kafka has no topic of this name; the output topic of a stream is there once the stream has been deployed."
        "Deploy the stream, or wait until somebody makes the topic.";
    PREVIEW_LIMIT_REACHED = "preview_limit_reached" TOO_MANY_REQUESTS "The caller watches as many topics as one may"
        "`manager.preview.watchers_per_caller` or `readers_per_caller` allows no more at once."
        "Stop watching one, repeat after `Retry-After` seconds, or ask an operator to raise the limit.";
    TOO_MANY_WATCHERS = "too_many_watchers" SERVICE_UNAVAILABLE "Too many watch topics"
        "As many topics are read, or as many clients watch them, as this instance allows."
        "Repeat after `Retry-After` seconds, or ask another instance.";
}

/// Seconds after which perhaps somebody watches or queries no longer.
const RETRY_AFTER: u32 = 5;

impl From<queries::Refused> for Problem {
    fn from(refused: queries::Refused) -> Self {
        use queries::Refused;
        let words = sentence(&refused.to_string());
        match refused {
            Refused::TooMany { setting, most, in_use, .. } => Problem::new(&QUERY_LIMIT_REACHED, words)
                .with("setting", format!("manager.limits.{setting}"))
                .with("limit", most)
                .with("inUse", in_use)
                .retry_after(RETRY_AFTER),
            Refused::TooOften { most, retry_after, .. } => Problem::new(&QUERIES_TOO_OFTEN, words)
                .with("setting", "manager.limits.queries_per_minute")
                .with("limit", most)
                .retry_after(u32::try_from(retry_after.as_secs().max(1)).unwrap_or(u32::MAX)),
            Refused::Fault(fault) => fault.into(),
            Refused::NotFound(_) => Problem::new(&QUERY_NOT_FOUND, words),
            Refused::Elsewhere { ref instance, .. } => {
                Problem::new(&QUERY_ELSEWHERE, words).with("instance", instance.clone())
            }
            Refused::AlreadyRead(_) => Problem::new(&QUERY_ALREADY_READ, words),
            Refused::Ended { .. } => Problem::new(&QUERY_ENDED, words),
        }
    }
}

impl From<preview::Refused> for Problem {
    fn from(refused: preview::Refused) -> Self {
        use preview::Refused;
        let words = sentence(&refused.to_string());
        match refused {
            Refused::NotWatchable(_) => Problem::new(&TOPIC_NOT_WATCHABLE, words),
            Refused::NoStream(_) => Problem::new(&STREAM_NOT_FOUND, words),
            Refused::TooManyReaders(_) | Refused::TooManyWatchers(_) => {
                Problem::new(&TOO_MANY_WATCHERS, words).retry_after(RETRY_AFTER)
            }
            Refused::TooManyOfCaller { setting, most, .. } => Problem::new(&PREVIEW_LIMIT_REACHED, words)
                .with("setting", format!("manager.preview.{setting}"))
                .with("limit", most)
                .retry_after(RETRY_AFTER),
            Refused::Unknown(fault) => fault.into(),
            Refused::Port(PortError::NoTopic(_)) => Problem::new(&TOPIC_NOT_FOUND, words),
            Refused::Port(error @ (PortError::Unavailable(_) | PortError::Refused(_))) => Fault::Port(error).into(),
        }
    }
}
