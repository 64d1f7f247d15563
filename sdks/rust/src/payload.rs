//! What a message carries, on its way out.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;

/// What a message carries: bytes as they are, text as UTF-8, or a JSON value ([`Payload::json`]).
#[derive(Clone, Debug)]
pub struct Payload(Result<Bytes, String>);

impl Payload {
    /// A value as JSON. One that can't be serialized makes the call fail that it is given to.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        Self(serde_json::to_vec(value).map(Bytes::from).map_err(|error| error.to_string()))
    }

    pub(crate) fn bytes(&self, field: &str) -> Result<Bytes, Error> {
        match &self.0 {
            Ok(bytes) => Ok(bytes.clone()),
            Err(why) => Err(Error::invalid(field, format_args!("is no JSON value: {why}"))),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(Ok(bytes))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Ok(bytes.into()))
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self(Ok(Bytes::copy_from_slice(bytes)))
    }
}

impl<const N: usize> From<&[u8; N]> for Payload {
    fn from(bytes: &[u8; N]) -> Self {
        Self(Ok(Bytes::copy_from_slice(bytes)))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self(Ok(text.into()))
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self(Ok(Bytes::copy_from_slice(text.as_bytes())))
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self::json(&value)
    }
}
