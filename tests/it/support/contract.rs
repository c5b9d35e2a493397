//! Validates every reply that a test receives against `src/openapi.json`.

use super::http::Reply;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Not part of the contract: the page for people.
const PAGE: [&str; 4] = ["/", "/docs", "/docs.js", "/docs.css"];

pub(crate) static CONTRACT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../src/openapi.json")).unwrap());

/// Panics when the reply is none that the contract knows. `asked`: method and target, where one request was sent, and not just bytes or
/// several at once; of those only errors can be checked.
pub(crate) fn check(asked: Option<(&str, &str)>, reply: &Reply) {
    if asked.is_none() && reply.code < 400 {
        return;
    }
    let method = asked.map_or("GET", |(method, _)| method);
    let path = asked.map(|(_, target)| path_of(target));
    if reply.code < 400 && path.as_deref().is_some_and(|path| PAGE.contains(&path)) {
        return;
    }
    let response = documented(method, path.as_deref(), reply.code);
    let response = response.unwrap_or_else(|| panic!("the contract knows no {} for {asked:?}", reply.code));
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let header = resolved(header);
        let given = reply.header(name);
        assert!(given.is_some() || header["required"] != true, "{asked:?}: {} lacks {name}", reply.code);
        let Some(given) = given else { continue };
        let value = if header["schema"]["type"] == "integer" { json!(given.parse::<u64>().ok()) } else { json!(given) };
        validate(&header["schema"], &value);
    }
    let Some(content) = response.get("content") else {
        assert!(reply.body.is_empty(), "{asked:?}: {} has a body that the contract does not know", reply.code);
        return;
    };
    let may_be_empty = method == "POST" && reply.code < 300; // as `Prefer: return=minimal` asks
    if may_be_empty && reply.body.is_empty() && reply.header("Content-Type").is_none() {
        return;
    }
    let media_type = reply.header("Content-Type").unwrap_or_default();
    let body = content.get(media_type).unwrap_or_else(|| panic!("{asked:?}: {} is of type {media_type:?}", reply.code));
    if method != "HEAD" && media_type == "application/json" {
        validate(&body["schema"], &reply.json());
    }
}

/// The path, without query, authority and trailing slashes.
fn path_of(target: &str) -> String {
    let path = target.split('?').next().unwrap();
    let path = path.strip_prefix("http://").map_or(path, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    if path == "/" { path.to_owned() } else { path.trim_end_matches('/').to_owned() }
}

/// The response of the operation; if there is no such operation, the error of this code.
fn documented(method: &str, path: Option<&str>, code: u16) -> Option<&'static Value> {
    let template = path.and_then(|path| match path.split('/').skip(1).collect::<Vec<_>>()[..] {
        ["job"] => Some("/job"),
        ["job", _] => Some("/job/{id}"),
        ["job", _, "log"] if method != "POST" => Some("/job/{id}/log"),
        ["job", ..] => Some("/job/{id}/{path}"),
        _ => CONTRACT["paths"].as_object().unwrap().keys().find(|template| *template == path).map(String::as_str),
    });
    let key = match method {
        "GET" | "HEAD" => "get",
        "POST" => "post",
        "DELETE" => "delete",
        _ => "", // methods are case-sensitive
    };
    let code = code.to_string();
    let operation = template.and_then(|template| CONTRACT["paths"][template].get(key));
    match operation {
        // no method that it knows can be "not allowed": then what was asked is not what was sent
        Some(operation) => operation["responses"].get(&code).map(resolved),
        None => {
            let errors = CONTRACT["components"]["responses"].as_object().unwrap().values();
            errors.into_iter().find(|error| code_of(error).is_some_and(|known| known.to_string() == code))
        }
    }
}

/// The code of an error of the components.
pub(crate) fn code_of(error: &Value) -> Option<u64> {
    let parts = error["content"]["application/json"]["schema"]["allOf"].as_array()?;
    parts[1]["properties"]["error"]["properties"]["code"]["const"].as_u64()
}

fn resolved(value: &'static Value) -> &'static Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => CONTRACT.pointer(reference.strip_prefix('#').unwrap()).expect("references lead somewhere"),
        None => value,
    }
}

fn validate(schema: &'static Value, value: &Value) {
    static VALIDATORS: LazyLock<Mutex<HashMap<usize, &'static Validator>>> = LazyLock::new(Mutex::default);
    let validator = *VALIDATORS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(schema as *const Value as usize)
        .or_insert_with(|| {
            // references of the schema are to the document's components
            let document = json!({"allOf": [schema], "components": CONTRACT["components"]});
            Box::leak(Box::new(jsonschema::draft202012::new(&document).unwrap()))
        });
    if let Err(error) = validator.validate(value) {
        panic!("the contract does not know this: {error}\n{value:#}");
    }
}
