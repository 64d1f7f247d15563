//! What a consumer's error hook is told.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

use crate::error::Error;
use crate::generated::models::Message;

/// What a handler fails with: any error, a text, or what `anyhow` makes of them.
pub type HandlerError = Box<dyn StdError + Send + Sync>;

#[derive(Debug)]
enum Why {
    Handler(HandlerError),
    Operation(Error),
}

/// Something that went wrong in a consumer, which goes on nevertheless.
#[derive(Debug)]
pub struct Failure {
    why: Why,
    message: Option<Message>,
}

impl Failure {
    pub(crate) fn handler(error: HandlerError, message: Message) -> Self {
        Self {
            why: Why::Handler(error),
            message: Some(message),
        }
    }

    pub(crate) fn operation(error: Error, message: Option<Message>) -> Self {
        Self {
            why: Why::Operation(error),
            message,
        }
    }

    /// What the handler failed with, if it was the handler.
    pub fn handler_error(&self) -> Option<&HandlerError> {
        match &self.why {
            Why::Handler(error) => Some(error),
            Why::Operation(_) => None,
        }
    }

    /// Why a request of the consumer failed, if it was a request: FETCH, ACK, NACK or RENEW.
    pub fn error(&self) -> Option<&Error> {
        match &self.why {
            Why::Handler(_) => None,
            Why::Operation(error) => Some(error),
        }
    }

    /// The message that it is about, if it is about one.
    pub fn message(&self) -> Option<&Message> {
        self.message.as_ref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "message {}: ", message.msg_id)?,
            None => f.write_str("the consumer: ")?,
        }
        match &self.why {
            Why::Handler(error) => write!(f, "the handler failed: {error}"),
            Why::Operation(error) => error.fmt(f),
        }
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.why {
            Why::Handler(error) => Some(&**error),
            Why::Operation(error) => Some(error),
        }
    }
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
