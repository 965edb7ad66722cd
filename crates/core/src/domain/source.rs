//! Is this the log that the build is made from? Pure: what the build is bound to and what is there come in, what follows
//! goes out.

/// What a build is bound to, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// Id of the cluster.
    pub cluster: Option<String>,
    /// Name of the topic.
    pub topic: Option<String>,
    /// Id of the topic.
    pub topic_id: Option<String>,
}

/// The log that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Id of the cluster, if it says.
    pub cluster: Option<String>,
    /// Name of the topic.
    pub topic: String,
    /// Id of the topic, if the broker shows one.
    pub topic_id: Option<String>,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bond {
    /// It is bound to this log, and there is nothing to add.
    Bound,
    /// It is to be bound like this.
    Bind(Binding),
    /// It is bound to another topic, or to one of another cluster; in words.
    Elsewhere(String),
    /// The topic of that name was created anew since; in words.
    Recreated(String),
}

/// Compares.
///
/// | the build | cluster | topic | topic id | follows |
/// |---|---|---|---|---|
/// | has consumed nothing | any | any | any | bind it to this log, if it is not |
/// | has consumed | differ | any | any | elsewhere |
/// | has consumed | same, or one unknown | differ | any | elsewhere |
/// | has consumed | same, or one unknown | same, or unknown | differ | re-created |
/// | has consumed | same, or one unknown | same, or unknown | same, or one unknown | bound; add what was unknown |
pub fn judge(known: &Binding, log: &Log, has_consumed: bool) -> Bond {
    let seen = Binding { cluster: log.cluster.clone(), topic: Some(log.topic.clone()), topic_id: log.topic_id.clone() };
    if !has_consumed {
        return if *known == seen { Bond::Bound } else { Bond::Bind(seen) };
    }
    if differ(&known.cluster, &seen.cluster) || differ(&known.topic, &seen.topic) {
        let is = |binding: &Binding| {
            let word = |part: &Option<String>| part.clone().unwrap_or_else(|| "unknown".to_owned());
            format!("topic {} of cluster {}", word(&binding.topic), word(&binding.cluster))
        };
        return Bond::Elsewhere(format!("the build is made from {}, and this is {}", is(known), is(&seen)));
    }
    if differ(&known.topic_id, &seen.topic_id) {
        let id = |id: &Option<String>| id.clone().unwrap_or_default();
        let (now, before) = (id(&seen.topic_id), id(&known.topic_id));
        return Bond::Recreated(format!("topic id is {now}, but progress was made on topic id {before}"));
    }
    let all = Binding {
        cluster: known.cluster.clone().or(seen.cluster),
        topic: known.topic.clone().or(seen.topic),
        topic_id: known.topic_id.clone().or(seen.topic_id),
    };
    if all == *known { Bond::Bound } else { Bond::Bind(all) }
}

fn differ(known: &Option<String>, seen: &Option<String>) -> bool {
    matches!((known, seen), (Some(known), Some(seen)) if known != seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        (text != "?").then(|| text.to_owned())
    }

    fn binding([cluster, topic, topic_id]: [&str; 3]) -> Binding {
        Binding { cluster: some(cluster), topic: some(topic), topic_id: some(topic_id) }
    }

    #[test]
    fn every_row_of_the_truth_table() {
        let log = Log { cluster: some("c"), topic: "t".to_owned(), topic_id: some("i") };
        let silent = Log { cluster: None, topic_id: None, ..log.clone() };
        let whole = ["c", "t", "i"];
        for known in [["?", "?", "?"], ["x", "t", "i"], ["c", "x", "i"], ["c", "t", "x"], ["c", "t", "?"]] {
            assert_eq!(judge(&binding(known), &log, false), Bond::Bind(binding(whole)), "{known:?}");
        }
        assert_eq!(judge(&binding(whole), &log, false), Bond::Bound);
        for known in [["x", "t", "i"], ["c", "x", "i"], ["?", "x", "?"], ["x", "?", "?"]] {
            assert!(matches!(judge(&binding(known), &log, true), Bond::Elsewhere(_)), "{known:?}");
        }
        for known in [["c", "t", "x"], ["?", "t", "x"], ["c", "?", "x"]] {
            assert!(matches!(judge(&binding(known), &log, true), Bond::Recreated(_)), "{known:?}");
        }
        for known in [["?", "?", "?"], ["?", "t", "i"], ["c", "t", "?"]] {
            assert_eq!(judge(&binding(known), &log, true), Bond::Bind(binding(whole)), "{known:?}");
        }
        for log in [&log, &silent] {
            assert_eq!(judge(&binding(whole), log, true), Bond::Bound, "what is not said is no other log");
        }
        assert!(matches!(judge(&binding(["?", "x", "?"]), &silent, true), Bond::Elsewhere(_)));
    }

    #[test]
    fn the_words_name_both_logs() {
        let log = Log { cluster: None, topic: "b".to_owned(), topic_id: None };
        let Bond::Elsewhere(words) = judge(&binding(["c", "a", "?"]), &log, true) else { panic!("another topic") };
        assert_eq!(words, "the build is made from topic a of cluster c, and this is topic b of cluster unknown");
    }
}
