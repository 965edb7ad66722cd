//! `COPY ... from stdin (format binary)`: rows are encoded in place and sent in large pieces.
//!
//! The driver's own writer sends every 4 KB, and each piece wakes the task of the connection.

use std::pin::Pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{CopyInSink, Statement};

use crate::domain::decimal::Decimal;
use crate::store::types::{SqlTimestamp, put_numeric};
use crate::store::{Connection, DbError};

/// Signature, flags and length of the header's extension (source: the manual of `COPY`, "Binary Format").
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Stands where a row's number of fields would, at the end.
const TRAILER: i16 = -1;
/// Stands where a field's length would, for null.
const NULL: i32 = -1;
/// Bytes of a piece, about.
const PIECE: usize = 64 * 1024;

/// A `COPY` under way. Nothing is written unless it is finished.
pub struct CopyRows {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    buffer: BytesMut,
    columns: i16,
}

impl CopyRows {
    /// Starts the prepared `COPY` of so many columns.
    pub async fn start(client: &Connection, statement: &Statement, columns: i16) -> Result<Self, DbError> {
        let sink = Box::pin(client.copy_in(statement).await?);
        let mut buffer = BytesMut::with_capacity(PIECE + PIECE / 8);
        buffer.put_slice(HEADER);
        Ok(CopyRows { sink, buffer, columns })
    }

    /// Begins a row, whose fields have to follow in the order of the columns, all of them.
    pub async fn row(&mut self) -> Result<&mut Self, DbError> {
        if self.buffer.len() >= PIECE {
            self.sink.send(self.buffer.split().freeze()).await?;
            self.buffer.reserve(PIECE + PIECE / 8);
        }
        self.buffer.put_i16(self.columns);
        Ok(self)
    }

    /// Adds a field.
    pub fn put(&mut self, field: impl Field) -> &mut Self {
        let start = self.buffer.len();
        self.buffer.put_i32(NULL);
        if field.put(&mut self.buffer) {
            let length = (self.buffer.len() - start - size_of::<i32>()) as i32; // a record is far below 2 GB
            self.buffer[start..start + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
        }
        self
    }

    /// Sends what is left and waits until all rows are written.
    pub async fn finish(mut self) -> Result<(), DbError> {
        self.buffer.put_i16(TRAILER);
        self.sink.send(self.buffer.freeze()).await?;
        self.sink.as_mut().finish().await.map(drop)
    }
}

/// What can be a field of a row, in Postgres' binary form.
pub trait Field {
    /// Writes the value; `false`, and nothing, for null.
    fn put(self, out: &mut BytesMut) -> bool;
}

impl Field for &str {
    fn put(self, out: &mut BytesMut) -> bool {
        out.put_slice(self.as_bytes());
        true
    }
}

impl Field for i32 {
    fn put(self, out: &mut BytesMut) -> bool {
        out.put_i32(self);
        true
    }
}

impl Field for i64 {
    fn put(self, out: &mut BytesMut) -> bool {
        out.put_i64(self);
        true
    }
}

impl Field for SqlTimestamp {
    fn put(self, out: &mut BytesMut) -> bool {
        out.put_i64(self.since_2000());
        true
    }
}

impl Field for Decimal {
    fn put(self, out: &mut BytesMut) -> bool {
        put_numeric(self, out);
        true
    }
}

/// `text[]`: dimensions, whether there are nulls, the type of an element; then size and lower bound of the one dimension,
/// and the elements (source: `array_recv` of PostgreSQL).
impl Field for &[&str] {
    fn put(self, out: &mut BytesMut) -> bool {
        const TEXT: i32 = 25;
        let dimensions = i32::from(!self.is_empty());
        let sizes: &[i32] = if self.is_empty() { &[] } else { &[self.len() as i32, 1] };
        for word in [dimensions, 0, TEXT].iter().chain(sizes) {
            out.put_i32(*word);
        }
        for element in self {
            out.put_i32(element.len() as i32);
            out.put_slice(element.as_bytes());
        }
        true
    }
}

impl<T: Field> Field for Option<T> {
    fn put(self, out: &mut BytesMut) -> bool {
        self.is_some_and(|value| value.put(out))
    }
}
