//! A query that runs: a thread of its own with a runtime of one thread, for a batch is work of milliseconds that nobody else should
//! wait for. What it does is seen in its [`Job`].

mod adhoc;
mod intake;
mod notes;
mod output;
mod persistent;
mod places;
mod seen;
mod tables;
mod views;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use streamview_manager::ports::Schemas;
use tokio::runtime::Runtime;

pub(crate) use self::adhoc::look;
pub(crate) use self::notes::mark;
pub(crate) use self::persistent::{Cannot, Plan, begin, writer_name};
pub use self::seen::Counts;
pub(crate) use self::seen::{Job, Wish};
use crate::check::depth::STACK;
use crate::log::Log;
use crate::run::Failure;
use crate::views::Views;

/// What queries need of the outside. Clones are the same.
#[derive(Clone)]
pub(crate) struct Outside {
    pub log: Arc<dyn Log>,
    /// By which Avro is read.
    pub schemas: Option<Arc<dyn Schemas>>,
    /// What can be joined beside topics.
    pub views: Option<Arc<dyn Views>>,
}

/// Runs `work` on a thread of this name. A panic is told like any other failure: it takes nothing else with it.
fn spawn(
    name: String,
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
    end: impl FnOnce(String) + Send + 'static,
) -> std::io::Result<()> {
    let work = move || {
        let done = catch_unwind(AssertUnwindSafe(work));
        let why = match done {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(panic) => format!("the engine met a fault of its own: {}", words(&*panic)),
        };
        end(why);
    };
    thread::Builder::new().name(name).stack_size(STACK).spawn(work).map(drop)
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// A failure as it is told: with its word, where it has one of its own.
fn told(failure: Failure) -> String {
    match failure.code {
        "limit_exceeded" => format!("{}: {}", failure.code, failure.message),
        _ => failure.message,
    }
}

fn runtime() -> Result<Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("there is no runtime for the query: {error}"))
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
