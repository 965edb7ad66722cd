//! Which columns of a windowed query are the key of its records: what its rows are grouped by, but the window.

use datafusion::common::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

use crate::plan::trace::{bare, below};

pub(super) fn of(plan: &LogicalPlan, aggregate: &Aggregate, window: usize) -> Result<Vec<usize>> {
    let mut key = Vec::new();
    for at in 0..plan.schema().fields().len() {
        let column = Expr::Column(plan.schema().qualified_field(at).into());
        if group_of(&column, plan, aggregate)?.is_some_and(|group| group != window) {
            key.push(at);
        }
    }
    Ok(key)
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
