//! Engines that run beside the service, each with what it promises: everything. A further one joins by a line here.

use crate::support::{flink, ksqldb};

conformance!(on_flink, flink::bench);
conformance!(on_ksqldb, ksqldb::bench);
