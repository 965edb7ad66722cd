//! Which text runs, where that is not known: one name is that of all revisions (ksqlDB), and a deployment whose outcome is not
//! known was left off because nobody wanted it any more. The text before runs, or the one that was left off; whichever is
//! wanted next is deployed once more. Pure.
//!
//! It is stored in [`Record::running_as`]: as long as there is a doubt, there are no engine's words for a text of ours.

use super::record::Record;

const MARK: char = '?';

/// The revisions that may run instead of the one that counts as deployed.
fn others(record: &Record) -> Vec<i32> {
    let known = record.running_as.as_deref().and_then(|known| known.strip_prefix(MARK));
    known.into_iter().flat_map(|known| known.split(',')).filter_map(|number| number.parse().ok()).collect()
}

fn write(record: &mut Record, others: &[i32]) {
    let others: Vec<String> = others.iter().map(i32::to_string).collect();
    record.running_as = (!others.is_empty()).then(|| format!("{MARK}{}", others.join(",")));
}

/// Whether another revision may run than the one that counts as deployed.
pub(crate) fn is_in_doubt(record: &Record) -> bool {
    !others(record).is_empty()
}

/// That revision may run by now, or not.
pub(super) fn may_run(record: &mut Record, revision: i32) {
    let mut others = others(record);
    if record.deployed_revision != Some(revision) && !others.contains(&revision) {
        others.push(revision);
        write(record, &others);
    }
}

/// What runs is known again.
pub(super) fn end(record: &mut Record) {
    if is_in_doubt(record) {
        record.running_as = None;
    }
}

/// That revision does not run: the engine would have found it there.
pub(super) fn rule_out(record: &mut Record, revision: i32) {
    let mut others = others(record);
    if others.is_empty() {
        return;
    }
    if record.deployed_revision == Some(revision) {
        record.deployed_revision = Some(others.remove(0));
    } else {
        others.retain(|other| *other != revision);
    }
    write(record, &others);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::EngineKind;
    use crate::tests::convergence::record;

    #[test]
    fn what_cannot_run_is_ruled_out_until_one_is_left() {
        let mut record = Record { deployed_revision: Some(1), ..record(EngineKind::Ksqldb) };
        for revision in [1, 2, 3, 2] {
            may_run(&mut record, revision);
        }
        assert_eq!(others(&record), [2, 3]);
        rule_out(&mut record, 1);
        assert_eq!((record.deployed_revision, others(&record)), (Some(2), vec![3]));
        rule_out(&mut record, 4);
        assert!(is_in_doubt(&record));
        rule_out(&mut record, 3);
        assert_eq!((record.deployed_revision, record.running_as.as_deref()), (Some(2), None));
        record.running_as = Some("7:ab".to_owned());
        rule_out(&mut record, 2);
        end(&mut record);
        assert_eq!((record.deployed_revision, record.running_as.as_deref()), (Some(2), Some("7:ab")));
    }
}
