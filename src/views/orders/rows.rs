//! The orders view's rows: loads and writes them in sets. Decides nothing.

use futures_util::future::try_join3;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use crate::domain::units::Sequence;
use crate::engine::event_ids::EventIds;
use crate::engine::view::{ChangedKey, StoredKey, WriteSet};
use crate::store::copy::CopyRows;
use crate::store::fence::Writing;
use crate::store::rows::{Rows, Written};
use crate::store::types::{SqlDecimal, SqlTimestamp};
use crate::views::orders::project::{Anomalies, Line, OrderState, TaxBasis};
use crate::views::orders::{OrderLine, Orders};

/// Prepared statements of one connection.
pub struct OrderRows {
    load: Statement,
    copy_orders: Statement,
    update_orders: Statement,
    copy_items: Statement,
    holders: Statement,
}

impl Rows<Orders> for OrderRows {
    async fn prepare(_: &Orders, client: &Client) -> Result<Self, Error> {
        Ok(OrderRows {
            load: client.prepare(include_str!("sql/load_orders.sql")).await?,
            copy_orders: client.prepare(include_str!("sql/copy_orders.sql")).await?,
            update_orders: client.prepare(include_str!("sql/update_orders.sql")).await?,
            copy_items: client.prepare(include_str!("sql/copy_items.sql")).await?,
            holders: client.prepare(include_str!("sql/holders_of_event_ids.sql")).await?,
        })
    }

    async fn load(&self, client: &Client, keys: &[&str]) -> Result<Vec<StoredKey<OrderState>>, Error> {
        let rows = client.query(&self.load, &[&keys]).await?;
        rows.iter().map(read_order).collect()
    }

    /// One statement for the orders that existed, one `COPY` for each table that gets new rows. All of them are under way
    /// before the first is answered; in this order, because a new order may carry an event id that a known one has just
    /// moved on from. A new row that is there already breaks a primary key, which is told as stale.
    async fn write(&self, writing: Writing<'_>, set: &WriteSet<'_, '_, Orders>) -> Result<Written, Error> {
        let client = writing.client();
        let (new, known): (Vec<_>, Vec<_>) = set.changed.iter().partition(|changed| changed.base_sequence.is_none());
        let (updated, (), ()) = try_join3(
            update_orders(self, client, &known),
            copy_orders(self, client, &new),
            copy_items(self, client, set.details),
        )
        .await?;
        Ok(if updated == known.len() as u64 { Written::All } else { Written::Stale })
    }

    async fn holders_of(&self, client: &Client, event_ids: &[&str]) -> Result<Vec<(String, String)>, Error> {
        let rows = client.query(&self.holders, &[&event_ids]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }
}

fn read_order(row: &Row) -> Result<StoredKey<OrderState>, Error> {
    let boxed = |index: usize| row.try_get::<_, Option<&str>>(index).map(|text| text.map(Box::from));
    let names: Vec<&str> = row.try_get(12)?;
    let state = OrderState {
        customer_id: boxed(4)?,
        status: boxed(5)?,
        currency: boxed(6)?,
        total_net: row.try_get::<_, SqlDecimal>(7)?.0,
        total_gross: row.try_get::<_, SqlDecimal>(8)?.0,
        item_count: row.try_get(9)?,
        updated_at: Some(row.try_get::<_, SqlTimestamp>(10)?.0),
        tax_basis: TaxBasis::from_stored(row.try_get(11)?),
        anomalies: Anomalies::from_names(names),
    };
    Ok(StoredKey {
        key: row.try_get(0)?,
        last_sequence: Sequence(row.try_get(1)?),
        last_event_id: row.try_get(2)?,
        event_ids: EventIds::of(&row.try_get::<_, Vec<&str>>(3)?),
        state,
    })
}

type Changed<'a> = &'a ChangedKey<'a, OrderState>;

/// Returns how many were where the fold started from.
async fn update_orders(statements: &OrderRows, client: &Client, orders: &[Changed<'_>]) -> Result<u64, Error> {
    if orders.is_empty() {
        return Ok(0);
    }
    let columns = OrderColumns::of(orders);
    let bases: Vec<i64> = orders.iter().filter_map(|changed| Some(changed.base_sequence?.0)).collect();
    let mut parameters = columns.parameters();
    parameters.push(&bases);
    client.execute(&statements.update_orders, &parameters).await
}

async fn copy_orders(statements: &OrderRows, client: &Client, orders: &[Changed<'_>]) -> Result<(), Error> {
    if orders.is_empty() {
        return Ok(());
    }
    let mut rows = CopyRows::start(client, &statements.copy_orders, 13).await?;
    for ChangedKey { key, last_sequence, last_event_id, state, .. } in orders {
        rows.row()
            .await?
            .put(*key)
            .put(last_sequence.0)
            .put(*last_event_id)
            .put(*last_event_id)
            .put(state.customer_id.as_deref())
            .put(state.status.as_deref())
            .put(state.currency.as_deref())
            .put(state.total_net)
            .put(state.total_gross)
            .put(state.item_count)
            .put(state.updated_at.map(SqlTimestamp))
            .put(state.tax_basis.as_str())
            .put(state.anomalies.names().as_slice());
    }
    rows.finish().await
}

async fn copy_items(statements: &OrderRows, client: &Client, lines: &[OrderLine<'_>]) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut rows = CopyRows::start(client, &statements.copy_items, 9).await?;
    for OrderLine { order_id, line: Line { line_no, item, net, gross } } in lines {
        rows.row()
            .await?
            .put(*order_id)
            .put(*line_no)
            .put(&*item.item_id)
            .put(&*item.sku)
            .put(item.qty)
            .put(item.price)
            .put(item.tax_rate)
            .put(*net)
            .put(*gross);
    }
    rows.finish().await
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
    total_net: Vec<SqlDecimal>,
    total_gross: Vec<SqlDecimal>,
    item_count: Vec<i32>,
    updated_at: Vec<Option<SqlTimestamp>>,
    tax_basis: Vec<&'static str>,
    anomalies: Vec<String>,
}

impl<'a> OrderColumns<'a> {
    fn of(rows: &[Changed<'a>]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            let order = row.state;
            columns.order_id.push(row.key);
            columns.last_event_sequence.push(row.last_sequence.0);
            columns.last_event_id.push(row.last_event_id);
            columns.customer_id.push(order.customer_id.as_deref());
            columns.status.push(order.status.as_deref());
            columns.currency.push(order.currency.as_deref());
            columns.total_net.push(SqlDecimal(order.total_net));
            columns.total_gross.push(SqlDecimal(order.total_gross));
            columns.item_count.push(order.item_count);
            columns.updated_at.push(order.updated_at.map(SqlTimestamp));
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
