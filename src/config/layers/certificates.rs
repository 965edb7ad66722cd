//! Rules between the settings of one wire: what is said of certificates and a login has to fit how is connected. No file is
//! looked at here.

use super::Layers;
use crate::config::ConfigError;
use crate::config::secret::web_addresses;

const PROTOCOL: &str = "kafka.security_protocol";
const LOGIN: [&str; 3] = ["kafka.sasl_mechanism", "kafka.username", "kafka.password"];
const TLS: [&str; 4] = ["kafka.tls.ca_file", "kafka.tls.cert_file", "kafka.tls.key_file", "kafka.tls.key_password"];

impl Layers {
    /// How brokers are connected to:
    ///
    /// | `kafka.security_protocol` | login | `kafka.tls.*` |
    /// |---|---|---|
    /// | `plaintext` | nothing | nothing |
    /// | `ssl` | nothing | may be; a certificate and its key, or neither |
    /// | `sasl_plaintext` | mechanism, name and password | nothing |
    /// | `sasl_ssl` | mechanism, name and password | as with `ssl` |
    pub(super) fn check_kafka_wire(&self) -> Result<(), ConfigError> {
        let protocol = self.settings[PROTOCOL].value.as_str().unwrap_or_default();
        let origin = &self.settings[PROTOCOL].origin;
        let is_set = |key: &&str| !self.is_empty(key);
        let idle = format!("nothing where {PROTOCOL} = {protocol} ({origin})");
        if protocol.starts_with("sasl_") {
            let missing = LOGIN.into_iter().find(|key| !is_set(key));
            let allowed = |what| format!("{what} where {PROTOCOL} = {protocol} ({origin})");
            match missing {
                Some(key @ "kafka.sasl_mechanism") => {
                    return Err(self.not_allowed(key, allowed("PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")));
                }
                Some(key) => return Err(self.not_allowed(key, allowed("what to log in with"))),
                None => {}
            }
        } else if let Some(key) = LOGIN.into_iter().find(is_set) {
            return Err(self.not_allowed(key, idle));
        }
        if !protocol.ends_with("ssl")
            && let Some(key) = TLS.into_iter().find(is_set)
        {
            return Err(self.not_allowed(key, idle));
        }
        self.check_certificate("kafka.tls.cert_file", "kafka.tls.key_file")?;
        if is_set(&"kafka.tls.key_password") && !is_set(&"kafka.tls.key_file") {
            let allowed = "nothing where kafka.tls.key_file is empty".to_owned();
            return Err(self.not_allowed("kafka.tls.key_password", allowed));
        }
        Ok(())
    }

    /// A certificate needs its key, and an address where it is shown.
    pub(super) fn check_registry_certificate(&self) -> Result<(), ConfigError> {
        let (certificate, key) = ("schema_registry.tls.cert_file", "schema_registry.tls.key_file");
        self.check_certificate(certificate, key)?;
        let addresses = self.settings["schema_registry.url"].value.as_str().unwrap_or_default();
        if !self.is_empty(certificate) && !web_addresses(addresses).iter().any(|url| url.starts_with("https://")) {
            let allowed = "nothing where no address of schema_registry.url begins with https://".to_owned();
            return Err(self.not_allowed(certificate, allowed));
        }
        Ok(())
    }

    fn check_certificate(&self, certificate: &str, key: &str) -> Result<(), ConfigError> {
        match (self.is_empty(certificate), self.is_empty(key)) {
            (false, true) => Err(self.not_allowed(certificate, format!("{key} to be set as well: its private key"))),
            (true, false) => Err(self.not_allowed(key, format!("{certificate} to be set as well: its certificate"))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError, SaslMechanism, SecurityProtocol};

    fn load(settings: &str) -> Result<Config, ConfigError> {
        let pair = |text: &str| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        Config::load(None, [], &settings.split_whitespace().filter_map(pair).collect::<Vec<_>>())
    }

    const LOGIN: &str = "kafka.sasl_mechanism=PLAIN kafka.username=shop kafka.password=hunter2";

    #[test]
    fn every_way_to_a_broker_is_there_once_it_is_whole() {
        for (protocol, rest) in [
            ("plaintext", ""),
            ("ssl", ""),
            ("ssl", "kafka.tls.ca_file=/ca"),
            ("ssl", "kafka.tls.cert_file=/c kafka.tls.key_file=/k kafka.tls.key_password=hunter2"),
            ("sasl_plaintext", LOGIN),
            ("sasl_ssl", LOGIN),
            ("sasl_ssl", &format!("{LOGIN} kafka.sasl_mechanism=SCRAM-SHA-512 kafka.tls.ca_file=/ca")),
        ] {
            let config = load(&format!("kafka.security_protocol={protocol} {rest}")).unwrap();
            assert_eq!(config.kafka.security_protocol.as_str(), protocol);
            assert_eq!(config.warnings().len(), usize::from(protocol == "sasl_plaintext"), "{:?}", config.warnings());
            assert!(!format!("{config:?} {}", config.to_toml_redacted()).contains("hunter2"), "{config:?}");
        }
        let config = load(
            "kafka.security_protocol=sasl_ssl kafka.sasl_mechanism=SCRAM-SHA-256 kafka.username=u kafka.password=p",
        );
        let kafka = config.unwrap().kafka;
        assert_eq!(kafka.sasl_mechanism.as_str(), "SCRAM-SHA-256");
        assert_eq!(
            (kafka.security_protocol, kafka.sasl_mechanism),
            (SecurityProtocol::SaslSsl, SaslMechanism::ScramSha256)
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_name_and_without_the_password() {
        let https = "schema_registry.url=https://registry";
        for (settings, named, words) in [
            ("kafka.username=shop", "kafka.username", "nothing where kafka.security_protocol = plaintext"),
            ("kafka.password=hunter2", "kafka.password", "nothing where kafka.security_protocol = plaintext"),
            ("kafka.security_protocol=ssl kafka.sasl_mechanism=PLAIN", "kafka.sasl_mechanism", "= ssl (command line)"),
            ("kafka.security_protocol=sasl_ssl", "kafka.sasl_mechanism", "SCRAM-SHA-512 where"),
            ("kafka.security_protocol=sasl_ssl kafka.username=u", "kafka.sasl_mechanism", "SCRAM-SHA-512 where"),
            ("kafka.security_protocol=sasl_ssl kafka.sasl_mechanism=PLAIN", "kafka.username", "what to log in with"),
            (
                "kafka.security_protocol=sasl_ssl kafka.sasl_mechanism=PLAIN kafka.username=u",
                "kafka.password",
                "what to log in with",
            ),
            (
                "kafka.tls.ca_file=/ca",
                "kafka.tls.ca_file",
                "nothing where kafka.security_protocol = plaintext (default)",
            ),
            ("kafka.tls.key_password=hunter2", "kafka.tls.key_password", "nothing where"),
            (
                &format!("kafka.security_protocol=sasl_plaintext {LOGIN} kafka.tls.ca_file=/ca"),
                "kafka.tls.ca_file",
                "nothing",
            ),
            (
                "kafka.security_protocol=ssl kafka.tls.cert_file=/c",
                "kafka.tls.cert_file",
                "kafka.tls.key_file to be set",
            ),
            (
                "kafka.security_protocol=ssl kafka.tls.key_file=/k",
                "kafka.tls.key_file",
                "kafka.tls.cert_file to be set",
            ),
            (
                "kafka.security_protocol=ssl kafka.tls.key_password=hunter2",
                "kafka.tls.key_password",
                "kafka.tls.key_file",
            ),
            ("kafka.security_protocol=tls", "kafka.security_protocol", "sasl_plaintext or sasl_ssl"),
            ("kafka.sasl_mechanism=GSSAPI", "kafka.sasl_mechanism", "SCRAM-SHA-512"),
            ("kafka.sasl_mechanism=OAUTHBEARER", "kafka.sasl_mechanism", "SCRAM-SHA-512"),
            (
                &format!("{https} schema_registry.tls.cert_file=/c"),
                "schema_registry.tls.cert_file",
                "key_file to be set",
            ),
            (
                &format!("{https} schema_registry.tls.key_file=/k"),
                "schema_registry.tls.key_file",
                "cert_file to be set",
            ),
            (
                "schema_registry.url=http://r schema_registry.tls.cert_file=/c schema_registry.tls.key_file=/k",
                "schema_registry.tls.cert_file",
                "begins with https://",
            ),
        ] {
            let message = load(settings).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{named} = ")) && message.contains(words), "{settings}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
        // Any other property of the client, such as one that runs a program.
        let message = load("kafka.sasl.kerberos.kinit.cmd=id").unwrap_err().to_string();
        assert!(message.starts_with("unknown key kafka.sasl.kerberos.kinit.cmd"), "{message}");
    }
}
