//! Roles: what a principal may.

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads views and follows changes.
    Reader,
    /// Reads, and defines and queries streams.
    Developer,
    /// Reads, and all of `/ops`.
    Operator,
    /// Everything, keys and the audit log too.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 4] = [Role::Reader, Role::Developer, Role::Operator, Role::Admin];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Reader => "reader",
            Role::Developer => "developer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// The roles whose holders may do what this one asks for.
    const fn covering(self) -> u8 {
        let own = self.bit() | Role::Admin.bit();
        match self {
            Role::Reader => own | Role::Developer.bit() | Role::Operator.bit(),
            Role::Developer | Role::Operator | Role::Admin => own,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// No role.
    pub const NONE: Roles = Roles(0);

    /// Whether one of them may do what `role` may.
    pub const fn may(self, role: Role) -> bool {
        self.0 & role.covering() != 0
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        Role::ALL.into_iter().filter(|role| self.0 & role.bit() != 0).map(Role::as_str).collect()
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<T: IntoIterator<Item = Role>>(roles: T) -> Self {
        Roles(roles.into_iter().fold(0, |bits, role| bits | role.bit()))
    }
}

impl From<Role> for Roles {
    fn from(role: Role) -> Self {
        Roles(role.bit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_truth_table() {
        use Role::{Admin, Developer, Operator, Reader};
        let rows = [
            (Reader, [true, false, false, false]),
            (Developer, [true, true, false, false]),
            (Operator, [true, false, true, false]),
            (Admin, [true, true, true, true]),
        ];
        for (holder, may) in rows {
            assert_eq!(
                [Reader, Developer, Operator, Admin].map(|role| Roles::from(holder).may(role)),
                may,
                "{holder:?}"
            );
            assert_eq!(Role::parse(holder.as_str()), Some(holder));
        }
        assert_eq!(Role::ALL.map(|role| Roles::NONE.may(role)), [false; 4]);
        let both: Roles = [Developer, Operator].into_iter().collect();
        assert_eq!(Role::ALL.map(|role| both.may(role)), [true, true, true, false]);
        assert_eq!(both.names(), ["developer", "operator"]);
        assert_eq!(Role::parse("Reader"), None);
    }
}
