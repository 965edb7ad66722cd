//! Counts what is asked of the hub as the same is counted over HTTP: whoever may open so many streams a minute opens no more of
//! them by another way.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::api::limits::{Caller, Kind, Limits};
use crate::manager::hub::{Call, Client, HubService, Items, Method};

/// What is counted, in lower case as clients differ, and as what.
const COUNTED: [(&str, Kind); 3] =
    [("executeadhoc", Kind::Definitions), ("viewstream", Kind::Streams), ("joinstreamgroup", Kind::Streams)];

/// A service whose calls are counted.
pub struct Metered {
    service: Arc<dyn HubService>,
    limits: Arc<Limits>,
}

impl Metered {
    /// Counts what is asked of `service`.
    pub fn new(service: Arc<dyn HubService>, limits: Arc<Limits>) -> Metered {
        Metered { service, limits }
    }

    fn count(&self, call: &Call) -> Result<(), String> {
        let counted = COUNTED.iter().find(|(name, _)| name.eq_ignore_ascii_case(&call.target));
        let Some((_, kind)) = counted else { return Ok(()) };
        let caller = match &call.caller.name {
            Some(name) => Caller::Principal(name.clone()),
            None => Caller::at(call.caller.address.parse().ok()),
        };
        match self.limits.spend(*kind, &caller).and_then(|budget| budget.refusal()) {
            Some((why, wait)) => Err(format!("{why}. Come again in {wait} s.")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl HubService for Metered {
    fn method(&self, target: &str) -> Option<Method> {
        self.service.method(target)
    }

    async fn invoke(&self, call: Call) -> Result<Value, String> {
        self.count(&call)?;
        self.service.invoke(call).await
    }

    async fn stream(&self, call: Call) -> Result<Items, String> {
        self.count(&call)?;
        self.service.stream(call).await
    }

    fn left(&self, client: &Client) {
        self.service.left(client);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::hub::audited::tests::Service;
    use crate::config::Config;
    use crate::manager::hub::{Caller as Who, ConnectionId};

    #[tokio::test]
    async fn each_caller_opens_as_many_as_over_http_and_other_calls_are_free() {
        let settings =
            crate::config::RateLimitSettings { streams: 2, definitions: 1, ..Config::defaults().http.rate_limits };
        let limits = Arc::new(Limits::new(&settings));
        let metered = Metered::new(Arc::new(Service), Arc::clone(&limits));
        let call = |name: Option<&str>, target: &str| {
            let (name, address) = (name.map(str::to_owned), "192.0.2.1".to_owned());
            let caller = Arc::new(Who { name, address, may_develop: true, ..Who::default() });
            let client = Client::new(ConnectionId("c1".into())).0;
            Call { client, caller, target: target.to_owned(), arguments: vec![json!("SELECT 1")] }
        };
        assert!(metered.invoke(call(Some("ada"), "JoinStreamGroup")).await.is_ok());
        assert!(metered.stream(call(Some("ada"), "viewStream")).await.is_ok());
        let refused = metered.invoke(call(Some("ada"), "joinstreamgroup")).await.unwrap_err();
        assert!(
            refused.starts_with("Each caller may have 2 streams of changes a minute")
                && refused.contains("Come again in")
        );
        assert!(limits.spend(Kind::Streams, &Caller::Principal("ada".to_owned())).unwrap().is_refused(), "one budget");
        for _ in 0..5 {
            assert!(metered.invoke(call(Some("ada"), "LeaveStreamGroup")).await.is_ok());
        }
        assert!(metered.stream(call(None, "ExecuteAdHoc")).await.is_ok());
        assert!(metered.stream(call(None, "ExecuteAdHoc")).await.is_err());
        assert!(metered.stream(call(Some("eve"), "ExecuteAdHoc")).await.is_ok());
    }
}
