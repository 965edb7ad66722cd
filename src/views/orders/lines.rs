//! The lines that an `OrderCreated` comes with: how many, and how they are opened. What one of them says
//! [`super::event`] reads. Pure.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::codec::fields::{Field, FieldSet, Typed};
use crate::domain::poison::{Poison, Reason};
use crate::views::orders::event::{Fields, Item, item, object};
use crate::views::orders::versions::Version;

/// Most items in one `OrderCreated`.
pub const MAX_ITEMS: usize = 10_000;
/// Longest list of items that is read in one pass, in bytes: `{},{}` and so on grows to 75 times its size. Fewer than
/// [`MAX_ITEMS`] fit in.
const MAX_AT_ONCE: usize = 16 << 10;

/// A field that may hold the lines of an order.
pub(super) trait Lines<'a>: Field<'a> {
    /// The fields of all lines in one pass; `None` decides nothing: [`Lines::open`] does, line by line.
    fn open_all(&self) -> Option<Vec<Fields<Self>>>;
    /// The fields of one line.
    fn open(line: Self::Entry) -> Result<Fields<Self>, Poison>;
}

impl<'a> Lines<'a> for &'a RawValue {
    fn open_all(&self) -> Option<Vec<Fields<Self>>> {
        let list = Some(self.get()).filter(|list| list.len() <= MAX_AT_ONCE)?;
        let lines: Vec<Object<Self>> = serde_json::from_str(list).ok()?;
        Some(lines.into_iter().map(|Object(fields)| fields).collect())
    }

    fn open(line: &'a RawValue) -> Result<Fields<Self>, Poison> {
        object(line.get(), "the item")
    }
}

impl<'a> Lines<'a> for Typed<'a> {
    fn open_all(&self) -> Option<Vec<Fields<Self>>> {
        None
    }

    fn open(line: FieldSet<'a>) -> Result<Fields<Self>, Poison> {
        Ok(Fields::of(line))
    }
}

/// The items of an order, of which `version` says how they state their tax.
pub(super) fn items<'a, F: Lines<'a>>(version: Version, field: Option<F>) -> Result<Vec<Item<'a>>, Poison> {
    let refused = |shown: Option<String>| {
        let shown = shown.unwrap_or_else(|| "missing".to_owned());
        let detail = format!("field items is {shown}; expected an array of at most {MAX_ITEMS} items");
        Poison::new(Reason::SchemaViolation, detail)
    };
    let Some(field) = field else { return Err(refused(None)) };
    if let Some(lines) = field.open_all() {
        return items_of(version, lines.into_iter().map(Ok));
    }
    let list = field.entries(MAX_ITEMS).map_err(|field| refused(Some(field.shown())))?;
    items_of(version, list.into_iter().map(F::open))
}

fn items_of<'a, F: Field<'a>>(
    version: Version,
    lines: impl ExactSizeIterator<Item = Result<Fields<F>, Poison>>,
) -> Result<Vec<Item<'a>>, Poison> {
    let mut items = Vec::with_capacity(lines.len());
    for (index, line) in lines.enumerate() {
        let item = line.and_then(|fields| item(version, &fields));
        items.push(item.map_err(|Poison { detail, .. }| {
            Poison::new(Reason::SchemaViolation, format!("items[{index}]: {detail}"))
        })?);
    }
    Ok(items)
}

/// Fields of an object: as derived they are those of a list of values, too.
struct Object<F>(Fields<F>);

impl<'de, F: Deserialize<'de>> Deserialize<'de> for Object<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OfObject(PhantomData))
    }
}

struct OfObject<F>(PhantomData<F>);

impl<'de, F: Deserialize<'de>> Visitor<'de> for OfObject<F> {
    type Value = Object<F>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Object<F>, M::Error> {
        Fields::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    type Read<'a> = Option<Result<Vec<Item<'a>>, Poison>>;

    /// Lines in one pass, and one by one.
    fn both_ways(list: &str) -> (Read<'_>, Read<'_>) {
        let list: &RawValue = serde_json::from_str(list).unwrap();
        let at_once = list.open_all().map(|lines| items_of(Version::One, lines.into_iter().map(Ok)));
        let entries = list.entries(MAX_ITEMS).ok();
        (at_once, entries.map(|entries| items_of(Version::One, entries.into_iter().map(<&RawValue>::open))))
    }

    #[test]
    fn lists_up_to_a_bound_are_read_in_one_pass() {
        let line = r#"{"itemId":"i","sku":"s","qty":1,"price":1}"#;
        let padded = |length: usize| format!("[{line}{}]", " ".repeat(length - line.len() - 2));
        for (list, is_at_once) in [("[]", true), (&padded(MAX_AT_ONCE), true), (&padded(MAX_AT_ONCE + 1), false)] {
            let (at_once, one_by_one) = both_ways(list);
            assert_eq!(at_once.is_some(), is_at_once);
            assert!(one_by_one.unwrap().is_ok());
        }
        assert!("{},".len() * MAX_ITEMS > MAX_AT_ONCE, "nothing in one pass has too many items");
    }

    fn any_line() -> impl Strategy<Value = String> {
        const FIELDS: [&str; 12] = [
            r#""itemId":"i-1""#,
            r#""itemId":"i-2""#,
            r#""item\u0049d":"i-3""#,
            r#""sku":"s\u00fc""#,
            r#""sku":null"#,
            r#""qty":2.50"#,
            r#""qty":"x""#,
            r#""price":"9.99""#,
            r#""taxRate":0.19"#,
            r#""taxPercent":[19]"#,
            r#""new":{"itemId":[{}]}"#,
            r#""\ud800":1"#,
        ];
        const OTHERS: [&str; 8] = [
            "7",
            "null",
            "[]",
            "{}",
            r#"["OrderCreated","e","t","o","c","EUR",[],"s","i-1","s",1,2,0.1,1]"#,
            r#"[[{"itemId":"i","sku":"s","qty":1,"price":1}]]"#,
            r#" {"itemId":"i", "sku":"s" ,"qty":1,"price":1, "taxRate": null} "#,
            r#""{}""#,
        ];
        let whole = Just(r#"{"itemId":"i","sku":"s","qty":1,"price":1.00}"#.to_owned());
        let fields = prop::sample::subsequence(FIELDS.to_vec(), 0..6).prop_shuffle();
        prop_oneof![
            6 => whole,
            3 => fields.prop_map(|fields| format!("{{{}}}", fields.join(","))),
            1 => prop::sample::select(&OTHERS[..]).prop_map(str::to_owned),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
        #[test]
        fn lines_in_one_pass_are_what_they_are_one_by_one(lines in prop::collection::vec(any_line(), 0..4)) {
            let list = format!("[{}]", lines.join(","));
            let (at_once, one_by_one) = both_ways(&list);
            prop_assert!(at_once.is_none() || at_once == one_by_one, "{}: {:?}, {:?}", list, at_once, one_by_one);
            // Nothing that is read takes the long way.
            prop_assert!(at_once.is_some() || one_by_one.is_none_or(|items| items.is_err()), "{}", list);
        }
    }
}
