//! `streamview dlq`: dead letters, and what is done about them. Talks to Postgres directly, so it works while nothing
//! runs; only `import` needs Kafka.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::desk::{self, BulkArgs, Common, WhyArgs, or_dash, parse_age, table};
use super::output;
use crate::api::ops::model::{ImportedBody, LetterBody, LetterDetailBody, LetterPageBody};
use crate::config::Config;
use crate::platforms::kafka::bounded::read_topic;
use crate::repair::Desk;
use crate::repair::request::{
    BulkBounds, LetterFilter, MAX_BULK, Replacement, Request, known_reasons, known_statuses, statuses,
};

/// Look at dead letters, and skip, replace or redrive them
///
/// A dead letter is a record that could not be taken, whole, with the reason. Decisions made here are followed within
/// about a second by a running projector, or by the next one that runs.
#[derive(Args, Debug)]
pub struct DlqArgs {
    #[command(subcommand)]
    action: DlqAction,
}

#[derive(Debug, Subcommand)]
enum DlqAction {
    /// List dead letters, the newest first
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// How many at most
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Show a dead letter: headers, payload, why it was refused, what can be done
    Show {
        /// Id of the letter
        id: i64,
        #[command(flatten)]
        common: Common,
    },
    /// Go on without it; a letter that nobody waits for is only closed
    Skip(AnswerArgs),
    /// Go on with a corrected payload, which is checked against the contract first
    Replace(ReplaceArgs),
    /// Go on with it as it was, if it can be read by now
    Redrive(AnswerArgs),
    /// Take over the letters of a DLQ topic that the table does not have
    ///
    /// Reads the topic from its beginning to its end as it is now. Letters are known by their original position, so
    /// that nothing is imported twice. They can be skipped, replaced and redriven like any other then. With --json one object: read,
    /// imported, known, and with --redrive the answers of redriven.
    Import(ImportArgs),
}

#[derive(Args, Debug)]
struct AnswerArgs {
    /// Id of the letter
    id: Option<i64>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    bulk: BulkArgs,
    #[command(flatten)]
    why: WhyArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct ReplaceArgs {
    /// Id of the letter
    id: i64,
    /// File that holds the corrected payload, byte for byte; - for stdin
    #[arg(long, value_name = "FILE")]
    payload: PathBuf,
    /// Set a header; NAME alone takes it away; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    header: Vec<String>,
    /// The key, where the letter has none
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The number, where the letter has none
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<i64>,
    /// Set the header x-event-type
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    /// Set the header x-event-version
    #[arg(long, value_name = "VERSION")]
    event_version: Option<u32>,
    #[command(flatten)]
    why: WhyArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct ImportArgs {
    /// The topic [default: views.<view>.dlq_topic of the configuration]
    #[arg(long)]
    topic: Option<String>,
    /// Redrive at once those that can be read by now; needs --reason
    #[arg(long, requires = "reason")]
    redrive: bool,
    #[command(flatten)]
    why: OptionalWhy,
    #[command(flatten)]
    common: Common,
}

/// Who decides and why, where a decision is only part of it.
#[derive(Args, Debug)]
struct OptionalWhy {
    /// Why they are redriven, for those who ask later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who decides
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, default_value = "anonymous")]
    actor: String,
}

/// Which dead letters.
#[derive(Args, Clone, Debug, Default, PartialEq)]
struct FilterArgs {
    /// Only letters in this state; may be repeated [default: open]
    #[arg(long, value_name = "STATUS", value_parser = known_statuses())]
    status: Vec<String>,
    /// Only letters refused for this reason; may be repeated
    #[arg(long, value_name = "REASON", value_parser = known_reasons())]
    with_reason: Vec<String>,
    /// Only letters of this key
    #[arg(long = "key", value_name = "KEY")]
    with_key: Option<String>,
    /// Only letters of this topic
    #[arg(long = "topic", value_name = "TOPIC")]
    of_topic: Option<String>,
    /// Only letters refused at least so long ago: seconds, or a duration such as PT15M or 2h
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<i64>,
    /// Only letters refused less than so long ago
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    newer_than: Option<i64>,
}

impl FilterArgs {
    fn filter(self) -> Result<LetterFilter> {
        let FilterArgs { status, with_reason, with_key, of_topic, older_than, newer_than } = self;
        desk::check_window(older_than, newer_than)?;
        let statuses = statuses(status);
        Ok(LetterFilter {
            statuses,
            reasons: with_reason,
            key: with_key,
            topic: of_topic,
            older_than,
            newer_than,
            ids: None,
        })
    }
}

/// Does what is asked.
pub async fn run(arguments: DlqArgs, config: &Config) -> Result<()> {
    match arguments.action {
        DlqAction::List { filter, limit, common } => {
            let filter = filter.filter()?;
            let desk = desk::open(config, &common).await?;
            list(&desk, &filter, limit, common.json).await
        }
        DlqAction::Show { id, common } => {
            let letter = desk::open(config, &common).await?.show_letter(id).await.map_err(desk::explain)?;
            let letter = LetterDetailBody::from(letter);
            if common.json {
                return desk::print_json(&letter);
            }
            output::text(shown(&letter))?;
            Ok(())
        }
        DlqAction::Skip(arguments) => {
            answer(arguments, config, Request::SkipLetter, Request::SkipLettersByFilter).await
        }
        DlqAction::Redrive(arguments) => answer(arguments, config, Request::Redrive, Request::RedriveByFilter).await,
        DlqAction::Replace(arguments) => replace(arguments, config).await,
        DlqAction::Import(arguments) => import(arguments, config).await,
    }
}

async fn answer(
    arguments: AnswerArgs,
    config: &Config,
    one: fn(i64) -> Request,
    many: fn(LetterFilter, BulkBounds) -> Request,
) -> Result<()> {
    let AnswerArgs { id, filter, bulk, why, common } = arguments;
    let is_filtered = filter != FilterArgs::default();
    let request = match desk::one_or_all(id, bulk.all, "the id of a letter", is_filtered)? {
        Some(id) => one(id),
        None => many(filter.filter()?, bulk.bulk()?),
    };
    desk::decide(&desk::open(config, &common).await?, &request, &why, common.json).await
}

async fn replace(arguments: ReplaceArgs, config: &Config) -> Result<()> {
    let ReplaceArgs { id, payload, header, key, sequence, event_type, event_version, why, common } = arguments;
    let mut text = String::new();
    if payload.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).context("cannot read the payload from stdin")?;
    } else {
        text = std::fs::read_to_string(&payload).with_context(|| format!("cannot read {}", payload.display()))?;
    }
    ensure!(!text.is_empty(), "the payload is empty");
    let headers = header.into_iter().map(|header| match header.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (header, None),
    });
    // As a JSON string: its text is taken byte for byte.
    let payload = RawValue::from_string(serde_json::to_string(&text)?)?;
    let headers = headers.collect();
    let request = Request::Replace(Replacement { id, payload, headers, key, sequence, event_type, event_version });
    desk::decide(&desk::open(config, &common).await?, &request, &why, common.json).await
}

async fn list(desk: &Desk, filter: &LetterFilter, limit: u32, json: bool) -> Result<()> {
    let found = desk.list_letters(filter, None, limit).await?;
    let mut items: Vec<LetterBody> = found.into_iter().map(Into::into).collect();
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    if json {
        return desk::print_json(&LetterPageBody { items, page_size: limit });
    }
    output::text(table(&COLUMNS, &items.iter().map(row).collect::<Vec<_>>()))?;
    if more {
        output::line("… and more: narrow the filter, or raise --limit")?;
    }
    Ok(())
}

/// Names of what [`row`] gives.
pub(super) const COLUMNS: [&str; 7] = ["ID", "STATUS", "KEY", "NUMBER", "REFUSED", "REASON", "ERROR"];

/// A letter in a table.
pub(super) fn row(letter: &LetterBody) -> Vec<String> {
    vec![
        letter.id.to_string(),
        letter.status.to_owned(),
        or_dash(letter.key.as_deref()),
        or_dash(letter.sequence),
        letter.created_at.to_string(),
        letter.reason.clone(),
        letter.error.replace('\n', " "),
    ]
}

fn shown(detail: &LetterDetailBody) -> String {
    let letter = &detail.letter;
    let mut text = format!("dead letter {}, {}\n", letter.id, letter.status);
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:9} {value}\n"));
    line("reason", letter.reason.clone());
    line("error", letter.error.clone());
    line("position", format!("{}/{}/{}", letter.topic, letter.partition, letter.offset));
    line("key", or_dash(letter.key.as_deref()));
    line("number", or_dash(letter.sequence));
    line("refused", letter.created_at.to_string());
    if let Some(why) = &letter.refused_because {
        line("decision", format!("could not be followed: {why}"));
    }
    for header in &detail.headers {
        let base64 = header.base64.as_ref().map(|base64| format!("base64 {base64}"));
        line("header", format!("{} = {}", header.name, or_dash(header.text.clone().or(base64))));
    }
    if let Some(payload) = &detail.payload {
        let cut = if payload.truncated { ", cut" } else { "" };
        let json = payload.json.as_ref().map(|json| json.get().to_owned());
        let shown = json.or_else(|| payload.text.clone()).or_else(|| payload.base64.clone());
        text.push_str(&format!("\npayload, {} bytes{cut}\n{}\n", payload.bytes, or_dash(shown)));
    }
    if let Some(decision) = &detail.decision {
        text.push_str("\ndecision\n");
        text.push_str(&desk::decisions(std::slice::from_ref(decision)));
    }
    if !detail.next.is_empty() {
        text.push_str("\nnext\n");
        text.push_str(&desk::steps(&detail.next));
    }
    text
}

async fn import(arguments: ImportArgs, config: &Config) -> Result<()> {
    let ImportArgs { topic, redrive, why, common } = arguments;
    let desk = desk::open(config, &common).await?;
    let topic = match topic {
        Some(topic) => topic,
        None => config.views.get(desk.view).context("the view is not configured")?.dlq_topic.clone(),
    };
    // Each may be of any size.
    let (sender, letters) = mpsc::channel(1);
    let (kafka, reader, from) = (config.kafka.clone(), desk.clone(), topic.clone());
    let reading = tokio::task::spawn_blocking(move || {
        read_topic(&kafka, &from, |record| {
            // Nobody receives any more: the import has failed and says so.
            sender.blocking_send(reader.letter_of(&from, record)).ok();
        })
    });
    let imported = desk.import(letters).await.map_err(desk::explain)?;
    reading.await?.with_context(|| format!("cannot read {topic} to its end; what was read is imported"))?;
    if !common.json {
        let counts =
            format!("{} read, {} imported, {} known already", imported.read, imported.imported, imported.known);
        output::line(counts)?;
    }
    let (mut answers, mut outcome) = (Vec::new(), Ok(()));
    if let (true, Some(reason)) = (redrive, why.reason) {
        let why = WhyArgs { reason, actor: why.actor, idempotency_key: None };
        outcome = redrive_all(&desk, &imported.ids, &why, (common.json, &mut answers)).await;
    }
    if common.json {
        let mut body = serde_json::to_value(ImportedBody::from(&imported))?;
        if redrive {
            body["redriven"] = Value::Array(answers);
        }
        desk::print_json(&body)?;
    }
    outcome
}

/// Has these letters redriven, as many at a time as a call takes. Each answer is told as it comes; as JSON together with all else,
/// so that it is one document.
async fn redrive_all(desk: &Desk, ids: &[i64], why: &WhyArgs, (json, answers): (bool, &mut Vec<Value>)) -> Result<()> {
    for ids in ids.chunks(MAX_BULK as usize) {
        let filter = LetterFilter { ids: Some(ids.to_vec()), ..LetterFilter::default() };
        let bulk = BulkBounds { dry_run: false, limit: MAX_BULK, expect: Some(ids.len()) };
        let answer = desk::ask(desk, &Request::RedriveByFilter(filter, bulk), why).await?;
        if !json {
            output::text(desk::in_words(&answer)?)?;
        }
        answers.push(answer);
    }
    Ok(())
}
