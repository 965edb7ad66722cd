//! What can be selected from: sources that people have declared, that an engine knows itself, and that the schema registry
//! describes. One answer, in which each says where it comes from.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::{Catalog, CatalogEntry, Origin, Shared};
use crate::catalog::{DataType, Source};
use crate::engines::EngineKind;
use crate::fault::Fault;
use crate::names::Names;
use crate::ports::Topic;

/// How long an answer of the outside is as good as a new one: a text is often judged again and again while it is written.
const FRESH: Duration = Duration::from_secs(5);
/// Subjects that the registry is asked for at once.
const AT_ONCE: usize = 16;
/// The longest name.
const MAX_NAME: usize = 63;

/// What the outside said last.
#[derive(Default)]
pub(crate) struct Cache {
    last: Mutex<Option<(Instant, Outside)>>,
}

/// Sources that nobody here has declared, and what could not be asked.
#[derive(Debug, Clone, Default)]
struct Outside {
    sources: Vec<(Origin, Source)>,
    missing: Vec<String>,
}

impl Shared {
    /// What can be selected from. Where two say different things of one name, people win, then the engine itself.
    pub(super) async fn catalog(&self, engine: Option<EngineKind>) -> Result<Catalog, Fault> {
        if let Some(engine) = engine {
            self.engine(engine)?;
        }
        let outside = self.outside().await;
        let declared = self.store.sources().await?.into_iter().map(|source| (Origin::Declared, source));
        let configured: Vec<EngineKind> = self.parts.engines.iter().map(|engine| engine.kind()).collect();
        let asked = engine.map_or_else(|| configured.clone(), |engine| vec![engine]);
        let mut named: BTreeMap<String, Vec<CatalogEntry>> = BTreeMap::new();
        let mut all: Vec<(Origin, Source)> = declared.chain(outside.sources).collect();
        all.sort_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name)));
        for (origin, source) in all {
            let entries = named.entry(source.name.to_ascii_lowercase()).or_default();
            let taken = |engine: &EngineKind| entries.iter().any(|entry| entry.engines.contains(engine));
            let mut engines: Vec<EngineKind> = match origin {
                Origin::Engine(engine) => vec![engine],
                Origin::Declared | Origin::Registry => configured.clone(),
            };
            engines.retain(|engine| asked.contains(engine) && !taken(engine));
            if !engines.is_empty() {
                entries.push(CatalogEntry { source, origin, engines });
            }
        }
        Ok(Catalog { sources: named.into_values().flatten().collect(), missing: outside.missing })
    }

    async fn outside(&self) -> Outside {
        let last = self.catalogue.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, outside)) = last
            && at.elapsed() < FRESH
        {
            return outside;
        }
        let outside = self.ask_outside().await;
        *self.catalogue.last.lock().unwrap_or_else(PoisonError::into_inner) =
            outside.missing.is_empty().then(|| (Instant::now(), outside.clone()));
        outside
    }

    async fn ask_outside(&self) -> Outside {
        let mut outside = Outside::default();
        for engine in &self.parts.engines {
            let kind = engine.kind();
            match engine.sources().await {
                Ok(sources) => {
                    outside.sources.extend(sources.into_iter().map(|source| (Origin::Engine(kind), source)));
                }
                Err(trouble) => outside.missing.push(format!("{} does not say its sources: {trouble}", kind.name())),
            }
        }
        self.ask_registry(&mut outside).await;
        outside
    }

    async fn ask_registry(&self, outside: &mut Outside) {
        let Some(schemas) = &self.parts.schemas else { return };
        let topics = match self.parts.kafka.topics().await {
            Ok(topics) => topics,
            Err(error) => return outside.missing.push(format!("the brokers do not say their topics: {error}")),
        };
        let asked = topics.into_iter().map(|topic| async move {
            let columns = schemas.columns_of(&topic.name).await;
            (topic, columns)
        });
        let mut answers: Vec<_> = futures_util::stream::iter(asked).buffered(AT_ONCE).collect().await;
        answers.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        let mut trouble = None;
        for (topic, answer) in answers {
            match answer {
                Ok(Some((format, columns))) if !columns.is_empty() => {
                    let Topic { name: topic, .. } = topic;
                    let source = Source { name: source_name(&topic), topic, format, columns, event_time: None };
                    let is_taken = |(origin, other): &(Origin, Source)| {
                        *origin == Origin::Registry && other.name.eq_ignore_ascii_case(&source.name)
                    };
                    if !outside.sources.iter().any(is_taken) {
                        outside.sources.push((Origin::Registry, source));
                    }
                }
                Ok(_) => {}
                Err(error) => trouble = Some(error),
            }
        }
        if let Some(error) = trouble {
            outside.missing.push(format!("the schema registry does not say all columns: {error}"));
        }
    }

    pub(super) async fn put_source(&self, source: Source, actor: &str) -> Result<Source, Fault> {
        check(&source)?;
        self.store.put_source(&source, actor).await?;
        Ok(source)
    }

    pub(super) async fn delete_source(&self, name: &str, actor: &str) -> Result<(), Fault> {
        if !self.store.delete_source(name).await? {
            return Err(Fault::NotFound { what: "source", id: name.to_owned() });
        }
        tracing::info!(source = name, actor, "a source is not declared any more");
        Ok(())
    }
}

/// What users write for a topic: its name where that is one, else with `_` for what is none.
fn source_name(topic: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    let mut name: String = topic.chars().map(plain).collect();
    if name.starts_with(|letter: char| letter.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name.truncate(MAX_NAME);
    name
}

fn is_name(name: &str) -> bool {
    let begins = name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
    begins && name.len() <= MAX_NAME && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn check(source: &Source) -> Result<(), Fault> {
    let invalid = |field, problem: String| Err(Fault::Invalid { field, problem });
    if !is_name(&source.name) {
        let name = &source.name;
        return invalid("name", format!("`{name}` is no name: use letters, digits and `_`, at most {MAX_NAME}"));
    }
    let is_topic = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    if source.topic.is_empty() || source.topic.len() > 249 || !source.topic.chars().all(is_topic) {
        return invalid("topic", format!("`{}` is no name of a topic", source.topic));
    }
    if source.topic.starts_with("__") || source.topic.starts_with("_confluent") {
        return invalid("topic", format!("`{}` is a topic of the brokers themselves", source.topic));
    }
    if source.columns.is_empty() {
        return invalid("columns", "a source has at least one column".to_owned());
    }
    for (number, column) in source.columns.iter().enumerate() {
        let is_twice = source.columns[..number].iter().any(|other| other.name == column.name);
        if column.name.is_empty() || column.name.chars().any(char::is_control) || is_twice {
            return invalid("columns", format!("`{}` is no name of a column, or the second of that name", column.name));
        }
    }
    let Some(time) = &source.event_time else { return Ok(()) };
    let column = source.columns.iter().find(|column| column.name == time.column);
    match column.map(|column| &column.data_type) {
        Some(DataType::Timestamp(_)) => Ok(()),
        Some(other) => invalid("eventTime", format!("column `{}` is {other}: it has to be a timestamp", time.column)),
        None => invalid("eventTime", format!("there is no column `{}`", time.column)),
    }
}

/// Whether a topic has a name as ours have: `view_<slug>_<tag>`.
pub(super) fn is_ours(topic: &str) -> bool {
    let Some((slug, tag)) = topic.strip_prefix("view_").and_then(|rest| rest.rsplit_once('_')) else { return false };
    let is_tag = tag.len() == 8 && tag.chars().all(|digit| matches!(digit, '0'..='9' | 'a'..='f'));
    is_tag && Names::of(tag, slug).topic() == topic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_gets_a_name_that_can_be_written() {
        for (topic, name) in
            [("orders", "orders"), ("shop.orders-v2", "shop_orders_v2"), ("2024.orders", "_2024_orders")]
        {
            assert_eq!(source_name(topic), name);
            assert!(is_name(&source_name(topic)), "{topic}");
        }
        assert!(is_name(&source_name(&"ö".repeat(200))));
    }

    #[test]
    fn only_topics_with_our_names_are_ours() {
        assert!(is_ours("view_high_value_0123abcd"));
        for other in
            ["view_orders", "orders_0123abcd", "view__0123abcd", "view_Orders_0123abcd", "view_orders_0123ABCD"]
        {
            assert!(!is_ours(other), "{other}");
        }
    }
}
