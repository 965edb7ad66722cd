//! What each route asks of its caller, and whether that is given.

use super::Principal;
use super::role::{Role, Roles};

/// Who may use a route. Each route states it, and it is enforced where routes are registered: no handler has to remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Anybody who can reach the port: probes, metrics, documentation.
    Public,
    /// Whoever may read views.
    Reader,
    /// Whoever runs the service, to look.
    OperatorLooks,
    /// Whoever runs the service, to change something.
    OperatorDecides,
    /// Whoever says who may do what.
    Administers,
}

impl Policy {
    /// The role that it asks for, where callers log in.
    pub const fn role(self) -> Option<Role> {
        match self {
            Policy::Public => None,
            Policy::Reader => Some(Role::Reader),
            Policy::OperatorLooks | Policy::OperatorDecides => Some(Role::Operator),
            Policy::Administers => Some(Role::Admin),
        }
    }
}

/// Who a caller may be, where nobody logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Only those who may decide: the port is on loopback, or the settings say that everybody may.
    Trusted,
    /// Strangers too.
    Strangers,
}

/// Why a caller is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Strangers reach the port, and there is no access control to tell them from operators.
    OperationsNotAllowed,
    /// Whoever it is has to log in first.
    LogIn,
    /// Whoever it is does not have this role.
    Lacks(Role),
}

/// Whether a route of this policy is served to whoever reaches the port, where nobody logs in.
///
/// | policy | trusted | strangers |
/// |---|---|---|
/// | public | yes | yes |
/// | reader | yes | yes |
/// | operator looks | yes | yes |
/// | operator decides, administers | yes | no |
pub const fn allows(policy: Policy, exposure: Exposure) -> Result<(), Denied> {
    match (policy, exposure) {
        (Policy::OperatorDecides | Policy::Administers, Exposure::Strangers) => Err(Denied::OperationsNotAllowed),
        _ => Ok(()),
    }
}

/// Whether a route of this policy is served to whoever has logged in, or to somebody who has not, where callers log in;
/// `anonymous` is what the latter may.
pub fn allows_principal(policy: Policy, principal: Option<&Principal>, anonymous: Roles) -> Result<(), Denied> {
    let Some(role) = policy.role() else { return Ok(()) };
    match principal {
        _ if anonymous.may(role) => Ok(()),
        Some(principal) if principal.roles.may(role) => Ok(()),
        Some(_) => Err(Denied::Lacks(role)),
        None => Err(Denied::LogIn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Policy; 5] =
        [Policy::Public, Policy::Reader, Policy::OperatorLooks, Policy::OperatorDecides, Policy::Administers];

    #[test]
    fn every_row_of_the_truth_table_where_nobody_logs_in() {
        for policy in ALL {
            assert_eq!(allows(policy, Exposure::Trusted), Ok(()), "{policy:?}");
        }
        let no = Err(Denied::OperationsNotAllowed);
        assert_eq!(ALL.map(|policy| allows(policy, Exposure::Strangers)), [Ok(()), Ok(()), Ok(()), no, no]);
    }

    #[test]
    fn every_row_of_the_truth_table_where_callers_log_in() {
        let of = |role: Option<Role>, anonymous: Roles| {
            let principal = role.map(|role| Principal { name: "somebody".to_owned(), roles: role.into() });
            ALL.map(|policy| allows_principal(policy, principal.as_ref(), anonymous))
        };
        let (ok, log_in) = (Ok(()), Err(Denied::LogIn));
        let lacks = |role| Err(Denied::Lacks(role));
        let (operator, admin) = (lacks(Role::Operator), lacks(Role::Admin));
        assert_eq!(of(None, Roles::NONE), [ok, log_in, log_in, log_in, log_in]);
        assert_eq!(of(None, Role::Reader.into()), [ok, ok, log_in, log_in, log_in]);
        assert_eq!(of(Some(Role::Reader), Roles::NONE), [ok, ok, operator, operator, admin]);
        assert_eq!(of(Some(Role::Developer), Roles::NONE), [ok, ok, operator, operator, admin]);
        assert_eq!(of(Some(Role::Operator), Roles::NONE), [ok, ok, ok, ok, admin]);
        assert_eq!(of(Some(Role::Admin), Roles::NONE), [ok; 5]);
    }
}
