use crate::dispatch::manifest;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::http::{JSON, Reply, request};
use crate::support::namespace::Namespace;
use serde_json::{Value, json};

/// A manifest without a name, which `text` makes different from others.
fn unnamed(text: &str) -> String {
    manifest(json!({"generateName": "k-"}), json!({ "text": text }))
}

fn post(dispatcher: &Dispatcher, headers: &str, body: &str) -> Reply {
    dispatcher.send(request("POST", "/job", &format!("{JSON}{headers}"), body))
}

fn id(reply: &Reply) -> String {
    assert!(reply.code == 201 || reply.code == 200, "{}", reply.json());
    reply.json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_key_makes_one_job_through_any_replica() {
    let namespace = Namespace::new();
    let replicas = [0, 1].map(|_| Dispatcher::for_namespace(&namespace, &[AS_IS]));
    let first = post(&replicas[0], "Idempotency-Key: order-1\r\n", &unnamed("a"));
    assert_eq!(first.code, 201);
    for (replica, header) in [(0, "idempotency-key: order-1\r\n"), (1, "Idempotency-Key: \"order-1\"\r\n")] {
        let again = post(&replicas[replica], header, &unnamed("a"));
        assert_eq!((again.code, id(&again)), (200, id(&first)), "{header:?}");
    }
    let other = post(&replicas[1], "Idempotency-Key: order-1\r\n", &unnamed("b"));
    assert_eq!(other.error(), (422, "IdempotencyKeyReused".into()));
    assert_eq!(namespace.job_names(), [id(&first)]);

    let second = post(&replicas[1], "Idempotency-Key: order-2\r\n", &unnamed("a"));
    assert_eq!(second.code, 201);
    let without = post(&replicas[1], "", &unnamed("a"));
    assert_eq!(without.code, 201);
    // another generateName is another name
    let prefix = manifest(json!({"generateName": "other-"}), json!({}));
    assert_eq!(post(&replicas[1], "Idempotency-Key: order-1\r\n", &prefix).code, 201);
    assert_eq!(namespace.job_names().len(), 4);
}

#[test]
fn many_at_once_with_one_key_make_one_job() {
    let namespace = Namespace::new();
    let replicas = [0, 1].map(|_| Dispatcher::for_namespace(&namespace, &[AS_IS]));
    let codes: Vec<u16> = std::thread::scope(|scope| {
        let post = |number: usize| post(&replicas[number % 2], "Idempotency-Key: same\r\n", &unnamed("a")).code;
        let all: Vec<_> = (0..16).map(|number| scope.spawn(move || post(number))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 200 | 201)), "{codes:?}");
    assert_eq!(namespace.job_names().len(), 1);
}

#[test]
fn a_name_of_the_filter_decides_and_bad_keys_are_named() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    for (name, code) in [("a", 201), ("b", 201), ("a", 200)] {
        let reply = post(&dispatcher, "Idempotency-Key: same\r\n", &manifest(json!({"name": name}), json!({})));
        assert_eq!((reply.code, id(&reply).as_str()), (code, name));
    }
    for (header, says) in [
        ("Idempotency-Key: \r\n", "is empty"),
        ("Idempotency-Key: \"a\r\n", "not a quoted string"),
        ("Idempotency-Key: a\r\nIdempotency-Key: b\r\n", "repeated with different values"),
    ] {
        let reply = post(&dispatcher, header, &unnamed("a"));
        assert_eq!(reply.error(), (400, "BadRequest".into()), "{header:?}");
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("Idempotency-Key") && message.contains(says), "{header:?} gave {message}");
    }
}

#[test]
fn a_filter_can_read_the_key() {
    let filter = r#".metadata.annotations.key = $REQUEST.headers["idempotency-key"]"#;
    let dispatcher = Dispatcher::start(&["--dry-run=client", filter]);
    let shown = post(&dispatcher, "Idempotency-Key: k\r\n", &unnamed("a"));
    assert_eq!(shown.json()["metadata"]["annotations"]["key"], "k");
    let name = |reply: &Reply| reply.json()["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(name(&shown), name(&post(&dispatcher, "Idempotency-Key: \"k\"\r\n", &unnamed("b"))));
}

#[test]
fn ids_of_deliveries_serve_as_keys_where_the_operator_says_so() {
    let shown = |args: &[&str], headers: &str| -> (String, Dispatcher) {
        let dispatcher = Dispatcher::start(&[&["--dry-run=client", AS_IS], args].concat());
        let reply: Value = post(&dispatcher, headers, &unnamed("a")).json();
        (reply["metadata"]["name"].as_str().unwrap().to_owned(), dispatcher)
    };
    let name = |args: &[&str], headers: &str| shown(args, headers).0;
    let of = |headers: &str| name(&["--idempotency-headers=X-GitHub-Delivery,webhook-id, ce-id"], headers);
    let github = "X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958\r\n";
    assert_eq!(of(github), of(github));
    assert_ne!(name(&[], github), name(&[], github), "not without the option");
    assert_eq!(of(&format!("webhook-id: x\r\n{github}")), of(github), "in the operator's order");
    assert_eq!(of(&format!("{github}Idempotency-Key: k\r\n")), of("Idempotency-Key: k\r\n"));
    assert_eq!(of("ce-id: 1\r\nce-source: /a\r\n"), of("ce-source: /a\r\nce-id: 1\r\n"));
    assert_ne!(of("ce-id: 1\r\nce-source: /a\r\n"), of("ce-id: 1\r\nce-source: /b\r\n"));
    let (_, dispatcher) = shown(&["--idempotency-headers=ce-id"], "ce-id: 1\r\n");
    dispatcher.logged("ce-id is ignored as idempotency key: ce-source is missing");
}

#[test]
fn one_delivery_makes_a_job_for_each_path_and_its_retry_finds_it_whatever_the_body() {
    let namespace = Namespace::new();
    let args = [AS_IS, "--idempotency-headers=X-GitHub-Delivery,ce-id"];
    let replicas = [0, 1].map(|_| Dispatcher::for_namespace(&namespace, &args));
    let delivery = format!("{JSON}X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958\r\n");
    let post = |replica: usize, target: &str, headers: &str, body: &str| {
        replicas[replica].send(request("POST", target, headers, body))
    };
    let build = post(0, "/job/build", &delivery, &unnamed("attempt 1"));
    let scan = post(1, "/job/scan", &delivery, &unnamed("attempt 1"));
    assert_eq!((build.code, scan.code), (201, 201), "two hooks of one repository");
    assert_ne!(id(&build), id(&scan));
    let again = post(1, "/job/build", &delivery, &unnamed("attempt 2"));
    assert_eq!((again.code, id(&again)), (200, id(&build)), "a sender that counts its attempts in the body");
    assert_eq!(post(0, "/job/build?x=1", &delivery, &unnamed("attempt 1")).code, 201, "another query");

    // the key of a caller belongs to path and query too, and to one body
    let key = format!("{JSON}Idempotency-Key: k\r\n");
    assert_eq!(post(0, "/job/build", &key, &unnamed("a")).code, 201);
    assert_eq!(post(1, "/job/scan", &key, &unnamed("a")).code, 201);
    assert_eq!(post(1, "/job/build", &key, &unnamed("b")).error(), (422, "IdempotencyKeyReused".into()));

    // a name of the filter decides, and a retry of its delivery is the same request
    let named = |text: &str| manifest(json!({"name": "named"}), json!({ "text": text }));
    assert_eq!(post(0, "/job/x", &delivery, &named("attempt 1")).code, 201);
    assert_eq!(post(1, "/job/x", &delivery, &named("attempt 2")).code, 200);
    assert_eq!(post(1, "/job/x", JSON, &named("attempt 3")).error(), (409, "AlreadyExists".into()));
}

#[test]
fn a_structured_event_is_treated_like_a_binary_one() {
    let namespace = Namespace::new();
    let filter = r#"(.data // .) | .metadata.generateName = "e-""#;
    let args = [filter, "--idempotency-headers=ce-id"];
    let dispatcher = Dispatcher::for_namespace(&namespace, &args);
    let data: Value = serde_json::from_str(&unnamed("a")).unwrap();
    let event =
        |id: &str| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t", "data": data}).to_string();
    let structured = "Content-Type: application/cloudevents+json\r\n";
    let first = dispatcher.send(request("POST", "/job", structured, &event("1")));
    assert_eq!((first.code, first.body.len()), (201, 0), "Knative treats a body that is not an event as a failure");
    assert_eq!(dispatcher.send(request("POST", "/job", structured, &event("1"))).code, 200);
    assert_eq!(dispatcher.send(request("POST", "/job", structured, &event("2"))).code, 201);
    let binary = format!("{JSON}ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\n");
    let same = dispatcher.send(request("POST", "/job", &binary, &data.to_string()));
    assert_eq!((same.code, same.header("Location")), (200, first.header("Location")));
}

#[test]
fn with_a_key_a_random_part_of_the_name_is_the_same_again() {
    let filter = r#".metadata.name = "job-\(cuid2)-\(cuid2)""#;
    let dispatcher = Dispatcher::start(&["--dry-run=client", filter]);
    dispatcher.logged("metadata.name depends on randomness (cuid2)");
    let name = |headers: &str| {
        let reply = post(&dispatcher, headers, r#"{"spec": {}}"#).json();
        reply["metadata"]["name"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    };
    let (first, second) = (name("Idempotency-Key: k\r\n"), name("Idempotency-Key: k\r\n"));
    assert_eq!(first, second);
    let parts: Vec<&str> = first.split('-').collect();
    assert!(parts.len() == 3 && parts[1] != parts[2] && parts[1].len() == 24, "{first}");
    assert_ne!(name("Idempotency-Key: l\r\n"), first);
    assert_ne!(name(""), name(""));
    let checked = crate::support::dispatcher::run(&["--dry-run=client", "--check", filter], &[]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && said.contains("randomness"), "{said}");
}

#[test]
fn a_name_that_the_request_lacks_is_not_replaced_by_a_random_one() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[r#".metadata.name = .order.id"#]);
    for order in [json!({}), json!({"id": null}), json!({"id": ""})] {
        let mut body: Value = serde_json::from_str(&unnamed("a")).unwrap();
        body["order"] = order;
        let reply = post(&dispatcher, "", &body.to_string());
        assert_eq!(reply.error(), (422, "Invalid".into()));
        assert_eq!(reply.json()["error"]["causes"][0]["field"], "metadata.name");
    }
    assert!(namespace.job_names().is_empty());
}

#[test]
fn what_the_api_server_refuses_each_time_is_refused_at_once_and_what_it_clears_is_accepted() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let with = |member: &str, value: Value| {
        let mut body: Value = serde_json::from_str(&manifest(json!({"generateName": "x-"}), json!({}))).unwrap();
        body["metadata"][member] = value;
        body["status"] = json!({});
        post(&dispatcher, "", &body.to_string())
    };
    assert_eq!(with("resourceVersion", json!("7")).error(), (500, "FilterOutput".into()));
    for (member, value) in [
        ("resourceVersion", json!("0")),
        ("resourceVersion", json!("")),
        ("creationTimestamp", Value::Null),
        ("uid", json!("u")),
        ("generation", json!(3)),
        ("selfLink", json!("/x")),
    ] {
        let reply = with(member, value.clone());
        assert_eq!(reply.code, 201, "{member}: {value}: {}", reply.json());
    }
}
