//! The real binary as a child process, watched over HTTP and by its log.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use streamview_lab::servers::free_port;
use streamview_lab::servers::process::spawn_tied_to_us;

use crate::support::patience::{watch_log, watch_server};
use crate::support::{PATIENCE, until};

/// A running `streamview`. Killed hard when dropped.
pub struct Instance {
    child: Mutex<Child>,
    pub address: String,
    scheme: &'static str,
    pub http: Client,
    log: PathBuf,
}

impl Instance {
    /// Starts the binary with these arguments and settings, on a port of its own.
    pub fn launch(arguments: &[&str], environment: Vec<(String, String)>) -> Instance {
        let port = free_port().unwrap();
        let address = format!("127.0.0.1:{port}");
        let (file, log) = tempfile::NamedTempFile::with_suffix(".log").unwrap().keep().unwrap();
        watch_log(&log);
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
        // Tests that want traces say where to.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTEL_")) {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .envs(environment)
            .env("STREAMVIEW_HTTP__BIND", &address)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        // Tests that are killed leave nothing behind that goes on asking for servers that are gone.
        let child = spawn_tied_to_us(command).unwrap();
        watch_server(port, child.id());
        streamview::schemas::client::install_tls();
        Instance { child: Mutex::new(child), address, scheme: "http", http: Client::new(), log }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Talks TLS from now on, by this client.
    pub fn with_tls(mut self, http: Client) -> Instance {
        (self.scheme, self.http) = ("https", http);
        self
    }

    /// A GET; the process must answer.
    pub async fn get(&self, path: &str) -> Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    /// A POST of JSON; the process must answer.
    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.post_as(path, body, &[]).await
    }

    /// A POST of JSON with further headers.
    pub async fn post_as(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Response {
        let request = self.http.post(self.url(path)).json(body);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.send().await.unwrap()
    }

    /// A POST that must be answered with `status`, as JSON.
    pub async fn posted(&self, path: &str, body: &Value, status: u16) -> Value {
        let response = self.post(path, body).await;
        let (found, text) = (response.status().as_u16(), response.text().await.unwrap());
        assert_eq!(found, status, "POST {path} {body}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A GET that must succeed, as JSON.
    pub async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        let status = response.status();
        let body = response.text().await.unwrap();
        assert!(status.is_success(), "GET {path}: {status}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// An order that has reached `sequence`, waiting for it as a frontend would.
    pub async fn order_at(&self, order_id: &str, sequence: i64) -> Value {
        let path = format!("/orders/{order_id}?minSequence={sequence}&waitMs=5000");
        until(&format!("{order_id} reaches sequence {sequence}"), PATIENCE, || async {
            let response = self.http.get(self.url(&path)).send().await.ok()?;
            if response.status() == StatusCode::OK { response.json().await.ok() } else { None }
        })
        .await
    }

    /// The sum of all series of a metric whose labels contain `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").await.text().await.unwrap();
        let is_ours = |line: &&str| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']);
        let series = text.lines().filter(is_ours).filter(|line| labels.iter().all(|label| line.contains(label)));
        series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// Waits until the sum of these series is `value`.
    pub async fn until_metric(&self, name: &str, labels: &[&str], value: f64) {
        until(&format!("{name}{labels:?} is {value}"), PATIENCE, || async {
            (self.metric(name, labels).await == value).then_some(())
        })
        .await;
    }

    /// An answer that must have `status`, as JSON.
    pub async fn refusal(&self, path: &str, status: u16) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status().as_u16(), status, "GET {path}");
        response.json().await.unwrap()
    }

    pub async fn is_ready(&self) -> bool {
        self.http.get(self.url("/readyz")).send().await.is_ok_and(|response| response.status() == StatusCode::OK)
    }

    /// What `/readyz` says, which must be 200. A database that did not answer in time is asked again: one serves all tests.
    pub async fn readiness(&self) -> Value {
        until("/readyz judges", PATIENCE, || async {
            let response = self.get("/readyz").await;
            let (status, text) = (response.status(), response.text().await.unwrap());
            let ready: Value = serde_json::from_str(&text).unwrap();
            let judges = status == StatusCode::OK || !is_only_slow(&ready);
            judges.then(|| assert_eq!(status, StatusCode::OK, "{text}")).map(|()| ready)
        })
        .await
    }

    /// Waits until it serves, whatever its views wait for: the port is open before.
    pub async fn until_serving(&self) {
        until("it serves", PATIENCE, || async {
            let response = self.http.get(self.url("/")).send().await.ok()?;
            (response.status() == StatusCode::OK).then_some(())
        })
        .await;
    }

    pub async fn until_ready(&self) {
        until(&format!("the instance is ready; its log: {}", self.log.display()), PATIENCE, || async {
            assert!(self.exit_status().is_none(), "the instance has ended: {}", self.log_text());
            self.is_ready().await.then_some(())
        })
        .await;
    }

    /// State of the orders view, such as `running` or `halted`, and the halt's code.
    pub async fn state(&self) -> (String, String) {
        let body = self.json("/ops/consumer").await;
        let view = &body["views"][0];
        (view["state"].as_str().unwrap().to_owned(), view["halt"]["code"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the orders view runs: on a busy machine it may wait for Postgres or Kafka for a moment.
    pub async fn until_running(&self) {
        until("the view runs", PATIENCE, || async {
            let (state, halt) = self.state().await;
            assert_ne!(state, "halted", "{halt}; its log: {}", self.log.display());
            (state == "running").then_some(())
        })
        .await;
    }

    /// Waits until `/readyz` says that something waits, and the process is useful all the same; gives its answer.
    pub async fn until_degraded(&self) -> Value {
        until("/readyz says degraded", PATIENCE, || async {
            let ready: Value = self.get("/readyz").await.json().await.ok()?;
            (ready["status"] == "degraded").then_some(ready)
        })
        .await
    }

    /// Waits until it sleeps by SIGSTOP.
    pub async fn until_stopped(&self) {
        until("the instance sleeps", PATIENCE, || async {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T').then_some(())
        })
        .await;
    }

    /// Waits until the view has halted with this code.
    pub async fn until_halted(&self, code: &str) {
        until(&format!("the view halts with {code}"), PATIENCE, || async {
            let ready = self.http.get(self.url("/readyz")).send().await.ok()?.text().await.ok()?;
            ready.contains(&format!("halted, {code}")).then_some(())
        })
        .await;
        assert_eq!(self.state().await, ("halted".to_owned(), code.to_owned()));
        assert!(!self.is_ready().await);
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Waits for the end of the process.
    pub async fn until_ended(&self) -> ExitStatus {
        until("the instance ends", PATIENCE, || async { self.exit_status() }).await
    }

    /// SIGTERM, and waits for the orderly end.
    pub async fn stop(&self) {
        self.signal("TERM");
        let status = self.until_ended().await;
        assert!(status.success(), "{status}: {}", self.log_text());
    }

    /// SIGKILL, and waits for the end.
    pub fn kill_hard(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal by name, such as `TERM`, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Whether it was killed by SIGKILL (and did not fail by itself).
    pub fn was_killed(status: ExitStatus) -> bool {
        status.signal() == Some(9)
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Whether `/readyz` says no more against the process than that a database was too busy to answer.
pub fn is_only_slow(ready: &Value) -> bool {
    let Some(checks) = ready["checks"].as_array() else { return false };
    let mut wrong = checks.iter().filter(|check| check["status"] == "unavailable").peekable();
    wrong.peek().is_some() && wrong.all(|check| check["detail"] == "did not answer within 1 s")
}

impl Drop for Instance {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        if child.try_wait().is_ok_and(|status| status.is_none()) {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("log of the instance: {}", self.log.display());
        } else {
            std::fs::remove_file(&self.log).ok();
        }
    }
}
