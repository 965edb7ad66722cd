//! Refusals, with the marker words by which clients tell them apart. The sentences round them are the stand-in's own.

use serde_json::{Value, json};

/// Why a request is refused.
#[derive(Debug, Clone)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// The body; null: none.
    pub body: Value,
    /// `Retry-After`.
    pub retry_after: Option<u32>,
}

impl Refused {
    /// A `generic_error`.
    pub fn generic(status: u16, code: u32, message: impl Into<String>) -> Refused {
        let body = json!({ "@type": "generic_error", "error_code": code, "message": message.into() });
        Refused { status, body, retry_after: None }
    }

    /// A `statement_error` 40001, about this statement.
    pub fn statement(message: impl Into<String>, statement: &str) -> Refused {
        Refused::of_statement(400, 40001, message, statement)
    }

    /// A `statement_error` with another code.
    pub fn of_statement(status: u16, code: u32, message: impl Into<String>, statement: &str) -> Refused {
        let body = json!({
            "@type": "statement_error",
            "error_code": code,
            "message": message.into(),
            "statementText": statement,
            "entities": []
        });
        Refused { status, body, retry_after: None }
    }

    /// No body at all.
    pub fn bare(status: u16) -> Refused {
        Refused { status, body: Value::Null, retry_after: None }
    }

    /// With the line that the query endpoints glue on.
    pub fn glued(mut self, statement: &str) -> Refused {
        if let Some(message) = self.body["message"].as_str() {
            self.body["message"] = format!("{message}\nStatement: {statement}").into();
        }
        self
    }
}
