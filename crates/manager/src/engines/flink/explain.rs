//! What a SELECT gives: its columns by a view of it, whether its rows change by its plan, and by what key.

use super::ddl::{self, Start};
use super::gateway::Session;
use super::text::{join, quote_identifier};
use super::types::described;
use super::{Inner, plan};
use crate::catalog::Column;
use crate::engines::{Changes, Explained, Refusal, Select, Trouble};

/// The view by which columns are found.
const VIEW: &str = "SV_EXPLAINED";
/// The table into which an explained SELECT would write.
const SINK: &str = "SV_SINK";

/// What a SELECT gives, and by what its rows are replaced.
#[derive(Debug)]
pub(super) struct Shape {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Whether rows change.
    pub changes: Changes,
    /// The columns by which they are replaced; empty where they are only added.
    pub key: Vec<String>,
    /// Why there is no key where there should be one.
    pub without_key: Option<Refusal>,
    /// Flink's plan.
    pub plan: String,
}

/// A SELECT explained, in a session of its own.
pub(super) async fn explain(flink: &Inner, select: &Select) -> Result<Explained, Trouble> {
    let session = flink.gateway.open().await.map_err(|failure| failure.reading())?;
    let explained = explain_in(flink, &session, select).await;
    flink.gateway.close(&session).await;
    explained
}

async fn explain_in(flink: &Inner, session: &Session, select: &Select) -> Result<Explained, Trouble> {
    declare_sources(flink, session, select, "sv-explain", Start::Latest).await?;
    let shape = shape(flink, session, select).await?;
    let only_adhoc = match shape.without_key {
        Some(refusal) => Some(refusal),
        None => match check_sink(flink, session, select, &shape, SINK, "sv_explain").await {
            Ok(()) => None,
            Err(Trouble::Refused(refusal)) => Some(refusal),
            Err(trouble) => return Err(trouble),
        },
    };
    let Shape { columns, changes, plan, .. } = shape;
    Ok(Explained { columns, changes, plan, only_adhoc })
}

/// Declares the tables that a SELECT reads.
pub(super) async fn declare_sources(
    flink: &Inner,
    session: &Session,
    select: &Select,
    group: &str,
    start: Start,
) -> Result<(), Trouble> {
    for statement in ddl::sources(&flink.settings, select, group, start)? {
        // A refusal here is about our own text, so that its position says nothing to the user.
        flink.gateway.configure(session, &statement).await.map_err(|failure| match failure.reading() {
            Trouble::Refused(refusal) => Trouble::Refused(Refusal { line: None, column: None, ..refusal }),
            trouble => trouble,
        })?;
    }
    Ok(())
}

/// Columns, changes and key of a SELECT whose sources are declared.
pub(super) async fn shape(flink: &Inner, session: &Session, select: &Select) -> Result<Shape, Trouble> {
    let view = quote_identifier(VIEW)?;
    let joined = join(&format!("CREATE TEMPORARY VIEW {view} AS"), select)?;
    let created = flink.gateway.configure(session, joined.text()).await;
    created.map_err(|failure| joined.trouble_in_select(failure.reading()))?;

    let mut columns = Vec::new();
    for row in flink.gateway.rows(session, &format!("DESCRIBE {view}")).await.map_err(|failure| failure.reading())? {
        let [name, data_type, nullable, ..] = row.fields.as_slice() else { continue };
        let text = |raw: &serde_json::value::RawValue| serde_json::from_str::<String>(raw.get()).unwrap_or_default();
        columns.push(Column {
            name: text(name),
            data_type: described(&text(data_type)),
            nullable: !matches!(nullable.get().trim(), "false" | "\"FALSE\""),
        });
    }

    let joined = join("EXPLAIN CHANGELOG_MODE", select)?;
    let rows = flink.gateway.rows(session, joined.text()).await;
    let rows = rows.map_err(|failure| joined.trouble_in_select(failure.reading()))?;
    let plan = explained_text(&rows);
    let changes = plan::changes(&plan);
    let found = if changes == Changes::Upsert { plan::key(&plan) } else { Some(Vec::new()) };
    let key = found.and_then(|places| {
        places.into_iter().map(|place| columns.get(place).map(|column| column.name.clone())).collect::<Option<Vec<_>>>()
    });
    let key = key.unwrap_or_default();
    let without_key = (changes == Changes::Upsert && key.is_empty()).then(no_key);
    Ok(Shape { columns, changes, key, without_key, plan })
}

/// Declares the table that a SELECT fills, and whether Flink would let it.
pub(super) async fn check_sink(
    flink: &Inner,
    session: &Session,
    select: &Select,
    shape: &Shape,
    name: &str,
    topic: &str,
) -> Result<(), Trouble> {
    let statement = ddl::sink(&flink.settings, name, topic, &shape.columns, &shape.key)?;
    flink.gateway.configure(session, &statement).await.map_err(|failure| failure.reading())?;
    let joined = join(&format!("EXPLAIN INSERT INTO {}", quote_identifier(name)?), select)?;
    let rows = flink.gateway.rows(session, joined.text()).await;
    let rows = rows.map_err(|failure| joined.trouble_in_select(failure.reading()))?;
    // Flink would keep every row to find out which one counts: the rows have another key than the one that was found.
    if explained_text(&rows).contains("upsertMaterialize=[true]") {
        return Err(Trouble::Refused(no_key()));
    }
    Ok(())
}

fn explained_text(rows: &[super::gateway::ResultRow]) -> String {
    let text = rows.first().and_then(|row| row.fields.first());
    text.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

fn no_key() -> Refusal {
    let message = "its rows change, and the columns by which they are told apart are not among its columns: SELECT every column \
                   of GROUP BY, or of PARTITION BY where the last row of each is taken (it can still be run as a query)";
    Refusal { code: "no_key".to_owned(), message: message.to_owned(), line: None, column: None }
}
