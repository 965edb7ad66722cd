//! The engine on the broker of the playground, which knows neither transactions nor groups that could be deleted.

use streamview::config::Config;
use streamview::embedded::log::{Delivery, Log};
use streamview::platforms::kafka::embedded::JobLog;
use streamview_lab::servers::broker::PlaygroundBroker;

/// Asked all the same, the client would end this process.
#[test]
fn a_broker_that_cannot_delete_groups_is_not_asked_to() {
    let broker = PlaygroundBroker::start(&[("orders", 1)]).unwrap();
    let mut settings = Config::defaults().kafka;
    broker.bootstrap_servers().clone_into(&mut settings.bootstrap_servers);
    let log = JobLog::new(&settings, Delivery::AtLeastOnce, |_| {});
    for groups in [&["streamview-a"][..], &["streamview-a", "streamview-b"]] {
        let groups: Vec<String> = groups.iter().map(|name| (*name).to_owned()).collect();
        assert!(log.delete_groups(&groups).is_ok(), "what cannot be deleted is left");
    }
}
