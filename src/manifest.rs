//! From a filter's output to the manifest that is sent: validated, named, and labelled as ours. Pure. Works on JSON text, because a tree
//! would take many times its memory.

use crate::account::Reservation;
use crate::filter::{Member, Output};
use crate::status::{Reason, Status};
use std::ops::Range;

/// Jobs with this label are ours; only they are shown or taken for the result of a dispatch.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "k8s-job-dispatcher";
/// A hash of the request: a repeated request finds its Job.
pub(crate) const FINGERPRINT: &str = "k8s-job-dispatcher/fingerprint";
/// A hash of the id of the delivery that a Job was created for: the same delivery finds its Job, whatever the body.
pub(crate) const DELIVERY: &str = "k8s-job-dispatcher/delivery";
/// Random, one per dispatch: shows whether our own earlier attempt created a Job.
pub(crate) const NONCE: &str = "k8s-job-dispatcher/nonce";

/// The name of the caller that authenticated.
pub(crate) const CALLER: &str = "k8s-job-dispatcher/caller";
/// The caller's trace, for what the Job does to continue it (W3C Trace Context). A filter may set it.
pub(crate) const TRACE_PARENT: &str = "k8s-job-dispatcher/traceparent";

/// A DNS-1123 label. Job names may be longer by the API's rules, but the pods' labels and host names may not.
pub(crate) const MAX_NAME: usize = 63;
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
    /// The same with a suffix from the request's idempotency key.
    Keyed(String),
}

impl Name {
    /// The final name. `random` is used for generated ones.
    pub(crate) fn choose_name(&self, random: u64) -> String {
        match self {
            Name::Given(name) | Name::Keyed(name) => name.clone(),
            Name::Generated(prefix) => with_suffix(prefix.clone(), random),
        }
    }
}

fn with_suffix(mut name: String, mut number: u64) -> String {
    for _ in 0..SUFFIX {
        name.push(char::from(SUFFIX_DIGITS[(number % 36) as usize]));
        number /= 36;
    }
    name
}

/// A valid manifest. Everything but the random part of its name is final.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// As JSON text.
    pub(crate) json: Vec<u8>,
    pub(crate) name: Name,
    /// Where the name is in `json`.
    name_at: Range<usize>,
    /// Memory for a large manifest, until the request is answered.
    pub(crate) reservation: Option<Reservation>,
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
        "{field} is not a DNS-1123 label: up to {MAX_NAME} lower-case letters, digits and '-', beginning and ending with a letter or digit"
    );
    Status::new(Reason::Invalid, message)
}

/// The members of an output that [`check`] looks at.
pub(crate) const MEMBERS: [&[&str]; 16] = [
    &["apiVersion"],
    &["kind"],
    &["spec"],
    &["metadata"],
    &["metadata", "namespace"],
    &["metadata", "name"],
    &["metadata", "generateName"],
    &["metadata", "labels"],
    &["metadata", "annotations"],
    &["metadata", "labels", MANAGED_BY],
    &["metadata", "annotations", FINGERPRINT],
    &["metadata", "annotations", NONCE],
    &["metadata", "annotations", DELIVERY],
    &["metadata", "annotations", CALLER],
    &["metadata", "annotations", TRACE_PARENT],
    &["metadata", "resourceVersion"],
];

/// A member of an output: its place in [`MEMBERS`].
#[derive(Clone, Copy)]
enum At {
    Version,
    Kind,
    Spec,
    Metadata,
    Namespace,
    Name,
    Prefix,
    Labels,
    Annotations,
    Managed,
    Fingerprint,
    Nonce,
    Delivery,
    Caller,
    TraceParent,
    ResourceVersion,
}

const _: () = assert!(At::ResourceVersion as usize + 1 == MEMBERS.len());

fn member(output: &Output, at: At) -> Option<&Member> {
    output.found.get(at as usize)?.as_ref()
}

/// What is written into the annotations, most of it to find the Job by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks<'m> {
    pub(crate) fingerprint: &'m str,
    /// None leaves it out.
    pub(crate) nonce: Option<&'m str>,
    /// None leaves it out.
    pub(crate) delivery: Option<&'m str>,
    /// As JSON. None leaves it out.
    pub(crate) caller: Option<&'m str>,
    /// None, or an annotation of the filter's, leaves it out.
    pub(crate) trace_parent: Option<&'m str>,
}

/// The JSON text of an optional field.
type Json<'j> = Option<&'j [u8]>;

/// The text of a member; null counts as absent, as in Kubernetes.
fn text_of(output: &Output, at: At) -> Json<'_> {
    member(output, at).map(|member| &output.json[member.value.clone()]).filter(|text| *text != b"null")
}

/// Appends the members of the object at `place` but those that are ours, each with a comma before it (`in_front`) or after it. `ours` are
/// in any order.
fn copy_but(out: &mut Vec<u8>, output: &Output, place: Range<usize>, ours: &[At], in_front: bool) {
    let mut ours: Vec<_> = ours.iter().filter_map(|at| Some(member(output, *at)?.whole.clone())).collect();
    ours.sort_by_key(|whole| whole.start);
    let (mut at, end) = (place.start + 1, place.end - 1);
    for next in ours.into_iter().chain(std::iter::once(end..end)) {
        // what is between them begins and ends with the commas beside it, and with no others
        let between = &output.json[at..next.start];
        let between = between.strip_prefix(b",").unwrap_or(between);
        let between = between.strip_suffix(b",").unwrap_or(between);
        if !between.is_empty() {
            if in_front {
                out.push(b',')
            }
            out.extend_from_slice(between);
            if !in_front {
                out.push(b',')
            }
        }
        at = next.end
    }
}

/// Validates the filter's output, and labels it as ours. The fields that we set come first, the rest in the filter's order. `key`: a hash of
/// the request's idempotency key, for a name that the filter does not give.
///
/// Errors: `FilterOutput` for what only the filter's author can mend, `Invalid` for a name, which can come from the body.
pub(crate) fn check(output: &Output, namespace: &str, marks: Marks<'_>, key: Option<u64>) -> Result<Manifest, Status> {
    check_members(output, namespace)?;
    let given = member(output, At::Name).map(|member| &output.json[member.value.clone()]);
    let name = match (name(given, text_of(output, At::Prefix))?, key) {
        (Name::Generated(prefix), Some(key)) => Name::Keyed(with_suffix(prefix, key)),
        (name, _) => name,
    };
    Ok(written(output, name, marks))
}

/// Errors: `FilterOutput`.
fn check_members(output: &Output, namespace: &str) -> Result<(), Status> {
    let text = |at| text_of(output, at);
    if !output.json.starts_with(b"{") {
        return Err(operators_mistake("it is not an object"));
    }
    for (field, at, wanted) in [("apiVersion", At::Version, "batch/v1"), ("kind", At::Kind, "Job")] {
        if text(at).is_some_and(|given| string(given).as_deref() != Some(wanted)) {
            return Err(operators_mistake(format!("its `{field}` is not {wanted:?}")));
        }
    }
    if !text(At::Spec).is_some_and(|spec| spec.starts_with(b"{")) {
        return Err(operators_mistake("it has no object `spec`"));
    }
    for (path, at) in
        [("metadata", At::Metadata), ("metadata.labels", At::Labels), ("metadata.annotations", At::Annotations)]
    {
        if text(at).is_some_and(|text| !text.starts_with(b"{")) {
            return Err(operators_mistake(format!("its `{path}` is not an object")));
        }
    }
    if text(At::Namespace).is_some_and(|theirs| string(theirs).as_deref() != Some(namespace)) {
        return Err(operators_mistake(format!("its `metadata.namespace` is not {namespace:?}")));
    }
    // the API server answers 500 to it, each time; it ignores or clears what else a manifest of an existing Job has
    let given = text(At::ResourceVersion).and_then(string).and_then(|version| version.parse().ok());
    if given.is_some_and(|version: u64| version != 0) {
        return Err(operators_mistake("its `metadata.resourceVersion` is set, which is for updates"));
    }
    Ok(())
}

/// The manifest of a valid output.
fn written(output: &Output, name: Name, marks: Marks<'_>) -> Manifest {
    let drawn = name.choose_name(0);
    let mut json = Vec::with_capacity(output.json.len() + 512);
    let copy_members = |json: &mut Vec<u8>, at: At, ours: &[At], in_front| {
        if text_of(output, at).is_some()
            && let Some(member) = member(output, at)
        {
            copy_but(json, output, member.value.clone(), ours, in_front)
        }
    };
    let add =
        |json: &mut Vec<u8>, parts: &[&str]| parts.iter().for_each(|part| json.extend_from_slice(part.as_bytes()));
    add(&mut json, &[r#"{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":""#]);
    let name_at = json.len()..json.len() + drawn.len();
    add(&mut json, &[&drawn, r#"","labels":{"#]);
    copy_members(&mut json, At::Labels, &[At::Managed], false);
    add(&mut json, &["\"", MANAGED_BY, "\":\"", MANAGER, r#""},"annotations":{"#]);
    copy_members(&mut json, At::Annotations, &[At::Fingerprint, At::Nonce, At::Delivery, At::Caller], false);
    add(&mut json, &["\"", FINGERPRINT, "\":\"", marks.fingerprint, "\""]);
    let trace_parent = marks.trace_parent.filter(|_| member(output, At::TraceParent).is_none());
    for (annotation, value) in [(NONCE, marks.nonce), (DELIVERY, marks.delivery), (TRACE_PARENT, trace_parent)] {
        if let Some(value) = value {
            add(&mut json, &[",\"", annotation, "\":\"", value, "\""])
        }
    }
    if let Some(caller) = marks.caller {
        add(&mut json, &[",\"", CALLER, "\":", caller])
    }
    json.push(b'}');
    copy_members(&mut json, At::Metadata, &[At::Name, At::Prefix, At::Labels, At::Annotations], true);
    json.push(b'}');
    copy_but(&mut json, output, 0..output.json.len(), &[At::Version, At::Kind, At::Metadata], true);
    json.push(b'}');
    Manifest { json, name, name_at, reservation: None }
}

/// The string that this JSON text is; None if it is something else.
fn string(json: &[u8]) -> Option<String> {
    serde_json::from_slice(json).ok()
}

/// From the JSON of name and generateName. In Kubernetes, a generateName of "" counts as absent. So does a name; but here a name that is null or
/// empty is one that the request lacks, and a random one in its place would make a Job for each repetition.
fn name(name: Json<'_>, prefix: Json<'_>) -> Result<Name, Status> {
    let given = |json: Json<'_>| json.filter(|json| *json != b"\"\"").map(string);
    if let Some(name) = name {
        if matches!(name, b"null" | b"\"\"") {
            let message = "metadata.name is null or empty; only a filter that leaves it out gets a random name";
            return Err(Status::new(Reason::Invalid, message).with_cause("metadata.name", "FieldValueRequired"));
        }
        return match string(name) {
            Some(name) if is_label(&name) => Ok(Name::Given(name)),
            _ => Err(invalid_name("metadata.name").with_cause("metadata.name", "FieldValueInvalid")),
        };
    }
    let prefix = match given(prefix) {
        None => DEFAULT_PREFIX.to_owned(),
        Some(Some(mut prefix)) => {
            prefix.truncate(prefix.floor_char_boundary(MAX_PREFIX));
            prefix
        }
        Some(None) => String::new(), // not a string: rejected below
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
    /// Chooses a final name and writes it in place: all names have the same length.
    pub(crate) fn choose_name(&mut self, random: u64) -> String {
        let name = self.name.choose_name(random);
        self.json[self.name_at.clone()].copy_from_slice(name.as_bytes());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn checked(output: Value) -> Result<Manifest, Status> {
        let marks = Marks { fingerprint: "f", nonce: Some("n"), ..Marks::default() };
        check(&Output::of(&output.to_string(), &MEMBERS), "ns", marks, None)
    }

    fn refusal(output: Value) -> (u16, String) {
        let status = checked(output).unwrap_err();
        (status.code(), status.message)
    }

    #[test]
    fn missing_fields_are_filled_in_and_our_marks_are_set() {
        let mut manifest = checked(json!({
            "metadata": {"generateName": "x-", "name": "a", "labels": {MANAGED_BY: "me", "b": "c"}, "annotations": {NONCE: "mine", DELIVERY: "mine"}},
            "spec": {"x": 1},
        }))
        .unwrap();
        assert_eq!((manifest.name.clone(), manifest.choose_name(5)), (Name::Given("a".into()), "a".into()));
        let want = r#"{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"a","labels":{"b":"c","app.kubernetes.io/managed-by":"k8s-job-dispatcher"},"annotations":{"k8s-job-dispatcher/fingerprint":"f","k8s-job-dispatcher/nonce":"n"}},"spec":{"x":1}}"#;
        assert_eq!(String::from_utf8(manifest.json).unwrap(), want);
        let shown_of = |output: &str, marks| {
            let json = check(&Output::of(output, &MEMBERS), "ns", marks, None).unwrap().json;
            String::from_utf8(json).unwrap()
        };
        let shown = [Marks::default(), Marks { delivery: Some("d"), trace_parent: Some("t"), ..Marks::default() }]
            .map(|marks| shown_of("{\"spec\":{}}", marks));
        assert!([NONCE, DELIVERY, TRACE_PARENT].iter().all(|mark| !shown[0].contains(mark)), "{}", shown[0]);
        let want = r#""k8s-job-dispatcher/delivery":"d","k8s-job-dispatcher/traceparent":"t""#;
        assert!(shown[1].contains(want), "{}", shown[1]);
        let of_the_filter = format!(r#"{{"metadata":{{"annotations":{{"{TRACE_PARENT}":"its"}}}},"spec":{{}}}}"#);
        let shown = shown_of(&of_the_filter, Marks { trace_parent: Some("t"), ..Marks::default() });
        assert!(shown.contains(&format!(r#""{TRACE_PARENT}":"its""#)) && shown.matches(TRACE_PARENT).count() == 1);
    }

    #[test]
    fn names_are_final_before_the_first_post() {
        let name = |metadata: Value| checked(json!({"metadata": metadata, "spec": {}})).map(|manifest| manifest.name);
        assert_eq!(name(Value::Null).unwrap(), Name::Generated("job-".into()));
        assert_eq!(name(json!({"generateName": null})).unwrap(), Name::Generated("job-".into()));
        for empty in [json!(""), json!(null)] {
            let status = name(json!({"name": empty, "generateName": "x-"})).unwrap_err();
            let cause = (status.causes[0].field.as_deref(), status.causes[0].reason.as_deref());
            assert_eq!((status.code(), cause), (422, (Some("metadata.name"), Some("FieldValueRequired"))), "{empty}");
        }
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
            (json!([1]), "it is not an object"),
            (json!({}), "it has no object `spec`"),
            (json!({"spec": 1}), "it has no object `spec`"),
            (json!({"apiVersion": "v1", "spec": {}}), "its `apiVersion` is not \"batch/v1\""),
            (json!({"kind": "Pod", "spec": {}}), "its `kind` is not \"Job\""),
            (json!({"metadata": 1, "spec": {}}), "its `metadata` is not an object"),
            (json!({"metadata": {"labels": []}, "spec": {}}), "its `metadata.labels` is not an object"),
            (json!({"metadata": {"annotations": ""}, "spec": {}}), "its `metadata.annotations` is not an object"),
            (json!({"metadata": {"namespace": "other"}, "spec": {}}), "its `metadata.namespace` is not \"ns\""),
            (
                json!({"metadata": {"resourceVersion": "17"}, "spec": {}}),
                "its `metadata.resourceVersion` is set, which is for updates",
            ),
        ] {
            assert_eq!(refusal(output), (500, format!("the filter's output cannot be sent: {says}")));
        }
        for good in [
            json!({"namespace": "ns"}),
            json!({"resourceVersion": "0"}),
            json!({"resourceVersion": ""}),
            json!({"creationTimestamp": null, "uid": "u", "generation": 3}),
        ] {
            assert!(checked(json!({"metadata": good, "spec": {}, "status": {}})).is_ok(), "{good}");
        }
    }
}
