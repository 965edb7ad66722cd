//! Streams, tables and queries, and what a statement does to them. Pure: it says what has to be done in Kafka.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::flow::{Plan, Source};
use super::refused::Refused;
use super::statement::{Create, Kind, Select, Statement};

/// A persistent query.
#[derive(Debug, Clone)]
pub struct Query {
    /// `CSAS_<sink>_<number>`.
    pub id: String,
    /// The stream or table that it fills.
    pub sink: String,
    /// Its topic.
    pub topic: String,
    /// As the server writes it.
    pub text: String,
    /// What it does.
    pub plan: Plan,
    /// The overrides that it was made with.
    pub properties: Map<String, Value>,
    /// Whether it is paused.
    pub paused: bool,
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make a topic with so many partitions.
    Topic(String, u32),
    /// Start a query; one of that name ends first.
    Start(String),
    /// End a query.
    Stop(String),
    /// Pause or resume it.
    Pause(String, bool),
}

/// What a statement did.
#[derive(Debug, Clone)]
pub struct Applied {
    /// For people.
    pub message: String,
    /// The query that it made.
    pub query: Option<String>,
    /// The statement, as the server writes it.
    pub text: String,
    /// What has to be done.
    pub effects: Vec<Effect>,
    /// `IF NOT EXISTS` found something: there is no command.
    pub warned: bool,
}

/// Topics and how many partitions they have.
pub type Topics = BTreeMap<String, u32>;

/// Everything that is registered.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Streams and tables.
    pub sources: BTreeMap<String, Source>,
    /// Persistent queries by id.
    pub queries: BTreeMap<String, Query>,
}

/// A statement on its way.
pub struct Command<'a> {
    /// As it was sent.
    pub text: &'a str,
    /// What it says.
    pub statement: &'a Statement,
    /// Its overrides.
    pub properties: &'a Map<String, Value>,
    /// Its place in the command topic.
    pub sequence: u64,
}

impl Catalog {
    /// The command id that the status of such a statement is kept under.
    pub fn command_id(statement: &Statement) -> String {
        match statement {
            Statement::Create(create) => format!("{}/`{}`/create", create.kind.lower(), create.name),
            Statement::Drop { kind, name, .. } => format!("{}/{name}/drop", kind.lower()),
            Statement::Command(word, id) => format!("{}/{id}/execute", word.to_lowercase()),
            _ => String::new(),
        }
    }

    /// Does it; `topics` are those of Kafka, or `None` while old commands are read again.
    ///
    /// # Errors
    /// Why it cannot be done; then nothing has changed.
    pub fn apply(&mut self, command: &Command<'_>, topics: Option<&mut Topics>) -> Result<Applied, Refused> {
        match command.statement {
            Statement::Create(create) => match &create.query {
                None => self.register(command, create, topics),
                Some(select) => self.create_as(command, create, select, topics),
            },
            Statement::Drop { kind, name, if_exists, .. } => self.drop(command, *kind, name, *if_exists),
            Statement::Command(word, id) => self.order(command, word, id),
            _ => Err(Refused::statement("not a statement for the command topic", command.text)),
        }
    }

    fn taken(&self, name: &str, kind: Kind) -> Option<String> {
        let there = self.sources.get(name)?;
        let (kind, there) = (kind.lower(), there.kind.lower());
        Some(format!("Cannot add {kind} '{name}': a {there} with the same name already exists"))
    }

    fn register(
        &mut self,
        command: &Command<'_>,
        create: &Create,
        topics: Option<&mut Topics>,
    ) -> Result<Applied, Refused> {
        let refused = |message: String| Refused::statement(message, command.text);
        if let Some(taken) = self.taken(&create.name, create.kind) {
            if create.unless_there {
                let text = command.text.to_owned();
                return Ok(Applied { message: taken, query: None, text, effects: Vec::new(), warned: true });
            }
            if !create.replace {
                return Err(refused(taken));
            }
        }
        let topic = create.with.get("KAFKA_TOPIC").cloned().unwrap_or_else(|| create.name.clone());
        let format = create.with.get("VALUE_FORMAT").or(create.with.get("FORMAT"));
        let format = format.ok_or_else(|| refused("Missing required property VALUE_FORMAT".to_owned()))?.to_uppercase();
        if create.columns.is_empty() {
            return Err(refused("the stand-in has no schema registry: give the columns".to_owned()));
        }
        let mut effects = Vec::new();
        if let Some(topics) = topics
            && !topics.contains_key(&topic)
        {
            let partitions = create.with.get("PARTITIONS").and_then(|number| number.parse().ok());
            let missing = format!("Topic '{topic}' does not exist. Give PARTITIONS and it is made.");
            let partitions = partitions.ok_or_else(|| Refused::generic(400, 40000, missing))?;
            topics.insert(topic.clone(), partitions);
            effects.push(Effect::Topic(topic.clone(), partitions));
        }
        let text = command.text.replacen("WITH (", "WITH (KEY_FORMAT='KAFKA', ", 1);
        let source = Source {
            name: create.name.clone(),
            kind: create.kind,
            columns: create.columns.clone(),
            topic,
            format,
            statement: text.clone(),
            materialised: false,
        };
        self.sources.insert(create.name.clone(), source);
        let message = if create.kind == Kind::Stream { "Stream created" } else { "Table created" };
        Ok(Applied { message: message.to_owned(), query: None, text, effects, warned: false })
    }

    /// What a query would do.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn plan(&self, select: &Select, text: &str) -> Result<Plan, Refused> {
        let source = self.sources.get(&select.source);
        let source = source.ok_or_else(|| Refused::statement(format!("{} does not exist.", select.source), text))?;
        Plan::of(select, source).map_err(|wrong| Refused::statement(wrong, text))
    }

    /// What the query of a `CREATE … AS` would do, if it gives what the statement says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn plan_of_create(&self, create: &Create, select: &Select, text: &str) -> Result<Plan, Refused> {
        let refused = |message: String| Refused::statement(message, text);
        let plan = self.plan(select, text)?;
        if select.limit.is_some() {
            return Err(refused("A persistent query has no LIMIT.".to_owned()));
        }
        if plan.kind != create.kind {
            let (gives, says) = (plan.kind.upper(), create.kind.upper());
            return Err(refused(format!(
                "Invalid result type. The query produces a {gives}, the statement says {says}."
            )));
        }
        match self.taken(&create.name, create.kind) {
            Some(taken) if !create.replace => Err(refused(taken)),
            _ => Ok(plan),
        }
    }

    fn create_as(
        &mut self,
        command: &Command<'_>,
        create: &Create,
        select: &Select,
        topics: Option<&mut Topics>,
    ) -> Result<Applied, Refused> {
        let plan = self.plan_of_create(create, select, command.text)?;
        let running = self.queries.values().find(|query| query.sink == create.name).map(|query| query.id.clone());
        if let Some(there) = self.sources.get(&create.name) {
            let query = running.as_ref().and_then(|id| self.queries.get(id));
            if let Some(why) = cannot_upgrade(there, query, &plan) {
                return Err(Refused::statement(why, command.text));
            }
        }
        let topic = create.with.get("KAFKA_TOPIC").cloned().unwrap_or_else(|| create.name.clone());
        let mut effects = Vec::new();
        if let Some(topics) = topics {
            let wanted = create.with.get("PARTITIONS").and_then(|number| number.parse().ok());
            let wanted = wanted.or_else(|| topics.get(&plan.source.topic).copied()).unwrap_or(1);
            match topics.get(&topic) {
                Some(there) if *there != wanted => {
                    return Err(Refused::statement(
                        format!(
                            "A topic '{topic}' already exists, with another number of partitions: {there}, not {wanted}"
                        ),
                        command.text,
                    ));
                }
                Some(_) => {}
                None => {
                    topics.insert(topic.clone(), wanted);
                    effects.push(Effect::Topic(topic.clone(), wanted));
                }
            }
        }
        let prefix = if create.kind == Kind::Stream { "CSAS" } else { "CTAS" };
        let id = running.unwrap_or_else(|| format!("{prefix}_{}_{}", create.name, command.sequence + 1));
        let with: Vec<String> = create.with.iter().map(|(name, value)| written(name, value)).collect();
        let verb = if create.replace { "CREATE OR REPLACE" } else { "CREATE" };
        let head = format!(
            "{verb} {} {} WITH (CLEANUP_POLICY='delete', {})",
            create.kind.upper(),
            create.name,
            with.join(", ")
        );
        let text = format!("{head} AS {select};");
        let source = Source {
            name: create.name.clone(),
            kind: create.kind,
            columns: plan.columns.clone(),
            topic: topic.clone(),
            format: create.with.get("VALUE_FORMAT").cloned().unwrap_or_else(|| plan.source.format.clone()),
            statement: text.clone(),
            materialised: true,
        };
        self.sources.insert(create.name.clone(), source);
        let paused = self.queries.get(&id).is_some_and(|query| query.paused);
        let properties =
            self.queries.get(&id).map_or_else(|| command.properties.clone(), |query| query.properties.clone());
        let (sink, query_text) = (create.name.clone(), text.clone());
        self.queries
            .insert(id.clone(), Query { id: id.clone(), sink, topic, text: query_text, plan, properties, paused });
        effects.push(Effect::Start(id.clone()));
        Ok(Applied { message: format!("Created query with ID {id}"), query: Some(id), text, effects, warned: false })
    }

    fn drop(&mut self, command: &Command<'_>, kind: Kind, name: &str, if_exists: bool) -> Result<Applied, Refused> {
        let refused = |message: String| Refused::statement(message, command.text);
        let text = command.text.replace(" DELETE TOPIC", "");
        let done = |message: String, effects| Applied { message, query: None, text, effects, warned: false };
        let Some(source) = self.sources.get(name) else {
            if if_exists {
                return Ok(done(format!("Source `{name}` does not exist."), Vec::new()));
            }
            let kind = if kind == Kind::Stream { "Stream" } else { "Table" };
            return Err(refused(format!("{kind} {name} does not exist.")));
        };
        if source.kind != kind {
            let (there, said) = (source.kind.lower(), kind.lower());
            return Err(refused(format!("Incompatible data source type is {there}, but statement was DROP {said}")));
        }
        let readers = self.queries.values().filter(|query| query.plan.source.name == name);
        let readers: Vec<&str> = readers.map(|query| query.sink.as_str()).collect();
        if !readers.is_empty() {
            let list = readers.join(", ");
            return Err(refused(format!(
                "Cannot drop {name}.\nThese read from this source: [{list}].\nDrop them first."
            )));
        }
        let message = format!("Source `{name}` (topic: {}) was dropped.", source.topic);
        self.sources.remove(name);
        let filling = self.queries.values().find(|query| query.sink == name).map(|query| query.id.clone());
        let effects = filling.into_iter().inspect(|id| drop(self.queries.remove(id))).map(Effect::Stop).collect();
        Ok(done(message, effects))
    }

    fn order(&mut self, command: &Command<'_>, word: &str, id: &str) -> Result<Applied, Refused> {
        let ids: Vec<String> = if id.eq_ignore_ascii_case("ALL") {
            self.queries.keys().cloned().collect()
        } else {
            let found = self.queries.keys().find(|known| known.eq_ignore_ascii_case(id)).cloned();
            vec![found.ok_or_else(|| Refused::statement(format!("Unknown queryId: {id}"), command.text))?]
        };
        let mut effects = Vec::new();
        for id in ids {
            if word == "TERMINATE" {
                self.queries.remove(&id);
                effects.push(Effect::Stop(id));
                continue;
            }
            if let Some(query) = self.queries.get_mut(&id) {
                query.paused = word == "PAUSE";
            }
            effects.push(Effect::Pause(id, word == "PAUSE"));
        }
        let message = match word {
            "TERMINATE" => "Query terminated.",
            "PAUSE" => "Query paused.",
            _ => "Query resumed.",
        };
        let text = command.text.to_owned();
        Ok(Applied { message: message.to_owned(), query: None, text, effects, warned: false })
    }
}

fn written(name: &str, value: &str) -> String {
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("{name}={value}")
    } else {
        format!("{name}='{value}'")
    }
}

/// Why a query cannot take the place of what is there: columns go, or an aggregation changes.
fn cannot_upgrade(there: &Source, query: Option<&Query>, plan: &Plan) -> Option<String> {
    let cannot = |why: String| Some(format!("Cannot upgrade data source: {} {why}", there.name));
    if there.kind != plan.kind {
        return cannot(format!("is a {}", there.kind.lower()));
    }
    if plan.columns.get(..there.columns.len()) != Some(&there.columns[..]) {
        return cannot("has columns which the new query does not give: it is not upgradeable".to_owned());
    }
    let before = query.filter(|query| query.plan.aggregates() || plan.aggregates())?;
    if before.plan.select.to_string() != plan.select.to_string() {
        return Some("Upgrades not yet supported for a changed StreamAggregate".to_owned());
    }
    None
}
