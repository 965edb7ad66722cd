//! Functions of ours: `tumble(time, size)` and `hop(time, slide, size)`, the windows by which rows are grouped.

use std::hash::Hash;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::datatypes::{
    ArrowTimestampType, DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// `tumble(time, size)`.
pub(crate) const TUMBLE: &str = "tumble";
/// `hop(time, slide, size)`.
pub(crate) const HOP: &str = "hop";

pub(crate) fn register(state: &mut SessionState) -> Result<()> {
    for (name, intervals) in [(TUMBLE, 1), (HOP, 2)] {
        let signature = Signature::any(1 + intervals, Volatility::Immutable);
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(Pane { name, signature })))?;
    }
    Ok(())
}

/// The start of the pane (a window's slide) that a time lies in; for tumbling windows that is the window.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Pane {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Pane {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [time @ DataType::Timestamp(..), intervals @ ..] => {
                if let Some(other) = intervals.iter().find(|interval| !matches!(interval, DataType::Interval(_))) {
                    return plan_err!("`{}` wants intervals after the time, not {other}", self.name);
                }
                Ok(time.clone())
            }
            [other, ..] => plan_err!("`{}` wants a timestamp as its first argument, not {other}", self.name),
            [] => plan_err!("`{}` wants a timestamp and intervals", self.name),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let slide_ms = match arguments.args.get(1) {
            Some(ColumnarValue::Scalar(interval)) => interval_ms(interval),
            _ => None,
        };
        let Some(slide_ms) = slide_ms else { return exec_err!("`{}` wants constant intervals", self.name) };
        let times = arguments.args[0].to_array(arguments.number_rows)?;
        Ok(ColumnarValue::Array(floored(&times, slide_ms)?))
    }
}

/// An interval of days and less, in milliseconds, if it is positive and whole.
pub(crate) fn interval_ms(interval: &ScalarValue) -> Option<i64> {
    let ms = match interval {
        ScalarValue::IntervalMonthDayNano(Some(value)) if value.months == 0 && value.nanoseconds % 1_000_000 == 0 => {
            i64::from(value.days).checked_mul(86_400_000)?.checked_add(value.nanoseconds / 1_000_000)?
        }
        ScalarValue::IntervalDayTime(Some(value)) => {
            i64::from(value.days).checked_mul(86_400_000)?.checked_add(i64::from(value.milliseconds))?
        }
        _ => return None,
    };
    (ms > 0).then_some(ms)
}

/// How many units are a millisecond, or how many milliseconds a unit is.
fn of_unit(unit: TimeUnit) -> (i64, i64) {
    match unit {
        TimeUnit::Second => (1, 1000),
        TimeUnit::Millisecond => (1, 1),
        TimeUnit::Microsecond => (1_000, 1),
        TimeUnit::Nanosecond => (1_000_000, 1),
    }
}

/// Times rounded down to multiples of `slide_ms` since 1970-01-01T00:00Z.
fn floored(times: &ArrayRef, slide_ms: i64) -> Result<ArrayRef> {
    fn of<T: ArrowTimestampType>(times: &ArrayRef, slide_ms: i64) -> ArrayRef {
        let floored: PrimitiveArray<T> = times
            .as_primitive::<T>()
            .unary(|time| from_ms(to_ms(time, T::UNIT).div_euclid(slide_ms).saturating_mul(slide_ms), T::UNIT));
        Arc::new(floored.with_data_type(times.data_type().clone()))
    }
    Ok(match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => of::<TimestampSecondType>(times, slide_ms),
        DataType::Timestamp(TimeUnit::Millisecond, _) => of::<TimestampMillisecondType>(times, slide_ms),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of::<TimestampMicrosecondType>(times, slide_ms),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => of::<TimestampNanosecondType>(times, slide_ms),
        other => return exec_err!("{other} is no timestamp"),
    })
}

/// A time in milliseconds, rounded down.
pub(crate) fn to_ms(time: i64, unit: TimeUnit) -> i64 {
    let (per_ms, ms) = of_unit(unit);
    time.div_euclid(per_ms).saturating_mul(ms)
}

/// Milliseconds in this unit.
pub(crate) fn from_ms(ms: i64, unit: TimeUnit) -> i64 {
    let (per_ms, per_unit) = of_unit(unit);
    ms.div_euclid(per_unit).saturating_mul(per_ms)
}

/// The times of a column in milliseconds.
pub(crate) fn times_ms(times: &ArrayRef) -> Result<Vec<Option<i64>>> {
    fn of<T: ArrowTimestampType>(times: &ArrayRef) -> Vec<Option<i64>> {
        times.as_primitive::<T>().iter().map(|time| time.map(|time| to_ms(time, T::UNIT))).collect()
    }
    Ok(match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => of::<TimestampSecondType>(times),
        DataType::Timestamp(TimeUnit::Millisecond, _) => of::<TimestampMillisecondType>(times),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of::<TimestampMicrosecondType>(times),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => of::<TimestampNanosecondType>(times),
        other => return exec_err!("{other} is no timestamp"),
    })
}
