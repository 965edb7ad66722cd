//! Rounds of the same backlog, each run into an empty database: alone with the ceilings right after it, and with requests
//! that wait or clients that follow. They take turns in going first.

use anyhow::{Context, Result};

use crate::arguments::{Arguments, Phase};
use crate::backlog::{self, Backlog, Task};
use crate::ceilings;
use crate::fleet::{BACKLOG_TOPIC, Fleet, PARTITIONS, Service};
use crate::following::{self, MIXES, Mix};
use crate::load;
use crate::publish;
use crate::report::Report;
use crate::waiting::{Pair, WAITERS};
use crate::workload::{Expected, Shape, Workload};

/// Runs them all; leaves the last plain run's service and database.
pub async fn run(fleet: &Fleet, arguments: &Arguments, report: &mut Report) -> Result<(Service, String)> {
    let workload = Workload::plain(arguments.orders());
    let encode = publish::json(Shape { ids: arguments.ids, ..Shape::default() });
    publish::fill_with(fleet, (BACKLOG_TOPIC, PARTITIONS), workload.events(), encode).await?;
    let expected = Expected::of(workload);
    let sql = arguments.sql.as_deref();
    let rounds = arguments.rounds();
    let mut left = None;
    for number in 1..=rounds {
        let plain = Task { sql, ..Task::new(&format!("bench_{number}"), BACKLOG_TOPIC, &expected) };
        let busy = Task { sql, waiters: WAITERS, ..Task::new("bench_waiting", BACKLOG_TOPIC, &expected) };
        // The last run of all is a plain one: the phases after it need its rows.
        let (waits_first, is_last) = ((rounds - number).is_multiple_of(2), number == rounds);
        let waits = arguments.runs(Phase::Waiting);
        let mut with = None;
        if waits && waits_first {
            with = Some(backlog::run_and_discard(fleet, &busy).await?);
        }
        let mut followed = Vec::new();
        if waits_first {
            followed = with_followers(fleet, arguments, &plain).await?;
        }
        let (without, mut services) = backlog::run(fleet, &plain).await?;
        if arguments.runs(Phase::Ceilings) {
            report.ceilings.push((without.clone(), ceilings::copy(fleet, &plain.database).await?));
        }
        if is_last {
            left = services.pop().map(|service| (service, plain.database.clone()));
        } else {
            fleet.discard(services, &plain.database).await?;
        }
        if waits && !waits_first {
            with = Some(backlog::run_and_discard(fleet, &busy).await?);
        }
        if !waits_first {
            followed = with_followers(fleet, arguments, &plain).await?;
        }
        if arguments.runs(Phase::Load) {
            report.loads.push(load::run(fleet, without.clone(), BACKLOG_TOPIC, &expected).await?);
        }
        report.waiting.extend(with.map(|with| Pair { without: without.clone(), with }));
        let pair = |(mix, with)| following::Pair { mix, without: without.clone(), with };
        report.following.extend(followed.into_iter().map(pair));
        report.backlogs.push(without);
    }
    left.context("no backlog run")
}

/// The same backlog while clients follow, once for each mix of them.
async fn with_followers(fleet: &Fleet, arguments: &Arguments, plain: &Task<'_>) -> Result<Vec<(Mix, Backlog)>> {
    let mut with = Vec::new();
    if arguments.runs(Phase::Following) {
        for mix in MIXES {
            let task = Task { database: "bench_following".to_owned(), followers: mix, ..plain.clone() };
            with.push((mix, backlog::run_and_discard(fleet, &task).await?));
        }
    }
    Ok(with)
}
