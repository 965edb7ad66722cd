//! What each route asks of its caller, and whether that is given.

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
}

/// Who a caller may be, as long as nobody logs in.
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
}

/// Whether a route of this policy is served to whoever reaches the port.
///
/// | policy | trusted | strangers |
/// |---|---|---|
/// | public | yes | yes |
/// | reader | yes | yes |
/// | operator looks | yes | yes |
/// | operator decides | yes | no |
pub const fn allows(policy: Policy, exposure: Exposure) -> Result<(), Denied> {
    match (policy, exposure) {
        (Policy::OperatorDecides, Exposure::Strangers) => Err(Denied::OperationsNotAllowed),
        (Policy::Public | Policy::Reader | Policy::OperatorLooks | Policy::OperatorDecides, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_truth_table() {
        for policy in [Policy::Public, Policy::Reader, Policy::OperatorLooks, Policy::OperatorDecides] {
            assert_eq!(allows(policy, Exposure::Trusted), Ok(()), "{policy:?}");
        }
        for policy in [Policy::Public, Policy::Reader, Policy::OperatorLooks] {
            assert_eq!(allows(policy, Exposure::Strangers), Ok(()), "{policy:?}");
        }
        assert_eq!(allows(Policy::OperatorDecides, Exposure::Strangers), Err(Denied::OperationsNotAllowed));
    }
}
