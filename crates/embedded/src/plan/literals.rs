//! Written numbers with a point are doubles, and a double beside a decimal makes a double of the decimal, whose last digits are
//! then lost. Here such a number is read as the decimal that it is written as, wherever it meets one; elsewhere it stays a
//! double, as columns of doubles do.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator};

/// Functions whose arguments are values of one type, and the first of those.
const OF_ONE_TYPE: [(&str, usize); 6] =
    [("coalesce", 0), ("nvl", 0), ("nvl2", 1), ("nullif", 0), ("greatest", 0), ("least", 0)];

/// The plan with these numbers read as decimals.
pub(crate) fn exact(plan: LogicalPlan, numbers: &Numbers) -> Result<LogicalPlan> {
    let exact = plan.transform_up(|plan| {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| Ok(Transformed::yes(read(expr, &schema, numbers))))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?;
        plan.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(exact.data)
}

/// One expression, whose parts are read.
fn read(mut expr: Expr, schema: &DFSchema, numbers: &Numbers) -> Expr {
    match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.is_numerical_operators() => {
            side_by_side([left.as_mut(), right.as_mut()], *op, schema, numbers);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
            of_one_type(vec![left.as_mut(), right.as_mut()], schema, numbers);
        }
        Expr::Between(between) => {
            of_one_type(vec![between.expr.as_mut(), between.low.as_mut(), between.high.as_mut()], schema, numbers);
        }
        Expr::InList(list) => {
            of_one_type(std::iter::once(list.expr.as_mut()).chain(&mut list.list).collect(), schema, numbers);
        }
        Expr::Case(case) => {
            let (mut asked, mut given) = (Vec::new(), Vec::new());
            for (when, then) in &mut case.when_then_expr {
                asked.push(when.as_mut());
                given.push(then.as_mut());
            }
            if let Some(of) = &mut case.expr {
                asked.push(of.as_mut());
                of_one_type(asked, schema, numbers);
            }
            given.extend(case.else_expr.as_deref_mut());
            of_one_type(given, schema, numbers);
        }
        Expr::ScalarFunction(call) => {
            if let Some((_, first)) = OF_ONE_TYPE.iter().find(|(name, _)| *name == call.func.name()) {
                of_one_type(call.args.iter_mut().skip(*first).collect(), schema, numbers);
            }
        }
        _ => {}
    }
    expr
}

fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// Both sides of an operator: what comes out has digits of its own.
fn side_by_side(sides: [&mut Expr; 2], op: Operator, schema: &DFSchema, numbers: &Numbers) {
    let is_decimal = |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Decimal128(..)));
    let [left, right] = sides;
    let (one, other) = if is_decimal(left) { (&*left, right) } else { (&*right, left) };
    let (Ok(DataType::Decimal128(_, scale)), Some(decimal)) = (one.get_type(schema), constant(other, numbers)) else {
        return;
    };
    // More digits behind the point than there can be are no decimal.
    if let Ok(DataType::Decimal128(_, more)) = decimal.get_type(schema)
        && (op != Operator::Multiply || scale + more <= DECIMAL128_MAX_PRECISION.cast_signed())
    {
        *other = decimal;
    }
}

/// Expressions of which one type is made. Where there is a double that is not written out, or the digits are too many, that is
/// a double.
fn of_one_type(mut all: Vec<&mut Expr>, schema: &DFSchema, numbers: &Numbers) {
    let mut read = Vec::with_capacity(all.len());
    let (mut before, mut behind, mut has_decimal) = (0, 0, false);
    for expr in &all {
        let decimal = constant(expr, numbers);
        let (is_own, of) = (decimal.is_none(), decimal.as_ref().unwrap_or(expr).get_type(schema));
        let (precision, scale) = match of {
            Ok(DataType::Decimal128(precision, scale)) => {
                has_decimal |= is_own;
                (precision.cast_signed(), scale)
            }
            Ok(DataType::Int32) => (10, 0),
            Ok(of) if of.is_integer() => (20, 0),
            Ok(DataType::Null) => (0, 0),
            _ => return,
        };
        (before, behind) = (before.max(precision - scale), behind.max(scale));
        read.push(decimal);
    }
    if has_decimal && before + behind <= DECIMAL128_MAX_PRECISION.cast_signed() {
        for (expr, decimal) in all.iter_mut().zip(read) {
            if let Some(decimal) = decimal {
                **expr = decimal;
            }
        }
    }
}

/// A number that is written out, or made of such by `+`, `-` and `*`, as a decimal; none where it has no point.
fn constant(expr: &Expr, numbers: &Numbers) -> Option<Expr> {
    let whole = |expr: &Expr| matches!(expr, Expr::Literal(of, _) if of.data_type().is_integer()).then(|| expr.clone());
    Some(match expr {
        Expr::Literal(ScalarValue::Float64(Some(number)), metadata) => {
            Expr::Literal(numbers.decimal(*number)?, metadata.clone())
        }
        Expr::Negative(of) => Expr::Negative(Box::new(constant(of, numbers)?)),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::Plus | Operator::Minus | Operator::Multiply),
            right,
        }) => {
            let (one, other) = match (constant(left, numbers), constant(right, numbers)) {
                (Some(one), Some(other)) => (one, other),
                (Some(one), None) => (one, whole(right)?),
                (None, Some(other)) => (whole(left)?, other),
                (None, None) => return None,
            };
            Expr::BinaryExpr(BinaryExpr { left: Box::new(one), op: *op, right: Box::new(other) })
        }
        _ => return None,
    })
}

/// The numbers of a statement as they are written, by the doubles that the parser makes of them.
#[derive(Debug, Default)]
pub(crate) struct Numbers(BTreeMap<u64, String>);

impl Numbers {
    /// Notes a number.
    pub(crate) fn note(&mut self, text: &str) {
        let Ok(number) = text.parse::<f64>() else { return };
        // Its digits are all that is known of what has an exponent.
        let text = if text.contains(['e', 'E']) { number.to_string() } else { text.to_owned() };
        let known = self.0.entry(number.to_bits()).or_insert_with(|| text.clone());
        if decimal(known) != decimal(&text) {
            // Two that are one double: which is which cannot be told, and they stay doubles.
            known.clear();
        }
    }

    fn decimal(&self, number: f64) -> Option<ScalarValue> {
        let value = decimal(self.0.get(&number.abs().to_bits())?)?;
        if number.is_sign_negative() { value.arithmetic_negate().ok() } else { Some(value) }
    }
}

fn decimal(text: &str) -> Option<ScalarValue> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    let value: i128 = format!("0{whole}{part}").parse().ok()?;
    let precision = u8::try_from((whole.len() + part.len()).max(1)).ok()?;
    let scale = i8::try_from(part.len()).ok()?;
    (!text.is_empty() && precision <= DECIMAL128_MAX_PRECISION).then_some(ScalarValue::Decimal128(
        Some(value),
        precision,
        scale,
    ))
}
