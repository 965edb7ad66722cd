//! Which record each row of a query without a window is made of: its partition and offset are carried through the plan, behind
//! the query's own columns, so that a row that is written twice can be told.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch, UInt64Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{Int32Type, Int64Type};
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::{Column, DFSchema, Result, internal_err};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias};
use streamview_manager::catalog::Source;

use super::input_of;
use super::slot::{Input, Provider};
use crate::schema;

/// What the carried columns are called within a plan: no column of a source, which has no control character in its name.
const CARRIED: [&str; 2] = ["\u{1}partition", "\u{1}offset"];

/// The plan with two more columns behind its own: where the record of each row stands.
pub(crate) fn carried(plan: LogicalPlan, sources: &[Source]) -> Result<LogicalPlan> {
    let own = plan.schema().fields().len();
    let plan = below(plan, sources)?;
    at_the_end(plan, own)
}

/// Takes the carried columns off.
pub(crate) fn split(rows: &RecordBatch) -> Result<(RecordBatch, Vec<(i32, i64)>)> {
    let Some(own) = rows.num_columns().checked_sub(CARRIED.len()) else { return internal_err!("rows without origins") };
    let partitions = rows.column(own).as_primitive::<Int32Type>();
    let offsets = rows.column(own + 1).as_primitive::<Int64Type>();
    let places = (0..partitions.len()).map(|at| (partitions.value(at), offsets.value(at))).collect();
    Ok((rows.project(&(0..own).collect::<Vec<_>>())?, places))
}

/// The rows of one batch of a stream in the order of its records within each partition: a join gives those last that have met
/// nothing.
pub(crate) fn in_order(rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let Some(first) = rows.first() else { return Ok(rows) };
    let all = concat_batches(&first.schema(), &rows)?;
    let (_, places) = split(&all)?;
    if places.is_sorted() {
        return Ok(rows);
    }
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|at| places[*at]);
    let order: UInt64Array = order.into_iter().map(|at| Some(at as u64)).collect();
    Ok(vec![take_record_batch(&all, &order)?])
}

/// The plan with the carried columns somewhere among its own, where a stream is under it.
fn below(plan: LogicalPlan, sources: &[Source]) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::TableScan(scan) => match input_of(&scan) {
            Some(Input::Stream(number)) => {
                let own: Vec<Expr> = scan.projected_schema.columns().into_iter().map(Expr::Column).collect();
                let provider = Provider { input: Input::Stream(number), schema: schema::of_source(&sources[number]) };
                let name = scan.table_name.clone();
                let all = LogicalPlanBuilder::scan(name.clone(), provider_as_source(Arc::new(provider)), None)?;
                let [partition, offset, ..] = schema::hidden_names(&sources[number]);
                let of = |hidden: String, carried| Expr::Column(Column::new(Some(name.clone()), hidden)).alias(carried);
                let origin = [of(partition, CARRIED[0]), of(offset, CARRIED[1])];
                all.project(own.into_iter().chain(origin))?.build()?
            }
            _ => LogicalPlan::TableScan(scan),
        },
        LogicalPlan::Projection(projection) => {
            let input = below(projection.input.as_ref().clone(), sources)?;
            let exprs = projection.expr.into_iter().chain(carried_of(input.schema()));
            LogicalPlan::Projection(Projection::try_new(exprs.collect(), Arc::new(input))?)
        }
        LogicalPlan::Filter(filter) => {
            let input = below(filter.input.as_ref().clone(), sources)?;
            LogicalPlan::Filter(Filter::try_new(filter.predicate, Arc::new(input))?)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = below(alias.input.as_ref().clone(), sources)?;
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias)?)
        }
        LogicalPlan::Union(union) => {
            let own = union.schema.fields().len();
            let mut inputs = union.inputs.iter().map(|input| at_the_end(below(input.as_ref().clone(), sources)?, own));
            let Some(first) = inputs.next() else { return internal_err!("a union of nothing") };
            inputs.try_fold(LogicalPlanBuilder::new(first?), |all, input| all.union(input?))?.build()?
        }
        LogicalPlan::Join(join) => {
            let inputs =
                vec![below(join.left.as_ref().clone(), sources)?, below(join.right.as_ref().clone(), sources)?];
            let join = LogicalPlan::Join(join);
            join.with_new_exprs(join.expressions(), inputs)?
        }
        other => other,
    })
}

/// The carried columns by their names here.
fn carried_of(schema: &DFSchema) -> Vec<Expr> {
    let is_carried = |column: &Column| CARRIED.contains(&column.name.as_str());
    schema.columns().into_iter().filter(is_carried).map(Expr::Column).collect()
}

/// The plan's own columns, then the carried ones.
fn at_the_end(plan: LogicalPlan, own: usize) -> Result<LogicalPlan> {
    let carried = carried_of(plan.schema());
    if carried.len() != CARRIED.len() || plan.schema().fields().len() != own + CARRIED.len() {
        return internal_err!("a plan that does not say where its rows are from");
    }
    let is_own = |column: &Column| !CARRIED.contains(&column.name.as_str());
    let columns = plan.schema().columns().into_iter().filter(is_own).map(Expr::Column);
    // Named as in all parts of a union, whatever stands before the name here.
    let last = carried.into_iter().zip(CARRIED).map(|(column, name)| column.alias(name));
    Ok(LogicalPlan::Projection(Projection::try_new(columns.chain(last).collect(), Arc::new(plan))?))
}
