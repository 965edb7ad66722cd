//! What a committed batch tells metrics, logs and the relay.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::units::{Micros, Millis};
use crate::engine::plan::{Plan, Tally};
use crate::engine::view::{View, ViewSpec};
use crate::projector::context::ViewContext;
use crate::store::progress::Advance;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::trace_id_in;

/// Reports a plan that was committed within `took`.
pub fn report<V: View>(
    context: &ViewContext,
    spec: &ViewSpec,
    plan: &Plan<'_, V>,
    advances: &[Advance],
    took: Duration,
) {
    let (view, metrics) = (spec.name, &context.metrics);
    let consumed: u64 = advances.iter().map(|advance| advance.counters.consumed.unsigned_abs()).sum();
    let parked: i64 = advances.iter().map(|advance| advance.counters.parked).sum();
    context.parked_total.fetch_add(parked, Ordering::Relaxed);
    metrics.consumed.with_label_values(&[view]).inc_by(consumed);
    metrics.batch_records.with_label_values(&[view]).observe(consumed as f64);
    metrics.upserts_duration.with_label_values(&[view]).observe(took.as_secs_f64());
    count(metrics, spec, &plan.tally);
    let now_ms = Timestamp::now().as_millisecond();
    metrics.odd_record_times.with_label_values(&[view]).inc_by(advances.iter().map(|advance| advance.odd_times).sum());
    for Millis(timestamp_ms) in advances.iter().filter_map(|advance| advance.anchor?.timestamp_ms) {
        // A time of no calendar would be an age of no use.
        if Micros::from_millis(Millis(timestamp_ms)).is_none() {
            continue;
        }
        let age = now_ms.saturating_sub(timestamp_ms).max(0) as f64 / 1000.0;
        metrics.event_age.with_label_values(&[view]).observe(age);
    }
    for settled in &plan.settled {
        if let Some(reason) = &settled.refused {
            tracing::warn!(view, decision = settled.id, reason, "decision cannot be folded with");
        }
    }
    if plan.dead_letters.is_empty() {
        return;
    }
    context.new_dead_letters.notify_one();
    for letter in &plan.dead_letters {
        tracing::warn!(
            view,
            reason = letter.poison.reason.as_str(),
            error = letter.poison.detail,
            orderId = letter.key,
            eventId = letter.event_id.as_deref(),
            sequence = letter.sequence.map(|sequence| sequence.0),
            partition = letter.record.partition.0,
            offset = letter.record.offset.0,
            trace_id = trace_id_in(letter.record.headers),
            "record refused"
        );
    }
}

fn count(metrics: &Metrics, spec: &ViewSpec, tally: &Tally) {
    let view = spec.name;
    let types = spec.event_types.iter().map(|known| &**known).chain(["unknown"]);
    for (event_type, count) in types.zip(&tally.by_type).filter(|(_, count)| **count > 0) {
        metrics.events.with_label_values(&[view, event_type]).inc_by(*count);
    }
    metrics.unknown_events.with_label_values(&[view]).inc_by(tally.by_type.last().copied().unwrap_or(0));
    let counts = [
        (&metrics.duplicates, "sequence", tally.duplicates_by_sequence),
        (&metrics.duplicates, "event_id", tally.duplicates_by_event_id),
        (&metrics.out_of_order, "late", tally.late),
        (&metrics.out_of_order, "gap", tally.gaps),
    ];
    for (counter, reason, count) in counts.into_iter().filter(|(_, _, count)| *count > 0) {
        counter.with_label_values(&[view, reason]).inc_by(count);
    }
    for (reason, count) in &tally.dead_letters {
        metrics.dead_letters.with_label_values(&[view, reason]).inc_by(*count);
    }
    for (action, count) in &tally.decisions {
        metrics.decisions_taken.with_label_values(&[view, action]).inc_by(*count);
    }
    metrics.anomalies.with_label_values(&[view]).inc_by(tally.anomalies);
}
