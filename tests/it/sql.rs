//! Every statement in a file is understood by the migrated schema.

use std::path::{Path, PathBuf};

use streamview::config::{Config, SecretUrl};
use streamview::store::pool;

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

#[tokio::test(flavor = "multi_thread")]
async fn every_sql_file_prepares_against_the_migrated_schema() {
    let world = World::new(1).await;
    let mut settings = Config::defaults().database;
    settings.url = SecretUrl::new(&world.database);
    let client = pool::connect_writer(&settings, "orders_1,public").await.unwrap();
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
