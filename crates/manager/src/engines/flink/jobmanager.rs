//! The JobManager: jobs, their failures, checkpoints and savepoints. It knows no SQL.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::causes;
use super::http::{Answer, NoAnswer, Server};
use crate::engines::{RestorePoint, Trouble};

const PATIENCE: Duration = Duration::from_secs(10);

/// The JobManager.
#[derive(Debug, Clone)]
pub(super) struct JobManager {
    /// How it is asked.
    pub server: Server,
}

/// The cluster.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Cluster {
    /// Slots of all TaskManagers.
    pub slots_total: u32,
    /// Those that no job has.
    pub slots_available: u32,
    /// The version.
    pub flink_version: String,
}

/// A job among all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Job {
    /// Its id.
    pub jid: String,
    /// Its name.
    pub name: String,
    /// `RUNNING` and so on.
    pub state: String,
    /// When it began, in milliseconds since 1970.
    #[serde(rename = "start-time")]
    pub start_time: i64,
    /// Its tasks by what they do.
    pub tasks: Tasks,
}

/// Tasks by what they do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Tasks {
    /// All.
    pub total: u32,
    /// Those that run.
    pub running: u32,
    /// Those that wait for a slot.
    pub scheduled: u32,
}

impl Job {
    /// Whether it has come to an end.
    pub fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "FINISHED" | "CANCELED" | "FAILED")
    }

    /// Whether all its tasks run.
    pub fn is_running(&self) -> bool {
        self.state == "RUNNING" && self.tasks.running == self.tasks.total && self.tasks.total > 0
    }
}

/// A failure of a job, the latest first.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Failure {
    /// Its stack trace.
    pub stacktrace: String,
}

/// What is known of a job's checkpoints.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Checkpoints {
    /// How many.
    #[serde(default)]
    pub counts: Counts,
    latest: Option<Latest>,
    /// The latest ones, be they complete or not, the latest first.
    #[serde(default)]
    history: Vec<Checkpoint>,
}

/// How many checkpoints.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Counts {
    /// That are complete.
    pub completed: u64,
    /// That have failed.
    pub failed: u64,
}

#[derive(Debug, Clone, Deserialize)]
struct Latest {
    completed: Option<Checkpoint>,
    failed: Option<Checkpoint>,
    restored: Option<Checkpoint>,
}

#[derive(Debug, Clone, Deserialize)]
struct Checkpoint {
    id: u64,
    external_path: Option<String>,
    #[serde(default)]
    is_savepoint: bool,
    #[serde(default)]
    discarded: bool,
}

impl Checkpoint {
    fn point(&self) -> Option<RestorePoint> {
        let path = self.external_path.clone().filter(|path| path.contains('/'))?;
        Some(RestorePoint { path, savepoint: self.is_savepoint })
    }
}

impl Checkpoints {
    /// Where the last complete one lies, or what the job began with.
    pub fn last(&self) -> Option<RestorePoint> {
        self.kept().into_iter().next()
    }

    /// Those that lie somewhere, the latest first, and at last what the job began with.
    pub fn kept(&self) -> Vec<RestorePoint> {
        let mut points = self.own();
        let restored = self.latest.as_ref().and_then(|latest| latest.restored.as_ref());
        points.extend(restored.and_then(Checkpoint::point).filter(|point| !points.contains(point)));
        points
    }

    /// Those of the job itself, savepoints that somebody asked for left out.
    pub fn own(&self) -> Vec<RestorePoint> {
        // The latest one may have left the history, which has no room for more than ten that have failed.
        let latest = self.latest.as_ref().and_then(|latest| latest.completed.as_ref());
        let mut all: Vec<&Checkpoint> = latest.into_iter().chain(&self.history).collect();
        all.retain(|checkpoint| !checkpoint.discarded && !checkpoint.is_savepoint);
        all.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.id));
        let mut points: Vec<RestorePoint> = all.into_iter().filter_map(Checkpoint::point).collect();
        points.dedup();
        points
    }

    /// Whether the last one that came to an end has failed.
    pub fn is_failing(&self) -> bool {
        let Some(latest) = &self.latest else { return false };
        let id = |checkpoint: &Option<Checkpoint>| checkpoint.as_ref().map(|found| found.id);
        id(&latest.failed) > id(&latest.completed)
    }
}

/// How a savepoint, or its disposal, is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nobody has asked for it, or the JobManager is younger.
    Unasked,
    /// Under way.
    UnderWay,
    /// Done; a savepoint lies here.
    Done(Option<String>),
    /// It did not come about, with the stack trace.
    Failed(String),
}

impl JobManager {
    /// The cluster.
    pub async fn cluster(&self) -> Result<Cluster, Trouble> {
        self.read("/overview").await
    }

    /// All jobs that it knows.
    pub async fn jobs(&self) -> Result<Vec<Job>, Trouble> {
        #[derive(Deserialize)]
        struct Overview {
            jobs: Vec<Job>,
        }
        let overview: Overview = self.read("/jobs/overview").await?;
        Ok(overview.jobs)
    }

    /// One of them. The overview is current; what is told of one job alone may be three seconds old.
    pub async fn job(&self, job_id: &str) -> Result<Option<Job>, Trouble> {
        Ok(self.jobs().await?.into_iter().find(|job| job.jid == job_id))
    }

    /// Its failures, the latest first.
    pub async fn failures(&self, job_id: &str) -> Result<Vec<Failure>, Trouble> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Exceptions {
            exception_history: History,
        }
        #[derive(Deserialize)]
        struct History {
            entries: Vec<Failure>,
        }
        let exceptions: Exceptions = self.read(&format!("/jobs/{job_id}/exceptions")).await?;
        Ok(exceptions.exception_history.entries)
    }

    /// Its checkpoints.
    pub async fn checkpoints(&self, job_id: &str) -> Result<Checkpoints, Trouble> {
        self.read(&format!("/jobs/{job_id}/checkpoints")).await
    }

    /// Anything else about it.
    pub async fn about<T: DeserializeOwned>(&self, job_id: &str, rest: &str) -> Result<T, Trouble> {
        self.read(&format!("/jobs/{job_id}{rest}")).await
    }

    /// Asks for its end. That it is over already, or not known, is fine.
    pub async fn cancel(&self, job_id: &str) -> Result<(), Trouble> {
        let path = format!("/jobs/{job_id}?mode=cancel");
        let answer = self.server.call(Method::PATCH, &path, None, PATIENCE).await.map_err(NoAnswer::writing)?;
        let is_over = answer.body.contains("already reached another terminal state");
        if answer.is_success() || is_unknown(&answer) || is_over { Ok(()) } else { Err(unexpected(&answer)) }
    }

    /// Asks for its end with a savepoint. The same `trigger` again asks for the same savepoint.
    pub async fn stop(&self, job_id: &str, trigger: &str, directory: &str, drain: bool) -> Result<(), Trouble> {
        let mut body = json!({"triggerId": trigger, "drain": drain});
        if !directory.is_empty() {
            body["targetDirectory"] = Value::from(directory);
        }
        let path = format!("/jobs/{job_id}/stop");
        let answer = self.server.call(Method::POST, &path, Some(&body), PATIENCE).await.map_err(NoAnswer::writing)?;
        // What went wrong with the savepoint is told by asking for it; 404 is a job that is gone.
        if answer.is_success() || is_unknown(&answer) { Ok(()) } else { Err(unexpected(&answer)) }
    }

    /// How that savepoint is doing.
    pub async fn savepoint(&self, job_id: &str, trigger: &str) -> Result<Progress, Trouble> {
        self.progress(&format!("/jobs/{job_id}/savepoints/{trigger}")).await
    }

    /// Asks that a savepoint or checkpoint be deleted; gives what its progress is asked by.
    pub async fn dispose(&self, path: &str) -> Result<String, Trouble> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Asked {
            request_id: String,
        }
        let body = json!({"savepoint-path": path});
        let answer = self.server.call(Method::POST, "/savepoint-disposal", Some(&body), PATIENCE).await;
        let answer = answer.map_err(NoAnswer::reading)?;
        if !answer.is_success() {
            return Err(unexpected(&answer));
        }
        let asked: Asked = answer.read(self.server.name).map_err(NoAnswer::reading)?;
        Ok(asked.request_id)
    }

    /// How that is doing.
    pub async fn disposal(&self, request: &str) -> Result<Progress, Trouble> {
        self.progress(&format!("/savepoint-disposal/{request}")).await
    }

    async fn progress(&self, path: &str) -> Result<Progress, Trouble> {
        #[derive(Deserialize)]
        struct Asked {
            status: Status,
            operation: Option<Operation>,
        }
        #[derive(Deserialize)]
        struct Status {
            id: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Operation {
            location: Option<String>,
            failure_cause: Option<Cause>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Cause {
            stack_trace: String,
        }
        let answer = self.server.get(path, PATIENCE).await.map_err(NoAnswer::reading)?;
        if answer.status == 404 {
            return Ok(Progress::Unasked);
        }
        if !answer.is_success() {
            return Err(unexpected(&answer));
        }
        let asked: Asked = answer.read(self.server.name).map_err(NoAnswer::reading)?;
        let (location, cause) = asked.operation.map_or((None, None), |done| (done.location, done.failure_cause));
        Ok(match (asked.status.id.as_str(), cause) {
            ("COMPLETED", Some(cause)) => Progress::Failed(cause.stack_trace),
            ("COMPLETED", None) => Progress::Done(location),
            _ => Progress::UnderWay,
        })
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        let answer = self.server.get(path, PATIENCE).await.map_err(NoAnswer::reading)?;
        if !answer.is_success() {
            return Err(unexpected(&answer));
        }
        answer.read(self.server.name).map_err(NoAnswer::reading)
    }
}

/// Whether it says that it knows no such job: 404, or 500 with the words.
fn is_unknown(answer: &Answer) -> bool {
    answer.status == 404 || answer.body.contains("Could not find Flink job")
}

fn unexpected(answer: &Answer) -> Trouble {
    Trouble::Unavailable(format!("Flink's JobManager says: {}", causes::last_cause(&answer.complaint())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_told_the_latest_first_and_what_is_discarded_is_not() {
        let checkpoints: Checkpoints = serde_json::from_value(json!({
            "counts": {"completed": 4, "failed": 1},
            "latest": {
                "completed": {"id": 4, "external_path": "file:/c/chk-4"},
                "savepoint": {"id": 3, "external_path": "file:/s/3", "is_savepoint": true},
                "failed": {"id": 5},
                "restored": {"id": 1, "external_path": "file:/s/1", "is_savepoint": true}
            },
            "history": [
                {"id": 5},
                {"id": 4, "external_path": "file:/c/chk-4"},
                {"id": 3, "external_path": "file:/s/3", "is_savepoint": true},
                {"id": 2, "external_path": "file:/c/chk-2"},
                {"id": 1, "external_path": "file:/c/chk-1", "discarded": true}
            ]
        }))
        .unwrap();
        let paths = |points: Vec<RestorePoint>| points.into_iter().map(|point| point.path).collect::<Vec<_>>();
        assert_eq!(paths(checkpoints.kept()), ["file:/c/chk-4", "file:/c/chk-2", "file:/s/1"]);
        // What it began with is not its own to delete.
        assert_eq!(paths(checkpoints.own()), ["file:/c/chk-4", "file:/c/chk-2"]);
        assert!(checkpoints.is_failing());
    }
}
