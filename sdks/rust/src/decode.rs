//! Replies on their way in: strict where the protocol is, lenient where one odd value must not spoil all.
//!
//! Values stay JSON text until their type is known, so that no number loses a digit.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::json::JsonObject;

/// Why a value is not of the type that the protocol says.
#[derive(Debug)]
pub(crate) struct Odd(String);

impl Odd {
    fn new(why: &str) -> Self {
        Self(format!(": {why}"))
    }

    fn within(self, place: &str) -> Self {
        Self(format!("{place}{}", self.0))
    }
}

/// The members of a JSON object; of equal names the last counts.
pub(crate) struct Fields<'a>(HashMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Fields<'a> {
    pub(crate) fn of(value: &'a RawValue) -> Result<Self, Odd> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Members<'a>(#[serde(borrow)] HashMap<Name<'a>, &'a RawValue>);

        #[derive(Deserialize, PartialEq, Eq, Hash)]
        #[serde(transparent)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        let members: Members<'a> =
            serde_json::from_str(value.get()).map_err(|_| Odd::new("must be an object"))?;
        Ok(Self(members.0.into_iter().map(|(name, value)| (name.0, value)).collect()))
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied().filter(|value| value.get() != "null")
    }
}

pub(crate) fn text(value: &RawValue) -> Result<String, Odd> {
    serde_json::from_str(value.get()).map_err(|_| Odd::new("must be text"))
}

pub(crate) fn open_text<T: From<String>>(value: &RawValue) -> Result<T, Odd> {
    text(value).map(T::from)
}

/// A whole number of at most 63 bits and a sign; 1.0 is none.
pub(crate) fn integer(value: &RawValue) -> Result<i64, Odd> {
    value.get().parse().map_err(|_| Odd::new("must be a whole number"))
}

pub(crate) fn number(value: &RawValue) -> Result<f64, Odd> {
    serde_json::from_str(value.get()).map_err(|_| Odd::new("must be a number"))
}

pub(crate) fn boolean(value: &RawValue) -> Result<bool, Odd> {
    value.get().parse().map_err(|_| Odd::new("must be true or false"))
}

pub(crate) fn json_object(value: &RawValue) -> Result<JsonObject, Odd> {
    JsonObject::from_raw(value.to_owned()).map_err(|_| Odd::new("must be an object"))
}

pub(crate) fn header_map(value: &RawValue) -> Result<BTreeMap<String, Vec<String>>, Odd> {
    let texts = list_of(text, false);
    let members = Fields::of(value)?.0;
    members
        .into_iter()
        .map(|(name, values)| match texts(values) {
            Ok(values) => Ok((name.into_owned(), values)),
            Err(odd) => Err(odd.within(&format!(".{name}"))),
        })
        .collect()
}

/// A list; with `drop_odd` an odd item is left out and logged instead of failing the whole.
pub(crate) fn list_of<T>(
    decode: impl Fn(&RawValue) -> Result<T, Odd>,
    drop_odd: bool,
) -> impl Fn(&RawValue) -> Result<Vec<T>, Odd> {
    move |value| {
        let items: Vec<&RawValue> =
            serde_json::from_str(value.get()).map_err(|_| Odd::new("must be a list"))?;
        let mut result = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match decode(item) {
                Ok(item) => result.push(item),
                Err(odd) if drop_odd => {
                    tracing::warn!("left an odd item out of a reply: [{index}]{}", odd.0);
                }
                Err(odd) => return Err(odd.within(&format!("[{index}]"))),
            }
        }
        Ok(result)
    }
}

/// A member that has to be there.
pub(crate) fn required<T>(
    fields: &Fields<'_>,
    name: &str,
    decode: impl Fn(&RawValue) -> Result<T, Odd>,
) -> Result<T, Odd> {
    optional(fields, name, decode)?
        .ok_or_else(|| Odd::new("is missing").within(&format!(".{name}")))
}

/// A member that may be absent or null.
pub(crate) fn optional<T>(
    fields: &Fields<'_>,
    name: &str,
    decode: impl Fn(&RawValue) -> Result<T, Odd>,
) -> Result<Option<T>, Odd> {
    let value = fields.get(name).map(decode).transpose();
    value.map_err(|odd| odd.within(&format!(".{name}")))
}

/// Likewise, with something in its place.
pub(crate) fn optional_or<T>(
    fields: &Fields<'_>,
    name: &str,
    decode: impl Fn(&RawValue) -> Result<T, Odd>,
    other: T,
) -> Result<T, Odd> {
    Ok(optional(fields, name, decode)?.unwrap_or(other))
}

/// A member that counts as absent when its value is odd.
pub(crate) fn lenient<T>(
    fields: &Fields<'_>,
    name: &str,
    decode: impl Fn(&RawValue) -> Result<T, Odd>,
) -> Option<T> {
    optional(fields, name, decode).unwrap_or(None)
}

/// Likewise, with something in its place.
pub(crate) fn lenient_or<T>(
    fields: &Fields<'_>,
    name: &str,
    decode: impl Fn(&RawValue) -> Result<T, Odd>,
    other: T,
) -> T {
    lenient(fields, name, decode).unwrap_or(other)
}

/// A payload: decoded base64, or the UTF-8 of a text that is none; empty if it is missing.
pub(crate) fn payload(fields: &Fields<'_>, name: &str, encoding: &str) -> Bytes {
    let Some(value) = fields.get(name).filter(|value| value.get().starts_with('"')) else {
        return Bytes::new();
    };
    let text = text(value).unwrap_or_else(|_| without_lone_surrogates(value.get()));
    if lenient(fields, encoding, self::text).as_deref() == Some("base64") {
        match STANDARD.decode(&text) {
            Ok(bytes) => return bytes.into(),
            Err(_) => {
                tracing::warn!("a message says base64, but its payload is none: taken as text");
            }
        }
    }
    text.into()
}

/// A JSON text in which every half of a surrogate pair, which is no character, is a question mark.
fn without_lone_surrogates(json: &str) -> String {
    let mut result = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        result.push_str(before);
        let unit = |text: &str| u16::from_str_radix(text.get(2..6)?, 16).ok();
        let is_unicode = escape.starts_with("\\u");
        let length = match unit(escape).filter(|_| is_unicode) {
            Some(0xD800..=0xDBFF)
                if escape.get(6..8) == Some("\\u")
                    && escape
                        .get(6..)
                        .and_then(unit)
                        .is_some_and(|low| (0xDC00..0xE000).contains(&low)) =>
            {
                12
            }
            Some(0xD800..=0xDFFF) => {
                result.push('?');
                rest = escape.get(6..).unwrap_or_default();
                continue;
            }
            _ => 2,
        };
        let (kept, after) = escape.split_at(length.min(escape.len()));
        result.push_str(kept);
        rest = after;
    }
    result.push_str(rest);
    serde_json::from_str(&result).unwrap_or_default()
}

/// Decodes a reply, or makes the error of it.
pub(crate) fn reply<T>(
    data: &[u8],
    decode: impl FnOnce(&Fields<'_>) -> Result<T, Odd>,
) -> Result<T, Error> {
    let not_json =
        |why: &dyn std::fmt::Display| Error::protocol(format!("the reply is no JSON: {why}"));
    let json = std::str::from_utf8(data).map_err(|error| not_json(&error))?;
    let value: &RawValue = serde_json::from_str(json).map_err(|error| not_json(&error))?;
    let not_reply = || Error::protocol("the reply is no JSON object with a text `error`");
    let fields = Fields::of(value).map_err(|_| not_reply())?;
    let message = required(&fields, "error", text).map_err(|_| not_reply())?;
    if !message.is_empty() {
        let code = lenient(&fields, "code", text).filter(|code| !code.is_empty());
        return Err(Error::server(message, code));
    }
    decode(&fields).map_err(|odd| Error::protocol(format!("reply{}", odd.0)))
}
