//! Views of this service as tables of the engine in this process: read by this process's own runtime and connections, as readers of
//! the API read them.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use super::Joined;
use crate::embedded::log::LogError;
use crate::embedded::views::{Part, ViewRow, Views};
use crate::engine::view::KeyedRows;
use crate::manager::catalog::{Column, Format, KeyFormat, Source, Table};
use crate::store::read::ReadError;
use crate::store::sqlstate::{describe_read, passes_by_itself};
use crate::store::whole_view::{self, Wanted, Whole};

/// Pages that wait for whoever takes them.
const WAITING: usize = 8;
/// Whoever takes none for so long is not waited for: the moment that is read holds a connection, and the database keeps for it what
/// was replaced meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a moment may be read, for the same reason.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The views that the engine is shown.
pub struct ServedViews {
    joined: Joined,
    runtime: Handle,
    /// [`PATIENCE`] and [`LONGEST`].
    bounds: (Duration, Duration),
    /// One is read at a time, so that readers of the API find connections, however many queries run.
    turn: Arc<Semaphore>,
}

impl ServedViews {
    /// Those that say which of their columns may be joined. To be called where the runtime is that reads.
    pub fn new(joined: Joined) -> ServedViews {
        let (runtime, turn) = (Handle::current(), Arc::new(Semaphore::new(1)));
        ServedViews { joined, runtime, bounds: (PATIENCE, LONGEST), turn }
    }

    /// The same with other bounds than [`PATIENCE`] and [`LONGEST`].
    pub fn within(self, patience: Duration, longest: Duration) -> ServedViews {
        ServedViews { bounds: (patience, longest), ..self }
    }
}

impl Views for ServedViews {
    fn sources(&self) -> Vec<Source> {
        self.joined.views.iter().filter_map(|(name, rows)| source(name, rows)).collect()
    }

    fn read(&self, view: &str, columns: &[String], seen: Option<&str>) -> mpsc::Receiver<Part> {
        let (parts, taken) = mpsc::channel(WAITING);
        let (joined, bounds) = (self.joined.clone(), self.bounds);
        let (view, columns, seen) = (view.to_owned(), columns.to_vec(), seen.map(str::to_owned));
        let reading = Reading { joined, bounds, view, columns, seen };
        let turn = Arc::clone(&self.turn);
        self.runtime.spawn(async move {
            // Dropped where nobody takes its parts any more: then its transaction ends, too.
            let end = tokio::select! {
                () = parts.closed() => return,
                end = reading.read(&turn, &parts) => end,
            };
            if parts.send_timeout(end, reading.bounds.0).await.is_err() {
                tracing::debug!("nobody takes the end of a view that was read");
            }
        });
        taken
    }
}

/// A view as a source: a table by its key, without a topic.
fn source(name: &str, rows: &KeyedRows) -> Option<Source> {
    let key = rows.of_key.key;
    let column = |(column, of): &(&str, &str)| {
        let data_type = of.parse().ok()?;
        Some(Column { name: (*column).to_owned(), data_type, nullable: *column != key })
    };
    let columns = rows.joined.iter().map(column).collect::<Option<Vec<Column>>>()?;
    Some(Source {
        name: name.to_owned(),
        topic: String::new(),
        format: Format::View,
        columns,
        event_time: None,
        table: Some(Table { key: vec![key.to_owned()], key_format: KeyFormat::Text }),
    })
}

/// One reading of a view.
struct Reading {
    joined: Joined,
    bounds: (Duration, Duration),
    view: String,
    columns: Vec<String>,
    seen: Option<String>,
}

impl Reading {
    /// Reads it when it is its turn. Gives the last part.
    async fn read(&self, turn: &Semaphore, parts: &mpsc::Sender<Part>) -> Part {
        let Ok(_turn) = turn.acquire().await else { return again("this process stops") };
        if parts.send(Part::Begun).await.is_err() {
            return again("nobody takes its rows any more");
        }
        let (view, (_, longest)) = (&self.view, self.bounds);
        match tokio::time::timeout(longest, self.hand_over(parts)).await {
            Ok(Ok(part)) => part,
            Ok(Err(error)) => unread(view, &error),
            Err(_) => again(&format!("view `{view}` could not be read within {} ms", longest.as_millis())),
        }
    }

    async fn hand_over(&self, parts: &mpsc::Sender<Part>) -> Result<Part, ReadError> {
        let found = self.joined.views.iter().find(|(name, _)| *name == self.view);
        let Some((view, rows)) = found else {
            return Ok(halt(format!("`{}` is no view of this service that streams are joined with", self.view)));
        };
        let columns = match own_names(rows, &self.columns) {
            Ok(columns) => columns,
            Err(name) => return Ok(halt(format!("view `{view}` has no column `{name}`: deploy the query anew"))),
        };
        let (patience, _) = self.bounds;
        let wanted = Wanted { view, rows, columns: &columns, seen: self.seen.as_deref(), silent: patience * 2 };
        let take = |rows: Vec<ViewRow>| async { parts.send_timeout(Part::Rows(rows), patience).await.is_ok() };
        Ok(match whole_view::read(&self.joined.pool, wanted, take).await? {
            Whole::Read(mark) => Part::Whole(mark),
            Whole::Same => Part::Same,
            Whole::Enough => again(&format!("nobody has taken rows of view `{view}` for {} ms", patience.as_millis())),
            Whole::NoBuild => again(&format!("view `{view}` has no build that readers read")),
            Whole::Loading(build) => again(&format!("{build} is made anew in place: its rows are not all there yet")),
            Whole::Moving => again(&format!("readers of view `{view}` are led from build to build")),
        })
    }
}

/// Columns by the view's own names: those of a stored query are text like any other. An error: it has no such column.
fn own_names<'c>(rows: &KeyedRows, columns: &'c [String]) -> Result<Vec<&'static str>, &'c str> {
    let own = |name: &'c String| {
        let known = rows.joined.iter().map(|(column, _)| *column).find(|column| column == name);
        known.ok_or(name.as_str())
    };
    columns.iter().map(own).collect()
}

fn again(why: &str) -> Part {
    Part::Failed(LogError::Again(why.to_owned()))
}

fn halt(why: String) -> Part {
    Part::Failed(LogError::Halt(why))
}

/// What passes by itself is asked for again; anything else is a defect, or a right that is missing.
fn unread(view: &str, error: &ReadError) -> Part {
    let why = format!("view `{view}` cannot be read: {}", describe_read(error));
    if passes_by_itself(error) { again(&why) } else { halt(why) }
}
