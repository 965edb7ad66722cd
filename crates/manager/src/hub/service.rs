//! What is behind a hub: the methods that clients may call. Who implements it knows nothing of the protocol.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde_json::Value;

use super::client::Client;

/// What a method gives: a client takes them one after the other. Most are JSON that stands in a text, twice encoded. An error
/// is one sentence for people and ends the stream.
///
/// It is dropped as soon as nobody wants it any more: cancelled, connection closed or lost. So whatever it holds has to end
/// when it is dropped.
pub type Items = BoxStream<'static, Result<String, String>>;

/// How a method answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Once.
    Plain,
    /// With a stream.
    Streaming,
}

/// Who calls, and what they may.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// Who has logged in; `None` where nobody does, or anonymous callers may read.
    pub name: Option<String>,
    /// As whom they are counted where there are limits: the name, or where they come from.
    pub counted_as: String,
    /// The address that they come from.
    pub address: String,
    /// Whether they may query and define (the role `developer`).
    pub may_develop: bool,
    /// Whether they may decide about what belongs to others (the role `operator`).
    pub may_operate: bool,
}

/// One call. Whoever calls may read.
#[derive(Debug, Clone)]
pub struct Call {
    /// The connection that it comes by; can be kept to send it something later.
    pub client: Client,
    /// Who calls.
    pub caller: Arc<Caller>,
    /// The method as it was spelled; compare it without case.
    pub target: String,
    /// What it is given.
    pub arguments: Vec<Value>,
}

/// The methods. Errors are one sentence for people: the client shows them as they are.
#[async_trait]
pub trait HubService: Send + Sync {
    /// How the method of this name, in any case, answers; `None` if there is none.
    fn method(&self, target: &str) -> Option<Method>;

    /// Calls a plain method; `Value::Null` if it gives nothing. The calls of one connection are made one after the other.
    async fn invoke(&self, call: Call) -> Result<Value, String>;

    /// Calls a streaming method. The future is dropped if the caller cancels before it gives a stream.
    async fn stream(&self, call: Call) -> Result<Items, String>;

    /// The connection has ended, however it did, and calls nothing any more: forget it. Called once for each connection that
    /// came to its handshake.
    fn left(&self, client: &Client);
}
