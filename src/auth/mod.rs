//! Who may do what. Pure: knows no web framework; `api/` asks and turns a no into its answer. Today there is no log-in,
//! so all that counts is who can reach the port; principals, roles and the audit trail will live here.

pub mod policy;
