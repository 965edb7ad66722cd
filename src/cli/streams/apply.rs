//! `streams apply`: makes what is there what the files say, and tells of each what it did. Called again it does nothing.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::client::{Client, Seen, statement_errors};
use super::files::{self, SourceFile, StreamFile, Wanted};
use super::{failure, href, in_words, text};
use crate::cli::desk::print_json;
use crate::cli::output;

/// How it is applied.
pub(super) struct Apply<'a> {
    pub(super) client: &'a Client,
    pub(super) dry_run: bool,
    pub(super) accept_state_loss: bool,
    pub(super) prune: bool,
    pub(super) json: bool,
}

/// What became of one file, or of a stream without one.
struct Done {
    kind: &'static str,
    name: String,
    /// `created`, `changed`, `unchanged`, `deleted` or `failed`; of a dry run what it would be.
    outcome: &'static str,
    detail: String,
    owner: Option<String>,
}

impl Done {
    fn new((kind, name): (&'static str, &str), outcome: &'static str, detail: impl Into<String>) -> Done {
        Done { kind, name: name.to_owned(), outcome, detail: detail.into(), owner: None }
    }
}

impl Apply<'_> {
    /// Applies a folder: sources first, as streams select from them.
    pub(super) async fn run(&self, folder: &Path) -> Result<()> {
        let folder = files::read(folder)?;
        let streams = self.client.all_streams().await?;
        let mut all = Vec::new();
        let declared = match folder.sources.is_empty() {
            true => Value::Null,
            false => self.client.get("/api/catalog").await?.body,
        };
        for file in &folder.sources {
            let done = self.source(file, &declared).await;
            self.tell(&mut all, ("source", &file.name), done)?;
        }
        // A dry run declares nothing: what selects from these cannot be judged yet.
        let is_new = |done: &&Done| self.dry_run && done.outcome == "created";
        let to_come: Vec<String> = all.iter().filter(is_new).map(|done| done.name.clone()).collect();
        for file in &folder.streams {
            let found = streams.iter().find(|stream| text(stream, "name").eq_ignore_ascii_case(&file.name));
            let done = match found {
                None => self.create(file, &to_come).await,
                Some(found) => self.change(file, found, &to_come).await,
            };
            self.tell(&mut all, ("stream", &file.name), done)?;
        }
        let pruned = match self.prune {
            true => self.prune(&folder.streams, &streams, &mut all).await,
            false => Ok(()),
        };
        if self.json {
            let item = |done: &Done| json!({ "kind": done.kind, "name": done.name, "outcome": done.outcome, "detail": done.detail });
            print_json(&json!({ "dryRun": self.dry_run, "items": all.iter().map(item).collect::<Vec<_>>() }))?;
        }
        pruned?;
        let failed = all.iter().filter(|done| done.outcome == "failed").count();
        ensure!(failed == 0, "{failed} of {} could not be applied", all.len());
        Ok(())
    }

    /// Prints what was done as soon as it is.
    fn tell(&self, all: &mut Vec<Done>, what: (&'static str, &str), done: Result<Done>) -> Result<()> {
        let done = done.unwrap_or_else(|error| Done::new(what, "failed", format!("{error:#}")));
        if !self.json {
            let (would, separator) =
                (if self.dry_run { "would be " } else { "" }, if done.detail.is_empty() { "" } else { ": " });
            let would = if matches!(done.outcome, "failed" | "unchanged") { "" } else { would };
            output::line(format_args!(
                "{} {} {would}{}{separator}{}",
                done.kind, done.name, done.outcome, done.detail
            ))?;
        }
        all.push(done);
        Ok(())
    }

    async fn source(&self, file: &SourceFile, catalog: &Value) -> Result<Done> {
        let what = ("source", file.name.as_str());
        let is_ours = |entry: &&Value| {
            text(entry, "name").eq_ignore_ascii_case(&file.name) && text(entry, "origin") == "declared"
        };
        let found = catalog["items"].as_array().into_iter().flatten().find(is_ours);
        let fields = ["name", "topic", "format", "columns", "eventTime", "table"];
        let is_same = |one: &Value, other: &Value| fields.iter().all(|field| one[*field] == other[*field]);
        let mut wanted = file.body.clone();
        wanted["name"] = json!(file.name);
        let outcome = match found {
            Some(found) if is_same(found, &wanted) => return Ok(Done::new(what, "unchanged", "")),
            Some(_) => "changed",
            None => "created",
        };
        if !self.dry_run {
            let path = format!("/api/catalog/{}", file.name);
            // As a stream: what was listed may be old by now.
            match found {
                None => drop(self.client.put(&path, &file.body, Seen::Nothing).await?),
                Some(found) => {
                    let read = self.client.get(&path).await?;
                    ensure!(is_same(&read.body, found), "somebody has changed it meanwhile: apply again");
                    let seen = read.etag.as_deref().map_or(Seen::Anything, Seen::Tag);
                    self.client.put(&path, &file.body, seen).await?;
                }
            }
        }
        Ok(Done::new(what, outcome, format!("topic {}", text(&file.body, "topic"))))
    }

    async fn create(&self, file: &StreamFile, to_come: &[String]) -> Result<Done> {
        let what = ("stream", file.name.as_str());
        let mut body = json!({ "name": file.name, "sqlScript": file.sql });
        if let Some(engine) = &file.engine {
            body["engine"] = json!(engine);
        }
        if self.dry_run {
            let mut statement = json!({ "kind": "persistent", "sqlScript": file.sql });
            if let Some(engine) = &file.engine {
                statement["engine"] = json!(engine);
            }
            let found = self.client.post("/api/validate", &statement).await?.body;
            if waits_for(&found["errors"], to_come) {
                return Ok(Done::new(what, "created", format!("then {}, {JUDGED_LATER}", file.wanted.word())));
            }
            let errors = statement_errors(&found["errors"]);
            ensure!(errors.is_empty(), "the statement would be refused\n{}", errors.join("\n"));
            return Ok(Done::new(what, "created", format!("then {}", file.wanted.word())));
        }
        let made = self.client.post("/api/streams", &body).await?.body;
        let stands = self.want(file.wanted, &made).await?;
        Ok(judged(file, &stands, "created", in_words(&stands)))
    }

    async fn change(&self, file: &StreamFile, found: &Value, to_come: &[String]) -> Result<Done> {
        let what = ("stream", file.name.as_str());
        if let Some(engine) = file.engine.as_deref().filter(|engine| *engine != text(found, "engine")) {
            bail!(
                "it runs on {}, and an engine is for good: delete it first, or give the file for {engine} another name",
                text(found, "engine")
            );
        }
        let (is_same_text, is_same_name) = (text(found, "sqlScript") == file.sql, text(found, "name") == file.name);
        let is_as_wanted = steps(file.wanted, text(found, "wanted")).is_empty();
        let owner = Some(text(found, "owner").to_owned());
        if is_same_text && is_same_name && is_as_wanted {
            return Ok(judged(file, found, "unchanged", String::new()));
        }
        if self.dry_run {
            let plan =
                self.client.post(&format!("{}/plan", href(found)), &json!({ "sqlScript": file.sql })).await?.body;
            if waits_for(&plan["refused"], to_come) {
                return Ok(Done { owner, ..Done::new(what, "changed", JUDGED_LATER) });
            }
            let refused = statement_errors(&plan["refused"]);
            ensure!(refused.is_empty(), "the statement would be refused\n{}", refused.join("\n"));
            let detail = match is_same_text {
                true => format!("{}, which is {} now", file.wanted.word(), text(found, "wanted")),
                false => format!("{}: {}", text(&plan, "effect"), text(&plan, "reason")),
            };
            return Ok(Done { owner, ..Done::new(what, "changed", detail) });
        }
        let mut stands = found.clone();
        if !is_same_text || !is_same_name {
            // What was listed may be old by now: it is changed as it was read, or not at all.
            let read = self.client.get(&href(found)).await?;
            ensure!(
                text(&read.body, "sqlScript") == text(found, "sqlScript"),
                "somebody has changed it meanwhile: apply again"
            );
            let body = json!({ "name": file.name, "sqlScript": file.sql, "acceptStateLoss": self.accept_state_loss });
            let seen = read.etag.as_deref().map_or(Seen::Anything, Seen::Tag);
            stands = self.client.put(&href(found), &body, seen).await?.body;
        }
        let stands = self.want(file.wanted, &stands).await?;
        Ok(judged(file, &stands, "changed", in_words(&stands)))
    }

    /// Asks for what the file wants, if that is not so already.
    async fn want(&self, wanted: Wanted, stream: &Value) -> Result<Value> {
        let steps = steps(wanted, text(stream, "wanted"));
        let mut stands = stream.clone();
        for step in steps {
            let body = match *step {
                "deploy" => json!({ "acceptStateLoss": self.accept_state_loss }),
                _ => json!({}),
            };
            stands = self.client.post(&format!("{}/{step}", href(stream)), &body).await?.body;
        }
        Ok(stands)
    }

    /// Deletes streams that have no file, of the one owner whose streams the files are.
    async fn prune(&self, files: &[StreamFile], streams: &[Value], all: &mut Vec<Done>) -> Result<()> {
        let mut owners: Vec<String> = all.iter().filter_map(|done| done.owner.clone()).collect();
        owners.sort();
        owners.dedup();
        let [owner] = owners.as_slice() else {
            bail!(
                "--prune deletes streams of the owner of those that have files, and these have {} owners: nothing was deleted",
                owners.len()
            );
        };
        let has_file = |stream: &Value| files.iter().any(|file| text(stream, "name").eq_ignore_ascii_case(&file.name));
        for stream in streams.iter().filter(|stream| text(stream, "owner") == owner && !has_file(stream)) {
            let what = ("stream", text(stream, "name"));
            let done = match self.dry_run {
                true => Ok(Done::new(what, "deleted", "its topic stays")),
                false => self
                    .client
                    .delete(&href(stream))
                    .await
                    .map(|answer| Done::new(what, "deleted", leaves(&answer.body))),
            };
            self.tell(all, what, done)?;
        }
        Ok(())
    }
}

/// What became of a stream; `failed` where its text could not be brought to run, be everything else as its file says: nobody tries
/// that again unasked. Of a draft nobody wants it.
fn judged(file: &StreamFile, stands: &Value, outcome: &'static str, detail: String) -> Done {
    let (outcome, detail) = match failure(stands).filter(|_| file.wanted != Wanted::Draft) {
        Some(why) => ("failed", why),
        None => (outcome, detail),
    };
    let owner = Some(text(stands, "owner").to_owned());
    Done { owner, ..Done::new(("stream", &file.name), outcome, detail) }
}

/// What has to be asked of a stream that is wanted as `now` says. A draft is left as it is, whatever it does.
fn steps(wanted: Wanted, now: &str) -> &'static [&'static str] {
    match (wanted, now) {
        (Wanted::Draft, _) | (Wanted::Stopped, "draft") => &[],
        (wanted, now) if wanted.word() == now => &[],
        (Wanted::Running, "paused") => &["resume"],
        (Wanted::Running, _) => &["deploy"],
        (Wanted::Paused, "running") => &["pause"],
        (Wanted::Paused, _) => &["deploy", "pause"],
        (Wanted::Stopped, _) => &["stop"],
    }
}

/// Of a statement whose sources are not declared before the folder is applied.
const JUDGED_LATER: &str = "judged once its sources are declared";

/// Whether all that is wrong with a statement is that it selects from sources that the folder declares.
fn waits_for(errors: &Value, to_come: &[String]) -> bool {
    let is_one = |error: &Value| {
        let name = text(error, "message").split('`').nth(1).unwrap_or_default();
        text(error, "code") == "unknown_source" && to_come.iter().any(|source| source.eq_ignore_ascii_case(name))
    };
    errors.as_array().is_some_and(|errors| !errors.is_empty() && errors.iter().all(is_one))
}

fn leaves(deleted: &Value) -> String {
    let leaves: Vec<&str> = deleted["leaves"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if leaves.is_empty() { String::new() } else { format!("it leaves {}", leaves.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_it_is_wanted_is_asked_nothing() {
        for wanted in [Wanted::Running, Wanted::Paused, Wanted::Stopped] {
            assert!(steps(wanted, wanted.word()).is_empty());
            for now in ["draft", "running", "paused", "stopped"] {
                let is_so = wanted.word() == now || (wanted, now) == (Wanted::Stopped, "draft");
                assert_eq!(steps(wanted, now).is_empty(), is_so, "{wanted:?} {now}");
                assert!(steps(Wanted::Draft, now).is_empty());
            }
        }
    }
}
