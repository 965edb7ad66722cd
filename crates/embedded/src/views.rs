//! Views of the service as tables, brought by it: which there are, and their rows. A view has no stream of changes here: it is read
//! whole, and again when it has changed.

use std::sync::Arc;

use streamview_manager::catalog::Source;
use streamview_manager::engines::views::VIEW_SOURCE;
use streamview_manager::engines::{Refusal, Select};
use tokio::sync::mpsc;

use crate::log::LogError;

/// A row as it is read: its key as text, and a JSON object of the columns that were asked for.
pub type ViewRow = (String, String);

/// What comes of a view that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// It is being read from now on: until then others were.
    Begun,
    /// Nothing has changed since it was read last; nothing follows.
    Same,
    /// Rows of it, each once.
    Rows(Vec<ViewRow>),
    /// Those were all, of one moment. By this mark it is asked later whether something has changed; nothing follows.
    Whole(String),
    /// It cannot be read; nothing follows.
    Failed(LogError),
}

/// The views.
pub trait Views: Send + Sync {
    /// Those that are tables: without a topic, with one column of text as the key.
    fn sources(&self) -> Vec<Source>;
    /// Reads one, and comes back at once. Of each row the key and `columns`; nothing where `seen` is still its mark. Dropped, the
    /// reading ends; where nobody takes its parts for seconds it may give up.
    fn read(&self, view: &str, columns: &[String], seen: Option<&str>) -> mpsc::Receiver<Part>;
}

/// The refusal, said of views: that one is no stream of a query, or that something else has its name.
pub(crate) fn told(refusal: Refusal, select: &Select, views: Option<&Arc<dyn Views>>) -> Refusal {
    let is_table = |source: &Source| source.table.is_some();
    match (refusal.code.as_str(), select.sources.iter().find(|source| source.is_view())) {
        ("unsupported" | "no_source", Some(view)) if select.sources.iter().all(is_table) => {
            let message = format!(
                "`{0}` is a view of this service: a table, and no stream that a query could follow. Name a topic behind FROM and \
                 join it: FROM topic t JOIN {0} ON …; its rows as they are now are read through its API",
                view.name
            );
            Refusal { code: VIEW_SOURCE.to_owned(), message, ..refusal }
        }
        ("stream_join", _) => {
            let views = views.map(|views| views.sources()).unwrap_or_default();
            let is_hidden = |source: &&Source| {
                !is_table(source) && views.iter().any(|view| view.name.eq_ignore_ascii_case(&source.name))
            };
            let Some(Source { name, topic, .. }) = select.sources.iter().find(is_hidden) else { return refusal };
            let message = format!(
                "{} (`{name}` is topic `{topic}` here, not the view of that name: declare the topic under another name to join the \
                 view)",
                refusal.message
            );
            Refusal { message, ..refusal }
        }
        _ => refusal,
    }
}
