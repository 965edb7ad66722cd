//! An order as it was: folded again from its ledger by the code that folds it, and shown as it was shown then.

pub mod queries;

use bytes::BytesMut;
use jiff::Timestamp;

use super::OrderLine;
use super::api::model::{HeldBody, Order, OrderItem, OrderSummary};
use super::project::{Line, OrderState};
use crate::domain::decimal::Decimal;
use crate::engine::refold::{Refolded, Unfoldable};
use crate::store::read::ReadError;
use crate::store::types::{BoxedError, Numeric, put_numeric};

/// What can be said of an order at some moment.
#[derive(Debug)]
pub enum Past {
    /// This is what it was.
    Was(Box<PastOrder>),
    /// It came later.
    NotYet,
    /// It has not come so far: it is at this number now.
    NotReached(i64),
    /// It has no row now either; what it waits for, if it is held.
    Unknown(Option<HeldBody>),
    /// Its history does not tell.
    Untold(Unfoldable),
}

/// An order as it was.
#[derive(Debug)]
pub struct PastOrder {
    /// The build whose ledger told it.
    pub build: i32,
    order_id: String,
    folded: Refolded<OrderState>,
    totals: [Amount; 2],
    lines: Vec<PastLine>,
}

impl PastOrder {
    fn new(build: i32, order_id: &str, folded: Refolded<OrderState>, lines: Vec<PastLine>) -> Self {
        let totals = [folded.state.total_net, folded.state.total_gross].map(Amount::of);
        PastOrder { build, order_id: order_id.to_owned(), folded, totals, lines }
    }

    /// The last number that it had consumed.
    pub fn sequence(&self) -> i64 {
        self.folded.last_sequence.0
    }

    /// The order. What it waited for is not kept.
    pub fn order(&self) -> Result<Order<'_>, ReadError> {
        self.shown().map_err(ReadError::unreadable)
    }

    fn shown(&self) -> Result<Order<'_>, BoxedError> {
        let Refolded { last_sequence, last_event_id, state } = &self.folded;
        let updated_at = state.updated_at.ok_or("an order without a time")?;
        let [total_net, total_gross] = &self.totals;
        let summary = OrderSummary {
            order_id: &self.order_id,
            customer_id: state.customer_id.as_deref(),
            status: state.status.as_deref(),
            currency: state.currency.as_deref(),
            total_net: total_net.shown()?,
            total_gross: total_gross.shown()?,
            item_count: state.item_count,
            last_event_sequence: last_sequence.0,
            last_event_id,
            updated_at: Timestamp::from_microsecond(updated_at.0)?,
            tax_basis: state.tax_basis.as_str(),
            anomalies: state.anomalies.names(),
        };
        let items = self.lines.iter().map(PastLine::shown).collect::<Result<_, _>>()?;
        Ok(Order { summary, items, held: None })
    }
}

#[derive(Debug)]
struct PastLine {
    line_no: i32,
    item_id: String,
    sku: String,
    qty: Amount,
    price: Amount,
    tax_rate: Option<Amount>,
    net: Amount,
    gross: Amount,
}

impl PastLine {
    fn of(OrderLine { line: Line { line_no, item, net, gross }, .. }: OrderLine<'_>) -> Self {
        PastLine {
            line_no,
            item_id: item.item_id.into_owned(),
            sku: item.sku.into_owned(),
            qty: Amount::of(item.qty),
            price: Amount::of(item.price),
            tax_rate: item.tax_rate.map(Amount::of),
            net: Amount::of(net),
            gross: Amount::of(gross),
        }
    }

    fn shown(&self) -> Result<OrderItem<'_>, BoxedError> {
        Ok(OrderItem {
            line_no: self.line_no,
            item_id: &self.item_id,
            sku: &self.sku,
            qty: self.qty.shown()?,
            price: self.price.shown()?,
            tax_rate: self.tax_rate.as_ref().map(Amount::shown).transpose()?,
            net_line_total: self.net.shown()?,
            gross_line_total: self.gross.shown()?,
        })
    }
}

/// A decimal as it would come from Postgres, so that it is shown by the same digits.
#[derive(Debug)]
struct Amount(BytesMut);

impl Amount {
    fn of(value: Decimal) -> Self {
        let mut bytes = BytesMut::new();
        put_numeric(value, &mut bytes);
        Amount(bytes)
    }

    fn shown(&self) -> Result<Numeric<'_>, BoxedError> {
        Numeric::read(&self.0)
    }
}
