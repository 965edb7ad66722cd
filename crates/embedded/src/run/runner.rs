//! One execution of a prepared plan: rows in, rows out, whatever goes wrong inside.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures_util::{FutureExt, StreamExt};

use super::failure::{Failure, sentence};
use crate::plan::grown::{self, TooMuch};
use crate::plan::size::size;
use crate::plan::slot::{Input, SlotHandle, slots};

/// Bytes that may come of the records of a batch, done at once or by halves: twice what functions may make at once, as what is not
/// made by them comes, too.
const MOST_RESULTS: usize = 2 * grown::MOST;

/// A plan with its slots.
pub(crate) struct Runner {
    plan: Arc<dyn ExecutionPlan>,
    slots: Vec<SlotHandle>,
    context: Arc<TaskContext>,
    /// Whether operators keep something of an execution that the next must not find (a top-n panics). Never where a join keeps
    /// its table.
    resets: bool,
    /// Tables that no execution has built yet.
    is_unbuilt: bool,
}

/// Why one execution came to nothing.
pub(crate) enum Fault {
    /// The rows, or the bounds.
    Error(DataFusionError),
    /// A panic, in its words.
    Panic(String),
}

impl Fault {
    /// Whether a row is to blame, so that the others can go on without it.
    fn is_of_a_row(error: &DataFusionError) -> bool {
        matches!(error.find_root(), DataFusionError::ArrowError(..) | DataFusionError::Execution(_))
            || TooMuch::of(error).is_some()
    }

    /// What a row did wrong, if one did.
    pub(crate) fn why(&self) -> Option<String> {
        match self {
            Fault::Error(error) if Fault::is_of_a_row(error) => Some(sentence(error)),
            Fault::Error(_) | Fault::Panic(_) => None,
        }
    }

    pub(crate) fn failure(&self) -> Failure {
        match self {
            Fault::Error(error) => Failure::of(error),
            Fault::Panic(what) => Failure::panicked(what),
        }
    }
}

impl Runner {
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>, resets: bool) -> Runner {
        let slots = slots(&plan);
        let is_unbuilt = slots.iter().any(|slot| matches!(slot.input, Input::Table(_)));
        Runner { slots, plan, context, resets, is_unbuilt }
    }

    /// Gives a table its rows.
    pub(crate) fn fill(&self, source: usize, rows: &[RecordBatch]) -> Result<()> {
        self.slots.iter().filter(|slot| slot.input == Input::Table(source)).try_for_each(|slot| slot.put(rows))
    }

    /// Executes the plan over these rows of one input; the others have none.
    pub(crate) async fn run(&self, input: Input, rows: &[RecordBatch]) -> Result<Vec<RecordBatch>, Fault> {
        for slot in &self.slots {
            match slot.input {
                Input::Table(_) => {}
                of if of == input => slot.put(rows).map_err(Fault::Error)?,
                _ => slot.clear(),
            }
        }
        grown::begins();
        match AssertUnwindSafe(self.execute()).catch_unwind().await {
            Ok(done) => done.map_err(Fault::Error),
            Err(panic) => Err(Fault::Panic(words_of(panic.as_ref()))),
        }
    }

    async fn execute(&self) -> Result<Vec<RecordBatch>> {
        let plan = if self.resets { reset_plan_states(Arc::clone(&self.plan))? } else { Arc::clone(&self.plan) };
        let mut out = Vec::new();
        for partition in 0..plan.output_partitioning().partition_count() {
            let mut rows = plan.execute(partition, Arc::clone(&self.context))?;
            while let Some(rows) = rows.next().await {
                let rows = rows?;
                if rows.num_rows() > 0 {
                    out.push(rows);
                }
            }
        }
        Ok(out)
    }

    /// The same, but a row that fails is found by halves and refused alone. All that comes of these rows is held at once: where
    /// that is too much the query ends.
    pub(crate) async fn run_apart(
        &mut self,
        input: Input,
        rows: RecordBatch,
        mut refuse: impl FnMut(&RecordBatch, String),
    ) -> Result<Vec<RecordBatch>, Failure> {
        if self.is_unbuilt {
            // What fails here is in the tables, and no row of the stream is to blame.
            self.run(input, &[]).await.map_err(|fault| fault.failure())?;
            self.is_unbuilt = false;
        }
        let count = rows.num_rows();
        let step = self.context.session_config().batch_size();
        let steps = (0..count).step_by(step).rev().map(|start| rows.slice(start, step.min(count - start)));
        let mut open: Vec<RecordBatch> = steps.collect();
        let (mut out, mut bytes) = (Vec::new(), 0);
        while let Some(rows) = open.pop() {
            match self.run(input, std::slice::from_ref(&rows)).await {
                Ok(mut done) => {
                    bytes +=
                        done.iter().flat_map(RecordBatch::columns).map(|values| size(values.as_ref())).sum::<usize>();
                    if bytes > MOST_RESULTS {
                        return Err(Failure::limit(format!(
                            "more than {MOST_RESULTS} bytes come of {count} records: take fewer, or shorter, columns"
                        )));
                    }
                    out.append(&mut done);
                }
                Err(fault) => {
                    let Some(why) = fault.why() else { return Err(fault.failure()) };
                    let half = rows.num_rows() / 2;
                    if half == 0 {
                        refuse(&rows, why);
                    } else {
                        open.push(rows.slice(half, rows.num_rows() - half));
                        open.push(rows.slice(0, half));
                    }
                }
            }
        }
        Ok(out)
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
    words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
