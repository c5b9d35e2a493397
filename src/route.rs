//! Maps method and path to a route. Pure.

use crate::config::{Accept, Enabled};
use crate::hosts::{Hosts, host_of};
use crate::http::{Request, is_json, media_type, percent_decoded};
use crate::status::{Reason, Status};

#[derive(Debug, PartialEq)]
pub(crate) enum Route {
    /// Run the filter, with this as `$PATH`.
    Dispatch(String),
    /// Get the status of this Job; the name is not validated yet.
    Job(String),
    /// Get the log of one of its containers; the name is not validated yet.
    Log(String),
    /// List our Jobs.
    List,
    /// Delete this Job; the name is not validated yet.
    Delete(String),
    Live,
    Ready,
    Metrics,
    /// The contract, as OpenAPI.
    OpenApi,
    Page(Page),
}

/// A part of the page for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Page {
    /// A redirection, relative to the request's path, so that a path prefix of an Ingress survives.
    Elsewhere(&'static str),
    Html,
    Script,
    Style,
}

impl Route {
    /// All that [`Route::name`] gives.
    pub(crate) const NAMES: [&str; 9] = [
        "/job",
        "GET /job",
        "/job/{id}",
        "/job/{id}/log",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/openapi.json",
        "/docs",
    ];

    /// Its path, for the metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Route::Dispatch(_) => "/job",
            Route::List => "GET /job",
            Route::Job(_) | Route::Delete(_) => "/job/{id}",
            Route::Log(_) => "/job/{id}/log",
            Route::Live => "/health/live",
            Route::Ready => "/health/ready",
            Route::Metrics => "/metrics",
            Route::OpenApi => "/openapi.json",
            Route::Page(_) => "/docs",
        }
    }
    /// Whether it is polled by machines, so that it is logged at debug only.
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self, Route::Live | Route::Ready | Route::Metrics)
    }
    /// Whether it may call the API server for longer than a probe does.
    pub(crate) fn is_dispatch(&self) -> bool {
        matches!(self, Route::Dispatch(_) | Route::Job(_) | Route::Log(_) | Route::Delete(_))
    }
}

/// Segments of the longest path that has a route of its own.
const MAX_SEGMENTS: usize = 3;
const POST: &str = "POST";
const READ: &str = "GET, HEAD";
const READ_OR_POST: &str = "GET, HEAD, POST";
const READ_OR_POST_OR_DELETE: &str = "DELETE, GET, HEAD, POST";

/// What is not `enabled` is answered as if it were not there.
///
/// Errors: 404, 405 with `Allow`, 400 for a path that cannot be decoded.
pub(crate) fn route(request: &Request, enabled: Enabled) -> Result<Route, Status> {
    let path = decoded(request.path())?;
    let mut segments = [""; MAX_SEGMENTS + 1]; // all of a shorter path
    let number = segments.iter_mut().zip(path.split('/').skip(1)).map(|(place, segment)| *place = segment).count();
    let method = request.method();
    let (is_read, is_post) = (matches!(method, "GET" | "HEAD"), method == POST);
    match (&segments[..number], is_read, is_post) {
        (["job", ..], _, true) => Ok(Route::Dispatch(path)),
        (["job"], true, _) if enabled.list => Ok(Route::List),
        (["job"], ..) if enabled.list => Err(not_allowed(READ_OR_POST)),
        (["job", id], true, _) => Ok(Route::Job((*id).to_owned())),
        (["job", id], ..) if enabled.delete && method == "DELETE" => Ok(Route::Delete((*id).to_owned())),
        (["job", _], ..) if enabled.delete => Err(not_allowed(READ_OR_POST_OR_DELETE)),
        (["job", _], ..) => Err(not_allowed(READ_OR_POST)),
        (["job", id, "log"], true, _) if enabled.logs => Ok(Route::Log((*id).to_owned())),
        (["job", _, "log"], ..) if enabled.logs => Err(not_allowed(READ_OR_POST)),
        (["job", ..], ..) => Err(not_allowed(POST)),
        (["health", "live"], true, _) => Ok(Route::Live),
        (["health", "ready"], true, _) => Ok(Route::Ready),
        (["metrics"], true, _) => Ok(Route::Metrics),
        (["openapi.json"], true, _) => Ok(Route::OpenApi),
        // relative addresses of the page hold for one place only
        (["docs" | "docs.js" | "docs.css"], ..) | ([], ..) if !enabled.docs => Err(no_such_path()),
        (["docs"], true, _) if request.path().ends_with("//") => Err(no_such_path()),
        (["docs"], true, _) if request.path().ends_with('/') => Ok(Route::Page(Page::Elsewhere("../docs"))),
        (["docs"], true, _) => Ok(Route::Page(Page::Html)),
        (["docs.js"], true, _) => Ok(Route::Page(Page::Script)),
        (["docs.css"], true, _) => Ok(Route::Page(Page::Style)),
        ([], true, _) if request.path() == "/" => Ok(Route::Page(Page::Elsewhere("docs"))),
        (["health", "live" | "ready"] | ["metrics" | "openapi.json" | "docs" | "docs.js" | "docs.css"], ..) => {
            Err(not_allowed(READ))
        }
        _ => Err(no_such_path()),
    }
}

/// Checks the headers that a route requires. `hosts`: names of ours.
///
/// Errors: 403, 415.
pub(crate) fn check_headers(route: &Route, request: &Request, hosts: &Hosts, accept: Accept) -> Result<(), Status> {
    if matches!(route, Route::Dispatch(_) | Route::Delete(_)) && is_cross_origin(request, hosts) {
        let message = "a web page of another origin must not create or delete Jobs; the operator can name origins of the dispatcher with --allowed-host";
        return Err(Status::new(Reason::CrossOrigin, message));
    }
    if !matches!(route, Route::Dispatch(_)) {
        return Ok(());
    }
    if request.values("content-encoding").any(names_coding) {
        return Err(Status::new(Reason::UnsupportedMediaType, "the body has a Content-Encoding; send it unencoded"));
    }
    match request.header("content-type") {
        Some(media_type) if is_json(media_type) => Ok(()),
        Some(_) if is_form(request) && accept.form => Ok(()),
        Some(given) if media_type(given).eq_ignore_ascii_case(b"text/plain") && accept.text => Ok(()),
        // as monitors and schedulers send it
        None if !request.announces_body() && request.body().is_empty() => Ok(()),
        other => Err(Status::new(Reason::UnsupportedMediaType, not_json(other, request.body()))),
    }
}

/// Whether a browser sent the request for a page of another origin: by `Sec-Fetch-Site`, which pages cannot set (W3C Fetch Metadata), or, from
/// browsers and places without it, by `Origin`, whose host has to be that of `Host`. An origin that `--allowed-host` names is ours, also behind a
/// proxy that changes `Host`.
fn is_cross_origin(request: &Request, hosts: &Hosts) -> bool {
    let mut repeated = ["origin", "sec-fetch-site"].iter().map(|name| request.values(name).count());
    if repeated.any(|number| number > 1) {
        return true; // of two, a proxy may have looked at the other
    }
    let origin = request.header("origin").map(String::from_utf8_lossy);
    let origin = origin.as_ref().map(|origin| origin.split_once("://").map_or("", |(_, authority)| authority));
    if origin.is_some_and(|origin| hosts.is_ours(origin)) {
        return false;
    }
    if let Some(site) = request.header("sec-fetch-site") {
        return !matches!(site, b"same-origin" | b"none");
    }
    let host = String::from_utf8_lossy(request.header("host").unwrap_or_default());
    origin.is_some_and(|origin| origin.is_empty() || !host_of(origin).eq_ignore_ascii_case(host_of(&host)))
}

/// Whether the body is an HTML form.
pub(crate) fn is_form(request: &Request) -> bool {
    let given = request.header("content-type").map(media_type);
    given.is_some_and(|given| given.eq_ignore_ascii_case(b"application/x-www-form-urlencoded"))
}

/// Whether a `Content-Encoding` names a coding; `identity` is none (RFC 9110 8.4.1).
fn names_coding(value: &[u8]) -> bool {
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

/// What the sender of another media type can do. The body may not have been read.
fn not_json(media_type: Option<&[u8]>, body: &[u8]) -> &'static str {
    let is = |start: &str| {
        media_type
            .is_some_and(|given| given.get(..start.len()).is_some_and(|g| g.eq_ignore_ascii_case(start.as_bytes())))
    };
    let looks_like_json = matches!(body.trim_ascii_start(), [b'{' | b'[' | b'"', ..]);
    match () {
        _ if looks_like_json => {
            "the body looks like JSON, but the Content-Type is not; send -H 'Content-Type: application/json'"
        }
        _ if is("application/x-www-form-urlencoded") => {
            "forms are not accepted; let the sender post JSON (webhook senders have a setting for it), or see --accept"
        }
        _ if is("multipart/form-data") => "multipart forms are not supported; let the sender post JSON",
        _ if is("text/plain") => "only JSON is accepted; send -H 'Content-Type: application/json', or see --accept",
        _ if media_type.is_none() => "the Content-Type is missing; send JSON with -H 'Content-Type: application/json'",
        _ => "only JSON is supported: application/json or application/*+json",
    }
}

pub(crate) fn no_such_path() -> Status {
    Status::new(
        Reason::NotFound,
        "no such path; see POST /job, POST /job/{path}, GET /job/{id}, GET /health/live, GET /health/ready, GET /metrics, \
        GET /openapi.json",
    )
}

fn not_allowed(allow: &'static str) -> Status {
    let message = format!("this path supports {allow}");
    Status { allow: Some(allow), ..Status::new(Reason::MethodNotAllowed, message) }
}

/// The path, decoded once, without trailing slashes.
///
/// A slash, NUL or dot segment that comes out of an escape would mean something else to whoever reads the path next, so there is no such path.
fn decoded(path: &str) -> Result<String, Status> {
    let path = path.trim_end_matches('/');
    let bytes = percent_decoded(path)
        .ok_or_else(|| Status::new(Reason::BadRequest, "the path has a percent sign without two hexadecimal digits"))?;
    let is_escaped_slash =
        bytes.iter().filter(|byte| **byte == b'/').count() != path.bytes().filter(|byte| *byte == b'/').count();
    let decoded = String::from_utf8(bytes).map_err(|_| no_such_path())?;
    let is_odd = |segment: &str| matches!(segment, "" | "." | "..");
    if is_escaped_slash || decoded.contains('\0') || decoded.split('/').skip(1).any(is_odd) {
        return Err(no_such_path());
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_ONLY: Enabled = Enabled { docs: true, delete: false, list: false, logs: false, pods: false };

    fn request(method: &str, path: &str) -> Request {
        let bytes = format!("{method} {path}").into_bytes();
        let head_len = bytes.len();
        let path = method.len() + 1..bytes.len();
        Request { method_len: method.len(), path, head_len, bytes, ..Request::default() }
    }

    fn check(route: &Route, request: &Request) -> Result<(), Status> {
        check_headers(route, request, &Hosts::default(), Accept::default())
    }

    #[test]
    fn routes() {
        let dispatch = |path: &str| Route::Dispatch(path.into());
        for (method, path, want) in [
            ("POST", "/job", dispatch("/job")),
            ("POST", "/job/", dispatch("/job")),
            ("POST", "/job/reports/daily//", dispatch("/job/reports/daily")),
            ("POST", "/j%6Fb/%C3%A9%20x", dispatch("/job/é x")),
            ("POST", "/job/%252f", dispatch("/job/%2f")),
            ("GET", "/job/a", Route::Job("a".into())),
            ("HEAD", "/job/a/", Route::Job("a".into())),
            ("GET", "/health/live", Route::Live),
            ("HEAD", "/health/ready/", Route::Ready),
            ("GET", "/metrics", Route::Metrics),
            ("GET", "/openapi.json", Route::OpenApi),
            ("GET", "/", Route::Page(Page::Elsewhere("docs"))),
            ("GET", "/docs", Route::Page(Page::Html)),
            ("GET", "/docs/", Route::Page(Page::Elsewhere("../docs"))),
            ("GET", "/docs.js", Route::Page(Page::Script)),
            ("HEAD", "/docs.css", Route::Page(Page::Style)),
        ] {
            let found = route(&request(method, path), PAGE_ONLY).unwrap();
            assert!(Route::NAMES.contains(&found.name()), "{}", found.name());
            assert_eq!(found, want, "{method} {path}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_recognized() {
        let is_refused = |headers: &[(&str, &str)]| {
            let request = Request::of(headers);
            let codes = [Route::Dispatch("/job".into()), Route::Delete("a".into())]
                .map(|route| check(&route, &request).is_err_and(|status| status.code() == 403));
            assert_eq!(codes[0], codes[1], "{headers:?}");
            assert!(
                check(&Route::Job("a".into()), &request).is_ok(),
                "reading is harmless: nothing allows a page to see it"
            );
            codes[0]
        };
        for site in ["same-origin", "none"] {
            assert!(!is_refused(&[("Sec-Fetch-Site", site), ("Origin", "http://other"), ("Host", "us")]), "{site}");
        }
        for site in ["cross-site", "same-site", "", "x"] {
            assert!(is_refused(&[("Sec-Fetch-Site", site), ("Origin", "http://us"), ("Host", "us")]), "{site}");
        }
        for (origin, host) in
            [("http://us", "us"), ("https://US:8443", "us"), ("http://[::1]:80", "[::1]:8000"), ("http://us", "us:80")]
        {
            assert!(!is_refused(&[("Origin", origin), ("Host", host)]), "{origin} {host}");
        }
        for (origin, host) in [
            ("null", "us"),
            ("http://other", "us"),
            ("http://us.other", "us"),
            ("http://[::2]", "[::1]"),
            ("", ""),
            ("http://a", ""),
        ] {
            assert!(is_refused(&[("Origin", origin), ("Host", host)]), "{origin} {host}");
        }
        assert!(is_refused(&[("Origin", "http://us"), ("Origin", "http://us"), ("Host", "us")]));
        assert!(is_refused(&[("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site"), ("Host", "us")]));
        assert!(!is_refused(&[("Host", "us")]), "curl and webhooks send neither");
    }

    #[test]
    fn an_origin_that_is_allowed_is_ours_whatever_a_proxy_does_with_the_host() {
        let hosts = Hosts::new(&["jobs.example.com"], false).unwrap();
        let code = |headers: &[(&str, &str)]| {
            let checked = check_headers(&Route::Delete("a".into()), &Request::of(headers), &hosts, Accept::default());
            checked.map_err(|status| status.code())
        };
        let ours = ("Origin", "https://jobs.example.com:8443");
        assert_eq!(code(&[ours, ("Host", "dispatcher:8000")]), Ok(()));
        assert_eq!(code(&[ours, ("Host", "dispatcher"), ("Sec-Fetch-Site", "same-site")]), Ok(()));
        assert_eq!(code(&[("Origin", "https://example.com"), ("Host", "dispatcher")]), Err(403));
        assert_eq!(code(&[("Host", "dispatcher"), ("Sec-Fetch-Site", "same-site")]), Err(403));
    }

    #[test]
    fn forms_and_texts_are_taken_where_they_are_accepted() {
        let code = |media_type: &str, accept| {
            let request = Request::of(&[("Content-Type", media_type)]);
            check_headers(&Route::Dispatch("/job".into()), &request, &Hosts::default(), accept).is_ok()
        };
        let [form, text] = [(true, false), (false, true)].map(|(form, text)| Accept { form, text });
        for (media_type, is_form, is_text) in [
            ("application/x-www-form-urlencoded", true, false),
            ("Application/X-WWW-Form-Urlencoded; charset=utf-8", true, false),
            ("text/plain; charset=UTF-8", false, true),
            ("text/html", false, false),
            ("multipart/form-data; boundary=x", false, false),
        ] {
            assert_eq!([form, text].map(|accept| code(media_type, accept)), [is_form, is_text], "{media_type}");
            assert!(!code(media_type, Accept::default()));
        }
    }

    #[test]
    fn a_request_without_a_body_needs_no_media_type() {
        let code = |headers: &[(&str, &str)]| {
            check(&Route::Dispatch("/job".into()), &Request::of(headers)).map_err(|status| status.code())
        };
        assert_eq!((code(&[]), code(&[("Content-Length", "0")])), (Ok(()), Ok(())));
        for headers in [("Content-Length", "1"), ("Transfer-Encoding", "chunked"), ("Content-Type", "text/plain")] {
            assert_eq!(code(&[headers]), Err(415), "{headers:?}");
        }
    }

    #[test]
    fn what_is_enabled() {
        let of = |method, path| route(&request(method, path), Enabled::ALL);
        assert_eq!(of("DELETE", "/job/a/").unwrap(), Route::Delete("a".into()));
        assert_eq!(of("GET", "/job/").unwrap(), Route::List);
        assert_eq!(of("HEAD", "/job/a/log").unwrap(), Route::Log("a".into()));
        assert_eq!(of("POST", "/job/a/log").unwrap(), Route::Dispatch("/job/a/log".into()));
        assert_eq!(of("PUT", "/job/a/log").unwrap_err().allow, Some("GET, HEAD, POST"));
        assert_eq!(of("DELETE", "/job").unwrap_err().allow, Some("GET, HEAD, POST"));
        assert_eq!(of("GET", "/job/a/logs").unwrap_err().allow, Some("POST"));
        assert_eq!(of("PUT", "/job/a").unwrap_err().allow, Some("DELETE, GET, HEAD, POST"));
        assert_eq!(route(&request("DELETE", "/job/a"), Enabled::default()).unwrap_err().allow, Some("GET, HEAD, POST"));
        for (method, path) in
            [("GET", "/"), ("GET", "/docs"), ("POST", "/docs"), ("GET", "/docs.js"), ("PUT", "/docs.css")]
        {
            let status = route(&request(method, path), Enabled::default()).unwrap_err();
            assert_eq!((status.code(), status.allow), (404, None), "{method} {path}");
        }
    }

    #[test]
    fn refusals() {
        for (method, path, code, allow) in [
            ("GET", "/job", 405, Some("POST")),
            ("GET", "/job/", 405, Some("POST")),
            ("GET", "/job/a/b", 405, Some("POST")),
            ("PUT", "/job/a", 405, Some("GET, HEAD, POST")),
            ("post", "/job", 405, Some("POST")),
            ("POST", "/health/live", 405, Some("GET, HEAD")),
            ("POST", "/", 404, None),
            ("GET", "*", 404, None),
            ("POST", "/docs", 405, Some("GET, HEAD")),
            ("GET", "/docs/x", 404, None),
            ("GET", "/docs//", 404, None),
            ("GET", "//", 404, None),
            ("GET", "/health", 404, None),
            ("GET", "/JOB/a", 404, None),
            ("POST", "/jobs", 404, None),
            ("POST", "//job", 404, None),
            ("POST", "/job//a", 404, None),
            ("GET", "/job/a%2fstatus", 404, None),
            ("GET", "/job/..", 404, None),
            ("GET", "/job/%2e%2E", 404, None),
            ("GET", "/job/./a", 404, None),
            ("GET", "/job/%00", 404, None),
            ("GET", "/job/%ff", 404, None),
            ("GET", "/job/%c0%af", 404, None),
            ("GET", "/job/%", 400, None),
        ] {
            let status = route(&request(method, path), PAGE_ONLY).unwrap_err();
            assert_eq!((status.code(), status.allow), (code, allow), "{method} {path}");
        }
    }
}
