use super::*;
use crate::cli;
use std::collections::HashMap;
use std::net::Ipv6Addr;

const NO_FOLDER: &str = "/nonexistent/serviceaccount";

fn loaded(argv: &[&str], environment: &[(&str, &str)]) -> Result<Config, Problems> {
    let cli::Command::Run(args) = cli::parse(argv.iter().map(OsString::from)) else { panic!("{argv:?}") };
    let environment: HashMap<_, _> =
        environment.iter().map(|(name, value)| (name.to_string(), OsString::from(value))).collect();
    // never those of the machine
    let folder = ("SERVICE_ACCOUNT_FOLDER".to_owned(), OsString::from(NO_FOLDER));
    let environment: HashMap<_, _> = [folder].into_iter().chain(environment).collect();
    load(&args, &|name| environment.get(name).cloned())
}

fn config(argv: &[&str], environment: &[(&str, &str)]) -> Config {
    loaded(argv, environment).unwrap_or_else(|problems| panic!("{argv:?} {environment:?} gave {problems:?}"))
}

fn usage(argv: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
    loaded(argv, environment).unwrap_err().usage
}

#[test]
fn durations() {
    let ms = |text| duration(text).map(|duration| duration.as_millis());
    for (text, want) in
        [("30", 30_000), ("30s", 30_000), ("500ms", 500), ("1m30s", 90_000), ("2h", 7_200_000), ("0s", 0)]
    {
        assert_eq!(ms(text), Some(want), "{text}");
    }
    for bad in ["", "s", "1x", "-1s", "1.5s", "1m30", "99999999999s", " 1s"] {
        assert_eq!(ms(bad), None, "{bad}");
    }
}

#[test]
fn defaults_on_a_laptop_and_in_a_cluster() {
    let here = config(&["."], &[]);
    assert_eq!((here.listen, here.port), (Listen::Ip(Ipv4Addr::LOCALHOST.into()), 8000));
    assert_eq!((here.namespace.as_str(), here.dry_run, here.log.level), ("default", DryRun::None, LevelFilter::Info));
    assert_eq!(here.api_server.unwrap().base(), "http://127.0.0.1:8001");
    assert_eq!((here.max_body_bytes, here.max_connections), (2097152, 1024));
    assert_eq!((here.request_timeout, here.shutdown_delay), (Duration::from_secs(15), Duration::ZERO));
    assert_eq!(here.warnings, [""; 0]);

    let cluster = [("KUBERNETES_SERVICE_HOST", "fd00::1"), ("KUBERNETES_SERVICE_PORT", "443")];
    assert_eq!(config(&[".", "--dry-run=client"], &cluster).listen, Listen::All);
    let failed = loaded(&["."], &cluster).unwrap_err().failed;
    assert!(failed[0].starts_with("cannot read token file `/nonexistent/serviceaccount/token`"), "{failed:?}");
    assert!(
        failed[0].ends_with("see --token-file") && failed[1].ends_with("see --certificate-authority"),
        "{failed:?}"
    );
}

#[test]
fn the_command_line_wins_and_empty_counts_as_unset() {
    let port = |argv: &[&str], value| config(argv, &[("PORT", value)]).port;
    assert_eq!(port(&["."], "1"), 1);
    assert_eq!(port(&[".", "-p2"], "1"), 2);
    assert_eq!(port(&["."], ""), 8000);
    assert_eq!(
        config(&[".", "--log-level=DeBuG", "--listen-address", "[::1]"], &[]).listen,
        Listen::Ip(Ipv6Addr::LOCALHOST.into())
    );
    assert_eq!(config(&["."], &[("MAX_FILTER_TIME", "1m"), ("DRY_RUN", "server")]).dry_run, DryRun::Server);
}

#[test]
fn all_bad_values_are_reported_together() {
    let problems = usage(
        &[".", "--port=x", "--dry-run=maybe", "--server=ftp://x", "-n", "A", "--request-timeout=0s"],
        &[("LOG_LEVEL", "loud"), ("LISTEN_ADDRESS", "here"), ("MAX_BODY_BYTES", "26214401"), ("MAX_CONNECTIONS", "0")],
    );
    let want = [
        "LISTEN_ADDRESS: \"here\" must be an IP address or all",
        "--port: \"x\" is not a port from 0 to 65535",
        "LOG_LEVEL: \"loud\" must be error, warn, info, debug, trace or off",
        "--dry-run: \"maybe\" must be none, client or server",
        "MAX_BODY_BYTES: \"26214401\" is not a number from 1 to 26214400",
        "MAX_CONNECTIONS: \"0\" is not a number from 1 to 1048576",
        "--request-timeout: \"0s\" is not between 1ms and 24h",
        "--namespace: \"A\" is not a DNS-1123 label",
        "--server: \"ftp://x\" is not a URL of an API server: it must begin with http:// or https://",
    ];
    assert_eq!(problems, want);
}

#[test]
fn usage_errors_and_failures_are_reported_together() {
    let problems = loaded(&["nope", "--port=x", "--token-file=/missing"], &[]).unwrap_err();
    assert_eq!(problems.usage.len(), 1);
    let want = [
        "cannot read token file `/missing`: No such file or directory (os error 2)",
        "<argument>:1:1: undefined filter nope\nnope\n^\n",
    ];
    assert_eq!(problems.failed, want);
    let problems = loaded(&["-f/missing"], &[]).unwrap_err();
    assert_eq!(problems.failed, ["cannot read filter `/missing`: No such file or directory (os error 2)"]);
}

#[test]
fn where_the_filter_comes_from() {
    let file = std::env::temp_dir().join(format!("filter-{}.jq", std::process::id()));
    std::fs::write(&file, ".").unwrap();
    let path = file.to_str().unwrap();
    let by_argument = config(&["error"], &[("FROM_FILE", path)]);
    assert_eq!(
        (by_argument.filter_name.as_str(), by_argument.warnings),
        (
            "<argument>",
            vec![format!("the filter is the argument FILTER; the variable FROM_FILE, `{path}`, is ignored")]
        )
    );
    assert_eq!(config(&[], &[("FROM_FILE", path)]).filter_name, path);
    assert_eq!(config(&["-f", path], &[("FROM_FILE", "/nonexistent")]).filter_name, path);
    assert_eq!(config(&["-f", path], &[]).warnings.len(), 0);
    assert_eq!(config(&[], &[]).warnings, ["no filter was given; the default filter creates demonstration Jobs"]);
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_token_sent_without_encryption_gives_a_warning() {
    let token = std::env::temp_dir().join(format!("token-{}", std::process::id()));
    std::fs::write(&token, "t").unwrap();
    let argument = format!("--token-file={}", token.display());
    let warnings = |server: &str| config(&[".", "--server", server, &argument], &[]).warnings;
    assert_eq!(warnings("http://127.0.0.1:1"), [""; 0]);
    assert_eq!(warnings("http://10.0.0.1"), ["the token goes to http://10.0.0.1 without encryption"]);
    std::fs::remove_file(token).unwrap();
}
