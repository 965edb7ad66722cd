//! Tokens of an identity provider (JWT, RFC 7519): which key one says it is signed with, whether it is, and whom it names.
//!
//! | of a token | has to be |
//! |---|---|
//! | `alg` | one that is allowed: RSA, elliptic curves or Edwards curves, never `none` or HMAC; the key's own, if that names one |
//! | `kid` | a key of the set; left out only where the set has one key for the algorithm |
//! | `crit` | left out: no extension is understood |
//! | signature | right |
//! | any member of the claims | there once |
//! | `iss`, `aud`, `exp` | there; the issuer, one of the audiences, a time to come |
//! | `nbf` | left out, or a time gone by |

use std::fmt;

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::api_key::{KeyHash, hash_of};
use super::role::{Role, Roles};
use super::{Principal, Refusal, crypto};

/// Most bytes of a token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Most characters of a principal's name.
const MAX_NAME_CHARS: usize = 256;

/// What a token has to say.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// Whose tokens are taken.
    pub issuer: String,
    /// For whom they may be.
    pub audience: Vec<String>,
    /// Where the roles are.
    pub roles_claim: ClaimPath,
    /// What roles of the provider are called here; those that are not in it count if they have our names.
    pub role_map: Vec<(String, Role)>,
    /// By which algorithms they may be signed.
    pub algorithms: Vec<Algorithm>,
    /// Seconds by which clocks may differ.
    pub leeway_seconds: i64,
}

/// The way to a claim: a JSON pointer (`/realm_access/roles`), or names with dots between (`realm_access.roles`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath(Vec<String>);

impl ClaimPath {
    /// Reads either notation.
    pub fn parse(text: &str) -> ClaimPath {
        match text.strip_prefix('/') {
            Some(pointer) => {
                ClaimPath(pointer.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect())
            }
            None => ClaimPath(text.split('.').map(str::to_owned).collect()),
        }
    }

    fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (first, rest) = self.0.split_first()?;
        rest.iter().try_fold(claims.get(first)?, |value, name| value.as_object()?.get(name))
    }
}

/// Algorithms by which a token can be signed here.
pub const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// The algorithm of that name, if tokens can be signed by it here.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    ALGORITHMS.contains(&name).then(|| name.parse().ok()).flatten()
}

/// The public keys of a provider.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Hash of what the provider says of them: two sets with the same are one.
    pub print: KeyHash,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The only one it may be used with; any of its family else.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a JSON Web Key Set (RFC 7517). Keys that are of no use here are passed over: secrets, those for encryption, unknown
    /// curves.
    pub fn parse(json: &[u8]) -> Result<KeySet, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set =
            serde_json::from_slice(json).map_err(|error| format!("it is not a JSON Web Key Set: {error}"))?;
        let print = hash_of(Value::from(set.keys.clone()).to_string().as_bytes());
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() {
            Err("it has no key that a token can be verified with".to_owned())
        } else {
            Ok(KeySet { keys, print })
        }
    }

    /// The key of a token.
    pub fn find(&self, head: &TokenHead) -> Option<&DecodingKey> {
        let fits = |key: &&Key| {
            key.algorithm.map_or(key.key.family() == head.algorithm.family(), |algorithm| algorithm == head.algorithm)
        };
        match &head.key_id {
            Some(id) => self.keys.iter().find(|key| key.id.as_ref() == Some(id)).filter(fits),
            None => match self.keys.iter().filter(fits).collect::<Vec<_>>().as_slice() {
                [only] => Some(*only),
                _ => None,
            },
        }
        .map(|key| &key.key)
    }

    /// Whether it has a key of that id.
    pub fn knows(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }
}

impl Key {
    fn read(value: Value) -> Option<Key> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let is_for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            Some(algorithm) => Some(self::algorithm(&algorithm.to_string())?),
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let is_public = key.family() != AlgorithmFamily::Hmac;
        (is_for_signatures && is_public).then_some(Key { id: jwk.common.key_id, algorithm, key })
    }
}

/// What a token says of its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHead {
    /// Which key.
    pub key_id: Option<String>,
    /// Which algorithm.
    pub algorithm: Algorithm,
}

/// Reads the head of a token, which nobody has vouched for yet.
pub fn head_of(token: &str, rules: &TokenRules) -> Result<TokenHead, Refusal> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::Malformed("the token is too long"));
    }
    let header = decode_header(token)
        .map_err(|_| Refusal::Malformed("the token is no signed JWT of an algorithm that is known here"))?;
    if !rules.algorithms.contains(&header.alg) {
        return Err(invalid("the token is signed by an algorithm that is not allowed"));
    }
    if header.crit.is_some() {
        return Err(invalid("the token asks for an extension that is not understood"));
    }
    Ok(TokenHead { key_id: header.kid, algorithm: header.alg })
}

/// A token that was found to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whom it names.
    pub principal: Principal,
    /// Until when, in seconds since 1970, the leeway included.
    pub until: i64,
}

/// Whom a token names, if it is right at `now`, in seconds since 1970.
pub fn verify(
    token: &str,
    (head, key): (&TokenHead, &DecodingKey),
    rules: &TokenRules,
    now: i64,
) -> Result<Verified, Refusal> {
    crypto::install();
    let mut validation = Validation::new(head.algorithm);
    // By our own clock, below.
    (validation.validate_exp, validation.validate_nbf) = (false, false);
    validation.set_required_spec_claims(&["iss", "aud"]);
    validation.set_issuer(&[&rules.issuer]);
    validation.set_audience(&rules.audience);
    let Claims(claims) = decode(token, key, &validation).map_err(|error| invalid(why(error.kind())))?.claims;
    let expires = time(&claims, "exp")?.ok_or_else(|| invalid("the token has no exp"))?;
    let until = expires.saturating_add(rules.leeway_seconds);
    if until <= now {
        return Err(invalid("the token has expired"));
    }
    if time(&claims, "nbf")?.is_some_and(|begins| begins.saturating_sub(rules.leeway_seconds) > now) {
        return Err(invalid("the token is not valid yet"));
    }
    Ok(Verified { principal: Principal { name: name_of(&claims)?, roles: roles_of(&claims, rules) }, until })
}

fn why(error: &jsonwebtoken::errors::ErrorKind) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match error {
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => "the token has no iss",
        ErrorKind::MissingRequiredClaim(_) => "the token has no aud",
        ErrorKind::Json(_) => "the token's claims are no JSON object in which each member is there once",
        _ => "the token's signature is not right",
    }
}

fn invalid(why: &str) -> Refusal {
    Refusal::Invalid(why.to_owned())
}

/// A time in seconds; some providers write fractions.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, Refusal> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => match number.as_i64().or_else(|| number.as_f64().map(|time| time as i64)) {
            Some(time) => Ok(Some(time)),
            None => Err(invalid("a time of the token is out of range")),
        },
        Some(_) => Err(invalid("a time of the token is no number")),
    }
}

/// The subject; of a program that is none, its client.
fn name_of(claims: &Map<String, Value>) -> Result<String, Refusal> {
    let named = ["sub", "client_id", "azp"].into_iter().find_map(|claim| claims.get(claim)?.as_str());
    let fits =
        |name: &&str| !name.trim().is_empty() && name.chars().nth(MAX_NAME_CHARS).is_none() && !name.contains('\0');
    named.filter(fits).map(str::to_owned).ok_or_else(|| invalid("the token has no usable sub"))
}

/// Roles as a list or as text with spaces between.
fn roles_of(claims: &Map<String, Value>, rules: &TokenRules) -> Roles {
    let names: Vec<&str> = match rules.roles_claim.find(claims) {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(names)) => names.split_ascii_whitespace().collect(),
        _ => Vec::new(),
    };
    let role = |name: &str| {
        let mut mapped = rules.role_map.iter().filter(|(theirs, _)| theirs == name).map(|(_, role)| *role).peekable();
        // A name that is mapped means what it is mapped to, and not what it is called.
        let own = if mapped.peek().is_none() { Role::parse(name) } else { None };
        mapped.chain(own).collect::<Vec<Role>>()
    };
    names.into_iter().flat_map(role).collect()
}

/// Claims whose every object has each of its members once: two readers of one that has a member twice may see different ones.
struct Claims(Map<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Strict::deserialize(deserializer)? {
            Strict(Value::Object(claims)) => Ok(Claims(claims)),
            Strict(_) => Err(de::Error::custom("no object")),
        }
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Once).map(Strict)
    }
}

struct Once;

impl<'de> Visitor<'de> for Once {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(element)) = elements.next_element()? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(de::Error::custom("a member is there twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
