//! What may stand in a plan. What is not named here is refused.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, JoinType, ScalarValue};
use datafusion::logical_expr::{Aggregate, Expr, Join, Limit, LogicalPlan, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;

use super::Fault;
use crate::plan::slot::{Input, slots};
use crate::plan::trace::bare;
use crate::plan::{Limits, Prepared, Purpose, input_of, split};

/// A plan that may run.
pub(super) struct Judged {
    /// Without its last LIMIT.
    pub(super) plan: LogicalPlan,
    pub(super) aggregate: Option<Aggregate>,
    pub(super) limit: Option<u64>,
}

pub(super) fn judge(plan: LogicalPlan, purpose: Purpose, limits: &Limits) -> std::result::Result<Judged, Fault> {
    let (plan, limit) = without_limit(plan)?;
    if limit.is_some() && purpose == Purpose::Persistent {
        let text = "a deployed query never ends, so it has no LIMIT; within a window, give it an ORDER BY";
        return Err(Fault::at_word("limit_in_persistent", text, &["LIMIT", "FETCH"]));
    }
    let mut seen = Seen { purpose, aggregate: None, joins: 0, scans: 0, max_joins: limits.max_joins };
    seen.plan(&plan, true)?;
    if seen.scans > 0 && streams_of(&plan).is_empty() {
        let text = "the query reads tables only: a topic has to stand behind FROM";
        return Err(Fault::at_word("unsupported", text, &["FROM"]));
    }
    if seen.scans == 0 {
        return Err(Fault::at_word("no_source", "the query reads no topic: name one behind FROM", &["SELECT"]));
    }
    Ok(Judged { plan, aggregate: seen.aggregate, limit })
}

/// Takes off the LIMIT that ends the whole query. With an ORDER BY under it, it is one of each window.
fn without_limit(plan: LogicalPlan) -> std::result::Result<(LogicalPlan, Option<u64>), Fault> {
    let LogicalPlan::Limit(Limit { skip, fetch, input }) = &plan else { return Ok((plan, None)) };
    if matches!(input.as_ref(), LogicalPlan::Sort(_)) {
        return Ok((plan, None));
    }
    if skip.as_deref().is_some_and(|skip| number(skip) != Some(0)) {
        return Err(Fault::at_word("unsupported", "OFFSET is not offered on a stream", &["OFFSET"]));
    }
    let Some(fetch) = fetch.as_deref().map(number) else { return Ok((input.as_ref().clone(), None)) };
    match fetch {
        Some(fetch) => Ok((input.as_ref().clone(), Some(fetch))),
        None => Err(Fault::at_word("unsupported", "LIMIT takes a number, written out", &["LIMIT", "FETCH"])),
    }
}

fn number(expr: &Expr) -> Option<u64> {
    match bare(expr) {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => u64::try_from(*number).ok(),
        Expr::Literal(ScalarValue::UInt64(Some(number)), _) => Some(*number),
        _ => None,
    }
}

struct Seen {
    purpose: Purpose,
    aggregate: Option<Aggregate>,
    joins: usize,
    scans: usize,
    max_joins: usize,
}

const ORDER: &str =
    "order over an endless stream never comes about: order within a window (GROUP BY tumble(…)), or leave it out";

impl Seen {
    /// `above`: whether no aggregate stands above this.
    fn plan(&mut self, plan: &LogicalPlan, above: bool) -> std::result::Result<(), Fault> {
        self.expressions(plan)?;
        match plan {
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {}
            LogicalPlan::TableScan(_) => self.scans += 1,
            LogicalPlan::Union(union) if !streams_of(plan).is_empty() => {
                if union.inputs.iter().any(|input| streams_of(input).is_empty()) {
                    let text = "a UNION ALL of a topic with what is no topic is not offered";
                    return Err(Fault::at_word("unsupported", text, &["UNION"]));
                }
                if union.inputs.iter().any(|input| has_aggregate(input)) {
                    let text = "a window over each part of a UNION ALL is not offered: group what the UNION ALL gives";
                    return Err(Fault::at_word("nested_window", text, &["UNION"]));
                }
            }
            LogicalPlan::Aggregate(aggregate) => {
                if self.aggregate.is_some() || !above {
                    let text =
                        "one windowed aggregate per query: chain two deployed queries through a topic, or use Flink";
                    return Err(Fault::at_word("nested_window", text, &["GROUP", "SELECT"]));
                }
                self.aggregate = Some(aggregate.clone());
                return self.plan(&aggregate.input, false);
            }
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) if !above || !has_aggregate(plan) => {
                return Err(match plan {
                    LogicalPlan::Sort(_) => Fault::at_word("endless_sort", ORDER, &["ORDER"]),
                    _ if has_sort(plan) => Fault::at_word("endless_sort", ORDER, &["ORDER"]),
                    _ => Fault::at_word("unsupported", "LIMIT stands at the end of a query only", &["LIMIT", "FETCH"]),
                });
            }
            LogicalPlan::Limit(limit) if !matches!(limit.input.as_ref(), LogicalPlan::Sort(_)) => {
                let text = "LIMIT within a query is not offered without an ORDER BY: which rows it takes is chance";
                return Err(Fault::at_word("unsupported", text, &["LIMIT", "FETCH"]));
            }
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => {}
            LogicalPlan::Join(join) => self.join(join, plan)?,
            other => return Err(refused(other)),
        }
        for input in plan.inputs() {
            self.plan(input, above)?;
        }
        Ok(())
    }

    fn join(&mut self, join: &Join, plan: &LogicalPlan) -> std::result::Result<(), Fault> {
        self.joins += 1;
        if self.joins > self.max_joins {
            let text = format!("more than {} joins", self.max_joins);
            return Err(Fault::at_word("limit_exceeded", text, &["JOIN"]));
        }
        if has_aggregate(plan) {
            let text = "a join over a windowed aggregate is not offered: deploy the aggregate, and join what it writes";
            return Err(Fault::at_word("nested_window", text, &["JOIN"]));
        }
        let (left, right) = (!streams_of(&join.left).is_empty(), !streams_of(&join.right).is_empty());
        match (left, right, join.join_type) {
            (true, true, _) => {
                let text = "two streams are not joined here: declare the one that is looked up by its key as a table, or use Flink \
                            (interval join) or ksqlDB (WITHIN)";
                Err(Fault::at_word("stream_join", text, &["JOIN", ","]))
            }
            (false, false, _) => Err(Fault::at_word("unsupported", "a join of tables alone is not offered", &["JOIN"])),
            (true, false, JoinType::Inner | JoinType::Left) | (false, true, JoinType::Inner | JoinType::Right) => {
                Ok(())
            }
            _ => {
                let text = "rows of a table that no row of the stream has met are never known on an endless stream: keep the \
                            stream's rows (stream LEFT JOIN table)";
                Err(Fault::at_word("outer_stream", text, &["RIGHT", "FULL", "LEFT", "JOIN"]))
            }
        }
    }

    fn expressions(&self, plan: &LogicalPlan) -> std::result::Result<(), Fault> {
        for expr in plan.expressions() {
            let mut fault = None;
            let walked = expr.apply(|expr| {
                fault = self.expression(expr);
                Ok(if fault.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            });
            match (fault, walked) {
                (Some(fault), _) => return Err(fault),
                (None, Err(error)) => return Err(Fault::at_word("unsupported", error.strip_backtrace(), &[])),
                (None, Ok(_)) => {}
            }
        }
        Ok(())
    }

    fn expression(&self, expr: &Expr) -> Option<Fault> {
        match expr {
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => {
                let text = "a SELECT within an expression is not offered: write it as a join with a table";
                Some(Fault::at_word("subquery", text, &["EXISTS", "ANY", "ALL", "IN", "SELECT"]))
            }
            Expr::OuterReferenceColumn(..) => {
                Some(Fault::at_word("subquery", "a correlated query is not offered: write it as a join", &["LATERAL"]))
            }
            Expr::WindowFunction(_) => {
                let text = "OVER would keep rows for ever: group by tumble(…) or hop(…), or use Flink";
                Some(Fault::at_word("unsupported_window", text, &["OVER"]))
            }
            Expr::Unnest(_) => Some(Fault::at_word(
                "unsupported",
                "unnest is not offered: take an array's elements by index",
                &["unnest"],
            )),
            Expr::Placeholder(_) | Expr::ScalarVariable(..) => {
                Some(Fault::at_word("unsupported", "parameters and variables are not offered", &["SELECT"]))
            }
            Expr::GroupingSet(_) => {
                let text = "GROUPING SETS, CUBE and ROLLUP are not offered";
                Some(Fault::at_word("unsupported", text, &["GROUPING", "CUBE", "ROLLUP"]))
            }
            Expr::ScalarFunction(call) => {
                let volatility = call.func.signature().volatility;
                let name = call.func.name();
                (self.purpose == Purpose::Persistent && volatility != Volatility::Immutable)
                    .then(|| not_deterministic(name))
            }
            Expr::AggregateFunction(call) => {
                let needs_order = matches!(call.func.name(), "first_value" | "last_value" | "nth_value");
                (needs_order && call.params.order_by.is_empty()).then(|| {
                    let name = call.func.name();
                    let text = format!("{name}() of a stream depends on chance without an order: {name}(x ORDER BY y)");
                    Fault::at_word("needs_order", text, &[name])
                })
            }
            _ => None,
        }
    }
}

fn not_deterministic(name: &str) -> Fault {
    let text = format!(
        "{name}() gives other values when records are read again, so that a restart would change results: use a time of the \
         record, such as _timestamp"
    );
    let words: &[&str] = match name {
        "now" => &["now", "current_timestamp"],
        "current_date" | "today" => &["current_date", "today"],
        "current_time" => &["current_time"],
        other => &[other],
    };
    Fault::at_word("not_deterministic", text, words)
}

fn refused(plan: &LogicalPlan) -> Fault {
    let fault = |code, text: &str, words: &[&str]| Fault::at_word(code, text, words);
    match plan {
        LogicalPlan::Distinct(_) => {
            let text =
                "every row ever seen would have to be remembered: use UNION ALL, group by a window, or use Flink";
            fault("unbounded_state", text, &["DISTINCT", "UNION", "EXCEPT", "INTERSECT"])
        }
        LogicalPlan::Window(_) => {
            let text = "OVER would keep rows for ever: group by tumble(…) or hop(…), or use Flink";
            fault("unsupported_window", text, &["OVER"])
        }
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => {
            fault("no_source", "the query reads no topic: name one behind FROM", &["VALUES", "SELECT"])
        }
        LogicalPlan::Unnest(_) => {
            fault("unsupported", "unnest is not offered: take an array's elements by index", &["unnest"])
        }
        LogicalPlan::RecursiveQuery(_) => fault("unsupported", "a recursive query is not offered", &["RECURSIVE"]),
        LogicalPlan::Subquery(_) => {
            fault("subquery", "LATERAL is not offered: write it as a join with a table", &["LATERAL"])
        }
        LogicalPlan::Union(_) => fault("no_source", "a UNION of tables alone is not offered", &["UNION"]),
        _ => fault("select_only", "one SELECT over topics is what can be run here", &[]),
    }
}

pub(super) fn streams_of(plan: &LogicalPlan) -> Vec<usize> {
    let mut found = Vec::new();
    let mut open = vec![plan];
    while let Some(plan) = open.pop() {
        if let LogicalPlan::TableScan(scan) = plan
            && let Some(Input::Stream(source)) = input_of(scan)
        {
            found.push(source);
        }
        open.extend(plan.inputs());
    }
    found
}

fn has(plan: &LogicalPlan, is: impl Fn(&LogicalPlan) -> bool) -> bool {
    let mut open = vec![plan];
    while let Some(plan) = open.pop() {
        if is(plan) {
            return true;
        }
        open.extend(plan.inputs());
    }
    false
}

fn has_aggregate(plan: &LogicalPlan) -> bool {
    has(plan, |plan| matches!(plan, LogicalPlan::Aggregate(_)))
}

fn has_sort(plan: &LogicalPlan) -> bool {
    has(plan, |plan| matches!(plan, LogicalPlan::Sort(_)))
}

/// Why a physical plan may not run.
pub(super) enum Physical {
    Fault(Fault),
    Error(DataFusionError),
}

/// The second look: each join keeps a table and probes it with the stream, and a window's aggregate comes apart.
pub(super) fn judge_physical(prepared: &Prepared) -> std::result::Result<(), Physical> {
    let plan = prepared.physical().map_err(Physical::Error)?;
    joins(&plan).map_err(Physical::Fault)?;
    let has_streams = slots(&plan).iter().any(|slot| matches!(slot.input, Input::Stream(_)));
    if !has_streams {
        let text = "no record can ever be in the result: the condition is always false";
        return Err(Physical::Fault(Fault::at_word("always_false", text, &["WHERE", "ON", "HAVING"])));
    }
    if let Some(windowed) = &prepared.windowed {
        split::split(plan, &windowed.column).map_err(Physical::Error)?;
    }
    Ok(())
}

pub(super) fn join_keys() -> Fault {
    Fault::at_word("join_keys", "a join needs equal keys: ON stream.a = table.b", &["JOIN", ","])
}

fn joins(plan: &Arc<dyn ExecutionPlan>) -> std::result::Result<(), Fault> {
    let streams = |plan: &Arc<dyn ExecutionPlan>| slots(plan).iter().any(|slot| matches!(slot.input, Input::Stream(_)));
    let mut open = vec![plan];
    while let Some(plan) = open.pop() {
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            if streams(join.left()) || !streams(join.right()) {
                let text = "this join would have to remember the stream: join it with a table by equal keys";
                return Err(Fault::at_word("outer_stream", text, &["JOIN"]));
            }
        } else if plan.children().len() > 1 && plan.name() != "UnionExec" && plan.name() != "InterleaveExec" {
            return Err(join_keys());
        }
        open.extend(plan.children());
    }
    Ok(())
}
