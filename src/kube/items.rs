//! Reads a list of Kubernetes objects one item at a time: neither a page nor its text is held whole.

use super::response::deserializer;
use super::scalar::Scalar;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::fmt;
use std::io::{BufReader, ErrorKind, Read};

/// Bytes of one item, and of one event of a watch: etcd limits an object to 1.5 MiB, and `<` becomes six bytes in Go's JSON.
pub(super) const MAX_OBJECT: usize = 10 << 20;
/// Bytes of a token for the next page, which goes into a URL; the API server's have some hundred.
const MAX_TOKEN: usize = 4 << 10;
const BUFFER: usize = 8 << 10;

/// What becomes of the items of a list.
pub(super) trait Items {
    /// Of the list.
    const KIND: &'static str;

    /// Reads one item.
    fn add<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error>;
}

/// What a page says of itself (API conventions, "Lists and Simple kinds").
#[derive(Debug, Default)]
pub(crate) struct ListMetadata {
    /// `resourceVersion`; 0 if it is absent or not a number.
    pub(crate) version: u64,
    /// The token for the next page; None for the last.
    pub(crate) next: Option<String>,
}

/// Reads a page to its end, so that its connection is used again.
///
/// Errors: the connection's; it is not a list of this kind; an item is too long, or cannot be read by `items`.
pub(super) fn each_item<I: Items>(page: &mut dyn Read, items: &mut I) -> serde_json::Result<ListMetadata> {
    let left = Cell::new(MAX_OBJECT);
    let mut page = BufReader::with_capacity(BUFFER, ObjectReader { reader: page, left: &left });
    let mut json = deserializer(&mut page);
    let (kind, metadata) = List { items, left: &left }.deserialize(&mut json)?;
    json.end()?;
    if kind.text() != Some(I::KIND) {
        return Err(Error::custom(format!("the response is not a {}", I::KIND)));
    }
    let PageMetadata { resource_version, r#continue } = metadata.unwrap_or_default();
    let next = r#continue.into_text().filter(|token| !token.is_empty()).map(String::from);
    if next.as_ref().is_some_and(|token| token.len() > MAX_TOKEN) {
        return Err(Error::custom(format!("continue has more than {MAX_TOKEN} bytes")));
    }
    let version = resource_version.text().and_then(|version| version.parse().ok()).unwrap_or(0);
    Ok(ListMetadata { version, next })
}

/// Reads no more than what is left, which is set anew for each object.
pub(super) struct ObjectReader<'l> {
    pub(super) reader: &'l mut dyn Read,
    pub(super) left: &'l Cell<usize>,
}

impl Read for ObjectReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left.get() == 0 {
            let why = format!("an object has more than {MAX_OBJECT} bytes");
            return Err(std::io::Error::new(ErrorKind::FileTooLarge, why));
        }
        let most = into.len().min(self.left.get());
        let read = self.reader.read(&mut into[..most])?;
        self.left.set(self.left.get() - read);
        Ok(read)
    }
}

/// Gives its kind, and what it says of itself.
struct List<'l, I> {
    items: &'l mut I,
    left: &'l Cell<usize>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Kind,
    Metadata,
    Items,
    #[serde(other)]
    Other,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PageMetadata {
    resource_version: Scalar,
    r#continue: Scalar,
}

impl<'de, I: Items> DeserializeSeed<'de> for List<'_, I> {
    type Value = (Scalar, Option<PageMetadata>);
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, I: Items> Visitor<'de> for List<'_, I> {
    type Value = (Scalar, Option<PageMetadata>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", I::KIND)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let (mut kind, mut metadata) = (Scalar::default(), None);
        while let Some(field) = members.next_key()? {
            match field {
                Field::Kind => kind = members.next_value()?,
                Field::Metadata => metadata = members.next_value()?,
                Field::Items => members.next_value_seed(Elements(List { items: &mut *self.items, left: self.left }))?,
                Field::Other => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        Ok((kind, metadata))
    }
}

/// The items of a list.
struct Elements<'l, I>(List<'l, I>);

/// One of them.
struct Element<'l, I>(&'l mut I);

impl<'de, I: Items> DeserializeSeed<'de> for Elements<'_, I> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, I: Items> Visitor<'de> for Elements<'_, I> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the items of a {}", I::KIND)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let List { items, left } = self.0;
        left.set(MAX_OBJECT);
        while elements.next_element_seed(Element(&mut *items))?.is_some() {
            left.set(MAX_OBJECT)
        }
        Ok(())
    }

    // null
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

impl<'de, I: Items> DeserializeSeed<'de> for Element<'_, I> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        self.0.add(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names(Vec<String>);

    #[derive(Deserialize)]
    struct Named {
        name: String,
    }

    impl Items for Names {
        const KIND: &'static str = "NameList";
        fn add<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error> {
            self.0.push(Named::deserialize(item)?.name);
            Ok(())
        }
    }

    fn listed(json: &str) -> Result<(u64, Option<String>, Vec<String>), String> {
        let mut names = Names(Vec::new());
        let ListMetadata { version, next } =
            each_item(&mut json.as_bytes(), &mut names).map_err(|error| error.to_string())?;
        Ok((version, next, names.0))
    }

    #[test]
    fn a_page_has_items_a_version_and_perhaps_a_successor() {
        let page = r#"{"items":[{"name":"a"},{"name":"b"}],"metadata":{"continue":"t","resourceVersion":"17","x":[]},"kind":"NameList"}"#;
        assert_eq!(listed(page), Ok((17, Some("t".into()), vec!["a".into(), "b".into()])));
        let last = r#"{"kind":"NameList","metadata":{"resourceVersion":"18","continue":""},"items":null,"x":{}}"#;
        assert_eq!(listed(last), Ok((18, None, Vec::new())));
        assert_eq!(listed(r#"{"kind":"NameList","metadata":{"resourceVersion":"x"}}"#), Ok((0, None, Vec::new())));
        assert_eq!(listed(r#"{"kind":"NameList","metadata":null}"#), Ok((0, None, Vec::new())));
    }

    #[test]
    fn what_is_not_a_list_of_this_kind_is_an_error() {
        for (json, want) in [
            (r#"{"metadata":{"resourceVersion":"18"}}"#.to_owned(), "is not a NameList"),
            (r#"{"kind":"Status"}"#.to_owned(), "is not a NameList"),
            (r#"{"kind":"NameList","items":[{"#.to_owned(), "EOF"),
            (r#"{"kind":"NameList"} x"#.to_owned(), "trailing"),
            (
                format!(r#"{{"kind":"NameList","metadata":{{"continue":"{}"}}}}"#, "t".repeat(MAX_TOKEN + 1)),
                "continue has more than",
            ),
        ] {
            let error = listed(&json).unwrap_err();
            assert!(error.contains(want), "{json:.80} gives {error}");
        }
    }

    #[test]
    fn items_have_a_bound_and_lists_have_none() {
        let item = |size: usize| format!(r#"{{"name":"a","x":"{}"}}"#, "x".repeat(size));
        let list = |items: &[String]| format!(r#"{{"kind":"NameList","items":[{}]}}"#, items.join(","));
        let large = item(MAX_OBJECT / 2);
        assert_eq!(listed(&list(&[large.clone(), large.clone(), large])).unwrap().2.len(), 3);
        assert!(listed(&list(&[item(MAX_OBJECT + BUFFER)])).unwrap_err().contains("more than"));
    }
}
