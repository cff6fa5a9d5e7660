//! Reading JSON objects so that two readers can never see two different things: valid UTF-8, no member
//! twice at any level (RFC 8725 §2.6, RFC 7515 §4, RFC 7519 §4), nesting bounded, types exact.

use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Objects and arrays inside one another, counting the outermost.
const MAX_DEPTH: u8 = 8;

/// A member is there, but not as the type it must have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrongType;

/// The members of one JSON object, each name once, values still as text.
pub(crate) struct Members<'a>(BTreeMap<Name<'a>, &'a RawValue>);

impl<'a> Members<'a> {
    /// `None` when the bytes are not exactly one JSON object within the rules above.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        Self::parse_text(std::str::from_utf8(bytes).ok()?)
    }

    fn parse_text(text: &'a str) -> Option<Self> {
        let mut whole = serde_json::Deserializer::from_str(text);
        Sound { levels: MAX_DEPTH }.deserialize(&mut whole).ok()?;
        whole.end().ok()?;
        // Twins are ruled out above, so the map below drops nothing.
        serde_json::from_str(text).ok().map(Self)
    }

    /// Whether a member of this name exists, be it only `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A string, decoded.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, WrongType> {
        self.read(name)
    }

    /// An array of strings.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, WrongType> {
        self.read(name)
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, WrongType> {
        self.read(name)
    }

    /// A finite number; `1e999` is the wrong type.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, WrongType> {
        self.read(name)
    }

    /// A nested object.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Members<'a>>, WrongType> {
        let Some(raw) = self.0.get(name) else {
            return Ok(None);
        };
        Members::parse_text(raw.get()).map(Some).ok_or(WrongType)
    }

    /// An array of objects.
    pub(crate) fn objects(&self, name: &str) -> Result<Option<Vec<Members<'a>>>, WrongType> {
        let Some(entries) = self.read::<Vec<&'a RawValue>>(name)? else {
            return Ok(None);
        };
        entries.into_iter().map(|raw| Members::parse_text(raw.get()).ok_or(WrongType)).collect::<Result<_, _>>().map(Some)
    }

    /// `null` counts as a value of the wrong type, not as absence.
    fn read<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, WrongType> {
        let Some(raw) = self.0.get(name) else {
            return Ok(None);
        };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| WrongType)
    }
}

/// A member's name with its escapes resolved, so that `"\u0065xp"` and `"exp"` are twins.
///
/// Transparent, because with its `arbitrary_precision` feature, which any crate in a build may switch on,
/// serde_json shows numbers as maps whose keys are plain strings.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl Borrow<str> for Name<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Walks any JSON value, keeps nothing, and fails on a twin or on too deep nesting.
#[derive(Clone, Copy)]
struct Sound {
    levels: u8,
}

impl Sound {
    fn inside<E: Error>(self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { levels }),
            None => Err(E::custom("nested too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Sound {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while seq.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<Name<'de>>()? {
            if !seen.insert(name) {
                return Err(A::Error::custom("repeated member"));
            }
            map.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;

    fn sound(text: &str) -> bool {
        Members::parse(text.as_bytes()).is_some()
    }

    #[test]
    fn reads_each_type_exactly() {
        let text = r#"{"t":"a\u00e9","l":["x","y"],"n":1.5,"o":{"in":"side"},"z":null,"os":[{"a":1},{}]}"#;
        let members = Members::parse(text.as_bytes()).unwrap();
        assert_eq!(members.text("t"), Ok(Some("aé".to_owned())));
        assert_eq!(members.texts("l"), Ok(Some(vec!["x".to_owned(), "y".to_owned()])));
        assert_eq!(members.number("n"), Ok(Some(1.5)));
        let inner = members.object("o").ok().flatten().unwrap();
        assert_eq!(inner.text("in"), Ok(Some("side".to_owned())));
        assert_eq!(members.objects("os").ok().flatten().unwrap().len(), 2);
        assert_eq!(members.text("absent"), Ok(None));
        assert!(members.has("z") && !members.has("absent"));

        for name in ["l", "n", "o", "z"] {
            assert_eq!(members.text(name), Err(WrongType), "{name}");
        }
        for name in ["t", "l", "o", "z"] {
            assert_eq!(members.number(name), Err(WrongType), "{name}");
        }
        for name in ["t", "n", "o", "z", "os"] {
            assert_eq!(members.texts(name), Err(WrongType), "{name}");
        }
        for name in ["t", "n", "l", "z"] {
            assert!(members.object(name).is_err(), "{name}");
            assert!(members.objects(name).is_err(), "{name}");
        }
    }

    /// Refused while walking or while reading, depending on how serde_json was built.
    #[test]
    fn a_number_is_finite() {
        for text in [r#"{"a":1e999}"#, r#"{"a":-1e999}"#] {
            let number = Members::parse(text.as_bytes()).map(|members| members.number("a"));
            assert!(matches!(number, None | Some(Err(WrongType))), "{text}");
        }
    }

    #[test]
    fn only_one_object_is_accepted() {
        for text in [
            "",
            " ",
            "null",
            "1",
            "\"a\"",
            "[]",
            "[{}]",
            "{}{}",
            "{} x",
            "{",
            "}",
            "{\"a\":1,}",
            "\u{feff}{}",
            "{'a':1}",
            "{a:1}",
            "{\"a\":NaN}",
            "{\"a\":01}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\n\"}",
            "{}\0",
            "/**/{}",
        ] {
            assert!(!sound(text), "{text:?}");
        }
        assert!(sound(" {} "));
    }

    #[test]
    fn twins_are_refused_at_every_level() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[[{"b":1,"\u0062":2}]]}"#,
            r#"{"":1,"":1}"#,
        ] {
            assert!(!sound(text), "{text}");
        }
        assert!(sound(r#"{"a":1,"A":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}"#));
    }

    #[test]
    fn invalid_utf8_is_refused_wherever_it_stands() {
        for bytes in [&b"{\"a\":\"\xff\"}"[..], b"{\"\xff\":1}", b"{}\xff", b"\xff\xfe{\0}\0"] {
            assert!(Members::parse(bytes).is_none());
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(sound(&nested(usize::from(MAX_DEPTH))));
        assert!(!sound(&nested(usize::from(MAX_DEPTH) + 1)));
        assert!(!sound(&nested(100_000)));
        assert!(!sound(&format!("{{\"a\":{}", "[".repeat(100_000))));
    }
}
