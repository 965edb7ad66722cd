//! The orders view: `orders_view`, `order_items_view` and the ledger of every order, from `orders.events`.

pub mod api;
pub mod as_of;
pub mod contract;
pub mod estimates;
pub mod event;
pub mod lines;
pub mod project;
pub mod queries;
pub mod rows;
pub mod subjects;
pub mod versions;

use std::borrow::Cow;

use crate::codec::{Head, avro};
use crate::domain::decimal::Decimal;
use crate::domain::name::intern;
use crate::domain::poison::Poison;
use crate::domain::units::Micros;
use crate::engine::view::{BuildScripts, DetailTable, KeyTable, KeyedRows, Parsed, StoredDetails, View, ViewSpec};
use crate::store::rows::Stored;
use event::OrderEvent;
use project::{Line, OrderState, TaxPolicy};

/// The view with its settings.
#[derive(Debug, Clone)]
pub struct Orders {
    spec: ViewSpec,
    tax: TaxPolicy,
}

/// Raised with every change of `event`, `project` or the tables that gives the same events other rows.
const PROJECTION_VERSION: i32 = 1;

/// The tables of its builds.
pub const TABLES: BuildScripts = BuildScripts {
    create: include_str!("sql/create.sql"),
    index: &[include_str!("sql/index.sql")],
    unindex: include_str!("sql/unindex.sql"),
    publish: include_str!("sql/publish.sql"),
    rows: Some(KeyedRows {
        of_key: KeyTable { name: "orders", key: "order_id", sequence: "last_event_sequence" },
        details: &[DetailTable { name: "order_items", key: "order_id", number: "line_no", shown_as: "items" }],
        of_tax_rate: &["totalGross", "taxBasis", "items[].grossLineTotal"],
        joined: &[
            ("order_id", "string"),
            ("customer_id", "string"),
            ("status", "string"),
            ("currency", "string"),
            ("total_net", "decimal(38, 4)"),
            ("total_gross", "decimal(38, 4)"),
            ("item_count", "int"),
            ("last_event_sequence", "bigint"),
            ("tax_basis", "string"),
            ("updated_at", "timestamp(6)"),
        ],
    }),
};

/// The types of its events.
const EVENT_TYPES: [Cow<'static, str>; 3] =
    [Cow::Borrowed("OrderCreated"), Cow::Borrowed("OrderItemAdded"), Cow::Borrowed("OrderStatusChanged")];

impl Orders {
    /// The view under `name`, with `default_rate` for items that state no tax rate.
    pub fn new(name: &str, default_rate: Decimal) -> Self {
        let spec = ViewSpec {
            name: intern(name),
            projection_version: PROJECTION_VERSION,
            event_types: EVENT_TYPES.to_vec(),
            avro: event::AVRO,
            event_id_constraint: Some(Cow::Borrowed("orders_dedup_event_id")),
            tables: TABLES,
        };
        Orders { spec, tax: TaxPolicy { default_rate } }
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

    fn spec(&self) -> &ViewSpec {
        &self.spec
    }

    fn parse<'a>(&self, head: &Head<'a>, payload: &'a str) -> Result<Parsed<'a, OrderEvent<'a>>, Poison> {
        event::parse(head, payload)
    }

    fn parse_avro<'a>(&self, head: &Head<'a>, event: avro::Event<'a>) -> Result<Parsed<'a, OrderEvent<'a>>, Poison> {
        event::parse_avro(head, event)
    }

    fn parse_stored<'a>(&self, head: &Head<'a>, payload: &'a str) -> Result<Option<OrderEvent<'a>>, Poison> {
        event::parse_stored(head, payload)
    }

    fn stored_version(&self, head: &Head<'_>, payload: &str, state: &OrderState, stored: &StoredDetails) -> u32 {
        versions::of_stored(head, payload, state.item_count, stored)
    }

    fn project<'a>(
        &self,
        key: &'a str,
        state: &mut OrderState,
        event: OrderEvent<'a>,
        occurred_at: Micros,
        details: &mut Vec<OrderLine<'a>>,
    ) -> Result<u64, Poison> {
        let mut lines = Vec::new();
        let odd = project::project(self.tax, state, event, occurred_at, &mut lines)?;
        details.extend(lines.into_iter().map(|line| OrderLine { order_id: key, line }));
        Ok(odd)
    }

    fn skip(&self, state: &mut OrderState, occurred_at: Micros) {
        state.updated_at = state.updated_at.max(Some(occurred_at));
    }

    fn state_bytes(&self, state: &OrderState) -> usize {
        [&state.customer_id, &state.status, &state.currency]
            .iter()
            .map(|text| text.as_deref().map_or(0, str::len))
            .sum()
    }
}

impl Stored for Orders {
    type Rows = rows::OrderRows;
}
