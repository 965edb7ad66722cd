//! The orders view: `orders_view`, `order_items_view` and the ledger of every order, from `orders.events`.

pub mod api;
pub mod contract;
pub mod estimates;
pub mod event;
pub mod project;
pub mod queries;
pub mod rows;
pub mod versions;

use crate::codec::{Head, avro};
use crate::domain::decimal::Decimal;
use crate::domain::poison::Poison;
use crate::store::{Connection, DbError};
use crate::views::{BuildScripts, Loaded, Parsed, View, WriteSet, Written};
use event::OrderEvent;
use project::{Line, OrderState, TaxPolicy};

/// The view with its settings.
#[derive(Debug, Clone)]
pub struct Orders {
    tax: TaxPolicy,
}

impl Orders {
    /// The view with `default_rate` for items that state no tax rate.
    pub fn new(default_rate: Decimal) -> Self {
        Orders { tax: TaxPolicy { default_rate } }
    }
}

/// A line with the order it belongs to.
#[derive(Debug)]
pub struct OrderLine<'a> {
    /// The order.
    pub order_id: &'a str,
    /// Its line.
    pub line: Line<'a>,
}

impl View for Orders {
    type Event<'a> = OrderEvent<'a>;
    type State = OrderState;
    type Detail<'a> = OrderLine<'a>;
    type Statements = rows::Statements;

    const NAME: &'static str = "orders";
    const EVENT_TYPES: &'static [&'static str] = &["OrderCreated", "OrderItemAdded", "OrderStatusChanged"];
    const EVENT_ID_CONSTRAINT: Option<&'static str> = Some("orders_dedup_event_id");
    const AVRO: avro::Shape = event::AVRO;
    const SCRIPTS: BuildScripts = BuildScripts {
        create: include_str!("sql/create.sql"),
        index: &[include_str!("sql/index.sql")],
        unindex: include_str!("sql/unindex.sql"),
        publish: include_str!("sql/publish.sql"),
    };

    fn parse<'a>(&self, head: &Head<'a>, payload: &'a str) -> Result<Parsed<'a, OrderEvent<'a>>, Poison> {
        event::parse(head, payload)
    }

    fn parse_avro<'a>(&self, head: &Head<'a>, event: avro::Event<'a>) -> Result<Parsed<'a, OrderEvent<'a>>, Poison> {
        event::parse_avro(head, event)
    }

    fn project<'a>(
        &self,
        key: &'a str,
        state: &mut OrderState,
        event: OrderEvent<'a>,
        occurred_at: i64,
        details: &mut Vec<OrderLine<'a>>,
    ) -> Result<u64, Poison> {
        let mut lines = Vec::new();
        let odd = project::project(self.tax, state, event, occurred_at, &mut lines)?;
        details.extend(lines.into_iter().map(|line| OrderLine { order_id: key, line }));
        Ok(odd)
    }

    fn skip(&self, state: &mut OrderState, occurred_at: i64) {
        state.updated_at = state.updated_at.max(Some(occurred_at));
    }

    fn state_bytes(state: &OrderState) -> usize {
        [&state.customer_id, &state.status, &state.currency]
            .iter()
            .map(|text| text.as_deref().map_or(0, str::len))
            .sum()
    }

    async fn prepare(client: &Connection) -> Result<rows::Statements, DbError> {
        rows::prepare(client).await
    }

    async fn load(
        statements: &rows::Statements,
        client: &Connection,
        keys: &[&str],
    ) -> Result<Vec<Loaded<OrderState>>, DbError> {
        rows::load(statements, client, keys).await
    }

    async fn write(
        statements: &rows::Statements,
        client: &Connection,
        set: &WriteSet<'_, '_, Self>,
    ) -> Result<Written, DbError> {
        rows::write(statements, client, set).await
    }

    async fn owners_of(
        statements: &rows::Statements,
        client: &Connection,
        event_ids: &[&str],
    ) -> Result<Vec<(String, String)>, DbError> {
        rows::owners_of(statements, client, event_ids).await
    }
}
