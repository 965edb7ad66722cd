//! A real Kafka that lets nobody in who has no login or certificate, and allows nothing that no rule allows. Its plain
//! listener, where everything is allowed, is for the test itself.

use std::sync::OnceLock;

use streamview_lab::servers::{KafkaOptions, KafkaServer};

use crate::support::authority::{Authority, Files, Whom};

/// The broker and its files: `ca.pem`, `foreign.pem`, and by [`Authority::write`] `server`, `client`, `expired` and
/// `expired-client`.
pub struct SecureKafka {
    pub kafka: KafkaServer,
    pub files: Files,
    pub authority: Authority,
}

/// Listeners by name and protocol.
const LISTENERS: [(&str, &str); 6] = [
    ("SCRAM", "SASL_SSL"),
    ("LOGIN", "SASL_SSL"),
    ("CLEAR", "SASL_PLAINTEXT"),
    ("MTLS", "SSL"),
    ("EXPIRED", "SSL"),
    ("ELSEWHERE", "SSL"),
];

/// By SCRAM-SHA-512. May do everything, and so may [`BOB`], [`APP`] and the client of `client.pem`.
pub const ALICE: (&str, &str) = ("alice", "alice-s3cret");
/// By SCRAM-SHA-256.
pub const BOB: (&str, &str) = ("bob", "bob-s3cret");
/// By PLAIN.
pub const APP: (&str, &str) = ("app", "app-s3cret");
/// By PLAIN. May do what rules allow.
pub const GUEST: (&str, &str) = ("guest", "guest-s3cret");

/// The one of this run, started with the first call.
pub fn shared() -> &'static SecureKafka {
    static BROKER: OnceLock<SecureKafka> = OnceLock::new();
    BROKER.get_or_init(own)
}

/// One for a test that stops it.
pub fn own() -> SecureKafka {
    // On a thread of its own: the caller may be inside a runtime.
    std::thread::scope(|scope| scope.spawn(SecureKafka::start).join().unwrap())
}

impl SecureKafka {
    fn start() -> SecureKafka {
        let (files, authority) = (Files::new(), Authority::new("test authority"));
        std::fs::write(files.path("ca.pem"), authority.pem()).unwrap();
        std::fs::write(files.path("foreign.pem"), Authority::new("foreign authority").pem()).unwrap();
        for (file, issued) in [
            ("server", Whom::Server("localhost")),
            ("expired", Whom::ExpiredServer("localhost")),
            ("elsewhere", Whom::Server("wrong.example")),
            ("client", Whom::Client("svc-orders")),
            ("expired-client", Whom::ExpiredClient("svc-orders")),
        ] {
            authority.write(files.folder(), file, issued);
        }
        let settings = settings(&files).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let kafka =
            KafkaServer::start(KafkaOptions { listeners: LISTENERS.to_vec(), settings, ..KafkaOptions::default() });
        let broker = SecureKafka { kafka: kafka.unwrap(), files, authority };
        broker.set_password("SCRAM-SHA-512", ALICE);
        broker.set_password("SCRAM-SHA-256", BOB);
        broker
    }

    /// Gives a user of SCRAM this password.
    pub fn set_password(&self, mechanism: &str, (name, password): (&str, &str)) {
        let credential = format!("{mechanism}=[password={password}]");
        let user = ["--entity-type", "users", "--entity-name", name];
        self.tool("kafka.admin.ConfigCommand", &[&["--alter", "--add-config", &credential][..], &user].concat());
    }

    /// Allows a user these operations on a resource, such as `("--topic", "orders")`.
    pub fn allow(&self, user: &str, (kind, name): (&str, &str), operations: &[&str]) {
        let user = format!("User:{user}");
        let operations = operations.iter().flat_map(|operation| ["--operation", operation]);
        let rule = [&["--add", "--allow-principal", &user, kind, name][..], &operations.collect::<Vec<_>>()].concat();
        self.tool("org.apache.kafka.tools.AclCommand", &rule);
    }

    fn tool(&self, class: &str, arguments: &[&str]) {
        let mut tool = self.kafka.tool(class);
        let output = tool.args(["--bootstrap-server", &self.kafka.bootstrap()]).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !text.contains("Error"), "{class} {arguments:?}: {text}");
    }

    /// The settings that lead an instance to a listener.
    pub fn at(&self, listener: &str) -> (&'static str, String) {
        ("STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS", self.kafka.bootstrap_of(listener).unwrap())
    }

    /// The setting that has an instance trust the broker.
    pub fn trusted(&self) -> (&'static str, String) {
        ("STREAMVIEW_KAFKA__TLS__CA_FILE", self.files.text("ca.pem"))
    }

    /// The settings of our certificate of that name.
    pub fn certificate(&self, file: &str) -> [(&'static str, String); 2] {
        [
            ("STREAMVIEW_KAFKA__TLS__CERT_FILE", self.files.text(&format!("{file}.pem"))),
            ("STREAMVIEW_KAFKA__TLS__KEY_FILE", self.files.text(&format!("{file}.key"))),
        ]
    }
}

/// The setting of how one connects.
pub fn by(protocol: &str) -> (&'static str, String) {
    ("STREAMVIEW_KAFKA__SECURITY_PROTOCOL", protocol.to_owned())
}

/// The settings of a login.
pub fn login(mechanism: &str, (name, password): (&str, &str)) -> [(&'static str, String); 3] {
    [
        ("STREAMVIEW_KAFKA__SASL_MECHANISM", mechanism.to_owned()),
        ("STREAMVIEW_KAFKA__USERNAME", name.to_owned()),
        ("STREAMVIEW_KAFKA__PASSWORD", password.to_owned()),
    ]
}

/// What the broker needs for its listeners.
fn settings(files: &Files) -> Vec<(&'static str, String)> {
    let users = [APP, GUEST].map(|(name, password)| format!("user_{name}=\"{password}\"")).join(" ");
    let plain = format!("org.apache.kafka.common.security.plain.PlainLoginModule required {users};");
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    vec![
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.keystore.location", files.text("server-both.pem")),
        ("ssl.truststore.type", "PEM".to_owned()),
        ("ssl.truststore.location", files.text("ca.pem")),
        ("listener.name.expired.ssl.keystore.location", files.text("expired-both.pem")),
        ("listener.name.elsewhere.ssl.keystore.location", files.text("elsewhere-both.pem")),
        ("listener.name.mtls.ssl.client.auth", "required".to_owned()),
        ("listener.name.mtls.ssl.principal.mapping.rules", "RULE:^(?:.*,)?CN=([^,]+)(?:,.*)?$/$1/,DEFAULT".to_owned()),
        ("listener.name.scram.sasl.enabled.mechanisms", "SCRAM-SHA-512,SCRAM-SHA-256".to_owned()),
        ("listener.name.scram.scram-sha-512.sasl.jaas.config", scram.to_owned()),
        ("listener.name.scram.scram-sha-256.sasl.jaas.config", scram.to_owned()),
        ("listener.name.login.sasl.enabled.mechanisms", "PLAIN".to_owned()),
        ("listener.name.login.plain.sasl.jaas.config", plain.clone()),
        ("listener.name.clear.sasl.enabled.mechanisms", "PLAIN".to_owned()),
        ("listener.name.clear.plain.sasl.jaas.config", plain),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
        ("super.users", format!("User:ANONYMOUS;User:{};User:{};User:{};User:svc-orders", ALICE.0, BOB.0, APP.0)),
        ("allow.everyone.if.no.acl.found", "false".to_owned()),
    ]
}
