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
    /// Whoever defines and queries streams.
    Defines,
    /// Likewise, and whoever runs the service: what becomes of a stream. That it is their own, or that they are an operator, the
    /// handler sees to.
    RunsStreams,
    /// Whoever runs the service, to look.
    OperatorLooks,
    /// Whoever runs the service, to change something.
    OperatorDecides,
    /// Whoever says who may do what.
    Administers,
}

impl Policy {
    /// The roles of which it asks for one, where callers log in; none: it asks for nothing.
    pub const fn roles(self) -> &'static [Role] {
        match self {
            Policy::Public => &[],
            Policy::Reader => &[Role::Reader],
            Policy::Defines => &[Role::Developer],
            Policy::RunsStreams => &[Role::Developer, Role::Operator],
            Policy::OperatorLooks | Policy::OperatorDecides => &[Role::Operator],
            Policy::Administers => &[Role::Admin],
        }
    }

    /// Whether what it lets through changes something, or has an engine work.
    pub const fn changes(self) -> bool {
        matches!(self, Policy::Defines | Policy::RunsStreams | Policy::OperatorDecides | Policy::Administers)
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
/// | defines, runs streams, operator decides, administers | yes | no |
pub const fn allows(policy: Policy, exposure: Exposure) -> Result<(), Denied> {
    match exposure {
        Exposure::Strangers if policy.changes() => Err(Denied::OperationsNotAllowed),
        _ => Ok(()),
    }
}

/// Whether a route of this policy is served to whoever has logged in, or to somebody who has not, where callers log in;
/// `anonymous` is what the latter may.
pub fn allows_principal(policy: Policy, principal: Option<&Principal>, anonymous: Roles) -> Result<(), Denied> {
    let Some(asked) = policy.roles().first().copied() else { return Ok(()) };
    let may = |roles: Roles| policy.roles().iter().any(|role| roles.may(*role));
    match principal {
        _ if may(anonymous) => Ok(()),
        Some(principal) if may(principal.roles) => Ok(()),
        Some(_) => Err(Denied::Lacks(asked)),
        None => Err(Denied::LogIn),
    }
}

/// Whether what becomes of a stream is the caller's business: it is their own, or they are an operator. Where nobody logs in,
/// streams are everybody's.
pub fn owns(principal: Option<&Principal>, owner: &str) -> Result<(), Denied> {
    match principal {
        Some(principal) if principal.name != owner && !principal.roles.may(Role::Operator) => {
            Err(Denied::Lacks(Role::Operator))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Policy; 7] = [
        Policy::Public,
        Policy::Reader,
        Policy::Defines,
        Policy::RunsStreams,
        Policy::OperatorLooks,
        Policy::OperatorDecides,
        Policy::Administers,
    ];

    #[test]
    fn every_row_of_the_truth_table_where_nobody_logs_in() {
        for policy in ALL {
            assert_eq!(allows(policy, Exposure::Trusted), Ok(()), "{policy:?}");
        }
        let no = Err(Denied::OperationsNotAllowed);
        assert_eq!(ALL.map(|policy| allows(policy, Exposure::Strangers)), [Ok(()), Ok(()), no, no, Ok(()), no, no]);
    }

    #[test]
    fn every_row_of_the_truth_table_where_callers_log_in() {
        let of = |role: Option<Role>, anonymous: Roles| {
            let principal = role.map(|role| Principal { name: "somebody".to_owned(), roles: role.into() });
            ALL.map(|policy| allows_principal(policy, principal.as_ref(), anonymous))
        };
        let (ok, log_in) = (Ok(()), Err(Denied::LogIn));
        let lacks = |role| Err(Denied::Lacks(role));
        let (developer, operator, admin) = (lacks(Role::Developer), lacks(Role::Operator), lacks(Role::Admin));
        assert_eq!(of(None, Roles::NONE), [ok, log_in, log_in, log_in, log_in, log_in, log_in]);
        assert_eq!(of(None, Role::Reader.into()), [ok, ok, log_in, log_in, log_in, log_in, log_in]);
        let none = Roles::NONE;
        assert_eq!(of(Some(Role::Reader), none), [ok, ok, developer, developer, operator, operator, admin]);
        assert_eq!(of(Some(Role::Developer), none), [ok, ok, ok, ok, operator, operator, admin]);
        assert_eq!(of(Some(Role::Operator), none), [ok, ok, developer, ok, ok, ok, admin]);
        assert_eq!(of(Some(Role::Admin), none), [ok; 7]);
    }

    #[test]
    fn a_stream_is_its_owners_and_every_operators() {
        let somebody = |role: Role| Principal { name: "ada".to_owned(), roles: role.into() };
        let no = Err(Denied::Lacks(Role::Operator));
        for (role, owner, may) in [
            (Role::Developer, "ada", Ok(())),
            (Role::Developer, "eve", no),
            (Role::Developer, "Ada", no),
            (Role::Developer, "", no),
            (Role::Operator, "eve", Ok(())),
            (Role::Admin, "eve", Ok(())),
        ] {
            assert_eq!(owns(Some(&somebody(role)), owner), may, "{role:?} {owner}");
        }
        assert_eq!(owns(None, "eve"), Ok(()), "where nobody logs in");
    }
}
