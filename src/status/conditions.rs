//! What each part of a view waits for, and the one state that follows from it. Pure: times come in as arguments.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::domain::meaning::Standing;
use crate::failure::{Halt, Waiting};

/// The state of a view's projector in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewState {
    /// Connecting; nothing assigned yet.
    Starting,
    /// Consuming, or assigned and at the end of the log.
    Running,
    /// Postgres does not answer, or takes nothing; partitions wait, polling goes on.
    WaitingForDatabase,
    /// Kafka does not answer.
    WaitingForKafka,
    /// The schema registry does not answer; records whose schemas are known go on.
    WaitingForRegistry,
    /// Stopped for good until an operator acts: what is wrong and the next step.
    Halted(Halt),
    /// Draining after SIGTERM.
    Stopping,
    /// This process serves reads only: `serve --only api`, or the build is not this binary's to project into.
    NotProjecting,
}

impl ViewState {
    /// The word used in JSON and as a metric label.
    pub fn as_str(&self) -> &'static str {
        match self {
            ViewState::Starting => "starting",
            ViewState::Running => "running",
            ViewState::WaitingForDatabase => "waiting_for_database",
            ViewState::WaitingForKafka => "waiting_for_kafka",
            ViewState::WaitingForRegistry => "waiting_for_registry",
            ViewState::Halted(_) => "halted",
            ViewState::Stopping => "stopping",
            ViewState::NotProjecting => "not_projecting",
        }
    }

    /// Whether it waits for something that is away.
    pub const fn is_waiting(&self) -> bool {
        matches!(self, ViewState::WaitingForDatabase | ViewState::WaitingForKafka | ViewState::WaitingForRegistry)
    }

    /// Every word `as_str` can give, so that each metric series exists from the start.
    pub const NAMES: [&'static str; 8] = [
        "starting",
        "running",
        "waiting_for_database",
        "waiting_for_kafka",
        "waiting_for_registry",
        "halted",
        "stopping",
        "not_projecting",
    ];
}

/// How far a view is in its life, whatever it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is assigned yet.
    Starting,
    /// The group has said what is ours.
    Running,
    /// Draining.
    Stopping,
    /// This process only reads.
    NotProjecting,
}

/// A part of a view that may have to wait. Each waits for one thing at a time, and ends no wait but its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reporter {
    /// Looks for the topic before the group is joined.
    Start,
    /// Takes a seat, by which the instance is known to the group.
    Seat,
    /// The membership of the group.
    Group,
    /// The takeover of that number.
    Takeover(u64),
    /// The lane of that number.
    Lane(usize),
    /// Looks after held keys.
    Keeper,
    /// Skips proven gaps.
    GapPolicy,
    /// The observer's reads: progress and counts.
    Tables,
    /// The observer's questions about where the log ends.
    Log,
}

/// What one part waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What.
    pub waiting: Waiting,
    /// Why, for people; the last words of those that it tries again with.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// What a halt is to a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltIs {
    /// It stops here.
    First,
    /// It has stopped already; one more reason.
    Another,
    /// Nothing new.
    Known,
}

/// Everything that the state of a view follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    phase: Phase,
    halts: Vec<Halt>,
    stands: Option<Standing>,
    waits: BTreeMap<Reporter, Condition>,
}

impl Conditions {
    /// Nobody waits.
    pub fn new(phase: Phase) -> Self {
        Conditions { phase, halts: Vec::new(), stands: None, waits: BTreeMap::new() }
    }

    /// `reporter` waits: for something else than before, or still, with newer words. Tells whether it did not before.
    pub fn report(&mut self, reporter: Reporter, waiting: Waiting, reason: &str, now: Timestamp) -> bool {
        let before = self.waits.get(&reporter).filter(|before| before.waiting == waiting);
        let since = before.map_or(now, |before| before.since);
        self.waits.insert(reporter, Condition { waiting, reason: reason.to_owned(), since }).is_none()
    }

    /// `reporter` waits for nothing any more, or is not there any more.
    pub fn clear(&mut self, reporter: Reporter) {
        self.waits.remove(&reporter);
    }

    /// Going on would be wrong. The first one is shown; others are kept, so that they outlast its end.
    pub fn halt(&mut self, halt: Halt) -> HaltIs {
        let is = match self.halts.first() {
            None => HaltIs::First,
            Some(_) if self.halts.contains(&halt) => return HaltIs::Known,
            Some(_) => HaltIs::Another,
        };
        self.halts.push(halt);
        is
    }

    /// The reason for the halt with that code is gone; tells whether nothing else halts the view, which then starts anew.
    pub fn end_halt(&mut self, code: &str) -> bool {
        let before = self.halts.len();
        self.halts.retain(|halt| halt.code != code);
        let ended = self.halts.len() < before && self.halts.is_empty();
        if ended && self.phase == Phase::Running {
            self.phase = Phase::Starting;
        }
        ended
    }

    /// Nothing is projected here, by name.
    pub fn stand(&mut self, standing: Standing) {
        self.phase = Phase::NotProjecting;
        self.stands = Some(standing);
    }

    /// The group has said what is ours.
    pub fn started(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Running;
        }
    }

    /// The view is told to stop.
    pub fn stopping(&mut self) {
        self.phase = Phase::Stopping;
    }

    /// The state.
    ///
    /// | phase | halt | somebody waits for | state |
    /// |---|---|---|---|
    /// | stopping | any | anything | stopping |
    /// | any other | yes | anything | halted, by the first |
    /// | not projecting | no | anything | not projecting |
    /// | starting, running | no | Postgres, perhaps others for others | waiting for the database |
    /// | starting, running | no | Kafka, perhaps others for the registry | waiting for Kafka |
    /// | starting, running | no | the registry | waiting for the registry |
    /// | starting | no | nothing | starting |
    /// | running | no | nothing | running |
    pub fn state(&self) -> ViewState {
        match (self.phase, self.halts.first(), self.decisive().map(|condition| condition.waiting)) {
            (Phase::Stopping, _, _) => ViewState::Stopping,
            (_, Some(halt), _) => ViewState::Halted(halt.clone()),
            (Phase::NotProjecting, None, _) => ViewState::NotProjecting,
            (_, None, Some(Waiting::Database)) => ViewState::WaitingForDatabase,
            (_, None, Some(Waiting::Kafka)) => ViewState::WaitingForKafka,
            (_, None, Some(Waiting::Registry)) => ViewState::WaitingForRegistry,
            (Phase::Starting, None, None) => ViewState::Starting,
            (Phase::Running, None, None) => ViewState::Running,
        }
    }

    /// The words to the state: of the halt, of the condition that decides, or why nothing is projected.
    pub fn reason(&self) -> Option<&str> {
        match self.state() {
            ViewState::NotProjecting => self.stands.as_ref().map(|standing| standing.detail.as_str()),
            ViewState::Halted(_) => self.halts.first().map(|halt| halt.detail.as_str()),
            waiting if waiting.is_waiting() => self.decisive().map(|condition| condition.reason.as_str()),
            _ => None,
        }
    }

    /// Of those who wait for what counts most, the one who has waited longest: its words do not change when another one
    /// comes or goes.
    fn decisive(&self) -> Option<&Condition> {
        self.waits.values().min_by_key(|condition| (condition.waiting, condition.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn halt(code: &'static str) -> Halt {
        Halt { code, detail: format!("{code}, in words"), next_step: "do something" }
    }

    fn conditions(phase: Phase, halts: &[&'static str], waits: &[(Reporter, Waiting)]) -> Conditions {
        let mut conditions = Conditions::new(phase);
        for code in halts {
            conditions.halt(halt(code));
        }
        for (second, (reporter, waiting)) in waits.iter().enumerate() {
            conditions.report(*reporter, *waiting, &format!("{reporter:?} waits"), at(second as i64));
        }
        conditions
    }

    /// Phase, halts, who waits for what, and the state.
    type Row<'a> = (Phase, &'a [&'static str], &'a [(Reporter, Waiting)], &'a str);

    #[test]
    fn the_state_follows_the_truth_table() {
        use Phase::{NotProjecting, Running, Starting, Stopping};
        let database = (Reporter::Lane(3), Waiting::Database);
        let kafka = (Reporter::Log, Waiting::Kafka);
        let registry = (Reporter::Lane(0), Waiting::Registry);
        let rows: [Row; 16] = [
            (Starting, &[], &[], "starting"),
            (Running, &[], &[], "running"),
            (Stopping, &[], &[], "stopping"),
            (NotProjecting, &[], &[], "not_projecting"),
            (Starting, &[], &[kafka], "waiting_for_kafka"),
            (Running, &[], &[database], "waiting_for_database"),
            (Running, &[], &[kafka], "waiting_for_kafka"),
            (Running, &[], &[registry], "waiting_for_registry"),
            (Running, &[], &[registry, kafka], "waiting_for_kafka"),
            (Running, &[], &[registry, database], "waiting_for_database"),
            (Running, &[], &[registry, kafka, database], "waiting_for_database"),
            (NotProjecting, &[], &[database, kafka], "not_projecting"),
            (Stopping, &["a"], &[database], "stopping"),
            (Starting, &["a"], &[database], "halted"),
            (Running, &["a", "b"], &[registry], "halted"),
            (NotProjecting, &["a"], &[kafka], "halted"),
        ];
        for (phase, halts, waits, state) in rows {
            let found = conditions(phase, halts, waits).state();
            assert_eq!(found.as_str(), state, "{phase:?} {halts:?} {waits:?}");
            assert!(ViewState::NAMES.contains(&state));
        }
    }

    #[test]
    fn one_lane_that_succeeds_ends_no_other_lanes_wait() {
        let waits = [(Reporter::Lane(0), Waiting::Database), (Reporter::Lane(1), Waiting::Database)];
        let mut two = conditions(Phase::Running, &[], &waits);
        two.clear(Reporter::Lane(0));
        assert_eq!((two.state(), two.reason()), (ViewState::WaitingForDatabase, Some("Lane(1) waits")));
        two.clear(Reporter::Tables);
        two.clear(Reporter::Lane(0));
        assert_eq!(two.state(), ViewState::WaitingForDatabase);
        two.clear(Reporter::Lane(1));
        assert_eq!((two.state(), two.reason()), (ViewState::Running, None));
    }

    #[test]
    fn the_words_are_those_of_who_decides_and_stay_while_others_come_and_go() {
        let mut view = conditions(Phase::Running, &[], &[(Reporter::Lane(0), Waiting::Registry)]);
        assert_eq!(view.reason(), Some("Lane(0) waits"));
        view.report(Reporter::Lane(5), Waiting::Database, "the disk is full", at(10));
        assert_eq!(view.reason(), Some("the disk is full"), "Postgres counts more");
        view.report(Reporter::Lane(1), Waiting::Database, "so it is", at(11));
        view.report(Reporter::Keeper, Waiting::Database, "read-only", at(12));
        assert_eq!(view.reason(), Some("the disk is full"), "it has waited longest");
        view.report(Reporter::Lane(5), Waiting::Database, "still full", at(13));
        assert_eq!(view.reason(), Some("still full"), "its last words, its first time");
        view.report(Reporter::Lane(5), Waiting::Kafka, "no broker", at(14));
        assert_eq!(view.reason(), Some("so it is"), "it waits for something else now");
    }

    #[test]
    fn a_lane_waits_for_one_thing_at_a_time() {
        let mut view = conditions(Phase::Running, &[], &[(Reporter::Lane(0), Waiting::Database)]);
        view.report(Reporter::Lane(0), Waiting::Registry, "no schema", at(1));
        assert_eq!(view.state(), ViewState::WaitingForRegistry);
        view.clear(Reporter::Lane(0));
        assert_eq!(view.state(), ViewState::Running);
    }

    #[test]
    fn a_view_that_stands_still_says_why_whatever_else_is_waited_for() {
        let mut view = conditions(Phase::Starting, &[], &[(Reporter::Tables, Waiting::Database)]);
        view.stand(Standing { code: "projection_version_differs", detail: "another version".to_owned() });
        view.started();
        assert_eq!((view.state(), view.reason()), (ViewState::NotProjecting, Some("another version")));
        assert_eq!(conditions(Phase::NotProjecting, &[], &[]).reason(), None, "it is meant so");
    }

    #[test]
    fn the_first_halt_is_seen_and_the_second_outlasts_its_end() {
        let mut view = Conditions::new(Phase::Running);
        assert_eq!(view.halt(halt("log_truncated")), HaltIs::First);
        assert_eq!(view.halt(halt("part_ended")), HaltIs::Another);
        assert_eq!(view.halt(halt("part_ended")), HaltIs::Known);
        view.report(Reporter::Lane(0), Waiting::Database, "away", at(1));
        view.started();
        assert_eq!(
            (view.state(), view.reason()),
            (ViewState::Halted(halt("log_truncated")), Some("log_truncated, in words"))
        );
        assert!(!view.end_halt("log_truncated"), "something else is wrong");
        assert_eq!(view.state(), ViewState::Halted(halt("part_ended")));
        assert!(!view.end_halt("log_truncated"), "there is none");

        let mut view = conditions(Phase::Running, &["log_truncated"], &[]);
        assert!(view.end_halt("log_truncated"));
        assert_eq!(view.state(), ViewState::Starting, "it has to join anew");
    }
}
