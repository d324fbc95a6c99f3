//! The members of a JSON object, taken out by name, with an error that says what was wrong.
//!
//! Client frames, publish bodies and the envelopes of backends are all objects of a few members
//! that arrive from strangers. They are read here alike: at most [`MAX_MEMBERS`] members, none
//! twice, none unknown, nothing nested deeper than [`MAX_NESTING`]. Values stay as they were
//! written until they are asked for.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

/// How deep JSON may be nested, here and in every payload.
pub const MAX_NESTING: usize = 128;
/// More members than any object of the protocol has.
const MAX_MEMBERS: usize = 16;

/// The members that nobody has taken yet.
pub(crate) struct Fields<'a>(SmallVec<[(Cow<'a, str>, &'a RawValue); 8]>);

/// Why the bytes are no such object. The text is for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FieldsError {
    /// No JSON, or nested too deep.
    NotJson(String),
    /// JSON, but no object.
    NotObject,
}

impl<'a> Fields<'a> {
    /// Reads the object. Bytes that are no UTF-8 are no JSON (RFC 8259, section 8.1).
    pub(crate) fn parse(text: &'a str) -> Result<Self, FieldsError> {
        if too_deep(text.as_bytes()) {
            return Err(FieldsError::NotJson(format!("nested deeper than {MAX_NESTING}")));
        }
        let trimmed = text.trim_start_matches([' ', '\t', '\r', '\n']);
        if !trimmed.starts_with('{') {
            return Err(match check_json(text) {
                Ok(()) => FieldsError::NotObject,
                Err(why) => FieldsError::NotJson(why),
            });
        }
        serde_json::from_str(text).map_err(|e| FieldsError::NotJson(e.to_string()))
    }

    /// Takes a member out, as it was written.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes a member out that must be a string when it is there; `null` counts as absent.
    pub(crate) fn take_string(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, String> {
        self.take_as(name, "a string", |raw| {
            // Text without escapes is borrowed; serde's own Cow would always copy.
            let text = raw.get();
            match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(inner) if !inner.contains('\\') => Some(Cow::Borrowed(inner)),
                Some(_) => serde_json::from_str::<String>(text).ok().map(Cow::Owned),
                None => None,
            }
        })
    }

    /// Takes a member out that must be true or false when it is there; `null` counts as absent.
    pub(crate) fn take_bool(&mut self, name: &str) -> Result<Option<bool>, String> {
        self.take_as(name, "true or false", |raw| raw.get().parse().ok())
    }

    fn take_as<T>(
        &mut self,
        name: &str,
        kind: &str,
        read: impl FnOnce(&'a RawValue) -> Option<T>,
    ) -> Result<Option<T>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(raw) if raw.get() == "null" => Ok(None),
            Some(raw) => match read(raw) {
                Some(value) => Ok(Some(value)),
                None => Err(format!("'{name}' must be {kind}")),
            },
        }
    }

    /// Whether a member is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Whether all members that are left are among these.
    pub(crate) fn only(&self, names: &[&str]) -> bool {
        self.0.iter().all(|(key, _)| names.contains(&&**key))
    }

    /// Ends the reading: what is left is unknown here.
    pub(crate) fn finish(self, allowed: &str) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let shown: String = name.chars().take(64).collect();
                Err(format!("unknown member '{}'; allowed: {allowed}", shown.escape_debug()))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = SmallVec::new();
                while let Some(Key(key)) = map.next_key()? {
                    if all.len() == MAX_MEMBERS {
                        return Err(serde::de::Error::custom("too many members"));
                    }
                    if all.iter().any(|(known, _)| *known == key) {
                        return Err(serde::de::Error::custom("a member stands twice"));
                    }
                    all.push((key, map.next_value()?));
                }
                Ok(Fields(all))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Checks that the text is exactly one JSON value, nested at most [`MAX_NESTING`] deep.
///
/// # Errors
/// Says what it is instead.
pub fn check_json(text: &str) -> Result<(), String> {
    if too_deep(text.as_bytes()) {
        return Err(format!("nested deeper than {MAX_NESTING}"));
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ()).map_err(|e| e.to_string())
}

/// Whether brackets outside strings are nested deeper than allowed. Raw values are skipped without
/// recursion, so serde's own limit does not see them; the client's parser would.
pub(crate) fn too_deep(json: &[u8]) -> bool {
    if json.len() <= MAX_NESTING {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_NESTING {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_counts_brackets_outside_strings() {
        let nest = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(!too_deep(nest(128).as_bytes()));
        assert!(too_deep(nest(129).as_bytes()));
        assert!(!too_deep(format!("\"{}\\\"{}\"", "[".repeat(500), "{".repeat(500)).as_bytes()));
        assert!(too_deep("[".repeat(100_000).as_bytes()));
    }

    #[test]
    fn members_are_taken_by_name() {
        let mut fields =
            Fields::parse(r#" {"a":"x\u0041","b":true,"\u0063":1,"d":null}"#).ok().unwrap();
        assert_eq!(fields.take_string("a").unwrap().unwrap(), "xA");
        assert_eq!(fields.take_bool("b"), Ok(Some(true)));
        assert_eq!(fields.take_string("c"), Err("'c' must be a string".into()));
        assert_eq!(fields.finish("a, b"), Err("unknown member 'd'; allowed: a, b".into()));
    }

    #[test]
    fn what_is_no_object_is_told_from_what_is_no_json() {
        assert!(matches!(Fields::parse("[1]"), Err(FieldsError::NotObject)));
        assert!(matches!(Fields::parse("hello"), Err(FieldsError::NotJson(_))));
        assert!(matches!(Fields::parse(r#"{"a":1,"a":2}"#), Err(FieldsError::NotJson(_))));
        assert!(matches!(Fields::parse(r#"{"a":1} x"#), Err(FieldsError::NotJson(_))));
    }
}
