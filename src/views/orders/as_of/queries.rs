//! Reads an order's ledger through the public SQL view, row by row as it comes, and has it folded.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{Past, PastLine, PastOrder};
use crate::domain::comparison::RowText;
use crate::domain::decimal::Decimal;
use crate::domain::ledger::{Effect, LedgerRow, Origin};
use crate::domain::units::Sequence;
use crate::engine::refold::{Refold, Unfoldable, Until};
use crate::engine::view::StoredDetails;
use crate::store::lookup::SharedLookup;
use crate::store::read::{ReadError, ReadPool};
use crate::store::types::{SqlTimestamp, Word};
use crate::views::orders::Orders;
use crate::views::orders::queries::{self, OrderRead};

/// What the rows of a build mean that says nothing of it itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Number of an order's first event.
    pub first_sequence: Sequence,
    /// Tax rate of lines that state none, a plain decimal.
    pub default_tax_rate: String,
}

/// An order as it was then; `rules` are for builds that keep none.
pub async fn order_at(
    (lookup, pool): (&SharedLookup, &ReadPool),
    order_id: &str,
    until: Until,
    rules: &Rules,
) -> Result<Past, ReadError> {
    pool.within_deadline(async {
        loop {
            let Some(now) = queries::order(lookup, order_id).await? else { return Ok(Past::Unknown(None)) };
            let Some(present) = now.sequence else { return Ok(Past::Unknown(now.held)) };
            if matches!(until, Until::Sequence(sequence) if sequence.0 > present) {
                return Ok(Past::NotReached(present));
            }
            match fold(pool, order_id, (&now, Sequence(present)), until, rules).await? {
                Told::Past(past) => return Ok(past),
                Told::AnotherBuild => {}
            }
        }
    })
    .await
}

enum Told {
    Past(Past),
    /// Readers read another build by now: its ledger may be another one.
    AnotherBuild,
}

async fn fold(
    pool: &ReadPool,
    order_id: &str,
    (now, present): (&OrderRead, Sequence),
    until: Until,
    rules: &Rules,
) -> Result<Told, ReadError> {
    let (number, moment) = match until {
        Until::End => (None, None),
        Until::Sequence(sequence) => (Some(sequence.0), None),
        Until::Moment(moment) => (None, Some(SqlTimestamp(moment))),
    };
    let connection = pool.get().await?;
    let statement = connection.prepare_cached(include_str!("../sql/read_ledger_until.sql")).await?;
    let parameters: [&(dyn ToSql + Sync); 4] = [&order_id, &number, &moment, &present.0];
    let mut rows = pin!(connection.query_raw(&statement, parameters).await?);
    let Some(mut row) = rows.try_next().await? else {
        let nothing = Unfoldable::Missing { from: rules.first_sequence, to: present };
        return Ok(Told::Past(Past::Untold(nothing)));
    };
    let (view, first_sequence) = view_of(&row, rules)?;
    let (mut refold, stored, mut lines) = (Refold::new(&view, first_sequence), rates(now)?, Vec::new());
    loop {
        if row.try_get::<_, i32>("build")? != now.build {
            return Ok(Told::AnotherBuild);
        }
        match take(&mut refold, (order_id, &row), until, &stored)? {
            Ok(Some(new)) => lines.extend(new),
            Ok(None) => break,
            Err(untold) => return Ok(Told::Past(Past::Untold(untold))),
        }
        let Some(next) = rows.try_next().await? else {
            let asked = if let Until::Sequence(sequence) = until { sequence } else { present };
            match refold.ends_at(asked) {
                Ok(()) => break,
                Err(untold) => return Ok(Told::Past(Past::Untold(untold))),
            }
        };
        row = next;
    }
    let past = match refold.finish() {
        Some(folded) => Past::Was(Box::new(PastOrder::new(now.build, order_id, folded, lines))),
        None => Past::NotYet,
    };
    Ok(Told::Past(past))
}

/// The lines that the row brings; `None` if it lies beyond what was asked for.
fn take(
    refold: &mut Refold<'_, Orders>,
    (order_id, row): (&str, &Row),
    until: Until,
    stored: &StoredDetails,
) -> Result<Result<Option<Vec<PastLine>>, Unfoldable>, ReadError> {
    let (ledger_row, mut details) = (ledger_row(order_id, row)?, Vec::new());
    let taken = refold.take(&ledger_row, until, stored, &mut details);
    Ok(taken.map(|taken| taken.then(|| details.into_iter().map(PastLine::of).collect())))
}

/// The view as the build's rules have it, and the number of its keys' first events.
fn view_of(row: &Row, rules: &Rules) -> Result<(Orders, Sequence), ReadError> {
    let rate: Option<&str> = row.try_get("default_tax_rate")?;
    let first: Option<i64> = row.try_get("first_sequence")?;
    let rate = Decimal::parse(rate.unwrap_or(&rules.default_tax_rate));
    let rate = rate.map_err(|error| ReadError::unreadable(error.into()))?;
    Ok((Orders::new("orders", rate), first.map_or(rules.first_sequence, Sequence)))
}

/// The rates of the lines that there are: they never change, and tell in which version an event was read.
fn rates(now: &OrderRead) -> Result<StoredDetails, ReadError> {
    let items = now.order()?.map(|order| order.items).unwrap_or_default();
    let rate = |item: &super::OrderItem<'_>| -> RowText {
        [("tax_rate".to_owned(), item.tax_rate.map(|rate| rate.text()))].into()
    };
    Ok(items.iter().map(|item| (i64::from(item.line_no), rate(item))).collect())
}

fn ledger_row<'a>(order_id: &'a str, row: &'a Row) -> Result<LedgerRow<'a>, ReadError> {
    Ok(LedgerRow {
        key: order_id,
        sequence: Sequence(row.try_get("sequence")?),
        event_id: row.try_get::<_, &str>("event_id")?.into(),
        event_type: row.try_get::<_, &str>("event_type")?.into(),
        occurred_at: row.try_get::<_, SqlTimestamp>("occurred_at")?.0,
        origin: Origin::NOWHERE,
        effect: row.try_get::<_, Word<Effect>>("effect")?.0,
        payload: row.try_get::<_, Option<&str>>("payload")?.map(Into::into),
    })
}
