//! Arguments of a call on their way out: checked, then in the form that is sent.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::generated::constants;
use crate::generated::errors::codes;
use crate::generated::validators::RESERVED_HEADERS;
use crate::headers::Headers;
use crate::json::JsonObject;

const SHOWN: usize = 60;

/// Which characters a text may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Characters {
    Any,
    NoControl,
    /// Without blanks at its ends.
    PrintableAscii,
}

/// What a text has to satisfy.
pub(crate) struct Text {
    /// The code of the error if it does not.
    pub(crate) code: &'static str,
    pub(crate) characters: (usize, usize),
    pub(crate) bytes: (usize, usize),
    /// The characters it is made of, as the inside of a character class; empty = any.
    pub(crate) chars: &'static str,
    /// Likewise its first and last character.
    pub(crate) ends: (&'static str, &'static str),
    pub(crate) forbid: &'static [&'static str],
    pub(crate) kind: Characters,
}

const HEADER_TEXT: Text = Text {
    code: codes::INVALID_ARGUMENT,
    characters: (0, usize::MAX),
    bytes: (1, usize::MAX),
    chars: "",
    ends: ("", ""),
    forbid: &[],
    kind: Characters::PrintableAscii,
};

impl Text {
    fn check(&self, field: &str, value: &str) -> Result<(), Error> {
        match self.why_not(value) {
            None => Ok(()),
            Some(why) if value.is_empty() => Err(Error::invalid_as(self.code, field, why)),
            Some(why) => {
                let why = format!("{why}: {}", shown(value));
                Err(Error::invalid_as(self.code, field, why))
            }
        }
    }

    fn why_not(&self, value: &str) -> Option<Cow<'static, str>> {
        let length = value.chars().count();
        if value.is_empty() && (self.characters.0 > 0 || self.bytes.0 > 0) {
            return Some("must not be empty".into());
        }
        if length > self.characters.1 {
            let most = self.characters.1;
            return Some(format!("has {length} characters, at most {most} are allowed").into());
        }
        if value.len() > self.bytes.1 {
            let (size, most) = (value.len(), self.bytes.1);
            return Some(format!("has {size} bytes in UTF-8, at most {most} are allowed").into());
        }
        if length < self.characters.0 || value.len() < self.bytes.0 {
            return Some("is too short".into());
        }
        if !self.chars.is_empty() && !self.has_form(value) {
            return Some(self.pattern().into());
        }
        if let Some(part) = self.forbid.iter().find(|part| value.contains(**part)) {
            return Some(format!("must not contain {part:?}").into());
        }
        match self.kind {
            Characters::NoControl if value.chars().any(char::is_control) => {
                Some("must not contain control characters".into())
            }
            Characters::PrintableAscii if !is_printable_ascii(value) => {
                Some("must be printable ASCII without blanks at its ends".into())
            }
            _ => None,
        }
    }

    fn has_form(&self, value: &str) -> bool {
        let (first, last) = (value.chars().next(), value.chars().next_back());
        value.chars().all(|c| is_in(self.chars, c))
            && first.is_some_and(|c| is_in(or(self.ends.0, self.chars), c))
            && last.is_some_and(|c| is_in(or(self.ends.1, self.chars), c))
    }

    fn pattern(&self) -> String {
        let mut text = format!("must be of {} alone", self.chars);
        for (end, what) in [(self.ends.0, "beginning"), (self.ends.1, "ending")] {
            if !end.is_empty() {
                text += &format!(", {what} with one of {end}");
            }
        }
        text
    }
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
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

fn is_printable_ascii(value: &str) -> bool {
    value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && !value.starts_with(' ')
        && !value.ends_with(' ')
        && !value.is_empty()
}

fn shown(value: &str) -> String {
    let text = format!("{value:?}");
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN - 3).chain("...".chars()).collect()
}

/// The bounds of a whole number.
pub(crate) struct Integer {
    pub(crate) low: i64,
    pub(crate) high: i64,
}

impl Integer {
    fn check(&self, field: &str, value: i64) -> Result<(), Error> {
        if (self.low..=self.high).contains(&value) {
            return Ok(());
        }
        let why = format_args!("must be {} to {}, not {value}", self.low, self.high);
        Err(Error::invalid(field, why))
    }
}

/// A value on its way into a body or a header.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Sent {
    Text(String),
    Integer(i64),
    Number(f64),
    Boolean(bool),
    Texts(Vec<String>),
    Integers(Vec<i64>),
    Json(JsonObject),
}

/// Texts and open words, required or optional; an optional one that is empty counts as absent.
pub(crate) trait MaybeText {
    fn get(&self) -> Option<&str>;
}

impl MaybeText for String {
    fn get(&self) -> Option<&str> {
        Some(self)
    }
}

impl<T: AsRef<str>> MaybeText for Option<T> {
    fn get(&self) -> Option<&str> {
        self.as_ref().map(AsRef::as_ref).filter(|text| !text.is_empty())
    }
}

/// Whole numbers, required or optional.
pub(crate) trait MaybeInteger {
    fn get(self) -> Option<i64>;
}

impl MaybeInteger for i64 {
    fn get(self) -> Option<i64> {
        Some(self)
    }
}

impl MaybeInteger for Option<i64> {
    fn get(self) -> Option<i64> {
        self
    }
}

pub(crate) fn text(
    field: &str,
    value: &impl MaybeText,
    rule: &Text,
) -> Result<Option<Sent>, Error> {
    let Some(value) = value.get() else { return Ok(None) };
    rule.check(field, value)?;
    Ok(Some(Sent::Text(value.to_owned())))
}

/// A word of an open set: the broker knows which there are.
pub(crate) fn word(value: &impl MaybeText) -> Option<Sent> {
    value.get().map(|value| Sent::Text(value.to_owned()))
}

pub(crate) fn integer(
    field: &str,
    value: impl MaybeInteger,
    rule: &Integer,
) -> Result<Option<Sent>, Error> {
    let Some(value) = value.get() else { return Ok(None) };
    rule.check(field, value)?;
    Ok(Some(Sent::Integer(value)))
}

/// An integer whose zero means the same as nothing.
pub(crate) fn integer_or_zero(
    field: &str,
    value: impl MaybeInteger,
    rule: &Integer,
) -> Result<Option<Sent>, Error> {
    integer(field, value.get().filter(|value| *value != 0), rule)
}

pub(crate) fn texts(
    field: &str,
    values: &[String],
    rule: &Text,
    items: (usize, usize),
    required: bool,
) -> Result<Option<Sent>, Error> {
    values.iter().try_for_each(|value| rule.check(field, value))?;
    Ok(counted(field, values.len(), items, required)?.then(|| Sent::Texts(values.to_vec())))
}

pub(crate) fn integers(
    field: &str,
    values: &[i64],
    rule: &Integer,
    items: (usize, usize),
    required: bool,
) -> Result<Option<Sent>, Error> {
    values.iter().try_for_each(|value| rule.check(field, *value))?;
    Ok(counted(field, values.len(), items, required)?.then(|| Sent::Integers(values.to_vec())))
}

fn counted(
    field: &str,
    count: usize,
    (low, high): (usize, usize),
    required: bool,
) -> Result<bool, Error> {
    if count == 0 && !required {
        return Ok(false);
    }
    let why = if count == 0 && low == 1 {
        "must not be empty".to_owned()
    } else if count < low {
        format!("must have at least {low} items, not {count}")
    } else if count > high {
        format!("must have at most {high} items, not {count}")
    } else {
        return Ok(true);
    };
    Err(Error::invalid(field, why))
}

#[allow(dead_code, reason = "for parameters that the specification may yet have")]
pub(crate) fn boolean(value: impl Into<Option<bool>>) -> Option<Sent> {
    value.into().map(Sent::Boolean)
}

/// A truth value whose false means the same as nothing.
pub(crate) fn boolean_or_false(value: impl Into<Option<bool>>) -> Option<Sent> {
    value.into().filter(|value| *value).map(Sent::Boolean)
}

#[allow(dead_code, reason = "for parameters that the specification may yet have")]
pub(crate) fn number(field: &str, value: impl Into<Option<f64>>) -> Result<Option<Sent>, Error> {
    match value.into() {
        Some(value) if !value.is_finite() => Err(Error::invalid(field, "must be a finite number")),
        value => Ok(value.map(Sent::Number)),
    }
}

/// Words of an open set.
#[allow(dead_code, reason = "for parameters that the specification may yet have")]
pub(crate) fn words<T: AsRef<str>>(
    field: &str,
    values: &[T],
    items: (usize, usize),
    required: bool,
) -> Result<Option<Sent>, Error> {
    let texts = || Sent::Texts(values.iter().map(|word| word.as_ref().to_owned()).collect());
    Ok(counted(field, values.len(), items, required)?.then(texts))
}

#[allow(dead_code, reason = "for parameters that the specification may yet have")]
pub(crate) fn json_object<'a>(value: impl Into<Option<&'a JsonObject>>) -> Option<Sent> {
    value.into().filter(|value| given(*value)).map(|value| Sent::Json(value.clone()))
}

/// Whether an argument was given.
pub(crate) trait Given {
    fn is_given(&self) -> bool;
}

impl<T: Given> Given for Option<T> {
    fn is_given(&self) -> bool {
        self.as_ref().is_some_and(Given::is_given)
    }
}

impl Given for i64 {
    fn is_given(&self) -> bool {
        true
    }
}

impl Given for f64 {
    fn is_given(&self) -> bool {
        true
    }
}

impl Given for bool {
    fn is_given(&self) -> bool {
        true
    }
}

impl Given for String {
    fn is_given(&self) -> bool {
        !self.is_empty()
    }
}

impl<T> Given for Vec<T> {
    fn is_given(&self) -> bool {
        !self.is_empty()
    }
}

impl Given for Headers {
    fn is_given(&self) -> bool {
        !self.0.is_empty()
    }
}

impl Given for JsonObject {
    fn is_given(&self) -> bool {
        !self.members().is_empty()
    }
}

pub(crate) fn given(value: &impl Given) -> bool {
    value.is_given()
}

/// Whether an argument was given whose zero or false means the same as nothing.
pub(crate) fn is_on<T: Copy + Into<Switch>>(value: &Option<T>) -> bool {
    value.is_some_and(|value| value.into().0)
}

/// Something that is on or off.
pub(crate) struct Switch(bool);

impl From<bool> for Switch {
    fn from(value: bool) -> Self {
        Self(value)
    }
}

impl From<i64> for Switch {
    fn from(value: i64) -> Self {
        Self(value != 0)
    }
}

pub(crate) fn equals(value: &impl MaybeText, word: &str) -> bool {
    value.get() == Some(word)
}

/// Fails if a condition holds and none of what it needs was given.
pub(crate) fn needs(field: &str, why: &str, condition: bool, given: &[bool]) -> Result<(), Error> {
    if condition && !given.contains(&true) { Err(Error::invalid(field, why)) } else { Ok(()) }
}

/// A field of the body that repeats another parameter.
pub(crate) trait Constant {
    fn sent(&self) -> Sent;
}

impl Constant for String {
    fn sent(&self) -> Sent {
        Sent::Text(self.clone())
    }
}

impl Constant for i64 {
    fn sent(&self) -> Sent {
        Sent::Integer(*self)
    }
}

pub(crate) fn constant(value: &impl Constant) -> Option<Sent> {
    Some(value.sent())
}

/// Mailbox and group, if the reply may bring messages under a lease.
pub(crate) fn lease(
    mail_address: &str,
    group_name: &impl MaybeText,
    lease_ms: Option<i64>,
) -> Option<(String, String)> {
    let group_name = group_name.get().filter(|_| lease_ms.is_some_and(|value| value != 0))?;
    Some((mail_address.to_owned(), group_name.to_owned()))
}

/// A JSON body that grows.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Body(BTreeMap<String, Node>);

#[derive(Serialize)]
#[serde(untagged)]
enum Node {
    Value(Sent),
    Raw(Box<RawValue>),
    Inner(Body),
}

impl Body {
    /// Puts a value at a path; nothing is put where nothing was given.
    pub(crate) fn put(&mut self, path: &[&str], value: Option<Sent>) {
        let (Some(value), Some((first, rest))) = (value, path.split_first()) else { return };
        if rest.is_empty() {
            self.0.insert((*first).to_owned(), Node::Value(value));
            return;
        }
        let inner =
            self.0.entry((*first).to_owned()).or_insert_with(|| Node::Inner(Self::default()));
        if let Node::Inner(inner) = inner {
            inner.put(rest, Some(value));
        }
    }

    /// Puts the members of an object into the body; what is there already wins.
    pub(crate) fn spread(&mut self, object: Option<&JsonObject>) {
        for (name, value) in object.map(JsonObject::members).unwrap_or_default() {
            self.0.entry(name).or_insert(Node::Raw(value));
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        // Texts, numbers that are finite and checked JSON always have a text.
        serde_json::to_vec(&self).unwrap_or_default().into()
    }
}

/// Headers that are sent, one value a name.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderList(Vec<(String, String)>);

impl HeaderList {
    /// Puts a value under a name; nothing is put where nothing was given.
    pub(crate) fn put(
        &mut self,
        name: &str,
        field: &str,
        value: Option<Sent>,
    ) -> Result<(), Error> {
        let text = match value {
            None => return Ok(()),
            Some(Sent::Text(text)) => text,
            Some(Sent::Integer(value)) => value.to_string(),
            Some(Sent::Integers(values)) => {
                values.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
            }
            Some(Sent::Texts(values)) => {
                values.iter().try_for_each(|value| HEADER_TEXT.check(field, value))?;
                values.join(",")
            }
            Some(Sent::Number(value)) => value.to_string(),
            Some(Sent::Boolean(value)) => value.to_string(),
            Some(Sent::Json(value)) => value.to_string(),
        };
        HEADER_TEXT.check(field, &text)?;
        self.0.push((name.to_owned(), text));
        Ok(())
    }

    /// Adds the user's own headers.
    pub(crate) fn extend(&mut self, field: &str, headers: &Headers) -> Result<(), Error> {
        for (name, value) in &headers.0 {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || !name.bytes().all(plain) {
                let why = format!("a name must be letters, digits and -_. only: {}", shown(name));
                return Err(Error::invalid(field, why));
            }
            if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(Error::invalid(field, format_args!("{name} has an option of its own")));
            }
            HEADER_TEXT.check(field, value)?;
            self.0.retain(|(known, _)| known != name);
            self.0.push((name.clone(), value.clone()));
        }
        Ok(())
    }

    /// Whether the request has an id that makes a repetition harmless; makes one up if that is wanted.
    pub(crate) fn identify(&mut self, name: &str, wanted: bool) -> bool {
        if self.0.iter().any(|(known, _)| known == name) {
            return true;
        }
        if wanted {
            let digits = constants::RETRY_GENERATED_DEDUP_ID_HEX_DIGITS;
            let id: String =
                (0..digits).filter_map(|_| char::from_digit(fastrand::u32(..16), 16)).collect();
            self.0.push((name.to_owned(), id));
        }
        wanted
    }

    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}
