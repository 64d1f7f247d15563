//! Headers of the user's own, and reading those of a message.

use std::collections::{BTreeMap, HashMap};

use crate::generated::models::Message;

/// Headers of the user's own, one value a name. Made from an array, vector or map of names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub(crate) Vec<(String, String)>);

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl<K: Into<String>, V: Into<String>, const N: usize> From<[(K, V); N]> for Headers {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<K: Into<String>, V: Into<String>> From<Vec<(K, V)>> for Headers {
    fn from(pairs: Vec<(K, V)>) -> Self {
        pairs.into_iter().collect()
    }
}

impl<K: Into<String>, V: Into<String>> From<BTreeMap<K, V>> for Headers {
    fn from(pairs: BTreeMap<K, V>) -> Self {
        pairs.into_iter().collect()
    }
}

impl<K: Into<String>, V: Into<String>> From<HashMap<K, V>> for Headers {
    fn from(pairs: HashMap<K, V>) -> Self {
        pairs.into_iter().collect()
    }
}

/// Names match in any case; the first value counts.
impl Message {
    pub(crate) fn text_header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .flatten()
            .find(|(spelled, values)| !values.is_empty() && spelled.eq_ignore_ascii_case(name))
            .and_then(|(_, values)| values.first())
            .map(String::as_str)
    }

    pub(crate) fn integer_header(&self, name: &str) -> Option<i64> {
        let text = self.text_header(name)?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    }

    #[allow(dead_code, reason = "for headers that the specification may yet have")]
    pub(crate) fn comma_separated_header(&self, name: &str) -> Option<Vec<&str>> {
        let text = self.text_header(name)?;
        Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect())
    }
}
