//! What must agree with each other: help, documentation, code.

use crate::support::dispatcher::command;
use std::fs;
use std::path::PathBuf;

fn read(path: &str) -> String {
    fs::read_to_string(crate::support::path(path)).unwrap()
}

/// Parts of the paths of files that have only tests.
const TESTS: [&str; 3] = ["tests.rs", "next/model", "workers/orders"];

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
            } else if name.ends_with(".rs") && !TESTS.iter().any(|tests| name.contains(tests)) {
                let text = fs::read_to_string(&path).unwrap();
                sources.push((name, without_tests(&text)))
            }
        }
    }
    sources
}

/// Without modules of tests, which end a file or are files of their own.
fn without_tests(text: &str) -> String {
    let is_inline =
        |at: &usize| text[*at..].lines().nth(1).is_some_and(|line| line.contains("mod ") && line.ends_with('{'));
    let end = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(is_inline).unwrap_or(text.len());
    text[..end].to_owned()
}

/// The pages of the documentation, by their path.
fn pages() -> Vec<(String, String)> {
    let mut names = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned(), "CHANGELOG.md".to_owned()];
    let files = |folder: &str| {
        let files = fs::read_dir(crate::support::path(folder)).unwrap();
        files.map(|file| format!("{folder}/{}", file.unwrap().file_name().into_string().unwrap())).collect::<Vec<_>>()
    };
    names.extend(files("docs"));
    names.extend(files("deploy/recipes").into_iter().map(|recipe| format!("{recipe}/README.md")));
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

#[test]
fn the_readme_is_short_and_begins_like_the_help() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 150, "the README has {} lines", readme.lines().count());
    assert_eq!(readme.lines().nth(2), read("src/help.txt").lines().next());
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    let pages = pages();
    let anchors = |text: &str| -> Vec<String> {
        let titles = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
        let slug = |title: &str| {
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
            kept.to_lowercase().replace(' ', "-")
        };
        titles.map(slug).collect()
    };
    for (name, text) in &pages {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
            if target.starts_with("https://") {
                continue;
            }
            let folder = PathBuf::from(crate::support::path(name)).parent().unwrap().to_owned();
            let path = if file.is_empty() { PathBuf::from(crate::support::path(name)) } else { folder.join(file) };
            assert!(path.exists(), "{name} links {target}, which does not exist");
            if let Some(anchor) = anchor {
                let text = fs::read_to_string(&path).unwrap();
                assert!(anchors(&text).iter().any(|one| one == anchor), "{name} links {target}: no such title");
            }
        }
    }
}

#[test]
fn filters_of_the_documentation_compile() {
    let mut filters = 0;
    for (name, text) in pages() {
        for filter in text.split("```jq\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let checked = command(&["--check", filter]).output().unwrap();
            let said = String::from_utf8_lossy(&checked.stderr);
            assert!(checked.status.success(), "{name}:\n{filter}\n{said}");
            assert!(!said.contains("WARN"), "{name}:\n{filter}\n{said}");
            filters += 1;
        }
    }
    assert!(filters >= 5, "{filters}");
}

#[test]
fn the_flags_of_the_documentation_are_the_help_text() {
    let block = format!("```text\n{}```", read("src/help.txt"));
    assert!(read("docs/operating.md").contains(&block), "docs/operating.md differs from src/help.txt:\n{block}");
}

#[test]
fn the_codes_of_the_documentation_are_those_of_the_program() {
    let page = read("docs/http.md");
    let table = read("src/status.rs");
    let mut rows = 0;
    for line in table.lines().filter(|line| line.contains("Reason::") && line.contains("=> (")) {
        let (code, word) = line.split_once("=> (").unwrap().1.split_once(", \"").unwrap();
        let row = format!("| {code} | `{}` |", word.split('"').next().unwrap());
        assert!(page.contains(&row), "docs/http.md lacks {row}");
        rows += 1;
    }
    let in_page = page.lines().filter(|line| {
        line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit()) && line.contains("| `")
    });
    assert_eq!(in_page.count(), rows, "docs/http.md has codes that the program has not");
}

#[test]
fn each_crate_has_one_owner() {
    for (word, owners) in [
        ("tiny_http::", &["server/reply.rs"][..]),
        ("httparse::", &["server/parse.rs", "server/chunked.rs"]),
        ("rustix::", &["server", "metrics/process.rs", "kube/transport/socket.rs"]),
        ("cpu_time::", &["filter/meter.rs"]),
        ("socket2::", &["server.rs"]),
        ("signal_hook::", &["server.rs"]),
        ("ureq::", &["kube"]),
        ("rustls::", &["kube"]),
        ("jaq_", &["filter"]),
        ("hifijson::", &["filter/parse.rs"]),
        ("regex_bites::", &["filter/regex.rs"]),
        ("lexopt::", &["cli.rs"]),
        ("prometheus_client::", &["metrics"]),
        ("jiff::", &["kube/job.rs"]),
        ("env_logger::", &["logger.rs"]),
        ("getrandom::", &["random.rs"]),
        ("use ring::", &["hash.rs"]),
        ("subtle::", &["hash.rs"]),
        ("base64::", &["auth"]),
        ("form_urlencoded::", &["http.rs"]),
        ("std::fs", &["config.rs", "auth/followed.rs", "kube/credentials.rs", "filter/load.rs", "metrics/process.rs"]),
        ("mimalloc", &["alloc.rs"]),
        ("unsafe ", &["alloc.rs"]),
        ("std::env::var", &["main.rs", "filter/natives.rs", "server/workers.rs"]),
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

/// The first names of all paths in the code that begin so, and not in the middle of another.
fn named(code: &str, root: &str) -> Vec<String> {
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let begins = |at: &usize| !code[..*at].ends_with(|c: char| is_word(c) || c == ':');
    let mut names = Vec::new();
    for at in code.match_indices(root).map(|(at, _)| at).filter(begins) {
        let rest = &code[at + root.len()..];
        match rest.strip_prefix('{') {
            None => names.push(rest.chars().take_while(|c| is_word(*c)).collect()),
            Some(group) => {
                // each first name in the braces
                let (mut depth, mut name) = (0, String::new());
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                        c if depth == 0 && !c.is_whitespace() => name.push(c),
                        _ => (),
                    }
                }
                names.push(name)
            }
        }
    }
    names.iter().map(|name| name.split("::").next().unwrap().to_owned()).filter(|name| name != "super").collect()
}

#[test]
fn a_path_is_found_wherever_it_stands() {
    let code =
        "use super::a;\nuse super::{b::C, d::{E, F}, g};\n// super::h\nlet x = f(super::i::j(), &super::super::k);";
    assert_eq!(named(code, "super::"), ["a", "b", "d", "g", "i"]);
    assert_eq!(named(code, "super::super::"), ["k"]);
    assert_eq!(
        without_tests("a\n#[cfg(test)]\nmod x;\nb\n#[cfg(test)]\nmod tests {\n"),
        "a\n#[cfg(test)]\nmod x;\nb\n"
    );
}

#[test]
fn imports_point_down() {
    // each may use those before it
    const LAYERS: [&str; 25] = [
        "alloc", "hash", "second", "random", "account", "metrics", "cli", "logger", "http", "trace", "status",
        "answered", "hosts", "form", "filter", "manifest", "kube", "jobs", "auth", "config", "route", "docs",
        "dispatch", "server", "main",
    ];
    for (name, code) in sources() {
        let module = name.split(['/', '.']).next().unwrap();
        let layer = LAYERS.iter().position(|layer| *layer == module).unwrap_or_else(|| panic!("{module} has no layer"));
        let up = "super::".repeat(name.matches('/').count() + 1);
        let mut used = named(&code, "crate::");
        used.extend(named(&code, &up));
        for used in used.iter().filter(|used| *used != module) {
            assert!(LAYERS[..layer].contains(&used.as_str()), "{name} uses {used}, which is not below {module}");
        }
    }
}

/// Between the files of a folder there are no circles. (What a file shares with the files of a folder of its own is one concept.)
#[test]
fn files_beside_each_other_have_an_order() {
    let sources: Vec<_> = sources().into_iter().map(|(name, code)| (name.replace(".rs", ""), code)).collect();
    let folders: std::collections::BTreeSet<String> =
        sources.iter().filter_map(|(name, _)| Some(name.rsplit_once('/')?.0.to_owned())).collect();
    for folder in folders {
        // each with what is below it
        let mut uses: Vec<(String, Vec<String>)> = Vec::new();
        for (name, code) in &sources {
            let Some(below) = name.strip_prefix(&format!("{folder}/")) else { continue };
            let sibling = below.split('/').next().unwrap().to_owned();
            let up = "super::".repeat(below.matches('/').count() + 1);
            let mut used = named(code, &format!("crate::{}::", folder.replace('/', "::")));
            used.extend(named(code, &up));
            used.retain(|used| *used != sibling);
            match uses.iter_mut().find(|(name, _)| *name == sibling) {
                Some((_, all)) => all.extend(used),
                None => uses.push((sibling, used)),
            }
        }
        // takes away what uses nothing that is left, until nothing is left
        loop {
            let names: Vec<String> = uses.iter().map(|(name, _)| name.clone()).collect();
            let left = uses.len();
            uses.retain(|(_, used)| used.iter().any(|used| names.contains(used)));
            if uses.len() == left {
                break;
            }
        }
        let circle: Vec<_> = uses.iter().map(|(name, _)| name).collect();
        assert!(circle.is_empty(), "in src/{folder}, these use each other: {circle:?}");
    }
}

#[test]
fn functions_fit_on_a_screen() {
    for (name, code) in sources() {
        let lines: Vec<&str> = code.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
            let end = " ".repeat(line.len() - line.trim_start().len()) + "}";
            let length = lines[number..].iter().position(|line| *line == end).map_or(1, |at| at + 1);
            assert!(length <= 70, "{name}:{}: a function has {length} lines", number + 1);
        }
    }
}

/// Whether a function with a body begins here.
fn is_function(line: &str) -> bool {
    let words = line.trim_start();
    let words = match words.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ").map_or("", |(_, rest)| rest),
        None => words.strip_prefix("pub ").unwrap_or(words),
    };
    ["fn ", "const fn ", "unsafe fn "].iter().any(|begin| words.starts_with(begin)) && !line.ends_with(['}', ';'])
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
