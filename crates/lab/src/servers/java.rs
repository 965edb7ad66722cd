//! Java and the jars of servers that run on it: found on the machine, fetched by its Maven, once.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::folders::{build_once, cache_folder};
use super::process::{ChildServer, ServerCommand, Signal};

const OLDEST_JAVA: u32 = 17;
const FETCH_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The program, and its version.
pub(super) fn find() -> Result<(PathBuf, String)> {
    let java = find_java()?;
    let version = check_java(&java)?;
    Ok((java, version))
}

fn find_java() -> Result<PathBuf> {
    let home = env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates = match home {
        Some(home) => vec![PathBuf::from(home).join("bin/java")],
        None => env::split_paths(&path).map(|folder| folder.join("java")).collect(),
    };
    match candidates.iter().find(|program| program.is_file()) {
        Some(java) => Ok(java.clone()),
        None => bail!(
            "no Java found (JAVA_HOME, PATH): Kafka and Flink need {OLDEST_JAVA} or newer; run `scripts/setup --tests`, \
             or install `openjdk-17-jre-headless`"
        ),
    }
}

fn check_java(java: &Path) -> Result<String> {
    let output = Command::new(java)
        .arg("-version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", java.display()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let version = java_version(&text).with_context(|| format!("{} -version said: {text}", java.display()))?;
    let major: u32 = version.split(['.', '-', '+']).next().unwrap_or_default().parse().unwrap_or(0);
    if major < OLDEST_JAVA {
        bail!(
            "{} is Java {version}, and Kafka and Flink need {OLDEST_JAVA} or newer: install \
             `openjdk-17-jre-headless`, or set JAVA_HOME",
            java.display()
        );
    }
    Ok(version.to_owned())
}

/// `17.0.15` of `openjdk version "17.0.15" 2025-04-15`.
fn java_version(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.contains(" version \""))?;
    line.split('"').nth(1)
}

/// All jars by name in a fixed order: a `*` would follow the file system's, and the class archive fits
/// only one order.
pub(super) fn class_path(lib: &Path) -> Result<String> {
    let entries = fs::read_dir(lib).with_context(|| format!("reading {}", lib.display()))?;
    let mut jars: Vec<String> = entries.flatten().map(|entry| entry.path().display().to_string()).collect();
    jars.sort();
    Ok(jars.join(":"))
}

/// The folder with the jars of a pom, fetched once on this machine; `excluded` are artefact ids.
pub fn fetched_jars(name: &str, pom: &str, excluded: &[&str]) -> Result<PathBuf> {
    let folder = cache_folder()?.join("servers").join(name);
    build_once(&folder, |unfinished| {
        eprintln!("fetching {name} (once)");
        fetch_jars(unfinished, name, pom, excluded)
    })?;
    Ok(folder.join("lib"))
}

/// Fills `folder/lib` through the machine's Maven, which knows where artefacts come from here. `excluded` are artefact ids.
pub(super) fn fetch_jars(folder: &Path, whose: &str, pom: &str, excluded: &[&str]) -> Result<()> {
    fs::write(folder.join("pom.xml"), pom).context("writing pom.xml")?;
    let mut command = Command::new("mvn");
    command.args(["--batch-mode", "--quiet", "dependency:copy-dependencies", "-DoutputDirectory=lib"]);
    if !excluded.is_empty() {
        command.arg("-DincludeScope=runtime").arg(format!("-DexcludeArtifactIds={}", excluded.join(",")));
    }
    command.current_dir(folder);
    let maven = ChildServer::start(ServerCommand {
        name: "Maven".to_owned(),
        command,
        log_file: folder.join("maven.log"),
        stop_signal: Signal::Terminate,
        orphan_signal: Signal::Terminate,
        account: None,
    });
    let mut maven = maven
        .with_context(|| format!("{whose}'s jars come from Maven: run `scripts/setup --tests`, or install `maven`"))?;
    maven.wait_until_done(FETCH_PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_are_read() {
        let text = "Picked up JAVA_TOOL_OPTIONS\nopenjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime";
        assert_eq!(java_version(text), Some("17.0.15"));
        assert_eq!(java_version("java: not found"), None);
    }
}
