//! What of a statement each row has again, once all is made that is made of constants alone: the constants themselves, and the
//! columns and fields of all types. And what has to be a constant, as nothing counts what is made of it for each row.

use datafusion::arrow::datatypes::DataType as Arrow;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};

use super::Fault;
use crate::plan::grown::TooMuch;

/// Most bytes of all constants, each as often as it stands in the plan.
const MOST: usize = 128 << 10;
/// Nobody has to write less than that: what a text has itself may stand in its plan so often.
const OFTEN: usize = 4;
/// Most columns of any step, each field of a row counted: structures share what they are made of until somebody copies them.
const MOST_FIELDS: usize = 20_000;
/// Most bytes between two texts of `string_agg`: a group may have millions.
const MOST_BETWEEN: usize = 64;

/// Judges the plan of a text as it will be done; tells how many bytes its constants take.
pub(super) fn judge(plan: &LogicalPlan, sql: &str) -> Result<std::result::Result<usize, Fault>> {
    let (mut bytes, mut fault) = (0_usize, None);
    plan.apply(|plan| {
        let columns = plan.schema().fields().iter();
        let fields = columns.map(|column| fields(column.data_type())).fold(0, usize::saturating_add);
        if fields > MOST_FIELDS && fault.is_none() {
            let text = format!("a step of the statement has {fields} columns and fields; {MOST_FIELDS} are the most");
            fault = Some(Fault::at_word("limit_exceeded", text, &["SELECT"]));
        }
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Literal(value, _) = expr {
                    bytes = bytes.saturating_add(size(value));
                }
                if fault.is_none() {
                    fault = fault_of(expr)?;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let most = MOST.max(OFTEN * sql.len());
    if bytes > most && fault.is_none() {
        let text = format!("the constants of the statement take {bytes} bytes once they are made; {most} are the most");
        fault = Some(Fault::at_word("limit_exceeded", text, &["SELECT"]));
    }
    Ok(fault.map_or(Ok(bytes), Err))
}

fn fault_of(expr: &Expr) -> Result<Option<Fault>> {
    let no_constant = |word: &str| {
        let text =
            "the pattern of a regular expression has to be a constant: each that rows have would be compiled and kept";
        Fault::at_word("unsupported", text, &[word, "regexp_like", "SELECT"])
    };
    Ok(match expr {
        Expr::BinaryExpr(of) if is_pattern(of.op) && !matches!(*of.right, Expr::Literal(..)) => {
            Some(no_constant(&of.op.to_string()))
        }
        Expr::ScalarFunction(call) => match (call.func.name(), call.args.get(1)) {
            (name, Some(pattern)) if name.starts_with("regexp_") && !matches!(pattern, Expr::Literal(..)) => {
                Some(no_constant(name))
            }
            // It was not made when all others were.
            (name, _) => TooMuch::of_constants(call)?
                .map(|too_much| Fault::at_word("limit_exceeded", too_much.to_string(), &[name, "SELECT"])),
        },
        Expr::AggregateFunction(call) if call.func.name() == "string_agg" => match call.params.args.get(1) {
            Some(Expr::Literal(between, _)) if size(between) > MOST_BETWEEN => {
                let text = format!("string_agg puts {MOST_BETWEEN} bytes at most between two texts");
                Some(Fault::at_word("limit_exceeded", text, &["string_agg"]))
            }
            _ => None,
        },
        _ => None,
    })
}

fn is_pattern(op: Operator) -> bool {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    matches!(op, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch)
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

/// Fields of a type, those that have none counted as one.
fn fields(of: &Arrow) -> usize {
    match of {
        Arrow::Struct(of) => of.iter().map(|field| fields(field.data_type())).fold(0, usize::saturating_add),
        Arrow::List(of) | Arrow::LargeList(of) | Arrow::FixedSizeList(of, _) | Arrow::Map(of, _) => {
            fields(of.data_type())
        }
        _ => 1,
    }
}
