//! What Flink's three processes leave behind when each of them is killed: a real Flink, killed for real.

use std::collections::BTreeSet;
use std::sync::Arc;

use streamview::manager::engines::{Changes, Deployment, End, Engine, Item, ObservedState, RestorePoint, Trouble};
use streamview_lab::servers::{FlinkCluster, FlinkProcess};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::bench::{Stand, next};
use crate::support::flink::{bench_of, engine, own, settings, until_empty};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const ALL: &str = "SELECT order_id, customer FROM orders";

async fn stand(cluster: &FlinkCluster) -> Stand {
    let world = World::new(1).await;
    let bench = bench_of(engine(settings(cluster, &world.kafka)));
    Stand::new(bench, world).await
}

fn restart(cluster: &mut FlinkCluster, process: FlinkProcess) {
    // Blocking: of another thread than those of the runtime.
    tokio::task::block_in_place(|| cluster.restart(process).unwrap());
}

/// One after the other: they share a cluster, and tests that waited for it would keep others from running.
#[tokio::test(flavor = "multi_thread")]
async fn whichever_of_its_processes_is_killed_flink_makes_no_second_job_and_loses_no_row() {
    let mut cluster = own(2);
    println!("without a slot");
    a_job_without_a_slot_says_so_and_runs_when_there_is_one(&mut cluster).await;
    until_empty(&cluster).await;
    println!("a gateway, after the insert");
    a_gateway_killed_right_after_the_insert_makes_no_second_job(&mut cluster).await;
    until_empty(&cluster).await;
    println!("a gateway, amid a query");
    a_query_whose_gateway_is_killed_is_interrupted_and_its_job_ends(&mut cluster).await;
    until_empty(&cluster).await;
    println!("a TaskManager");
    a_job_goes_on_when_its_task_manager_is_killed_and_comes_back(&mut cluster).await;
    until_empty(&cluster).await;
    println!("a JobManager");
    a_job_that_its_job_manager_forgot_goes_on_from_its_last_checkpoint(&mut cluster).await;
}

async fn until_state(stand: &Stand, job_id: &str, wanted: ObservedState) {
    until(&format!("the job is {wanted:?}"), PATIENCE * 2, || async {
        // As the reconciler does: that checkpoints fail, or do no more, is only seen when they are asked for.
        stand.engine().checkpoint(job_id).await.ok();
        let observed = stand.engine().observe().await.ok()?;
        let state = observed.iter().find(|each| each.job_id == job_id).map_or(ObservedState::Absent, |each| each.state);
        (state == wanted).then_some(())
    })
    .await;
}

/// A proxy in front of the gateway that passes everything on, tells of the first request to a path with `INSERT` in its body,
/// and then answers nothing any more.
async fn silent_after_the_insert(gateway: &str) -> (String, Arc<Notify>) {
    let upstream = gateway.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sent = Arc::new(Notify::new());
    let tell = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (upstream, tell) = (upstream.clone(), Arc::clone(&tell));
            // A client that goes away in the middle is its own affair.
            tokio::spawn(async move { pass(client, &upstream, &tell).await.ok() });
        }
    });
    (url, sent)
}

async fn pass(mut client: TcpStream, upstream: &str, sent: &Notify) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let (mut asked, mut answered) = ([0; 65_536], [0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                server.write_all(&asked[..read]).await?;
                if String::from_utf8_lossy(&asked[..read]).contains("\"INSERT INTO") {
                    sent.notify_one();
                    std::future::pending::<()>().await;
                }
            }
            read = server.read(&mut answered) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                client.write_all(&answered[..read]).await?;
            }
        }
    }
}

async fn a_gateway_killed_right_after_the_insert_makes_no_second_job(cluster: &mut FlinkCluster) {
    let stand = stand(cluster).await;
    stand.publish([(1, "a", "1")]).await;
    let deployment = stand.plan_new(ALL).await;
    let (proxy, sent) = silent_after_the_insert(&cluster.gateway_url()).await;
    let mut through_proxy = settings(cluster, &stand.world.kafka);
    through_proxy.gateway_url = proxy;

    let lost = engine(through_proxy);
    let (deploy, ()) = tokio::join!(
        async {
            tokio::select! {
                outcome = lost.deploy(&deployment) => Some(outcome),
                // The manager is killed with the gateway: it hears nothing.
                () = async { sent.notified().await } => None,
            }
        },
        async {}
    );
    assert!(deploy.is_none(), "{deploy:?}");
    tokio::task::block_in_place(|| cluster.kill_hard(FlinkProcess::Gateway).unwrap());
    let away = stand.engine().deploy(&deployment).await;
    // The job may have been submitted before the kill: then it is adopted without a gateway.
    assert!(matches!(away, Ok(_) | Err(Trouble::Unavailable(_))), "{away:?}");
    restart(cluster, FlinkProcess::Gateway);

    let handle = stand.engine().deploy(&deployment).await.unwrap();
    assert_eq!(stand.engine().deploy(&deployment).await.unwrap(), handle, "and again");
    let observed = stand.engine().observe().await.unwrap();
    let name = deployment.names.job_name(1, 1);
    assert_eq!(observed.iter().filter(|job| job.name == name).count(), 1, "{observed:?}");
    assert_eq!(stand.until_output(&deployment, 1).await, [1]);
    stand.engine().remove(&handle, &[]).await.unwrap();
}

async fn a_query_whose_gateway_is_killed_is_interrupted_and_its_job_ends(cluster: &mut FlinkCluster) {
    let stand = stand(cluster).await;
    stand.publish([(1, "a", "1")]).await;
    let query = stand.ad_hoc(ALL, true);
    let mut rows = stand.engine().query(query.clone()).await.unwrap();
    assert!(matches!(next(&mut rows).await, Item::Header { .. }));
    assert!(matches!(next(&mut rows).await, Item::Row(_)));
    tokio::task::block_in_place(|| cluster.kill_hard(FlinkProcess::Gateway).unwrap());
    let end = next(&mut rows).await;
    assert!(matches!(end, Item::End(End::Interrupted(_))), "{end:?}");
    // Flink itself would let it run.
    until_state(&stand, &query.id, ObservedState::Stopped).await;
    restart(cluster, FlinkProcess::Gateway);
}

async fn a_job_goes_on_when_its_task_manager_is_killed_and_comes_back(cluster: &mut FlinkCluster) {
    let stand = stand(cluster).await;
    stand.publish([(1, "a", "1"), (2, "b", "1")]).await;
    let deployment = stand.plan_new(ALL).await;
    let handle = stand.engine().deploy(&deployment).await.unwrap();
    stand.until_output(&deployment, 2).await;
    tokio::task::block_in_place(|| cluster.kill_hard(FlinkProcess::TaskManager).unwrap());
    until_state(&stand, &handle.job_id, ObservedState::Restarting).await;
    // Flink keeps what it shows of a job for a moment.
    let why = async || stand.engine().details(&handle.job_id).await.unwrap().failure;
    until("it says why", PATIENCE, why).await;
    stand.publish([(3, "c", "1")]).await;
    restart(cluster, FlinkProcess::TaskManager);
    until_state(&stand, &handle.job_id, ObservedState::Running).await;
    // At least once: rows since the last checkpoint may come again, none may be missing.
    until("all rows are there", PATIENCE * 2, || async {
        let output = stand.output(&deployment);
        let ids: BTreeSet<i64> = output.iter().map(|row| row["order_id"].as_i64().unwrap()).collect();
        (ids == BTreeSet::from([1, 2, 3])).then_some(())
    })
    .await;
    stand.engine().remove(&handle, &[]).await.unwrap();
}

async fn a_job_that_its_job_manager_forgot_goes_on_from_its_last_checkpoint(cluster: &mut FlinkCluster) {
    let stand = stand(cluster).await;
    stand.publish([(1, "a", "1"), (2, "a", "1")]).await;
    let sums = "SELECT customer, COUNT(*) AS n FROM orders GROUP BY customer";
    let deployment = stand.plan_new(sums).await;
    assert_eq!(deployment.changes, Changes::Upsert);
    let handle = stand.engine().deploy(&deployment).await.unwrap();
    until_count(&stand, &deployment, 2).await;
    // One that was taken after both rows were counted.
    let first = stand.engine().details(&handle.job_id).await.unwrap().latest_checkpoint;
    let checkpoint: RestorePoint = until("another checkpoint is complete", PATIENCE * 2, || async {
        let latest = stand.engine().details(&handle.job_id).await.unwrap().latest_checkpoint;
        latest.filter(|latest| first.as_ref() != Some(latest))
    })
    .await;
    assert!(!checkpoint.savepoint);

    tokio::task::block_in_place(|| cluster.kill_hard(FlinkProcess::JobManager).unwrap());
    let away = stand.engine().observe().await.unwrap_err();
    assert!(matches!(away, Trouble::Unavailable(_)), "{away:?}");
    let next = Deployment { attempt: 2, restore: Some(checkpoint), ..deployment.clone() };
    let refused = stand.engine().deploy(&next).await.unwrap_err();
    assert!(matches!(refused, Trouble::Unavailable(_)), "nothing is sent: the gateway would keep it. {refused:?}");
    restart(cluster, FlinkProcess::JobManager);
    assert_eq!(stand.observed(&handle.job_id).await, ObservedState::Absent, "lost");

    stand.publish([(3, "a", "1")]).await;
    let handle = stand.engine().deploy(&next).await.unwrap();
    until_count(&stand, &next, 3).await;
    assert_eq!(stand.observed(&handle.job_id).await, ObservedState::Running);
    stand.engine().remove(&handle, &[]).await.unwrap();
}

/// The last count of the one customer: never more than that.
async fn until_count(stand: &Stand, deployment: &Deployment, expected: u64) {
    until(&format!("the count is {expected}"), PATIENCE * 2, || async {
        let counts: Vec<u64> = stand.output(deployment).iter().map(|row| row["n"].as_u64().unwrap()).collect();
        assert!(counts.iter().all(|count| *count <= expected), "{counts:?}");
        (counts.last() == Some(&expected)).then_some(())
    })
    .await;
}

async fn a_job_without_a_slot_says_so_and_runs_when_there_is_one(cluster: &mut FlinkCluster) {
    let stand = stand(cluster).await;
    let mut running = Vec::new();
    for _ in 0..2 {
        let deployment = stand.plan_new(ALL).await;
        running.push(stand.engine().deploy(&deployment).await.unwrap());
    }
    let third = stand.plan_new(ALL).await;
    // Not busy: it is submitted, and would run beside another attempt.
    let waits = stand.engine().deploy(&third).await.unwrap_err();
    let Trouble::Unknown(reason) = waits else { panic!("{waits:?}") };
    assert!(reason.contains("0 of 2 are free") && reason.contains(&third.names.job_name(1, 1)), "{reason}");
    assert_eq!(stand.engine().capabilities().await.unwrap().free_slots, Some(0));

    stand.engine().remove(&running[0], &[]).await.unwrap();
    let handle = stand.engine().deploy(&third).await.unwrap();
    assert_eq!(stand.observed(&handle.job_id).await, ObservedState::Running);
    for handle in [&running[1], &handle] {
        stand.engine().remove(handle, &[]).await.unwrap();
    }
}
