//! Names by which a client may call the dispatcher. A web page can give a name of its own the address of this machine (DNS rebinding); its
//! requests have that name in `Host`. Pure.

use crate::http::Request;
use crate::status::{Reason, Status};
use std::net::IpAddr;

/// Names that `--allowed-host` gives, and whether others are refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    allowed: Vec<Host>,
    /// The listener is on loopback, so its names are allowed, and others refused.
    is_loopback: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Host {
    /// In lower case.
    Name(String),
    /// What comes after the star of `*.example.com`, with its dot.
    Below(String),
    Address(IpAddr),
}

impl Host {
    /// Of an authority, without its port and a dot at the end.
    fn of(authority: &str) -> Self {
        let host = host_of(authority);
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(address) => Host::Address(address.to_canonical()),
            Err(_) => Host::Name(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()),
        }
    }
}

impl Hosts {
    /// `names`: of `--allowed-host`. `is_loopback`: the listener is.
    ///
    /// Errors: what is wrong with a name.
    pub(crate) fn new(names: &[&str], is_loopback: bool) -> Result<Self, String> {
        let host = |name: &&str| {
            if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
                return Ok(Host::Address(address.to_canonical()));
            }
            let (is_below, rest) = name.strip_prefix('*').map_or((false, *name), |rest| (rest.starts_with('.'), rest));
            let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            let name = name.to_ascii_lowercase();
            match rest.bytes().all(is_name_byte) && rest.len() > usize::from(is_below) {
                true if is_below => Ok(Host::Below(name[1..].to_owned())),
                true if !name.starts_with('*') => Ok(Host::Name(name)),
                _ => Err(format!(
                    "has {name:?}: expected names such as example.com or *.example.com, or addresses, without ports"
                )),
            }
        };
        Ok(Hosts { allowed: names.iter().map(host).collect::<Result<_, _>>()?, is_loopback })
    }

    /// Without `--allowed-host`.
    pub(crate) fn default_for(is_loopback: bool) -> Self {
        Hosts { allowed: Vec::new(), is_loopback }
    }

    /// Checks `Host`, unless there is none: balancers leave it out, browsers never do.
    ///
    /// Errors: 403.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Status> {
        if self.allowed.is_empty() && !self.is_loopback {
            return Ok(());
        }
        let authority = request.header("host").unwrap_or_default();
        if authority.is_empty() {
            return Ok(());
        }
        let host = Host::of(&String::from_utf8_lossy(authority));
        match self.is_allowed(&host) || self.is_loopback && is_loopback(&host) {
            true => Ok(()),
            false => Err(Status::new(
                Reason::HostNotAllowed,
                "the name in Host is not one of this dispatcher; its operator can add it with --allowed-host",
            )),
        }
    }

    /// Whether an authority, with or without a port, is one that `--allowed-host` names.
    pub(crate) fn is_ours(&self, authority: &str) -> bool {
        !self.allowed.is_empty() && self.is_allowed(&Host::of(authority))
    }

    fn is_allowed(&self, host: &Host) -> bool {
        self.allowed.iter().any(|allowed| match (allowed, host) {
            (Host::Below(end), Host::Name(name)) => name.len() > end.len() && name.ends_with(&**end),
            _ => allowed == host,
        })
    }
}

fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Address(address) => address.is_loopback(),
        Host::Name(name) => name == "localhost" || name.ends_with(".localhost"), // RFC 6761 6.3
        Host::Below(_) => false,
    }
}

/// An authority without its port.
pub(crate) fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(hosts: &Hosts, host: &str) -> bool {
        hosts.check(&Request::of(&[("Host", host)])).is_err()
    }

    #[test]
    fn on_loopback_only_loopback_names_are_served() {
        let hosts = Hosts::default_for(true);
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "a.localhost:1",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:8000",
            "127.9.8.7:1",
            "[::1]:8000",
            "[::1]",
            "",
        ] {
            assert!(!is_refused(&hosts, host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "xlocalhost",
            "127.0.0.1.evil.example:80",
            "127.0.0.1:80.evil.example:8000",
            "localhost:80.evil.example",
            "10.0.0.1",
            "[::2]",
            "0.0.0.0:8000",
            "2130706433",
            "[localhost]",
            "localhost@evil",
        ] {
            assert!(is_refused(&hosts, host), "{host}");
        }
        assert!(Hosts::default_for(true).check(&Request::of::<&str>(&[])).is_ok(), "without Host");
        let status = hosts.check(&Request::of(&[("Host", "evil.example")])).unwrap_err();
        assert!(status.code() == 403 && status.message.contains("--allowed-host"));
    }

    #[test]
    fn allowed_names_are_added_on_loopback_and_restrict_elsewhere() {
        let names = ["Jobs.Example.com", "*.svc", "10.0.0.7", "[fd00::1]"];
        for is_loopback in [true, false] {
            let hosts = Hosts::new(&names, is_loopback).unwrap();
            for host in ["jobs.example.COM:443", "a.b.svc", "10.0.0.7:8000", "[fd00:0::1]:8000"] {
                assert!(!is_refused(&hosts, host) && hosts.is_ours(host), "{host}");
            }
            for host in ["example.com", "svc", ".svc", "xsvc", "10.0.0.70", "jobs.example.com.evil"] {
                assert!(is_refused(&hosts, host) && !hosts.is_ours(host), "{host}");
            }
            assert_eq!(is_refused(&hosts, "localhost"), !is_loopback);
        }
        let open = Hosts::default_for(false);
        assert!(!is_refused(&open, "anything") && !open.is_ours("anything"));
        for bad in ["", "a b", "*", "*.", "*a", "a.*", "a:80", "http://a"] {
            assert!(Hosts::new(&[bad], false).is_err(), "{bad}");
        }
    }
}
