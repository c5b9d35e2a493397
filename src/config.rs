//! From arguments and environment to the configuration: checks everything, opens every file, reports all problems together.

mod callers;
mod reader;
mod values;

use reader::{Problems, Reader};
pub(crate) use values::{Accept, DryRun, Enabled, Listen, duration};
use values::{enabled, header_names};

use crate::auth::Auth;
use crate::cli::{Args, Key};
use crate::filter::{self, Filter, Limits, Source};
use crate::hosts::Hosts;
use crate::kube::{ApiServer, check_url, is_loopback};
use crate::logger::Format;
use crate::manifest::is_label;
use log::LevelFilter;
use std::ffi::OsString;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The name of the default filter.
const DEFAULT: &str = "<default>";
const DEFAULT_FILTER: &str = include_str!("default.jq");
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Where kubectl proxy listens by default.
const KUBECTL_PROXY: &str = "http://127.0.0.1:8001";
const PORT: u16 = 8000;
/// GitHub's limit for a webhook's payload.
const MAX_BODY_BYTES: usize = 25 << 20;
const BODY_BYTES: usize = 2 << 20;
const CONNECTIONS: usize = 1024;
/// Each has a slot of 24 bytes, in use or not.
const MAX_CONNECTIONS: usize = 1 << 20;
const FILTER_MEMORY: usize = 16 << 20;
/// With less, no useful filter can run.
const MIN_FILTER_MEMORY: usize = 64 << 10;
const MAX_FILTER_MEMORY: usize = 1 << 30;
const FILTER_TIME: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Longer than the 60 s of nginx and of cloud balancers, so that they close first: closing first races with the peer's next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Shorter than the 50 s and 60 s after which ordinary proxies give up, HAProxy as Debian ships it and nginx.
const WAIT: Duration = Duration::from_secs(45);
/// Some fifteen thousand Jobs.
const CACHE_BYTES: usize = 16 << 20;
/// One Job with the longest status that is usual.
const MIN_CACHE_BYTES: usize = 64 << 10;
const MAX_CACHE_BYTES: usize = 1 << 30;

/// What is logged, and how.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) level: LevelFilter,
    pub(crate) format: Format,
    /// Whether the access log has what proxies say in `X-Forwarded-For`.
    pub(crate) forwarded_for: bool,
}

/// Checked settings, with what they name opened, read and compiled.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: Listen,
    pub(crate) port: u16,
    pub(crate) log: Log,
    pub(crate) filter: Filter,
    /// Where the filter comes from: its file, `<argument>` or `<default>`.
    pub(crate) filter_name: String,
    pub(crate) namespace: String,
    pub(crate) dry_run: DryRun,
    /// None with `--dry-run=client`.
    pub(crate) api_server: Option<Arc<ApiServer>>,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_connections: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) shutdown_delay: Duration,
    /// How long a caller may wait for the end of a Job; zero: not at all.
    pub(crate) max_wait: Duration,
    /// Whether to watch Jobs.
    pub(crate) watch: bool,
    /// Bytes of what is known of Jobs.
    pub(crate) max_cache_bytes: usize,
    /// Headers that serve as the idempotency key, each as one name or several joined names in lower case.
    pub(crate) idempotency_headers: Vec<Vec<String>>,
    pub(crate) enabled: Enabled,
    /// Who may call.
    pub(crate) auth: Auth,
    /// By which names.
    pub(crate) hosts: Hosts,
    pub(crate) accept: Accept,
    /// Whether readiness waits until the API server grants what is needed.
    pub(crate) require_access: bool,
    pub(crate) check_only: bool,
    /// To be logged once the log is open.
    pub(crate) warnings: Vec<String>,
}

impl Config {
    pub(crate) fn has_default_filter(&self) -> bool {
        self.filter_name == DEFAULT
    }

    /// What runs, for a line of the log.
    pub(crate) fn summary(&self) -> String {
        let server = match (&self.api_server, self.dry_run) {
            (None, _) => "no API server (dry run: manifests are shown, nothing is called)".to_owned(),
            (Some(server), DryRun::Server) => format!("API server {} (dry run: nothing is stored)", server.base()),
            (Some(server), _) => format!("API server {}", server.base()),
        };
        let (enabled, digest) = (self.enabled.words(), self.filter.digest());
        let enabled = if enabled.is_empty() { "nothing" } else { &enabled };
        format!(
            "version {}, filter {} ({digest}), namespace {}, {server}, enabled: {enabled}, callers: {}",
            env!("CARGO_PKG_VERSION"),
            self.filter_name,
            self.namespace,
            self.auth.summary()
        )
    }
}

/// `environment` gives the value of a variable.
///
/// Errors: all problems.
pub(crate) fn load(args: &Args, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Config, Problems> {
    let mut reader =
        Reader { args, environment, problems: Problems { usage: args.problems.clone(), failed: Vec::new() } };
    let mut warnings = Vec::new();
    let in_cluster = in_cluster_url(&reader);

    let default_listen = if in_cluster.is_some() { Listen::All } else { Listen::Ip(Ipv4Addr::LOCALHOST.into()) };
    let listen = reader.parsed(Key::ListenAddress, default_listen, values::listen);
    let port =
        reader.parsed(Key::Port, PORT, |value| value.parse().map_err(|_| "is not a port from 0 to 65535".into()));
    let log = log(&mut reader);
    let dry_run = reader.parsed(Key::DryRun, DryRun::None, values::dry_run);
    let max_body_bytes = reader.number(Key::MaxBodyBytes, BODY_BYTES, 1, MAX_BODY_BYTES);
    let max_connections = reader.number(Key::MaxConnections, CONNECTIONS, 1, MAX_CONNECTIONS);
    let limits = limits(&mut reader);
    let request_timeout = reader.duration(Key::RequestTimeout, REQUEST_TIMEOUT, Duration::from_millis(1));
    let idle_timeout = reader.duration(Key::IdleTimeout, IDLE_TIMEOUT, Duration::from_secs(1));
    let shutdown_delay = reader.duration(Key::ShutdownDelay, Duration::ZERO, Duration::ZERO);
    let max_wait = reader.duration(Key::MaxWait, WAIT, Duration::ZERO);
    let max_cache_bytes = reader.number(Key::MaxCacheBytes, CACHE_BYTES, MIN_CACHE_BYTES, MAX_CACHE_BYTES);

    let idempotency_headers = reader.parsed(Key::IdempotencyHeaders, Vec::new(), header_names);
    let enabled = reader.parsed(Key::Enable, Enabled::default(), enabled);
    let enabled = Enabled { docs: reader.boolean(Key::Docs, true), ..enabled };
    let require_access = reader.boolean(Key::RequireAccess, false);
    let accept = reader.parsed(Key::Accept, Accept::default(), values::accept);
    let hosts = callers::hosts(&mut reader, listen);
    let auth = callers::auth(&mut reader, dry_run, enabled, &mut warnings);
    let watch = reader.boolean(Key::Watch, true);
    if !watch && enabled.list {
        reader.problems.usage.push("--enable list needs the watch, which --watch=false leaves out".into())
    }

    let service_account = service_account(&reader);
    let default_namespace = default_namespace(&service_account, dry_run);
    let namespace = reader.parsed(Key::Namespace, default_namespace, values::namespace);
    let api_server = api_server(&mut reader, dry_run, in_cluster, &service_account, &mut warnings);
    let filter = filter(&mut reader, limits, &mut warnings);

    let problems = reader.problems;
    match (filter, api_server, auth) {
        (Some((filter, filter_name)), Some(api_server), Some(auth)) if problems == Problems::default() => Ok(Config {
            listen,
            port,
            log,
            filter,
            filter_name,
            namespace,
            dry_run,
            api_server,
            max_body_bytes,
            max_connections,
            request_timeout,
            idle_timeout,
            shutdown_delay,
            max_wait,
            watch,
            max_cache_bytes,
            idempotency_headers,
            enabled,
            auth,
            hosts,
            accept,
            require_access,
            check_only: args.check,
            warnings,
        }),
        _ => Err(problems),
    }
}

fn log(reader: &mut Reader<'_>) -> Log {
    Log {
        level: reader.parsed(Key::LogLevel, LevelFilter::Info, values::log_level),
        format: reader.parsed(Key::LogFormat, Format::Text, values::log_format),
        forwarded_for: reader.boolean(Key::ForwardedFor, false),
    }
}

/// Of a filter run.
fn limits(reader: &mut Reader<'_>) -> Limits {
    let memory = reader.number(Key::MaxFilterMemory, FILTER_MEMORY, MIN_FILTER_MEMORY, MAX_FILTER_MEMORY);
    let time = reader.duration(Key::MaxFilterTime, FILTER_TIME, Duration::from_millis(1));
    Limits { steps: filter::MAX_STEPS, memory, time, stack: filter::MAX_STACK, output: filter::MAX_OUTPUT }
}

/// As client-go builds it.
fn in_cluster_url(reader: &Reader<'_>) -> Option<String> {
    let part = |name| reader.variable(name).and_then(|value| value.into_string().ok());
    let (host, port) = (part("KUBERNETES_SERVICE_HOST")?, part("KUBERNETES_SERVICE_PORT")?);
    let is_ipv6 = host.contains(':') && !host.starts_with('[');
    Some(if is_ipv6 { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") })
}

/// The folder with the service account's files. In a debug build a variable can replace it, so that tests do not read those of the
/// machine, which may be a pod itself.
fn service_account(reader: &Reader<'_>) -> PathBuf {
    let replaced = if cfg!(debug_assertions) { reader.variable("SERVICE_ACCOUNT_FOLDER") } else { None };
    replaced.map_or_else(|| SERVICE_ACCOUNT.into(), PathBuf::from)
}

/// The service account's, if there is one.
fn default_namespace(service_account: &Path, dry_run: DryRun) -> String {
    let text = if dry_run == DryRun::Client { None } else { read_text(&service_account.join("namespace"), 256).ok() };
    let namespace = text.map(|text| text.trim().to_owned()).filter(|namespace| is_label(namespace));
    namespace.unwrap_or_else(|| "default".to_owned())
}

/// None if there was a problem; Some(None) if no API server is needed.
fn api_server(
    reader: &mut Reader<'_>,
    dry_run: DryRun,
    in_cluster: Option<String>,
    service_account: &Path,
    warnings: &mut Vec<String>,
) -> Option<Option<Arc<ApiServer>>> {
    let default = in_cluster.unwrap_or_else(|| KUBECTL_PROXY.to_owned());
    let (url, spelled) = reader
        .text(Key::Server)
        .unwrap_or_else(|| (default, "KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT".into()));
    let token_file = reader.path(Key::TokenFile);
    let ca_file = reader.path(Key::CertificateAuthority);
    let url = match check_url(&url) {
        Ok(url) => url,
        Err(why) => {
            reader.problems.usage.push(format!("{spelled}: {url:?} is not a URL of an API server: {why}"));
            return None;
        }
    };
    if dry_run == DryRun::Client {
        return Some(None);
    }
    let (has_token_file, has_ca_file) = (token_file.is_some(), ca_file.is_some());
    let of_service_account = |file| Some(service_account.join(file));
    let (token_file, ca_file) = if url.starts_with("https://") {
        (token_file.or_else(|| of_service_account("token")), ca_file.or_else(|| of_service_account("ca.crt")))
    } else {
        if token_file.is_some() && !is_loopback(&url) {
            warnings.push(format!("the token goes to {url} without encryption"));
        }
        (token_file, None)
    };
    match ApiServer::new(&url, token_file, ca_file) {
        Ok(api_server) => Some(Some(Arc::new(api_server))),
        Err(bad) => {
            for (error, is_given, option) in
                [(bad.token, has_token_file, "--token-file"), (bad.ca, has_ca_file, "--certificate-authority")]
            {
                let hint = if is_given { String::new() } else { format!("; see {option}") }; // a default, of the service account
                reader.problems.failed.extend(error.map(|error| error + &hint))
            }
            None
        }
    }
}

/// The filter and its name; None if there was a problem.
fn filter(reader: &mut Reader<'_>, limits: Limits, warnings: &mut Vec<String>) -> Option<(Filter, String)> {
    let file = reader.text(Key::FromFile);
    let argument = reader.text(Key::Filter).map(|(filter, _)| filter);
    let is_option = file.as_ref().is_some_and(|(_, source)| source.starts_with("--"));
    let (file, argument) = match (file, argument) {
        (Some(_), Some(_)) if is_option => {
            let problem = "there are two filters, --from-file and the argument FILTER: leave one out";
            reader.problems.usage.push(problem.into());
            return None;
        }
        // the command line overrides the environment
        (Some((file, _)), Some(argument)) => {
            warnings.push(format!("the filter is the argument FILTER; the variable FROM_FILE, `{file}`, is ignored"));
            (None, Some(argument))
        }
        (file, argument) => (file.map(|(file, _)| file), argument),
    };
    let code;
    let source = match (&file, &argument) {
        (Some(file), _) => {
            match read_text(Path::new(file), 1 << 20) {
                Ok(text) => code = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text),
                Err(error) => {
                    reader.problems.failed.push(format!("cannot read filter `{file}`: {error}"));
                    return None;
                }
            }
            let parent = Path::new(file).parent().filter(|parent| !parent.as_os_str().is_empty());
            Source { code: &code, name: file, folder: Some(parent.unwrap_or(Path::new("."))) }
        }
        (None, Some(argument)) => Source { code: argument, name: "<argument>", folder: None },
        (None, None) => {
            warnings.push("no filter was given; the default filter creates demonstration Jobs".to_owned());
            Source { code: DEFAULT_FILTER, name: DEFAULT, folder: None }
        }
    };
    let name = source.name.to_owned();
    match Filter::compile(source, limits, &crate::manifest::MEMBERS) {
        Ok(filter) => {
            warnings.extend(filter.unstable_name().map(|why| {
                format!(
                    "metadata.name depends on {why}, so a repeated request creates another Job; build the name from path, query, body or \
                     headers that stay the same"
                )
            }));
            Some((filter, name))
        }
        Err(errors) => {
            reader.problems.failed.push(errors);
            None
        }
    }
}

/// Errors: also if it is longer than `max` bytes.
fn read_text(path: &Path, max: u64) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > max {
        return Err(std::io::Error::other(format!("longer than {max} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
