//! Documentation that the dispatcher serves: the page behind `GET /docs`, and OpenAPI, `GET /openapi.json`.
//!
//! The page loads nothing from other origins: its policy forbids it. It shows settings that are not secret; neither the environment nor
//! the filter's text.

use crate::config::{Config, DryRun, Enabled};
use crate::http::Reply;
use crate::route::Page;
use serde_json::Value;
use std::fmt::Write;
use std::sync::OnceLock;

/// What an operation is switched on by, in OpenAPI: a word of `--enable`.
const ENABLED_BY: &str = "x-enabled-by";
const CONTRACT: &str = include_str!("openapi.json");
/// The same without line breaks and indentation, a fifth of it.
static SHORT_CONTRACT: [u8; short_len(CONTRACT.as_bytes())] = short(CONTRACT.as_bytes());
const PAGE: &str = include_str!("docs/page.html");
/// A body that the default filter takes.
const EXAMPLE: &str = r#"{"id": "hello", "args": ["Hello", "world"]}"#;
const SCRIPT: &str = include_str!("docs/page.js");
const STYLE: &str = include_str!("docs/page.css");
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

#[derive(Debug)]
pub(crate) struct Docs {
    page: String,
    enabled: Enabled,
    /// Made when it is first asked for.
    contract: OnceLock<&'static [u8]>,
}

impl Docs {
    pub(crate) fn new(config: &Config) -> Self {
        let server = config.api_server.as_ref().map_or("none (dry run)", |server| server.base());
        let example = if config.has_default_filter() { EXAMPLE } else { "" };
        let page = PAGE
            .replace("{enabled}", &config.enabled.words())
            .replace("{namespace}", &escaped(&config.namespace))
            .replace("{server}", &escaped(server))
            .replace("{example}", &escaped(example))
            .replace("{settings}", &settings(config));
        Docs { page, enabled: config.enabled, contract: OnceLock::new() }
    }

    /// OpenAPI 3.1, with the operations that there are.
    pub(crate) fn contract(&self) -> Reply {
        Reply::json(200, *self.contract.get_or_init(|| contract(self.enabled).into_bytes().leak()))
    }

    pub(crate) fn page(&self, page: Page) -> Reply {
        match page {
            Page::Elsewhere(path) => Reply::empty(307).with_header("Location", path),
            Page::Html => Reply::text("text/html; charset=utf-8", self.page.clone().into_bytes())
                .with_header("Content-Security-Policy", POLICY)
                .with_header("Referrer-Policy", "no-referrer"),
            Page::Script => Reply::text("text/javascript; charset=utf-8", SCRIPT.as_bytes()),
            Page::Style => Reply::text("text/css; charset=utf-8", STYLE.as_bytes()),
        }
    }
}

/// Whether a byte of JSON is a line break, or a space behind one: there are none in strings.
const fn is_indent(json: &[u8], at: usize) -> bool {
    let mut start = at;
    while start > 0 && json[start] == b' ' {
        start -= 1
    }
    json[start] == b'\n'
}

const fn short_len(json: &[u8]) -> usize {
    let (mut length, mut at) = (0, 0);
    while at < json.len() {
        length += !is_indent(json, at) as usize;
        at += 1
    }
    length
}

const fn short<const LENGTH: usize>(json: &[u8]) -> [u8; LENGTH] {
    let (mut short, mut length, mut at) = ([0; LENGTH], 0, 0);
    while at < json.len() {
        if !is_indent(json, at) {
            short[length] = json[at];
            length += 1
        }
        at += 1
    }
    short
}

/// OpenAPI without the operations that are switched off.
fn contract(enabled: Enabled) -> String {
    let is_on = |word: &str| enabled.words().split(',').any(|one| one == word);
    let mut contract: Value = serde_json::from_slice(&SHORT_CONTRACT).expect("our own document is JSON");
    for item in contract["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut()) {
        if let Some(operations) = item.as_object_mut() {
            operations.retain(|_, operation| operation.get(ENABLED_BY).and_then(Value::as_str).is_none_or(is_on))
        }
    }
    contract.to_string()
}

/// As terms and descriptions of HTML.
fn settings(config: &Config) -> String {
    let dry_run = match config.dry_run {
        DryRun::None => "none",
        DryRun::Client => "client: manifests are shown, nothing is called",
        DryRun::Server => "server: the API server validates, nothing is stored",
    };
    let mut html = String::new();
    for (term, value) in [
        ("Version", env!("CARGO_PKG_VERSION").to_owned()),
        ("Filter", format!("{} ({})", config.filter_name, config.filter.digest())),
        ("Namespace of the Jobs", config.namespace.clone()),
        ("API server", config.api_server.as_ref().map_or("none", |server| server.base()).to_owned()),
        ("Dry run", dry_run.to_owned()),
        ("Largest body", format!("{} bytes", config.max_body_bytes)),
        ("Time for an answer", format!("{:?}", config.request_timeout)),
        (
            "Enabled",
            Some(config.enabled.words().replace(',', ", "))
                .filter(|words| !words.is_empty())
                .unwrap_or("nothing".into()),
        ),
        ("Longest wait for a Job", format!("{:?}", config.max_wait)),
    ] {
        let _ = writeln!(html, "<dt>{term}</dt><dd>{}</dd>", escaped(&value));
    }
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_text_not_html() {
        assert_eq!(escaped("<b>&amp;"), "&lt;b&gt;&amp;amp;");
    }

    #[test]
    fn the_page_names_no_other_origin() {
        for text in [PAGE, SCRIPT, STYLE] {
            assert!(!text.contains("://") && !text.contains("\"//"), "{text}");
        }
    }
}
