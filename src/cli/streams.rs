//! `streamview streams`: the stream manager from the command line. Unlike the commands that look after views it asks a running
//! service over HTTP: who may do what, what is counted and what is audited is the same as for every other caller.

mod apply;
mod client;
mod files;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::apply::Apply;
use self::client::Client;
use super::desk::{print_json, table};
use super::output;
use crate::config::Config;

/// Define, deploy and watch streaming SQL on a running service (manager.enabled = true)
///
/// Streams are kept as files, one each, in a folder under version control: `high_value_orders.sql` holds the SELECT, and above it
/// what else there is to say, in comments: `-- name: HighValueOrders`, `-- engine: flink`, `-- wanted: running` (or draft, paused,
/// stopped). Without a name it is that of the file, without an engine the default one, and it is wanted to run.
/// `orders.source.toml` declares what columns the topic of a source has.
#[derive(Debug, Args)]
pub struct StreamsArgs {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    action: Action,
}

/// Which service, and who calls.
#[derive(Debug, Args)]
struct Place {
    /// Its URL [default: http.public_url, or http.bind of the settings in force here]
    #[arg(long, global = true, env = "STREAMVIEW_API_URL")]
    url: Option<String>,
    /// An API key or a token, where callers log in; better by the variable
    #[arg(long, global = true, env = "STREAMVIEW_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// PEM file with the only authorities that are trusted [default: the platform's]
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print what the API answers, as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make what is there what the files of a folder say
    ///
    /// Says of each stream whether it was created, changed or unchanged; called again it changes nothing. All files are read before
    /// anything is done. Exit code 1 if any of them could not be applied; the others are.
    Apply {
        #[command(flatten)]
        files: Files,
        /// Only tell what would be done
        #[arg(long)]
        dry_run: bool,
        /// Change texts even if what was counted and joined so far is lost
        #[arg(long)]
        accept_state_loss: bool,
        /// Delete streams of the same owner that have no file; their topics stay
        #[arg(long)]
        prune: bool,
    },
    /// List all streams
    List,
    /// Tell what a deployment would do: of one stream, or of a folder
    Plan {
        /// Name or id
        #[arg(required_unless_present = "folder", conflicts_with = "folder")]
        stream: Option<String>,
        /// Folder with files, as for apply
        #[arg(short = 'f', long = "folder", value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Have a stream run
    Deploy {
        /// Name or id
        stream: String,
        /// Begin anew where the state cannot be kept
        #[arg(long)]
        accept_state_loss: bool,
        /// Begin anew even if it could be kept
        #[arg(long)]
        from_beginning: bool,
    },
    /// Have a stream stand still; its topic stays, and its state where the engine can keep it
    Stop {
        /// Name or id
        stream: String,
        /// Throw the state away
        #[arg(long)]
        discard_state: bool,
    },
    /// Delete a stream, and say what it leaves behind
    Delete {
        /// Name or id
        stream: String,
        /// Delete its topic too, with all records, and what was put aside beside it (.dlq, .late)
        #[arg(long)]
        delete_topic: bool,
    },
    /// Show what happened to a stream, the latest last
    Logs {
        /// Name or id
        stream: String,
        /// So many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
    },
}

/// Which files.
#[derive(Debug, Args)]
struct Files {
    /// Folder with one `.sql` file for each stream
    #[arg(short = 'f', long = "folder", value_name = "DIR")]
    folder: PathBuf,
}

/// Does what is asked.
pub async fn run(arguments: StreamsArgs, config: &Config) -> Result<()> {
    let StreamsArgs { place, action } = arguments;
    let url = place.url.clone().unwrap_or_else(|| own_url(config));
    let client = Client::new(&url, place.key.clone(), place.ca_file.as_deref())?;
    match action {
        Action::Apply { files, dry_run, accept_state_loss, prune } => {
            Apply { client: &client, dry_run, accept_state_loss, prune, json: place.json }.run(&files.folder).await
        }
        Action::Plan { folder: Some(folder), .. } => {
            let (accept_state_loss, prune) = (false, false);
            Apply { client: &client, dry_run: true, accept_state_loss, prune, json: place.json }.run(&folder).await
        }
        Action::Plan { stream, .. } => {
            let stream = find(&client, &stream.context("name a stream")?).await?;
            let plan = client.post(&format!("{}/plan", href(&stream)), &json!({})).await?.body;
            show_plan(&stream, &plan, place.json)
        }
        Action::List => list(&client, place.json).await,
        Action::Deploy { stream, accept_state_loss, from_beginning } => {
            let body = json!({ "acceptStateLoss": accept_state_loss, "fromBeginning": from_beginning });
            wanted(&client, (&stream, "deploy", &body), place.json).await
        }
        Action::Stop { stream, discard_state } => {
            wanted(&client, (&stream, "stop", &json!({ "discardState": discard_state })), place.json).await
        }
        Action::Delete { stream, delete_topic } => {
            let stream = find(&client, &stream).await?;
            let deleted = client.delete(&format!("{}?deleteTopic={delete_topic}", href(&stream))).await?.body;
            if place.json {
                return print_json(&deleted);
            }
            output::line(text(&deleted, "message"))?;
            for left in deleted["leaves"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                output::line(format_args!("  it leaves {left}"))?;
            }
            Ok(())
        }
        Action::Logs { stream, limit } => logs(&client, (&stream, limit), place.json).await,
    }
}

/// Where a service with these settings is reached.
fn own_url(config: &Config) -> String {
    match config.http.public_url.as_str() {
        "" => format!("{}://{}", config.http.tls.scheme(), config.http.bind),
        url => url.to_owned(),
    }
}

/// The stream of that name or id.
async fn find(client: &Client, stream: &str) -> Result<Value> {
    let is_id = stream.len() >= 32 && stream.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if is_id {
        return Ok(client.get(&format!("/api/streams/{stream}")).await?.body);
    }
    let all = client.all_streams().await?;
    let found = all.into_iter().find(|other| text(other, "name").eq_ignore_ascii_case(stream));
    found.with_context(|| format!("there is no stream `{stream}`; `streamview streams list` shows them"))
}

fn href(stream: &Value) -> String {
    format!("/api/streams/{}", text(stream, "id"))
}

/// A field as text; empty where there is none.
fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

async fn list(client: &Client, json: bool) -> Result<()> {
    let all = client.all_streams().await?;
    if json {
        return print_json(&json!({ "items": all }));
    }
    let row = |stream: &Value| {
        ["name", "engine", "wanted", "state", "owner", "outputTopic", "id"]
            .map(|field| text(stream, field).to_owned())
            .to_vec()
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    output::text(table(&["NAME", "ENGINE", "WANTED", "STATE", "OWNER", "TOPIC", "ID"], &rows))?;
    Ok(())
}

/// Asks that something becomes of a stream, and tells how far that is.
async fn wanted(client: &Client, (stream, what, body): (&str, &str, &Value), json: bool) -> Result<()> {
    let stream = find(client, stream).await?;
    let answer = client.post(&format!("{}/{what}", href(&stream)), body).await?.body;
    if json {
        print_json(&answer)?;
    } else {
        output::line(in_words(&answer))?;
    }
    match failure(&answer) {
        Some(why) => bail!("{}: {why}", text(&answer, "name")),
        None => Ok(()),
    }
}

/// Why a stream does not do what is wanted of it, and will not before somebody deploys it. Its `state` does not tell: what is seen
/// to have failed may be about to be begun again, or nobody wants it to run.
fn failure(stream: &Value) -> Option<String> {
    let is_to_run = ["running", "paused"].contains(&text(stream, "wanted"));
    let has_failed = stream["failedRevision"].is_number() && stream["failedRevision"] == stream["revision"];
    if !(is_to_run && has_failed) {
        return None;
    }
    let why = match text(stream, "lastError") {
        "" => "the engine does not say why",
        error => error,
    };
    let name = text(stream, "name");
    Some(format!("its text could not be brought to run: {why}; `streamview streams deploy '{name}'` tries it again"))
}

/// How a stream stands, in a line.
fn in_words(stream: &Value) -> String {
    let (name, wanted, state) = (text(stream, "name"), text(stream, "wanted"), text(stream, "state"));
    let why = match text(stream, "lastError") {
        "" => String::new(),
        error => format!(": {error}"),
    };
    let is_over = stream["isSettled"] == true || failure(stream).is_some();
    let rest = if is_over { "" } else { "; the service goes on with it" };
    format!("{name} is wanted {wanted}, and is {state}{why}{rest}")
}

/// What a deployment would do; an error if it would be refused.
fn show_plan(stream: &Value, plan: &Value, json: bool) -> Result<()> {
    if json {
        print_json(plan)?;
    } else {
        output::line(format_args!("{}: {}: {}", text(stream, "name"), text(plan, "effect"), text(plan, "reason")))?;
        for step in plan["steps"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            output::line(format_args!("  {step}"))?;
        }
    }
    let refused = client::statement_errors(&plan["refused"]);
    if !refused.is_empty() {
        bail!("{} would be refused:\n{}", text(stream, "name"), refused.join("\n"));
    }
    Ok(())
}

async fn logs(client: &Client, (stream, limit): (&str, u32), json: bool) -> Result<()> {
    let stream = find(client, stream).await?;
    let page = client.get(&format!("{}/events?pageSize={limit}", href(&stream))).await?.body;
    if json {
        return print_json(&page);
    }
    for event in page["items"].as_array().into_iter().flatten().rev() {
        let by = event["actor"].as_str().map_or_else(String::new, |actor| format!(" by {actor}"));
        let detail = event["detail"].as_str().map_or_else(String::new, |detail| format!(": {detail}"));
        output::line(format_args!("{}  {}{by}{detail}", text(event, "at"), text(event, "what")))?;
    }
    output::line(in_words(&stream))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that somebody wants so and that is seen so, whose revision 2 has failed or not.
    fn stream(wanted: &str, state: &str, failed: Option<i32>) -> Value {
        json!({
            "name": "Big", "wanted": wanted, "state": state, "revision": 2, "failedRevision": failed, "lastError": "no room",
            "isSettled": false,
        })
    }

    #[test]
    fn only_a_text_that_shall_run_and_is_given_up_makes_a_command_fail() {
        for (wanted, state, failed, is_failure) in [
            ("running", "failed", Some(2), true),
            // Nobody looks at it as failed for long, and the text before may run.
            ("running", "absent", Some(2), true),
            ("running", "running", Some(2), true),
            ("paused", "absent", Some(2), true),
            // It is begun again; what it was seen to be before it was deployed says nothing.
            ("running", "failed", None, false),
            ("running", "starting", Some(1), false),
            // It has stopped, as it was asked to.
            ("stopped", "failed", Some(2), false),
            ("draft", "failed", Some(2), false),
        ] {
            let found = failure(&stream(wanted, state, failed));
            assert_eq!(found.is_some(), is_failure, "{wanted}, {state}, {failed:?}: {found:?}");
        }
        let told = failure(&stream("running", "failed", Some(2))).unwrap();
        assert!(told.contains("no room; `streamview streams deploy 'Big'` tries it again"), "{told}");
    }

    #[test]
    fn it_is_told_whether_anybody_goes_on_with_a_stream() {
        let is_told = |stream: &Value| in_words(stream).ends_with("; the service goes on with it");
        assert!(is_told(&stream("running", "failed", None)) && is_told(&stream("stopped", "running", Some(2))));
        assert!(!is_told(&stream("running", "failed", Some(2))));
        let mut settled = stream("stopped", "failed", Some(2));
        settled["isSettled"] = json!(true);
        assert_eq!(in_words(&settled), "Big is wanted stopped, and is failed: no room");
    }
}
