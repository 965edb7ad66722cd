//! Turns the lives of many orders into one interleaved stream of records, in the wanted disorder.
//! The same plan gives the same bytes. No I/O, no clock.
//!
//! Time is counted in ticks, about one record each. An order is planned as a whole when its first
//! tick comes: which events are delayed, repeated or broken, and when each copy is due. So every kind
//! of disorder has the outcome it is named for, and only the orders in flight are in memory.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;

use super::disorder::{Fate, Kind, Shares, count_records, orderly};
use super::life::{Happening, live};
use super::payload::{Flaw, to_json};

/// What to generate. Shares are fractions of the events, 0 to 1.
#[derive(Clone, Debug)]
pub struct SeedPlan {
    /// Orders in all; `u64::MAX` goes on for ever.
    pub orders: u64,
    /// Records in all; the last order's life is cut short to end there, everybody else's is complete.
    pub count: Option<u64>,
    /// Share of events sent twice before the order's next event.
    pub duplicates: f64,
    /// Share of events sent again after a later event of the order.
    pub late: f64,
    /// Share of events that arrive after their successor; every such gap heals.
    pub gaps: f64,
    /// Share of events that are broken. Nothing replaces them, so the order stays held there.
    pub poison: f64,
    /// Start of the random numbers.
    pub seed: u64,
    /// Number of the first order: `order-<number>`. Ranges of runs must not overlap.
    pub start_order: u64,
    /// `occurredAt` of the first event.
    pub start_time: Timestamp,
    /// Time between two records, on average; for a live stream one over its rate.
    pub time_step: Duration,
    /// How payloads are written.
    pub format: SeedFormat,
}

/// How payloads are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SeedFormat {
    /// JSON as in schemas/json
    Json,
}

/// A record ready to be produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedRecord {
    /// The order id; `None` only in a broken record.
    pub key: Option<Vec<u8>>,
    /// The event.
    pub payload: Vec<u8>,
    /// Header names and values.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// What was generated so far, by the outcome it has once all of it is read.
///
/// `records = applied + parked + duplicates + late + poison`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedSummary {
    /// Everything.
    pub records: u64,
    /// Orders that have begun.
    pub orders: u64,
    /// Events that end up applied.
    pub applied: u64,
    /// Of the applied: events that arrive after a successor, which waits for them.
    pub delayed: u64,
    /// Events that stay parked behind a broken one.
    pub parked: u64,
    /// Repetitions of an order's latest event.
    pub duplicates: u64,
    /// Repetitions of an event older than an order's latest.
    pub late: u64,
    /// Broken records.
    pub poison: u64,
}

/// Iterates over the records of a plan.
pub struct Generator {
    plan: SeedPlan,
    rng: Rng,
    shares: Shares,
    /// By tick, then by order of planning.
    schedule: BTreeMap<(u64, u64), Step>,
    scheduled: u64,
    next_order: u64,
    next_start: u64,
    planned_records: u64,
    /// `occurredAt` of the latest event.
    clock: Timestamp,
    summary: SeedSummary,
}

enum Step {
    /// The event happens now; it is sent now too, unless delayed.
    Happen(Box<Planned>),
    Send(SeedRecord, Kind),
}

struct Planned {
    order: u64,
    /// Position in the order's life from 0.
    index: usize,
    happening: Happening,
    kind: Kind,
    flaw: Option<Flaw>,
    /// Tick of sending, where it is not the tick of happening.
    delayed_to: Option<u64>,
    copies: Vec<(u64, Kind)>,
}

/// Ticks between two events of an order.
const PAUSE: RangeInclusive<u64> = 10..=200;

impl SeedPlan {
    /// Complete lives in perfect order, from a fixed day on: what tests start from.
    pub fn orderly(orders: u64, seed: u64) -> SeedPlan {
        SeedPlan {
            orders,
            count: None,
            duplicates: 0.0,
            late: 0.0,
            gaps: 0.0,
            poison: 0.0,
            seed,
            start_order: 1,
            start_time: Timestamp::constant(1_767_225_600, 0),
            time_step: Duration::from_millis(250),
            format: SeedFormat::Json,
        }
    }

    /// The records of this plan.
    pub fn generate(&self) -> Generator {
        Generator {
            rng: Rng::with_seed(self.seed),
            shares: Shares::of(self),
            schedule: BTreeMap::new(),
            scheduled: 0,
            next_order: 0,
            next_start: 0,
            planned_records: 0,
            clock: self.start_time,
            summary: SeedSummary::default(),
            plan: self.clone(),
        }
    }
}

impl Iterator for Generator {
    type Item = SeedRecord;

    fn next(&mut self) -> Option<SeedRecord> {
        loop {
            self.plan_due_orders();
            let (_, step) = self.schedule.pop_first()?;
            let (record, kind) = match step {
                Step::Send(record, kind) => (record, kind),
                Step::Happen(planned) => {
                    let kind = planned.kind;
                    let delayed_to = planned.delayed_to;
                    let record = self.happen(*planned);
                    if let Some(tick) = delayed_to {
                        self.schedule(tick, Step::Send(record, kind));
                        continue;
                    }
                    (record, kind)
                }
            };
            self.summary.add(kind);
            return Some(record);
        }
    }
}

impl Generator {
    /// What came out so far.
    pub fn summary(&self) -> SeedSummary {
        self.summary
    }

    fn plan_due_orders(&mut self) {
        while self.next_order < self.plan.orders {
            let missing = self.plan.count.map(|count| count - self.planned_records);
            let first_tick = self.schedule.first_key_value().map(|((tick, _), _)| *tick);
            if missing == Some(0) || first_tick.is_some_and(|tick| tick < self.next_start) {
                return;
            }
            let records = self.plan_order(missing);
            self.planned_records += records;
            self.next_start += records;
            self.next_order += 1;
        }
    }

    /// Plans the life of the next order, with at most `limit` records; returns how many it has.
    fn plan_order(&mut self, limit: Option<u64>) -> u64 {
        let order = self.plan.start_order.saturating_add(self.next_order);
        let life = live(&mut self.rng);
        let ticks = self.ticks(life.len());
        let mut fates = self.shares.draw(&ticks, &mut self.rng);
        if let Some(limit) = limit.filter(|&limit| count_records(&fates) > limit) {
            // Disorder cut in half would leave gaps open, so this order has none.
            fates = orderly(&ticks);
            fates.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        let records = count_records(&fates);
        for (index, (happening, fate)) in life.into_iter().zip(fates).enumerate() {
            let Fate { kind, flaw, sent_at, copies } = fate;
            let delayed_to = (sent_at != ticks[index]).then_some(sent_at);
            let planned = Planned { order, index, happening, kind, flaw, delayed_to, copies };
            self.schedule(ticks[index], Step::Happen(Box::new(planned)));
        }
        records
    }

    /// When the events of a life happen; ascending, with room for a duplicate between two.
    fn ticks(&mut self, events: usize) -> Vec<u64> {
        let mut tick = self.next_start;
        let mut ticks = Vec::with_capacity(events);
        for _ in 0..events {
            ticks.push(tick);
            tick += self.rng.u64(PAUSE);
        }
        ticks
    }

    fn schedule(&mut self, tick: u64, step: Step) {
        self.schedule.insert((tick, self.scheduled), step);
        self.scheduled += 1;
    }

    /// Writes the event down at the present time and schedules its copies.
    fn happen(&mut self, planned: Planned) -> SeedRecord {
        let Planned { order, index, happening, flaw, copies, .. } = planned;
        let order_id = format!("order-{order}");
        let sequence = index + 1;
        self.summary.orders += u64::from(index == 0);
        let occurred_at = self.tell_time();
        let mut payload = match self.plan.format {
            SeedFormat::Json => to_json(&order_id, sequence, occurred_at, &happening),
        };
        let mut headers = vec![
            ("x-event-version".to_owned(), b"1".to_vec()),
            ("traceparent".to_owned(), self.traceparent().into_bytes()),
        ];
        if flaw != Some(Flaw::NoSequence) {
            headers.insert(0, ("x-sequence".to_owned(), sequence.to_string().into_bytes()));
        }
        if self.rng.bool() {
            headers.push(("x-event-type".to_owned(), happening.event_type().into()));
        }
        if let Some(flaw) = flaw {
            flaw.spoil(&mut payload);
        }
        let key = (flaw != Some(Flaw::NoKey)).then(|| order_id.into_bytes());
        let record = SeedRecord { key, payload, headers };
        for (tick, kind) in copies {
            self.schedule(tick, Step::Send(record.clone(), kind));
        }
        record
    }

    /// A little later than the event before, in whole microseconds.
    fn tell_time(&mut self) -> Timestamp {
        let step = self.plan.time_step.as_micros() as u64;
        let passed = step.saturating_mul(self.summary.records) + self.rng.u64(0..=step);
        let present = self.plan.start_time + Duration::from_micros(passed);
        self.clock = present.max(self.clock + Duration::from_micros(1));
        self.clock
    }

    /// <https://www.w3.org/TR/trace-context/#traceparent-header>; ids of zeros are not valid.
    fn traceparent(&mut self) -> String {
        let trace = self.rng.u128(1..);
        let span = self.rng.u64(1..);
        format!("00-{trace:032x}-{span:016x}-01")
    }
}

impl SeedSummary {
    fn add(&mut self, kind: Kind) {
        self.records += 1;
        match kind {
            Kind::Applied => self.applied += 1,
            Kind::Delayed => {
                self.applied += 1;
                self.delayed += 1;
            }
            Kind::Parked => self.parked += 1,
            Kind::Duplicate => self.duplicates += 1,
            Kind::Late => self.late += 1,
            Kind::Poison => self.poison += 1,
        }
    }
}

#[cfg(test)]
mod tests;
