//! Finds kind and name of an object in its JSON, and may stop there.

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// What an object says it is.
#[derive(Debug, Default)]
pub(super) struct Identity {
    pub(super) kind: Option<String>,
    /// `metadata.name`.
    pub(super) name: Option<String>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Kind,
    Metadata,
    Name,
    #[serde(other)]
    Other,
}

impl Identity {
    pub(super) fn is_known(&self) -> bool {
        self.kind.is_some() && self.name.is_some()
    }

    /// `stops`: whether to look no further when both are known.
    ///
    /// Errors: it is no object; or it has stopped, for which there is no other way.
    pub(super) fn find<'de, D: Deserializer<'de>>(&mut self, json: D, stops: bool) -> Result<(), D::Error> {
        json.deserialize_map(Finder { identity: self, is_metadata: false, stops })
    }
}

struct Finder<'i> {
    identity: &'i mut Identity,
    is_metadata: bool,
    stops: bool,
}

impl<'de> Visitor<'de> for Finder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<(), A::Error> {
        let Finder { identity, is_metadata, stops } = self;
        while let Some(field) = pairs.next_key()? {
            match (field, is_metadata) {
                (Field::Kind, false) => identity.kind = Some(pairs.next_value()?),
                (Field::Name, true) => identity.name = Some(pairs.next_value()?),
                (Field::Metadata, false) => pairs.next_value_seed(Finder { identity, is_metadata: true, stops })?,
                _ => _ = pairs.next_value::<IgnoredAny>()?,
            }
            if stops && identity.is_known() {
                return Err(A::Error::custom("kind and name are known"));
            }
        }
        Ok(())
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Finder<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, metadata: D) -> Result<(), D::Error> {
        metadata.deserialize_map(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str) -> (bool, [Option<String>; 2]) {
        let mut identity = Identity::default();
        let ended = identity.find(&mut serde_json::Deserializer::from_str(json), true).is_ok();
        (ended, [identity.kind, identity.name])
    }

    #[test]
    fn kind_and_name_are_found_in_any_order() {
        let both = [Some("Job".into()), Some("a".into())];
        for json in [
            r#"{"kind":"Job","metadata":{"uid":1,"name":"a","name2":{}},"spec": not looked at"#,
            r#"{"metadata":{"labels":{"name":"b"},"name":"a"},"name":"c","spec":{"kind":"x"},"kind":"Job" -"#,
        ] {
            assert_eq!(found(json), (false, both.clone()), "{json}");
        }
        assert_eq!(found(r#"{"metadata":{"kind":"Job"},"name":"a"}"#), (true, [None, None]));
        assert_eq!(found("[]"), (false, [None, None]));
    }
}
