//! Where rows enter a plan: a leaf that gives the rows that lie in it, and ends. A prepared plan is executed again for each
//! batch, so that nothing waits in an operator for more.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, reset_plan_states};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};

/// Which input of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Input {
    /// A topic: number of the source.
    Stream(usize),
    /// A table: number of the source. Its rows stay.
    Table(usize),
    /// States of aggregates.
    States,
}

/// The rows of a slot, shared with whoever puts them there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows(Arc<Mutex<Vec<RecordBatch>>>);

impl Rows {
    fn lock(&self) -> MutexGuard<'_, Vec<RecordBatch>> {
        // A panic of an operator ends its query, not this list.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, rows: Vec<RecordBatch>) {
        *self.lock() = rows;
    }

    fn take(&self) -> Vec<RecordBatch> {
        std::mem::take(&mut *self.lock())
    }

    fn look(&self) -> Vec<RecordBatch> {
        self.lock().clone()
    }
}

/// The leaf.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) input: Input,
    /// Which columns of the source.
    pub(crate) projection: Option<Vec<usize>>,
    pub(crate) rows: Rows,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl Slot {
    pub(crate) fn new(input: Input, schema: &SchemaRef, projection: Option<Vec<usize>>) -> Result<Slot> {
        let schema = match &projection {
            Some(columns) => Arc::new(schema.project(columns)?),
            None => Arc::clone(schema),
        };
        // A stream is said to be endless, although each execution ends: a join then keeps the table and probes with the
        // stream. Were it finite, the planner would keep the rows of the first batch and show them again with every later one.
        let boundedness = match input {
            Input::Stream(_) => Boundedness::Unbounded { requires_infinite_memory: false },
            Input::Table(_) | Input::States => Boundedness::Bounded,
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            boundedness,
        );
        Ok(Slot { input, projection, rows: Rows::default(), schema, properties: Arc::new(properties) })
    }
}

impl DisplayAs for Slot {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        match self.input {
            Input::Stream(source) => write!(f, "Stream: source={source}, columns=[{}]", names.join(", ")),
            Input::Table(source) => write!(f, "Table: source={source}, columns=[{}]", names.join(", ")),
            Input::States => write!(f, "OpenWindows"),
        }
    }
}

impl ExecutionPlan for Slot {
    fn name(&self) -> &'static str {
        "Slot"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = match self.input {
            Input::Table(_) => self.rows.look(),
            Input::Stream(_) | Input::States => self.rows.take(),
        };
        Ok(Box::pin(MemoryStream::try_new(rows, Arc::clone(&self.schema), None)?))
    }
}

/// A source, as the planner sees it.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) input: Input,
    pub(crate) schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Slot::new(self.input, &self.schema, projection.cloned())?))
    }
}

/// A copy of a plan with slots of its own, and nothing that an operator of the other has kept.
pub(crate) fn forked(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let forked = plan.transform_up(|plan| {
        let fresh: Arc<dyn ExecutionPlan> = match plan.downcast_ref::<Slot>() {
            Some(slot) => Arc::new(Slot {
                input: slot.input,
                projection: slot.projection.clone(),
                rows: Rows::default(),
                schema: Arc::clone(&slot.schema),
                properties: Arc::clone(&slot.properties),
            }),
            None => return Ok(Transformed::no(plan)),
        };
        Ok(Transformed::yes(fresh))
    })?;
    reset_plan_states(forked.data)
}

/// All slots of a plan.
pub(crate) fn slots(plan: &Arc<dyn ExecutionPlan>) -> Vec<SlotHandle> {
    let mut found = Vec::new();
    let mut open = vec![plan];
    while let Some(plan) = open.pop() {
        if let Some(slot) = plan.downcast_ref::<Slot>() {
            found.push(SlotHandle { input: slot.input, projection: slot.projection.clone(), rows: slot.rows.clone() });
        }
        open.extend(plan.children());
    }
    found
}

/// What puts rows into a slot.
#[derive(Debug, Clone)]
pub(crate) struct SlotHandle {
    pub(crate) input: Input,
    projection: Option<Vec<usize>>,
    rows: Rows,
}

impl SlotHandle {
    /// Rows of the source, all its columns.
    pub(crate) fn put(&self, rows: &[RecordBatch]) -> Result<()> {
        let projected: Result<Vec<_>, _> = match &self.projection {
            Some(columns) => rows.iter().map(|rows| rows.project(columns)).collect(),
            None => Ok(rows.to_vec()),
        };
        self.rows.put(projected?);
        Ok(())
    }

    /// Nothing lies there any more (an execution that failed may not have taken it).
    pub(crate) fn clear(&self) {
        self.rows.put(Vec::new());
    }
}
