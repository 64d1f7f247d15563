//! Decoding, checking and comparing; the generated code calls nothing else.
use crate::generated::models::CLASSIFIED;
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;

/// A failure of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: &'static str,
    pub code: String,
    pub field: String,
    pub text: String,
}

/// An exact request.
#[derive(Clone, Debug)]
pub struct Request {
    pub subject: String,
    pub body: Map<String, Value>,
}

/// Any bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bytes(pub Vec<u8>);

/// How the text of a failed reply is recognised.
pub struct Classified {
    pub prefix: &'static str,
    pub suffix: &'static str,
    pub code: &'static str,
}

/// What a text has to satisfy.
pub struct TextRule {
    pub characters: (usize, usize),
    pub bytes: (usize, usize),
    pub chars: &'static str,
    pub ends: (&'static str, &'static str),
    pub forbid: &'static [&'static str],
    pub text: &'static str,
    pub code: &'static str,
}

fn odd(text: &str) -> Error {
    Error {
        kind: "protocol",
        code: String::new(),
        field: String::new(),
        text: text.to_string(),
    }
}

fn invalid(field: &str, code: &str) -> Error {
    Error {
        kind: "invalid_argument",
        code: code.to_string(),
        field: field.to_string(),
        text: format!("{field} is not as it should be"),
    }
}

/// Optional and required texts alike.
pub trait MaybeText {
    fn text(&self) -> Option<&str>;
}

impl MaybeText for String {
    fn text(&self) -> Option<&str> {
        Some(self)
    }
}

impl MaybeText for Option<String> {
    fn text(&self) -> Option<&str> {
        self.as_deref().filter(|text| !text.is_empty())
    }
}

fn is_in(class: &str, c: char) -> bool {
    let set: Vec<char> = class.chars().collect();
    let mut index = 0;
    while index < set.len() {
        if index + 2 < set.len() && set[index + 1] == '-' {
            if set[index] <= c && c <= set[index + 2] {
                return true;
            }
            index += 3;
        } else {
            if set[index] == c {
                return true;
            }
            index += 1;
        }
    }
    false
}

pub fn check_text(name: &str, value: &impl MaybeText, rule: &TextRule) -> Result<(), Error> {
    let Some(value) = value.text() else {
        return Ok(());
    };
    let count = value.chars().count();
    let first = value.chars().next().unwrap_or(' ');
    let last = value.chars().last().unwrap_or(' ');
    let fine = rule.characters.0 <= count
        && count <= rule.characters.1
        && rule.bytes.0 <= value.len()
        && value.len() <= rule.bytes.1
        && (rule.chars.is_empty() || value.chars().all(|c| is_in(rule.chars, c)))
        && (rule.ends.0.is_empty() || is_in(rule.ends.0, first))
        && (rule.ends.1.is_empty() || is_in(rule.ends.1, last))
        && !rule.forbid.iter().any(|text| value.contains(text))
        && (rule.text != "no_control" || !value.chars().any(char::is_control))
        && (rule.text != "printable_ascii" || value.chars().all(|c| (' '..='~').contains(&c)));
    if fine {
        Ok(())
    } else {
        Err(invalid(name, rule.code))
    }
}

pub fn check_integer(name: &str, value: Option<i64>, low: i64, high: i64) -> Result<(), Error> {
    match value {
        Some(value) if value < low || value > high => Err(invalid(name, "invalid_argument")),
        _ => Ok(()),
    }
}

pub fn check_list(name: &str, items: &impl ToValue, low: usize, high: usize) -> Result<(), Error> {
    let length = items.to_value().as_array().map_or(0, Vec::len);
    if length > 0 && (length < low || length > high) {
        return Err(invalid(name, "invalid_argument"));
    }
    Ok(())
}

pub fn text(value: &(impl std::fmt::Display + ?Sized)) -> String {
    value.to_string()
}

pub fn given(value: &impl ToValue) -> bool {
    sent(value, false).is_some()
}

pub fn needs(field: &str, condition: bool, given: &[bool]) -> Result<(), Error> {
    if condition && !given.contains(&true) {
        return Err(invalid(field, "invalid_argument"));
    }
    Ok(())
}

pub fn equals(value: &impl MaybeText, other: &str) -> bool {
    value.text() == Some(other)
}

pub fn is_on<T: ToValue>(value: &Option<T>, zero_is_off: bool) -> bool {
    sent(value, zero_is_off).is_some()
}

/// What can be written as JSON.
pub trait ToValue {
    fn to_value(&self) -> Value;
}

macro_rules! plain {
    ($($kind:ty),*) => {
        $(impl ToValue for $kind {
            fn to_value(&self) -> Value {
                json!(self)
            }
        })*
    };
}

plain!(String, i64, f64, bool, Map<String, Value>, BTreeMap<String, Vec<String>>);

impl ToValue for Bytes {
    fn to_value(&self) -> Value {
        json!({ "base64": encode_base64(&self.0) })
    }
}

impl<T: ToValue> ToValue for Vec<T> {
    fn to_value(&self) -> Value {
        Value::Array(self.iter().map(ToValue::to_value).collect())
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, ToValue::to_value)
    }
}

pub fn put(out: &mut Map<String, Value>, name: &str, value: &impl ToValue) {
    match value.to_value() {
        Value::Null => {}
        value => {
            out.insert(name.to_string(), value);
        }
    }
}

pub fn sent(value: &impl ToValue, zero_is_default: bool) -> Option<Value> {
    let value = value.to_value();
    let nothing = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(on) => zero_is_default && !on,
        Value::Number(number) => zero_is_default && number.as_i64() == Some(0),
    };
    (!nothing).then_some(value)
}

pub fn put_at(body: &mut Map<String, Value>, path: &[&str], value: Option<Value>) {
    let Some(value) = value else { return };
    let mut here = body;
    for key in &path[..path.len() - 1] {
        let inner = here.entry(key.to_string()).or_insert_with(|| json!({}));
        here = inner
            .as_object_mut()
            .expect("an object that this function made");
    }
    here.insert(path[path.len() - 1].to_string(), value);
}

pub fn spread(body: &mut Map<String, Value>, fields: &Option<Map<String, Value>>) {
    body.extend(fields.clone().unwrap_or_default());
}

pub fn members(value: &Value) -> Result<&Map<String, Value>, Error> {
    value.as_object().ok_or_else(|| odd("not an object"))
}

pub fn reply(value: &Value) -> Result<&Map<String, Value>, Error> {
    let fields = members(value)?;
    let text = required(fields, "error", as_text)?;
    if text.is_empty() {
        return Ok(fields);
    }
    let known = CLASSIFIED.iter().find(|known| {
        text.len() >= known.prefix.len() + known.suffix.len()
            && text.starts_with(known.prefix)
            && text.ends_with(known.suffix)
    });
    let by_text = known.map_or(String::new(), |known| known.code.to_string());
    Err(Error {
        kind: "server",
        code: otherwise(fields, "code", as_text, by_text),
        field: String::new(),
        text,
    })
}

pub fn as_text(value: &Value) -> Result<String, Error> {
    value
        .as_str()
        .map(str::to_string)
        .ok_or_else(|| odd("not a text"))
}

pub fn as_integer(value: &Value) -> Result<i64, Error> {
    value.as_i64().ok_or_else(|| odd("not an integer"))
}

pub fn as_number(value: &Value) -> Result<f64, Error> {
    value.as_f64().ok_or_else(|| odd("not a number"))
}

pub fn as_boolean(value: &Value) -> Result<bool, Error> {
    value.as_bool().ok_or_else(|| odd("not true or false"))
}

pub fn as_object(value: &Value) -> Result<Map<String, Value>, Error> {
    members(value).cloned()
}

pub fn as_bytes(value: &Value) -> Result<Bytes, Error> {
    as_text(value).map(|text| Bytes(text.into_bytes()))
}

pub fn as_header_map(value: &Value) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let decode = list_of(as_text, false);
    members(value)?
        .iter()
        .map(|(name, values)| Ok((name.clone(), decode(values)?)))
        .collect()
}

pub fn list_of<T>(
    decode: impl Fn(&Value) -> Result<T, Error>,
    drop_odd: bool,
) -> impl Fn(&Value) -> Result<Vec<T>, Error> {
    move |value| {
        let mut result = Vec::new();
        for item in value.as_array().ok_or_else(|| odd("not a list"))? {
            match decode(item) {
                Ok(item) => result.push(item),
                Err(error) if !drop_odd => return Err(error),
                Err(_) => {}
            }
        }
        Ok(result)
    }
}

pub fn required<T>(
    fields: &Map<String, Value>,
    name: &str,
    decode: impl Fn(&Value) -> Result<T, Error>,
) -> Result<T, Error> {
    fields
        .get(name)
        .map_or_else(|| Err(odd("a field is missing")), decode)
}

pub fn optional<T>(
    fields: &Map<String, Value>,
    name: &str,
    decode: impl Fn(&Value) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    fields
        .get(name)
        .filter(|value| !value.is_null())
        .map(decode)
        .transpose()
}

pub fn lenient<T>(
    fields: &Map<String, Value>,
    name: &str,
    decode: impl Fn(&Value) -> Result<T, Error>,
) -> Option<T> {
    fields.get(name).and_then(|value| decode(value).ok())
}

pub fn otherwise<T>(
    fields: &Map<String, Value>,
    name: &str,
    decode: impl Fn(&Value) -> Result<T, Error>,
    other: T,
) -> T {
    lenient(fields, name, decode).unwrap_or(other)
}

pub fn payload(fields: &Map<String, Value>, name: &str, encoding: &str) -> Bytes {
    let text = otherwise(fields, name, as_text, String::new());
    if lenient(fields, encoding, as_text).as_deref() == Some("base64") {
        if let Some(bytes) = decode_base64(&text) {
            return Bytes(bytes);
        }
    }
    Bytes(text.into_bytes())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode_base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for index in 0..4 {
            if index <= chunk.len() {
                out.push(ALPHABET[(word >> (18 - 6 * index)) as usize & 63] as char);
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    if text.len() % 4 != 0 || text.len() - body.len() > 2 {
        return None;
    }
    let (mut word, mut bits, mut out) = (0u32, 0, Vec::new());
    for byte in body.bytes() {
        word = word << 6 | ALPHABET.iter().position(|known| *known == byte)? as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
        }
    }
    Some(out)
}

/// JSON with every payload in base64.
fn plain_payloads(value: &Value) -> Value {
    match value {
        Value::Object(fields) => match (fields.len(), fields.get("text").and_then(Value::as_str)) {
            (1, Some(text)) => json!({ "base64": encode_base64(text.as_bytes()) }),
            _ => Value::Object(
                fields
                    .iter()
                    .map(|(k, v)| (k.clone(), plain_payloads(v)))
                    .collect(),
            ),
        },
        Value::Array(items) => Value::Array(items.iter().map(plain_payloads).collect()),
        other => other.clone(),
    }
}

/// Runs a wire vector.
pub fn check_vector(
    call: fn(&Map<String, Value>) -> Result<Request, Error>,
    decode: fn(&Value) -> Result<Value, Error>,
    data: &str,
) {
    let vector: Value = serde_json::from_str(data).expect("a vector is JSON");
    let made = call(vector["call"].as_object().expect("a call is an object"));
    if vector["request"].is_null() {
        return check_error(&made.expect_err("nothing may be sent"), &vector["error"]);
    }
    let made = made.expect("a request");
    assert_eq!(made.subject, vector["request"]["subject"]);
    let sent = vector["request"]
        .get("json")
        .cloned()
        .unwrap_or_else(|| json!({}));
    assert_eq!(Value::Object(made.body), sent);
    let result = answered(&vector["reply"]).and_then(|value| decode(&value));
    if vector["is_ok"] == json!(true) {
        assert_eq!(
            plain_payloads(&result.expect("a result")),
            plain_payloads(&vector["ok"])
        );
    } else {
        check_error(&result.expect_err("a failure"), &vector["error"]);
    }
}

fn answered(reply: &Value) -> Result<Value, Error> {
    if let Some(content) = reply.get("json") {
        return Ok(content.clone());
    }
    let bytes = match (reply.get("text"), reply.get("base64")) {
        (Some(text), _) => as_text(text)?.into_bytes(),
        (_, Some(text)) => decode_base64(&as_text(text)?).ok_or_else(|| odd("not base64"))?,
        _ => Vec::new(),
    };
    serde_json::from_slice(&bytes).map_err(|_| odd("not JSON"))
}

fn check_error(error: &Error, want: &Value) {
    assert_eq!(error.kind, want["kind"], "{}", error.text);
    for (key, value) in [("code", &error.code), ("field", &error.field)] {
        if let Some(known) = want.get(key) {
            assert_eq!(value, known, "{key}");
        }
    }
}
