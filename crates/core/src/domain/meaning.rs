//! What the rows of a build mean: the version of the projection that makes them, and the rules that it makes them by. It
//! is kept with the build, and the configuration only says what the next one would be. Pure.

use serde::{Deserialize, Serialize};

use crate::domain::build::BuildId;
use crate::domain::decimal::Decimal;
use crate::domain::history::History;
use crate::domain::units::Sequence;

/// The settings that say what a view's rows are. Stored with each build as JSON by these names: a further one needs a
/// default by which older builds were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewRules {
    /// What is kept of each event.
    pub history: History,
    /// Sequence of a key's first event: 0 or 1.
    #[serde(with = "number")]
    pub first_sequence: Sequence,
    /// Tax rate of items that carry none, a plain decimal.
    pub default_tax_rate: String,
}

/// A sequence as a plain number.
mod number {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Sequence;

    pub fn serialize<S: Serializer>(sequence: &Sequence, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(sequence.0)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sequence, D::Error> {
        i64::deserialize(deserializer).map(Sequence)
    }
}

/// What the rows of a build mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Version of the projection, [`crate::engine::view::ViewSpec::projection_version`].
    pub projection_version: i32,
    /// Its rules.
    pub rules: ViewRules,
}

/// A setting that says something else than what a build was made by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name in the settings; `projection_version` is the binary's.
    pub setting: &'static str,
    /// What the build keeps to.
    pub stored: String,
    /// What another build would be made by.
    pub configured: String,
}

const HISTORY: &str = "projector.history";
/// The setting that changes amounts, and nothing else.
pub const TAX_RATE: &str = "tax.default_rate";

/// The words of a setting as the settings have them.
const fn word(history: History) -> &'static str {
    match history {
        History::Payload => "payload",
        History::Compact => "compact",
        History::Off => "off",
    }
}

/// Whether both rates are the same number, however they are written.
fn is_same_rate(one: &str, other: &str) -> bool {
    one == other || matches!((Decimal::parse(one), Decimal::parse(other)), (Ok(one), Ok(other)) if one == other)
}

impl Meaning {
    /// Where the configuration says something else.
    pub fn differences(&self, configured: &Meaning) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut compare = |setting, is_same: bool, stored: String, configured: String| {
            if !is_same {
                differences.push(Difference { setting, stored, configured });
            }
        };
        let (mine, other) = (self.projection_version, configured.projection_version);
        compare("projection_version", mine == other, mine.to_string(), other.to_string());
        let (mine, other) = (&self.rules, &configured.rules);
        let (history, next) = (word(mine.history), word(other.history));
        compare(HISTORY, history == next, history.to_owned(), next.to_owned());
        let (first, next) = (mine.first_sequence, other.first_sequence);
        compare("projector.first_sequence", first == next, first.to_string(), next.to_string());
        let (rate, next) = (&mine.default_tax_rate, &other.default_tax_rate);
        compare(TAX_RATE, is_same_rate(rate, next), rate.clone(), next.clone());
        differences
    }
}

impl Meaning {
    /// Where another meaning of the same events makes other rows: what explains that two builds differ.
    ///
    /// | what differs | explains other rows |
    /// |---|---|
    /// | the version, the first number, the tax rate | yes |
    /// | whether events are kept at all | yes: without, ids are compared with the latest only |
    /// | whether they are kept with their payloads | no: rows are made by the same fold |
    pub fn explains(&self, other: &Meaning) -> Vec<Difference> {
        let keeps = |meaning: &Meaning| meaning.rules.history != History::Off;
        let explains = |difference: &Difference| difference.setting != HISTORY || keeps(self) != keeps(other);
        self.differences(other).into_iter().filter(explains).collect()
    }
}

/// Differences in one line for people.
pub fn in_words(differences: &[Difference]) -> String {
    let words = differences.iter().map(|Difference { setting, stored, configured }| {
        let of = if *setting == "projection_version" { "this binary has" } else { "configured is" };
        format!("{setting}: the build keeps {stored}, {of} {configured}")
    });
    words.collect::<Vec<_>>().join("; ")
}

/// What the control tables say of the rules of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredRules {
    /// Nothing: it was made before rules were kept.
    None,
    /// These.
    Known(ViewRules),
    /// Some that this binary does not know, of a later version; why.
    Unknown(String),
}

/// The meaning of a build as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMeaning {
    /// Version of the projection that the build was made for.
    pub projection_version: i32,
    /// Its rules.
    pub rules: StoredRules,
}

impl StoredMeaning {
    /// The meaning; of what nobody has stored, or what this binary does not know, what is configured stands for it.
    pub fn or(&self, configured: &Meaning) -> Meaning {
        let rules = match &self.rules {
            StoredRules::Known(rules) => rules.clone(),
            StoredRules::None | StoredRules::Unknown(_) => configured.rules.clone(),
        };
        Meaning { projection_version: self.projection_version, rules }
    }
}

/// What may be done with the rules of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openness {
    /// It has rows, or somebody fills it, or somebody has made it for these rules.
    Closed,
    /// It is the active build and nothing was consumed into it, so that no row has a meaning yet.
    Open,
}

/// The name of why a binary of another version stands still.
const OTHER_VERSION: &str = "projection_version_differs";

/// Why this binary may not project into a build. Reads go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Stable name.
    pub code: &'static str,
    /// A sentence with the next step.
    pub detail: String,
}

impl Standing {
    /// Whether it is because of another version of the projection.
    pub fn is_of_another_version(&self) -> bool {
        self.code == OTHER_VERSION
    }

    fn other_version(build: BuildId, stored: i32, ours: i32) -> Standing {
        let detail = format!(
            "{build} was made by projection version {stored}, and this binary has {ours}: it does not project into it. \
             Start the version that made it, or `streamview rebuild`; reads go on"
        );
        Standing { code: OTHER_VERSION, detail }
    }

    fn unknown_rules(build: BuildId, why: &str) -> Standing {
        let detail = format!(
            "{build} keeps rules that this binary does not know ({why}): it does not project into it. Start the version \
             that made it; reads go on"
        );
        Standing { code: "rules_unknown", detail }
    }
}

/// What follows for who wants to project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// By these rules, whatever is configured.
    Keep(ViewRules),
    /// By what is configured, which is to be stored.
    Take,
    /// Not at all.
    Stand(Standing),
}

/// By which rules `build` goes on.
///
/// | version | rules stored | the build | follows |
/// |---|---|---|---|
/// | another | any | any | stand still |
/// | ours | none | any | take what is configured: nobody knows better |
/// | ours | unknown ones | any | stand still |
/// | ours | as configured | any | keep |
/// | ours | others | open | take what is configured |
/// | ours | others | closed | keep |
pub fn settle(build: BuildId, stored: &StoredMeaning, configured: &Meaning, openness: Openness) -> Settlement {
    if stored.projection_version != configured.projection_version {
        let standing = Standing::other_version(build, stored.projection_version, configured.projection_version);
        return Settlement::Stand(standing);
    }
    match &stored.rules {
        StoredRules::None => Settlement::Take,
        StoredRules::Unknown(why) => Settlement::Stand(Standing::unknown_rules(build, why)),
        StoredRules::Known(rules) => {
            let differs = !stored.or(configured).differences(configured).is_empty();
            if differs && openness == Openness::Open { Settlement::Take } else { Settlement::Keep(rules.clone()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(projection_version: i32, rate: &str) -> Meaning {
        let rules =
            ViewRules { history: History::Payload, first_sequence: Sequence(1), default_tax_rate: rate.to_owned() };
        Meaning { projection_version, rules }
    }

    #[test]
    fn the_rules_of_a_build_follow_the_truth_table() {
        let (build, configured) = (BuildId::new("orders", 3), meaning(2, "0.07"));
        let known = |rate| StoredRules::Known(meaning(2, rate).rules);
        let unknown = StoredRules::Unknown("unknown field `rounding`".to_owned());
        let keeps = |rate| Settlement::Keep(meaning(2, rate).rules);
        let rows = [
            (2, StoredRules::None, Openness::Closed, Settlement::Take),
            (2, StoredRules::None, Openness::Open, Settlement::Take),
            (2, known("0.07"), Openness::Open, keeps("0.07")),
            (2, known("0.070"), Openness::Open, keeps("0.070")),
            (2, known("0.19"), Openness::Open, Settlement::Take),
            (2, known("0.19"), Openness::Closed, keeps("0.19")),
        ];
        for (projection_version, rules, openness, expected) in rows {
            let stored = StoredMeaning { projection_version, rules };
            assert_eq!(settle(build, &stored, &configured, openness), expected, "{stored:?} {openness:?}");
        }
        let stands = [
            (1, StoredRules::None, "projection_version_differs", "made by projection version 1, and this binary has 2"),
            (3, known("0.07"), "projection_version_differs", "made by projection version 3"),
            (2, unknown, "rules_unknown", "unknown field `rounding`"),
        ];
        for (projection_version, rules, code, words) in stands {
            let stored = StoredMeaning { projection_version, rules };
            for openness in [Openness::Open, Openness::Closed] {
                let Settlement::Stand(standing) = settle(build, &stored, &configured, openness) else {
                    panic!("{stored:?}")
                };
                assert_eq!(standing.code, code);
                assert_eq!(standing.is_of_another_version(), code == "projection_version_differs");
                assert!(standing.detail.contains(words), "{standing:?}");
            }
        }
    }

    #[test]
    fn each_setting_that_differs_is_named_with_both_values() {
        let stored = meaning(1, "0.19");
        assert_eq!(stored.differences(&meaning(1, "0.190")), [], "the same number");
        let rules =
            ViewRules { history: History::Off, first_sequence: Sequence(0), default_tax_rate: "0.07".to_owned() };
        let differences = stored.differences(&Meaning { projection_version: 2, rules });
        assert_eq!(
            in_words(&differences),
            "projection_version: the build keeps 1, this binary has 2; \
             projector.history: the build keeps payload, configured is off; \
             projector.first_sequence: the build keeps 1, configured is 0; \
             tax.default_rate: the build keeps 0.19, configured is 0.07"
        );
    }

    #[test]
    fn whether_payloads_are_kept_explains_no_other_row() {
        let with = |history| Meaning { rules: ViewRules { history, ..meaning(1, "0.19").rules }, ..meaning(1, "0.19") };
        let (payload, compact, off) = (with(History::Payload), with(History::Compact), with(History::Off));
        let explained = |one: &Meaning, other: &Meaning| -> Vec<&str> {
            one.explains(other).into_iter().map(|difference| difference.setting).collect()
        };
        assert_eq!(explained(&payload, &compact), [] as [&str; 0]);
        assert_eq!(explained(&compact, &off), ["projector.history"]);
        assert_eq!(explained(&payload, &meaning(1, "0.07")), ["tax.default_rate"]);
        assert_eq!(explained(&compact, &meaning(2, "0.07")), ["projection_version", "tax.default_rate"]);
    }

    #[test]
    fn rules_are_stored_by_names_that_stay() {
        let text = r#"{"history":"payload","first_sequence":1,"default_tax_rate":"0.19"}"#;
        let rules = meaning(1, "0.19").rules;
        assert_eq!(serde_json::to_string(&rules).unwrap(), text);
        assert_eq!(serde_json::from_str::<ViewRules>(text).unwrap(), rules);
        let later = text.replace('}', r#","rounding":"down"}"#);
        assert!(serde_json::from_str::<ViewRules>(&later).is_err(), "what is not known is not passed over");
    }
}
