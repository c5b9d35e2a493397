//! URLs of API servers, as `--server` takes them, and text in paths. Pure.

use ureq::http::Uri;

/// The URL with its scheme in lower case, without a trailing slash.
///
/// Errors: why this is not the URL of an API server.
pub(crate) fn check_url(url: &str) -> Result<String, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        Err("it must begin with http:// or https://".into())
    } else if uri.host().is_none_or(str::is_empty) {
        Err("it names no host".into())
    } else if authority.contains('@') {
        Err("it must not hold credentials; use --token-file".into())
    } else if uri.query().is_some() || url.contains('#') {
        Err("it must not have a query or fragment".into())
    } else if !has_valid_port(authority) {
        Err("its port is not a number from 1 to 65535".into())
    } else {
        Ok(uri.to_string().trim_end_matches('/').to_owned())
    }
}

/// Whether the port is valid, or absent. The parser of URLs accepts any text, and would fall back to the scheme's port.
fn has_valid_port(authority: &str) -> bool {
    let after_host = match authority.rfind(']') {
        Some(bracket) => &authority[bracket + 1..],
        None => authority.find(':').map_or("", |colon| &authority[colon..]),
    };
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0);
    after_host.is_empty() || after_host.strip_prefix(':').is_some_and(is_port)
}

/// Whether the URL's host is this machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Percent-encodes all but letters, digits and `-_.~`.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_an_api_server() {
        for good in [
            "http://127.0.0.1:8001",
            "https://[::1]:6443/",
            "https://[::1]",
            "https://host:65535",
            "https://host/k8s/clusters/c",
            "https://kubernetes.default.svc",
        ] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "host",
            "ftp://host",
            "http://",
            "https://user:pw@host",
            "http://host/?a",
            "http://host/#a",
            "http://a b",
            "http://host:",
            "http://host:/",
            "http://host:0",
            "http://host:99999",
            "http://host:6443x",
            "http://host:+80",
            "http://host:-1",
            "http://host:1:2",
            "https://[::1]:",
            "https://[::1]:x",
            "https://[::1]80",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scheme_is_case_insensitive() {
        assert_eq!(check_url("HTTPS://Host:1/x").unwrap(), "https://Host:1/x");
    }

    #[test]
    fn loopback_is_known() {
        for yes in ["http://127.0.0.1:8001", "http://localhost", "http://[::1]:80"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["http://10.0.0.1", "http://localhost.example.com", "http://[::2]"] {
            assert!(!is_loopback(no), "{no}");
        }
    }
}
