//! What is asked over the hub, in the audit log: each query, each stream that is viewed and each topic that is joined, and those
//! that were refused. They are no calls of HTTP, so nobody else notes them.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use crate::login::audit::AuditLog;
use crate::manager::hub::{Call, Client, HubService, Items, Method};
use crate::store::audit::AuditEntry;

/// Methods that show rows, as they are noted.
const NOTED: [&str; 3] = ["ExecuteAdHoc", "ViewStream", "JoinStreamGroup"];
/// The one that asks for more than reading.
const QUERIES: &str = "ExecuteAdHoc";
/// Characters of what was asked for that are noted.
const MOST_CHARS: usize = 1_000;

/// A service whose calls are noted.
pub struct Audited<S> {
    service: S,
    note: Arc<dyn Fn(AuditEntry) + Send + Sync>,
}

impl<S: HubService> Audited<S> {
    /// Notes what is asked of `service` in this log.
    pub fn new(service: S, log: AuditLog) -> Audited<S> {
        Audited { service, note: Arc::new(move |entry| log.note(entry)) }
    }
}

/// The entry of a call, but for how it ends; `None` if it shows no rows.
fn begun(call: &Call) -> Option<AuditEntry> {
    let method = NOTED.into_iter().find(|name| name.eq_ignore_ascii_case(&call.target))?;
    let asked = call.arguments.first().and_then(Value::as_str).unwrap_or_default();
    Some(AuditEntry {
        at: Timestamp::now(),
        principal: call.caller.name.clone(),
        method: "HUB".to_owned(),
        route: format!("/hub/stream {method}"),
        // The log takes no NUL, and a statement may be as long as it likes until the gate has seen it.
        target: asked.chars().filter(|letter| *letter != '\0').take(MOST_CHARS).collect(),
        status: 200,
        code: None,
        trace_id: call.client.id().0.to_string(),
        address: call.caller.address.clone(),
        calls: 1,
    })
}

impl<S> Audited<S> {
    fn end(&self, entry: Option<AuditEntry>, (is_done, may_develop): (bool, bool)) {
        let Some(mut entry) = entry else { return };
        let lacks_role = !may_develop && entry.route.ends_with(QUERIES);
        (entry.status, entry.code) = match (is_done, lacks_role) {
            (true, _) => (200, None),
            (false, true) => (403, Some("role_missing".to_owned())),
            (false, false) => (422, Some("hub_call_refused".to_owned())),
        };
        (self.note)(entry);
    }
}

#[async_trait]
impl<S: HubService> HubService for Audited<S> {
    fn method(&self, target: &str) -> Option<Method> {
        self.service.method(target)
    }

    async fn invoke(&self, call: Call) -> Result<Value, String> {
        let (entry, may_develop) = (begun(&call), call.caller.may_develop);
        let outcome = self.service.invoke(call).await;
        self.end(entry, (outcome.is_ok(), may_develop));
        outcome
    }

    async fn stream(&self, call: Call) -> Result<Items, String> {
        let (entry, may_develop) = (begun(&call), call.caller.may_develop);
        let outcome = self.service.stream(call).await;
        self.end(entry, (outcome.is_ok(), may_develop));
        outcome
    }

    fn left(&self, client: &Client) {
        self.service.left(client);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use futures_util::{StreamExt, stream};
    use serde_json::json;

    use super::*;
    use crate::manager::hub::{Caller, ConnectionId};

    /// Takes one statement, from developers.
    pub struct Service;

    #[async_trait]
    impl HubService for Service {
        fn method(&self, _: &str) -> Option<Method> {
            Some(Method::Plain)
        }

        async fn invoke(&self, _: Call) -> Result<Value, String> {
            Ok(Value::Null)
        }

        async fn stream(&self, call: Call) -> Result<Items, String> {
            match call.caller.may_develop && call.arguments[0] == "SELECT 1" {
                true => Ok(stream::empty().boxed()),
                false => Err("no".to_owned()),
            }
        }

        fn left(&self, _: &Client) {}
    }

    #[tokio::test]
    async fn each_query_is_noted_with_who_asked_and_how_it_ended() {
        let noted = Arc::<Mutex<Vec<AuditEntry>>>::default();
        let log = Arc::clone(&noted);
        let service = Audited { service: Service, note: Arc::new(move |entry| log.lock().unwrap().push(entry)) };
        let call = |target: &str, argument: &str, may_develop: bool| {
            let caller = Caller {
                name: Some("ada".to_owned()),
                counted_as: "ada".to_owned(),
                address: "192.0.2.1".to_owned(),
                may_develop,
                may_operate: false,
            };
            let client = Client::new(ConnectionId("c1".into())).0;
            Call { client, caller: Arc::new(caller), target: target.to_owned(), arguments: vec![json!(argument)] }
        };
        assert!(service.stream(call("executeAdHoc", "SELECT 1", true)).await.is_ok());
        assert!(service.stream(call("ExecuteAdHoc", "DROP\0 x", true)).await.is_err());
        assert!(service.stream(call("ExecuteAdHoc", "SELECT 1", false)).await.is_err());
        assert!(service.invoke(call("JoinStreamGroup", "orders", false)).await.is_ok());
        assert!(service.invoke(call("GetQueryLimits", "", false)).await.is_ok());
        let noted = noted.lock().unwrap();
        let told: Vec<_> = noted.iter().map(|one| (one.route.as_str(), one.target.as_str(), one.status)).collect();
        let expected = [
            ("/hub/stream ExecuteAdHoc", "SELECT 1", 200),
            ("/hub/stream ExecuteAdHoc", "DROP x", 422),
            ("/hub/stream ExecuteAdHoc", "SELECT 1", 403),
            ("/hub/stream JoinStreamGroup", "orders", 200),
        ];
        assert_eq!(told, expected);
        assert!(noted.iter().all(|one| one.principal.as_deref() == Some("ada") && one.address == "192.0.2.1"));
    }
}
