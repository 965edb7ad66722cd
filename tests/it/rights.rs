//! Rights that Kafka takes away: each is named for as long as it is missing, reads go on, and nothing has to be restarted
//! when it is back.

use streamview::config::Config;
use streamview::platforms::kafka::dead_member::static_members;
use streamview::platforms::kafka::rights::{Rights, RightsReader};
use streamview_lab::servers::KafkaServer;
use tokio::task::block_in_place;

use crate::conditions::assert_steady;
use crate::relay::signal;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, life};
use crate::support::servers;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Whoever comes in by the plain listener. Everybody may do everything with what no rule names.
const WHO: &str = "User:ANONYMOUS";

/// Runs Kafka's own tool for rules.
fn acl(kafka: &KafkaServer, arguments: &[&str]) {
    let mut tool = kafka.tool("org.apache.kafka.tools.AclCommand");
    let output = tool.args(["--bootstrap-server", &kafka.bootstrap()]).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !text.contains("Error"), "{arguments:?}: {text}");
}

/// Leaves only these operations on the resource, and what they imply.
fn leave_only(kafka: &KafkaServer, (kind, name): (&str, &str), operations: &[&str]) {
    let operations = operations.iter().flat_map(|operation| ["--operation", operation]);
    let rule = [&["--add", "--allow-principal", WHO, kind, name][..], &operations.collect::<Vec<_>>()].concat();
    acl(kafka, &rule);
}

async fn assert_reads_work(instance: &Instance) {
    assert_eq!(instance.json("/orders/o-1").await["orderId"], "o-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_stays_visible_by_its_name_while_reads_work() {
    let kafka = servers::own_kafka_with(&[
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "true"),
    ]);
    let world = World::on(&kafka.bootstrap(), &servers::shared().database, 2, &[]).await;
    let instance = world.start().await;
    let events = life("o-1", 4);
    world.publish([events[0].record()]).await;
    instance.order_at("o-1", 1).await;

    // READ on the topic: the broker still tells where it ends.
    leave_only(&kafka, ("--topic", &world.topic), &["Write", "DescribeConfigs"]);
    let words = format!("Kafka does not let us read topic {}", world.topic);
    assert_steady(&instance, "waiting_for_kafka", &words).await;
    assert_steady(&instance, "waiting_for_kafka", "grant READ on the topic").await;
    assert_reads_work(&instance).await;
    acl(&kafka, &["--remove", "--force", "--topic", &world.topic]);
    world.publish([events[1].record()]).await;
    instance.order_at("o-1", 2).await;
    instance.until_ready().await;

    // DESCRIBE on the topic: it looks as if it were not there.
    leave_only(&kafka, ("--topic", &world.topic), &["DescribeConfigs"]);
    let words = "grant DESCRIBE on the topic";
    assert_steady(&instance, "waiting_for_kafka", words).await;
    assert_reads_work(&instance).await;
    acl(&kafka, &["--remove", "--force", "--topic", &world.topic]);
    world.publish([events[2].record()]).await;
    instance.order_at("o-1", 3).await;
    instance.until_ready().await;

    // READ on the group: the client says nothing until its session is over.
    leave_only(&kafka, ("--group", &world.group), &["Describe"]);
    assert_steady(&instance, "waiting_for_kafka", "grant READ on the consumer group").await;
    assert_reads_work(&instance).await;
    acl(&kafka, &["--remove", "--force", "--group", &world.group]);
    world.publish(events[3..].iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 4).await;
    instance.until_ready().await;

    // Missing from the start.
    instance.stop().await;
    leave_only(&kafka, ("--group", &world.group), &["Delete"]);
    leave_only(&kafka, ("--topic", &world.topic), &["Write"]);
    let instance = world.launch(&[]);
    instance.until_serving().await;
    assert_steady(&instance, "waiting_for_kafka", "grant READ on the consumer group").await;
    assert_reads_work(&instance).await;
    acl(&kafka, &["--remove", "--force", "--topic", &world.topic]);
    acl(&kafka, &["--remove", "--force", "--group", &world.group]);
    instance.until_ready().await;
    world.publish(life("o-2", 2).iter().map(TestEvent::record)).await;
    instance.order_at("o-2", 2).await;
}

/// librdkafka ends the process if a request to a group's coordinator runs into its own time-out before it could be sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_found_after_we_gave_up_ends_no_process() {
    let kafka = servers::own_kafka();
    let mut settings = Config::defaults().kafka;
    settings.bootstrap_servers = kafka.bootstrap();
    let reader = RightsReader::open(&settings).unwrap();
    // It is connected, and does not know the group's coordinator yet.
    assert_eq!(block_in_place(|| reader.of_topic("nobody")), Rights::Missing);
    signal(&kafka, "STOP");
    let (given_up, dropped) = block_in_place(|| (reader.of_group("late"), static_members(&settings, "late")));
    assert!(matches!(given_up, Rights::Untold(_)), "{given_up:?}");
    assert!(dropped.is_err(), "{dropped:?}");
    signal(&kafka, "CONT");
    // Both requests are answered now, the one that nobody waits for as well: not at once, as the broker comes back to its
    // controller first and makes the topic of its groups.
    until("the broker tells our rights with the group", PATIENCE, async || {
        matches!(block_in_place(|| reader.of_group("late")), Rights::Told(_)).then_some(())
    })
    .await;
}
