//! What a comparison of two builds of a view found, or of a build with what its ledger or its log says it should be.
//!
//! Values are compared and shown as text, as Postgres writes them: `12.5` and `12.50` differ, because the projection is
//! deterministic in its scales too, and what readers are shown is the text.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::word::UnknownWord;

/// Most keys in the sample of a [`Comparison`].
pub const SAMPLE: usize = 100;
/// Most columns that a [`Difference`] names.
pub const COLUMNS: usize = 100;
/// The column by which keys differ that are not equally far.
pub const LAST_SEQUENCE: &str = "lastEventSequence";

/// The result. `compared` = `equal` + `different` + `only_old` + `only_new`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Keys looked at.
    pub compared: u64,
    /// Those that are the same in both.
    pub equal: u64,
    /// Those that are in both and not the same.
    pub different: u64,
    /// Those that only the old one has.
    pub only_old: u64,
    /// Those that only the new one has.
    pub only_new: u64,
    /// In how many of the `different` keys each column differs. Rows of one key are not told apart here: `items[].price`.
    pub columns: BTreeMap<String, u64>,
    /// The first [`SAMPLE`] keys that are not equal, in the order of the keys.
    pub sample: Vec<Difference>,
}

impl Comparison {
    /// Notes that so many `keys` are equal.
    pub fn equal(&mut self, keys: u64) {
        self.compared += keys;
        self.equal += keys;
    }

    /// Notes a key that is not.
    pub fn found(&mut self, difference: Difference) {
        self.compared += 1;
        match difference.found {
            Found::Different => self.different += 1,
            Found::MissingNew => self.only_old += 1,
            Found::MissingOld => self.only_new += 1,
        }
        if difference.found == Found::Different {
            for name in difference.names() {
                *self.columns.entry(name).or_default() += 1;
            }
        }
        let place = self.sample.partition_point(|known| known.key <= difference.key);
        self.sample.insert(place, difference);
        self.sample.truncate(SAMPLE);
    }

    /// Adds what was found of other keys.
    pub fn merge(&mut self, other: Comparison) {
        self.compared += other.compared;
        self.equal += other.equal;
        self.different += other.different;
        self.only_old += other.only_old;
        self.only_new += other.only_new;
        for (name, count) in other.columns {
            *self.columns.entry(name).or_default() += count;
        }
        self.sample.extend(other.sample);
        self.sample.sort_by(|one, two| one.key.cmp(&two.key));
        self.sample.truncate(SAMPLE);
    }

    /// Whether every key is equal.
    pub fn is_clean(&self) -> bool {
        self.compared == self.equal
    }
}

/// How a key is not equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It is in both, with other values.
    Different,
    /// The old one does not have it.
    MissingOld,
    /// The new one does not have it.
    MissingNew,
}

impl Found {
    /// All of them.
    pub const ALL: [Found; 3] = [Found::Different, Found::MissingOld, Found::MissingNew];

    /// The word in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Found::Different => "different",
            Found::MissingOld => "missing_old",
            Found::MissingNew => "missing_new",
        }
    }
}

impl FromStr for Found {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = Found::ALL.into_iter().find(|found| found.as_str() == word);
        found.ok_or_else(|| UnknownWord::new("finding", word, &Found::ALL.map(Found::as_str)))
    }
}

/// A key that is not equal, and what differs in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The key.
    pub key: String,
    /// How it is not equal.
    pub found: Found,
    /// What differs, at most [`COLUMNS`]: `status`, `items[2].price`, or `items[2]` for a row that one of them does not have.
    pub columns: BTreeMap<String, Values>,
    /// How much more differs.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub more: u64,
}

/// A value in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    /// In the old one: a text, null, or a whole row as an object of those.
    pub old: Value,
    /// In the new one.
    pub new: Value,
}

fn is_nothing(count: &u64) -> bool {
    *count == 0
}

/// A row: the text of each column by its name in SQL, null where there is none.
pub type RowText = BTreeMap<String, Option<String>>;

impl Difference {
    /// Nothing is known to differ yet.
    pub fn of(key: &str) -> Self {
        Difference { key: key.to_owned(), found: Found::Different, columns: BTreeMap::new(), more: 0 }
    }

    /// A key that is in one of them only, or is not equally far in both: by its last sequence, if it is there. `None` if
    /// that is the same.
    pub fn of_sequences(key: &str, old: Option<i64>, new: Option<i64>) -> Option<Self> {
        let found = match (old, new) {
            (Some(_), None) => Found::MissingNew,
            (None, Some(_)) => Found::MissingOld,
            _ if old == new => return None,
            _ => Found::Different,
        };
        let mut difference = Difference { found, ..Difference::of(key) };
        let text = |sequence: Option<i64>| sequence.map_or(Value::Null, |sequence| Value::String(sequence.to_string()));
        difference.values(LAST_SEQUENCE, text(old), text(new));
        Some(difference)
    }

    /// Notes a value that is not the same in both.
    pub fn values(&mut self, column: &str, old: Value, new: Value) {
        if old == new {
            return;
        }
        if self.columns.len() < COLUMNS {
            self.columns.insert(column.to_owned(), Values { old, new });
        } else {
            self.more += 1;
        }
    }

    /// Notes in which columns the key's own row differs.
    pub fn row(&mut self, old: &RowText, new: &RowText) {
        self.columns_of("", old, new);
    }

    /// Notes how its rows in another table differ, by their numbers. `name` is what these rows are called.
    pub fn rows(&mut self, name: &str, old: &BTreeMap<i64, RowText>, new: &BTreeMap<i64, RowText>) {
        let numbers: BTreeSet<i64> = old.keys().chain(new.keys()).copied().collect();
        for number in numbers {
            let place = format!("{name}[{number}]");
            match (old.get(&number), new.get(&number)) {
                (Some(old), Some(new)) => self.columns_of(&format!("{place}."), old, new),
                (old, new) => self.values(&place, whole(old), whole(new)),
            }
        }
    }

    fn columns_of(&mut self, prefix: &str, old: &RowText, new: &RowText) {
        let columns: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for column in columns {
            self.values(&format!("{prefix}{}", camel_case(column)), value(old.get(column)), value(new.get(column)));
        }
    }

    /// What differs, without the numbers of rows: `items[].price`.
    fn names(&self) -> BTreeSet<String> {
        let without_number = |column: &String| {
            let parts = column.split_once('[').and_then(|(list, rest)| Some((list, rest.split_once(']')?.1)));
            parts.map_or_else(|| column.clone(), |(list, rest)| format!("{list}[]{rest}"))
        };
        self.columns.keys().map(without_number).collect()
    }
}

fn value(text: Option<&Option<String>>) -> Value {
    text.cloned().flatten().map_or(Value::Null, Value::String)
}

fn whole(row: Option<&RowText>) -> Value {
    let Some(row) = row else { return Value::Null };
    Value::Object(row.iter().map(|(column, text)| (camel_case(column), value(Some(text)))).collect())
}

/// The name of a column as answers have it: `total_net` is `totalNet`.
pub fn camel_case(column: &str) -> String {
    let mut words = column.split('_').filter(|word| !word.is_empty());
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn row(columns: &[(&str, Option<&str>)]) -> RowText {
        columns.iter().map(|(name, text)| ((*name).to_owned(), text.map(str::to_owned))).collect()
    }

    fn different(key: &str, column: &str) -> Difference {
        let mut difference = Difference::of(key);
        difference.values(column, json!("1"), json!("2"));
        difference
    }

    #[test]
    fn a_key_is_counted_once_and_its_columns_without_the_numbers_of_rows() {
        let mut difference = Difference::of("o-1");
        difference.row(
            &row(&[("order_status", Some("Paid")), ("total_net", Some("12.5")), ("currency", None)]),
            &row(&[("order_status", Some("Paid")), ("total_net", Some("12.50")), ("currency", None)]),
        );
        let line = |price: &str| row(&[("price", Some(price)), ("sku", Some("a"))]);
        let (old, new) = (BTreeMap::from([(1, line("1")), (2, line("5"))]), BTreeMap::from([(1, line("2"))]));
        difference.rows("items", &old, &new);
        let mut comparison = Comparison::default();
        comparison.equal(7);
        comparison.found(difference);
        comparison.found(different("o-0", "items[9].price"));
        comparison.found(Difference::of_sequences("o-2", Some(3), None).unwrap());
        comparison.found(Difference::of_sequences("o-3", None, Some(1)).unwrap());
        let shown = serde_json::to_value(&comparison).unwrap();
        let text = |old: Value, new: Value| json!({ "old": old, "new": new });
        assert_eq!(
            shown,
            json!({
                "compared": 11, "equal": 7, "different": 2, "onlyOld": 1, "onlyNew": 1,
                "columns": { "totalNet": 1, "items[]": 1, "items[].price": 2 },
                "sample": [
                    { "key": "o-0", "found": "different", "columns": { "items[9].price": text(json!("1"), json!("2")) } },
                    { "key": "o-1", "found": "different", "columns": {
                        "totalNet": text(json!("12.5"), json!("12.50")),
                        "items[1].price": text(json!("1"), json!("2")),
                        "items[2]": text(json!({ "price": "5", "sku": "a" }), json!(null)),
                    } },
                    { "key": "o-2", "found": "missing_new",
                      "columns": { "lastEventSequence": text(json!("3"), json!(null)) } },
                    { "key": "o-3", "found": "missing_old",
                      "columns": { "lastEventSequence": text(json!(null), json!("1")) } },
                ],
            })
        );
        assert_eq!(serde_json::from_value::<Comparison>(shown).unwrap(), comparison);
        assert!(!comparison.is_clean());
    }

    #[test]
    fn nothing_but_equal_keys_is_clean() {
        let mut comparison = Comparison::default();
        assert!(comparison.is_clean());
        comparison.equal(3);
        assert!(comparison.is_clean());
        comparison.found(different("o-1", "a"));
        assert!(!comparison.is_clean());
    }

    #[test]
    fn parts_are_added_up() {
        let part = |equal, keys: &[&str]| {
            let mut part = Comparison::default();
            part.equal(equal);
            keys.iter().for_each(|key| part.found(different(key, "a")));
            part.found(Difference::of_sequences(&format!("{equal}-old"), Some(1), None).unwrap());
            part.found(Difference::of_sequences(&format!("{equal}-new"), None, Some(1)).unwrap());
            part
        };
        let mut whole = part(3, &["x", "y"]);
        whole.merge(part(4, &["z"]));
        let counts = (whole.compared, whole.equal, whole.different, whole.only_old, whole.only_new);
        assert_eq!(counts, (14, 7, 3, 2, 2));
        assert_eq!(whole.columns, BTreeMap::from([("a".to_owned(), 3)]));
        let keys: Vec<&str> = whole.sample.iter().map(|difference| difference.key.as_str()).collect();
        assert_eq!(keys, ["3-new", "3-old", "4-new", "4-old", "x", "y", "z"]);
    }

    #[test]
    fn equally_far_is_no_difference_and_a_column_that_only_one_has_is_one() {
        assert_eq!(Difference::of_sequences("o-1", Some(3), Some(3)), None);
        assert_eq!(Difference::of_sequences("o-1", Some(3), Some(4)).unwrap().found, Found::Different);
        let mut difference = Difference::of("o-1");
        difference.row(&row(&[("a", Some("1"))]), &row(&[("a", Some("1")), ("b_c", Some("2"))]));
        assert_eq!(difference.columns.keys().collect::<Vec<_>>(), ["bC"]);
    }

    #[test]
    fn what_differs_beyond_the_bound_is_counted() {
        let rows = |text: &str| -> BTreeMap<i64, RowText> {
            (0..COLUMNS as i64 + 5).map(|number| (number, row(&[("a", Some(text))]))).collect()
        };
        let mut difference = Difference::of("o-1");
        difference.rows("items", &rows("1"), &rows("2"));
        assert_eq!((difference.columns.len(), difference.more), (COLUMNS, 5));
        let shown = serde_json::to_value(&difference).unwrap();
        assert_eq!(shown["more"], 5);
        assert_eq!(serde_json::from_value::<Difference>(shown).unwrap(), difference);
        assert_eq!(serde_json::to_value(Difference::of("o-1")).unwrap().get("more"), None);
    }

    #[test]
    fn words_read_back_as_they_are_written() {
        for found in Found::ALL {
            assert_eq!(found.as_str().parse(), Ok(found));
            assert_eq!(serde_json::to_value(found).unwrap(), json!(found.as_str()));
        }
    }

    fn part() -> impl Strategy<Value = Comparison> {
        let key = prop::collection::btree_set(0..2_000_u32, 0..150);
        (0..5_u64, key, 0..3_usize).prop_map(|(equal, keys, column)| {
            let mut part = Comparison::default();
            part.equal(equal);
            for key in keys {
                part.found(different(&format!("{key:04}"), ["a", "b", "c[1].d"][column]));
            }
            part
        })
    }

    #[test]
    fn columns_are_named_as_in_answers() {
        let names = ["status", "total_net", "_a__b_", "überall_éclat", ""].map(camel_case);
        assert_eq!(names, ["status", "totalNet", "aB", "überalléclat", ""].map(str::to_owned));
    }

    proptest! {
        /// However the keys were cut into parts, and whichever part came first.
        #[test]
        fn parts_make_the_same_whole_in_any_order(parts in prop::collection::vec(part(), 1..4)) {
            let whole = |parts: &mut dyn Iterator<Item = &Comparison>| {
                let mut whole = Comparison::default();
                parts.for_each(|part| whole.merge(part.clone()));
                whole.sample.sort_by(|one, two| format!("{one:?}").cmp(&format!("{two:?}")));
                whole
            };
            let (there, back) = (whole(&mut parts.iter()), whole(&mut parts.iter().rev()));
            prop_assert_eq!(there.sample.len(), SAMPLE.min(there.different as usize));
            let keys = |whole: &Comparison| whole.sample.iter().map(|d| d.key.clone()).collect::<Vec<_>>();
            prop_assert_eq!(keys(&there), keys(&back));
            prop_assert_eq!((there.compared, &there.columns), (back.compared, &back.columns));
            prop_assert_eq!(there.compared, there.equal + there.different + there.only_old + there.only_new);
        }
    }
}
