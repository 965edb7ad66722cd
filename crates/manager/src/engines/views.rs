//! Views of the service as sources: the engine in this process reads them, and every other one refuses them by name.

use super::{Refusal, Trouble};
use crate::catalog::Source;

/// The code of a SELECT in which a view stands where none can.
pub const VIEW_SOURCE: &str = "view_source";

/// Its sentence: the rows of a view are in a database that no other engine knows.
pub(crate) fn only_embedded(name: &str) -> String {
    format!(
        "`{name}` is a view of this service, whose rows only the embedded engine can join: run the query there, or join a topic \
         that is declared as a table"
    )
}

/// Refuses a source that is a view.
pub(crate) fn refuse(source: &Source) -> Result<(), Trouble> {
    if !source.is_view() {
        return Ok(());
    }
    let (code, message) = (VIEW_SOURCE.to_owned(), only_embedded(&source.name));
    Err(Trouble::Refused(Refusal { code, message, line: None, column: None }))
}
