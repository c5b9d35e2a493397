//! Golden cases: each folder in `tests/cases` is a filter, a request, and the manifest or error that comes of it. `UPDATE=1 cargo test`
//! rewrites what comes of it; git shows the difference.

use super::*;
use crate::http::Reply;
use crate::route::route;
use crate::{cli, config};
use serde::Deserialize;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// `request.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Path and query.
    target: String,
    #[serde(default)]
    headers: Map<String, Value>,
    /// As JSON, or as text for what is none.
    body: Option<Value>,
    text: Option<String>,
    /// The name of a caller that has authenticated.
    caller: Option<String>,
}

fn config(folder: &Path) -> Config {
    let mut argv = vec![OsString::from("--dry-run=client")];
    let filter = folder.join("filter.jq");
    if filter.exists() {
        argv.extend([OsString::from("--from-file"), filter.into()]);
    }
    let cli::Command::Run(args) = cli::parse(argv) else { panic!("our own arguments are good") };
    config::load(&args, &|_| None).unwrap_or_else(|problems| panic!("{}: {problems:?}", folder.display()))
}

/// As the parser makes it.
fn request(case: &Case) -> Request {
    let mut request = Request::default();
    let mut add = |text: &str| {
        let start = request.bytes.len();
        request.bytes.extend(text.as_bytes());
        start..request.bytes.len()
    };
    let (path, query) = case.target.split_once('?').unwrap_or((&case.target, ""));
    let (method, path, query) = (add("POST"), add(path), add(query));
    let mut headers = vec![(add("content-type"), add("application/json"))];
    for (name, value) in &case.headers {
        headers.push((add(name), add(value.as_str().unwrap())))
    }
    (request.method_len, request.path, request.query, request.headers) = (method.len(), path, query, headers);
    request.head_len = request.bytes.len();
    let body = case.text.clone().or_else(|| case.body.as_ref().map(Value::to_string));
    request.bytes.extend(body.unwrap_or_default().as_bytes());
    request
}

fn outcome(folder: &Path) -> Result<Value, Value> {
    let text = std::fs::read_to_string(folder.join("request.json")).unwrap();
    let case: Case = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let (config, request) = (config(folder), request(&case));
    let caller = case.caller.as_deref().map(Caller::named);
    let until = Instant::now() + Duration::from_secs(60);
    let json = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap();
    let planned = route(&request, config.enabled).and_then(|route| {
        match plan(&config, &route, &request, caller.as_ref(), until)? {
            Plan::Ready(work) => Ok(work),
            // frames of the stack are large in a debug build
            Plan::NeedsLargeRun(begun) => {
                let Route::Dispatch(path) = &route else { panic!("{route:?} has no filter") };
                plan_large(&config, path, &request, caller.as_ref(), begun, until)
            }
        }
    });
    match planned.map(|work| work.dispatch) {
        Ok(Dispatch::Create(Creation { mut manifest, .. })) => {
            manifest.choose_name(0);
            Ok(json(&manifest.json))
        }
        Ok(Dispatch::Nothing) => Ok(Value::Null),
        Ok(other) => panic!("{}: a POST became {other:?}", folder.display()),
        Err(status) => Err(json(&Reply::from(status).body)),
    }
}

/// What is wrong with the case, if something is.
fn compare(folder: &Path, got: &Result<Value, Value>) -> Option<String> {
    let [want, want_error] = ["want.json", "want-error.json"].map(|name| folder.join(name));
    let (file, other, got) = match got {
        Ok(manifest) => (want, want_error, manifest),
        Err(error) => (want_error, want, error),
    };
    let pretty = serde_json::to_string_pretty(got).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &pretty).unwrap();
        let _ = std::fs::remove_file(&other);
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    let name = folder.display();
    if other.exists() {
        return Some(format!("{name} wants {}, and got:\n{pretty}", other.display()));
    }
    (wanted != pretty).then(|| format!("{name} wants:\n{wanted}\nand got:\n{pretty}"))
}

fn cases() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

#[test]
fn golden_cases() {
    let run = || {
        let cases = cases();
        assert!(cases.len() >= 10, "there are cases");
        cases.iter().filter_map(|folder| compare(folder, &outcome(folder))).collect::<Vec<_>>()
    };
    let thread = std::thread::Builder::new().stack_size(crate::filter::LARGE_RUN_STACK).spawn(run).unwrap();
    let wrong = thread.join().unwrap();
    assert!(wrong.is_empty(), "{}\nUPDATE=1 rewrites them", wrong.join("\n"));
}

#[test]
fn a_wrong_outcome_is_found() {
    if std::env::var_os("UPDATE").is_none() {
        let folder = &cases()[0];
        assert!(compare(folder, &Ok(json!({"wrong": true}))).is_some());
        assert!(compare(folder, &Err(json!({"wrong": true}))).is_some());
    }
}

#[test]
fn fingerprints_tell_requests_apart() {
    let all = [
        ("/job", "", "{}"),
        ("/job/a", "", "{}"),
        ("/job", "a", "{}"),
        ("/job", "", "[]"),
        ("/joba", "", "{}"),
        ("/job", "a{", "}"),
    ];
    let mut seen: Vec<_> = all.iter().map(|(path, query, body)| fingerprint(path, query, body.as_bytes())).collect();
    assert!(seen.iter().all(|mark| mark.len() == 67 && mark.starts_with("v2:")));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all.len());
}
