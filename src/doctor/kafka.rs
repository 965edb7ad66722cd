//! Kafka: whether brokers answer and let us in, whether the topics are there and kept, and what we may do with them.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Check, LONG_PATIENCE, PATIENCE, Status};
use crate::app::Served;
use crate::config::{KafkaSettings, ViewSettings};
use crate::platforms::kafka::inspect::{self, Cluster, Manner, Refusal};
use crate::platforms::kafka::log::{LogError, LogReader, no_topic};
use crate::platforms::kafka::rights::{Operation, Rights, RightsReader};
use crate::platforms::kafka::topic_settings::{self, Keeping};
use crate::projector::compaction::{compacted, is_compacted};

/// What was found of Kafka.
pub struct Kafka {
    /// What there is to say.
    pub checks: Vec<Check>,
    /// Topics that are there and can be seen.
    pub topics: BTreeSet<String>,
    /// Whether any broker answers.
    pub answers: bool,
}

const REACHABLE: &str = "kafka.reachable";
const TLS: &str = "kafka.tls";
const LOGIN: &str = "kafka.login";
const ADVERTISED: &str = "kafka.advertised";
const TOPIC: &str = "kafka.topic";
const DLQ_TOPIC: &str = "kafka.dlq_topic";
const RIGHTS: &str = "kafka.rights";
const COMPACTION: &str = "kafka.compaction";
const RETENTION: &str = "kafka.retention";

const NOBODY: &str = "no broker answers";
/// A topic may have as many instances as it has partitions.
const PARTITIONS: usize = 6;
/// Brokers of a large cluster that are tried.
const MOST_BROKERS: usize = 20;

/// What one bootstrap server said.
enum Answer {
    /// Nobody takes connections there.
    Away(String),
    /// Somebody does.
    Refused(Refusal),
    /// A broker.
    Cluster(Cluster),
}

/// Looks at it.
pub async fn examine(settings: &KafkaSettings, views: &[Served]) -> Kafka {
    let servers: Vec<&str> = settings.bootstrap_servers.split(',').map(str::trim).collect();
    let topic = views.first().map_or("", |(_, view)| view.topic.as_str());
    let answers = join_all(servers.iter().map(|server| ask(settings, server, topic))).await;
    let manner = inspect::manner(settings);
    let mut found = Kafka { checks: Vec::new(), topics: BTreeSet::new(), answers: false };
    let anybody = answers.iter().any(|answer| matches!(answer, Answer::Cluster(_)));
    found.checks.extend(servers.iter().zip(&answers).map(|(server, answer)| reachable(server, answer, anybody)));
    found.checks.extend([tls(&manner, &servers, &answers), login(&manner, &answers)]);
    found.checks.extend(advertised(&servers, &answers).await);
    let looked = match anybody {
        true => join_all(views.iter().map(|(_, view)| look(settings, view))).await,
        false => views.iter().map(|(_, view)| (nobody(view), Vec::new())).collect(),
    };
    for (checks, topics) in looked {
        found.checks.extend(checks);
        found.topics.extend(topics);
    }
    found.answers = anybody;
    found
}

/// What is not asked of a view's topics where no broker answers.
fn nobody(settings: &ViewSettings) -> Vec<Check> {
    let of_topic = [TOPIC, COMPACTION, RETENTION, RIGHTS].map(|name| Check::not_asked(name, &settings.topic, NOBODY));
    let of_dlq = Check::not_asked(DLQ_TOPIC, &settings.dlq_topic, NOBODY);
    of_topic.into_iter().chain([of_dlq]).collect()
}

async fn ask(settings: &KafkaSettings, server: &str, topic: &str) -> Answer {
    if let Err(words) = connect(server).await {
        return Answer::Away(words);
    }
    let (settings, at, topic) = (settings.clone(), server.to_owned(), topic.to_owned());
    let asked = spawn_blocking(move || inspect::ask(&settings, &at, &topic));
    match timeout(PATIENCE, asked).await {
        Ok(Ok(Ok(cluster))) => Answer::Cluster(cluster),
        Ok(Ok(Err(refusal))) => Answer::Refused(refusal),
        Ok(Err(error)) => Answer::Refused(Refusal::Silent(error.to_string())),
        Err(_) => Answer::Refused(Refusal::Silent(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// Whether anybody takes connections at an address.
async fn connect(address: &str) -> Result<(), String> {
    match timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn reachable(server: &str, answer: &Answer, anybody: bool) -> Check {
    match answer {
        Answer::Cluster(Cluster { id, brokers }) => {
            let id = id.as_deref().unwrap_or("without an id");
            Check::ok(REACHABLE, server, format!("answers; cluster {id}, {}", counted(brokers.len(), "broker")))
        }
        Answer::Refused(Refusal::Tls(_) | Refusal::Login(_)) => Check::ok(REACHABLE, server, "answers"),
        Answer::Away(words) | Answer::Refused(Refusal::Silent(words)) if anybody => {
            let message = format!("{words}; another one answers");
            Check::warning(REACHABLE, server, message, "start that broker, or take it out of kafka.bootstrap_servers")
        }
        Answer::Away(words) => {
            Check::failed(REACHABLE, server, words, "start the broker, or correct kafka.bootstrap_servers")
        }
        Answer::Refused(Refusal::Silent(words)) => {
            let fix =
                "see that a Kafka broker listens there, and that kafka.security_protocol is what that listener speaks";
            Check::failed(REACHABLE, server, format!("takes connections, but: {words}"), fix)
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn is_local(server: &str) -> bool {
    ["127.", "localhost:", "[::1]:"].iter().any(|start| server.starts_with(start))
}

fn tls(manner: &Manner, servers: &[&str], answers: &[Answer]) -> Check {
    let refused = answers.iter().find_map(|answer| match answer {
        Answer::Refused(Refusal::Tls(words)) => Some(words),
        _ => None,
    });
    let subject = &manner.protocol;
    match refused {
        Some(words) => refused_as(TLS, subject, words),
        None if answers.iter().all(|answer| matches!(answer, Answer::Away(_))) => {
            Check::not_asked(TLS, subject, NOBODY)
        }
        None if manner.is_encrypted() => Check::ok(TLS, subject, "encrypted"),
        None if servers.iter().all(|server| is_local(server)) => {
            Check::ok(TLS, subject, "not encrypted, and does not leave this machine")
        }
        None => Check::warning(
            TLS,
            subject,
            "not encrypted: events go over the network as they are",
            "kafka.security_protocol = ssl or sasl_ssl, at a listener that speaks it",
        ),
    }
}

/// Why we are not let in, in the words of the service, which say behind a semicolon what to do.
fn refused_as(name: &'static str, subject: &str, words: &str) -> Check {
    let (message, fix) = words.split_once("; ").unwrap_or((words, "correct the settings of [kafka]"));
    Check::failed(name, subject, message, fix)
}

fn login(manner: &Manner, answers: &[Answer]) -> Check {
    let refused = answers.iter().find_map(|answer| match answer {
        Answer::Refused(Refusal::Login(words)) => Some(words),
        _ => None,
    });
    let who = manner.username.clone().unwrap_or_default();
    let taken = || answers.iter().any(|answer| matches!(answer, Answer::Cluster(_)));
    match refused {
        Some(words) => refused_as(LOGIN, &who, words),
        None if !taken() => Check::not_asked(LOGIN, who, NOBODY),
        None if manner.logs_in() => {
            Check::ok(LOGIN, who, format!("taken, by {}", manner.mechanism.as_deref().unwrap_or("SASL")))
        }
        None => Check::ok(LOGIN, who, "none is asked for"),
    }
}

/// Whether the brokers are where they tell clients that they are. A client that is sent elsewhere finds nobody.
async fn advertised(servers: &[&str], answers: &[Answer]) -> Vec<Check> {
    let brokers: BTreeSet<&str> = answers
        .iter()
        .filter_map(|answer| match answer {
            Answer::Cluster(cluster) => Some(cluster.brokers.iter().map(String::as_str)),
            _ => None,
        })
        .flatten()
        .filter(|broker| !servers.contains(broker))
        .take(MOST_BROKERS)
        .collect();
    let tried = join_all(brokers.iter().map(|broker| connect(broker))).await;
    let check = |(broker, tried): (&&str, Result<(), String>)| match tried {
        Ok(()) => Check::ok(ADVERTISED, *broker, "can be reached where the cluster says that it is"),
        Err(words) => Check::failed(
            ADVERTISED,
            *broker,
            format!("the cluster sends clients there, and: {words}"),
            "set advertised.listeners of that broker to an address that this machine reaches",
        ),
    };
    brokers.iter().zip(tried).map(check).collect()
}

/// The topics of a view; those that are there.
async fn look(kafka: &KafkaSettings, settings: &ViewSettings) -> (Vec<Check>, Vec<String>) {
    let looked = async {
        tokio::join!(
            partitions(kafka, &settings.topic),
            partitions(kafka, &settings.dlq_topic),
            topic_settings::keeping(kafka, &settings.topic),
            rights(kafka, settings),
        )
    };
    let Ok((topic, dlq, keeping, rights)) = timeout(LONG_PATIENCE, looked).await else {
        let because = format!("there was no answer within {} s", LONG_PATIENCE.as_secs());
        return (vec![Check::not_asked(TOPIC, &settings.topic, because)], Vec::new());
    };
    let is_there = |told: &Told| matches!(told, Ok(Ok(partitions)) if *partitions > 0);
    let is_seen = is_there(&topic);
    let there = [(&settings.topic, is_seen), (&settings.dlq_topic, is_there(&dlq))];
    let there = there.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name.clone()).collect();
    let mut checks = vec![
        topic_check(TOPIC, kafka, (&settings.topic, PARTITIONS), topic),
        topic_check(DLQ_TOPIC, kafka, (&settings.dlq_topic, 1), dlq),
    ];
    checks.extend(rights);
    checks.extend(match is_seen {
        true => kept(kafka, &settings.topic, keeping),
        false => {
            [COMPACTION, RETENTION].map(|name| Check::not_asked(name, &settings.topic, "there is no such topic")).into()
        }
    });
    (checks, there)
}

/// How many partitions a topic has; none: it is not there.
type Told = Result<Result<usize, LogError>, String>;

async fn partitions(settings: &KafkaSettings, topic: &str) -> Told {
    let (settings, topic) = (settings.clone(), topic.to_owned());
    let look = move || Ok::<_, LogError>(LogReader::open(&settings, &topic)?.partitions()?.len());
    spawn_blocking(look).await.map_err(|error| error.to_string())
}

fn topic_check(name: &'static str, kafka: &KafkaSettings, (topic, wanted): (&str, usize), told: Told) -> Check {
    let servers = &kafka.bootstrap_servers;
    let create =
        || format!("kafka-topics.sh --bootstrap-server {servers} --create --topic {topic} --partitions {wanted}");
    match told {
        Ok(Ok(0)) => Check::failed(name, topic, no_topic(topic), create()),
        Ok(Ok(count)) => Check::ok(name, topic, format!("is there; {}", counted(count, "partition"))),
        Ok(Err(error @ LogError::NoTopic(_))) => Check::failed(name, topic, error.to_string(), create()),
        Ok(Err(error @ LogError::Forbidden { .. })) => {
            let fix = grant(kafka, &format!("--topic {topic}"), &[Operation::Describe]);
            Check::failed(name, topic, error.to_string(), fix)
        }
        Ok(Err(error)) => Check::not_asked(name, topic, error.at(servers)),
        Err(error) => Check::not_asked(name, topic, error),
    }
}

/// The command that grants.
fn grant(kafka: &KafkaSettings, resource: &str, operations: &[Operation]) -> String {
    let Manner { protocol, username, .. } = inspect::manner(kafka);
    let who = match (username, protocol.as_str()) {
        (Some(name), _) => name,
        (None, "plaintext") => "ANONYMOUS".to_owned(),
        (None, _) => "<the subject of kafka.tls.cert_file>".to_owned(),
    };
    let operations: Vec<String> =
        operations.iter().map(|operation| format!("--operation {}", operation.as_str())).collect();
    format!(
        "kafka-acls.sh --bootstrap-server {} --add --allow-principal 'User:{who}' {} {resource}",
        kafka.bootstrap_servers,
        operations.join(" ")
    )
}

/// What we may do with the topics of a view.
async fn rights(settings: &KafkaSettings, view: &ViewSettings) -> Vec<Check> {
    use Operation::{Describe, DescribeConfigs, Read, Write};
    let (kafka, topic, dlq) = (settings.clone(), view.topic.clone(), view.dlq_topic.clone());
    let ask = move || {
        let reader = RightsReader::open(&kafka)?;
        let (of_topic, of_dlq) = (reader.of_topic(&topic), reader.of_topic(&dlq));
        let is_read = matches!(of_topic, Rights::Untold(_)) && tries_to_read(&kafka, &topic);
        anyhow::Ok((of_topic, of_dlq, is_read))
    };
    let told = match spawn_blocking(ask).await.map_err(anyhow::Error::from).flatten() {
        Ok(told) => told,
        Err(error) => return vec![Check::not_asked(RIGHTS, &view.topic, format!("{error:#}"))],
    };
    let (of_topic, of_dlq, is_read) = told;
    let of_topic = match is_read {
        true => Check::ok(RIGHTS, format!("topic {}", view.topic), "the broker tells no rights, but it could be read"),
        false => right(settings, ("topic", &view.topic), &[Describe, DescribeConfigs, Read], of_topic),
    };
    vec![of_topic, right(settings, ("topic", &view.dlq_topic), &[Describe, Read, Write], of_dlq)]
}

/// What we may do with consumer groups: that of the build that is fed, and that of the one that a rebuild would make.
pub async fn rights_of_groups(settings: &KafkaSettings, present: String, next: String) -> Vec<Check> {
    let kafka = settings.clone();
    let (of_present, of_next) = (present.clone(), next.clone());
    let ask = move || {
        let reader = RightsReader::open(&kafka)?;
        anyhow::Ok((reader.of_group(&of_present), reader.of_group(&of_next)))
    };
    let asked = timeout(LONG_PATIENCE, spawn_blocking(ask)).await.map_err(anyhow::Error::from);
    let told = asked.and_then(|asked| asked.map_err(anyhow::Error::from).flatten());
    let (of_present, of_next) = match told {
        Ok(told) => told,
        Err(error) => return vec![Check::not_asked(RIGHTS, format!("group {present}"), format!("{error:#}"))],
    };
    let mut checks = vec![right(settings, ("group", &present), &[Operation::Read], of_present)];
    let next = right(settings, ("group", &next), &[Operation::Read], of_next);
    if next.status == Status::Failed && checks[0].status == Status::Ok {
        let message = format!("{}, which a rebuild would use", next.message);
        let fix = grant(settings, &format!("--group {present} --resource-pattern-type prefixed"), &[Operation::Read]);
        checks.push(Check { message, fix: Some(fix), status: Status::Warning, ..next });
    }
    checks
}

/// Whether the topic can be read, found out by reading; `false` too where that cannot be told.
fn tries_to_read(settings: &KafkaSettings, topic: &str) -> bool {
    let Ok(reader) = LogReader::open(settings, topic) else { return false };
    let first = reader.extents().ok().and_then(|extents| extents.first().copied());
    first.is_some_and(|(partition, marks)| reader.try_read(partition, marks.low).is_ok())
}

fn right(settings: &KafkaSettings, (kind, name): (&str, &str), needed: &[Operation], told: Rights) -> Check {
    let subject = format!("{kind} {name}");
    let has = match told {
        Rights::Told(has) => has,
        Rights::None => BTreeSet::new(),
        Rights::Missing => return Check::not_asked(RIGHTS, subject, "there is no such topic"),
        Rights::Untold(why) => return Check::not_asked(RIGHTS, subject, why),
    };
    let missing: Vec<Operation> = needed.iter().copied().filter(|operation| !has.contains(operation)).collect();
    let list = |operations: &[Operation]| operations.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ");
    match missing.as_slice() {
        [] => Check::ok(RIGHTS, subject, format!("we may {}", list(needed))),
        // Without it the service believes the topic not to be compacted, and says so.
        [Operation::DescribeConfigs] => {
            let message = "Kafka does not let us see how the topic is kept; grant DESCRIBE_CONFIGS on the topic";
            Check::warning(RIGHTS, subject, message, grant(settings, &format!("--{kind} {name}"), &missing))
        }
        missing => {
            let what = if kind == "group" { "consumer group" } else { "topic" };
            let words: Vec<String> = missing.iter().map(|one| one.as_str().to_uppercase()).collect();
            let message = format!("we may not {}; grant {} on the {what}", list(missing), words.join(", "));
            Check::failed(RIGHTS, subject, message, grant(settings, &format!("--{kind} {name}"), missing))
        }
    }
}

/// How long the topic keeps what the view is made from.
fn kept<E: std::fmt::Display>(
    kafka: &KafkaSettings,
    topic: &str,
    told: Result<Result<Keeping, String>, E>,
) -> Vec<Check> {
    let keeping = match told.map_err(|error| error.to_string()) {
        Ok(Ok(keeping)) => keeping,
        Ok(Err(why)) | Err(why) => {
            return [COMPACTION, RETENTION].map(|name| Check::not_asked(name, topic, why.as_str())).into();
        }
    };
    let alter = |setting: &str| {
        let servers = &kafka.bootstrap_servers;
        format!(
            "kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics --entity-name {topic} --add-config {setting}"
        )
    };
    let Some(policy) = keeping.cleanup_policy.clone() else {
        return [COMPACTION, RETENTION].map(|name| Check::not_asked(name, topic, "the broker does not say")).into();
    };
    let compaction = match is_compacted(&policy) {
        false => Check::ok(COMPACTION, topic, format!("cleanup.policy={policy}")),
        true if kafka.allow_compacted => Check::warning(
            COMPACTION,
            topic,
            format!(
                "cleanup.policy={policy}, and kafka.allow_compacted says that this is meant: what is removed shows as gaps"
            ),
            alter("cleanup.policy=delete"),
        ),
        true => Check::failure(COMPACTION, topic, compacted(topic, &policy)).or_do(&alter("cleanup.policy=delete")),
    };
    vec![compaction, retention(topic, &keeping, &policy, alter)]
}

fn retention(topic: &str, keeping: &Keeping, policy: &str, alter: impl Fn(&str) -> String) -> Check {
    const HOUR_MS: i64 = 3_600_000;
    let deletes = policy.contains("delete");
    let bounds: Vec<String> = [
        keeping.retention_ms.filter(|ms| *ms >= 0).map(|ms| format!("after {} h (retention.ms={ms})", ms / HOUR_MS)),
        keeping
            .retention_bytes
            .filter(|bytes| *bytes >= 0)
            .map(|bytes| format!("beyond {bytes} bytes of a partition (retention.bytes)")),
    ]
    .into_iter()
    .flatten()
    .filter(|_| deletes)
    .collect();
    if bounds.is_empty() {
        return Check::ok(RETENTION, topic, "records stay for ever");
    }
    let message = format!(
        "records go {}: no outage may be longer, and a rebuild lacks what is gone by then",
        bounds.join(" and ")
    );
    Check::warning(RETENTION, topic, message, alter("retention.ms=-1,retention.bytes=-1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings() -> KafkaSettings {
        Config::defaults().kafka
    }

    #[test]
    fn a_right_that_is_missing_is_granted_by_the_command_of_the_fix() {
        use Operation::{Describe, DescribeConfigs, Read};
        let all = &[Describe, DescribeConfigs, Read];
        let of = |told| right(&settings(), ("topic", "t"), all, told);
        assert_eq!(of(Rights::Told(all.iter().copied().collect())).status, Status::Ok);
        let none = of(Rights::None);
        let command = "kafka-acls.sh --bootstrap-server 127.0.0.1:9092 --add --allow-principal 'User:ANONYMOUS' \
                       --operation Describe --operation DescribeConfigs --operation Read --topic t";
        assert_eq!((none.status, none.fix.as_deref()), (Status::Failed, Some(command)));
        assert_eq!(of(Rights::Told([Describe, Read].into())).status, Status::Warning);
        assert_eq!(of(Rights::Untold("it is old".to_owned())).status, Status::NotAsked);
        let group = right(&settings(), ("group", "g"), &[Read], Rights::Told([Describe].into()));
        assert!(group.message.contains("grant READ on the consumer group"), "{group:?}");
    }

    #[test]
    fn a_topic_that_is_not_kept_for_ever_is_told() {
        let keeping = |policy: &str, ms, bytes| Keeping {
            cleanup_policy: Some(policy.to_owned()),
            retention_ms: Some(ms),
            retention_bytes: Some(bytes),
        };
        for (seen, statuses, words) in [
            (keeping("delete", -1, -1), [Status::Ok, Status::Ok], "for ever"),
            (keeping("delete", 604_800_000, -1), [Status::Ok, Status::Warning], "after 168 h (retention.ms=604800000)"),
            (keeping("delete", -1, 1024), [Status::Ok, Status::Warning], "beyond 1024 bytes"),
            (keeping("compact", 1, 1), [Status::Failed, Status::Ok], "for ever"),
            (keeping("compact,delete", 1, -1), [Status::Failed, Status::Warning], "after 0 h"),
        ] {
            let found = kept::<String>(&settings(), "t", Ok(Ok(seen)));
            assert_eq!([found[0].status, found[1].status], statuses, "{found:?}");
            assert!(found[1].message.contains(words), "{found:?}");
        }
        let meant = KafkaSettings { allow_compacted: true, ..settings() };
        let found = kept::<String>(&meant, "t", Ok(Ok(keeping("compact", -1, -1))));
        assert_eq!(found[0].status, Status::Warning);
        let silent = Keeping { cleanup_policy: None, retention_ms: None, retention_bytes: None };
        let silent = kept::<String>(&settings(), "t", Ok(Ok(silent)));
        assert!(silent.iter().all(|check| check.status == Status::NotAsked), "{silent:?}");
        let untold = kept::<String>(&settings(), "t", Ok(Err("not allowed".to_owned())));
        assert!(untold.iter().all(|check| check.status == Status::NotAsked && check.message.contains("not allowed")));
    }
}
