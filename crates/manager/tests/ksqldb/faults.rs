//! Answers that are late, lost, queued or refused.

use std::time::Duration;

use serde_json::json;
use streamview_lab::ksqldb_stand_in::{Options, Refuse, Switches};
use streamview_manager::engines::ksqldb::{Ksqldb, Patience};
use streamview_manager::engines::{Changes, Deployment, Engine, StopMode, Stopped, Trouble};
use streamview_manager::gate::Kind;
use streamview_manager::settings::KsqldbSettings;

use crate::support::{World, patience, until};

const ALL: &str = "SELECT * FROM orders";

fn creations(world: &World, deployment: &Deployment) -> usize {
    world.sent(&format!("CREATE STREAM {}", deployment.names.sink())).len()
}

/// Its status was asked for before it was sent, and after that.
async fn asked_again(world: &World) {
    let looks = || async {
        let asked = world.server.asked().unwrap();
        (asked.iter().filter(|asked| asked.what.contains("/status/")).count() > 1).then_some(())
    };
    until("a look at its status", looks).await;
}

#[tokio::test]
async fn a_lost_answer_is_looked_for_and_nothing_is_sent_twice() {
    let world = World::start().await;
    let deployment = world.deployment("Lost", ALL, Changes::Append).await;
    let words = format!("CREATE STREAM {}", deployment.names.sink());
    world.switch(Switches { lose_answer_of: Some(words), ..Switches::default() });

    assert!(matches!(world.engine.deploy(&deployment).await, Err(Trouble::Unknown(_))));
    let handle = world.deploy(&deployment).await;

    assert_eq!(creations(&world, &deployment), 1);
    assert_eq!(world.deploy(&deployment).await, handle);
    assert_eq!(creations(&world, &deployment), 1);
}

#[tokio::test]
async fn a_lost_request_is_sent_again() {
    let world = World::start().await;
    let deployment = world.deployment("Lost too", ALL, Changes::Append).await;
    let words = format!("CREATE STREAM {}", deployment.names.sink());
    world.switch(Switches { lose_request_of: Some(words), ..Switches::default() });
    assert!(matches!(world.engine.deploy(&deployment).await, Err(Trouble::Unknown(_))));
    world.deploy(&deployment).await;
    assert_eq!(creations(&world, &deployment), 2);
}

#[tokio::test]
async fn a_late_answer_leaves_open_what_happened() {
    let world = World::start().await;
    let deployment = world.deployment("Late", ALL, Changes::Append).await;
    world.engine.prepare(&deployment.select).await.unwrap();
    let slow = (format!("CREATE STREAM {}", deployment.names.sink()), 30_000);
    world.switch(Switches { slow: Some(slow), ..Switches::default() });
    // What is not late has to come within this time, too.
    let hasty = Patience { command: Duration::from_secs(3), ..patience() };
    let hasty = Ksqldb::new(world.settings.clone(), hasty).unwrap();

    assert!(matches!(hasty.deploy(&deployment).await, Err(Trouble::Unknown(_))));
    world.deploy(&deployment).await;
    assert_eq!(creations(&world, &deployment), 1);
}

#[tokio::test]
async fn a_queued_command_is_waited_for() {
    let world = World::start().await;
    let deployment = world.deployment("Queued", ALL, Changes::Append).await;
    world.engine.prepare(&deployment.select).await.unwrap();
    world.switch(Switches { hold: true, ..Switches::default() });

    let (handle, ()) = tokio::join!(world.engine.deploy(&deployment), async {
        asked_again(&world).await;
        world.switch(Switches::default());
    });

    assert!(handle.unwrap().job_id.starts_with("CSAS_"));
    assert_eq!(creations(&world, &deployment), 1);
}

#[tokio::test]
async fn a_command_that_stays_queued_is_unknown_and_adopted_later() {
    let world = World::start().await;
    let deployment = world.deployment("Stuck", ALL, Changes::Append).await;
    world.engine.prepare(&deployment.select).await.unwrap();
    world.switch(Switches { hold: true, ..Switches::default() });
    let hasty = Ksqldb::new(world.settings.clone(), Patience { queued: Duration::ZERO, ..patience() }).unwrap();

    for _ in 0..2 {
        assert!(matches!(hasty.deploy(&deployment).await, Err(Trouble::Unknown(_))));
    }
    world.switch(Switches::default());
    world.deploy(&deployment).await;

    assert_eq!(creations(&world, &deployment), 1, "what waits is not sent again");
}

#[tokio::test]
async fn a_queued_command_that_fails_says_why_in_one_line() {
    let world = World::start().await;
    let deployment = world.deployment("Fails", ALL, Changes::Append).await;
    world.engine.prepare(&deployment.select).await.unwrap();
    world.switch(Switches {
        hold: true,
        held_fail: Some("org.example.Odd: no room".to_owned()),
        ..Switches::default()
    });
    let (outcome, ()) = tokio::join!(world.engine.deploy(&deployment), async {
        asked_again(&world).await;
        world.switch(Switches::default());
    });
    let Err(Trouble::Refused(refusal)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((refusal.code.as_str(), refusal.message.as_str()), ("failed_in_engine", "org.example.Odd: no room"));
}

#[tokio::test]
async fn a_server_that_starts_is_unavailable_and_nothing_was_done() {
    let world = World::start().await;
    let deployment = world.deployment("Early", ALL, Changes::Append).await;
    for code in [50302, 50303] {
        world.switch(Switches { away: Some(code), ..Switches::default() });
        let Err(Trouble::Unavailable(why)) = world.engine.deploy(&deployment).await else { panic!("{code}") };
        assert!(why.contains(&code.to_string()), "{why}");
        assert!(matches!(world.engine.observe().await, Err(Trouble::Unavailable(_))));
    }
    world.switch(Switches::default());
    world.deploy(&deployment).await;
}

#[tokio::test]
async fn a_wrong_password_names_the_setting_and_not_the_password() {
    let login = Some(("ops".to_owned(), "right".to_owned()));
    let world = World::with(Options { login, ..Options::default() }).await;
    world.engine.capabilities().await.unwrap();
    let settings = KsqldbSettings { password: "wrong-secret".to_owned(), ..world.settings.clone() };
    let other = Ksqldb::new(settings, patience()).unwrap();
    let Err(Trouble::Unavailable(why)) = other.capabilities().await else { panic!("it is wrong") };
    assert!(why.contains("ksqldb.password") && !why.contains("wrong-secret"), "{why}");
    assert!(world.query(ALL, true).await.is_ok(), "queries log in too");
}

#[tokio::test]
async fn where_nobody_listens_nothing_happened() {
    let mut world = World::start().await;
    let deployment = world.deployment("Gone", ALL, Changes::Append).await;
    world.server.kill_hard().unwrap();
    assert!(matches!(world.engine.deploy(&deployment).await, Err(Trouble::Unavailable(_))));
    assert!(matches!(world.query(ALL, true).await, Err(Trouble::Unavailable(_))));
}

#[tokio::test]
async fn limits_say_busy_and_statements_of_the_same_code_do_not() {
    let world = World::start().await;
    let deployment = world.deployment("Limited", ALL, Changes::Append).await;
    world.switch(Switches { max_persistent_queries: Some(0), ..Switches::default() });
    assert!(matches!(world.engine.deploy(&deployment).await, Err(Trouble::Busy { .. })));

    let body = json!({ "@type": "generic_error", "error_code": 42900, "message": "rate limit" });
    let refuse =
        Refuse { words: "CREATE STREAM VIEW".to_owned(), times: Some(1), status: 429, body, retry_after: Some(7) };
    world.switch(Switches { refuse: vec![refuse], ..Switches::default() });
    let Err(Trouble::Busy { retry_after, .. }) = world.engine.deploy(&deployment).await else { panic!("busy") };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));

    let reset = "ksql.streams.auto.offset.reset".to_owned();
    world.switch(Switches { denied: vec![reset], ..Switches::default() });
    let Err(Trouble::Refused(refusal)) = world.engine.deploy(&deployment).await else { panic!("refused") };
    assert_eq!(refusal.code, "property_prohibited");
    world.switch(Switches::default());
    world.deploy(&deployment).await;
}

#[tokio::test]
async fn a_bare_500_leaves_a_deployment_open_and_a_topic_that_was_not_written_does_not() {
    let world = World::start().await;
    let deployment = world.deployment("Failing", ALL, Changes::Append).await;
    world.engine.prepare(&deployment.select).await.unwrap();
    for (message, is_open) in [("odd", true), ("Could not write the statement X into\n\tthe command topic.", false)] {
        let body = json!({ "@type": "statement_error", "error_code": 50000, "message": message });
        let refuse = Refuse { words: "CREATE STREAM".to_owned(), times: Some(1), status: 500, body, retry_after: None };
        world.switch(Switches { refuse: vec![refuse], ..Switches::default() });
        let outcome = world.engine.deploy(&deployment).await;
        assert_eq!(matches!(outcome, Err(Trouble::Unknown(_))), is_open, "{outcome:?}");
        assert_eq!(matches!(outcome, Err(Trouble::Unavailable(_))), !is_open, "{outcome:?}");
    }
    world.switch(Switches { degraded: true, ..Switches::default() });
    assert!(matches!(world.engine.deploy(&deployment).await, Err(Trouble::Unavailable(_))));
}

#[tokio::test]
async fn what_was_stopped_by_hand_has_stopped() {
    let world = World::start().await;
    let deployment = world.deployment("By hand", ALL, Changes::Append).await;
    let handle = world.deploy(&deployment).await;
    world.by_hand(&format!("TERMINATE {};", handle.job_id)).await;
    for mode in [StopMode::KeepState, StopMode::Final] {
        let stopped = world.engine.stop(&deployment, &handle, mode).await.unwrap();
        assert_eq!(stopped, Stopped::WithoutState);
    }
}

#[tokio::test]
async fn a_refusal_has_its_place_in_the_users_text() {
    let world = World::start().await;
    let select = world.gated("SELECT order_id,\n  customer + nonsense AS x\nFROM orders", Kind::Persistent);
    let body = json!({ "@type": "statement_error", "error_code": 40001, "message": "line 3:14: Column is odd" });
    let refuse = Refuse { words: "EXPLAIN".to_owned(), times: None, status: 400, body, retry_after: None };
    world.switch(Switches { refuse: vec![refuse], ..Switches::default() });
    world.engine.prepare(&select).await.unwrap();
    let Err(Trouble::Refused(refusal)) = world.engine.explain(&select).await else { panic!("refused") };
    assert_eq!((refusal.line, refusal.column), (Some(2), Some(14)));
    assert_eq!(refusal.message, "Column is odd");
}
