//! Spans of batches: what each attempt at one took, step by step.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};

use super::{Sending, SentAlong, text_of};
use crate::domain::build::Build;
use crate::domain::record::{Headers, Record};

/// Of so many records, the first of a batch, a span tells which traces they come from.
const MOST_LINKS: usize = 128;
/// To find that there is a connection takes less, and is no step that anybody looks for.
const CONNECTED: Duration = Duration::from_millis(1);

/// What is done with a batch, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// From the first of its records that came to when it was taken.
    Poll,
    /// A connection to Postgres, where there is none yet.
    Connect,
    /// What its records are, and the schemas that they are written with.
    Parse,
    /// What is known of their keys, from memory or from Postgres.
    Load,
    /// Events are decoded and folded into rows.
    Fold,
    /// The transaction but for its end; beside it the topic is asked who it is.
    Upsert,
    /// Its end.
    Commit,
}

impl Step {
    fn next(self) -> Step {
        match self {
            Step::Poll => Step::Connect,
            Step::Connect => Step::Parse,
            Step::Parse => Step::Load,
            Step::Load => Step::Fold,
            Step::Fold => Step::Upsert,
            Step::Upsert | Step::Commit => Step::Commit,
        }
    }

    fn name(self, topic: &str) -> String {
        match self {
            Step::Poll => format!("poll {topic}"),
            Step::Connect => "connect".to_owned(),
            Step::Parse => "parse".to_owned(),
            Step::Load => "load".to_owned(),
            Step::Fold => "fold".to_owned(),
            Step::Upsert => "upsert".to_owned(),
            Step::Commit => "commit".to_owned(),
        }
    }

    fn kind(self) -> SpanKind {
        match self {
            Step::Poll | Step::Connect | Step::Upsert | Step::Commit => SpanKind::Client,
            Step::Parse | Step::Load | Step::Fold => SpanKind::Internal,
        }
    }

    /// What the conventions ask for where another system is called.
    fn attributes(self, topic: &str) -> Vec<KeyValue> {
        match self {
            Step::Poll => of_kafka("poll", "receive", topic).into(),
            Step::Connect | Step::Upsert | Step::Commit => vec![KeyValue::new("db.system.name", "postgresql")],
            Step::Parse | Step::Load | Step::Fold => Vec::new(),
        }
    }
}

fn of_kafka(name: &'static str, kind: &'static str, topic: &str) -> [KeyValue; 4] {
    [
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.operation.type", kind),
        KeyValue::new("messaging.destination.name", topic.to_owned()),
    ]
}

/// When the steps of one attempt were done. Where no traces are sent it notes nothing.
#[derive(Debug, Default)]
pub struct Steps {
    began: Option<SystemTime>,
    done: Vec<(Step, SystemTime)>,
}

impl Steps {
    /// Begins an attempt. The first at a batch begins when its first record came, and has polled by now.
    pub fn begin(first_came: Option<SystemTime>) -> Steps {
        match super::sending() {
            Some(_) => Steps::began(first_came, SystemTime::now()),
            None => Steps::default(),
        }
    }

    fn began(first_came: Option<SystemTime>, now: SystemTime) -> Steps {
        match first_came {
            Some(first) => Steps { began: Some(first), done: vec![(Step::Poll, now)] },
            None => Steps { began: Some(now), done: Vec::new() },
        }
    }

    /// A step is done.
    pub fn done(&mut self, step: Step) {
        if self.began.is_some() {
            self.done_at(step, SystemTime::now());
        }
    }

    /// A step was done at that time.
    pub fn done_at(&mut self, step: Step, at: SystemTime) {
        if self.began.is_some() {
            self.done.push((step, at));
        }
    }

    /// The step that is not done.
    fn under_way(&self) -> Step {
        self.done.last().map_or(Step::Connect, |(last, _)| last.next())
    }
}

/// One attempt at records of a batch, for whoever looks at its trace.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The view.
    pub view: &'static str,
    /// Its build.
    pub build: Build,
    /// The topic that they are from.
    pub topic: &'a str,
    /// The consumer group.
    pub group: &'a str,
    /// A stable name of why nothing was committed.
    pub failed: Option<&'static str>,
}

/// Tells an attempt that has ended just now: `process TOPIC`, with a span for each step. Of one record it is part of the trace that
/// the record comes from; of several it has a trace of its own, with links to theirs. An attempt without records is not told.
pub fn tell<'r>(attempt: &Attempt<'_>, records: impl Iterator<Item = Record<'r>>, steps: Steps) {
    if let Some(sending) = super::sending() {
        tell_by(sending, attempt, records, steps);
    }
}

fn tell_by<'r>(sending: &Sending, attempt: &Attempt<'_>, records: impl Iterator<Item = Record<'r>>, steps: Steps) {
    let Some(began) = steps.began else { return };
    let (mut count, mut first, mut sent) = (0usize, None, Vec::new());
    for record in records {
        if count < MOST_LINKS {
            // Of its state no link is in need, and a producer may make it as long as it likes.
            let producer = SentAlong { traceparent: text_of(record.headers, "traceparent"), tracestate: None };
            sent.extend(producer.span_context());
        }
        first.get_or_insert(record);
        count += 1;
    }
    let Some(first) = first else { return };
    let mut attributes: Vec<KeyValue> = of_kafka("process", "process", attempt.topic).into();
    attributes.extend([
        KeyValue::new("messaging.consumer.group.name", attempt.group.to_owned()),
        KeyValue::new("streamview.view", attempt.view),
        KeyValue::new("streamview.build", i64::from(attempt.build.0)),
    ]);
    let parent = if count == 1 { producer_of(first.headers) } else { Context::new() };
    match count {
        1 => attributes.extend([
            KeyValue::new("messaging.destination.partition.id", first.partition.0.to_string()),
            KeyValue::new("messaging.kafka.offset", first.offset.0),
        ]),
        _ => attributes.push(KeyValue::new("messaging.batch.message_count", count as i64)),
    }
    let builder = sending.tracer.span_builder(format!("process {}", attempt.topic));
    let builder = builder.with_kind(SpanKind::Consumer).with_start_time(began).with_attributes(attributes);
    let mut span = sending.tracer.build_with_context(builder, &parent);
    if !span.is_recording() {
        return;
    }
    if count > 1 {
        sent.into_iter().for_each(|producer| span.add_link(producer, Vec::new()));
    }
    let own = Context::new().with_remote_span_context(span.span_context().clone());
    let (under_way, now) = (steps.under_way(), SystemTime::now());
    let mut from = began;
    let failed = attempt.failed.map(|why| (under_way, now, Some(why)));
    for (step, at, failed) in steps.done.iter().map(|(step, at)| (*step, *at, None)).chain(failed) {
        // A clock that was set back meanwhile.
        let to = at.max(from);
        if step == Step::Connect && failed.is_none() && to.duration_since(from).is_ok_and(|took| took < CONNECTED) {
            continue;
        }
        let builder = sending.tracer.span_builder(step.name(attempt.topic)).with_kind(step.kind());
        let builder = builder.with_start_time(from).with_attributes(step.attributes(attempt.topic));
        let mut child = sending.tracer.build_with_context(builder, &own);
        failed.into_iter().for_each(|why| has_failed(&mut child, why));
        child.end_with_timestamp(to);
        from = to;
    }
    attempt.failed.into_iter().for_each(|why| has_failed(&mut span, why));
    span.end_with_timestamp(from);
}

/// Without words of its own: these may hold what stands in a record.
fn has_failed(span: &mut opentelemetry_sdk::trace::Span, why: &'static str) {
    span.set_attribute(KeyValue::new("error.type", why));
    span.set_status(Status::error(""));
}

/// The span that a record comes from.
fn producer_of(headers: Headers<'_>) -> Context {
    SentAlong { traceparent: text_of(headers, "traceparent"), tracestate: text_of(headers, "tracestate") }.context()
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanId;
    use opentelemetry_sdk::trace::SpanData;

    use super::*;
    use crate::domain::units::{Offset, Partition};
    use crate::telemetry::traces::kept::{TRACE, TRACEPARENT, value, with_kept};

    const ORDERS: Attempt<'static> =
        Attempt { view: "orders", build: Build(3), topic: "orders.events", group: "g", failed: None };

    fn record(headers: &[u8]) -> Record<'_> {
        Record {
            partition: Partition(2),
            offset: Offset(7),
            timestamp_ms: None,
            key: None,
            payload: None,
            headers: Headers::from_encoded(headers),
        }
    }

    fn traced(traceparent: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        Headers::push(&mut bytes, b"x-sequence", Some(b"1"));
        Headers::push(&mut bytes, b"traceparent", Some(traceparent.as_bytes()));
        bytes
    }

    /// Steps of a millisecond each, from so many before now on.
    fn steps(polled: bool, done: &[Step]) -> Steps {
        let at = |number: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + number);
        let mut steps = Steps::began(polled.then(|| at(0)), at(u64::from(polled)));
        let before = u64::from(polled);
        done.iter().zip(1..).for_each(|(step, number)| steps.done_at(*step, at(before + number)));
        steps
    }

    const ALL: [Step; 5] = [Step::Parse, Step::Load, Step::Fold, Step::Upsert, Step::Commit];

    fn names(spans: &[SpanData]) -> Vec<&str> {
        spans.iter().map(|span| span.name.as_ref()).collect()
    }

    #[test]
    fn one_record_goes_on_in_its_producer_s_trace_step_by_step() {
        let (sending, kept) = with_kept();
        let headers = traced(TRACEPARENT);
        tell_by(&sending, &ORDERS, [record(&headers)].into_iter(), steps(true, &ALL));

        let spans = kept.take();
        assert_eq!(
            names(&spans),
            ["poll orders.events", "parse", "load", "fold", "upsert", "commit", "process orders.events"]
        );
        let (children, process) = (&spans[..6], &spans[6]);
        assert!(spans.iter().all(|span| span.span_context.trace_id().to_string() == TRACE), "{spans:#?}");
        assert_eq!(process.parent_span_id.to_string(), &TRACEPARENT[36..52]);
        assert_eq!(process.span_kind, SpanKind::Consumer);
        // One after the other, without a hole.
        assert_eq!(children[0].start_time, process.start_time);
        assert!(children.windows(2).all(|pair| pair[0].end_time == pair[1].start_time));
        assert_eq!(children[5].end_time, process.end_time);
        assert!(children.iter().all(|child| child.parent_span_id == process.span_context.span_id()));
        for (name, expected) in [
            ("messaging.system", "kafka"),
            ("messaging.destination.name", "orders.events"),
            ("messaging.destination.partition.id", "2"),
            ("messaging.kafka.offset", "7"),
            ("messaging.consumer.group.name", "g"),
            ("streamview.view", "orders"),
            ("streamview.build", "3"),
        ] {
            assert_eq!(value(process, name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(value(&children[4], "db.system.name").as_deref(), Some("postgresql"));
    }

    #[test]
    fn several_records_have_a_trace_of_their_own_with_links_to_the_first_of_them() {
        let (sending, kept) = with_kept();
        let (headers, none) = (traced(TRACEPARENT), traced("00-0-0-00"));
        let records = [record(&headers), record(&none)].into_iter().cycle().take(300);
        tell_by(&sending, &ORDERS, records, steps(false, &ALL));

        let spans = kept.take();
        let process = spans.last().unwrap();
        assert_eq!(names(&spans)[..2], ["parse", "load"], "it was polled for an attempt before");
        assert_eq!(process.parent_span_id, SpanId::INVALID);
        assert_ne!(process.span_context.trace_id().to_string(), TRACE);
        assert_eq!(process.links.links.len(), MOST_LINKS / 2);
        assert!(process.links.iter().all(|link| link.span_context.trace_id().to_string() == TRACE));
        assert_eq!(value(process, "messaging.batch.message_count").as_deref(), Some("300"));
    }

    #[test]
    fn an_attempt_that_fails_names_the_step_and_why() {
        let (sending, kept) = with_kept();
        let failed = |failed| Attempt { failed: Some(failed), ..ORDERS };
        tell_by(&sending, &failed("retry"), [record(&[])].into_iter(), steps(true, &ALL[..3]));
        tell_by(&sending, &failed("database_away"), [record(&[])].into_iter(), steps(false, &[]));

        let spans = kept.take();
        assert_eq!(names(&spans)[3..6], ["fold", "upsert", "process orders.events"]);
        assert_eq!(names(&spans)[6..], ["connect", "process orders.events"]);
        for (number, span) in spans.iter().enumerate() {
            let expected = match number {
                4 | 5 => Some("retry"),
                6 | 7 => Some("database_away"),
                _ => None,
            };
            assert_eq!(value(span, "error.type").as_deref(), expected, "{}", span.name);
            assert_eq!(span.status == Status::error(""), expected.is_some(), "{}", span.name);
        }
    }

    #[test]
    fn what_its_producer_does_not_sample_and_what_has_no_records_is_not_told() {
        let (sending, kept) = with_kept();
        let headers = traced(&format!("{}00", &TRACEPARENT[..53]));
        tell_by(&sending, &ORDERS, [record(&headers)].into_iter(), steps(true, &ALL));
        tell_by(&sending, &ORDERS, std::iter::empty(), steps(true, &ALL));
        assert!(kept.take().is_empty());
    }
}
