//! What people ask of a definition, and when they may.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::definition::Intent;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A new name or text.
    Update,
    /// That it runs.
    Deploy,
    /// That it keeps its state and does nothing.
    Pause,
    /// That it goes on.
    Resume,
    /// That it runs no more.
    Stop,
    /// That it is gone.
    Delete,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 6] =
        [Action::Update, Action::Deploy, Action::Pause, Action::Resume, Action::Stop, Action::Delete];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Action::Update => "update",
            Action::Deploy => "deploy",
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Stop => "stop",
            Action::Delete => "delete",
        }
    }

    /// What is wanted afterwards; `None` if it may not be asked of something that is wanted so.
    ///
    /// | wanted  | update | deploy  | pause  | resume  | stop    | delete  |
    /// |---------|--------|---------|--------|---------|---------|---------|
    /// | draft   | same   | running | –      | –       | –       | deleted |
    /// | running | same   | running | paused | running | stopped | deleted |
    /// | paused  | same   | running | paused | running | stopped | deleted |
    /// | stopped | same   | running | –      | –       | stopped | deleted |
    /// | deleted | –      | –       | –      | –       | –       | deleted |
    pub const fn leads_to(self, intent: Intent) -> Option<Intent> {
        match (self, intent) {
            (Action::Delete, _) => Some(Intent::Deleted),
            (_, Intent::Deleted) => None,
            (Action::Update, intent) => Some(intent),
            (Action::Deploy, _) | (Action::Resume, Intent::Running | Intent::Paused) => Some(Intent::Running),
            (Action::Pause, Intent::Running | Intent::Paused) => Some(Intent::Paused),
            (Action::Stop, Intent::Running | Intent::Paused | Intent::Stopped) => Some(Intent::Stopped),
            (Action::Pause | Action::Resume | Action::Stop, Intent::Draft | Intent::Stopped) => None,
        }
    }

    /// What may be asked of something that is wanted so.
    pub fn allowed(intent: Intent) -> Vec<Action> {
        Action::ALL.into_iter().filter(|action| action.leads_to(intent).is_some()).collect()
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
