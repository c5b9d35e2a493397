//! The metadata of an object as the API server gives it: the parts that we need. Pure.

use super::bound::keeps_label;
use super::scalar::Scalar;
use crate::manifest::{DELIVERY, FINGERPRINT, MANAGED_BY, MANAGER, NONCE};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// On a bookmark of a watch that began with all objects: they have been sent (Kubernetes API Concepts, "Streaming lists").
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// Bytes of a label beside its text.
pub(super) const LABEL: usize = 48;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: Scalar,
    pub(super) uid: Scalar,
    pub(super) resource_version: Scalar,
    pub(super) labels: Labels,
    pub(super) annotations: Annotations,
    pub(super) creation_timestamp: Scalar,
    pub(super) deletion_timestamp: Scalar,
}

impl Metadata {
    /// 0 if it is absent or no number, which no API server gives (KEP-5504).
    pub(super) fn version(&self) -> u64 {
        self.resource_version.text().and_then(|version| version.parse().ok()).unwrap_or(0)
    }

    /// Whether this bookmark ends the beginning of a watch.
    pub(super) fn is_initial_end(&self) -> bool {
        self.annotations.is_initial_end
    }
}

/// Those of a Job with more than a call keeps are not there: see `bound.rs`.
#[derive(Default)]
pub(super) struct Labels {
    pub(super) all: Box<[(Box<str>, Box<str>)]>,
    pub(super) is_ours: bool,
}

#[derive(Default)]
pub(super) struct Annotations {
    pub(super) fingerprint: Option<Box<str>>,
    pub(super) nonce: Option<Box<str>>,
    pub(super) delivery: Option<Box<str>>,
    is_initial_end: bool,
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_option(LabelsVisitor)
    }
}

struct LabelsVisitor;

impl<'de> Visitor<'de> for LabelsVisitor {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings, or null")
    }

    fn visit_none<E>(self) -> Result<Labels, E> {
        Ok(Labels::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<Labels, D::Error> {
        json.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Labels, A::Error> {
        let (mut all, mut is_ours, mut keeps) = (Vec::new(), false, true);
        while let Some((key, value)) = pairs.next_entry::<Box<str>, Scalar>()? {
            let Some(value) = value.into_text() else { continue };
            is_ours |= *key == *MANAGED_BY && *value == *MANAGER;
            keeps = keeps && keeps_label(LABEL + key.len() + value.len());
            if keeps { all.push((key, value)) } else { all.clear() }
        }
        Ok(Labels { all: all.into(), is_ours })
    }
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        let [fingerprint, nonce, delivery, end] =
            json.deserialize_option(Members([FINGERPRINT, NONCE, DELIVERY, INITIAL_END]))?;
        Ok(Annotations { fingerprint, nonce, delivery, is_initial_end: end.as_deref() == Some("true") })
    }
}

/// The values of these keys of an object of strings; the others are skipped.
struct Members<const N: usize>([&'static str; N]);

impl<'de, const N: usize> Visitor<'de> for Members<N> {
    type Value = [Option<Box<str>>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings, or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok([const { None }; N])
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
        let mut values = [const { None }; N];
        while let Some(place) = pairs.next_key_seed(Place(&self.0))? {
            match place {
                Some(place) => values[place] = pairs.next_value::<Scalar>()?.into_text(),
                None => _ = pairs.next_value::<IgnoredAny>()?,
            }
        }
        Ok(values)
    }
}

/// Where a key is in a list, without a copy of it.
struct Place<'k>(&'k [&'static str]);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|one| *one == key))
    }
}
