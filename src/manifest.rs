//! From a filter's output to the manifest that is sent: validated, named, and labelled as ours. Pure.

use crate::status::{Reason, Status};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Jobs with this label are ours; only they are shown or taken for the result of a dispatch.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "k8s-job-dispatcher";
/// SHA-256 of the request, in hex: a repeated request finds its Job.
pub(crate) const FINGERPRINT: &str = "k8s-job-dispatcher/fingerprint";
/// Random, one per dispatch: tells whether our own earlier attempt created a Job.
pub(crate) const NONCE: &str = "k8s-job-dispatcher/nonce";

/// A DNS-1123 label. Job names may be longer by the API's rules, but the pods' labels and host names may not.
const MAX_NAME: usize = 63;
/// Random characters behind a generated name: 36^10 names, so that with a million Jobs in a namespace one in seven thousand chooses twice.
const SUFFIX: usize = 10;
const SUFFIX_DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// With the suffix 62, within [`MAX_NAME`].
const MAX_PREFIX: usize = 52;
const DEFAULT_PREFIX: &str = "job-";

/// What the filter decided about the name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Name {
    /// `metadata.name`.
    Given(String),
    /// `metadata.generateName`, cut so that the random suffix fits.
    Generated(String),
}

impl Name {
    /// The final name. `random` is used for generated ones.
    pub(crate) fn choose_name(&self, random: u64) -> String {
        match self {
            Name::Given(name) => name.clone(),
            Name::Generated(prefix) => {
                let mut name = prefix.clone();
                let mut rest = random;
                for _ in 0..SUFFIX {
                    name.push(char::from(SUFFIX_DIGITS[(rest % 36) as usize]));
                    rest /= 36;
                }
                name
            }
        }
    }
}

/// A checked manifest. Everything in it but name and nonce is final.
#[derive(Debug)]
pub(crate) struct Manifest {
    object: Map<String, Value>,
    pub(crate) name: Name,
}

/// Whether this is a DNS-1123 label of at most 63 characters.
pub(crate) fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= MAX_NAME
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.is_empty()
}

pub(crate) fn operators_mistake(what: impl std::fmt::Display) -> Status {
    let message = format!("the filter's output cannot be sent: {what}");
    Status::new(Reason::FilterOutput, message.clone()).with_note(message)
}

fn invalid_name(field: &str) -> Status {
    let message = format!(
        "{field} is not a DNS-1123 label: at most {MAX_NAME} of lower-case letters, digits and '-', beginning and ending with a letter or digit"
    );
    Status::new(Reason::Invalid, message)
}

/// Checks the filter's output, and marks it as ours.
///
/// Errors: `FilterOutput` for what only the filter's author can mend, `Invalid` for a name, which can come from the body.
pub(crate) fn check(output: &[u8], namespace: &str, fingerprint: &str) -> Result<Manifest, Status> {
    let mut deserializer = serde_json::Deserializer::from_slice(output);
    deserializer.disable_recursion_limit(); // the filter's values have a bound of their own
    let value = Value::deserialize(&mut deserializer).map_err(operators_mistake)?;
    let Value::Object(mut object) = value else { return Err(operators_mistake("it is no object")) };
    default_to(&mut object, "apiVersion", "batch/v1")?;
    default_to(&mut object, "kind", "Job")?;
    if !object.contains_key("metadata") {
        object.shift_insert(2, "metadata".to_owned(), Value::Null); // where people look for it
    }
    if !object.get("spec").is_some_and(Value::is_object) {
        return Err(operators_mistake("it has no object `spec`"));
    }
    let metadata = object_in(&mut object, "metadata", "metadata")?;
    match metadata.get("namespace") {
        None | Some(Value::Null) => (),
        Some(Value::String(theirs)) if theirs == namespace => (),
        Some(_) => return Err(operators_mistake(format!("its `metadata.namespace` is not {namespace:?}"))),
    }
    let name = name(metadata)?;
    object_in(metadata, "labels", "metadata.labels")?.insert(MANAGED_BY.into(), MANAGER.into());
    let annotations = object_in(metadata, "annotations", "metadata.annotations")?;
    annotations.shift_remove(NONCE);
    annotations.insert(FINGERPRINT.into(), fingerprint.into());
    Ok(Manifest { object, name })
}

fn default_to(object: &mut Map<String, Value>, field: &str, wanted: &str) -> Result<(), Status> {
    match object.get(field) {
        Some(Value::String(given)) if given == wanted => Ok(()),
        None | Some(Value::Null) => {
            object.shift_remove(field);
            let at = if field == "kind" { 1 } else { 0 }; // where people look for it
            object.shift_insert(at.min(object.len()), field.to_owned(), wanted.into());
            Ok(())
        }
        Some(_) => Err(operators_mistake(format!("its `{field}` is not {wanted:?}"))),
    }
}

/// The object in `field`, made if there is none.
fn object_in<'m>(
    parent: &'m mut Map<String, Value>,
    field: &str,
    path: &str,
) -> Result<&'m mut Map<String, Value>, Status> {
    let value = parent.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().ok_or_else(|| operators_mistake(format!("its `{path}` is no object")))
}

/// Takes name and generateName out of the metadata. Kubernetes takes null and "" for absent.
fn name(metadata: &mut Map<String, Value>) -> Result<Name, Status> {
    let mut take = |field| metadata.shift_remove(field).filter(|value| !value.is_null() && value != "");
    let (name, prefix) = (take("name"), take("generateName"));
    if let Some(name) = name {
        return match name {
            Value::String(name) if is_label(&name) => Ok(Name::Given(name)),
            _ => Err(invalid_name("metadata.name").with_cause("metadata.name", "FieldValueInvalid")),
        };
    }
    let prefix = match prefix {
        None => DEFAULT_PREFIX.to_owned(),
        Some(Value::String(mut prefix)) => {
            prefix.truncate(prefix.floor_char_boundary(MAX_PREFIX));
            prefix
        }
        Some(_) => String::new(), // not a text, so refused below
    };
    if prefix.is_empty() || !is_label(&format!("{prefix}0")) {
        let status = invalid_name("a name made of metadata.generateName");
        return Err(status
            .with_cause("metadata.generateName", "FieldValueInvalid")
            .with_cause("metadata.name", "FieldValueInvalid"));
    }
    Ok(Name::Generated(prefix))
}

impl Manifest {
    /// The manifest as JSON, with its final name.
    pub(crate) fn to_json_with_name(&mut self, name: &str, nonce: Option<&str>) -> Vec<u8> {
        if let Some(Value::Object(metadata)) = self.object.get_mut("metadata") {
            metadata.shift_insert(0, "name".to_owned(), name.into());
            if let (Some(nonce), Some(Value::Object(annotations))) = (nonce, metadata.get_mut("annotations")) {
                annotations.insert(NONCE.to_owned(), nonce.into());
            }
        }
        serde_json::to_vec(&self.object).unwrap_or_default() // an object with text keys always has a text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(output: Value) -> Result<Manifest, Status> {
        check(output.to_string().as_bytes(), "ns", "f")
    }

    fn refusal(output: Value) -> (u16, String) {
        let status = checked(output).unwrap_err();
        (status.code(), status.message)
    }

    #[test]
    fn missing_fields_are_filled_in_and_our_marks_are_set() {
        let mut manifest = checked(json!({
            "metadata": {"generateName": "x-", "name": "a", "labels": {MANAGED_BY: "me", "b": "c"}, "annotations": {NONCE: "mine"}},
            "spec": {"x": 1},
        }))
        .unwrap();
        assert_eq!(manifest.name, Name::Given("a".into()));
        let want = r#"{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"a","labels":{"app.kubernetes.io/managed-by":"k8s-job-dispatcher","b":"c"},"annotations":{"k8s-job-dispatcher/fingerprint":"f"}},"spec":{"x":1}}"#;
        assert_eq!(String::from_utf8(manifest.to_json_with_name("a", None)).unwrap(), want);
        let sent: Value = serde_json::from_slice(&manifest.to_json_with_name("a", Some("n"))).unwrap();
        assert_eq!(sent["metadata"]["annotations"], json!({FINGERPRINT: "f", NONCE: "n"}));
    }

    #[test]
    fn names_are_final_before_the_first_post() {
        let name = |metadata: Value| checked(json!({"metadata": metadata, "spec": {}})).map(|manifest| manifest.name);
        assert_eq!(name(Value::Null).unwrap(), Name::Generated("job-".into()));
        assert_eq!(name(json!({"name": "", "generateName": null})).unwrap(), Name::Generated("job-".into()));
        let long = "x".repeat(80);
        assert_eq!(name(json!({"generateName": long})).unwrap(), Name::Generated("x".repeat(52)));
        assert_eq!(Name::Generated("x-".into()).choose_name(35 + 36), "x-z100000000");
        for bad in ["A", "a.b", "-a", "a-", "ä", &"a".repeat(64)] {
            let status = name(json!({"name": bad})).unwrap_err();
            assert_eq!((status.code(), status.causes[0].field.as_deref()), (422, Some("metadata.name")), "{bad}");
        }
        assert_eq!(name(json!({"name": 5})).unwrap_err().code(), 422);
        assert_eq!(name(json!({"generateName": "A-"})).unwrap_err().code(), 422);
        assert_eq!(name(json!({"generateName": 5})).unwrap_err().code(), 422);
    }

    #[test]
    fn bad_filter_outputs_are_named() {
        for (output, says) in [
            (json!([1]), "it is no object"),
            (json!({}), "it has no object `spec`"),
            (json!({"spec": 1}), "it has no object `spec`"),
            (json!({"apiVersion": "v1", "spec": {}}), "its `apiVersion` is not \"batch/v1\""),
            (json!({"kind": "Pod", "spec": {}}), "its `kind` is not \"Job\""),
            (json!({"metadata": 1, "spec": {}}), "its `metadata` is no object"),
            (json!({"metadata": {"labels": []}, "spec": {}}), "its `metadata.labels` is no object"),
            (json!({"metadata": {"annotations": ""}, "spec": {}}), "its `metadata.annotations` is no object"),
            (json!({"metadata": {"namespace": "other"}, "spec": {}}), "its `metadata.namespace` is not \"ns\""),
        ] {
            assert_eq!(refusal(output), (500, format!("the filter's output cannot be sent: {says}")));
        }
        assert!(checked(json!({"metadata": {"namespace": "ns"}, "spec": {}})).is_ok());
    }
}
