//! Functions that make longer texts and lists than they are given, or compare each part of one value with each of another, look
//! first how much that would be: no pool counts what they make, and nothing ends a call that has begun. Wherever an expression
//! is planned, they are put in the place of DataFusion's own, whatever calls those.
//!
//! What is made is judged by a bound that is never less than it: a text in which something is replaced is counted as if it all
//! were. All that they make in one execution counts together. A batch that would be too much is refused as if a row of it had failed,
//! and so done again by halves; at its end a row fails that is too much alone, and so does a group of a window. A table has no halves,
//! and the groups of a window that do not fail are computed together at last: where that is too much the query ends.

use std::cell::Cell;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::kernels::concat_elements::concat_elements_dyn;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DataFusionError, Result, internal_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::size::{digits, entries, leaf, parts, size, text};

/// Bytes that these functions may make in one execution: five hundred times what a batch of records has, and less than ends a
/// process. Tests do with less, since they make as much.
pub(crate) const MOST: usize = if cfg!(test) { 16 << 20 } else { 512 << 20 };
/// Pairs of letters or entries that one may compare in a row.
const MOST_PAIRS: usize = 1_000_000;

thread_local! {
    /// What they have made in the execution that this thread is at.
    static MADE: Cell<usize> = const { Cell::new(0) };
}

/// An execution begins on this thread, where it stays.
pub(crate) fn begins() {
    MADE.set(0);
}

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    state.register_function_rewrite(Arc::new(Bounds))
}

/// How much a function makes of what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Makes {
    /// All of it, so many times.
    All(usize),
    /// `(separator, value, …)`: the values with the separator between them.
    Joined,
    /// `(list, separator[, null])`: the entries with the separator between them.
    Listed,
    /// `(text, from, to)`.
    Replaced,
    /// `(text, pattern, to[, flags])`, where `to` may name groups of the pattern.
    ReplacedByPattern,
    /// `(text, pattern[, flags])`: each group of the pattern, which may hold each other.
    Captured,
    /// `(moment, format)`.
    Formatted,
    /// Nothing that is longer, by comparing each part of the one with each of the other.
    Pairs,
}

/// By their own names; other names lead to these.
const BOUNDED: [(&str, Makes); 17] = [
    ("array_append", Makes::All(1)),
    ("array_concat", Makes::All(1)),
    ("array_has_all", Makes::Pairs),
    ("array_has_any", Makes::Pairs),
    ("array_prepend", Makes::All(1)),
    ("array_to_string", Makes::Listed),
    ("array_union", Makes::All(1)),
    ("concat", Makes::All(1)),
    ("concat_ws", Makes::Joined),
    ("encode", Makes::All(2)),
    ("levenshtein", Makes::Pairs),
    ("make_array", Makes::All(1)),
    // From a place before the one that is written over, what stands between is there twice.
    ("overlay", Makes::All(2)),
    ("regexp_match", Makes::Captured),
    ("regexp_replace", Makes::ReplacedByPattern),
    ("replace", Makes::Replaced),
    ("to_char", Makes::Formatted),
];

/// Why a function is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooMuch {
    #[error("with {function} {bytes} bytes would be made at once; {most} are the most", most = MOST)]
    Bytes { function: String, bytes: usize },
    #[error("{function} would compare {pairs} pairs of letters or entries; {most} are the most", most = MOST_PAIRS)]
    Pairs { function: String, pairs: usize },
}

impl TooMuch {
    /// Why a call over constants alone still stands in a plan, if it would be too much.
    pub(crate) fn of_constants(call: &ScalarFunction) -> Result<Option<TooMuch>> {
        let Some(bounded) = call.func.inner().downcast_ref::<Bounded>() else { return Ok(None) };
        let mut values = Vec::with_capacity(call.args.len());
        for argument in &call.args {
            let Expr::Literal(value, _) = argument else { return Ok(None) };
            values.push(ColumnarValue::Scalar(value.clone()));
        }
        begins();
        Ok(bounded.judge(&values, 1).err())
    }

    /// The one that an error is about.
    pub(crate) fn of(error: &DataFusionError) -> Option<&TooMuch> {
        match error.find_root() {
            DataFusionError::External(error) => error.downcast_ref(),
            _ => None,
        }
    }
}

/// Puts [`Bounded`] for a function, and a function for `||`.
#[derive(Debug)]
struct Bounds;

impl FunctionRewrite for Bounds {
    fn name(&self) -> &str {
        "bounded values"
    }

    fn rewrite(&self, expr: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expr {
            // Of an array that is written out DataFusion makes `IN`, which is told apart by the function itself.
            Expr::ScalarFunction(mut call) if call.func.name() == "array_has" => {
                if let Some(Expr::ScalarFunction(list)) = call.args.first_mut()
                    && let Some(plain) = plain_list(&list.func)
                {
                    list.func = plain;
                    return Ok(Transformed::yes(Expr::ScalarFunction(call)));
                }
                Transformed::no(Expr::ScalarFunction(call))
            }
            Expr::ScalarFunction(call) => match BOUNDED.iter().find(|(name, _)| *name == call.func.name()) {
                Some((_, makes)) if !call.func.inner().is::<Bounded>() => {
                    Transformed::yes(bounded(call.func, *makes, call.args))
                }
                _ => Transformed::no(Expr::ScalarFunction(call)),
            },
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                let plain = Concatenation { signature: Signature::user_defined(Volatility::Immutable) };
                let plain = Arc::new(ScalarUDF::new_from_impl(plain));
                Transformed::yes(bounded(plain, Makes::All(1), vec![*left, *right]))
            }
            other => Transformed::no(other),
        })
    }
}

/// DataFusion's own function for an array that is written out, where this is the bounded one.
fn plain_list(func: &ScalarUDF) -> Option<Arc<ScalarUDF>> {
    let bounded = func.inner().downcast_ref::<Bounded>()?;
    (bounded.plain.name() == "make_array").then(|| Arc::clone(&bounded.plain))
}

fn bounded(plain: Arc<ScalarUDF>, makes: Makes, arguments: Vec<Expr>) -> Expr {
    let func = Arc::new(ScalarUDF::new_from_impl(Bounded { plain, makes }));
    Expr::ScalarFunction(ScalarFunction::new_udf(func, arguments))
}

/// A function that fails where it would make too much.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    plain: Arc<ScalarUDF>,
    makes: Makes,
}

impl Bounded {
    /// Refuses what would be too much, and counts what is not.
    fn judge(&self, values: &[ColumnarValue], rows: usize) -> std::result::Result<(), TooMuch> {
        let is_constant = values.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { rows };
        let Ok(given) = values.iter().map(Given::new).collect::<Result<Vec<_>>>() else { return Ok(()) };
        let function = || self.plain.name().to_owned();
        if self.makes == Makes::Pairs {
            let [one, other, ..] = given.as_slice() else { return Ok(()) };
            // A list that is the same for all rows is made a set of.
            if self.plain.name() != "levenshtein" && (one.is_one || other.is_one) {
                return Ok(());
            }
            let pairs = (0..rows).map(|row| one.parts(row).saturating_mul(other.parts(row))).max().unwrap_or(0);
            return if pairs > MOST_PAIRS { Err(TooMuch::Pairs { function: function(), pairs }) } else { Ok(()) };
        }
        let bytes = made(self.makes, &given, rows).saturating_add(MADE.get());
        if bytes > MOST {
            return Err(TooMuch::Bytes { function: function(), bytes });
        }
        MADE.set(bytes);
        Ok(())
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        self.plain.schema_name(arguments)
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.plain.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.plain.return_type(types)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.plain.return_field_from_args(arguments)
    }

    fn is_strict(&self) -> bool {
        self.plain.is_strict()
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let judged = self.judge(&arguments.args, arguments.number_rows);
        judged.map_err(|too_much| DataFusionError::External(Box::new(too_much)))?;
        self.plain.invoke_with_args(arguments)
    }
}

/// `||`, as DataFusion has it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concatenation {
    signature: Signature,
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &str {
        "||"
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        let [left, right] = arguments else { return internal_err!("|| with {} sides", arguments.len()) };
        Ok(format!("{} || {}", left.schema_name(), right.schema_name()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [left, right] = types else { return internal_err!("|| with {} sides", types.len()) };
        let (left, right) = BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_input_types()?;
        Ok(vec![left, right])
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [left, right] = types else { return internal_err!("|| with {} sides", types.len()) };
        BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type()
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let is_nullable = arguments.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, is_nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let [left, right] = arguments.args.as_slice() else { return internal_err!("|| without two sides") };
        let (left, right) = (left.to_array(rows)?, right.to_array(rows)?);
        Ok(ColumnarValue::Array(concat_elements_dyn(left.as_ref(), right.as_ref())?))
    }
}

/// What a function is given: a value for each row, or one for all.
struct Given {
    values: ArrayRef,
    is_one: bool,
}

impl Given {
    fn new(value: &ColumnarValue) -> Result<Given> {
        Ok(match value {
            ColumnarValue::Array(values) => Given { values: Arc::clone(values), is_one: false },
            ColumnarValue::Scalar(value) => Given { values: value.to_array()?, is_one: true },
        })
    }

    /// Times that a value that is the same for all stands there.
    fn times(&self, rows: usize) -> usize {
        if self.is_one { rows } else { 1 }
    }

    fn place(&self, row: usize) -> usize {
        if self.is_one { 0 } else { row }
    }

    fn bytes(&self, rows: usize) -> usize {
        size(self.values.as_ref()).saturating_mul(self.times(rows))
    }

    /// The text of a row; empty where it is null, or none.
    fn text(&self, row: usize) -> &str {
        text(self.values.as_ref(), self.place(row))
    }

    /// The longest text of all.
    fn longest(&self) -> usize {
        (0..self.values.len()).map(|at| text(self.values.as_ref(), at).len()).max().unwrap_or(0)
    }

    /// Letters of a text, or entries of a list; never less.
    fn parts(&self, row: usize) -> usize {
        parts(self.values.as_ref(), self.place(row))
    }
}

/// Bytes that are made of these rows, or more.
fn made(makes: Makes, given: &[Given], rows: usize) -> usize {
    let all = |given: &[Given]| given.iter().map(|given| given.bytes(rows)).fold(0, usize::saturating_add);
    let of_rows = |bytes: &dyn Fn(usize) -> usize| (0..rows).map(bytes).fold(0, usize::saturating_add);
    match (makes, given) {
        (Makes::All(times), given) => all(given).saturating_mul(times),
        (Makes::Joined, [separator, values @ ..]) => {
            all(values).saturating_add(separator.bytes(rows).saturating_mul(values.len().saturating_sub(1)))
        }
        (Makes::Listed, [list, between @ ..]) => {
            let number = entries(list.values.as_ref()).saturating_mul(list.times(rows));
            let written = written(leaf(list.values.data_type()));
            let of_each = between.iter().map(Given::longest).fold(written, usize::saturating_add);
            let digits = digits(list.values.as_ref()).saturating_mul(list.times(rows));
            list.bytes(rows).saturating_add(digits).saturating_add(number.saturating_mul(of_each))
        }
        (Makes::Replaced, [value, from, to, ..]) => of_rows(&|row| {
            let (value, from, to) = (value.text(row).len(), from.text(row).len(), to.text(row).len());
            let times = value.checked_div(from).unwrap_or(0);
            value.max((value - times * from).saturating_add(times.saturating_mul(to)))
        }),
        (Makes::ReplacedByPattern, [value, _, to, flags @ ..]) => {
            let groups_of = |row| to.text(row).matches(['\\', '$']).count();
            let groups_of_all = to.is_one.then(|| groups_of(0));
            of_rows(&|row| {
                let is_everywhere = flags.first().is_some_and(|flags| flags.text(row).contains('g'));
                let (value, groups) = (value.text(row).len(), groups_of_all.unwrap_or_else(|| groups_of(row)));
                let times = if is_everywhere { value + 1 } else { 1 };
                value.saturating_mul(1 + groups).saturating_add(times.saturating_mul(to.text(row).len()))
            })
        }
        (Makes::Captured, [value, pattern, ..]) => of_rows(&|row| {
            let groups = pattern.text(row).matches('(').count();
            value.text(row).len().saturating_mul(1 + groups)
        }),
        // Two letters of a format are 35 at most (`%+`).
        (Makes::Formatted, [_, format, ..]) => of_rows(&|row| (1 + format.text(row).len()).saturating_mul(32)),
        _ => 0,
    }
}

/// Letters that a value of this type takes as text, where it is no text itself, nor a number whose `digits` are counted.
fn written(of: &DataType) -> usize {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Float64 => 0,
        of if of.is_integer() => 20,
        _ => 80,
    }
}
