//! The engine on the broker of the playground, which knows neither transactions nor groups that could be deleted.

use streamview::config::Config;
use streamview::embedded::log::{Delivery, Log};
use streamview::manager::ports::{Kafka, PortError};
use streamview::platforms::kafka::embedded::JobLog;
use streamview::platforms::kafka::topics::Topics;
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

/// Nor does it know how to list them, and says so; asking again and again does no harm.
#[tokio::test]
async fn a_broker_that_cannot_list_groups_is_named_as_such() {
    let broker = PlaygroundBroker::start(&[("orders", 1)]).unwrap();
    let mut settings = Config::defaults().kafka;
    broker.bootstrap_servers().clone_into(&mut settings.bootstrap_servers);
    let topics = Topics::new(&settings);
    for _ in 0..3 {
        let Err(PortError::Refused(why)) = topics.consumers("orders", 50).await else { panic!("it is refused") };
        assert!(why.starts_with("this broker cannot list consumer groups"), "{why}");
    }
}
