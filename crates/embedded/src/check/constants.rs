//! How much the constants of a statement take, once all is made that is made of constants alone: each row that they stand in has
//! them again.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::Fault;

/// Most bytes of all constants, each as often as it stands in the plan.
const MOST: usize = 128 << 10;
/// Nobody has to write less than that: what a text has itself may stand in its plan so often.
const OFTEN: usize = 4;

/// Judges the plan of a text as it will be done.
pub(super) fn judge(plan: &LogicalPlan, sql: &str) -> Result<std::result::Result<(), Fault>> {
    let most = MOST.max(OFTEN * sql.len());
    let mut bytes = 0_usize;
    plan.apply(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Literal(value, _) = expr {
                    bytes = bytes.saturating_add(size(value));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(match bytes > most {
        true => {
            let text =
                format!("the constants of the statement take {bytes} bytes once they are made; {most} are the most");
            Err(Fault::at_word("limit_exceeded", text, &["SELECT"]))
        }
        false => Ok(()),
    })
}

/// Bytes that a value takes beside its place.
fn size(value: &ScalarValue) -> usize {
    match value {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => {
            text.as_ref().map_or(0, String::len)
        }
        ScalarValue::Binary(bytes) | ScalarValue::LargeBinary(bytes) | ScalarValue::BinaryView(bytes) => {
            bytes.as_ref().map_or(0, Vec::len)
        }
        other => other.size().saturating_sub(size_of::<ScalarValue>()),
    }
}
