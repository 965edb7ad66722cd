//! Who may do what. Pure: knows no web framework, no clock and no network; `login/` finds out who a caller is, `api/` asks and
//! turns a no into its answer.

pub mod api_key;
pub mod crypto;
pub mod policy;
pub mod role;
pub mod subject;
pub mod token;

use self::role::Roles;

/// Who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// By which name: that of the API key, or the subject of the token.
    pub name: String,
    /// What they may.
    pub roles: Roles,
}

/// Why what a caller has shown is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no credential of a kind that is taken here, or there are several.
    #[error("{0}")]
    Malformed(&'static str),
    /// It is one, and not valid: unknown, over, revoked, of somebody else. Of a key it is not said which of these.
    #[error("{0}")]
    Invalid(String),
    /// Whether it is valid cannot be told now.
    #[error("{0}")]
    Unavailable(String),
}
