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

/// A call that is under way. Dropped before it has ended, as a caller does who cancels it or goes away, it is noted as such.
struct UnderWay<'n> {
    entry: Option<AuditEntry>,
    may_develop: bool,
    note: &'n (dyn Fn(AuditEntry) + Send + Sync),
}

impl UnderWay<'_> {
    fn end(mut self, is_done: bool) {
        let Some(mut entry) = self.entry.take() else { return };
        let lacks_role = !self.may_develop && entry.route.ends_with(QUERIES);
        (entry.status, entry.code) = match (is_done, lacks_role) {
            (true, _) => (200, None),
            (false, true) => (403, Some("role_missing".to_owned())),
            (false, false) => (422, Some("hub_call_refused".to_owned())),
        };
        (self.note)(entry);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            (self.note)(entry.cancelled());
        }
    }
}

impl<S> Audited<S> {
    fn begin(&self, call: &Call) -> UnderWay<'_> {
        UnderWay { entry: begun(call), may_develop: call.caller.may_develop, note: &*self.note }
    }
}

#[async_trait]
impl<S: HubService> HubService for Audited<S> {
    fn method(&self, target: &str) -> Option<Method> {
        self.service.method(target)
    }

    async fn invoke(&self, call: Call) -> Result<Value, String> {
        let under_way = self.begin(&call);
        let outcome = self.service.invoke(call).await;
        under_way.end(outcome.is_ok());
        outcome
    }

    async fn stream(&self, call: Call) -> Result<Items, String> {
        let under_way = self.begin(&call);
        let outcome = self.service.stream(call).await;
        under_way.end(outcome.is_ok());
        outcome
    }

    fn left(&self, client: &Client) {
        self.service.left(client);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use futures_util::{FutureExt, StreamExt, stream};
    use serde_json::json;

    use super::*;
    use crate::manager::hub::{Caller, ConnectionId};

    /// Takes one statement, from developers; another one never begins.
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
            if call.arguments[0] == "HANGS" {
                return std::future::pending().await;
            }
            match call.caller.may_develop && call.arguments[0] == "SELECT 1" {
                true => Ok(stream::empty().boxed()),
                false => Err("no".to_owned()),
            }
        }

        fn left(&self, _: &Client) {}
    }

    fn noting() -> (Audited<Service>, Arc<Mutex<Vec<AuditEntry>>>) {
        let noted = Arc::<Mutex<Vec<AuditEntry>>>::default();
        let log = Arc::clone(&noted);
        (Audited { service: Service, note: Arc::new(move |entry| log.lock().unwrap().push(entry)) }, noted)
    }

    fn call(target: &str, argument: &str, may_develop: bool) -> Call {
        let caller = Caller {
            name: Some("ada".to_owned()),
            counted_as: "ada".to_owned(),
            address: "192.0.2.1".to_owned(),
            may_develop,
            may_operate: false,
        };
        let client = Client::new(ConnectionId("c1".into())).0;
        Call { client, caller: Arc::new(caller), target: target.to_owned(), arguments: vec![json!(argument)] }
    }

    #[tokio::test]
    async fn a_query_that_is_cancelled_before_its_engine_answers_is_noted_too() {
        let (service, noted) = noting();
        assert!(service.stream(call("ExecuteAdHoc", "HANGS", true)).now_or_never().is_none());
        let noted = noted.lock().unwrap();
        let told: Vec<_> = noted.iter().map(|one| (one.target.as_str(), one.status, one.code.as_deref())).collect();
        assert_eq!(told, [("HANGS", 499, Some("cancelled"))]);
    }

    #[tokio::test]
    async fn each_query_is_noted_with_who_asked_and_how_it_ended() {
        let (service, noted) = noting();
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
