//! The one error type of this crate.

use std::error::Error as StdError;

use crate::generated::errors::{CLASSIFY, NAMES_FIELD};

pub use crate::generated::errors::{ErrorKind, codes};

type Source = Box<dyn StdError + Send + Sync>;

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Inner {
    kind: ErrorKind,
    message: String,
    code: Option<String>,
    field: Option<String>,
    operation: Option<&'static str>,
    source: Option<Source>,
}

/// Why a call failed.
///
/// [`kind`](Self::kind) says how, [`code`](Self::code) says what the broker answered. Cancelling a call by
/// dropping its future gives no error: there is nobody left to give it to.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Inner>);

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            code: None,
            field: None,
            operation: None,
            source: None,
        }))
    }

    pub(crate) fn invalid(field: &str, why: impl std::fmt::Display) -> Self {
        Self::invalid_as(codes::INVALID_ARGUMENT, field, why)
    }

    pub(crate) fn invalid_as(code: &str, field: &str, why: impl std::fmt::Display) -> Self {
        let mut error = Self::new(ErrorKind::InvalidArgument, format!("{field}: {why}"));
        error.0.code = Some(code.to_owned());
        error.0.field = Some(field.to_owned());
        error
    }

    pub(crate) fn closed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ConnectionClosed, message)
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, message)
    }

    /// The error for a failed reply; without a code the text decides.
    pub(crate) fn server(text: String, code: Option<String>) -> Self {
        let code = code.or_else(|| {
            CLASSIFY
                .iter()
                .find(|(start, end, _)| {
                    text.len() >= start.len() + end.len()
                        && text.starts_with(start)
                        && text.ends_with(end)
                })
                .map(|(_, _, code)| (*code).to_owned())
        });
        let names_field = code.as_deref().is_some_and(|code| NAMES_FIELD.contains(&code));
        let field =
            text.split_once(": ").filter(|_| names_field).map(|(field, _)| field.to_owned());
        let mut error = Self::new(ErrorKind::Server, text);
        error.0.code = code;
        error.0.field = field;
        error
    }

    pub(crate) fn with_code(mut self, code: &str) -> Self {
        self.0.code = Some(code.to_owned());
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn of(mut self, operation: &'static str) -> Self {
        self.0.operation = Some(operation);
        self
    }

    /// How the call failed.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The broker's code, such as [`codes::MAILBOX_NOT_FOUND`], also one that this version does not know.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The argument that was wrong, if it is about one.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The operation that failed, such as `msg.send`, if it was one.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }
}
