//! Names in the engines, derived from a definition so that two instances derive the same. Users' names are labels only:
//! nothing else makes an identifier that enters a statement.

use sha2::{Digest, Sha256};

/// The longest slug.
const MAX_SLUG: usize = 40;
/// How topics end that stand beside a stream's: what the embedded engine could not read, and rows that came late. It makes them
/// when there is something to put aside.
const BESIDE: [&str; 2] = [".dlq", ".late"];
/// How restore points begin that are consumer groups.
const GROUP_SCHEME: &str = "kafka-group:";

/// The names of one definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    slug: String,
    tag: String,
}

impl Names {
    /// Of the definition with this id (hex digits) that was given this name at first.
    pub fn of(id: &str, name: &str) -> Names {
        Names { slug: slug(name), tag: id.chars().filter(char::is_ascii_hexdigit).take(8).collect() }
    }

    /// Its Kafka topic on every engine: `view_<slug>_<tag>`.
    pub fn topic(&self) -> String {
        format!("view_{}_{}", self.slug, self.tag)
    }

    /// The topics beside it, where the embedded engine puts aside what has no place in it: there once something was.
    pub fn beside(&self) -> [String; 2] {
        BESIDE.map(|ending| format!("{}{ending}", self.topic()))
    }

    /// The stream or table that it fills: `VIEW_<SLUG>_<TAG>`.
    pub fn sink(&self) -> String {
        self.topic().to_ascii_uppercase()
    }

    /// The first eight digits of the id, which no other definition has.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// What people see in Flink, and of the embedded engine: `sv-<slug>-<tag>-r<revision>-a<attempt>`.
    pub fn job_name(&self, revision: i32, attempt: i32) -> String {
        format!("{}-r{revision}-a{attempt}", self.job_family())
    }

    /// How the names of all these jobs begin: `sv-<slug>-<tag>`.
    pub fn job_family(&self) -> String {
        format!("sv-{}-{}", self.slug, self.tag)
    }
}

/// The name of the topic that one of this name stands beside; of any other it is the name itself.
pub fn beside_which(topic: &str) -> &str {
    BESIDE.iter().find_map(|ending| topic.strip_suffix(ending)).unwrap_or(topic)
}

/// The job id that is chosen for one deployment in Flink: 32 hex digits. `cluster` tells Flink clusters apart.
pub fn job_id(cluster: &str, id: &str, revision: i32, attempt: i32) -> String {
    hashed(&format!("streamview/flink/{cluster}{id}{revision}/{attempt}"))
}

/// The id under which that job's stop with a savepoint is asked for, again and again until it has an end: 32 hex digits.
pub fn stop_trigger_id(cluster: &str, id: &str, revision: i32, attempt: i32) -> String {
    hashed(&format!("streamview/flink/{cluster}{id}{revision}/{attempt}/stop"))
}

/// Where a deployment of the embedded engine that begins anew keeps what it has done: in a consumer group, by its name, and that
/// is what [`crate::engines::RestorePoint::path`] says. Those that go on from there stay in it.
pub fn kept_in_group(id: &str, revision: i32, attempt: i32) -> String {
    format!("{GROUP_SCHEME}streamview-{id}-r{revision}a{attempt}")
}

/// The consumer group that a restore point names, if it names one.
pub fn group_of(path: &str) -> Option<&str> {
    path.strip_prefix(GROUP_SCHEME).filter(|group| !group.is_empty())
}

/// 32 hex digits that are the same for the same text, for ids that are chosen by us.
pub(crate) fn hashed(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Lower-case ASCII letters, digits and single `_`, at most 40, never empty, never beginning with a digit.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars().map(|letter| letter.to_ascii_lowercase()) {
        let plain = if letter.is_ascii_alphanumeric() { letter } else { '_' };
        if plain != '_' || !slug.ends_with('_') && !slug.is_empty() {
            slug.push(plain);
        }
    }
    slug.truncate(MAX_SLUG);
    let slug = slug.trim_matches('_');
    if slug.is_empty() { "stream".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_whatever_people_write() {
        for (name, topic) in [
            ("HighValueOrders", "view_highvalueorders_0123abcd"),
            ("high value; DROP STREAM x", "view_high_value_drop_stream_x_0123abcd"),
            ("Überweisungen", "view_berweisungen_0123abcd"),
            ("   ", "view_stream_0123abcd"),
            ("${x}`\"", "view_x_0123abcd"),
        ] {
            assert_eq!(Names::of("0123abcd-4567-89ab-cdef-0123456789ab", name).topic(), topic);
        }
        let longest = Names::of("0123abcdffffffffffffffffffffffff", &"ab_".repeat(50));
        assert!(longest.topic().len() <= 63, "{}", longest.topic());
        assert_eq!(longest.sink(), longest.topic().to_uppercase());
    }

    #[test]
    fn what_stands_beside_a_topic_is_known_by_its_name() {
        let names = Names::of("0123abcdffffffffffffffffffffffff", "orders");
        assert_eq!(names.beside(), ["view_orders_0123abcd.dlq", "view_orders_0123abcd.late"]);
        for beside in names.beside() {
            assert_eq!(beside_which(&beside), names.topic());
        }
        assert_eq!(beside_which("orders.later"), "orders.later");
    }

    #[test]
    fn each_deployment_has_an_id_of_its_own() {
        let id = "0123abcdffffffffffffffffffffffff";
        assert_eq!(job_id("c", id, 1, 1), job_id("c", id, 1, 1));
        assert_eq!(job_id("c", id, 1, 1).len(), 32);
        for other in [job_id("d", id, 1, 1), job_id("c", id, 2, 1), job_id("c", id, 1, 2), job_id("c", id, 11, 1)] {
            assert_ne!(job_id("c", id, 1, 1), other);
        }
        assert_ne!(job_id("c", id, 1, 1), stop_trigger_id("c", id, 1, 1));
        assert_ne!(kept_in_group(id, 11, 1), kept_in_group(id, 1, 11));
        assert_eq!(group_of(&kept_in_group(id, 2, 3)), Some(format!("streamview-{id}-r2a3").as_str()));
        assert_eq!((group_of("kafka-group:"), group_of("s3://savepoints/1")), (None, None));
    }
}
