use crate::support::contract::{CONTRACT, check, code_of};
use crate::support::dispatcher::Dispatcher;
use crate::support::http::Reply;
use crate::support::namespace::Namespace;
use serde_json::{Value, json};

fn reply(code: u16, body: Value) -> Reply {
    let headers = [("X-Request-Id", "a"), ("Content-Type", "application/json"), ("Location", "job/a")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Reply { code, headers, body: body.to_string().into_bytes() }
}

fn is_refused(asked: (&str, &str), reply: &Reply) -> bool {
    std::panic::catch_unwind(|| check(Some(asked), reply)).is_err()
}

#[test]
fn the_check_of_replies_finds_errors() {
    let post = ("POST", "/job");
    let whole = |change: Value| {
        let mut object = json!({"id": "a", "state": "waiting", "status": {}});
        object.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        object
    };
    assert!(!is_refused(post, &reply(201, whole(json!({})))));
    let wrongs =
        [json!({"id": 1}), json!({"id": "A"}), json!({"x": 1}), json!({"state": "lost"}), json!({"created": 1})];
    for wrong in wrongs.map(whole).into_iter().chain([json!({}), json!([]), json!({"id": "a"})]) {
        assert!(is_refused(post, &reply(201, wrong.clone())), "{wrong}");
    }
    let error =
        |code: u16, reason: &str| reply(code, json!({"error": {"code": code, "reason": reason, "message": "m"}}));
    assert!(!is_refused(post, &error(409, "AlreadyExists")));
    assert!(is_refused(post, &error(409, "NotFound")), "a reason of another code");
    assert!(is_refused(post, &error(429, "QuotaExceeded")), "without Retry-After");
    assert!(is_refused(post, &error(402, "PaymentRequired")), "a code that is not there");
    assert!(is_refused(("GET", "/job/a"), &error(429, "QuotaExceeded")), "a code of another operation");
    assert!(is_refused(("GET", "/job/a"), &reply(204, json!({}))));
}

#[test]
fn openapi_is_served_and_has_every_code() {
    let dispatcher = Dispatcher::start(&["--dry-run=client", "--enable=delete,list,logs,pods"]);
    let served = dispatcher.get("/openapi.json");
    assert_eq!((served.code, served.json()), (200, CONTRACT.clone()));
    assert_eq!(CONTRACT["info"]["version"], env!("CARGO_PKG_VERSION"));

    let page = include_str!("../../docs/http.md");
    let known = CONTRACT["components"]["responses"].as_object().unwrap();
    let mut rows = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit()))
    {
        let cells: Vec<&str> = row.split(" | ").collect();
        let (code, word) = (cells[0].trim_start_matches("| ").parse().unwrap(), cells[1].trim_matches('`'));
        let knows = |error: &Value| {
            let parts = &error["content"]["application/json"]["schema"]["allOf"][1];
            let reason = &parts["properties"]["error"]["properties"]["reason"];
            reason["const"] == word || reason["enum"].as_array().is_some_and(|words| words.contains(&json!(word)))
        };
        let has_word = known.values().any(|error| code_of(error) == Some(code) && knows(error));
        assert!(has_word, "the contract lacks {code} {word}");
        rows += 1;
    }
    assert_eq!(rows, 30);
}

/// Whatever is switched on: what is off is absent from OpenAPI, and no `Allow` has it.
#[test]
fn allow_lists_the_methods_of_openapi_and_head() {
    for enabled in ["", "delete", "list", "logs", "pods", "delete,list,logs,pods"] {
        let mut command = crate::support::dispatcher::command(&["--port=0", "--dry-run=client"]);
        command.env("ENABLE", enabled);
        allow_lists_the_methods_of(&Dispatcher::start_command(command))
    }
}

fn allow_lists_the_methods_of(dispatcher: &Dispatcher) {
    let contract = dispatcher.get("/openapi.json").json();
    for (template, item) in contract["paths"].as_object().unwrap() {
        let path = template.replace("{id}", "a").replace("{path}", "b");
        let mut methods: Vec<String> = item.as_object().unwrap().keys().map(|key| key.to_uppercase()).collect();
        methods.retain(|method| method != "PARAMETERS");
        if methods.contains(&"GET".to_owned()) {
            methods.push("HEAD".to_owned())
        }
        methods.sort_unstable();
        let reply = dispatcher.send(crate::support::http::request("PUT", &path, "", ""));
        assert_eq!((reply.code, reply.header("Allow")), (405, Some(methods.join(", ").as_str())), "{path}");
    }
}

#[test]
#[ignore = "tests/contract installs schemathesis and runs this"]
fn schemathesis_finds_no_error() {
    let namespace = Namespace::with(json!({}), &["create", "get", "list", "watch", "delete"]);
    namespace.allow_too(&[("", "pods", "list"), ("", "pods/log", "get")]);
    // it waits for Jobs that never end
    let dispatcher = Dispatcher::for_namespace(&namespace, &["--max-wait=100ms", "--enable=delete,list,logs,pods"]);
    let url = format!("http://{}/openapi.json", dispatcher.address);
    let program = std::env::var("SCHEMATHESIS").expect("SCHEMATHESIS names the program: run tests/contract");
    // it repeats itself until its time is over
    let output = std::process::Command::new(program)
        .args(["run", &url, "--checks=all", "--max-time=100", "--request-timeout=20", "--no-color"])
        .current_dir(&namespace.folder.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let made = namespace.job_names().len();
    assert!(made > 100, "it has made {made} Jobs only:\n{said}");
}
