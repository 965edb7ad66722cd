//! The orders view as a binary has it in whose fold somebody has made a mistake: the engine, tables, routes and names are the
//! same.

use streamview::codec::{Head, avro};
use streamview::domain::decimal::Decimal;
use streamview::domain::poison::Poison;
use streamview::domain::units::Micros;
use streamview::engine::view::{ChangedKey, Parsed, StoredDetails, StoredKey, View, ViewSpec, WriteSet};
use streamview::registrations::Registration;
use streamview::store::fence::Writing;
use streamview::store::rows::{Rows, Stored, Written};
use streamview::store::{Connection, DbError};
use streamview::views::orders::event::OrderEvent;
use streamview::views::orders::project::OrderState;
use streamview::views::orders::rows::OrderRows;
use streamview::views::orders::{OrderLine, Orders, api, queries};

/// The view, whose lines of one article cost a cent too much.
pub struct Flawed(Orders);

/// The article.
const SKU: &str = "CUP";

/// The registry line.
pub fn registration() -> Registration {
    Registration::of("orders", Some(queries::sequences), Some(api::configure), |name, rules| {
        Ok(Flawed(Orders::new(name, Decimal::parse(&rules.default_tax_rate)?)))
    })
    .unwrap()
}

impl View for Flawed {
    type Event<'a> = OrderEvent<'a>;
    type State = OrderState;
    type Detail<'a> = OrderLine<'a>;

    fn spec(&self) -> &ViewSpec {
        self.0.spec()
    }

    fn parse<'a>(&self, head: &Head<'a>, payload: &'a str) -> Result<Parsed<'a, OrderEvent<'a>>, Poison> {
        self.0.parse(head, payload)
    }

    fn parse_avro<'a>(&self, head: &Head<'a>, event: avro::Event<'a>) -> Result<Parsed<'a, OrderEvent<'a>>, Poison> {
        self.0.parse_avro(head, event)
    }

    fn parse_stored<'a>(&self, head: &Head<'a>, payload: &'a str) -> Result<Option<OrderEvent<'a>>, Poison> {
        self.0.parse_stored(head, payload)
    }

    fn stored_version(&self, head: &Head<'_>, payload: &str, state: &OrderState, stored: &StoredDetails) -> u32 {
        self.0.stored_version(head, payload, state, stored)
    }

    fn project<'a>(
        &self,
        key: &'a str,
        state: &mut OrderState,
        event: OrderEvent<'a>,
        occurred_at: Micros,
        details: &mut Vec<OrderLine<'a>>,
    ) -> Result<u64, Poison> {
        let before = details.len();
        let odd = self.0.project(key, state, event, occurred_at, details)?;
        let cent = Decimal::new(1, 2);
        for line in details[before..].iter_mut().map(|detail| &mut detail.line).filter(|line| line.item.sku == SKU) {
            line.gross = line.gross.checked_add(cent).unwrap();
            state.total_gross = state.total_gross.checked_add(cent).unwrap();
        }
        Ok(odd)
    }

    fn skip(&self, state: &mut OrderState, occurred_at: Micros) {
        self.0.skip(state, occurred_at);
    }

    fn state_bytes(&self, state: &OrderState) -> usize {
        self.0.state_bytes(state)
    }
}

impl Stored for Flawed {
    type Rows = FlawedRows;
}

/// The rows are the same.
pub struct FlawedRows(OrderRows);

impl Rows<Flawed> for FlawedRows {
    async fn prepare(view: &Flawed, client: &Connection) -> Result<Self, DbError> {
        Ok(FlawedRows(OrderRows::prepare(&view.0, client).await?))
    }

    async fn load(&self, client: &Connection, keys: &[&str]) -> Result<Vec<StoredKey<OrderState>>, DbError> {
        self.0.load(client, keys).await
    }

    async fn write(&self, writing: Writing<'_>, set: &WriteSet<'_, '_, Flawed>) -> Result<Written, DbError> {
        let changed = set.changed.iter().map(|changed| ChangedKey { ..*changed }).collect();
        self.0.write(writing, &WriteSet::<Orders> { changed, details: set.details }).await
    }

    async fn holders_of(&self, client: &Connection, event_ids: &[&str]) -> Result<Vec<(String, String)>, DbError> {
        self.0.holders_of(client, event_ids).await
    }
}
