//! What must agree with each other: help, README, code.

use std::fs;
use std::path::PathBuf;

fn read(path: &str) -> String {
    fs::read_to_string(crate::support::path(path)).unwrap()
}

/// Our sources, without tests, by their path under `src`.
fn sources() -> Vec<(String, String)> {
    let root = PathBuf::from(crate::support::path("src"));
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path)
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                sources.push((name, code.to_owned()))
            }
        }
    }
    sources
}

#[test]
fn the_readmes_flags_are_the_help_text() {
    let block = format!("```text\n{}```", read("src/help.txt"));
    assert!(read("README.md").contains(&block), "README's flags differ from src/help.txt:\n{block}");
}

#[test]
fn the_readmes_codes_are_those_of_the_program() {
    let readme = read("README.md");
    let table = read("src/status.rs");
    let mut rows = 0;
    for line in table.lines().filter(|line| line.contains("Reason::") && line.contains("=> (")) {
        let (code, word) = line.split_once("=> (").unwrap().1.split_once(", \"").unwrap();
        let row = format!("| {code} | `{}` |", word.split('"').next().unwrap());
        assert!(readme.contains(&row), "README lacks {row}");
        rows += 1;
    }
    let in_readme = readme.lines().filter(|line| {
        line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit()) && line.contains("| `")
    });
    assert_eq!(in_readme.count(), rows, "README has codes that the program has not");
}

#[test]
fn each_crate_has_one_owner() {
    for (word, owners) in [
        ("tiny_http::", &["server/reply.rs"][..]),
        ("httparse::", &["server/parse.rs", "server/chunked.rs"]),
        ("rustix::", &["server", "kube/transport/socket.rs"]),
        ("cpu_time::", &["filter/meter.rs"]),
        ("socket2::", &["server.rs"]),
        ("signal_hook::", &["server.rs"]),
        ("ureq::", &["kube"]),
        ("rustls::", &["kube"]),
        ("jaq_", &["filter"]),
        ("regex_bites::", &["filter/regex.rs"]),
        ("lexopt::", &["cli.rs"]),
        ("prometheus_client::", &["metrics.rs"]),
        ("env_logger::", &["logger.rs"]),
        ("getrandom::", &["random.rs"]),
        ("std::fs", &["config.rs", "kube/credentials.rs", "filter/compile.rs"]),
        ("mimalloc", &["alloc.rs"]),
        ("unsafe ", &["alloc.rs"]),
        ("std::env::var", &["main.rs", "filter/natives.rs", "server.rs"]),
    ] {
        for (name, code) in sources() {
            let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let is_owner = owners.iter().any(|owner| name.starts_with(owner));
            assert!(is_owner || !code.contains(word), "{word} in {name}");
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_own() {
    for (name, code) in sources() {
        let lines = code.lines().count();
        assert!(lines <= 400, "{name} has {lines} lines");
        assert!(code.starts_with("//! "), "{name} does not begin with what it owns");
    }
}

#[test]
fn versions_agree() {
    let manifest = read("Cargo.toml");
    let value = |key: &str| {
        let line = manifest.lines().find(|line| line.starts_with(key)).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    assert!(read("README.md").contains(&format!("Rust {}", value("rust-version"))));
    let changelog = read("CHANGELOG.md");
    assert!(changelog.contains(&format!("## [{}]", value("version"))) || changelog.contains("## [Unreleased]"));
}

#[test]
fn there_is_no_async_runtime() {
    let lock = read("Cargo.lock");
    for runtime in ["tokio", "async-std", "smol", "futures", "hyper", "mio", "kube", "k8s-openapi"] {
        assert!(!lock.contains(&format!("name = \"{runtime}\"")), "{runtime}");
    }
}
