//! An aggregate taken apart: what is done with each batch, with the states of a pane, and when a window closes.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};

use super::Group;
use super::slot::{Input, Slot};

/// The three plans.
pub(crate) struct Split {
    /// From rows to states.
    pub(crate) partial: Arc<dyn ExecutionPlan>,
    /// From states to fewer states.
    pub(crate) reduce: Arc<dyn ExecutionPlan>,
    /// From the states of one window to its rows.
    pub(crate) last: Arc<dyn ExecutionPlan>,
    /// Which column of a state is the window.
    pub(crate) window: usize,
    /// What states look like.
    pub(crate) schema: SchemaRef,
}

/// Takes the one aggregate of `plan` apart, one column of which is the window.
pub(crate) fn split(plan: Arc<dyn ExecutionPlan>, column: &Group) -> Result<Split> {
    let mut parts = None;
    let mut aggregates = 0;
    let above = plan.transform_down(|plan| {
        let Some(aggregate) = plan.downcast_ref::<AggregateExec>() else { return Ok(Transformed::no(plan)) };
        aggregates += 1;
        let (partial, reduce, last) = taken_apart(aggregate)?;
        let groups = aggregate.group_expr().expr();
        let window = (0..groups.len()).filter(|at| groups[*at].1 == column.name).nth(column.before);
        parts = Some((partial, reduce, window));
        Ok(Transformed::new(last, true, TreeNodeRecursion::Jump))
    })?;
    match parts {
        Some((partial, reduce, Some(window))) if aggregates == 1 => {
            let schema = partial.schema();
            Ok(Split { partial, reduce, last: above.data, window, schema })
        }
        _ => internal_err!("the plan does not hold one aggregate by a window"),
    }
}

type Parts = (Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>);

/// The aggregate over raw rows: itself, or, over more than one input, the partial one under it.
fn over_rows(aggregate: &AggregateExec) -> Result<&AggregateExec> {
    match aggregate.mode() {
        AggregateMode::Single | AggregateMode::SinglePartitioned | AggregateMode::Partial => return Ok(aggregate),
        AggregateMode::Final | AggregateMode::FinalPartitioned => {}
        AggregateMode::PartialReduce => return internal_err!("an aggregate of states"),
    }
    let mut below = aggregate.input();
    loop {
        match (below.downcast_ref::<AggregateExec>(), below.children().as_slice()) {
            (Some(partial), _) if *partial.mode() == AggregateMode::Partial => return Ok(partial),
            (None, [only]) => below = only,
            _ => return internal_err!("a final aggregate without its partial one"),
        }
    }
}

fn taken_apart(aggregate: &AggregateExec) -> Result<Parts> {
    let aggregate = over_rows(aggregate)?;
    let functions = aggregate.aggr_expr().to_vec();
    let raw = aggregate.input_schema();
    let partial = AggregateExec::try_new(
        AggregateMode::Partial,
        aggregate.group_expr().clone(),
        functions.clone(),
        aggregate.filter_expr().to_vec(),
        Arc::clone(aggregate.input()),
        Arc::clone(&raw),
    )?;
    let partial: Arc<dyn ExecutionPlan> = Arc::new(partial);
    let over_states = |mode| -> Result<Arc<dyn ExecutionPlan>> {
        let states = Arc::new(Slot::new(Input::States, &partial.schema(), None)?);
        let group = aggregate.group_expr().as_final();
        // The filters were applied when the states were made.
        let none = vec![None; functions.len()];
        Ok(Arc::new(AggregateExec::try_new(mode, group, functions.clone(), none, states, Arc::clone(&raw))?))
    };
    let (reduce, last) = (over_states(AggregateMode::PartialReduce)?, over_states(AggregateMode::Final)?);
    Ok((partial, reduce, last))
}
