//! What an error of Kafka's client means for a membership. Pure.

use rdkafka::types::RDKafkaErrorCode;

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The client is over for good, because another process has joined under the same `group.instance.id`.
    Fenced,
    /// The client is over for good.
    Fatal,
    /// An answer was too large to be received.
    TooLarge,
    /// The group does not take us, or not any more: it goes on when somebody has done that, by itself.
    Refused(&'static str),
    /// It passes, or somebody else sees it better.
    Passing,
}

/// What an error code of the client means. Whether the client itself calls the error fatal is decided by whoever can ask
/// it, and comes first.
///
/// | code | meaning | what follows |
/// |---|---|---|
/// | any, if fatal: `FENCED_INSTANCE_ID` | another process has our name in the group | a new client under another name; a halt if the name was configured |
/// | any other, if fatal | the client works no more | a new client |
/// | `_BAD_MSG` | an answer was larger than we may receive, or none of Kafka's | the partition is looked for |
/// | `GROUP_AUTHORIZATION_FAILED` | no right to READ the group | named and waited for |
/// | `_AUTHENTICATION`, `_SSL`, 33, 34, 58 (SASL), 31 (cluster) | the broker lets us not in | named and waited for |
/// | `_UNSUPPORTED_FEATURE`, `UNSUPPORTED_VERSION` | the broker is too old, or did not say what it can | named and waited for |
/// | 23, 24, 26, 81 | the group does not take a member like us | named and waited for |
/// | `TOPIC_AUTHORIZATION_FAILED` | no right to see the topic; that it may not be read, the reader of the partition says | named and waited for |
/// | `UNKNOWN_TOPIC*` | there is no such topic | the observer sees it, and the guard |
/// | the rest: no connection, no leader, a rebalance | weather | the client tries again |
pub fn trouble(code: RDKafkaErrorCode) -> Trouble {
    use RDKafkaErrorCode as Code;
    match code {
        Code::FencedInstanceId => Trouble::Fenced,
        Code::Fatal => Trouble::Fatal,
        Code::BadMessage => Trouble::TooLarge,
        Code::GroupAuthorizationFailed => Trouble::Refused("grant READ on the consumer group"),
        Code::TopicAuthorizationFailed => Trouble::Refused("grant DESCRIBE on the topic"),
        Code::Authentication
        | Code::SSL
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SaslAuthenticationFailed
        | Code::ClusterAuthorizationFailed => Trouble::Refused(
            "let the service in at that listener of the broker, which takes no login and no TLS from it",
        ),
        Code::UnsupportedFeature | Code::UnsupportedVersion => {
            Trouble::Refused("upgrade the broker: it lacks what the client needs")
        }
        Code::InconsistentGroupProtocol => {
            Trouble::Refused("give the service a kafka.group_id of its own: another kind of consumer is in that group")
        }
        Code::InvalidSessionTimeout => Trouble::Refused(
            "set kafka.session_timeout_ms between the broker's group.min.session.timeout.ms and group.max.session.timeout.ms",
        ),
        Code::InvalidGroupId => Trouble::Refused("set a kafka.group_id that the broker takes"),
        Code::GroupMaxSizeReached => Trouble::Refused("raise the broker's group.max.size, or run fewer instances"),
        _ => Trouble::Passing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code of each class, by what follows.
    #[test]
    fn every_class_of_error_has_its_row() {
        use RDKafkaErrorCode as Code;
        assert_eq!(trouble(Code::FencedInstanceId), Trouble::Fenced);
        assert_eq!(trouble(Code::Fatal), Trouble::Fatal);
        assert_eq!(trouble(Code::BadMessage), Trouble::TooLarge);
        let refused = [
            (Code::GroupAuthorizationFailed, "grant READ"),
            (Code::TopicAuthorizationFailed, "grant DESCRIBE"),
            (Code::Authentication, "listener"),
            (Code::SaslAuthenticationFailed, "listener"),
            (Code::SSL, "listener"),
            (Code::ClusterAuthorizationFailed, "listener"),
            (Code::UnsupportedFeature, "upgrade"),
            (Code::UnsupportedVersion, "upgrade"),
            (Code::InconsistentGroupProtocol, "kafka.group_id"),
            (Code::InvalidGroupId, "kafka.group_id"),
            (Code::InvalidSessionTimeout, "kafka.session_timeout_ms"),
            (Code::GroupMaxSizeReached, "group.max.size"),
        ];
        for (code, words) in refused {
            assert!(matches!(trouble(code), Trouble::Refused(step) if step.contains(words)), "{code:?}");
        }
        for code in [
            Code::BrokerTransportFailure,
            Code::AllBrokersDown,
            Code::RebalanceInProgress,
            Code::UnknownTopicOrPartition,
            Code::CoordinatorNotAvailable,
        ] {
            assert_eq!(trouble(code), Trouble::Passing, "{code:?}");
        }
    }
}
