//! The HTTP side: routes, log-in, and the switches that concern whole answers.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};

use super::catalog::Topics;
use super::cluster::Cluster;
use super::refused::Refused;
use super::rows::{self, Answer, Form};
use super::statement::Statement;
use super::switches::{Asked, Switches};
use super::tokens::{self, Piece};
use super::{Options, answers, parse};

const JSON_ROWS: &str = "application/vnd.ksql.v1+json";
const DELIMITED: &str = "application/vnd.ksqlapi.delimited.v1";

/// Answers until it is killed.
pub async fn serve(options: Options) -> Result<()> {
    let port = options.port;
    let cluster = tokio::task::spawn_blocking(move || Cluster::open(options)).await??;
    let cluster = Arc::new(cluster);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("listening")?;
    eprintln!("the ksqlDB stand-in listens on port {port}");
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| handle(Arc::clone(&cluster), request, peer.port()));
            let served =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = served {
                eprintln!("connection from {}: {error}", peer.port());
            }
        });
    }
}

/// Why a connection is hung up without an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up, as it was switched on")]
struct HangUp;

async fn handle(cluster: Arc<Cluster>, request: Request<Incoming>, from: u16) -> Result<Response<Answer>, HangUp> {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        bytes.extend_from_slice(frame.map_err(|_| HangUp)?.data_ref().map_or(&[], |data| data));
    }
    let path = head.uri.path().to_owned();
    if let Some(own) = path.strip_prefix("/stand-in/") {
        return Ok(own_business(cluster, own.to_owned(), bytes)
            .await
            .unwrap_or_else(|why| answered(Refused::generic(500, 50000, format!("{why:#}")))));
    }
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let statement = body["ksql"].as_str().or(body["sql"].as_str()).unwrap_or_default().to_owned();
    let words = format!("{path} {statement}");
    let header = |name| head.headers.get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
    let properties = if path == "/ksql" { &body["streamsProperties"] } else { &body["properties"] };
    let authorized = header(AUTHORIZATION).map(str::to_owned);
    if !path.starts_with("/chc/") {
        let (what, properties) = (format!("{} {path}", head.method), properties.clone());
        let authorized = authorized.is_some();
        cluster.note(Asked { what, statement: statement.clone(), properties, authorized, from });
    }
    let switches = cluster.switches().clone();
    if once(&cluster, &words, |switches| &mut switches.lose_request_of) {
        return Err(HangUp);
    }
    let lost = once(&cluster, &words, |switches| &mut switches.lose_answer_of);
    let form = match header(ACCEPT) {
        Some(JSON_ROWS) => Some(Form::JsonRows),
        None | Some(DELIMITED | "*/*") => Some(Form::Delimited),
        Some(_) => None,
    };
    let call = Call { method: head.method, path, version: head.version, form, bytes, body, statement, authorized };
    let answer = route(&cluster, call, &words).await.unwrap_or_else(answered);
    if let Some((of, late)) = switches.slow.filter(|(of, _)| words.contains(of)) {
        eprintln!("{of} is answered {late} ms late");
        tokio::time::sleep(Duration::from_millis(late)).await;
    }
    if lost { Err(HangUp) } else { Ok(answer) }
}

/// Whether a switch that works once is meant by these words.
fn once(cluster: &Cluster, words: &str, which: fn(&mut Switches) -> &mut Option<String>) -> bool {
    let mut switches = cluster.switches();
    let switch = which(&mut switches);
    let meant = switch.as_ref().is_some_and(|wanted| words.contains(wanted));
    if meant {
        *switch = None;
    }
    meant
}

struct Call {
    method: Method,
    path: String,
    version: Version,
    form: Option<Form>,
    bytes: Vec<u8>,
    body: Value,
    statement: String,
    authorized: Option<String>,
}

async fn own_business(cluster: Arc<Cluster>, what: String, bytes: Vec<u8>) -> Result<Response<Answer>> {
    let body = match what.as_str() {
        "switches" => {
            let switches: Switches = serde_json::from_slice(&bytes)?;
            tokio::task::spawn_blocking(move || cluster.switch(switches)).await??;
            Value::Null
        }
        "live" => {
            let pushes = cluster.pushes.lock().unwrap_or_else(PoisonError::into_inner);
            pushes.keys().cloned().collect()
        }
        _ => serde_json::to_value(cluster.asked())?,
    };
    Ok(json_answer(200, &body))
}

fn json_answer(status: u16, body: &Value) -> Response<Answer> {
    let bytes = if body.is_null() { None } else { Some(Bytes::from(body.to_string())) };
    let mut response = Response::new(Answer::Whole(bytes));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn answered(refused: Refused) -> Response<Answer> {
    let mut response = json_answer(refused.status, &refused.body);
    if let Some(seconds) = refused.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

async fn route(cluster: &Arc<Cluster>, call: Call, words: &str) -> Result<Response<Answer>, Refused> {
    let path = call.path.as_str();
    if path.starts_with("/chc/") {
        return Ok(json_answer(200, &json!({})));
    }
    let open = ["/healthcheck", "/v1/metadata", "/v1/metadata/id"].contains(&path);
    if let Some((name, password)) = &cluster.options.login
        && !open
    {
        let expected = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        if call.authorized.as_deref() != Some(&format!("Basic {expected}")) {
            return Err(Refused::generic(401, 40100, "Unauthorized"));
        }
    }
    if let Some(code) = cluster.switches().away {
        let mut refused = Refused::generic(503, code, "not yet ready, or no more, to serve requests");
        refused.retry_after = (code == 50302).then_some(10);
        return Err(refused);
    }
    if let Some(refuse) = cluster.refusal_for(words) {
        return Err(Refused { status: refuse.status, body: refuse.body, retry_after: refuse.retry_after });
    }
    match (&call.method, path) {
        (&Method::GET, "/") => {
            let mut response = json_answer(307, &Value::Null);
            response.headers_mut().insert(LOCATION, hyper::header::HeaderValue::from_static("/info"));
            Ok(response)
        }
        (&Method::GET, "/info") => {
            let status = if cluster.switches().degraded { "DEGRADED" } else { "RUNNING" };
            let (service, id) = (&cluster.options.service_id, "stand-in-kafka-cluster");
            let info =
                json!({ "version": "7.6.0", "kafkaClusterId": id, "ksqlServiceId": service, "serverStatus": status });
            Ok(json_answer(200, &json!({ "KsqlServerInfo": info })))
        }
        (&Method::GET, "/healthcheck") => {
            let healthy = json!({ "isHealthy": !cluster.switches().degraded });
            let details =
                json!({ "metastore": { "isHealthy": true }, "kafka": { "isHealthy": true }, "commandRunner": healthy });
            let body = json!({ "isHealthy": healthy["isHealthy"], "details": details, "serverState": "READY" });
            Ok(json_answer(200, &body))
        }
        (&Method::GET, "/status") => {
            let words: Map<String, Value> =
                cluster.statuses().into_iter().map(|(id, status)| (id, status.status.into())).collect();
            Ok(json_answer(200, &json!({ "commandStatuses": words })))
        }
        (&Method::GET, _) if path.starts_with("/status/") => {
            let id = path["/status/".len()..].replace("%60", "`");
            let missing = || Refused::generic(404, 40400, "Command not found");
            let status = cluster.statuses().remove(&id).ok_or_else(missing)?;
            Ok(json_answer(200, &json!(status)))
        }
        (&Method::GET, _) if path.starts_with("/is_valid_property/") => {
            let name = path["/is_valid_property/".len()..].to_owned();
            allowed(cluster, [&name].into_iter())?;
            Ok(json_answer(200, &true.into()))
        }
        (&Method::POST, "/ksql") => {
            let cluster = Arc::clone(cluster);
            let run = tokio::task::spawn_blocking(move || statements(&cluster, &call));
            let entities = run.await.map_err(|error| Refused::generic(500, 50000, error.to_string()))??;
            Ok(json_answer(200, &entities))
        }
        (&Method::POST, "/query-stream") => query_stream(cluster, &call),
        (&Method::POST, "/close-query") => close_query(cluster, &call.body),
        _ => Err(Refused::bare(404)),
    }
}

fn allowed<'a>(cluster: &Cluster, mut names: impl Iterator<Item = &'a String>) -> Result<(), Refused> {
    let switches = cluster.switches();
    match names.find(|name| switches.denied.contains(name)) {
        Some(name) => Err(Refused::generic(400, 40000, format!("An override is prohibited: [{name}]"))),
        None => Ok(()),
    }
}

fn close_query(cluster: &Cluster, body: &Value) -> Result<Response<Answer>, Refused> {
    let id = body["queryId"].as_str().unwrap_or_default();
    let pushes = cluster.pushes.lock().unwrap_or_else(PoisonError::into_inner);
    let push = pushes.get(id).ok_or_else(|| Refused::generic(400, 40000, format!("No query with id {id}")))?;
    push.control.stop.store(true, std::sync::atomic::Ordering::Release);
    Ok(json_answer(200, &Value::Null))
}

fn query_stream(cluster: &Arc<Cluster>, call: &Call) -> Result<Response<Answer>, Refused> {
    if call.version == Version::HTTP_10 {
        return Err(Refused::generic(400, 40000, "only available with HTTP1.1 or HTTP2"));
    }
    let form = call.form.ok_or_else(|| Refused::bare(406))?;
    if !call.body["sql"].is_string() {
        return Err(Refused::generic(400, 40000, "Invalid JSON in request: no 'sql'"));
    }
    let text = call.statement.as_str();
    let pieces = pieces(text).map_err(|refused| refused.glued(text))?;
    let [(piece, statement)] = pieces.as_slice() else {
        let why = format!("Expected exactly one statement; found {} instead", pieces.len());
        return Err(Refused::statement(why, text).glued(text));
    };
    let Statement::Select(select) = statement else {
        return Err(Refused::statement("Neither a query nor a print statement", text).glued(text));
    };
    let properties = call.body["properties"].as_object().cloned().unwrap_or_default();
    allowed(cluster, properties.keys())?;
    let answer = rows::begin(cluster, select, &piece.text, &properties, form)?;
    let mut response = Response::new(answer);
    let kind = if form == Form::JsonRows { JSON_ROWS } else { DELIMITED };
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

fn pieces(text: &str) -> Result<Vec<(Piece, Statement)>, Refused> {
    let syntax = |line: usize, column: usize, what: &str| {
        let failing = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        Refused::statement(format!("line {line}:{column}: Syntax Error\n{what}"), failing)
    };
    let pieces = tokens::statements(text).map_err(|(line, column, what)| syntax(line, column, &what))?;
    let mut read = Vec::new();
    for piece in pieces {
        let statement = parse::statement(&piece).map_err(|wrong| syntax(wrong.line, wrong.column, &wrong.what))?;
        read.push((piece, statement));
    }
    Ok(read)
}

/// Runs the statements of a request, all of them: this is the hole that users' text must not reach.
fn statements(cluster: &Cluster, call: &Call) -> Result<Value, Refused> {
    if serde_json::from_slice::<Value>(&call.bytes).is_err() {
        return Err(Refused::generic(400, 40000, "Invalid JSON in request: it does not end"));
    }
    let pieces = pieces(&call.statement)?;
    let properties = call.body["streamsProperties"].as_object().cloned().unwrap_or_default();
    allowed(cluster, properties.keys())?;
    let changes = |statement: &Statement| {
        matches!(statement, Statement::Create(_) | Statement::Drop { .. } | Statement::Command(..))
    };
    let mut topics = Topics::new();
    if pieces.iter().any(|(_, statement)| matches!(statement, Statement::Create(_))) {
        topics = cluster.brokers.topics().map_err(|error| answers::hidden(&error, &call.statement))?;
    }
    let (mut rehearsed, mut rehearsed_topics) = (cluster.catalog(), topics.clone());
    for (piece, statement) in &pieces {
        if changes(statement) && !is_transient(statement) {
            if cluster.switches().degraded {
                let why =
                    "Failed to handle it: the command topic is damaged, and this server cannot process further DDL";
                return Err(Refused::of_statement(500, 50000, why, &piece.text));
            }
            cluster.rehearse(&mut rehearsed, piece, statement, &properties, &mut rehearsed_topics)?;
        } else if matches!(statement, Statement::Select(_) | Statement::Print) {
            let why = "A query should be issued to the websocket endpoint, or another that gives rows";
            return Err(Refused::of_statement(400, 40002, why, &piece.text));
        } else if !is_transient(statement) {
            answers::shown(cluster, &rehearsed, statement, &piece.text)?;
        }
    }
    let mut entities = Vec::new();
    for (piece, statement) in &pieces {
        let mut entity = match statement {
            _ if is_transient(statement) => end_transient(cluster, statement)?,
            Statement::Drop { name, delete_topic: true, .. } => {
                delete_topic(cluster, name, &piece.text)?;
                command(cluster, piece, statement, &properties, &mut topics)?
            }
            _ if changes(statement) => command(cluster, piece, statement, &properties, &mut topics)?,
            _ => answers::shown(cluster, &cluster.catalog(), statement, &piece.text)?,
        };
        if entity.get("statementText").is_none() {
            entity["statementText"] = piece.text.as_str().into();
        }
        let warnings = cluster.switches().degraded.then(|| json!({ "message": "the command topic is damaged" }));
        entity["warnings"] = warnings.into_iter().collect();
        entities.push(entity);
    }
    Ok(entities.into())
}

fn command(
    cluster: &Cluster,
    piece: &Piece,
    statement: &Statement,
    properties: &Map<String, Value>,
    topics: &mut Topics,
) -> Result<Value, Refused> {
    let done = cluster.command(piece, statement, properties, topics);
    Ok(answers::commanded(&done.map_err(|error| answers::hidden(&error, &piece.text))?))
}

fn is_transient(statement: &Statement) -> bool {
    matches!(statement, Statement::Command("TERMINATE", id) if id.contains("TRANSIENT") || id.contains("transient"))
}

fn end_transient(cluster: &Cluster, statement: &Statement) -> Result<Value, Refused> {
    let Statement::Command(_, wanted) = statement else { return Err(Refused::bare(500)) };
    let pushes = cluster.pushes.lock().unwrap_or_else(PoisonError::into_inner);
    let found = pushes.iter().find(|(id, _)| id.eq_ignore_ascii_case(wanted));
    let missing = || Refused::generic(400, 40000, format!("Failed to terminate query with query ID: '{wanted}'"));
    let (id, push) = found.ok_or_else(missing)?;
    push.control.stop.store(true, std::sync::atomic::Ordering::Release);
    Ok(json!({ "@type": "terminate_query", "queryId": id, "wasTerminated": true }))
}

/// The topic goes before the stream does, as with the real server.
fn delete_topic(cluster: &Cluster, name: &str, text: &str) -> Result<(), Refused> {
    let catalog = cluster.catalog();
    let Some(source) = catalog.sources.get(name) else {
        return Err(Refused::generic(400, 40000, format!("Could not find source to delete topic for: {name}")));
    };
    let shared = catalog.sources.values().find(|other| other.name != name && other.topic == source.topic);
    if let Some(other) = shared {
        let why = format!("Refusing to delete topic. Another ({}) using topic {}", other.name, source.topic);
        return Err(Refused::of_statement(500, 50000, why, text));
    }
    let deleted = cluster.brokers.delete_topic(&source.topic);
    tokio::runtime::Handle::current().block_on(deleted).map_err(|error| answers::hidden(&error, text))
}
