//! An identity provider: keys of three kinds, tokens signed by them, and a server that gives out the public halves.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub const ISSUER: &str = "https://id.example/realms/shop";

/// Its keys.
pub struct Provider {
    name: &'static str,
    curve: EcdsaKeyPair,
    edwards: Ed25519KeyPair,
    random: SystemRandom,
}

impl Provider {
    /// One whose keys are called after it.
    pub fn new(name: &'static str) -> Provider {
        let random = SystemRandom::new();
        let scheme = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let curve = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
        let edwards = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let curve = EcdsaKeyPair::from_pkcs8(scheme, curve.as_ref(), &random).unwrap();
        Provider { name, curve, edwards: Ed25519KeyPair::from_pkcs8(edwards.as_ref()).unwrap(), random }
    }

    /// The public halves, as a JSON Web Key Set.
    pub fn keys(&self) -> Value {
        let point = self.curve.public_key().as_ref();
        let edwards = self.edwards.public_key().as_ref();
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": format!("{}-ec", self.name), "use": "sig", "alg": "ES256",
              "x": encode(&point[1..33]), "y": encode(&point[33..]) },
            { "kty": "OKP", "crv": "Ed25519", "kid": format!("{}-ed", self.name), "alg": "EdDSA", "x": encode(edwards) },
        ]})
    }

    /// Claims of somebody with this role that are right for an hour.
    pub fn claims(role: &str) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({ "iss": ISSUER, "aud": ["streamview"], "sub": format!("a-{role}"), "exp": now + 3600, "roles": [role] })
    }

    /// A right token of somebody with this role.
    pub fn token(&self, role: &str) -> String {
        self.sign(&Self::claims(role).to_string())
    }

    /// Any claims, signed with the elliptic curve.
    pub fn sign(&self, claims: &str) -> String {
        self.sign_as(&format!(r#"{{"alg":"ES256","kid":"{}-ec"}}"#, self.name), claims)
    }

    /// Any claims under any head.
    pub fn sign_as(&self, head: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(head.as_bytes()), encode(claims.as_bytes()));
        let signature = if head.contains("EdDSA") {
            self.edwards.sign(signed.as_bytes()).as_ref().to_vec()
        } else if head.contains("HS256") {
            // The public key for a secret: the oldest confusion.
            let secret = hmac::Key::new(hmac::HMAC_SHA256, self.curve.public_key().as_ref());
            hmac::sign(&secret, signed.as_bytes()).as_ref().to_vec()
        } else {
            self.curve.sign(&self.random, signed.as_bytes()).unwrap().as_ref().to_vec()
        };
        format!("{signed}.{}", encode(&signature))
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A provider at which browsers sign in: its configuration, its keys, and a token for each code. The page for people is the
/// test's to play.
pub struct SignInServer {
    pub issuer: String,
    /// The ID token that the next code is worth.
    pub token: Arc<Mutex<String>>,
    /// What it was asked for tokens with: the head of the request and its form.
    pub asked: Arc<Mutex<Vec<(String, String)>>>,
    /// Status and body that it has for a code, where it is worth no token.
    pub refuses: Arc<Mutex<Option<(u16, &'static str)>>>,
    looked: Arc<Mutex<usize>>,
}

impl SignInServer {
    pub async fn start(provider: &Provider) -> SignInServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let configuration = json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/keys"),
            "authorization_endpoint": format!("{issuer}/authorize?tenant=shop"),
            "token_endpoint": format!("{issuer}/token"),
        });
        let (keys, token, asked) = (provider.keys(), Arc::<Mutex<String>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (given, told) = (Arc::clone(&token), Arc::clone(&asked));
        let (refuses, looked) = (Arc::<Mutex<Option<(u16, &str)>>>::default(), Arc::<Mutex<usize>>::default());
        let (refusal, looks) = (Arc::clone(&refuses), Arc::clone(&looked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (head, form) = request(&mut stream).await;
                let (status, body) = match head.split(' ').nth(1) {
                    Some("/.well-known/openid-configuration") => {
                        *looks.lock().unwrap() += 1;
                        (200, configuration.to_string())
                    }
                    Some("/keys") => (200, keys.to_string()),
                    _ => {
                        told.lock().unwrap().push((head, form));
                        let given = json!({ "id_token": *given.lock().unwrap(), "token_type": "Bearer" }).to_string();
                        refusal.lock().unwrap().map_or((200, given), |(status, body)| (status, body.to_owned()))
                    }
                };
                let head =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
            }
        });
        SignInServer { issuer, token, asked, refuses, looked }
    }

    /// How often it was asked what it says of itself.
    pub fn looked(&self) -> usize {
        *self.looked.lock().unwrap()
    }
}

/// The head of a request, and its body.
async fn request(stream: &mut tokio::net::TcpStream) -> (String, String) {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .to_lowercase()
                .split_once("content-length: ")
                .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().trim().parse::<usize>().unwrap());
            if body.len() >= length {
                return (head.to_owned(), body.to_owned());
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(read) if read > 0 => text.push_str(std::str::from_utf8(&piece[..read]).unwrap()),
            _ => return (text, String::new()),
        }
    }
}

/// What a server of keys answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// 200 with this body.
    Body(String),
    /// Nothing: it hangs up.
    HangsUp,
    /// Nothing, without an end.
    Waits,
}

/// A server of keys.
pub struct KeyServer {
    pub url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<usize>>,
}

impl KeyServer {
    pub async fn start(answer: Answer) -> KeyServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(Mutex::new(0)));
        let (answers, count) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                let answer = answers.lock().unwrap().clone();
                match answer {
                    Answer::Body(body) => {
                        let mut request = [0; 2048];
                        if stream.read(&mut request).await.is_ok_and(|read| read == 0) {
                            continue;
                        }
                        let head =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                        stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
                    }
                    Answer::HangsUp => drop(stream),
                    Answer::Waits => waiting.push(stream),
                }
            }
        });
        KeyServer { url, answer, asked }
    }

    pub fn now_answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}
