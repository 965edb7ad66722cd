//! Why a record cannot become an event, or an event cannot be applied. Names are stable: they are metric labels,
//! DLQ headers and API values.

use std::fmt;

/// The reason of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The record has no key.
    NullKey,
    /// The key is empty, not UTF-8, holds a NUL or is longer than 256 bytes.
    InvalidKey,
    /// The record has no value.
    NullPayload,
    /// Key and value together exceed `projector.max_record_bytes`.
    RecordTooLarge,
    /// No `x-sequence` header.
    MissingSequence,
    /// `x-sequence` is not a canonical decimal in range, or stands there twice with different values.
    InvalidSequence,
    /// `x-event-version` is not a positive number, or newer than this build knows.
    UnsupportedVersion,
    /// Neither the field `type` nor the header `x-event-type` is there.
    MissingType,
    /// The field `type` and the header `x-event-type` differ.
    TypeMismatch,
    /// The value is not UTF-8 JSON text holding one object.
    InvalidJson,
    /// The framed body does not hold what its schema says.
    InvalidAvro,
    /// The record's schema is neither Avro nor JSON Schema, or describes no event.
    UnsupportedSchema,
    /// The registry does not know the record's schema, and `schema_registry.not_found` says to go on.
    SchemaNotFound,
    /// Nested deeper than 64 levels.
    NestingTooDeep,
    /// The JSON does not satisfy the schema of its event type.
    SchemaViolation,
    /// The key is not the `orderId` of the payload.
    KeyMismatch,
    /// A number, text or date that Postgres cannot hold.
    Unrepresentable,
    /// The order already has another currency.
    CurrencyMismatch,
    /// The sequence number is taken by another event.
    SequenceConflict,
    /// The latest event of another key has this event id, or a skip could make it up.
    EventIdReused,
    /// A number that the key has passed, under an event id that the key never had.
    SequenceReused,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 21] = [
        Reason::NullKey,
        Reason::InvalidKey,
        Reason::NullPayload,
        Reason::RecordTooLarge,
        Reason::MissingSequence,
        Reason::InvalidSequence,
        Reason::UnsupportedVersion,
        Reason::MissingType,
        Reason::TypeMismatch,
        Reason::InvalidJson,
        Reason::InvalidAvro,
        Reason::UnsupportedSchema,
        Reason::SchemaNotFound,
        Reason::NestingTooDeep,
        Reason::SchemaViolation,
        Reason::KeyMismatch,
        Reason::Unrepresentable,
        Reason::CurrencyMismatch,
        Reason::SequenceConflict,
        Reason::EventIdReused,
        Reason::SequenceReused,
    ];

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::NullKey => "null_key",
            Reason::InvalidKey => "invalid_key",
            Reason::NullPayload => "null_payload",
            Reason::RecordTooLarge => "record_too_large",
            Reason::MissingSequence => "missing_sequence",
            Reason::InvalidSequence => "invalid_sequence",
            Reason::UnsupportedVersion => "unsupported_version",
            Reason::MissingType => "missing_type",
            Reason::TypeMismatch => "type_mismatch",
            Reason::InvalidJson => "invalid_json",
            Reason::InvalidAvro => "invalid_avro",
            Reason::UnsupportedSchema => "unsupported_schema",
            Reason::SchemaNotFound => "schema_not_found",
            Reason::NestingTooDeep => "nesting_too_deep",
            Reason::SchemaViolation => "schema_violation",
            Reason::KeyMismatch => "key_mismatch",
            Reason::Unrepresentable => "unrepresentable",
            Reason::CurrencyMismatch => "currency_mismatch",
            Reason::SequenceConflict => "sequence_conflict",
            Reason::EventIdReused => "event_id_reused",
            Reason::SequenceReused => "sequence_reused",
        }
    }
}

/// A refused record: why, and the sentence for whoever has to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// The stable reason.
    pub reason: Reason,
    /// Names the field, the value and what was expected. At most a few hundred characters.
    pub detail: String,
}

impl Poison {
    /// A refusal; the detail is cut at 500 characters so that a hostile value cannot fill the log.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if let Some((cut, _)) = detail.char_indices().nth(500) {
            detail.truncate(cut);
            detail.push('…');
        }
        // Postgres text cannot hold NUL, and details quote hostile input.
        if detail.contains('\0') {
            detail = detail.replace('\0', "\u{2400}");
        }
        Poison { reason, detail }
    }
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters, headers and metrics tell reasons apart by their names alone.
    #[test]
    fn every_reason_has_a_name_of_its_own_in_snake_case() {
        let mut names = Reason::ALL.map(Reason::as_str).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        for name in names {
            assert!(name.len() > 2 && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{name}");
        }
    }

    #[test]
    fn a_refusal_reads_as_its_name_and_a_bounded_sentence_that_can_be_stored() {
        let poison = Poison::new(Reason::InvalidJson, "\0 stands\0 there");
        assert_eq!(poison.to_string(), "invalid_json: ␀ stands␀ there");
        assert_eq!(Poison::new(Reason::InvalidJson, "ä".repeat(500)).detail, "ä".repeat(500));
        assert_eq!(Poison::new(Reason::InvalidJson, "ä".repeat(501)).detail, format!("{}…", "ä".repeat(500)));
    }
}
