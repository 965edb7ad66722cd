//! What DataFusion is set to: one partition, no spilling, no rule that changes the shape of an aggregate.

use std::sync::{Arc, OnceLock};

use datafusion::common::Result;
use datafusion::config::Dialect;
use datafusion::execution::context::{SessionConfig, SessionState};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::optimizer::Optimizer;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

use super::{checked, functions, grown, json, sums};

/// Turns `count(DISTINCT x)` into two aggregates, where a window needs one.
const SPLITS_AGGREGATES: &str = "single_distinct_aggregation_to_group_by";
/// Refuses an aggregate over what is said to be endless; ours are over slots that end.
const REFUSES_ENDLESS: &str = "SanityCheckPlan";

fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    let options = config.options_mut();
    // As the manager's gate reads it: names as they are written, quoted or not.
    options.sql_parser.dialect = Dialect::Generic;
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    let optimizer = &mut options.optimizer;
    // They keep values of one execution for the next.
    optimizer.enable_dynamic_filter_pushdown = false;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
    optimizer.enable_join_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // A limit within an aggregate is lost when it is split.
    optimizer.enable_topk_aggregation = false;
    optimizer.enable_distinct_aggregation_soft_limit = false;
    config
}

/// The state that statements are planned with. `windowed`: with aggregates over streams.
pub(crate) fn state(windowed: bool) -> Result<SessionState> {
    static STATES: OnceLock<Result<[SessionState; 2], String>> = OnceLock::new();
    let states = STATES.get_or_init(|| {
        Ok([build(false).map_err(|error| error.to_string())?, build(true).map_err(|error| error.to_string())?])
    });
    match states {
        Ok(states) => Ok(states[usize::from(windowed)].clone()),
        Err(error) => Err(datafusion::common::DataFusionError::Internal(error.clone())),
    }
}

fn build(windowed: bool) -> Result<SessionState> {
    let mut rules = Optimizer::new().rules;
    rules.retain(|rule| rule.name() != SPLITS_AGGREGATES);
    let mut physical = PhysicalOptimizer::new().rules;
    physical.retain(|rule| !windowed || rule.name() != REFUSES_ENDLESS);
    let mut state = SessionStateBuilder::new_with_default_features()
        .with_config(config())
        .with_optimizer_rules(rules)
        .with_physical_optimizer_rules(physical)
        .build();
    functions::register(&mut state)?;
    json::register(&mut state)?;
    checked::register(&mut state)?;
    grown::register(&mut state)?;
    sums::register(&mut state)?;
    #[cfg(test)]
    crate::tests::register(&mut state)?;
    Ok(state)
}

/// Has a query take fewer rows at once where each may have so many bytes of constants.
pub(crate) fn with_constants(state: &mut SessionState, bytes: usize) {
    let rows = (grown::MOST / bytes.max(1)).clamp(1, state.config().batch_size());
    let config = state.config().clone().with_batch_size(rows);
    *state.config_mut() = config;
}

/// Where a query runs: in its memory, and never on the disk.
pub(crate) fn runtime(pool: Arc<dyn MemoryPool>) -> Result<Arc<RuntimeEnv>> {
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(disk).build_arc()
}
