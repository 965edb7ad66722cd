//! Every statement in a file is understood by the migrated schema.

use std::path::{Path, PathBuf};

use serde_json::Value;
use streamview::config::{Config, SecretUrl};
use streamview::store::{Connection, pool};

use crate::support::world::World;

fn sql_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sql_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "sql") {
            found.push(path);
        }
    }
}

async fn writer(world: &World) -> Connection {
    let mut settings = Config::defaults().database;
    settings.url = SecretUrl::new(&world.database);
    pool::connect_writer(&settings, "orders_1,public").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sql_file_prepares_against_the_migrated_schema() {
    let world = World::new(1).await;
    let client = writer(&world).await;
    let mut files = Vec::new();
    sql_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 20, "the files were not found: {files:?}");
    for file in files {
        let script = std::fs::read_to_string(&file).unwrap();
        for statement in script.split_inclusive(";\n") {
            if let Err(error) = client.prepare(statement).await {
                panic!("{}: {error}: {statement}", file.display());
            }
        }
    }
}

/// Plans are made when nothing is known of the tables yet, and kept while they grow.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_projector_asks_for_by_key_is_never_read_whole() {
    let world = World::new(1).await;
    let writer = writer(&world).await;
    let reader = crate::support::world::connect(&world.database).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/views/orders/sql");
    let of_writers = ["load_orders", "update_orders", "holders_of_event_ids"].map(|name| (&writer, name));
    let of_readers = ["read_orders", "read_sequences"].map(|name| (&reader, name));
    for (client, name) in of_writers.into_iter().chain(of_readers) {
        let sql = std::fs::read_to_string(folder.join(format!("{name}.sql"))).unwrap();
        let parameters = (1..20).filter(|number| sql.contains(&format!("${number}"))).count();
        let nulls = vec!["null"; parameters].join(", ");
        client.batch_execute("set plan_cache_mode = force_generic_plan").await.unwrap();
        client.batch_execute(&format!("prepare {name} as {sql}")).await.unwrap();
        let plan = client.query(&format!("explain execute {name}({nulls})"), &[]).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        assert!(!plan.iter().any(|line| line.contains("Seq Scan")), "{name}: {}", plan.join("\n"));
    }
}

/// A producer that gives every event one key has any number of letters under one number.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_is_looked_for_by_its_id_among_the_letters_of_its_number() {
    let world = World::new(1).await;
    let letters = "insert into dead_letters (view, build, topic, partition, \"offset\", reason, error, key, sequence, event_id, \
                                             payload, headers) \
                   select 'orders', 1, 't', 0, n, 'sequence_reused', '', 'undefined', n % 3 + 1, 'e-' || n, '{}', '' \
                   from generate_series(1, 30000) n; \
                   analyze dead_letters";
    world.sql.batch_execute(letters).await.unwrap();
    let client = writer(&world).await;
    let sql = include_str!("../../src/store/sql/known_strangers.sql");
    client.batch_execute("set plan_cache_mode = force_generic_plan").await.unwrap();
    client.batch_execute(&format!("prepare known as {sql}")).await.unwrap();
    let ask = "explain (analyze, buffers, format json) execute known \
               ('orders', 1, '{undefined}', '{2}', '{nobody}', array['x'::bytea], '{false}')";
    let told: Value = client.query_one(ask, &[]).await.unwrap().get(0);
    let blocks = ["Shared Hit Blocks", "Shared Read Blocks"].map(|kind| told[0]["Plan"][kind].as_i64().unwrap());
    assert!(blocks.iter().sum::<i64>() < 100, "{told:#}");
}
