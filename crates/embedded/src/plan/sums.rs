//! `sum(…)` that says so where it does not fit its type; DataFusion's own wraps around. Groups are summed up in a wider type, so
//! that what fits in the end is right whatever came in between, and what does not fit fails with its group alone.

use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, PrimitiveBuilder,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{
    ArrowNativeTypeOp, DataType, Decimal128Type, Decimal256Type, Field, FieldRef, Int64Type, UInt64Type,
};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, internal_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

use crate::schema;

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    state.register_udaf(Arc::new(AggregateUDF::new_from_impl(CheckedSum { plain: Sum::new() })))?;
    Ok(())
}

/// Digits of a decimal that can be added up more often than there are records, within 38.
const SHORT: u8 = 19;

/// What numbers of a type are added up in; none where the type cannot overflow (doubles), or is no number.
fn wide(of: &DataType) -> Option<DataType> {
    match of {
        DataType::Int64 | DataType::UInt64 => Some(DataType::Decimal128(38, 0)),
        DataType::Decimal128(..=SHORT, scale) => Some(DataType::Decimal128(38, *scale)),
        DataType::Decimal128(_, scale) => Some(DataType::Decimal256(76, *scale)),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    plain: Sum,
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.plain.return_type(types)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (of, result) = (arguments.expr_fields[0].data_type().clone(), arguments.return_field.data_type().clone());
        match (wide(&of), arguments.is_distinct) {
            (None, _) => self.plain.accumulator(arguments),
            (Some(_), false) => Ok(Box::new(OneGroup(sums(&of, result)?))),
            (Some(_), true) => Ok(Box::new(Distinct { values: self.plain.accumulator(arguments)?, result })),
        }
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match wide(arguments.input_fields[0].data_type()) {
            Some(wide) if !arguments.is_distinct => {
                Ok(vec![Arc::new(Field::new(format_state_name(arguments.name, "sum"), wide, true))])
            }
            _ => self.plain.state_fields(arguments),
        }
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        !arguments.is_distinct
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let of = arguments.expr_fields[0].data_type().clone();
        match wide(&of) {
            Some(_) => Ok(sums(&of, arguments.return_field.data_type().clone())?),
            None => self.plain.create_groups_accumulator(arguments),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn sums(of: &DataType, result: DataType) -> Result<Box<dyn GroupsAccumulator + Sync>> {
    Ok(match (of, wide(of)) {
        (DataType::Int64, Some(wide)) => Box::new(Sums::<Int64Type, Decimal128Type>::new(wide, result)),
        (DataType::UInt64, Some(wide)) => Box::new(Sums::<UInt64Type, Decimal128Type>::new(wide, result)),
        (DataType::Decimal128(..), Some(wide @ DataType::Decimal128(..))) => {
            Box::new(Sums::<Decimal128Type, Decimal128Type>::new(wide, result))
        }
        (DataType::Decimal128(..), Some(wide)) => Box::new(Sums::<Decimal128Type, Decimal256Type>::new(wide, result)),
        _ => return internal_err!("a sum of {of}"),
    })
}

/// A sum for each group: of numbers of type `I`, in numbers of type `W`.
struct Sums<I: ArrowPrimitiveType, W: ArrowPrimitiveType> {
    sums: Vec<Option<W::Native>>,
    wide: DataType,
    result: DataType,
    of: PhantomData<fn(I)>,
}

impl<I: ArrowPrimitiveType, W: ArrowPrimitiveType> Sums<I, W>
where
    W::Native: From<I::Native>,
{
    fn new(wide: DataType, result: DataType) -> Sums<I, W> {
        Sums { sums: Vec::new(), wide, result, of: PhantomData }
    }

    fn add(
        &mut self,
        values: impl Iterator<Item = Option<W::Native>>,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.sums.resize(count, None);
        for (at, (value, group)) in values.zip(groups).enumerate() {
            let Some(value) = value.filter(|_| is_in(filter, at)) else { continue };
            let sum = &mut self.sums[*group];
            *sum = Some(match *sum {
                Some(sum) => sum.add_checked(value)?,
                None => value,
            });
        }
        Ok(())
    }

    fn taken(&mut self, emit_to: EmitTo) -> ArrayRef {
        let sums = emit_to.take_needed(&mut self.sums);
        Arc::new(PrimitiveArray::<W>::from_iter(sums).with_data_type(self.wide.clone()))
    }
}

fn is_in(filter: Option<&BooleanArray>, at: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(at) && filter.value(at))
}

/// A sum in the type that it is said to have.
fn narrowed(sums: &ArrayRef, result: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(sums, result, &options).map_err(|_| does_not_fit(result))
}

fn does_not_fit(result: &DataType) -> DataFusionError {
    exec_datafusion_err!("a sum does not fit {}: sum up CAST(… AS decimal(38, n))", schema::of_arrow(result))
}

impl<I: ArrowPrimitiveType, W: ArrowPrimitiveType> GroupsAccumulator for Sums<I, W>
where
    W::Native: From<I::Native>,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        let values = values[0].as_primitive::<I>();
        self.add(values.iter().map(|value| value.map(W::Native::from)), groups, filter, count)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.add(states[0].as_primitive::<W>().iter(), groups, None, count)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        narrowed(&self.taken(emit_to), &self.result)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.taken(emit_to)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<I>();
        let mut states = PrimitiveBuilder::<W>::with_capacity(values.len()).with_data_type(self.wide.clone());
        for (at, value) in values.iter().enumerate() {
            states.append_option(value.filter(|_| is_in(filter, at)).map(W::Native::from));
        }
        Ok(vec![Arc::new(states.finish())])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<Option<W::Native>>()
    }
}

/// The same for all rows that it is given.
struct OneGroup(Box<dyn GroupsAccumulator + Sync>);

impl std::fmt::Debug for OneGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneGroup")
    }
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let groups = vec![0; values.first().map_or(0, |values| values.len())];
        self.0.update_batch(values, &groups, None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let groups = vec![0; states.first().map_or(0, |states| states.len())];
        self.0.merge_batch(states, &groups, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sums = self.0.evaluate(EmitTo::All)?;
        ScalarValue::try_from_array(&sums, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let states = self.0.state(EmitTo::All)?;
        states.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.size()
    }
}

/// A sum of values each of which counts once.
#[derive(Debug)]
struct Distinct {
    values: Box<dyn Accumulator>,
    result: DataType,
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.values.merge_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.values.state()?;
        let [ScalarValue::List(lists)] = state.as_slice() else { return internal_err!("values that are no list") };
        let values = lists.value(0);
        let of = match values.data_type() {
            // The list says the sum's digits, which its values need not have.
            DataType::Decimal128(_, scale) => DataType::Decimal128(38, *scale),
            other => other.clone(),
        };
        let mut sum = OneGroup(sums(&of, self.result.clone())?);
        sum.update_batch(&[values])?;
        sum.evaluate()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.size()
    }
}
