//! How large a plan is for whoever rewrites it: a query behind FROM is there again wherever its name stands, a condition takes all
//! with it that its columns are made of, and a type holds what it was made of twice. Each of these may double with each line of a
//! text, so it is counted before anything walks through all of it, and no further than the bound.

use std::collections::HashMap;

use datafusion::arrow::datatypes::DataType as Arrow;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Most columns, fields and operators of a plan, each as often as somebody meets it.
const MOST: usize = 1_000_000;

/// Refuses what would be too large, as `ResourcesExhausted`.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    columns(plan, &mut Left(MOST)).map(drop)
}

/// What may still come.
struct Left(usize);

impl Left {
    fn take(&mut self, parts: usize) -> Result<()> {
        let left = self.0.checked_sub(parts);
        self.0 = left.ok_or_else(|| DataFusionError::ResourcesExhausted("the plan is too large".to_owned()))?;
        Ok(())
    }

    fn take_type(&mut self, of: &Arrow) -> Result<()> {
        self.take(1)?;
        match of {
            Arrow::List(of) | Arrow::LargeList(of) | Arrow::FixedSizeList(of, _) | Arrow::Map(of, _) => {
                self.take_type(of.data_type())
            }
            Arrow::Struct(fields) => fields.iter().try_for_each(|field| self.take_type(field.data_type())),
            _ => Ok(()),
        }
    }
}

/// How many operators each column of a plan is made of.
fn columns(plan: &LogicalPlan, left: &mut Left) -> Result<Vec<usize>> {
    let fields = plan.schema().fields();
    fields.iter().try_for_each(|field| left.take_type(field.data_type()))?;
    let (mut below, mut known) = (Vec::new(), HashMap::new());
    for input in plan.inputs() {
        let made_of = columns(input, left)?;
        for (field, parts) in input.schema().fields().iter().zip(&made_of) {
            let most: &mut usize = known.entry(field.name().as_str()).or_default();
            *most = (*most).max(*parts);
        }
        below.push(made_of);
    }
    // Conditions are moved to where the columns are made, and then hold all of that themselves.
    let moves = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
    plan.apply_expressions(|expr| {
        let (written, whole) = parts(expr, &known)?;
        left.take(if moves { whole } else { written })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    let whole = |expr: &Expr| parts(expr, &known).map(|(_, whole)| whole);
    match plan {
        LogicalPlan::Projection(projection) => projection.expr.iter().map(whole).collect(),
        LogicalPlan::Aggregate(of) => of.group_expr.iter().chain(&of.aggr_expr).map(whole).collect(),
        LogicalPlan::Union(_) => {
            let most = |at: usize| below.iter().filter_map(|of| of.get(at)).max().copied().unwrap_or(1);
            Ok((0..fields.len()).map(most).collect())
        }
        LogicalPlan::TableScan(_) => Ok(vec![1; fields.len()]),
        _ => Ok(below.concat()),
    }
}

/// Operators of an expression: as it stands, and with what its columns are made of.
fn parts(expr: &Expr, known: &HashMap<&str, usize>) -> Result<(usize, usize)> {
    let (mut written, mut whole) = (0_usize, 0_usize);
    expr.apply(|expr| {
        written += 1;
        whole = whole.saturating_add(match expr {
            Expr::Column(column) => known.get(column.name.as_str()).copied().unwrap_or(1),
            _ => 1,
        });
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((written, whole))
}
