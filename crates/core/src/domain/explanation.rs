//! Whether what a comparison of two builds found is as it should be: their rows are the same, but where they are meant to mean
//! something else. Pure.

use std::collections::BTreeMap;

use super::comparison::{Comparison, LAST_SEQUENCE};
use super::meaning::{Difference, TAX_RATE};

/// Columns that differ for no reason, and in how many keys; keys that only one build has differ in how far they are.
/// `reasons` are those of [`super::meaning::Meaning::explains`], `of_tax_rate` the columns that another default tax rate changes.
///
/// | reasons | explained is |
/// |---|---|
/// | none | nothing |
/// | the default tax rate only | its columns |
/// | any other | everything |
pub fn unexplained(comparison: &Comparison, reasons: &[Difference], of_tax_rate: &[&str]) -> BTreeMap<String, u64> {
    if reasons.iter().any(|reason| reason.setting != TAX_RATE) {
        return BTreeMap::new();
    }
    let mut columns = comparison.columns.clone();
    let in_one = comparison.only_old + comparison.only_new;
    if in_one > 0 {
        *columns.entry(LAST_SEQUENCE.to_owned()).or_default() += in_one;
    }
    if !reasons.is_empty() {
        columns.retain(|column, _| !of_tax_rate.contains(&column.as_str()));
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(setting: &'static str) -> Difference {
        Difference { setting, stored: "1".to_owned(), configured: "2".to_owned() }
    }

    #[test]
    fn what_is_explained_follows_the_truth_table() {
        let columns = [("status", 2), ("totalGross", 3)].map(|(name, count)| (name.to_owned(), count));
        let comparison = Comparison {
            compared: 9,
            equal: 4,
            different: 3,
            only_new: 2,
            columns: columns.into(),
            ..Default::default()
        };
        let left = |reasons: &[Difference]| unexplained(&comparison, reasons, &["totalGross"]);
        let named =
            |columns: &[(&str, u64)]| columns.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        assert_eq!(left(&[]), named(&[("lastEventSequence", 2), ("status", 2), ("totalGross", 3)]));
        assert_eq!(left(&[reason(TAX_RATE)]), named(&[("lastEventSequence", 2), ("status", 2)]));
        assert_eq!(left(&[reason(TAX_RATE), reason("projection_version")]), named(&[]));
        assert_eq!(left(&[reason("projector.first_sequence")]), named(&[]));
        assert_eq!(unexplained(&Comparison::default(), &[], &[]), named(&[]), "nothing differs");
    }
}
