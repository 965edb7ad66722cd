//! Whether a SELECT can run here. The manager's gate has judged its tokens; here is judged what they mean: an allow-list over
//! the logical plan, before anything of it is executed. DataFusion's own checks refuse what is safe and let pass what is endless.

use std::collections::BTreeMap;

use datafusion::logical_expr::LogicalPlan;
use streamview_manager::engines::{Refusal, Select};

use crate::plan::{Limits, Prepared, Purpose, Windowed, origin, planned, said, session, window};
use crate::schema;

pub(crate) use self::fault::Fault;
use self::rules::Judged;

mod constants;
pub(crate) mod depth;
mod errors;
mod fault;
mod joins;
mod key;
mod parse;
mod rules;

pub(crate) fn prepared(select: &Select, purpose: Purpose, limits: &Limits) -> Result<Prepared, Refusal> {
    // Streams have the numbers that their readers give them.
    let mut select = select.clone();
    select.sources.sort_by_key(|source| source.table.is_some());
    let select = &select;
    let refused = |error| errors::refusal(error, &select.sql);
    let faulty = |fault: Fault| fault.refusal(&select.sql);
    depth::check(&select.sql).map_err(faulty)?;
    let statement = parse::statement(&select.sql).map_err(faulty)?;
    let plain = session::state(false).map_err(refused)?;
    let names = parse::Names::new(select);
    let plan = names.plan(statement, &plain).map_err(refused)?;
    let judged = rules::judge(plan, purpose, limits).map_err(faulty)?;
    let Judged { plan, aggregate, limit } = judged;
    let mut state = match aggregate {
        Some(_) => session::state(true).map_err(refused)?,
        None => plain,
    };
    let found = match &aggregate {
        Some(aggregate) => Some(window::of(aggregate, limits).map_err(refused)?.map_err(faulty)?),
        None => None,
    };
    let config = state.config().options().clone();
    state.execution_props_mut().mark_start_execution(config);
    let columns = schema::columns_of(plan.schema().as_arrow());
    check_columns(&columns, limits).map_err(faulty)?;
    let key = match (&aggregate, &found) {
        (Some(aggregate), Some(found)) => {
            let key = key::of(&plan, aggregate, found.group).map_err(refused)?;
            if let Some(missing) = key.missing.filter(|_| purpose == Purpose::Persistent) {
                return Err(faulty(key::not_selected(&missing)));
            }
            key.columns
        }
        _ => Vec::new(),
    };
    let windowed = match found {
        Some(found) => Some(windowed(found, select, limits, &state).map_err(refused)?),
        None => None,
    };
    let is_joined = select.sources.iter().any(|source| source.table.is_some());
    let has_origins = aggregate.is_none() && (is_joined || purpose == Purpose::Persistent);
    let plan = if has_origins { origin::carried(plan, &select.sources).map_err(refused)? } else { plan };
    let plan = state.optimize(&plan).map_err(refused)?;
    let constants = constants::judge(&plan, &select.sql).map_err(refused)?.map_err(faulty)?;
    session::with_constants(&mut state, constants * columns.len());
    // What a CASE gives, and a UNION, is known now only.
    let mut typed = schema::columns_of(plan.schema().as_arrow());
    typed.truncate(columns.len());
    let columns = typed;
    joins::judge(&plan, &select.sources).map_err(refused)?.map_err(faulty)?;
    let template = planned(&plan, &state).and_then(|plan| said(plan, &columns)).map_err(refused)?;
    let mut prepared = Prepared {
        template,
        plan,
        state,
        sources: select.sources.clone(),
        windowed,
        columns,
        key,
        limit,
        has_origins,
        needed: Vec::new(),
    };
    prepared.needed = needed(&prepared);
    rules::judge_physical(&prepared).map_err(|error| match error {
        rules::Physical::Fault(fault) => faulty(fault),
        rules::Physical::Error(error) => refused(error),
    })?;
    Ok(prepared)
}

fn check_columns(columns: &[streamview_manager::catalog::Column], limits: &Limits) -> Result<(), Fault> {
    if columns.len() > limits.max_columns {
        let text = format!("{} columns; {} are the most", columns.len(), limits.max_columns);
        return Err(Fault::at_word("limit_exceeded", text, &["SELECT"]));
    }
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = columns.iter().find(|column| !seen.insert(column.name.as_str())) {
        let text = format!("two columns are called `{}`: give one of them another name with AS", twice.name);
        return Err(Fault::at_word("duplicate_column", text, &[twice.name.as_str(), "SELECT"]));
    }
    Ok(())
}

fn windowed(
    found: window::Found,
    select: &Select,
    limits: &Limits,
    state: &datafusion::execution::context::SessionState,
) -> datafusion::common::Result<Windowed> {
    let mut times = BTreeMap::new();
    let mut text = Vec::new();
    for (source, expr) in found.times {
        let of = &select.sources[source];
        let declared = of.event_time.as_ref().filter(|declared| match &expr {
            datafusion::logical_expr::Expr::Column(column) => column.name == declared.column,
            _ => false,
        });
        let lateness_ms =
            declared.map_or(limits.lateness_ms, |declared| i64::try_from(declared.delay_ms).unwrap_or(i64::MAX));
        text.push((source, expr.to_string()));
        let expr = crate::plan::over_source(&expr, of, state)?;
        times.insert(source, crate::plan::Time { expr, lateness_ms });
    }
    Ok(Windowed { window: found.window, column: found.column, times, text })
}

/// Which columns are read, by source: by the plan, and by the window's time.
fn needed(prepared: &Prepared) -> Vec<Vec<bool>> {
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    use datafusion::physical_expr::utils::collect_columns;
    let schemas: Vec<_> = prepared.sources.iter().map(schema::of_source).collect();
    let mut needed: Vec<Vec<bool>> = schemas.iter().map(|schema| vec![false; schema.fields().len()]).collect();
    let walked = prepared.plan.apply(|plan| {
        if let LogicalPlan::TableScan(scan) = plan
            && let Some(crate::plan::slot::Input::Stream(source) | crate::plan::slot::Input::Table(source)) =
                crate::plan::input_of(scan)
        {
            for at in scan.projection.clone().unwrap_or_else(|| (0..scan.source.schema().fields().len()).collect()) {
                needed[source][at] = true;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if walked.is_err() {
        return needed.into_iter().map(|columns| vec![true; columns.len()]).collect();
    }
    for (source, time) in prepared.windowed.iter().flat_map(|windowed| &windowed.times) {
        for column in collect_columns(&time.expr) {
            needed[*source][column.index()] = true;
        }
    }
    needed
}
