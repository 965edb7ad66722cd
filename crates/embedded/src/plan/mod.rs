//! A SELECT, judged and prepared. Pure: nothing is read, and it takes milliseconds.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::DataType as Arrow;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::expressions::{Column as Place, cast};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use streamview_manager::catalog::{Column, Source};
use streamview_manager::engines::{Changes, Refusal, Select};

use crate::check::{self, depth};
use crate::run::{Execution, Failure};
use crate::schema;

mod checked;
pub(crate) mod functions;
pub(crate) mod grown;
mod json;
pub(crate) mod literals;
pub(crate) mod origin;
pub(crate) mod session;
pub(crate) mod size;
pub(crate) mod slot;
pub(crate) mod split;
mod sums;
pub(crate) mod trace;
pub(crate) mod window;

use self::slot::{Input, Provider};

/// Why nothing can be judged.
pub(crate) const NO_THREAD: &str = "there is no thread to judge the statement on: try again";

/// What a SELECT is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Somebody looks at its rows.
    AdHoc,
    /// It fills a topic until it is stopped: what it gives may depend on its records only.
    Persistent,
}

/// What a query may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The longest window.
    pub max_window_ms: i64,
    /// How much later than others a row may come where its source does not say.
    pub lateness_ms: i64,
    /// Most joins.
    pub max_joins: usize,
    /// Most columns of a result.
    pub max_columns: usize,
}

impl Limits {
    /// The longest window that any setting allows.
    pub const HARD_MAX_WINDOW_MS: i64 = 24 * 3_600_000;
    /// In how many hopping windows a row may be.
    pub const MAX_PANES: i64 = 100;
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_window_ms: 3_600_000, lateness_ms: 5_000, max_joins: 4, max_columns: 500 }
    }
}

/// What a query that runs may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of state, and of what an execution needs.
    pub memory_bytes: usize,
    /// Most groups in all open windows.
    pub max_keys: usize,
    /// How far in the future a row's time may lie.
    pub max_ahead_ms: i64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { memory_bytes: 64 * 1024 * 1024, max_keys: 1_000_000, max_ahead_ms: 600_000 }
    }
}

/// A window by event time. They begin at whole multiples of the slide since 1970-01-01T00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How long it is.
    pub size_ms: i64,
    /// How long after one the next begins; the size itself if they do not overlap.
    pub slide_ms: i64,
}

impl Window {
    pub(crate) fn tumbling(size_ms: i64) -> Window {
        Window { size_ms, slide_ms: size_ms }
    }
}

/// The times by which windows go.
#[derive(Clone)]
pub(crate) struct Time {
    /// Over the columns that are pushed.
    pub(crate) expr: Arc<dyn PhysicalExpr>,
    pub(crate) lateness_ms: i64,
}

/// A column that an aggregate groups by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// How many before it have that name, too: a table may have a column that is called like it.
    pub(crate) before: usize,
}

/// The window of a query that has one.
#[derive(Clone)]
pub(crate) struct Windowed {
    pub(crate) window: Window,
    /// Its column in the aggregate.
    pub(crate) column: Group,
    /// By source.
    pub(crate) times: BTreeMap<usize, Time>,
    /// The expressions, as text: with the window, what the state depends on.
    pub(crate) text: Vec<(usize, String)>,
}

/// A SELECT, ready to run.
pub struct Prepared {
    pub(crate) plan: LogicalPlan,
    /// Its physical plan; never run, only copied.
    pub(crate) template: Arc<dyn ExecutionPlan>,
    pub(crate) state: SessionState,
    pub(crate) sources: Vec<Source>,
    pub(crate) windowed: Option<Windowed>,
    pub(crate) columns: Vec<Column>,
    pub(crate) key: Vec<usize>,
    pub(crate) limit: Option<u64>,
    /// Whether its rows end with the partition and the offset of the record that each is made of ([`origin`]).
    pub(crate) has_origins: bool,
    pub(crate) needed: Vec<Vec<bool>>,
}

impl Prepared {
    /// Judges and prepares a SELECT over topics. Those that are declared as tables are read by whoever runs it, all of each at
    /// the start; nothing of them is looked at here.
    pub fn new(select: &Select, purpose: Purpose, limits: &Limits) -> Result<Prepared, Refusal> {
        let no_room =
            || Refusal { code: "limit_exceeded".to_owned(), message: NO_THREAD.to_owned(), line: None, column: None };
        depth::with_room(|| check::prepared(select, purpose, limits)).unwrap_or_else(|| Err(no_room()))
    }

    /// The columns of its rows.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Rows are only ever added.
    pub fn changes(&self) -> Changes {
        Changes::Append
    }

    /// What it reads; the numbers of sources are positions in here: first the streams, then the tables.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The sources whose records are rows.
    pub fn streams(&self) -> &[Source] {
        &self.sources[..self.sources.iter().take_while(|source| source.table.is_none()).count()]
    }

    /// The sources that are joined as they are.
    pub fn tables(&self) -> &[Source] {
        &self.sources[self.streams().len()..]
    }

    /// Its window, if it has one.
    pub fn window(&self) -> Option<Window> {
        self.windowed.as_ref().map(|windowed| windowed.window)
    }

    /// By which time each source's windows go, as text; empty without a window. Two queries with the same sources, window and
    /// times go on with each other's positions.
    pub fn times(&self) -> Vec<(usize, String)> {
        self.windowed.as_ref().map(|windowed| windowed.text.clone()).unwrap_or_default()
    }

    /// The output columns that are the record's key: what rows are grouped by, but the window.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// How many rows it gives at most.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Which columns of a source's schema ([`schema::of_source`]) the query reads. The others may be pushed as nulls.
    pub fn needed(&self, source: usize) -> &[bool] {
        self.needed.get(source).map_or(&[], Vec::as_slice)
    }

    /// How it will be done, in the engine's words.
    pub fn explain(&self) -> String {
        let text = || displayable(self.template.as_ref()).indent(false).to_string();
        depth::with_room(text).unwrap_or_else(|| NO_THREAD.to_owned())
    }

    /// Begins to run it.
    pub fn start(&self, bounds: Bounds) -> Result<Execution, Failure> {
        self.start_with(bounds, &BTreeMap::new())
    }

    /// The same, with the rows of its tables by the number of the source ([`schema::of_table`]).
    pub fn start_with(&self, bounds: Bounds, tables: &BTreeMap<usize, Vec<RecordBatch>>) -> Result<Execution, Failure> {
        let no_room = || Err(Failure::limit("there is no thread to begin the query on: try again"));
        let begun = depth::with_room(|| Execution::new(self, bounds, tables).map_err(|error| Failure::of(&error)));
        begun.unwrap_or_else(no_room)
    }

    /// A physical plan with slots of its own.
    pub(crate) fn physical(&self) -> Result<Arc<dyn ExecutionPlan>> {
        slot::forked(Arc::clone(&self.template))
    }
}

/// The physical plan of a logical one.
pub(crate) fn planned(plan: &LogicalPlan, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
    let planner = DefaultPhysicalPlanner::default();
    // It asks our slots only, which answer at once.
    let planned = planner.create_physical_plan(plan, state).now_or_never();
    planned.unwrap_or_else(|| Err(DataFusionError::Internal("planning waited for something".to_owned())))
}

/// The plan with its results in the types that these columns have. Arrow has more types than the catalogue (whole numbers without a
/// sign, decimals of 76 digits): what the catalogue's does not hold fails as a `CAST` does, and so is refused, instead of being null.
pub(crate) fn said(plan: Arc<dyn ExecutionPlan>, columns: &[Column]) -> Result<Arc<dyn ExecutionPlan>> {
    let results = plan.schema();
    let said = |(at, of): (usize, &Arrow)| {
        let said = columns.get(at).map(|column| schema::to_arrow(&column.data_type));
        said.filter(|said| said != of)
    };
    let types: Vec<_> = results.fields().iter().map(|field| field.data_type()).enumerate().map(said).collect();
    if types.iter().all(Option::is_none) {
        return Ok(plan);
    }
    let exprs = results.fields().iter().zip(types).enumerate().map(|(at, (field, said))| {
        let place: Arc<dyn PhysicalExpr> = Arc::new(Place::new(field.name(), at));
        let expr = match said {
            Some(said) => cast(place, &results, said)?,
            None => place,
        };
        Ok((expr, field.name().clone()))
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ProjectionExec::try_new(exprs, plan)?))
}

/// Which source a scan reads.
pub(crate) fn input_of(scan: &TableScan) -> Option<Input> {
    let provider = source_as_provider(&scan.source).ok()?;
    let any: &dyn Any = provider.as_ref();
    any.downcast_ref::<Provider>().map(|provider| provider.input)
}

/// An expression over the columns of a source, ready to be evaluated.
pub(crate) fn over_source(expr: &Expr, source: &Source, state: &SessionState) -> Result<Arc<dyn PhysicalExpr>> {
    use datafusion::common::Column as Name;
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let unqualified = expr.clone().transform(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(Name::new_unqualified(column.name))),
            other => Transformed::no(other),
        })
    })?;
    let schema = DFSchema::try_from(schema::of_source(source).as_ref().clone())?;
    state.create_physical_expr(unqualified.data, &schema)
}
