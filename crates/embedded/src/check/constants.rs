//! How long the constants of a statement are, once all is made that is made of constants alone: each row that they stand in has
//! them again.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::Fault;
use crate::plan::grown::TooMuch;
use crate::plan::size::size;

/// Most bytes of all constants, each as often as it stands in the plan.
const MOST: usize = 1 << 20;
/// Most bytes between two texts of a group, of which there may be millions.
const MOST_BETWEEN: usize = 64;

/// The bytes of all constants of a plan as it will be done.
pub(super) fn judge(plan: &LogicalPlan) -> Result<std::result::Result<usize, Fault>> {
    let (mut bytes, mut fault) = (0_usize, None);
    plan.apply(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Literal(value, _) = expr {
                    bytes = bytes.saturating_add(size(value.to_array()?.as_ref()));
                }
                fault = fault.take().or(fault_of(expr)?);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    if bytes > MOST && fault.is_none() {
        let text = format!("the constants of the statement take {bytes} bytes; {MOST} are the most");
        fault = Some(Fault::at_word("limit_exceeded", text, &["SELECT"]));
    }
    Ok(fault.map_or(Ok(bytes), Err))
}

fn fault_of(expr: &Expr) -> Result<Option<Fault>> {
    Ok(match expr {
        Expr::ScalarFunction(call) => TooMuch::of_constants(call)?
            .map(|too_much| Fault::at_word("limit_exceeded", too_much.to_string(), &[call.func.name(), "SELECT"])),
        Expr::AggregateFunction(call) if call.func.name() == "string_agg" => match call.params.args.get(1) {
            Some(Expr::Literal(between, _)) if size(between.to_array()?.as_ref()) > MOST_BETWEEN => {
                let text = format!("string_agg puts {MOST_BETWEEN} bytes at most between two texts");
                Some(Fault::at_word("limit_exceeded", text, &["string_agg"]))
            }
            _ => None,
        },
        _ => None,
    })
}
