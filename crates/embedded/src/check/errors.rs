//! DataFusion's errors as sentences for the author of a statement: its first line, no operators, with a place where it has one.

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;
use streamview_manager::engines::Refusal;

use super::fault::{Fault, place_of};

pub(crate) fn refusal(error: DataFusionError, sql: &str) -> Refusal {
    fault(&error, sql).refusal(sql)
}

pub(crate) fn fault(error: &DataFusionError, sql: &str) -> Fault {
    let first = match error {
        DataFusionError::Collection(errors) => errors.first().unwrap_or(error),
        other => other,
    };
    let (code, text) = coded(first.find_root());
    let (text, place) = without_place(&text);
    let span = first.diagnostic().and_then(|diagnostic| diagnostic.span);
    let place = place.or_else(|| span.map(|span| (narrow(span.start.line), narrow(span.start.column))));
    let place = place.or_else(|| quoted(&text).and_then(|word| place_of(sql, word)));
    let place = place.or_else(|| text.ends_with("found: EOF").then(|| end_of(sql)));
    let (line, column) = place.unwrap_or((1, 1));
    Fault::at(code, text, line.max(1), column.max(1))
}

/// Behind the last character.
fn end_of(sql: &str) -> (u32, u32) {
    let sql = sql.trim_end();
    let last = sql.rsplit('\n').next().unwrap_or_default();
    let line = sql.matches('\n').count() + 1;
    (narrow(line as u64), narrow(last.chars().count() as u64 + 1))
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn coded(root: &DataFusionError) -> (&'static str, String) {
    let text = |text: &str| {
        let text = text.split("\n\nbacktrace:").next().unwrap_or_default();
        let text = text.lines().next().unwrap_or_default().trim();
        // Never an operator or a value in the engine's own writing, nor what a column is called that no text can name.
        let text = text.split('{').next().unwrap_or_default().trim();
        text.chars().filter(|letter| !letter.is_control()).take(400).collect::<String>()
    };
    match root {
        DataFusionError::SQL(error, _) => match error.as_ref() {
            ParserError::RecursionLimitExceeded => ("limit_exceeded", "the statement nests too deeply".to_owned()),
            ParserError::ParserError(said) | ParserError::TokenizerError(said) => ("syntax", text(said)),
        },
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { .. } => ("not_found", text(&unqualified(&error.to_string()))),
            SchemaError::AmbiguousReference { .. } => ("ambiguous", text(&error.to_string())),
            SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. } => {
                ("duplicate_column", text(&error.to_string()))
            }
        },
        DataFusionError::Plan(said) if said.starts_with("there is no source") => ("not_found", text(said)),
        DataFusionError::Plan(said) if said.starts_with("Invalid function") => ("unknown_function", text(said)),
        DataFusionError::Plan(said) if said.contains("Projections require unique") => {
            let name = said.split('"').nth(1).unwrap_or_default();
            let name = name.rsplit('.').next().unwrap_or_default();
            ("duplicate_column", format!("two columns are called `{name}`: give one of them another name with AS"))
        }
        DataFusionError::Plan(said) if said.starts_with("Column in SELECT must be in GROUP BY") => {
            let name = said.split('"').nth(1).unwrap_or_default();
            ("not_grouped", format!("`{name}` has to stand in the GROUP BY or in an aggregate function"))
        }
        DataFusionError::Plan(said) if said.starts_with("Cannot execute pipeline breaking") => (
            "unbounded_state",
            "this would have to remember the endless stream: group by a window, or use Flink".to_owned(),
        ),
        DataFusionError::Plan(said) => ("invalid", text(said)),
        DataFusionError::NotImplemented(said) => ("unsupported", text(said)),
        DataFusionError::ArrowError(error, _) => ("invalid", text(&error.to_string())),
        DataFusionError::Execution(said) => ("invalid", text(said)),
        DataFusionError::ResourcesExhausted(_) => ("limit_exceeded", "the statement is too large".to_owned()),
        other => ("unsupported", format!("this cannot be planned here: {}", text(&other.message()))),
    }
}

/// Without a list of very many fields, and without settings that nobody can set here.
fn unqualified(said: &str) -> String {
    let said = said.split(" or set the datafusion.").next().unwrap_or_default();
    match said.split_once(" Valid fields are ") {
        Some((first, fields)) if fields.len() > 200 => first.to_owned(),
        _ => said.to_owned(),
    }
}

/// What the parser says, and where it says that it is.
fn without_place(text: &str) -> (String, Option<(u32, u32)>) {
    let Some((said, place)) = text.rsplit_once(" at Line: ") else { return (text.to_owned(), None) };
    let place = place.split_once(", Column: ").and_then(|(line, column)| {
        let digits: String = column.chars().take_while(char::is_ascii_digit).collect();
        Some((line.trim().parse().ok()?, digits.parse().ok()?))
    });
    (said.to_owned(), place)
}

/// The first word in quotes, or behind `named`.
fn quoted(text: &str) -> Option<&str> {
    let between = |mark: char| text.split(mark).nth(1).filter(|word| !word.is_empty());
    let word = between('\'').or_else(|| between('`'))?;
    word.rsplit('.').next()
}
