//! Why the manager does not do what it is asked. Knows no HTTP: who serves it chooses the status.

use crate::catalog::ExpectedSource;
use crate::definition::Definition;
use crate::engines::{EngineKind, Refusal, Trouble};
use crate::lifecycle::{Action, Plan};
use crate::ports::PortError;
use crate::store::StoreError;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is nothing of that id or name.
    #[error("there is no {what} `{id}`")]
    NotFound {
        /// `stream`, `source`, `orphan` or `engine`.
        what: &'static str,
        /// As it was asked for.
        id: String,
    },
    /// Another definition has that name.
    #[error("another stream is called `{0}`; names are compared without case")]
    NameTaken(String),
    /// It cannot be done as things are.
    #[error("{action} is not possible: the stream is {state}; possible is {}", words(allowed))]
    Conflict {
        /// What was asked for.
        action: Action,
        /// As things are, in words.
        state: String,
        /// What can be asked for instead.
        allowed: Vec<Action>,
    },
    /// It is possible, but would lose the state: nothing was changed. Asked for again with `accept_state_loss`, it is done.
    #[error("{}", .0.reason)]
    WouldLoseState(Box<Plan>),
    /// The statement is refused, by the gate or by the engine. Never empty.
    #[error("{}", .0.iter().map(|refusal| refusal.message.as_str()).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refusal>),
    /// A field is not as it has to be.
    #[error("`{field}`: {problem}")]
    Invalid {
        /// Its name in bodies.
        field: &'static str,
        /// What is wrong, with the value, and the fix.
        problem: String,
    },
    /// It is an operator's to do: it is somebody else's, or concerns more than what the caller has made.
    #[error("{0}: that asks for the role `operator`")]
    AsksForOperator(String),
    /// As many streams are deployed, or written down, as may be.
    #[error(
        "{in_use} streams {scope} are {}, and no more than {most} may be (`manager.limits.{setting}`): {} one first",
        if setting.starts_with("definitions") { "there" } else { "deployed" },
        if setting.starts_with("definitions") { "delete" } else { "stop" }
    )]
    LimitReached {
        /// `streams_per_user`, `streams`, `definitions_per_user` or `definitions`.
        setting: &'static str,
        /// Whose: `of \`anna\`` or `in all`.
        scope: String,
        /// How many may be.
        most: usize,
        /// How many are.
        in_use: usize,
    },
    /// Somebody has changed it since the caller read it.
    #[error("version {expected} was expected, and it is {} by now: read it again", current.version)]
    PreconditionFailed {
        /// What the caller expected.
        expected: i32,
        /// As it is.
        current: Box<Definition>,
    },
    /// A declaration is not what the caller has read.
    #[error("`{name}` {}", differs(*expected, *current))]
    SourceChanged {
        /// The source.
        name: String,
        /// What the caller expected.
        expected: ExpectedSource,
        /// Its version; `None`: nobody declares it.
        current: Option<i64>,
    },
    /// The definition's engine is not configured here.
    #[error("the engine {} is not configured: set {}", engine.name(), setting(*engine))]
    EngineNotConfigured {
        /// Which.
        engine: EngineKind,
    },
    /// The engine cannot be asked now. Nothing was changed.
    #[error("{} cannot be asked now: {reason}", engine.name())]
    EngineUnavailable {
        /// Which.
        engine: EngineKind,
        /// Why.
        reason: String,
    },
    /// A limit of the engine itself is reached. Nothing was changed.
    #[error("{} has no room now: {reason}", engine.name())]
    EngineBusy {
        /// Which.
        engine: EngineKind,
        /// In its words.
        reason: String,
        /// When to come again.
        retry_after: Option<std::time::Duration>,
    },
    /// Kafka or the schema registry does not do it.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The database does not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fault {
    /// What an engine's trouble means to a caller whose call had no side effects.
    pub(crate) fn of(engine: EngineKind, trouble: Trouble) -> Fault {
        match trouble {
            Trouble::Refused(refusal) => Fault::Refused(vec![refusal]),
            Trouble::Busy { reason, retry_after } => Fault::EngineBusy { engine, reason, retry_after },
            Trouble::Unavailable(reason) | Trouble::Unknown(reason) => Fault::EngineUnavailable { engine, reason },
        }
    }
}

const fn setting(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Flink => "`flink.gateway_url` and `flink.rest_url`",
        EngineKind::Ksqldb => "`ksqldb.url`",
        EngineKind::Embedded => "`embedded.enabled` to true, in a build that has it (the container image does)",
    }
}

fn differs(expected: ExpectedSource, current: Option<i64>) -> String {
    let expected = match expected {
        ExpectedSource::Version(version) => format!("was expected to be of version {version}"),
        ExpectedSource::New => "was expected to be new".to_owned(),
        ExpectedSource::Any | ExpectedSource::Declared => "was expected to be declared".to_owned(),
    };
    match current {
        Some(version) => format!("{expected}, and is declared with version {version} by now: read it again"),
        None => format!("{expected}, and nobody declares it: read the catalog again"),
    }
}

fn words(actions: &[Action]) -> String {
    match actions {
        [] => "nothing but to wait".to_owned(),
        actions => actions.iter().map(|action| action.word()).collect::<Vec<_>>().join(", "),
    }
}
