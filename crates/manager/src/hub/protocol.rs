//! The messages of the JSON protocol. Pure: texts in, texts out. Nothing that a client sent stands in an error: it may hold
//! its credentials.

use serde::Deserialize;
use serde_json::Value;

/// Ends each message.
pub const SEPARATOR: char = '\u{1e}';
/// Bytes that a message of a client may have.
pub const MOST_BYTES: usize = 32 * 1024;
/// Versions of the handshake: clients that negotiated version 0 say 0, those with stateful reconnect 2.
const VERSIONS: std::ops::RangeInclusive<u64> = 0..=2;

/// What a client says.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Calls a method (type 1); without an id it wants no answer.
    Invocation {
        /// Which call the answer is for.
        id: Option<String>,
        /// What is called, and with what.
        call: Invoked,
    },
    /// Calls a streaming method (type 4).
    StreamInvocation {
        /// Which call the items are for.
        id: String,
        /// What is called, and with what.
        call: Invoked,
    },
    /// Wants no more items of a call (type 5).
    Cancel {
        /// Which.
        id: String,
    },
    /// Is there (type 6).
    Ping,
    /// Leaves (type 7).
    Close,
    /// What is for streams of clients or for calls of the server's (types 2 and 3), or for stateful reconnects (8 and 9), of
    /// which there are none here.
    Ignored,
}

/// A method and what it is given.
#[derive(Debug, Clone, PartialEq)]
pub struct Invoked {
    /// The method.
    pub target: String,
    /// What it is given.
    pub arguments: Vec<Value>,
    /// Whether the client would send it streams, too.
    pub sends_streams: bool,
}

/// Why what a client sent is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Garbled {
    /// More than [`MOST_BYTES`].
    #[error("A message has more than {MOST_BYTES} bytes, which is as many as may be sent.")]
    TooLong,
    /// Not JSON, or not an object with a type.
    #[error("A message is not one of the JSON protocol.")]
    NotJson,
    /// A field is missing or not of its type.
    #[error("A message of type {0} lacks `{1}`.")]
    Lacks(u64, &'static str),
    /// Nobody knows this type.
    #[error("There are no messages of type {0}.")]
    UnknownType(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    r#type: u64,
    invocation_id: Option<String>,
    target: Option<String>,
    arguments: Option<Vec<Value>>,
    stream_ids: Option<Vec<Value>>,
}

/// Reads one message, without its separator.
pub fn decode(text: &[u8]) -> Result<Message, Garbled> {
    let Raw { r#type, invocation_id, target, arguments, stream_ids } =
        serde_json::from_slice(text).map_err(|_| Garbled::NotJson)?;
    let call = || {
        let target = target.ok_or(Garbled::Lacks(r#type, "target"))?;
        let arguments = arguments.ok_or(Garbled::Lacks(r#type, "arguments"))?;
        Ok(Invoked { target, arguments, sends_streams: stream_ids.is_some_and(|ids| !ids.is_empty()) })
    };
    let lacks_id = Garbled::Lacks(r#type, "invocationId");
    match r#type {
        1 => Ok(Message::Invocation { id: invocation_id, call: call()? }),
        4 => Ok(Message::StreamInvocation { id: invocation_id.ok_or(lacks_id)?, call: call()? }),
        5 => Ok(Message::Cancel { id: invocation_id.ok_or(lacks_id)? }),
        6 => Ok(Message::Ping),
        7 => Ok(Message::Close),
        2 | 3 | 8 | 9 => Ok(Message::Ignored),
        unknown => Err(Garbled::UnknownType(unknown)),
    }
}

#[derive(Deserialize)]
struct RawHandshake {
    protocol: String,
    version: u64,
}

/// Reads the first message; an error is what the client is told.
pub fn decode_handshake(text: &[u8]) -> Result<(), String> {
    let handshake: Result<RawHandshake, _> = serde_json::from_slice(text);
    match handshake {
        Err(_) => Err("The first message has to be a handshake: {\"protocol\":\"json\",\"version\":1}.".to_owned()),
        // Its name is the client's, but a short one cannot hold much.
        Ok(asked) if asked.protocol != "json" => {
            let name: String = asked.protocol.chars().take(32).collect();
            Err(format!("The protocol '{name}' is not supported; 'json' is."))
        }
        Ok(asked) if !VERSIONS.contains(&asked.version) => {
            Err(format!("Version {} of the protocol is not supported; 1 is.", asked.version))
        }
        Ok(_) => Ok(()),
    }
}

/// Cuts what comes into messages: one may come in pieces, and several in one piece.
#[derive(Debug, Default)]
pub struct Splitter {
    tail: Vec<u8>,
}

impl Splitter {
    /// The messages that are whole with this piece.
    pub fn take(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, Garbled> {
        let mut parts = piece.split(|byte| *byte == SEPARATOR as u8).peekable();
        let mut whole = Vec::new();
        while let Some(part) = parts.next() {
            if self.tail.len() + part.len() > MOST_BYTES {
                return Err(Garbled::TooLong);
            }
            self.tail.extend_from_slice(part);
            if parts.peek().is_some() {
                whole.push(std::mem::take(&mut self.tail));
            }
        }
        Ok(whole)
    }
}

/// The answer to a handshake.
pub fn handshake_answer(error: Option<&str>) -> String {
    let mut text = String::from("{");
    if let Some(error) = error {
        text.push_str("\"error\":");
        string(&mut text, error);
    }
    text.push('}');
    text.push(SEPARATOR);
    text
}

/// Appends an item of a stream (type 2).
pub fn item(into: &mut String, id: &str, item: &str) {
    into.push_str("{\"type\":2,\"invocationId\":");
    string(into, id);
    into.push_str(",\"item\":");
    string(into, item);
    into.push('}');
    into.push(SEPARATOR);
}

/// Appends the end of a call (type 3): what it gave, if anything, or one sentence why not.
pub fn completion(into: &mut String, id: &str, outcome: Result<Option<&Value>, &str>) {
    into.push_str("{\"type\":3,\"invocationId\":");
    string(into, id);
    match outcome {
        Ok(None) => {}
        Ok(Some(value)) => {
            into.push_str(",\"result\":");
            into.push_str(&value.to_string());
        }
        Err(error) => {
            into.push_str(",\"error\":");
            string(into, error);
        }
    }
    into.push('}');
    into.push(SEPARATOR);
}

/// Appends a sign of life (type 6).
pub fn ping(into: &mut String) {
    into.push_str("{\"type\":6}");
    into.push(SEPARATOR);
}

/// Appends the end of the connection (type 7).
pub fn close(into: &mut String, error: Option<&str>, may_reconnect: bool) {
    into.push_str("{\"type\":7");
    if let Some(error) = error {
        into.push_str(",\"error\":");
        string(into, error);
    }
    if may_reconnect {
        into.push_str(",\"allowReconnect\":true");
    }
    into.push('}');
    into.push(SEPARATOR);
}

/// Appends a text as JSON, which has no bare separator.
fn string(into: &mut String, text: &str) {
    serde_json::to_writer(Appended(into), text).expect("a text takes what is written");
}

/// A text that is written to, piece by piece: copying it first would cost each item as much as the whole frame.
struct Appended<'a>(&'a mut String);

impl std::io::Write for Appended<'_> {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        let piece = std::str::from_utf8(piece).map_err(std::io::Error::other)?;
        self.0.push_str(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(target: &str, arguments: &[Value]) -> Invoked {
        Invoked { target: target.to_owned(), arguments: arguments.to_vec(), sends_streams: false }
    }

    #[test]
    fn messages_are_read_as_the_stock_clients_write_them() {
        let id = || "0".to_owned();
        let guid = "c07a0079-5c1e-4dd9-b480-ccb892a9082f".to_owned();
        for (text, expected) in [
            (r#"{"type":6}"#, Message::Ping),
            (r#"{"type":7}"#, Message::Close),
            (
                r#"{"target":"GetQueryLimits","arguments":[],"invocationId":"0","type":1}"#,
                Message::Invocation { id: Some(id()), call: call("GetQueryLimits", &[]) },
            ),
            (
                r#"{"target":"LeaveStreamGroup","arguments":["view_x"],"type":1}"#,
                Message::Invocation { id: None, call: call("LeaveStreamGroup", &[json!("view_x")]) },
            ),
            (
                r#"{"target":"ExecuteAdHoc","arguments":["SELECT 1"],"invocationId":"0","type":4}"#,
                Message::StreamInvocation { id: id(), call: call("ExecuteAdHoc", &[json!("SELECT 1")]) },
            ),
            (
                r#"{"type": 4, "headers": {"Authorization": "Bearer t"}, "target": "ExecuteAdHoc", "arguments": ["SELECT 1"],
                   "invocationId": "c07a0079-5c1e-4dd9-b480-ccb892a9082f", "streamIds": []}"#,
                Message::StreamInvocation { id: guid, call: call("ExecuteAdHoc", &[json!("SELECT 1")]) },
            ),
            (r#"{"invocationId":"0","type":5}"#, Message::Cancel { id: id() }),
            (r#"{"error":"Client didn't provide a result.","invocationId":"srv-1","type":3}"#, Message::Ignored),
            (r#"{"invocationId":"1","item":7,"type":2}"#, Message::Ignored),
            (r#"{"type":8,"sequenceId":3}"#, Message::Ignored),
        ] {
            assert_eq!(decode(text.as_bytes()).as_ref(), Ok(&expected), "{text}");
        }
        let upload = r#"{"target":"Upload","arguments":[],"streamIds":["1"],"type":1}"#;
        let Ok(Message::Invocation { call, .. }) = decode(upload.as_bytes()) else {
            panic!("an upload is an invocation")
        };
        assert!(call.sends_streams);
    }

    #[test]
    fn what_is_no_message_is_told_without_what_stood_in_it() {
        for (text, expected) in [
            ("", Garbled::NotJson),
            ("secret", Garbled::NotJson),
            (r#"{"type":"1"}"#, Garbled::NotJson),
            (r#"{"target":"a"}"#, Garbled::NotJson),
            (r#"{"type":1,"arguments":[]}"#, Garbled::Lacks(1, "target")),
            (r#"{"type":1,"target":"a"}"#, Garbled::Lacks(1, "arguments")),
            (r#"{"type":4,"target":"a","arguments":[]}"#, Garbled::Lacks(4, "invocationId")),
            (r#"{"type":5}"#, Garbled::Lacks(5, "invocationId")),
            (r#"{"type":10}"#, Garbled::UnknownType(10)),
        ] {
            assert_eq!(decode(text.as_bytes()), Err(expected), "{text}");
            assert!(!expected.to_string().contains("secret"));
        }
        assert_eq!(decode(b"\xff"), Err(Garbled::NotJson));
    }

    #[test]
    fn a_handshake_is_json_of_version_0_1_or_2() {
        for version in 0..=2 {
            let text = format!("{{\"protocol\": \"json\", \"version\": {version}, \"more\": 1}}");
            assert_eq!(decode_handshake(text.as_bytes()), Ok(()), "{text}");
        }
        for (text, error) in [
            (r#"{"protocol":"xml","version":1}"#, "The protocol 'xml' is not supported; 'json' is."),
            (r#"{"protocol":"json","version":3}"#, "Version 3 of the protocol is not supported; 1 is."),
            (r#"{"type":6}"#, "The first message has to be a handshake: {\"protocol\":\"json\",\"version\":1}."),
        ] {
            assert_eq!(decode_handshake(text.as_bytes()), Err(error.to_owned()), "{text}");
        }
        assert_eq!(handshake_answer(None), "{}\u{1e}");
        assert_eq!(handshake_answer(Some("no")), "{\"error\":\"no\"}\u{1e}");
    }

    #[test]
    fn pieces_are_not_messages() {
        let mut splitter = Splitter::default();
        let mut take = |piece: &str| {
            let whole = splitter.take(piece.as_bytes());
            whole.map(|whole| whole.into_iter().map(|one| String::from_utf8(one).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(take("a\u{1e}bc\u{1e}d"), Ok(vec!["a".to_owned(), "bc".to_owned()]));
        assert_eq!(take("e"), Ok(vec![]));
        assert_eq!(take("\u{1e}"), Ok(vec!["de".to_owned()]));
        assert_eq!(take(""), Ok(vec![]));
        let longest = "x".repeat(MOST_BYTES);
        assert_eq!(take(&format!("{longest}\u{1e}{longest}\u{1e}")).map(|whole| whole.len()), Ok(2));
        assert_eq!(take(&longest[1..]), Ok(vec![]));
        assert_eq!(take("x"), Ok(vec![]));
        assert_eq!(take("x"), Err(Garbled::TooLong));
    }

    #[test]
    fn what_is_sent_is_what_the_stock_clients_read() {
        let written = |write: &dyn Fn(&mut String)| {
            let mut text = String::from("before");
            write(&mut text);
            text.strip_prefix("before").and_then(|text| text.strip_suffix(SEPARATOR)).unwrap().to_owned()
        };
        assert_eq!(
            written(&|text| item(text, "1", "{\"a\":1}")),
            r#"{"type":2,"invocationId":"1","item":"{\"a\":1}"}"#
        );
        assert_eq!(
            written(&|text| item(text, "\"", "\u{1e}\n")),
            r#"{"type":2,"invocationId":"\"","item":"\u001e\n"}"#
        );
        assert_eq!(written(&|text| completion(text, "1", Ok(None))), r#"{"type":3,"invocationId":"1"}"#);
        let value = json!({ "max": 3 });
        let completed = written(&|text| completion(text, "1", Ok(Some(&value))));
        assert_eq!(completed, r#"{"type":3,"invocationId":"1","result":{"max":3}}"#);
        assert_eq!(
            written(&|text| completion(text, "1", Err("no \"x\""))),
            r#"{"type":3,"invocationId":"1","error":"no \"x\""}"#
        );
        assert_eq!(written(&|text| ping(text)), r#"{"type":6}"#);
        assert_eq!(written(&|text| close(text, None, false)), r#"{"type":7}"#);
        assert_eq!(
            written(&|text| close(text, Some("draining"), true)),
            r#"{"type":7,"error":"draining","allowReconnect":true}"#
        );
    }
}
