//! What others do by hand is undone, where that is allowed, and not more often than a few times in a while: two that undo each
//! other's work would go on for ever, and each turn costs an outage. Then it is shown, with what to do. Pure.

use jiff::Timestamp;

use super::doubt::is_in_doubt;
use super::look::{Sighting, drift};
use super::outcome::later;
use super::record::{Position, Record, is_active};
use crate::engines::{EngineKind, ObservedState};
use crate::names;
use crate::settings::Reconcile;

/// Whether what others did is undone now.
pub(crate) fn may_heal(record: &Record, now: Timestamp, rules: &Reconcile) -> bool {
    rules.heal_drift && (record.heals < rules.heals || again_at(record, rules) <= now)
}

/// From when on it counts anew.
fn again_at(record: &Record, rules: &Reconcile) -> Timestamp {
    record.heals_since.map_or(Timestamp::MIN, |since| later(since, rules.heals_within))
}

/// It is undone once more.
pub(crate) fn count(record: &mut Record, now: Timestamp, rules: &Reconcile) {
    if again_at(record, rules) <= now {
        (record.heals, record.heals_since) = (0, Some(now));
    }
    record.heals = record.heals.saturating_add(1);
}

/// Whether a step from here undoes what others did by hand. What the engine has lost is another matter: that is begun again as
/// often as what has failed.
pub(crate) fn is_by_hand(record: &Record, shown: ObservedState, is_other_text: bool) -> bool {
    // ksqlDB writes its queries down and loses none.
    let is_lost = shown == ObservedState::Absent && record.engine != EngineKind::Ksqldb;
    is_other_text || !is_lost && drift(record, shown).is_some()
}

/// Whether another text runs than the one that we have deployed. The engine's own words of that are noted when it is seen
/// first: it writes a text in its own way, but always in the same.
pub(crate) fn is_other_text(record: &mut Record, sighting: &Sighting) -> bool {
    let is_ours = record.call.is_none() && record.position == Position::Deployed && is_active(sighting.state);
    // Where it is not known what runs, what is seen is not what we have deployed.
    let is_ours = is_ours && !is_in_doubt(record);
    let Some(statement) = sighting.statement.as_ref().filter(|_| is_ours) else { return false };
    let running = format!("{}:{}", record.attempt, names::hashed(statement));
    let is_first = |known: &String| known.split(':').next() != running.split(':').next();
    if record.running_as.as_ref().is_none_or(is_first) {
        record.running_as = Some(running);
        return false;
    }
    record.running_as.as_ref() != Some(&running)
}

/// How the engine differs from what is wanted through no doing of ours, as sentences for who can do something about it.
pub(crate) fn told(
    record: &Record,
    sighting: &Sighting,
    (shown, is_other_text): (ObservedState, bool),
    now: Timestamp,
    rules: &Reconcile,
) -> Option<String> {
    if record.call.is_some() {
        return None;
    }
    let heals = may_heal(record, now, rules);
    let by_hand = drift(record, shown).or_else(|| is_other_text.then(|| "its text was changed by hand".to_owned()));
    let is_healed = is_by_hand(record, shown, is_other_text);
    let stray = || {
        let job_id = sighting.strays.first().filter(|_| !heals)?;
        Some(format!("{job_id}, of an earlier deployment, runs beside it"))
    };
    let what = match by_hand.map(|what| (what, is_healed)).or_else(|| Some((stray()?, true))) {
        Some((what, false)) => what,
        Some((what, true)) if heals => what,
        Some((what, true)) if !rules.heal_drift => {
            format!("{what}; `manager.heal_drift` is off: put it right in the engine, or stop it and deploy it again")
        }
        Some((what, true)) => format!(
            "{what}; that was undone {} times and is let be until {}: ask for what is wanted once more (deploy, stop)",
            record.heals,
            again_at(record, rules)
        ),
        // What is nobody's attempt of ours is never ended without a person.
        None => {
            let foreign = sighting.foreign.first()?;
            format!("{foreign} fills its topic too, or bears its name, and is none of ours: end it in the engine")
        }
    };
    Some(what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::tests::convergence::record;

    #[test]
    fn it_is_undone_a_few_times_in_a_while() {
        let (rules, mut now) = (Reconcile::default(), Timestamp::UNIX_EPOCH);
        let mut record = record(EngineKind::Flink);
        for _ in 0..rules.heals {
            assert!(may_heal(&record, now, &rules));
            count(&mut record, now, &rules);
            now += SignedDuration::from_mins(10);
        }
        assert!(!may_heal(&record, now, &rules));
        now = Timestamp::UNIX_EPOCH + SignedDuration::try_from(rules.heals_within).unwrap();
        assert!(may_heal(&record, now, &rules), "from then on it counts anew");
        count(&mut record, now, &rules);
        assert_eq!(record.heals, 1);
        assert!(!may_heal(&record, now, &Reconcile { heal_drift: false, ..rules }));
    }
}
