use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;

/// A provider with one key of each of two kinds.
struct Provider {
    curve: EcdsaKeyPair,
    edwards: Ed25519KeyPair,
    random: SystemRandom,
}

impl Provider {
    fn new() -> Provider {
        let random = SystemRandom::new();
        let curve = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let edwards = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Provider {
            curve: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, curve.as_ref(), &random).unwrap(),
            edwards: Ed25519KeyPair::from_pkcs8(edwards.as_ref()).unwrap(),
            random,
        }
    }

    fn keys(&self) -> KeySet {
        let point = self.curve.public_key().as_ref();
        let keys = json!({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "curve", "use": "sig", "alg": "ES256",
             "x": encode(&point[1..33]), "y": encode(&point[33..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": "edwards", "x": encode(self.edwards.public_key().as_ref())},
            {"kty": "oct", "kid": "secret", "k": encode(b"a secret that is in the set by mistake")},
            {"kty": "RSA", "kid": "encrypts", "use": "enc", "alg": "RSA-OAEP", "n": encode(&[9; 256]), "e": "AQAB"},
            {"kty": "new", "kid": "unheard-of"},
        ]});
        KeySet::parse(keys.to_string().as_bytes()).unwrap()
    }

    fn token(&self, head: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(head.as_bytes()), encode(claims.as_bytes()));
        let signature = if head.contains("EdDSA") {
            self.edwards.sign(signed.as_bytes()).as_ref().to_vec()
        } else {
            self.curve.sign(&self.random, signed.as_bytes()).unwrap().as_ref().to_vec()
        };
        format!("{signed}.{}", encode(&signature))
    }

    fn read(&self, token: &str) -> Result<Verified, Refusal> {
        let (rules, keys) = (rules(), self.keys());
        let head = head_of(token, &rules)?;
        let key = keys.find(&head).ok_or_else(|| invalid("no such key"))?;
        verify(token, (&head, key), &rules, NOW)
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rules() -> TokenRules {
    TokenRules {
        issuer: "https://id.example".to_owned(),
        audience: vec!["streamview".to_owned(), "orders".to_owned()],
        roles_claim: ClaimPath::parse("realm_access.roles"),
        role_map: vec![("shop-ops".to_owned(), Role::Operator), ("admin".to_owned(), Role::Reader)],
        algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
        leeway_seconds: 30,
    }
}

const HEAD: &str = r#"{"alg":"ES256","kid":"curve"}"#;

fn claims(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = json!({"iss": "https://id.example", "aud": "orders", "exp": NOW + 60, "sub": "ada",
        "realm_access": {"roles": ["shop-ops", "other"]}});
    change(&mut claims);
    claims.to_string()
}

#[test]
fn a_right_token_names_its_principal() {
    let provider = Provider::new();
    let verified = provider.read(&provider.token(HEAD, &claims(|_| {}))).unwrap();
    let principal = Principal { name: "ada".to_owned(), roles: Role::Operator.into() };
    assert_eq!(verified, Verified { principal, until: NOW + 90 });
    for head in [r#"{"alg":"EdDSA","kid":"edwards"}"#, r#"{"alg":"EdDSA"}"#, r#"{"alg":"ES256","typ":"at+jwt"}"#] {
        assert!(provider.read(&provider.token(head, &claims(|_| {}))).is_ok(), "{head}");
    }
}

#[test]
fn claims_that_are_not_right_are_refused_by_name() {
    let provider = Provider::new();
    let refused = |claims: &str| match provider.read(&provider.token(HEAD, claims)) {
        Err(Refusal::Invalid(why)) => why,
        other => panic!("{claims}: {other:?}"),
    };
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 12] = [
        ("has expired", |claims| claims["exp"] = json!(NOW - 30)),
        ("no exp", |claims| drop(claims.as_object_mut().unwrap().remove("exp"))),
        ("no number", |claims| claims["exp"] = json!("soon")),
        ("not valid yet", |claims| claims["nbf"] = json!(NOW + 31)),
        ("another issuer", |claims| claims["iss"] = json!("https://id.example/")),
        ("no iss", |claims| drop(claims.as_object_mut().unwrap().remove("iss"))),
        ("another audience", |claims| claims["aud"] = json!(["shop"])),
        ("no aud", |claims| drop(claims.as_object_mut().unwrap().remove("aud"))),
        ("no usable sub", |claims| drop(claims.as_object_mut().unwrap().remove("sub"))),
        ("no usable sub", |claims| claims["sub"] = json!(" ")),
        ("no usable sub", |claims| claims["sub"] = json!("x".repeat(257))),
        ("no number", |claims| claims["nbf"] = json!({})),
    ];
    for (why, change) in cases {
        let claims = claims(change);
        assert!(refused(&claims).contains(why), "{claims}: {}", refused(&claims));
    }
    let twice = claims(|_| {}).replacen('{', r#"{"sub":"eve","#, 1);
    assert!(refused(&twice).contains("once"));
    let deep = claims(|_| {}).replace(r#"{"roles":"#, r#"{"roles":["admin"],"roles":"#);
    assert!(refused(&deep).contains("once"));
}

#[test]
fn times_are_taken_at_their_edges() {
    let provider = Provider::new();
    let read = |change: fn(&mut Value)| provider.read(&provider.token(HEAD, &claims(change)));
    assert!(read(|claims| claims["exp"] = json!(NOW - 29)).is_ok());
    assert!(read(|claims| claims["nbf"] = json!(NOW + 30)).is_ok());
    assert!(read(|claims| claims["exp"] = json!(NOW as f64 + 0.5)).is_ok());
    assert!(read(|claims| claims["aud"] = json!(["shop", "streamview"])).is_ok());
}

#[test]
fn whoever_signs_by_another_way_is_refused() {
    let provider = Provider::new();
    let claims = claims(|_| {});
    let token = provider.token(HEAD, &claims);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    // Nobody's signature, somebody else's, and that of other claims.
    let unsigned = format!("{}.{}.", encode(br#"{"alg":"none"}"#), encode(claims.as_bytes()));
    assert!(matches!(provider.read(&unsigned), Err(Refusal::Malformed(_))));
    assert!(provider.read(&format!("{signed}.")).is_err());
    assert!(provider.read(&Provider::new().token(HEAD, &claims)).is_err());
    assert!(provider.read(&format!("{signed}x.{signature}")).is_err());
    // HMAC with the public key for a secret, and with a secret that stands in the set.
    for (kid, secret) in
        [("curve", provider.curve.public_key().as_ref()), ("secret", b"a secret that is in the set by mistake")]
    {
        let head = encode(format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#).as_bytes());
        let signed = format!("{head}.{}", encode(claims.as_bytes()));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        assert!(provider.read(&format!("{signed}.{}", encode(signature.as_ref()))).is_err(), "{kid}");
    }
    // A key of another kind than the algorithm, an unknown key, an algorithm that is not allowed, an extension.
    for head in [
        r#"{"alg":"EdDSA","kid":"curve"}"#,
        r#"{"alg":"ES256","kid":"unheard-of"}"#,
        r#"{"alg":"ES256","kid":"encrypts"}"#,
        r#"{"alg":"ES384","kid":"curve"}"#,
        r#"{"alg":"ES256","kid":"curve","crit":["exp"]}"#,
    ] {
        assert!(provider.read(&provider.token(head, &claims)).is_err(), "{head}");
    }
    for odd in ["", "a", "a.b", "a.b.c", "....", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
        assert!(matches!(head_of(odd, &rules()), Err(Refusal::Malformed(_))), "{odd}");
    }
}

#[test]
fn roles_are_found_where_they_are_and_mapped() {
    let names = |claims: Value, path: &str| {
        let rules = TokenRules { roles_claim: ClaimPath::parse(path), ..rules() };
        roles_of(claims.as_object().unwrap(), &rules).names()
    };
    assert_eq!(names(json!({"roles": ["operator", "developer", "x", 1]}), "roles"), ["developer", "operator"]);
    // What is mapped is not what it is called.
    assert_eq!(names(json!({"roles": ["admin"]}), "roles"), ["reader"]);
    assert_eq!(names(json!({"scope": "openid reader shop-ops"}), "scope"), ["reader", "operator"]);
    assert_eq!(names(json!({"a/b": {"c.d": ["reader"]}}), "/a~1b/c.d"), ["reader"]);
    assert_eq!(names(json!({"a": 1}), "a.b"), [""; 0]);
    assert_eq!(names(json!({}), "roles"), [""; 0]);
}

#[test]
fn a_set_without_a_usable_key_is_none() {
    for text in ["", "<html>", "[]", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#, r#"{"keys":{}}"#] {
        assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
    }
    assert!(Provider::new().keys().knows("curve") && !Provider::new().keys().knows("secret"));
}
