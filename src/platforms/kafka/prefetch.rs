//! How much the projector's consumer has of each partition before it is read.

use crate::config::KafkaSettings;

/// What one partition may have in memory ahead of us.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prefetch {
    /// As long as its queue holds less, more is fetched. The client has one queue for each partition, as we read them one by one.
    pub queue_kilobytes: usize,
    /// What one answer brings of it: by so much its queue may become longer than that.
    ///
    /// No bound for records: of the first partition of an answer the broker sends a batch that is larger than that whole (KIP-74),
    /// and the client asks for another one first each time, so each has its turn.
    pub answer_bytes: usize,
}

impl Prefetch {
    /// By the settings, for so many partitions of the topic.
    pub fn of(settings: &KafkaSettings, partitions: usize) -> Prefetch {
        let share = settings.queue_bytes / partitions.max(1);
        Prefetch {
            queue_kilobytes: (share / 1024).max(64),
            // More is what the client asks for by itself, and less costs a request for every few hundred records.
            answer_bytes: (share / 2).clamp(256 << 10, 1 << 20).min(settings.max_fetch_bytes / 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_answer_brings_half_of_what_a_partition_may_have_queued_within_bounds() {
        const MIB: usize = 1 << 20;
        let ahead = |queue_bytes: usize, partitions: usize, max_fetch_bytes: usize| {
            let settings = KafkaSettings { queue_bytes, max_fetch_bytes, ..Config::defaults().kafka };
            let Prefetch { queue_kilobytes, answer_bytes } = Prefetch::of(&settings, partitions);
            (queue_kilobytes, answer_bytes)
        };
        assert_eq!(ahead(3 * MIB, 3, 32 * MIB), (1024, 512 << 10));
        assert_eq!(ahead(3 * MIB, 0, 32 * MIB), (3 * 1024, MIB), "no partition is known yet");
        // The ends of what may be set, and of what it makes of it.
        assert_eq!(ahead(1024 * MIB, 1, 256 * MIB), (1 << 20, MIB));
        assert_eq!(ahead(4 * MIB, 2, 32 * MIB), (2048, MIB));
        assert_eq!(ahead(4 * MIB - 4, 2, 32 * MIB), (2047, MIB - 1));
        assert_eq!(ahead(4 * MIB, 8, 32 * MIB), (512, 256 << 10));
        assert_eq!(ahead(4 * MIB, 9, 32 * MIB), (455, 256 << 10));
        assert_eq!(ahead(MIB, 1_000, 32 * MIB), (64, 256 << 10));
        assert_eq!(ahead(1024 * MIB, 1, 2 * MIB - 2), (1 << 20, MIB - 1), "no more than any answer");
    }
}
