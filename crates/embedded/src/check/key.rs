//! Which columns of a windowed query are the key of its records: what its rows are grouped by, but the window.

use std::collections::BTreeSet;

use datafusion::common::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

use super::Fault;
use crate::plan::trace::{bare, below};

/// The key of a query's records.
pub(super) struct Key {
    /// Which columns.
    pub(super) columns: Vec<usize>,
    /// What is grouped by, too, and stands in no column: two rows of a window may have the same key.
    pub(super) missing: Option<String>,
}

pub(super) fn of(plan: &LogicalPlan, aggregate: &Aggregate, window: usize) -> Result<Key> {
    let (mut columns, mut selected) = (Vec::new(), BTreeSet::from([window]));
    for at in 0..plan.schema().fields().len() {
        let column = Expr::Column(plan.schema().qualified_field(at).into());
        if let Some(group) = group_of(&column, plan, aggregate)?.filter(|group| *group != window) {
            columns.push(at);
            selected.insert(group);
        }
    }
    let is_missing = |(at, expr): &(usize, &Expr)| !selected.contains(at) && !expr.column_refs().is_empty();
    let missing = aggregate.group_expr.iter().enumerate().find(is_missing).map(|(_, expr)| match bare(expr) {
        Expr::Column(column) => column.name.clone(),
        other => other.to_string(),
    });
    Ok(Key { columns, missing })
}

pub(super) fn not_selected(missing: &str) -> Fault {
    let text = format!(
        "`{missing}` is grouped by and has to be selected, as it stands: it is part of the key of what is written, and without it \
         different groups of a window would have the same key"
    );
    Fault::at_word("needs_key", text, &["GROUP"])
}

/// Which of the expressions of the `GROUP BY` this is, as it stands.
fn group_of(expr: &Expr, plan: &LogicalPlan, aggregate: &Aggregate) -> Result<Option<usize>> {
    if let LogicalPlan::Aggregate(_) = plan {
        let Expr::Column(column) = bare(expr) else { return Ok(None) };
        let at = aggregate.schema.maybe_index_of_column(column);
        return Ok(at.filter(|at| *at < aggregate.group_expr.len()));
    }
    match below(bare(expr), plan)?.as_slice() {
        [(expr, plan)] => group_of(expr, plan, aggregate),
        _ => Ok(None),
    }
}
