//! Decides what becomes of each event of an order: sent in order, delayed, repeated, broken. Every
//! kind is placed so that its reader meets exactly the case it is named for. No I/O, no clock.

use std::ops::RangeInclusive;

use fastrand::Rng;

use super::generator::SeedPlan;
use super::payload::Flaw;

/// What a record is to its reader, once everything is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Applied,
    /// Applied, but after a successor that had to wait.
    Delayed,
    /// Waits behind a broken event.
    Parked,
    Duplicate,
    Late,
    Poison,
}

/// What becomes of one event.
pub(super) struct Fate {
    pub kind: Kind,
    pub flaw: Option<Flaw>,
    /// Tick of sending.
    pub sent_at: u64,
    /// Repetitions and their ticks.
    pub copies: Vec<(u64, Kind)>,
}

/// Ticks by which disorder is apart from what it follows.
const APART: RangeInclusive<u64> = 1..=50;

/// The wanted shares of each kind of disorder.
pub(super) struct Shares {
    duplicates: Share,
    late: Share,
    gaps: Share,
    poison: Share,
}

impl Shares {
    pub(super) fn of(plan: &SeedPlan) -> Shares {
        let share = |share| Share { share, owed: 0 };
        Shares {
            duplicates: share(plan.duplicates),
            late: share(plan.late),
            gaps: share(plan.gaps),
            poison: share(plan.poison),
        }
    }

    /// The fates of a life whose events happen at these ascending ticks.
    pub(super) fn draw(&mut self, ticks: &[u64], rng: &mut Rng) -> Vec<Fate> {
        let mut fates = orderly(ticks);
        let broken = self.draw_poison(&mut fates, rng);
        // What lies behind a broken event stays parked and needs no more disorder.
        let sound = &mut fates[..broken];
        self.draw_gaps(sound, rng);
        self.draw_copies(sound, rng);
        fates
    }

    /// Breaks at most one event. Returns its index, or the number of events.
    fn draw_poison(&mut self, fates: &mut [Fate], rng: &mut Rng) -> usize {
        let mut broken = fates.len();
        for (index, fate) in fates.iter_mut().enumerate() {
            let sound_so_far = index < broken;
            if self.poison.hits(rng, sound_so_far) {
                broken = index;
                fate.kind = Kind::Poison;
                fate.flaw = Some(Flaw::any(rng));
            } else if !sound_so_far {
                fate.kind = Kind::Parked;
            }
        }
        broken
    }

    fn draw_gaps(&mut self, fates: &mut [Fate], rng: &mut Rng) {
        // From the end, so that a delayed successor is already where it will be.
        for index in (0..fates.len()).rev() {
            let successor = fates.get(index + 1).map(|fate| fate.sent_at);
            if self.gaps.hits(rng, successor.is_some()) {
                fates[index].sent_at = successor.unwrap_or_default() + rng.u64(APART);
                fates[index].kind = Kind::Delayed;
            }
        }
    }

    fn draw_copies(&mut self, fates: &mut [Fate], rng: &mut Rng) {
        for index in 0..fates.len() {
            let (before, after) = fates.split_at(index + 1);
            let reached = before.iter().map(|fate| fate.sent_at).max().unwrap_or_default();
            let passed = after.first().map(|fate| fate.sent_at.max(reached));
            let next = after.iter().map(|fate| fate.sent_at).min().unwrap_or(u64::MAX);
            if self.duplicates.hits(rng, next > reached + 1) {
                let room = (next - reached - 1).min(*APART.end());
                fates[index].copies.push((reached + rng.u64(1..=room), Kind::Duplicate));
            }
            if self.late.hits(rng, passed.is_some()) {
                fates[index].copies.push((passed.unwrap_or_default() + rng.u64(APART), Kind::Late));
            }
        }
    }
}

/// Every event sent when it happens.
pub(super) fn orderly(ticks: &[u64]) -> Vec<Fate> {
    let fate = |&sent_at| Fate { kind: Kind::Applied, flaw: None, sent_at, copies: Vec::new() };
    ticks.iter().map(fate).collect()
}

/// Records of these events, copies included.
pub(super) fn count_records(fates: &[Fate]) -> u64 {
    fates.iter().map(|fate| 1 + fate.copies.len() as u64).sum()
}

/// Hits a share of the events. A hit on an event that is not fit for it is made up by a later one.
struct Share {
    share: f64,
    owed: u64,
}

impl Share {
    fn hits(&mut self, rng: &mut Rng, fit: bool) -> bool {
        self.owed += u64::from(rng.f64() < self.share);
        let hit = fit && self.owed > 0;
        self.owed -= u64::from(hit);
        hit
    }
}
