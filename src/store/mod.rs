//! Postgres: connections, migrations, control tables, and what its error codes mean.

pub mod pool;
