//! Arithmetic that says so where a result does not fit its type. DataFusion's own wraps around, silently, and has no setting
//! for it: whole numbers, decimals and spans of time are counted by functions of ours instead, whose names are those of the
//! operators, so that no column is called otherwise.

use std::hash::Hash;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Datum};
use datafusion::arrow::compute::kernels::numeric::{add, div, mul, neg, rem, sub};
use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef};
use datafusion::arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, internal_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    state.register_function_rewrite(Arc::new(Checks))
}

/// Puts [`Checked`] for an operator, wherever an expression is planned.
#[derive(Debug)]
struct Checks;

impl FunctionRewrite for Checks {
    fn name(&self) -> &str {
        "checked arithmetic"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let (op, arguments) = match &expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_arithmetic(*op) => {
                let types = (left.get_type(schema)?, right.get_type(schema)?);
                if !is_counted(&types.0, *op, &types.1) {
                    return Ok(Transformed::no(expr));
                }
                (Counted::Of(*op), vec![left.as_ref().clone(), right.as_ref().clone()])
            }
            Expr::Negative(of) if of.get_type(schema)?.is_integer() => (Counted::Negative, vec![of.as_ref().clone()]),
            _ => return Ok(Transformed::no(expr)),
        };
        let func = Arc::new(ScalarUDF::new_from_impl(Checked::new(op)));
        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(func, arguments))))
    }
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

/// Whether a result may not fit. Moments and days that are moved by an interval are checked as they are; two days apart are
/// counted in 64 bits.
fn is_counted(left: &DataType, op: Operator, right: &DataType) -> bool {
    let is_day = |of: &DataType| matches!(of, DataType::Date32 | DataType::Date64);
    let Ok(result) = BinaryTypeCoercer::new(left, &op, right).get_result_type() else { return false };
    match (op, result) {
        (_, DataType::Decimal128(..)) => true,
        (Operator::Divide | Operator::Modulo, _) => false,
        (_, of) if of.is_integer() => !(is_day(left) && is_day(right)),
        (_, DataType::Duration(_)) => true,
        _ => false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Of(Operator),
    Negative,
}

/// An operator that fails where its result does not fit.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Counted,
    signature: Signature,
}

impl Checked {
    fn new(op: Counted) -> Checked {
        Checked { op, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn written(&self, arguments: &[Expr], text: impl Fn(&Expr) -> String) -> Result<String> {
        Ok(match (self.op, arguments) {
            (Counted::Of(op), [left, right]) => format!("{} {op} {}", text(left), text(right)),
            (Counted::Negative, [of]) => format!("(- {})", text(of)),
            _ => return internal_err!("an operator with {} sides", arguments.len()),
        })
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Counted::Of(Operator::Plus) => "add",
            Counted::Of(Operator::Minus) => "subtract",
            Counted::Of(Operator::Multiply) => "multiply",
            Counted::Of(Operator::Divide) => "divide",
            Counted::Of(_) => "remainder",
            Counted::Negative => "negative",
        }
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        self.written(arguments, |expr| expr.schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.op, types) {
            (Counted::Of(op), [left, right]) => {
                let (left, right) = BinaryTypeCoercer::new(left, &op, right).get_input_types()?;
                Ok(vec![left, right])
            }
            _ => Ok(types.to_vec()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (self.op, types) {
            (Counted::Of(op), [left, right]) => BinaryTypeCoercer::new(left, &op, right).get_result_type(),
            (Counted::Negative, [of]) => Ok(of.clone()),
            _ => internal_err!("an operator with {} sides", types.len()),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let is_nullable = arguments.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, is_nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = match (self.op, arguments.args.as_slice()) {
            (Counted::Of(op), [left, right]) => {
                let kernel: fn(&dyn Datum, &dyn Datum) -> std::result::Result<ArrayRef, ArrowError> = match op {
                    Operator::Plus => add,
                    Operator::Minus => sub,
                    Operator::Multiply => mul,
                    Operator::Divide => div,
                    _ => rem,
                };
                apply(left, right, kernel)?
            }
            (Counted::Negative, [ColumnarValue::Array(of)]) => ColumnarValue::Array(neg(of.as_ref())?),
            (Counted::Negative, [ColumnarValue::Scalar(of)]) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&neg(of.to_array()?.as_ref())?, 0)?)
            }
            (_, sides) => return internal_err!("an operator with {} sides", sides.len()),
        };
        within_precision(&result)?;
        Ok(result)
    }
}

/// Arrow looks whether a decimal fits its 128 bits, which hold some numbers of 39 digits.
fn within_precision(result: &ColumnarValue) -> Result<()> {
    match result {
        ColumnarValue::Array(of) => match of.data_type() {
            DataType::Decimal128(precision @ DECIMAL128_MAX_PRECISION, _) => {
                Ok(of.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision)?)
            }
            _ => Ok(()),
        },
        ColumnarValue::Scalar(ScalarValue::Decimal128(Some(value), DECIMAL128_MAX_PRECISION, _))
            if value.unsigned_abs() >= 10_u128.pow(u32::from(DECIMAL128_MAX_PRECISION)) =>
        {
            exec_err!("a decimal has {DECIMAL128_MAX_PRECISION} digits at most")
        }
        ColumnarValue::Scalar(_) => Ok(()),
    }
}
