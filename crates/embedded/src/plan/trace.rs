//! Where the value of an expression comes from: one step down a plan, or all the way to the topics.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};

/// An expression without the names that it is given.
pub(crate) fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}

/// The same expression over the inputs of `plan` instead of over its rows; more than one for a union, none where it comes from
/// an aggregate, from both sides of a join, or from nowhere.
pub(crate) fn below<'p>(expr: &Expr, plan: &'p LogicalPlan) -> Result<Vec<(Expr, &'p LogicalPlan)>> {
    Ok(match plan {
        LogicalPlan::Projection(projection) => {
            let inside = replaced(expr, &projection.schema, |at| Some(bare(&projection.expr[at]).clone()))?;
            inside.map(|expr| (expr, projection.input.as_ref())).into_iter().collect()
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let inside = replaced(expr, &alias.schema, |at| column_at(alias.input.schema(), at))?;
            inside.map(|expr| (expr, alias.input.as_ref())).into_iter().collect()
        }
        LogicalPlan::Filter(filter) => vec![(expr.clone(), filter.input.as_ref())],
        LogicalPlan::Sort(sort) => vec![(expr.clone(), sort.input.as_ref())],
        LogicalPlan::Limit(limit) => vec![(expr.clone(), limit.input.as_ref())],
        LogicalPlan::Union(union) => {
            let mut inside = Vec::new();
            for input in &union.inputs {
                let replaced = replaced(expr, &union.schema, |at| column_at(input.schema(), at))?;
                inside.extend(replaced.map(|expr| (expr, input.as_ref())));
            }
            if inside.len() == union.inputs.len() { inside } else { Vec::new() }
        }
        LogicalPlan::Join(join) => {
            let width = join.left.schema().fields().len();
            let left =
                replaced(expr, &join.schema, |at| (at < width).then(|| column_at(join.left.schema(), at)).flatten())?;
            let right = replaced(expr, &join.schema, |at| column_at(join.right.schema(), at.checked_sub(width)?))?;
            match (left, right) {
                (Some(expr), _) => vec![(expr, join.left.as_ref())],
                (None, Some(expr)) => vec![(expr, join.right.as_ref())],
                (None, None) => Vec::new(),
            }
        }
        _ => Vec::new(),
    })
}

fn column_at(schema: &DFSchema, at: usize) -> Option<Expr> {
    (at < schema.fields().len()).then(|| Expr::Column(Column::from(schema.qualified_field(at))))
}

/// The expression with each column replaced, if all can be.
fn replaced(expr: &Expr, schema: &DFSchema, by: impl Fn(usize) -> Option<Expr>) -> Result<Option<Expr>> {
    let mut all = true;
    let replaced = expr.clone().transform(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        match schema.maybe_index_of_column(column).and_then(&by) {
            // What stands there is over other rows: it is not looked into.
            Some(other) => Ok(Transformed::new(other, true, datafusion::common::tree_node::TreeNodeRecursion::Jump)),
            None => {
                all = false;
                Ok(Transformed::no(expr))
            }
        }
    })?;
    Ok(all.then_some(replaced.data))
}

/// The expression over each scan that it comes from; empty if it comes from anything else, too.
pub(crate) fn to_scans<'p>(expr: &Expr, plan: &'p LogicalPlan) -> Result<Vec<(Expr, &'p TableScan)>> {
    if let LogicalPlan::TableScan(scan) = plan {
        return Ok(vec![(expr.clone(), scan)]);
    }
    let mut found = Vec::new();
    for (expr, plan) in below(expr, plan)? {
        let inside = to_scans(&expr, plan)?;
        if inside.is_empty() {
            return Ok(Vec::new());
        }
        found.extend(inside);
    }
    Ok(found)
}
