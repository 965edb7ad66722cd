//! Whether each join meets at most one row of its table: its equal keys name the table's whole key. So what comes out is never
//! more than what went in, whatever lies in the table.

use std::collections::HashSet;

use datafusion::arrow::datatypes::DataType as Arrow;
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use streamview_manager::catalog::Source;

use super::Fault;
use super::rules::{join_keys, streams_of};
use crate::plan::input_of;
use crate::plan::slot::Input;
use crate::plan::trace::{bare, to_scans};

/// Judges the plan as it will be done.
pub(super) fn judge(plan: &LogicalPlan, sources: &[Source]) -> Result<std::result::Result<(), Fault>> {
    let mut open = vec![plan];
    while let Some(plan) = open.pop() {
        open.extend(plan.inputs());
        let LogicalPlan::Join(join) = plan else { continue };
        if join.on.is_empty() {
            return Ok(Err(join_keys()));
        }
        let is_right = streams_of(&join.right).is_empty();
        let side = if is_right { &join.right } else { &join.left };
        let mut met = HashSet::new();
        for (left, right) in &join.on {
            met.extend(column_of(if is_right { right } else { left }, side)?);
        }
        let Some(table) = table_of(side, sources) else { continue };
        let key = table.table.as_ref().map(|of| of.key.as_slice()).unwrap_or_default();
        if let Some(missing) = key.iter().find(|name| !met.contains(*name)) {
            let text = format!(
                "the key of table `{}` is ({}): a join has to name all of it, and `{missing}` stands in no equality of its ON \
                 as it is; else a record could meet as many rows as the table has",
                table.name,
                key.join(", ")
            );
            return Ok(Err(Fault::at_word("join_keys", text, &["ON", "USING", "JOIN"])));
        }
    }
    Ok(Ok(()))
}

/// The one table on this side of a join.
fn table_of<'s>(plan: &LogicalPlan, sources: &'s [Source]) -> Option<&'s Source> {
    let mut open = vec![plan];
    while let Some(plan) = open.pop() {
        if let LogicalPlan::TableScan(scan) = plan
            && let Some(Input::Table(number)) = input_of(scan)
        {
            return sources.get(number);
        }
        open.extend(plan.inputs());
    }
    None
}

/// The table's column that this is, perhaps as another type that tells as many values apart.
fn column_of(expr: &Expr, side: &LogicalPlan) -> Result<Option<String>> {
    let found = to_scans(bare(expr), side)?;
    let [(expr, scan)] = found.as_slice() else { return Ok(None) };
    Ok(match bare(expr) {
        Expr::Column(column) => Some(column.name.clone()),
        Expr::Cast(cast) => match bare(&cast.expr) {
            Expr::Column(column) => {
                let (from, to) = (cast.expr.get_type(&scan.projected_schema)?, expr.get_type(&scan.projected_schema)?);
                tells_apart(&from, &to).then(|| column.name.clone())
            }
            _ => None,
        },
        _ => None,
    })
}

/// Whether values that differ in one type differ in the other.
fn tells_apart(from: &Arrow, to: &Arrow) -> bool {
    match (from, to) {
        (Arrow::Int32, Arrow::Int64 | Arrow::Float64 | Arrow::Decimal128(..)) => true,
        (Arrow::Int64, Arrow::Decimal128(precision, scale)) => i16::from(*precision) - i16::from(*scale) >= 19,
        (
            Arrow::Int32 | Arrow::Int64 | Arrow::Boolean | Arrow::Date32,
            Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View,
        ) => true,
        (Arrow::Utf8, Arrow::LargeUtf8 | Arrow::Utf8View) => true,
        (from, to) => from == to,
    }
}
