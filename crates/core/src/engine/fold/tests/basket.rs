//! A view for the tests of the fold, with all that a view can do: known types, a refusal of its own, further rows, oddities.

use std::borrow::Cow;

use serde::Deserialize;

use crate::codec::{Head, avro};
use crate::domain::poison::{Poison, Reason};
use crate::domain::units::Micros;
use crate::engine::view::{BuildScripts, Parsed, StoredDetails, View, ViewSpec};

/// The view.
#[derive(Debug)]
pub struct Basket {
    spec: ViewSpec,
}

/// What happened to a basket. Fields that an event has not are left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fields<'a> {
    #[serde(borrow)]
    event_id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    occurred_at: i64,
    #[serde(default)]
    quantity: Option<i64>,
    #[serde(default)]
    note: Option<&'a str>,
}

#[derive(Debug, Clone)]
pub enum Event<'a> {
    Put(i64),
    Noted(&'a str),
}

/// Its state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub lines: i64,
    pub quantity: i64,
    pub notes: Vec<String>,
    pub updated_at: Option<Micros>,
}

/// A line of its.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub basket: &'a str,
    pub number: i64,
    pub quantity: i64,
}

impl Basket {
    pub fn new() -> Self {
        let spec = ViewSpec {
            name: "baskets",
            projection_version: 1,
            event_types: vec![Cow::Borrowed("Put"), Cow::Borrowed("Noted")],
            avro: avro::Shape::NONE,
            event_id_constraint: Some(Cow::Borrowed("baskets_event_id")),
            tables: BuildScripts::NONE,
        };
        Basket { spec }
    }
}

impl View for Basket {
    type Event<'a> = Event<'a>;
    type State = State;
    type Detail<'a> = Line<'a>;

    fn spec(&self) -> &ViewSpec {
        &self.spec
    }

    /// In version 2 quantities are dozens.
    fn parse<'a>(&self, head: &Head<'a>, payload: &'a str) -> Result<Parsed<'a, Event<'a>>, Poison> {
        let fields: Fields<'a> =
            serde_json::from_str(payload).map_err(|error| Poison::new(Reason::InvalidJson, error.to_string()))?;
        let event = match fields.event_type {
            "Put" if head.version == 2 => Some(Event::Put(12 * fields.quantity.unwrap_or(0))),
            "Put" => Some(Event::Put(fields.quantity.unwrap_or(0))),
            "Noted" => Some(Event::Noted(fields.note.unwrap_or_default())),
            _ => None,
        };
        let (event_id, event_type) = (fields.event_id.into(), fields.event_type.into());
        Ok(Parsed { event_id, event_type, occurred_at: Micros(fields.occurred_at), event })
    }

    /// Events of version 2 say what they are counted in.
    fn stored_version(&self, _: &Head<'_>, payload: &str, _: &State, _: &StoredDetails) -> u32 {
        if payload.contains(r#""in":"dozens""#) { 2 } else { 1 }
    }

    /// Nothing can be put in less than nothing.
    fn project<'a>(
        &self,
        key: &'a str,
        state: &mut State,
        event: Event<'a>,
        occurred_at: Micros,
        details: &mut Vec<Line<'a>>,
    ) -> Result<u64, Poison> {
        let odd = match event {
            Event::Put(quantity) => {
                let sum = state.quantity.checked_add(quantity).filter(|sum| *sum >= 0);
                let detail = || format!("{quantity} would leave less than nothing of {}", state.quantity);
                state.quantity = sum.ok_or_else(|| Poison::new(Reason::SchemaViolation, detail()))?;
                state.lines += 1;
                details.push(Line { basket: key, number: state.lines, quantity });
                u64::from(quantity == 0)
            }
            Event::Noted(note) => {
                state.notes.push(note.to_owned());
                0
            }
        };
        state.updated_at = state.updated_at.max(Some(occurred_at));
        Ok(odd)
    }

    fn skip(&self, state: &mut State, occurred_at: Micros) {
        state.updated_at = state.updated_at.max(Some(occurred_at));
    }

    fn state_bytes(&self, state: &State) -> usize {
        state.notes.iter().map(String::len).sum()
    }
}
