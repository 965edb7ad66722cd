//! What jobs do, in the words of the contract.

use std::collections::HashMap;
use std::sync::PoisonError;

use serde::Deserialize;

use super::Inner;
use super::causes::last_cause;
use super::jobmanager::{Checkpoints, Job};
use crate::engines::{Details, Kept, Node, Observed, ObservedState, Topology, Trouble};

/// Everything that runs or ran, in one call.
pub(super) async fn observe(flink: &Inner) -> Result<Vec<Observed>, Trouble> {
    let jobs = flink.jobmanager.jobs().await?;
    let mut failing = flink.failing.lock().unwrap_or_else(PoisonError::into_inner);
    failing.retain(|job_id| jobs.iter().any(|job| job.jid == *job_id && !job.is_over()));
    let observed = jobs.into_iter().map(|job| Observed {
        state: match state(&job) {
            ObservedState::Running if failing.contains(&job.jid) => ObservedState::Degraded,
            state => state,
        },
        job_id: job.jid,
        name: job.name,
        topics: Vec::new(),
        engine_state: job.state,
        statement: None,
    });
    Ok(observed.collect())
}

/// | Flink | ours |
/// |---|---|
/// | INITIALIZING, CREATED, RECONCILING, RUNNING with tasks that do not run | Starting |
/// | RUNNING with all tasks | Running; Degraded when its last checkpoint was seen to have failed |
/// | RESTARTING; also a job that finds no slot | Restarting |
/// | FAILING, CANCELLING | Stopping |
/// | FINISHED, CANCELED, SUSPENDED | Stopped |
/// | FAILED | Failed |
///
/// Whether a FINISHED job was stopped by us or has ended by itself is known to who asked for the stop.
pub(super) fn state(job: &Job) -> ObservedState {
    match job.state.as_str() {
        "RUNNING" if job.is_running() => ObservedState::Running,
        "RUNNING" | "INITIALIZING" | "CREATED" | "RECONCILING" => ObservedState::Starting,
        "RESTARTING" => ObservedState::Restarting,
        "FAILING" | "CANCELLING" => ObservedState::Stopping,
        "FINISHED" | "CANCELED" | "SUSPENDED" => ObservedState::Stopped,
        "FAILED" => ObservedState::Failed,
        _ => ObservedState::Unknown,
    }
}

/// Where a job keeps its state. What is seen here shows at the next look at all.
pub(super) async fn checkpoint(flink: &Inner, job_id: &str) -> Result<Kept, Trouble> {
    let checkpoints = flink.jobmanager.checkpoints(job_id).await?;
    note(flink, job_id, &checkpoints);
    Ok(Kept { points: checkpoints.kept(), is_failing: checkpoints.is_failing() })
}

fn note(flink: &Inner, job_id: &str, checkpoints: &Checkpoints) {
    let mut failing = flink.failing.lock().unwrap_or_else(PoisonError::into_inner);
    if checkpoints.is_failing() {
        failing.insert(job_id.to_owned());
    } else {
        failing.remove(job_id);
    }
}

#[derive(Deserialize)]
struct About {
    name: String,
    plan: Plan,
}

#[derive(Deserialize)]
struct Plan {
    #[serde(default)]
    nodes: Vec<PlanNode>,
}

#[derive(Deserialize)]
struct PlanNode {
    id: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    id: String,
}

/// More about one of them.
pub(super) async fn details(flink: &Inner, job_id: &str) -> Result<Details, Trouble> {
    let about: About = flink.jobmanager.about(job_id, "").await?;
    let failures = flink.jobmanager.failures(job_id).await?;
    let checkpoints = flink.jobmanager.checkpoints(job_id).await?;
    note(flink, job_id, &checkpoints);
    let records_per_second = records_per_second(flink, job_id, &about.plan).await?;
    let mut failure = failures.first().map(|failure| last_cause(&failure.stacktrace));
    if failure.is_none() && checkpoints.is_failing() {
        failure =
            Some(format!("{} of its checkpoints have failed, the last one among them", checkpoints.counts.failed));
    }
    Ok(Details {
        failure,
        group: group(&about.name),
        latest_checkpoint: checkpoints.last(),
        records_per_second,
        topology: topology(about.plan),
    })
}

/// The consumer group of a job by its name, `sv-<slug>-<tag>-r<revision>-a<attempt>`.
fn group(job_name: &str) -> Option<String> {
    let parts: Vec<&str> = job_name.split('-').collect();
    match parts.as_slice() {
        ["sv", .., tag, _, _] if parts.len() >= 5 => Some(format!("sv-{tag}")),
        _ => None,
    }
}

/// What its writers take in, each second.
async fn records_per_second(flink: &Inner, job_id: &str, plan: &Plan) -> Result<Option<u64>, Trouble> {
    #[derive(Deserialize)]
    struct Metric {
        id: String,
        #[serde(default)]
        sum: Option<f64>,
    }
    let mut total = None;
    for node in &plan.nodes {
        if !node.description.contains("Writer") {
            continue;
        }
        let path = format!("/vertices/{}/subtasks/metrics", node.id);
        let metrics: Vec<Metric> = flink.jobmanager.about(job_id, &path).await?;
        let writers = metrics.iter().filter(|metric| metric.id.ends_with("Writer.numRecordsInPerSecond"));
        let wanted: Vec<&str> = writers.map(|metric| metric.id.as_str()).collect();
        if wanted.is_empty() {
            continue;
        }
        let path = format!("{path}?get={}&agg=sum", wanted.join(",").replace('[', "%5B").replace(']', "%5D"));
        let metrics: Vec<Metric> = flink.jobmanager.about(job_id, &path).await?;
        let sum: f64 = metrics.iter().filter_map(|metric| metric.sum).sum();
        // A rate: what stands behind the point does not matter, and it is never negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rounded = sum.max(0.0).round() as u64;
        total = Some(total.unwrap_or(0) + rounded);
    }
    Ok(total)
}

/// The operators behind each other: a node of Flink's plan is a chain of them, one a line.
fn topology(plan: Plan) -> Topology {
    let mut topology = Topology::default();
    let mut ends: HashMap<String, (String, String)> = HashMap::new();
    for node in &plan.nodes {
        let mut previous: Option<String> = None;
        let mut first = String::new();
        for (place, line) in node.description.split("<br/>").filter(|line| !line.trim().is_empty()).enumerate() {
            let id = format!("{}-{place}", node.id);
            let label = line.trim_start_matches([' ', '+', '-', ':']).to_owned();
            topology.nodes.push(Node { id: id.clone(), label });
            match previous.replace(id.clone()) {
                Some(before) => topology.edges.push((before, id)),
                None => first = id,
            }
        }
        if let Some(last) = previous {
            ends.insert(node.id.clone(), (first, last));
        }
    }
    for node in &plan.nodes {
        for input in &node.inputs {
            if let (Some((_, from)), Some((to, _))) = (ends.get(&input.id), ends.get(&node.id)) {
                topology.edges.push((from.clone(), to.clone()));
            }
        }
    }
    topology
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engines::flink::jobmanager::Tasks;

    #[test]
    fn running_needs_all_tasks() {
        let job = |state: &str, running, total| Job {
            jid: String::new(),
            name: String::new(),
            state: state.to_owned(),
            start_time: 0,
            tasks: Tasks { total, running, scheduled: total - running },
        };
        assert_eq!(state(&job("RUNNING", 2, 2)), ObservedState::Running);
        assert_eq!(state(&job("RUNNING", 1, 2)), ObservedState::Starting);
        assert_eq!(state(&job("RUNNING", 0, 0)), ObservedState::Starting);
        assert_eq!(state(&job("FAILED", 0, 2)), ObservedState::Failed);
    }

    #[test]
    fn the_group_stands_in_the_name() {
        assert_eq!(group("sv-high_value-0123abcd-r3-a12").as_deref(), Some("sv-0123abcd"));
        assert_eq!(group("insert-into_x"), None);
    }

    #[test]
    fn chains_are_taken_apart_and_joined() {
        let json = r#"{"nodes": [{"id": "b", "description": "Aggregate<br/>+- Sink<br/>", "inputs": [{"id": "a"}]},
                                 {"id": "a", "description": "Source<br/>+- Calc<br/>"}]}"#;
        let topology = topology(serde_json::from_str(json).unwrap());
        let labels: Vec<&str> = topology.nodes.iter().map(|node| node.label.as_str()).collect();
        assert_eq!(labels, ["Aggregate", "Sink", "Source", "Calc"]);
        let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(topology.edges, [edge("b-0", "b-1"), edge("a-0", "a-1"), edge("a-1", "b-0")]);
    }
}
