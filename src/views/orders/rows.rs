//! The orders view's rows: loads and writes them in sets. Decides nothing.

use futures_util::future::try_join_all;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use crate::domain::decimal::Decimal;
use crate::store::types::Micros;
use crate::views::orders::project::{Anomalies, Line, OrderState, TaxBasis};
use crate::views::orders::{OrderLine, Orders};
use crate::views::{ChangedKey, LedgerRow, Loaded, WriteSet, Written};

/// Prepared statements of one connection.
pub struct Statements {
    load: Statement,
    insert_orders: Statement,
    update_orders: Statement,
    insert_items: Statement,
    insert_ledger: Statement,
    owners: Statement,
}

/// Prepares all statements.
pub async fn prepare(client: &Client) -> Result<Statements, Error> {
    Ok(Statements {
        load: client.prepare(include_str!("sql/load_orders.sql")).await?,
        insert_orders: client.prepare(include_str!("sql/insert_orders.sql")).await?,
        update_orders: client.prepare(include_str!("sql/update_orders.sql")).await?,
        insert_items: client.prepare(include_str!("sql/insert_items.sql")).await?,
        insert_ledger: client.prepare(include_str!("sql/insert_ledger.sql")).await?,
        owners: client.prepare(include_str!("sql/owners_of_event_ids.sql")).await?,
    })
}

/// Loads the orders that exist among `keys`.
pub async fn load(statements: &Statements, client: &Client, keys: &[&str]) -> Result<Vec<Loaded<OrderState>>, Error> {
    let rows = client.query(&statements.load, &[&keys]).await?;
    rows.iter().map(read_order).collect()
}

fn read_order(row: &Row) -> Result<Loaded<OrderState>, Error> {
    let boxed = |index: usize| row.try_get::<_, Option<&str>>(index).map(|text| text.map(Box::from));
    let names: Vec<&str> = row.try_get(12)?;
    let state = OrderState {
        customer_id: boxed(4)?,
        status: boxed(5)?,
        currency: boxed(6)?,
        total_net: row.try_get(7)?,
        total_gross: row.try_get(8)?,
        item_count: row.try_get(9)?,
        updated_at: Some(row.try_get::<_, Micros>(10)?.0),
        tax_basis: TaxBasis::from_stored(row.try_get(11)?),
        anomalies: Anomalies::from_names(names),
    };
    Ok(Loaded {
        key: row.try_get(0)?,
        last_sequence: row.try_get(1)?,
        last_event_id: row.try_get(2)?,
        event_ids: row.try_get(3)?,
        state,
    })
}

/// Writes one batch: at most four statements, sent together, whatever the number of events.
pub async fn write(statements: &Statements, client: &Client, set: &WriteSet<'_, '_, Orders>) -> Result<Written, Error> {
    let (new, known): (Vec<_>, Vec<_>) = set.changed.iter().partition(|changed| changed.base_sequence.is_none());
    let new_columns = OrderColumns::of(&new);
    let known_columns = OrderColumns::of(&known);
    let bases: Vec<i64> = known.iter().filter_map(|changed| changed.base_sequence).collect();
    let items = ItemColumns::of(set.details);
    let ledger = LedgerColumns::of(set.ledger);

    let mut known_parameters = known_columns.parameters();
    known_parameters.push(&bases);
    let new_parameters = new_columns.parameters();
    let (item_parameters, ledger_parameters) = (items.parameters(), ledger.parameters());
    let mut sent = Vec::with_capacity(4);
    // Updates first: an event id that a known order has moved on from may be a new order's.
    if !known.is_empty() {
        sent.push((&statements.update_orders, &known_parameters, Some(known.len())));
    }
    if !new.is_empty() {
        sent.push((&statements.insert_orders, &new_parameters, Some(new.len())));
    }
    if !set.details.is_empty() {
        sent.push((&statements.insert_items, &item_parameters, None));
    }
    if !set.ledger.is_empty() {
        sent.push((&statements.insert_ledger, &ledger_parameters, None));
    }
    let counts = try_join_all(sent.iter().map(|(statement, values, _)| client.execute(*statement, values))).await?;
    let all = counts.iter().zip(&sent).all(|(count, (_, _, expected))| expected.is_none_or(|n| n as u64 == *count));
    Ok(if all { Written::All } else { Written::Stale })
}

/// Of `event_ids`, those that are some order's latest, with that order.
pub async fn owners_of(
    statements: &Statements,
    client: &Client,
    event_ids: &[&str],
) -> Result<Vec<(String, String)>, Error> {
    let rows = client.query(&statements.owners, &[&event_ids]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

type Parameters<'a> = Vec<&'a (dyn ToSql + Sync)>;

#[derive(Default)]
struct OrderColumns<'a> {
    order_id: Vec<&'a str>,
    last_event_sequence: Vec<i64>,
    last_event_id: Vec<&'a str>,
    customer_id: Vec<Option<&'a str>>,
    status: Vec<Option<&'a str>>,
    currency: Vec<Option<&'a str>>,
    total_net: Vec<Decimal>,
    total_gross: Vec<Decimal>,
    item_count: Vec<i32>,
    updated_at: Vec<Option<Micros>>,
    tax_basis: Vec<&'static str>,
    anomalies: Vec<String>,
}

impl<'a> OrderColumns<'a> {
    fn of(rows: &[&'a ChangedKey<'a, OrderState>]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            let order = row.state;
            columns.order_id.push(row.key);
            columns.last_event_sequence.push(row.last_sequence);
            columns.last_event_id.push(row.last_event_id);
            columns.customer_id.push(order.customer_id.as_deref());
            columns.status.push(order.status.as_deref());
            columns.currency.push(order.currency.as_deref());
            columns.total_net.push(order.total_net);
            columns.total_gross.push(order.total_gross);
            columns.item_count.push(order.item_count);
            columns.updated_at.push(order.updated_at.map(Micros));
            columns.tax_basis.push(order.tax_basis.as_str());
            // Arrays of arrays cannot be unnested row by row, so this one travels in its text form.
            columns.anomalies.push(format!("{{{}}}", order.anomalies.names().join(",")));
        }
        columns
    }

    fn parameters(&self) -> Parameters<'_> {
        vec![
            &self.order_id,
            &self.last_event_sequence,
            &self.last_event_id,
            &self.customer_id,
            &self.status,
            &self.currency,
            &self.total_net,
            &self.total_gross,
            &self.item_count,
            &self.updated_at,
            &self.tax_basis,
            &self.anomalies,
        ]
    }
}

#[derive(Default)]
struct ItemColumns<'a> {
    order_id: Vec<&'a str>,
    line_no: Vec<i32>,
    item_id: Vec<&'a str>,
    sku: Vec<&'a str>,
    qty: Vec<Decimal>,
    price: Vec<Decimal>,
    tax_rate: Vec<Option<Decimal>>,
    net: Vec<Decimal>,
    gross: Vec<Decimal>,
}

impl<'a> ItemColumns<'a> {
    fn of(rows: &'a [OrderLine<'_>]) -> Self {
        let mut columns = Self::default();
        for OrderLine { order_id, line: Line { line_no, item, net, gross } } in rows {
            columns.order_id.push(order_id);
            columns.line_no.push(*line_no);
            columns.item_id.push(&item.item_id);
            columns.sku.push(&item.sku);
            columns.qty.push(item.qty);
            columns.price.push(item.price);
            columns.tax_rate.push(item.tax_rate);
            columns.net.push(*net);
            columns.gross.push(*gross);
        }
        columns
    }

    fn parameters(&self) -> Parameters<'_> {
        vec![
            &self.order_id,
            &self.line_no,
            &self.item_id,
            &self.sku,
            &self.qty,
            &self.price,
            &self.tax_rate,
            &self.net,
            &self.gross,
        ]
    }
}

#[derive(Default)]
struct LedgerColumns<'a> {
    key: Vec<&'a str>,
    sequence: Vec<i64>,
    event_id: Vec<&'a str>,
    event_type: Vec<&'a str>,
    occurred_at: Vec<Micros>,
    partition: Vec<i32>,
    offset: Vec<i64>,
    effect: Vec<&'static str>,
    payload: Vec<&'a str>,
}

impl<'a> LedgerColumns<'a> {
    fn of(rows: &'a [LedgerRow<'_>]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            columns.key.push(row.key);
            columns.sequence.push(row.sequence);
            columns.event_id.push(&row.event_id);
            columns.event_type.push(&row.event_type);
            columns.occurred_at.push(Micros(row.occurred_at));
            columns.partition.push(row.origin.partition);
            columns.offset.push(row.origin.offset);
            columns.effect.push(row.effect.as_str());
            columns.payload.push(&row.payload);
        }
        columns
    }

    fn parameters(&self) -> Parameters<'_> {
        vec![
            &self.key,
            &self.sequence,
            &self.event_id,
            &self.event_type,
            &self.occurred_at,
            &self.partition,
            &self.offset,
            &self.effect,
            &self.payload,
        ]
    }
}
