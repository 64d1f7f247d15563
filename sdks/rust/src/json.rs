//! JSON objects of the user's own, kept as their text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::Error;

/// A JSON object, kept as its text: all digits of its numbers, the order of its members and null stay as
/// they are.
///
/// Made from text ([`str::parse`]), a [`serde_json::Value`] or anything that serializes to an object
/// ([`JsonObject::new`]); read by [`get`](Self::get) or as text.
#[derive(Clone)]
pub struct JsonObject(Arc<RawValue>);

impl JsonObject {
    /// Serializes a value to a JSON object.
    ///
    /// # Errors
    ///
    /// It is no object, or can't be serialized.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let raw = serde_json::value::to_raw_value(value)
            .map_err(|error| Error::invalid("json", &error).with_source(error))?;
        Self::from_raw(raw)
    }

    pub(crate) fn from_raw(raw: Box<RawValue>) -> Result<Self, Error> {
        if raw.get().starts_with('{') {
            Ok(Self(raw.into()))
        } else {
            Err(Error::invalid("json", "must be a JSON object"))
        }
    }

    /// The object as JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The object as a value of a type of your own.
    ///
    /// # Errors
    ///
    /// It does not fit that type.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }

    pub(crate) fn members(&self) -> Vec<(String, Box<RawValue>)> {
        serde_json::from_str::<Members>(self.0.get()).map(|members| members.0).unwrap_or_default()
    }
}

impl FromStr for JsonObject {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let raw = serde_json::from_str::<Box<RawValue>>(text)
            .map_err(|error| Error::invalid("json", &error).with_source(error))?;
        Self::from_raw(raw)
    }
}

impl From<Map<String, Value>> for JsonObject {
    fn from(map: Map<String, Value>) -> Self {
        let text = Value::Object(map).to_string();
        // The text of a map is an object, so this never takes the other way.
        text.parse().unwrap_or_else(|_| Self::default())
    }
}

impl<K: Into<String>, V: Into<Value>, const N: usize> From<[(K, V); N]> for JsonObject {
    fn from(members: [(K, V); N]) -> Self {
        members.into_iter().map(|(k, v)| (k.into(), v.into())).collect::<Map<_, _>>().into()
    }
}

impl Default for JsonObject {
    fn default() -> Self {
        let empty: &RawValue = RawValue::NULL;
        Self(RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| empty.to_owned()).into())
    }
}

impl PartialEq for JsonObject {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for JsonObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for JsonObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for JsonObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Members in their order; of equal names the last counts.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    members.retain(|(known, _)| *known != name);
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}
