//! What a query writes: its rows, and what it could not count.

use std::collections::HashMap;
use std::sync::Arc;

use crate::encode::Encoder;
use crate::log::{Delivery, Outgoing, Record};
use crate::plan::Prepared;
use crate::run::Output;

/// Headers of a record.
type Headers = Arc<Vec<(String, Option<Vec<u8>>)>>;

/// Writes rows of a query as records.
pub(super) struct Writing {
    encoder: Encoder,
    columns: usize,
    key: Vec<usize>,
    /// What the window's start is called in keys.
    window: String,
    delivery: Delivery,
    definition: String,
    revision: i32,
    topic: Arc<str>,
    dead_letters: Arc<str>,
    late: Arc<str>,
    plain: Headers,
}

/// Bytes of a record's key, value and headers that a topic takes, with what is added to them: 1,048,588 unless it is set otherwise. Of
/// a larger one the letter says where it stands.
const MOST_ASIDE: usize = 900_000;

/// Which records the rows of one batch of a topic are made of: `topic:partition:offset`, and behind it `:n` of all but the first
/// that one record gives. A row that is written twice has the same again, for it is in the same place among those of its record.
pub(super) struct Origins<'t> {
    topic: &'t str,
    given: HashMap<(i32, i64), usize>,
}

impl Origins<'_> {
    pub fn of(topic: &str) -> Origins<'_> {
        Origins { topic, given: HashMap::new() }
    }

    fn next(&mut self, at: (i32, i64)) -> String {
        let (topic, (partition, offset)) = (self.topic, at);
        let before = self.given.entry(at).and_modify(|before| *before += 1).or_default();
        match before {
            0 => format!("{topic}:{partition}:{offset}"),
            before => format!("{topic}:{partition}:{offset}:{before}"),
        }
    }
}

/// A name for the window's start that no column of the key has.
fn window_of(prepared: &Prepared) -> String {
    let is_taken = |name: &str| prepared.key().iter().any(|at| prepared.columns()[*at].name == name);
    let mut name = "window_start".to_owned();
    while is_taken(&name) {
        name.insert(0, '_');
    }
    name
}

fn header(name: &str, value: impl ToString) -> (String, Option<Vec<u8>>) {
    (name.to_owned(), Some(value.to_string().into_bytes()))
}

impl Writing {
    pub fn new(prepared: &Prepared, topic: &str, delivery: Delivery, (definition, revision): (&str, i32)) -> Writing {
        let mut writing = Writing {
            encoder: Encoder::new(prepared.columns().iter().map(|column| column.name.as_str())),
            columns: prepared.columns().len(),
            key: prepared.key().to_vec(),
            window: window_of(prepared),
            delivery,
            definition: definition.to_owned(),
            revision,
            topic: topic.into(),
            dead_letters: format!("{topic}.dlq").into(),
            late: format!("{topic}.late").into(),
            plain: Headers::default(),
        };
        writing.plain = Arc::new(writing.headers());
        writing
    }

    fn headers(&self) -> Vec<(String, Option<Vec<u8>>)> {
        vec![header("streamview-query", &self.definition), header("streamview-revision", self.revision)]
    }

    /// Where refused records go.
    pub fn dead_letters(&self) -> &str {
        &self.dead_letters
    }

    /// Where late rows go.
    pub fn late(&self) -> &str {
        &self.late
    }

    /// Rows as records. Those of a window have what they are grouped by as their key, and say in headers which window it is:
    /// there is one record of each window and key. Where records may come twice the window is in the key, too, so that whoever
    /// reads them can tell the second one: as `window_start`, or, where a column of the key is called so, `_window_start`.
    ///
    /// Those of no window say which record they are made of, by `origins`.
    pub fn rows(&self, output: &Output, mut origins: Option<&mut Origins<'_>>, records: &mut Vec<Outgoing>) {
        let headers = match output.window {
            None => Arc::clone(&self.plain),
            Some((start, end)) => {
                let mut headers = self.headers();
                headers.push(header("streamview-window-start", start));
                headers.push(header("streamview-window-end", end));
                Arc::new(headers)
            }
        };
        for row in 0..output.rows.num_rows() {
            let origin = origins.as_mut().zip(output.origins.get(row)).map(|(origins, at)| origins.next(*at));
            records.push(Outgoing {
                topic: Arc::clone(&self.topic),
                key: self.key(output, row),
                value: Some(self.encoder.object(&output.rows, row, 0..self.columns)),
                headers: Arc::clone(&headers),
                origin,
            });
        }
    }

    fn key(&self, output: &Output, row: usize) -> Option<Vec<u8>> {
        let own = || self.encoder.object(&output.rows, row, self.key.iter().copied());
        match (output.window, self.delivery) {
            (Some((start, _)), Delivery::AtLeastOnce) => {
                let (mut key, own) = (format!("{{\"{}\":{start}", self.window).into_bytes(), own());
                if !self.key.is_empty() {
                    key.push(b',');
                }
                key.extend_from_slice(own.get(1..).unwrap_or_default());
                Some(key)
            }
            _ if self.key.is_empty() => None,
            _ => Some(own()),
        }
    }

    /// A record that was not counted, as it was: with its own headers, and why it is here.
    pub fn aside(&self, to: &str, source: &str, record: &Record<'_>, why: &str) -> Outgoing {
        let own = record
            .headers()
            .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.map(<[u8]>::to_vec)));
        let mut headers: Vec<_> = own.collect();
        headers.push(header("x-dlq-error", why));
        headers.push(header("x-dlq-query", &self.definition));
        headers.push(header("x-original-topic", source));
        headers.push(header("x-original-partition", record.place.partition));
        headers.push(header("x-original-offset", record.offset));
        if let Some(timestamp_ms) = record.timestamp_ms {
            headers.push(header("x-original-timestamp", timestamp_ms));
        }
        let (mut key, mut value) = (record.key, record.value);
        let length = value.map_or(0, <[u8]>::len);
        let own: usize = record.headers().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum();
        let beside = key.map_or(0, <[u8]>::len) + own;
        if beside + length > MOST_ASIDE {
            value = None;
            let mut left_out = "value";
            if beside > MOST_ASIDE {
                left_out = "key, headers and value";
                key = None;
                headers.drain(..record.headers().count());
            }
            headers.push(header("x-dlq-payload", format!("{left_out} omitted; the value has {length} bytes")));
        }
        let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        Outgoing { topic: to.into(), key, value, headers: Arc::new(headers), origin: None }
    }
}
