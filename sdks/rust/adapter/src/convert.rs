//! Between the JSON of the adapter protocol, or of a wire vector, and the SDK's own values.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mq9::{Headers, JsonObject, Message, Payload};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Why there is no result.
#[derive(Debug)]
pub enum Failed {
    /// The SDK says so.
    Sdk(mq9::Error),
    /// The caller's own means ended it.
    Cancelled,
    /// This program could not do it.
    Harness(String),
}

impl From<mq9::Error> for Failed {
    fn from(error: mq9::Error) -> Self {
        Self::Sdk(error)
    }
}

/// The answer to a request that lacks an argument which the SDK wants.
pub fn missing(name: &str) -> Failed {
    Failed::Harness(format!("there is no argument {name:?}"))
}

fn odd(name: &str, what: &str) -> Failed {
    Failed::Harness(format!("argument {name:?} is no {what}"))
}

/// The arguments of a call, by the names of the specification.
pub struct Args<'a>(pub &'a Map<String, Value>);

impl Args<'_> {
    /// Refuses what none of the parameters is; their names have blanks between.
    pub fn only(&self, names: &str) -> Result<(), Failed> {
        let names: Vec<&str> = names.split(' ').collect();
        for given in self.0.keys() {
            let plain = ["_text", "_b64", "_json"].iter().find_map(|end| given.strip_suffix(end));
            if !names.contains(&given.as_str()) && !plain.is_some_and(|name| names.contains(&name))
            {
                return Err(Failed::Harness(format!("there is no parameter {given:?}")));
            }
        }
        Ok(())
    }

    fn read<T>(
        &self,
        name: &str,
        what: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Failed> {
        let value = self.0.get(name);
        value.map(|value| read(value).ok_or_else(|| odd(name, what))).transpose()
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<String>, Failed> {
        self.read(name, "text", text)
    }

    /// A list of texts.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Failed> {
        self.read(name, "list of texts", |value| value.as_array()?.iter().map(text).collect())
    }

    /// A whole number, or one written as a text.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Failed> {
        self.read(name, "whole number", integer)
    }

    /// A list of whole numbers.
    pub fn integers(&self, name: &str) -> Result<Option<Vec<i64>>, Failed> {
        self.read(name, "list of numbers", |value| value.as_array()?.iter().map(integer).collect())
    }

    /// A number.
    #[allow(dead_code, reason = "for parameters that the specification may yet have")]
    pub fn number(&self, name: &str) -> Result<Option<f64>, Failed> {
        self.read(name, "number", Value::as_f64)
    }

    /// True or false.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Failed> {
        self.read(name, "truth value", Value::as_bool)
    }

    /// A JSON object, or one written as a text.
    pub fn json(&self, name: &str) -> Result<Option<JsonObject>, Failed> {
        match self.text(&format!("{name}_json"))? {
            Some(text) => Ok(Some(text.parse()?)),
            None => self.read(name, "JSON object", |value| JsonObject::new(value).ok()),
        }
    }

    /// Headers of the user's own.
    pub fn headers(&self, name: &str) -> Result<Option<Headers>, Failed> {
        self.read(name, "map of texts", |value| {
            let pairs = value.as_object()?.iter();
            pairs.map(|(name, value)| Some((name.clone(), text(value)?))).collect()
        })
    }

    /// A payload as text, bytes or a JSON value.
    pub fn payload(&self, name: &str) -> Result<Option<Payload>, Failed> {
        let inner = self.0.get(name).and_then(Value::as_object);
        let form = |long: &str, short: &str| match inner {
            Some(fields) => fields.get(short).cloned(),
            None => self.0.get(&format!("{name}_{long}")).cloned(),
        };
        if let Some(value) = form("text", "text") {
            return Ok(Some(Payload::from(text(&value).ok_or_else(|| odd(name, "text"))?)));
        }
        if let Some(value) = form("b64", "base64") {
            let bytes = value.as_str().and_then(|value| STANDARD.decode(value).ok());
            return Ok(Some(Payload::from(bytes.ok_or_else(|| odd(name, "base64"))?)));
        }
        match form("json", "json") {
            None => Ok(None),
            Some(value) if inner.is_some() => Ok(Some(Payload::from(value))),
            Some(value) => {
                let raw: Option<&RawValue> =
                    value.as_str().and_then(|json| serde_json::from_str(json).ok());
                Ok(Some(Payload::json(raw.ok_or_else(|| odd(name, "JSON"))?)))
            }
        }
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A whole number. One that no `i64` holds can't be given to the SDK: the largest stands for it, which is
/// beyond the same bounds.
fn integer(value: &Value) -> Option<i64> {
    let beyond = || value.is_u64().then_some(i64::MAX);
    value.as_i64().or_else(beyond).or_else(|| value.as_str()?.parse().ok())
}

/// In which form results are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct How<'a> {
    /// As wire vectors have it: ids are numbers, JSON objects are objects.
    pub wire: bool,
    /// Which helpers of a message to try: `text`, `json`.
    pub decode: &'a [String],
    ids: bool,
}

impl<'a> How<'a> {
    /// With these helpers of a message.
    pub fn decoding(decode: &'a [String]) -> Self {
        Self {
            decode,
            ..Self::default()
        }
    }

    /// As wire vectors have it.
    #[allow(dead_code, reason = "the wire vectors' tests use it")]
    pub fn wire() -> Self {
        Self {
            wire: true,
            ..Self::default()
        }
    }

    /// The same for ids: a decimal string, which no JSON parser rounds.
    pub fn ids(&self) -> Self {
        Self {
            ids: true,
            ..*self
        }
    }

    /// The name of a field whose value is in another form than JSON has it.
    pub fn key(&self, name: &str, suffix: &str) -> String {
        if self.wire { name.to_owned() } else { format!("{name}{suffix}") }
    }
}

/// A value of the SDK as JSON; none where it is absent.
pub trait Shown {
    /// Gives it.
    fn shown(&self, how: &How<'_>) -> Option<Value>;
}

impl Shown for i64 {
    fn shown(&self, how: &How<'_>) -> Option<Value> {
        Some(if how.ids && !how.wire { self.to_string().into() } else { (*self).into() })
    }
}

impl Shown for f64 {
    fn shown(&self, _: &How<'_>) -> Option<Value> {
        // JSON does not tell 1 from 1.0.
        let whole = self.fract() == 0.0 && self.abs() < 9e15;
        Some(if whole { (*self as i64).into() } else { (*self).into() })
    }
}

impl Shown for bool {
    fn shown(&self, _: &How<'_>) -> Option<Value> {
        Some((*self).into())
    }
}

impl Shown for String {
    fn shown(&self, _: &How<'_>) -> Option<Value> {
        Some(self.as_str().into())
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self, how: &How<'_>) -> Option<Value> {
        self.as_ref().and_then(|value| value.shown(how))
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn shown(&self, how: &How<'_>) -> Option<Value> {
        Some(self.iter().filter_map(|item| item.shown(how)).collect())
    }
}

impl<T: Shown> Shown for BTreeMap<String, T> {
    fn shown(&self, how: &How<'_>) -> Option<Value> {
        let pairs = self.iter().filter_map(|(k, v)| Some((k.clone(), v.shown(how)?)));
        Some(Value::Object(pairs.collect()))
    }
}

impl Shown for JsonObject {
    fn shown(&self, how: &How<'_>) -> Option<Value> {
        if how.wire { self.get().ok() } else { Some(self.as_str().into()) }
    }
}

impl Shown for bytes::Bytes {
    fn shown(&self, how: &How<'_>) -> Option<Value> {
        let text = STANDARD.encode(self);
        Some(if how.wire { json!({ "base64": text }) } else { text.into() })
    }
}

/// An object that grows; absent fields are left out.
#[derive(Default)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Puts a field.
    pub fn put(&mut self, name: impl Into<String>, value: Option<Value>) {
        if let Some(value) = value {
            self.0.insert(name.into(), value);
        }
    }

    /// Puts what the helpers of a message make of its payload.
    pub fn decoded(&mut self, message: &Message, how: &How<'_>) {
        if how.decode.iter().any(|helper| helper == "text") {
            self.put("decoded_text", message.text().ok().map(Into::into));
        }
        if how.decode.iter().any(|helper| helper == "json") {
            let raw: Option<Box<RawValue>> = message.json().ok();
            self.put("decoded_json", raw.map(|raw| raw.get().into()));
        }
    }

    /// The object.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}
