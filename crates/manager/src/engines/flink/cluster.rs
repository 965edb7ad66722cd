//! Which cluster answers. Flink has no name for itself: what tells clusters apart is where one keeps its jobs to survive its
//! own end (high availability), or the name that Kubernetes knows it by, or else the address that it is reached at.

use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use super::Inner;
use crate::engines::Trouble;

const PATIENCE: Duration = Duration::from_secs(10);

/// One setting of the JobManager.
#[derive(Debug, Deserialize)]
struct Setting {
    key: String,
    value: String,
}

/// Asks the JobManager for its settings, by one request.
pub(super) async fn cluster(flink: &Inner) -> Result<String, Trouble> {
    let server = &flink.jobmanager.server;
    let answer = server.get("/jobmanager/config", PATIENCE).await.map_err(super::http::NoAnswer::reading)?;
    let settings: Vec<Setting> = match answer.status {
        200 => answer.read(server.name).map_err(super::http::NoAnswer::reading)?,
        // A proxy may keep them to itself.
        401 | 403 | 404 => Vec::new(),
        status => return Err(Trouble::Unavailable(format!("{} answers with HTTP {status}", server.name))),
    };
    Ok(name(&settings).unwrap_or_else(|| address(server.base())))
}

/// What the settings call it, if they tell it from others.
fn name(settings: &[Setting]) -> Option<String> {
    let value = |key: &str| {
        let found = settings.iter().find(|setting| setting.key == key);
        found.map(|setting| setting.value.trim_matches(['/', ' '])).filter(|value| !value.is_empty())
    };
    let id = value("high-availability.cluster-id").or_else(|| value("kubernetes.cluster-id")).unwrap_or("default");
    match (value("high-availability.storageDir"), value("kubernetes.cluster-id")) {
        (Some(folder), _) => Some(format!("{folder}/{id}")),
        (None, Some(id)) => Some(format!("{}/{id}", value("kubernetes.namespace").unwrap_or("default"))),
        (None, None) => None,
    }
}

/// An address, however it is spelled: without what it means by itself.
pub(super) fn address(base: &str) -> String {
    let Ok(mut url) = Url::parse(base) else { return base.to_owned() };
    // Where these cannot be taken away, there are none.
    let _is_bare = url.set_username("").and_then(|()| url.set_password(None));
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(settings: &str) -> Option<String> {
        name(&serde_json::from_str::<Vec<Setting>>(settings).unwrap())
    }

    #[test]
    fn a_cluster_is_named_by_what_it_keeps_or_is_called() {
        let kept = r#"[{"key": "high-availability.storageDir", "value": "s3://ha/flink/"},
                       {"key": "high-availability.cluster-id", "value": "/blue"}]"#;
        assert_eq!(of(kept).as_deref(), Some("s3://ha/flink/blue"));
        let unnamed = r#"[{"key": "high-availability.storageDir", "value": "s3://ha/flink"}]"#;
        assert_eq!(of(unnamed).as_deref(), Some("s3://ha/flink/default"));
        let pods =
            r#"[{"key": "kubernetes.cluster-id", "value": "blue"}, {"key": "kubernetes.namespace", "value": "a"}]"#;
        assert_eq!(of(pods).as_deref(), Some("a/blue"));
        // Without a place where jobs are kept the id tells nothing: it is the same of all that were not given one.
        assert_eq!(of(r#"[{"key": "high-availability.cluster-id", "value": "/default"}]"#), None);
    }

    #[test]
    fn spellings_of_an_address_are_one() {
        for spelling in ["http://jobs:80", "HTTP://Jobs/", "http://jobs", "http://anna:secret@jobs:80/"] {
            assert_eq!(address(spelling), "http://jobs", "{spelling}");
        }
        assert_ne!(address("http://jobs:8081"), address("http://jobs:8082"));
    }
}
