//! Client certificates: their subjects as text (RFC 4514), and what those may whom the settings name. That a certificate is
//! right, and of an authority that counts, is found out before (`certificates/`).
//!
//! A subject is written with its most specific part first, as `CN=checkout,O=Shop`, and in one way only: two subjects that
//! differ never have the same text, whatever somebody has had an authority write into a name.

use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

use super::role::{Role, Roles};
use super::{Principal, Refusal};

/// Most characters of a subject.
const MAX_CHARS: usize = 256;
/// Kinds of parts that have a name; others are written as their number.
const KINDS: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "street"),
    ("2.5.4.5", "serialNumber"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// When a certificate counts, in seconds since 1970, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub from: i64,
    /// Until then.
    pub until: i64,
}

/// When the certificate counts; `None`: it cannot be read.
pub fn validity_of(der: &[u8]) -> Option<Validity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    Some(Validity { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
}

/// The subject of a certificate.
pub fn subject_of(der: &[u8]) -> Result<String, Refusal> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| unusable("cannot be read"))?;
    let mut names = Vec::new();
    for name in certificate.subject().iter() {
        let parts: Option<Vec<String>> = name.iter().map(part).collect();
        names.push(parts.ok_or_else(|| unusable("has a subject that is not of text"))?.join("+"));
    }
    names.reverse();
    let subject = names.join(",");
    match subject.chars().count() {
        0 => Err(unusable("has no subject")),
        1..=MAX_CHARS => Ok(subject),
        _ => Err(unusable("has a subject that is too long")),
    }
}

fn unusable(why: &str) -> Refusal {
    Refusal::Invalid(format!("the client certificate {why}"))
}

fn part(part: &AttributeTypeAndValue<'_>) -> Option<String> {
    let number = part.attr_type().to_id_string();
    let named = KINDS.iter().find(|(known, _)| *known == number);
    let kind = named.map_or(number.as_str(), |(_, name)| *name);
    Some(format!("{kind}={}", escaped(part.as_str().ok()?)))
}

/// RFC 4514, 2.4; other control characters, too, so that a name is one line in a log.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (place, letter) in value.chars().enumerate() {
        match letter {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', letter]),
            '#' if place == 0 => text.push_str("\\#"),
            ' ' if place == 0 || place == last => text.push_str("\\ "),
            _ if letter.is_ascii_control() => text.push_str(&format!("\\{:02X}", u32::from(letter))),
            _ => text.push(letter),
        }
    }
    text
}

/// What `escaped` was made from; `None` if it is not from that.
fn unescaped(text: &str) -> Option<String> {
    let (mut value, mut rest) = (String::with_capacity(text.len()), text.chars());
    while let Some(letter) = rest.next() {
        if letter != '\\' {
            value.push(letter);
            continue;
        }
        let first = rest.next()?;
        match first.to_digit(16) {
            Some(high) => value.push(char::from_u32(high * 16 + rest.next()?.to_digit(16)?)?),
            None => value.push(first),
        }
    }
    (escaped(&value) == text).then_some(value)
}

/// Whether it is a subject, in the form in which certificates' subjects are written here: another one would never be met.
pub fn is_subject(text: &str) -> bool {
    let is_number = |kind: &str| kind.split('.').all(|part| part.parse::<u64>().is_ok()) && kind.contains('.');
    let is_kind = |kind: &str| KINDS.iter().any(|(_, name)| *name == kind) || is_number(kind);
    let is_part =
        |part: &str| part.split_once('=').is_some_and(|(kind, value)| is_kind(kind) && unescaped(value).is_some());
    text.chars().count() <= MAX_CHARS && split(text, ',').into_iter().flat_map(|name| split(name, '+')).all(is_part)
}

/// The text between separators, of which those behind a `\` are none.
pub fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut begin, mut is_escaped) = (Vec::new(), 0, false);
    for (place, letter) in text.char_indices() {
        if !is_escaped && letter == separator {
            parts.push(&text[begin..place]);
            begin = place + letter.len_utf8();
        }
        is_escaped = !is_escaped && letter == '\\';
    }
    parts.push(&text[begin..]);
    parts
}

/// Reads `subject=role`: the last `=` counts.
pub fn subject_and_role(text: &str) -> Option<(String, Role)> {
    let (subject, role) = text.rsplit_once('=')?;
    Some((subject.trim().to_owned(), Role::parse(role.trim())?))
}

/// Which subjects have which roles.
#[derive(Debug, Default)]
pub struct Subjects(Vec<(String, Role)>);

impl Subjects {
    /// Reads `subject=role`; what is not that is left out, as the settings' rules have refused it.
    pub fn new(pairs: &[String]) -> Subjects {
        Subjects(pairs.iter().filter_map(|pair| subject_and_role(pair)).collect())
    }

    /// Whoever has shown a certificate with this subject. One that is not known has logged in, and may nothing.
    pub fn principal(&self, subject: &str) -> Principal {
        let roles: Roles = self.0.iter().filter(|(known, _)| known == subject).map(|(_, role)| *role).collect();
        Principal { name: subject.to_owned(), roles }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(parts: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            parameters.distinguished_name.push(kind.clone(), value.clone());
        }
        let key = KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    fn text(value: &str) -> DnValue {
        DnValue::Utf8String(value.to_owned())
    }

    #[test]
    fn a_subject_is_written_in_one_way_and_read_back() {
        use DnType::{CommonName, CountryName, CustomDnType, OrganizationName};
        let printable = DnValue::PrintableString("Shop".try_into().unwrap());
        for (parts, subject) in [
            (vec![(OrganizationName, text("Shop")), (CommonName, text("checkout"))], "CN=checkout,O=Shop"),
            (vec![(OrganizationName, printable), (CommonName, text("checkout"))], "CN=checkout,O=Shop"),
            (vec![(CountryName, text("DE")), (CommonName, text("é ü"))], "CN=é ü,C=DE"),
            (vec![(CommonName, text("a,O=Shop"))], "CN=a\\,O=Shop"),
            (vec![(CommonName, text(" #a+b;\\c\" "))], "CN=\\ #a\\+b\\;\\\\c\\\"\\ "),
            (vec![(CommonName, text("#1"))], "CN=\\#1"),
            (vec![(CommonName, text("a\nb=c"))], "CN=a\\0Ab=c"),
            (vec![(CustomDnType(vec![1, 2, 3, 4]), text("x"))], "1.2.3.4=x"),
        ] {
            assert_eq!(subject_of(&certificate(&parts)).as_deref(), Ok(subject));
            assert!(is_subject(subject), "{subject}");
        }
    }

    #[test]
    fn a_certificate_without_a_usable_subject_names_nobody() {
        let long = [(DnType::CommonName, text(&"a".repeat(254)))];
        for (parts, why) in [(&[][..], "has no subject"), (&long, "has a subject that is too long")] {
            assert_eq!(subject_of(&certificate(parts)), Err(unusable(why)));
        }
        assert_eq!(subject_of(b"none"), Err(unusable("cannot be read")));
        assert_eq!(validity_of(b"none"), None);
    }

    #[test]
    fn what_no_certificate_would_be_written_like_is_no_subject() {
        for text in [
            "",
            "checkout",
            "cn=a",
            "CN =a",
            "CN= a",
            "CN=a, O=b",
            "/CN=a/O=b",
            "CN=a;O=b",
            "CN=a,",
            "CN=\\C3\\A9",
            "CN=a\\",
            "CN=\\a",
            "1=a",
            "CN=a+",
            "XX=a",
        ] {
            assert!(!is_subject(text), "{text}");
        }
    }

    #[test]
    fn a_role_goes_to_the_whole_subject_only() {
        let subjects = Subjects::new(&["CN=a,O=Shop=reader".to_owned(), "CN=a,O=Shop = operator".to_owned()]);
        assert_eq!(subjects.principal("CN=a,O=Shop").roles.names(), ["reader", "operator"]);
        for other in ["CN=a", "CN=a,O=Shop,C=DE", "CN=a\\,O=Shop", "cn=a,O=Shop", ""] {
            assert_eq!(subjects.principal(other).roles, Roles::NONE, "{other}");
        }
    }
}
