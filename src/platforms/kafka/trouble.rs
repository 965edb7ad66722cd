//! What an error of Kafka's client means, by its code and its words. Pure.

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
    /// We are not let in, or the group does not take us, or not any more: it goes on when somebody has done what
    /// [`Refusal::next_step`] says, by itself.
    Refused(Refusal),
    /// It passes, or somebody else sees it better.
    Passing,
}

/// Why nobody lets us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The broker's certificate is none that we trust.
    BrokerCertificate,
    /// The broker does not take our certificate, or misses one.
    OurCertificate,
    /// Name or password are wrong.
    Login,
    /// The broker has no such mechanism at that listener.
    Mechanism,
    /// The listener takes no login.
    TakesNoLogin,
    /// The listener wants a login, it seems.
    WantsLogin,
    /// The listener speaks no TLS, it seems.
    TakesNoTls,
    /// The listener speaks TLS.
    WantsTls,
    /// TLS came to nothing for another reason.
    Tls,
    /// We may write to no topic, so there is no number for our producer.
    NoWrite,
    /// Anything else, and what somebody has to do about it.
    Other(&'static str),
}

impl Refusal {
    /// What somebody has to do.
    pub const fn next_step(self) -> &'static str {
        match self {
            Refusal::BrokerCertificate => {
                "set kafka.tls.ca_file to the authority that has signed the broker's certificate; it has to be valid now, \
                 and for the name in kafka.bootstrap_servers and in the broker's advertised.listeners"
            }
            Refusal::OurCertificate => {
                "set kafka.tls.cert_file and key_file to a certificate that is valid now and of an authority that the broker \
                 trusts, and restart: files are read at the start"
            }
            Refusal::Login => "correct kafka.username and kafka.password",
            Refusal::Mechanism => "set kafka.sasl_mechanism to one that the broker has at that listener",
            Refusal::TakesNoLogin => {
                "that listener takes no login: set kafka.security_protocol to plaintext or ssl, or the port of another one"
            }
            Refusal::WantsLogin => {
                "that listener wants a login: set kafka.security_protocol to sasl_plaintext or sasl_ssl, with \
                 kafka.sasl_mechanism, kafka.username and kafka.password"
            }
            Refusal::TakesNoTls => {
                "that listener speaks no TLS: set kafka.security_protocol to plaintext or sasl_plaintext, or the port of \
                 another one"
            }
            Refusal::WantsTls => {
                "that listener speaks TLS: set kafka.security_protocol to ssl or sasl_ssl, or the port of another one"
            }
            Refusal::Tls => "look at kafka.security_protocol, kafka.tls and the broker's log",
            Refusal::NoWrite => "grant WRITE on the topic, or, before Kafka 2.8, IDEMPOTENT_WRITE on the cluster",
            Refusal::Other(step) => step,
        }
    }
}

/// What an error code of the client means, with what the client says to it. Whether the client itself calls the error fatal
/// is decided by whoever can ask it, and comes first.
///
/// | code | meaning | what follows |
/// |---|---|---|
/// | any, if fatal: `FENCED_INSTANCE_ID` | another process has our name in the group | a new client under another name; a halt if the name was configured |
/// | any other, if fatal | the client works no more | a new client; of a producer without a number, the right that it lacks is named |
/// | `_BAD_MSG` | an answer was larger than we may receive | the partition is looked for |
/// | `_BAD_MSG` of the size of a TLS alert | the listener speaks TLS | named and waited for |
/// | `GROUP_AUTHORIZATION_FAILED` | no right to READ the group | named and waited for |
/// | `_AUTHENTICATION`, `_SSL`, 33, 34, 58 (SASL), `_TRANSPORT` with an alert of TLS | the broker lets us not in, or we do not trust it | named with the setting, and waited for |
/// | 31 (cluster) | no right to what is asked of the cluster | named and waited for |
/// | `_UNSUPPORTED_FEATURE`, `UNSUPPORTED_VERSION` | the broker is too old, or did not say what it can | named and waited for |
/// | 23, 24, 26, 81 | the group does not take a member like us | named and waited for |
/// | `TOPIC_AUTHORIZATION_FAILED` | no right to see the topic; that it may not be read, the reader of the partition says | named and waited for |
/// | `UNKNOWN_TOPIC*` | there is no such topic | the observer sees it, and the guard |
/// | the rest: no connection, no leader, a rebalance | weather | the client tries again |
pub fn trouble(code: RDKafkaErrorCode, reason: &str) -> Trouble {
    use RDKafkaErrorCode as Code;
    let other = |step| Trouble::Refused(Refusal::Other(step));
    match code {
        Code::FencedInstanceId => Trouble::Fenced,
        Code::Fatal if reason.contains("Cluster authorization failed") => Trouble::Refused(Refusal::NoWrite),
        Code::Fatal => Trouble::Fatal,
        Code::BadMessage if is_alert_of_tls(reason) => Trouble::Refused(Refusal::WantsTls),
        Code::BadMessage => Trouble::TooLarge,
        Code::GroupAuthorizationFailed => other("grant READ on the consumer group"),
        Code::TopicAuthorizationFailed => other("grant DESCRIBE on the topic"),
        Code::ClusterAuthorizationFailed => Trouble::Refused(Refusal::NoWrite),
        Code::UnsupportedSASLMechanism => Trouble::Refused(Refusal::Mechanism),
        Code::IllegalSASLState => Trouble::Refused(Refusal::TakesNoLogin),
        Code::Authentication | Code::SaslAuthenticationFailed => Trouble::Refused(of_login(reason)),
        Code::SSL => Trouble::Refused(of_tls(reason).unwrap_or(Refusal::Tls)),
        Code::BrokerTransportFailure => {
            of_tls(reason).filter(|refusal| *refusal != Refusal::TakesNoTls).map_or(Trouble::Passing, Trouble::Refused)
        }
        Code::UnsupportedFeature | Code::UnsupportedVersion => {
            other("upgrade the broker: it lacks what the client needs")
        }
        Code::InconsistentGroupProtocol => {
            other("give the service a kafka.group_id of its own: another kind of consumer is in that group")
        }
        Code::InvalidSessionTimeout => other(
            "set kafka.session_timeout_ms between the broker's group.min.session.timeout.ms and group.max.session.timeout.ms",
        ),
        Code::InvalidGroupId => other("set a kafka.group_id that the broker takes"),
        Code::GroupMaxSizeReached => other("raise the broker's group.max.size, or run fewer instances"),
        _ => Trouble::Passing,
    }
}

/// What it may mean that a connection was closed on us, by the client's words with where it stood: somebody speaks otherwise, or
/// it is weather. It counts while nothing better is known and nobody answers.
pub fn guess(words: &str) -> Option<Refusal> {
    if words.contains("connecting to a PLAINTEXT broker listener") {
        return Some(Refusal::TakesNoTls);
    }
    if !words.contains("Disconnected") {
        return None;
    }
    let (has_tls, has_login) = (words.contains("ssl://"), words.contains("sasl_"));
    if words.contains("in state APIVERSION_QUERY") && !has_tls {
        // The first request was taken for the beginning of a handshake.
        return Some(Refusal::WantsTls);
    }
    let milliseconds = words.split("(after ").nth(1).and_then(|rest| rest.split_once("ms in state UP"));
    let is_soon = milliseconds.is_some_and(|(number, _)| number.parse::<u32>().is_ok_and(|number| number < SOON));
    // The first request behind the handshake was one that is not taken before a login.
    (is_soon && !has_login).then_some(Refusal::WantsLogin)
}

/// Milliseconds after which it is nothing that was said at first.
const SOON: u32 = 2_000;

fn of_login(reason: &str) -> Refusal {
    if reason.contains("not valid in current SASL state") {
        Refusal::TakesNoLogin
    } else if reason.contains("mechanism handshake failed") {
        Refusal::Mechanism
    } else {
        Refusal::Login
    }
}

/// By the words of OpenSSL and of the client.
fn of_tls(reason: &str) -> Option<Refusal> {
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if has(&["certificate verify failed", "certificate could not be verified", "verify broker certificate"]) {
        Some(Refusal::BrokerCertificate)
    } else if has(&["alert protocol version", "alert handshake failure", "alert internal error"]) {
        Some(Refusal::Tls)
    } else if has(&[" alert ", "client SSL authentication might be required"]) {
        Some(Refusal::OurCertificate)
    } else if has(&["wrong version number", "packet length too long", "http request"]) {
        Some(Refusal::TakesNoTls)
    } else {
        guess(reason)
    }
}

/// Whether the size that was too large is how an alert of TLS begins: the broker has taken our request for the beginning of a
/// handshake.
fn is_alert_of_tls(reason: &str) -> bool {
    let size =
        reason.split("Invalid response size ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<i64>().ok());
    // 0x15: alert; 0x03: any version.
    size.is_some_and(|size| size >> 16 == 0x1503)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code of each class, by what follows.
    #[test]
    fn every_class_of_error_has_its_row() {
        use RDKafkaErrorCode as Code;
        assert_eq!(trouble(Code::FencedInstanceId, ""), Trouble::Fenced);
        assert_eq!(trouble(Code::Fatal, ""), Trouble::Fatal);
        assert_eq!(
            trouble(Code::BadMessage, "Receive failed: Invalid response size 40000000 (0..33554432)"),
            Trouble::TooLarge
        );
        let verify = "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not";
        let unknown =
            "Receive failed: error:0A000416:SSL routines::sslv3 alert certificate unknown: SSL alert number 46";
        let handshake = "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported";
        let state = "SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state: broker's";
        let wrong = "SASL authentication error: Authentication failed during authentication due to invalid credentials";
        let alert = "Receive failed: Invalid response size 352518912 (0..33554432): increase receive.message.max.bytes";
        let refused = [
            (Code::GroupAuthorizationFailed, "", "grant READ"),
            (Code::TopicAuthorizationFailed, "", "grant DESCRIBE"),
            (Code::ClusterAuthorizationFailed, "", "grant WRITE on the topic"),
            (
                Code::Fatal,
                "Fatal error: Broker: Cluster authorization failed: Failed to acquire idempotence PID",
                "grant WRITE",
            ),
            (Code::Authentication, wrong, "kafka.password"),
            (Code::SaslAuthenticationFailed, wrong, "kafka.password"),
            (Code::Authentication, handshake, "kafka.sasl_mechanism"),
            (Code::UnsupportedSASLMechanism, "", "kafka.sasl_mechanism"),
            (Code::Authentication, state, "takes no login: set kafka.security_protocol"),
            (Code::IllegalSASLState, "", "takes no login: set kafka.security_protocol"),
            (Code::SSL, verify, "kafka.tls.ca_file"),
            (
                Code::SSL,
                "error:0A00010B:SSL routines::wrong version number",
                "speaks no TLS: set kafka.security_protocol",
            ),
            (Code::SSL, "error:0A000126:SSL routines::unexpected eof", "kafka.security_protocol, kafka.tls"),
            (Code::SSL, unknown, "kafka.tls.cert_file"),
            (Code::BrokerTransportFailure, unknown, "kafka.tls.cert_file"),
            (Code::BadMessage, alert, "speaks TLS: set kafka.security_protocol"),
            (Code::UnsupportedFeature, "", "upgrade"),
            (Code::UnsupportedVersion, "", "upgrade"),
            (Code::InconsistentGroupProtocol, "", "kafka.group_id"),
            (Code::InvalidGroupId, "", "kafka.group_id"),
            (Code::InvalidSessionTimeout, "", "kafka.session_timeout_ms"),
            (Code::GroupMaxSizeReached, "", "group.max.size"),
        ];
        for (code, reason, words) in refused {
            let found = trouble(code, reason);
            let is_right = matches!(found, Trouble::Refused(refusal) if refusal.next_step().contains(words));
            assert!(is_right, "{code:?} {reason}: {found:?}");
        }
        for code in [
            Code::BrokerTransportFailure,
            Code::AllBrokersDown,
            Code::RebalanceInProgress,
            Code::UnknownTopicOrPartition,
            Code::CoordinatorNotAvailable,
        ] {
            assert_eq!(
                trouble(code, "Connect to ipv4#127.0.0.1:9092 failed: Connection refused"),
                Trouble::Passing,
                "{code:?}"
            );
        }
    }

    #[test]
    fn a_connection_that_was_closed_is_weather_until_nothing_better_is_known() {
        let handshake =
            "SSL handshake failed: Disconnected: connection closed by peer: connecting to a PLAINTEXT broker listener?";
        assert_eq!(trouble(RDKafkaErrorCode::BrokerTransportFailure, handshake), Trouble::Passing);
        assert_eq!(guess(handshake), Some(Refusal::TakesNoTls));
        let closed = "Disconnected: connection closed by peer: receive 0 after POLLIN";
        for (words, refusal) in [
            (format!("h:9/bootstrap: {closed} (after 3ms in state APIVERSION_QUERY)"), Some(Refusal::WantsTls)),
            (
                format!("sasl_plaintext://h:9/bootstrap: {closed} (after 3ms in state APIVERSION_QUERY)"),
                Some(Refusal::WantsTls),
            ),
            (format!("ssl://h:9/bootstrap: {closed} (after 3ms in state APIVERSION_QUERY)"), None),
            (
                format!("ssl://h:9/bootstrap: {closed} (after 1ms in state UP, 12 identical error(s) suppressed)"),
                Some(Refusal::WantsLogin),
            ),
            (format!("h:9/1: {closed} (after 1999ms in state UP)"), Some(Refusal::WantsLogin)),
            (format!("h:9/1: {closed} (after 2000ms in state UP)"), None),
            (format!("sasl_ssl://h:9/1: {closed} (after 1ms in state UP)"), None),
            (
                "h:9/1: Connect to ipv4#127.0.0.1:9 failed: Connection refused (after 0ms in state CONNECT)".to_owned(),
                None,
            ),
        ] {
            assert_eq!(guess(&words), refusal, "{words}");
        }
    }
}
