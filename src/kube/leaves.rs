//! Reads the leaves of a JSON value, each with its path, as they come: what is not wanted is never held. Types for Kubernetes' objects, as
//! serde derives them, would take several times the code.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Leaf<'l> {
    /// A member of an object, before its value.
    Member,
    /// An element of a list, before it.
    Element,
    Text(&'l str),
    Number(i64),
}

/// Calls `see` with each path and what is there. A path has keys with slashes between them, and `*` for an element of a list:
/// `items/*/metadata/name`. If `see` returns false for a member, its value is skipped. Booleans, nulls, fractions and numbers beyond 64 bits
/// are left out.
pub(super) struct Leaves<'l> {
    pub(super) path: &'l mut String,
    pub(super) see: &'l mut dyn FnMut(&str, Leaf<'_>) -> bool,
}

impl Leaves<'_> {
    /// One level below a path of this length.
    fn below(&mut self, key: &str, length: usize) -> Leaves<'_> {
        self.path.truncate(length);
        if length > 0 {
            self.path.push('/')
        }
        self.path.push_str(key);
        Leaves { path: self.path, see: self.see }
    }

    fn report(&mut self, leaf: Leaf<'_>) -> bool {
        (self.see)(self.path, leaf)
    }
}

impl<'de> DeserializeSeed<'de> for Leaves<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Leaves<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(mut self, number: i64) -> Result<(), E> {
        self.report(Leaf::Number(number));
        Ok(())
    }
    fn visit_u64<E>(mut self, number: u64) -> Result<(), E> {
        if let Ok(number) = number.try_into() {
            self.report(Leaf::Number(number));
        }
        Ok(())
    }
    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.report(Leaf::Text(text));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let length = self.path.len();
        while let Some(key) = members.next_key::<String>()? {
            let mut value = self.below(&key, length);
            match value.report(Leaf::Member) {
                true => members.next_value_seed(value)?,
                false => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        self.path.truncate(length);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        let length = self.path.len();
        while elements.next_element_seed(Element(self.below("*", length)))?.is_some() {}
        self.path.truncate(length);
        Ok(())
    }
}

/// An element of a list, if there is one more.
struct Element<'l>(Leaves<'l>);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let Element(mut element) = self;
        element.report(Leaf::Element);
        element.deserialize(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(json: &str) -> serde_json::Result<Vec<String>> {
        let (mut path, mut seen) = (String::new(), Vec::new());
        let mut see = |path: &str, leaf: Leaf<'_>| {
            if leaf != Leaf::Member {
                seen.push(format!("{path} {leaf:?}"))
            }
            path != "skipped"
        };
        let mut json = serde_json::Deserializer::from_str(json);
        Leaves { path: &mut path, see: &mut see }.deserialize(&mut json)?;
        Ok(seen)
    }

    #[test]
    fn each_leaf_has_its_path() {
        let json = r#"{"a": {"b": "x", "c": null}, "skipped": {"y": ["z"]}, "d": [{"e": -1}, [true, 2, 0.5], {}],
            "f": 18446744073709551615, "g": 3}"#;
        let want = [
            r#"a/b Text("x")"#,
            "d/* Element",
            "d/*/e Number(-1)",
            "d/* Element",
            "d/*/* Element",
            "d/*/* Element",
            "d/*/* Number(2)",
            "d/*/* Element",
            "d/* Element",
            "g Number(3)",
        ];
        assert_eq!(leaves(json).unwrap(), want);
        assert_eq!(leaves("7").unwrap(), [" Number(7)"]);
        assert!(leaves(r#"{"a": "#).is_err());
    }
}
