//! What can be selected from: sources that people have declared, that an engine knows itself, and that the schema registry
//! describes. One answer, in which each says where it comes from.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::sync::Mutex;

use super::inferred::Samples;
use super::{Catalog, CatalogEntry, Declarer, Origin, Shared};
use crate::catalog::{Column, DataType, Declaration, ExpectedSource, Format, KeyFormat, Source, Standing, standing};
use crate::engines::EngineKind;
use crate::fault::Fault;
use crate::names::Names;
use crate::ports::{PortError, Topic};
use crate::store::Declared;

/// How long an answer of the outside is as good as a new one, also one that says little: a text is often judged again and
/// again while it is written.
const FRESH: Duration = Duration::from_secs(5);
/// Subjects that the registry is asked for at once.
const AT_ONCE: usize = 16;
/// The longest name.
const MAX_NAME: usize = 63;
/// Most columns of a declared source.
const MAX_COLUMNS: usize = 1_000;
/// Most bytes of its columns, as they are stored.
const MAX_COLUMN_BYTES: usize = 256 * 1024;
/// Topics that are named when their names come to one.
const NAMED: usize = 10;

/// What each part of the outside said last. Whoever asks waits for whoever asks already.
#[derive(Default)]
pub(crate) struct Cache {
    registry: Slot,
    flink: Slot,
    ksqldb: Slot,
    embedded: Slot,
    inferred: Slot,
    samples: Samples,
}

type Slot = Mutex<Option<(Instant, Arc<Heard>)>>;

impl Cache {
    const fn of(&self, engine: EngineKind) -> &Slot {
        match engine {
            EngineKind::Flink => &self.flink,
            EngineKind::Ksqldb => &self.ksqldb,
            EngineKind::Embedded => &self.embedded,
        }
    }
}

/// Sources that nobody here has declared, and what could not be asked.
#[derive(Debug, Default)]
struct Heard {
    sources: Vec<Source>,
    missing: Vec<String>,
    /// Topics that are none of the sources, or not yet: without columns that are known by now, or of a name that others have, too.
    /// Whoever looks for columns where nobody describes them says which these are.
    untold: Vec<String>,
    /// Topics whose columns are known, and that are none of the sources: others come to the same name.
    unclear: Vec<String>,
}

impl Heard {
    /// Topics whose columns are known.
    fn topics(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.topic.as_str()).chain(self.unclear.iter().map(String::as_str))
    }
}

/// What was said last, or is said now.
async fn heard(slot: &Slot, ask: impl Future<Output = Heard>) -> Arc<Heard> {
    let mut last = slot.lock().await;
    if let Some((at, heard)) = &*last
        && at.elapsed() < FRESH
    {
        return Arc::clone(heard);
    }
    let heard = Arc::new(ask.await);
    *last = Some((Instant::now(), Arc::clone(&heard)));
    heard
}

impl Shared {
    /// What can be selected from. Where two say different things of one name, people win, then the engine itself; a view of the
    /// service is the last, so that nothing means anything else because a view has come.
    pub(super) async fn catalog(&self, engine: Option<EngineKind>) -> Result<Catalog, Fault> {
        let (mut catalog, hidden) = self.gathered(engine).await?;
        catalog.missing.extend(hidden.into_iter().map(|(_, why)| why));
        Ok(catalog)
    }

    /// The same; names that are no source stand beside it, each with the reason: a topic has the name of a view, or several topics
    /// come to it.
    pub(super) async fn gathered(&self, engine: Option<EngineKind>) -> Result<(Catalog, Vec<(String, String)>), Fault> {
        if let Some(engine) = engine {
            self.engine(engine)?;
        }
        let configured: Vec<EngineKind> = self.parts.engines.iter().map(|engine| engine.kind()).collect();
        let asked = engine.map_or_else(|| configured.clone(), |engine| vec![engine]);
        let outside = self.outside(&asked).await;
        let declared = self.store.sources().await?.into_iter().map(|source| (Origin::Declared, source));
        let heard = outside.iter().flat_map(|(origin, heard)| {
            heard.sources.iter().map(|source| (if source.is_view() { Origin::View } else { *origin }, source.clone()))
        });
        let missing: Vec<String> = outside.iter().flat_map(|(_, heard)| heard.missing.iter().cloned()).collect();
        let untold: HashMap<String, &str> = outside
            .iter()
            .flat_map(|(_, heard)| heard.untold.iter().chain(&heard.unclear))
            .map(|topic| (source_name(topic).to_ascii_lowercase(), topic.as_str()))
            .collect();
        let contested = contested(&outside);
        let mut hidden = Vec::new();
        let mut named: BTreeMap<String, Vec<CatalogEntry>> = BTreeMap::new();
        let mut all: Vec<(Origin, Source)> = declared.chain(heard).collect();
        all.retain(|(origin, source)| self.may_be_source(*origin, &source.topic));
        all.sort_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name)));
        for (origin, source) in all {
            let name = source.name.to_ascii_lowercase();
            // Once more is known of that topic, the name is the topic's.
            if let (Origin::View, Some(topic), None) = (origin, untold.get(&name), named.get(&name)) {
                hidden.push((name, why_hidden(&source, topic)));
                continue;
            }
            let entries = named.entry(name.clone()).or_default();
            let taken = |engine: &EngineKind| entries.iter().any(|entry| entry.engines.contains(engine));
            let mut engines: Vec<EngineKind> = match origin {
                Origin::Engine(engine) => vec![engine],
                Origin::Declared | Origin::Registry => configured.clone(),
                Origin::Inferred | Origin::View => vec![EngineKind::Embedded],
            };
            engines.retain(|engine| asked.contains(engine) && !taken(engine));
            if let (Some(topics), Origin::Registry | Origin::Inferred | Origin::View) = (contested.get(&name), origin)
                && let Some(place) = engines.iter().position(|engine| *engine == EngineKind::Embedded)
            {
                engines.remove(place);
                if !hidden.iter().any(|(of, _)| *of == name) {
                    hidden.push((name.clone(), why_contested(&name, topics)));
                }
            }
            if let (Origin::View, true, Some(first)) = (origin, engines.is_empty(), entries.first()) {
                hidden.push((name, why_hidden(&source, &first.source.topic)));
            }
            if !engines.is_empty() {
                entries.push(CatalogEntry { source, origin, engines });
            }
        }
        Ok((Catalog { sources: named.into_values().flatten().collect(), missing }, hidden))
    }

    /// A reserved topic that is declared was declared by an operator, or before it was reserved.
    fn may_be_source(&self, origin: Origin, topic: &str) -> bool {
        match standing(topic, &self.parts.settings.own_topics) {
            Standing::Open => true,
            Standing::Reserved => origin == Origin::Declared,
            Standing::Internal => false,
        }
    }

    /// The names of the views that the engine in this process can join.
    pub(super) async fn views(&self) -> Vec<String> {
        let kind = EngineKind::Embedded;
        let heard = heard(self.catalogue.of(kind), self.ask_engine(kind)).await;
        heard.sources.iter().filter(|source| source.is_view()).map(|source| source.name.clone()).collect()
    }

    /// Whether a topic is a source. What is declared needs nobody's answer but the database's.
    pub(super) async fn is_source(&self, topic: &str) -> Result<bool, Fault> {
        if topic.is_empty() || !self.may_be_source(Origin::Declared, topic) {
            return Ok(false);
        }
        if self.store.sources().await?.iter().any(|source| source.topic == topic) {
            return Ok(true);
        }
        let configured: Vec<EngineKind> = self.parts.engines.iter().map(|engine| engine.kind()).collect();
        let outside = self.outside(&configured).await;
        let is_heard = |(origin, heard): &(Origin, Arc<Heard>)| {
            self.may_be_source(*origin, topic) && heard.sources.iter().any(|source| source.topic == topic)
        };
        Ok(outside.iter().any(is_heard))
    }

    /// What these engines and the registry say, all asked at once.
    async fn outside(&self, engines: &[EngineKind]) -> Vec<(Origin, Arc<Heard>)> {
        let of_engine = |kind: &EngineKind| {
            let kind = *kind;
            async move { (Origin::Engine(kind), heard(self.catalogue.of(kind), self.ask_engine(kind)).await) }
        };
        let registry = heard(&self.catalogue.registry, self.ask_registry());
        let (mut outside, registry) = tokio::join!(join_all(engines.iter().map(of_engine)), registry);
        let described: HashSet<String> = registry.topics().map(str::to_owned).collect();
        outside.push((Origin::Registry, registry));
        if engines.contains(&EngineKind::Embedded) && self.infers() {
            let inferred = heard(&self.catalogue.inferred, self.infer(&described)).await;
            outside.push((Origin::Inferred, inferred));
        }
        outside
    }

    async fn ask_engine(&self, kind: EngineKind) -> Heard {
        let Ok(engine) = self.engine(kind) else { return Heard::default() };
        match engine.sources().await {
            Ok(sources) => Heard { sources, ..Heard::default() },
            Err(trouble) => Heard {
                missing: vec![format!("{} does not say its sources: {trouble}", kind.name())],
                ..Heard::default()
            },
        }
    }

    /// Topics that nobody describes.
    async fn infer(&self, described: &HashSet<String>) -> Heard {
        let topics = match self.parts.kafka.topics().await {
            Ok(topics) => topics,
            // The registry's walk over the topics has said so already.
            Err(_) if self.parts.schemas.is_some() => return Heard::default(),
            Err(error) => {
                let missing = vec![format!("the brokers do not say their topics: {error}")];
                return Heard { missing, ..Heard::default() };
            }
        };
        let names: HashSet<String> = topics.iter().map(|topic| topic.name.to_ascii_lowercase()).collect();
        let is_open =
            |topic: &Topic| self.may_be_source(Origin::Inferred, &topic.name) && !described.contains(&topic.name);
        let topics: Vec<String> = topics.into_iter().filter(is_open).map(|topic| topic.name).collect();
        let found = self.inferred(&self.catalogue.samples, topics.clone()).await;
        let source = |(topic, columns): (String, Vec<Column>)| {
            let name = source_name(&topic);
            Source { name, topic, format: Format::Json, columns, event_time: None, table: None }
        };
        let (sources, unclear) = one_of_a_name(found.columns.into_iter().map(source).collect(), &names);
        let told: HashSet<&str> = sources.iter().map(|source| source.topic.as_str()).collect();
        let untold = topics.into_iter().filter(|topic| !told.contains(topic.as_str())).collect();
        let missing = found.missing.into_iter().chain(why_unclear(&unclear)).collect();
        Heard { sources, missing, untold, unclear }
    }

    async fn ask_registry(&self) -> Heard {
        let mut heard = Heard::default();
        let Some(schemas) = &self.parts.schemas else { return heard };
        let mut topics = match self.parts.kafka.topics().await {
            Ok(topics) => topics,
            Err(error) => {
                heard.missing.push(format!("the brokers do not say their topics: {error}"));
                return heard;
            }
        };
        topics.retain(|topic| self.may_be_source(Origin::Registry, &topic.name));
        let names: HashSet<String> = topics.iter().map(|topic| topic.name.to_ascii_lowercase()).collect();
        let asked = topics.into_iter().map(|Topic { name, .. }| async move {
            let columns = schemas.columns_of(&name).await;
            (name, columns)
        });
        let answers: Vec<_> = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        let (mut described, mut trouble) = (Vec::new(), None);
        for (topic, answer) in answers {
            match answer {
                Ok(Some((format, columns))) if !columns.is_empty() => {
                    described.push(Source {
                        name: source_name(&topic),
                        topic,
                        format,
                        columns,
                        event_time: None,
                        table: None,
                    });
                }
                Ok(_) => {}
                // An answer like any other: whatever its values are, they have no columns.
                Err(PortError::Refused(why) | PortError::NoTopic(why)) => {
                    tracing::debug!(topic, why, "a topic with a schema is no source");
                }
                Err(PortError::Unavailable(why)) => trouble = Some(why),
            }
        }
        if let Some(why) = trouble {
            heard.missing.push(format!("the schema registry does not say all columns: {why}"));
        }
        let (sources, unclear) = one_of_a_name(described, &names);
        heard.missing.extend(why_unclear(&unclear));
        (heard.sources, heard.unclear) = (sources, unclear);
        heard
    }

    pub(super) async fn declaration(&self, name: &str) -> Result<Declaration, Fault> {
        self.store.declaration(name).await?.ok_or_else(|| missing(name))
    }

    pub(super) async fn put_source(
        &self,
        source: Source,
        by: Declarer<'_>,
        expected: ExpectedSource,
    ) -> Result<Declaration, Fault> {
        check(&source)?;
        match standing(&source.topic, &self.parts.settings.own_topics) {
            Standing::Internal => {
                let problem =
                    format!("`{}` is a topic of the brokers, the registry or ksqlDB themselves", source.topic);
                return Err(Fault::Invalid { field: "topic", problem });
            }
            Standing::Reserved if !by.is_operator => {
                let what =
                    format!("`{}` is a topic of this service or of Kafka's relatives, and to declare it", source.topic);
                return Err(Fault::AsksForOperator(what));
            }
            Standing::Reserved | Standing::Open => {}
        }
        done(&source.name, expected, self.store.put_source(&source, by, expected).await?)
    }

    /// Takes a declaration back, and says what stays.
    pub(super) async fn delete_source(
        &self,
        name: &str,
        by: Declarer<'_>,
        expected: ExpectedSource,
    ) -> Result<Vec<String>, Fault> {
        let was = done(name, expected, self.store.delete_source(name, by, expected).await?)?;
        tracing::info!(source = name, actor = by.name, "a source is not declared any more");
        Ok(self.left_of(&was.source).await)
    }

    /// What is there of a source that nobody declares any more: nothing of it is ever removed but by somebody.
    async fn left_of(&self, source: &Source) -> Vec<String> {
        let mut left = vec![format!("topic `{}` with its records", source.topic)];
        for engine in &self.parts.engines {
            let kind = engine.kind().name();
            match engine.sources().await {
                Ok(known) if known.iter().any(|known| (&known.name, &known.topic) == (&source.name, &source.topic)) => {
                    left.push(format!(
                        "`{}` in {kind}, which can still be selected from there until somebody drops it",
                        source.name
                    ));
                }
                Ok(_) => {}
                Err(trouble) => {
                    left.push(format!(
                        "what {kind} knows as `{}`, if anything: it does not say ({trouble})",
                        source.name
                    ));
                }
            }
        }
        left
    }
}

/// Why a view is no source: a topic comes to its name.
fn why_hidden(view: &Source, topic: &str) -> String {
    format!(
        "the view `{}` of this service is no source, as topic `{topic}` has that name: declare the topic under another name to \
         join the view",
        view.name
    )
}

/// The declaration that was changed, or why none was.
fn done(name: &str, expected: ExpectedSource, declared: Declared) -> Result<Declaration, Fault> {
    match declared {
        Declared::Done(declaration) => Ok(declaration),
        Declared::Missing => Err(missing(name)),
        Declared::NotTheirs(Declaration { declared_by, .. }) => {
            Err(Fault::AsksForOperator(format!("`{name}` is declared by `{declared_by}`, and to change it")))
        }
        Declared::Other(now) => {
            let current = now.map(|now| now.version);
            Err(Fault::SourceChanged { name: name.to_owned(), expected, current })
        }
    }
}

fn missing(name: &str) -> Fault {
    Fault::NotFound { what: "source", id: name.to_owned() }
}

/// One source of each name: that of the topic with that very name, else that of the only topic whose name comes to it. Where
/// several do it is none, whoever made the latest of them: then their topics are told, in order.
fn one_of_a_name(sources: Vec<Source>, topics: &HashSet<String>) -> (Vec<Source>, Vec<String>) {
    let mut named: BTreeMap<String, Vec<Source>> = BTreeMap::new();
    for source in sources {
        named.entry(source.name.to_ascii_lowercase()).or_default().push(source);
    }
    let (mut clear, mut unclear) = (Vec::new(), Vec::new());
    for (name, mut sources) in named {
        let is_exact = |source: &Source| source.topic == source.name;
        let exact = sources.iter().filter(|source| is_exact(source)).count();
        if exact > 0 {
            sources.retain(is_exact);
        }
        match (exact, sources.len()) {
            (1, _) => clear.extend(sources),
            (0, 1) if !topics.contains(&name) => clear.extend(sources),
            _ => unclear.extend(sources.into_iter().map(|source| source.topic)),
        }
    }
    unclear.sort();
    (clear, unclear)
}

/// The topics of each name, in lower case, to which a topic of the registry's comes and one that nobody describes, if by the same rule
/// it is the name of none of them: an engine that reads both kinds could mean either, and another one from one day to the next.
fn contested(outside: &[(Origin, Arc<Heard>)]) -> BTreeMap<String, Vec<String>> {
    let of = |wanted: Origin| {
        outside.iter().filter(move |(origin, _)| *origin == wanted).flat_map(|(_, heard)| heard.topics())
    };
    let described: HashSet<&str> = of(Origin::Registry).collect();
    let others: HashSet<&str> = of(Origin::Inferred).filter(|topic| !described.contains(topic)).collect();
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for topic in described.union(&others) {
        named.entry(source_name(topic).to_ascii_lowercase()).or_default().push((*topic).to_owned());
    }
    named.retain(|_, topics| {
        topics.sort();
        let has = |kind: &HashSet<&str>| topics.iter().any(|topic| kind.contains(topic.as_str()));
        let exact = topics.iter().filter(|topic| source_name(topic) == **topic).count();
        has(&described) && has(&others) && exact != 1
    });
    named
}

fn why_unclear(topics: &[String]) -> Option<String> {
    let words = || {
        format!(
            "these topics come to a name that is another topic's, too, so each has to be declared under one of its own: {}",
            a_few(topics)
        )
    };
    (!topics.is_empty()).then(words)
}

fn why_contested(name: &str, topics: &[String]) -> String {
    format!(
        "`{name}` is no source of the embedded engine, as several topics come to that name, by the registry or by their records, \
         so each has to be declared under one of its own: {}",
        a_few(topics)
    )
}

/// Topics as they are told.
fn a_few(topics: &[String]) -> String {
    let (shown, more) = topics.split_at(topics.len().min(NAMED));
    let also = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!("{}{also}", shown.join(", "))
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
    if source.is_view() {
        return invalid("format", "`view` is no format of a topic: write json, json_schema or avro".to_owned());
    }
    if !is_name(&source.name) {
        let name = &source.name;
        return invalid("name", format!("`{name}` is no name: use letters, digits and `_`, at most {MAX_NAME}"));
    }
    let is_topic = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    if source.topic.is_empty() || source.topic.len() > 249 || !source.topic.chars().all(is_topic) {
        return invalid("topic", format!("`{}` is no name of a topic", source.topic));
    }
    check_columns(source)?;
    check_table(source)?;
    let Some(time) = &source.event_time else { return Ok(()) };
    let column = source.columns.iter().find(|column| column.name == time.column);
    match column.map(|column| &column.data_type) {
        Some(DataType::Timestamp(_)) => Ok(()),
        Some(other) => invalid("eventTime", format!("column `{}` is {other}: it has to be a timestamp", time.column)),
        None => invalid("eventTime", format!("there is no column `{}`", time.column)),
    }
}

/// A table's key: columns of plain types that are there, each once; written as text it is one that a text says.
fn check_table(source: &Source) -> Result<(), Fault> {
    let Some(table) = &source.table else { return Ok(()) };
    let invalid = |problem: String| Err(Fault::Invalid { field: "table", problem });
    if source.event_time.is_some() {
        return invalid("a table has no event time: it is what it is now; leave `eventTime` out".to_owned());
    }
    if table.key.is_empty() {
        return invalid("`key` names no column: name those that are the records' key".to_owned());
    }
    let mut names = HashSet::new();
    for name in &table.key {
        let Some(column) = source.columns.iter().find(|column| column.name == *name) else {
            return invalid(format!("`key` names `{name}`, which is no column"));
        };
        if !names.insert(name) {
            return invalid(format!("`key` names `{name}` twice"));
        }
        let (of, is_text) = (&column.data_type, table.key_format == KeyFormat::Text);
        match of {
            DataType::String | DataType::Int | DataType::BigInt => {}
            DataType::Boolean | DataType::Decimal { .. } | DataType::Date | DataType::Timestamp(_) if !is_text => {}
            _ if is_text => return invalid(format!("column `{name}` is {of}: a key of text is string, int or bigint")),
            _ => return invalid(format!("column `{name}` is {of}, which is no key")),
        }
    }
    if table.key_format == KeyFormat::Text && table.key.len() > 1 {
        return invalid(
            "`keyFormat` is text, which is the value of one column: name one, or write keys as json".to_owned(),
        );
    }
    Ok(())
}

fn check_columns(source: &Source) -> Result<(), Fault> {
    let invalid = |problem: String| Err(Fault::Invalid { field: "columns", problem });
    let count = source.columns.len();
    if count == 0 {
        return invalid("a source has at least one column".to_owned());
    }
    if count > MAX_COLUMNS {
        return invalid(format!("a source has at most {MAX_COLUMNS} columns, and these are {count}"));
    }
    let mut names = HashSet::new();
    for column in &source.columns {
        let name = &column.name;
        if name.is_empty() || name.chars().any(char::is_control) || !names.insert(name) {
            return invalid(format!("`{name}` is no name of a column, or the second of that name"));
        }
        if has_control(&column.data_type) {
            return invalid(format!("the type of `{name}` has a field with a control character in its name"));
        }
    }
    // As Postgres writes them: with a space behind each comma and colon.
    let spaces = source.columns.len() * 6;
    let bytes = serde_json::to_string(&source.columns).map_or(usize::MAX, |text| text.len().saturating_add(spaces));
    if bytes > MAX_COLUMN_BYTES {
        return invalid(format!("the columns are {bytes} bytes, and may be {MAX_COLUMN_BYTES}: name fewer of them"));
    }
    Ok(())
}

fn has_control(data_type: &DataType) -> bool {
    match data_type {
        DataType::Array(of) | DataType::Map(of) => has_control(of),
        DataType::Row(fields) => fields.iter().any(|(name, of)| name.chars().any(char::is_control) || has_control(of)),
        _ => false,
    }
}

/// Whether a topic has a name as ours have: `view_<slug>_<tag>`.
pub(super) fn is_ours(topic: &str) -> bool {
    let Some((slug, tag)) = topic.strip_prefix("view_").and_then(|rest| rest.rsplit_once('_')) else { return false };
    let is_tag = tag.len() == 8 && tag.chars().all(|digit| matches!(digit, '0'..='9' | 'a'..='f'));
    is_tag && Names::of(tag, slug).topic() == topic
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalog::{EventTime, Table};

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

    fn described(topic: &str) -> Source {
        let column = Column { name: "a".to_owned(), data_type: DataType::Int, nullable: true };
        let (name, topic) = (source_name(topic), topic.to_owned());
        Source { name, topic, format: Format::Json, columns: vec![column], event_time: None, table: None }
    }

    #[test]
    fn a_name_is_that_of_the_topic_of_that_name_or_nobodys() {
        let of = |with_schema: &[&str], others: &[&str]| {
            let topics = with_schema.iter().chain(others).map(|topic| topic.to_ascii_lowercase()).collect();
            let (clear, unclear) = one_of_a_name(with_schema.iter().map(|topic| described(topic)).collect(), &topics);
            (clear.into_iter().map(|source| source.topic).collect::<Vec<_>>(), unclear)
        };
        let only = |topic: &str| (vec![topic.to_owned()], Vec::<String>::new());
        assert_eq!(of(&["shop-orders", "shop.orders", "shop_orders"], &[]), only("shop_orders"));
        assert_eq!(of(&["shop.orders"], &[]), only("shop.orders"));
        for (with_schema, others) in
            [(&["a-b", "a.b"][..], &[][..]), (&["a-b"], &["a_b"]), (&["Orders", "orders"], &[])]
        {
            let (clear, unclear) = of(with_schema, others);
            assert!(clear.is_empty() && unclear == with_schema, "{with_schema:?}");
        }
        let many: Vec<String> = (0..12).map(|number| number.to_string()).collect();
        let told = why_unclear(&many).unwrap();
        assert!(told.ends_with("0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"), "{told}");
        assert_eq!(why_unclear(&[]), None);
    }

    #[test]
    fn topics_with_a_schema_and_those_without_are_held_against_each_other() {
        let heard = |topics: &[&str], unclear: &[&str]| Heard {
            sources: topics.iter().map(|topic| described(topic)).collect(),
            unclear: unclear.iter().map(|topic| (*topic).to_owned()).collect(),
            ..Heard::default()
        };
        let of = |registry: Heard, inferred: Heard| -> Vec<(String, Vec<String>)> {
            let outside = [(Origin::Registry, Arc::new(registry)), (Origin::Inferred, Arc::new(inferred))];
            contested(&outside).into_iter().collect()
        };
        let nobodys = |name: &str, topics: &[&str]| {
            vec![(name.to_owned(), topics.iter().map(|topic| (*topic).to_owned()).collect::<Vec<_>>())]
        };
        assert_eq!(of(heard(&["a.b"], &[]), heard(&["a-b"], &[])), nobodys("a_b", &["a-b", "a.b"]));
        assert_eq!(of(heard(&["Shop"], &[]), heard(&["shop"], &[])), nobodys("shop", &["Shop", "shop"]));
        // Neither is that of its kind already.
        assert_eq!(of(heard(&[], &["a.b", "a+b"]), heard(&["a-b"], &[])), nobodys("a_b", &["a+b", "a-b", "a.b"]));
        assert_eq!(of(heard(&["a.b"], &[]), heard(&[], &["a-b", "a+b"])), nobodys("a_b", &["a+b", "a-b", "a.b"]));
        // The topic of that very name has it, and what both say of one topic is one.
        for (registry, inferred) in [
            (heard(&["a_b"], &[]), heard(&[], &["a-b"])),
            (heard(&[], &["a.b"]), heard(&["a_b"], &[])),
            (heard(&["a.b"], &[]), heard(&["a.b"], &[])),
            (heard(&["a.b"], &[]), heard(&["c"], &[])),
        ] {
            let clear = of(registry, inferred);
            assert!(clear.is_empty(), "{clear:?}");
        }
    }

    #[test]
    fn a_declaration_that_cannot_be_stored_is_refused_by_its_field() {
        let mut source = described("orders");
        check(&source).unwrap();
        let column = |number: usize, of: DataType| Column { name: format!("c{number}"), data_type: of, nullable: true };
        let wide = |number: usize| DataType::Row(vec![(format!("{number}{}", "x".repeat(300)), DataType::Int)]);
        let odd = DataType::Array(Box::new(DataType::Row(vec![("a\0".to_owned(), DataType::Int)])));
        for columns in [
            (0..1_001).map(|number| column(number, DataType::Int)).collect::<Vec<_>>(),
            (0..1_000).map(|number| column(number, wide(number))).collect(),
            vec![column(0, odd)],
            vec![column(0, DataType::Int), column(0, DataType::Int)],
        ] {
            source.columns = columns;
            assert!(matches!(check(&source), Err(Fault::Invalid { field: "columns", .. })));
        }
    }

    #[test]
    fn a_table_has_a_key_that_its_records_can_have() {
        let column =
            |name: &str, of: &str| Column { name: name.to_owned(), data_type: of.parse().unwrap(), nullable: true };
        let of = |key: &[&str], key_format| {
            let mut source = described("customers");
            source.columns = vec![column("id", "bigint"), column("name", "string"), column("rate", "double")];
            source.columns.push(column("day", "date"));
            source.table = Some(Table { key: key.iter().map(|name| (*name).to_owned()).collect(), key_format });
            source
        };
        for (key, key_format) in [
            (&["id"][..], KeyFormat::Text),
            (&["name"], KeyFormat::Text),
            (&["id"], KeyFormat::Json),
            (&["id", "day"], KeyFormat::Json),
        ] {
            check(&of(key, key_format)).unwrap();
        }
        for (key, key_format, why) in [
            (&[][..], KeyFormat::Json, "no column"),
            (&["ID"], KeyFormat::Json, "`ID`, which is no column"),
            (&["id", "id"], KeyFormat::Json, "twice"),
            (&["rate"], KeyFormat::Json, "double, which is no key"),
            (&["day"], KeyFormat::Text, "string, int or bigint"),
            (&["id", "name"], KeyFormat::Text, "write keys as json"),
        ] {
            let fault = check(&of(key, key_format)).unwrap_err();
            assert!(matches!(fault, Fault::Invalid { field: "table", .. }), "{key:?}");
            assert!(fault.to_string().contains(why), "{fault}");
        }
        let timed = Source {
            event_time: Some(EventTime { column: "day".to_owned(), delay_ms: 0 }),
            ..of(&["id"], KeyFormat::Text)
        };
        assert!(check(&timed).unwrap_err().to_string().contains("no event time"));
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
