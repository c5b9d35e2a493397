use crate::support::Folder;
use crate::support::dispatcher::{Dispatcher, run};

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_and_version() {
    let help = run(&["--help"], &[]);
    assert_eq!((help.status.code(), stderr(&help).as_str()), (Some(0), ""));
    assert_eq!(String::from_utf8(help.stdout).unwrap(), include_str!("../../src/help.txt"));
    let version = run(&["-V", "--nonsense"], &[]);
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("k8s-job-dispatcher {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn bad_options_and_variables_are_usage_errors() {
    let output = run(&["--port=x", "."], &[("LOG_LEVEL", "loud")]);
    assert_eq!(output.status.code(), Some(2));
    let want = "k8s-job-dispatcher: --port: \"x\" is not a port from 0 to 65535\n\
        k8s-job-dispatcher: LOG_LEVEL: \"loud\" must be error, warn, info, debug, trace or off\n\
        k8s-job-dispatcher: see --help\n";
    assert_eq!(stderr(&output), want);
    let all = run(&["--nope", "--port=x", "nonsense", "--server=https://127.0.0.1:1"], &[]);
    let text = stderr(&all);
    for problem in ["'--nope'", "--port", "token file", "CA file", "undefined filter nonsense"] {
        assert!(text.contains(problem), "{problem} is not in\n{text}");
    }
    let output = run(&["--nope", "--dry-run=client"], &[]);
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (Some(2), "k8s-job-dispatcher: invalid option '--nope'\nk8s-job-dispatcher: see --help\n")
    );
}

#[test]
fn contradictions_are_usage_errors() {
    for (args, says) in [
        (
            &[".", "--from-file=x.jq", "--dry-run=client"][..],
            "there are two filters, --from-file and the argument FILTER",
        ),
        (&[".", "--watch=false", "--enable=list"], "--enable list needs the watch"),
    ] {
        let output = run(args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).starts_with(&format!("k8s-job-dispatcher: {says}")), "{}", stderr(&output));
    }
}

#[test]
fn failures_are_named() {
    let folder = Folder::new();
    let empty = folder.write("empty", "");
    let filter = folder.write("bad.jq", "{\n  a: nope,\n  b: $what\n}");
    let (empty, filter) = (empty.to_str().unwrap(), filter.to_str().unwrap());
    let output = run(
        &["-f", filter, "--server=https://127.0.0.1:1", "--token-file", empty, "--certificate-authority", empty],
        &[],
    );
    assert_eq!(output.status.code(), Some(1));
    let want = format!(
        "k8s-job-dispatcher: token file `{empty}` is empty\n\
        k8s-job-dispatcher: CA file `{empty}` has no certificate\n\
        {filter}:2:6: undefined filter nope\n  a: nope,\n     ^\n\
        {filter}:3:6: undefined variable $what\n  b: $what\n     ^\n"
    );
    assert_eq!(stderr(&output), want);
}

#[test]
fn check_validates_and_exits() {
    let good = run(&["--check", "--dry-run=client", "."], &[]);
    assert_eq!((good.status.code(), stderr(&good).as_str()), (Some(0), ""));
    let default = run(&["--check"], &[]);
    assert_eq!(default.status.code(), Some(0));
    assert!(stderr(&default).contains("WARN  no filter was given"));
    assert_eq!(run(&["--check", "nope"], &[]).status.code(), Some(1));
    let regex = run(&["--check", "--dry-run=client", "test(\"(\")"], &[]);
    assert_eq!(regex.status.code(), Some(1));
    assert!(stderr(&regex).starts_with("<argument>:1:6: invalid regex: "), "{}", stderr(&regex));
    assert_eq!(run(&["--check", ".", "--port=x"], &[]).status.code(), Some(2));
}

#[test]
fn the_first_line_of_the_log_names_the_address() {
    let dispatcher = Dispatcher::start(&["--dry-run=client"]);
    assert!(dispatcher.log()[0].ends_with(&format!("listening on {}", dispatcher.address)));
    dispatcher.logged("no filter was given");
    let digest = "cdb4ee2aea69"; // of the text "."
    let line = Dispatcher::start(&["--dry-run=client", "."]).logged("version ");
    let server = "no API server (dry run: manifests are shown, nothing is called)";
    let want = format!(
        "filter <argument> ({digest}), namespace default, {server}, enabled: nothing, callers: not authenticated"
    );
    assert!(line.ends_with(&format!("version {}, {want}", env!("CARGO_PKG_VERSION"))), "{line}");
}

#[test]
fn modules_are_read_from_the_filters_folder() {
    let folder = Folder::new();
    std::fs::create_dir(folder.0.join("lib")).unwrap();
    folder.write("lib/job.jq", "def job: {metadata: {name: \"from-a-module\"}, spec: {}};");
    let filter = folder.write("main.jq", "import \"lib/job\" as lib; lib::job");
    let dispatcher = Dispatcher::start(&["-f", filter.to_str().unwrap(), "--dry-run=client"]);
    assert_eq!(dispatcher.post("/job", "1").json()["metadata"]["name"], "from-a-module");
}

#[test]
fn the_default_filter_is_configured_by_the_environment() {
    let mut command = crate::support::dispatcher::command(&["--port=0", "--dry-run=client"]);
    command.envs([
        ("JOB_NAME_PREFIX", "run-"),
        ("JOB_IMAGE", "alpine:3"),
        ("JOB_COMMAND", "[\"sh\", \"-c\"]"),
        ("JOB_TTL", "60"),
        ("JOB_RETRIES", "many"),
        ("JOB_KEEP_FOR", ""),
        ("JOB_IMAGE_PULL_SECRET", "registry"),
        ("JOB_ENV_COLOUR", "blue"),
        ("OTHER", "x"),
    ]);
    let dispatcher = Dispatcher::start_command(command);
    let manifest = dispatcher.post("/job", r#"{"id": 7, "args": ["echo hi", 1, {"a": 2}]}"#).json();
    assert_eq!(manifest["metadata"]["name"], "run-7");
    let spec = &manifest["spec"];
    assert_eq!(
        (&spec["activeDeadlineSeconds"], &spec["backoffLimit"], &spec["ttlSecondsAfterFinished"]),
        (&60.into(), &2.into(), &180.into())
    );
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"], serde_json::json!([{"name": "registry"}]));
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "alpine:3");
    assert_eq!(container["command"], serde_json::json!(["sh", "-c"]));
    assert_eq!(container["args"], serde_json::json!(["echo hi", "1", "{\"a\":2}"]));
    assert_eq!(container["env"], serde_json::json!([{"name": "COLOUR", "value": "blue"}]));
}

#[test]
fn a_server_with_an_invalid_port_is_a_usage_error() {
    for server in ["http://host:99999", "http://host:6443x", "http://host:", "https://[::1]:", "http://host:0"] {
        let output = run(&["--check", ".", "--server", server], &[]);
        assert_eq!(output.status.code(), Some(2), "{server}: {}", stderr(&output));
        assert!(stderr(&output).contains("its port is not a number from 1 to 65535"), "{}", stderr(&output));
    }
}

#[test]
fn the_argument_overrides_the_variable_and_the_option_overrides_both() {
    let folder = Folder::new();
    let file = folder.write("f.jq", "{metadata: {name: \"file\"}, spec: {}}");
    let file = file.to_str().unwrap();
    let argument = "{metadata: {name: \"argument\"}, spec: {}}";
    for (args, variable, want, warning) in [
        (vec![argument], file, "argument", Some("the variable FROM_FILE")),
        (vec![], file, "file", None),
        (vec!["-f", file], "/nonexistent", "file", None),
    ] {
        let mut command = crate::support::dispatcher::command(&["--port=0", "--dry-run=client"]);
        command.args(args).env("FROM_FILE", variable);
        let dispatcher = Dispatcher::start_command(command);
        assert_eq!(dispatcher.post("/job", "1").json()["metadata"]["name"], want);
        warning.into_iter().for_each(|words| drop(dispatcher.logged(words)));
    }
}

#[test]
fn an_api_server_that_cannot_be_reached_is_named_with_a_remedy_at_start_and_later() {
    // a port that was free a moment ago
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = format!("http://127.0.0.1:{port}");
    let dispatcher = Dispatcher::start(&[".", "--server", &server]);
    let text = format!("cannot reach {server}: connection refused; is kubectl proxy running?");
    dispatcher.logged(&format!(" WARN  cannot check the dispatcher's access: {text}"));
    assert_eq!(dispatcher.post("/job", r#"{"spec": {}}"#).code, 502);
    dispatcher.logged(&format!("502: {text}"));
    assert_eq!(dispatcher.get("/health/ready").code, 503);
    dispatcher.logged(&format!("not ready: {text}"));
    let at_start = dispatcher.log().iter().filter(|line| line.contains("WARN  cannot check")).count();
    assert_eq!(at_start, 1, "once");
}
