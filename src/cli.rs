//! OWNS the command line: argv to [`Args`]. Syntax only: opens no file, reads no environment.

use lexopt::{Arg, Parser, ValueExt};
use std::ffi::OsString;

pub(crate) const HELP: &str = include_str!("help.txt");

/// Options that mean `true` where they stand without a value.
const SWITCHES: [Key; 2] = [Key::ForwardedFor, Key::RequireAccess];

/// Options of which each occurrence counts; the values have line breaks between them.
const REPEATABLE: [Key; 4] = [Key::Auth, Key::AuthAudience, Key::Webhook, Key::AllowedHost];

/// Every option that takes a value: its long form, short form, and environment variable.
pub(crate) const OPTIONS: [(Key, &str, Option<char>, &str); 32] = [
    (Key::FromFile, "from-file", Some('f'), "FROM_FILE"),
    (Key::Port, "port", Some('p'), "PORT"),
    (Key::ListenAddress, "listen-address", None, "LISTEN_ADDRESS"),
    (Key::LogLevel, "log-level", None, "LOG_LEVEL"),
    (Key::LogFormat, "log-format", None, "LOG_FORMAT"),
    (Key::ForwardedFor, "forwarded-for", None, "FORWARDED_FOR"),
    (Key::Server, "server", None, "KUBE_SERVER"),
    (Key::Namespace, "namespace", Some('n'), "NAMESPACE"),
    (Key::TokenFile, "token-file", None, "TOKEN_FILE"),
    (Key::CertificateAuthority, "certificate-authority", None, "CERTIFICATE_AUTHORITY"),
    (Key::DryRun, "dry-run", None, "DRY_RUN"),
    (Key::MaxBodyBytes, "max-body-bytes", None, "MAX_BODY_BYTES"),
    (Key::MaxConnections, "max-connections", None, "MAX_CONNECTIONS"),
    (Key::MaxFilterMemory, "max-filter-memory", None, "MAX_FILTER_MEMORY"),
    (Key::MaxFilterTime, "max-filter-time", None, "MAX_FILTER_TIME"),
    (Key::RequestTimeout, "request-timeout", None, "REQUEST_TIMEOUT"),
    (Key::IdleTimeout, "idle-timeout", None, "IDLE_TIMEOUT"),
    (Key::ShutdownDelay, "shutdown-delay", None, "SHUTDOWN_DELAY"),
    (Key::MaxWait, "max-wait", None, "MAX_WAIT"),
    (Key::Watch, "watch", None, "WATCH"),
    (Key::MaxCacheBytes, "max-cache-bytes", None, "MAX_CACHE_BYTES"),
    (Key::IdempotencyHeaders, "idempotency-headers", None, "IDEMPOTENCY_HEADERS"),
    (Key::Enable, "enable", None, "ENABLE"),
    (Key::Docs, "docs", None, "DOCS"),
    (Key::RequireAccess, "require-access", None, "REQUIRE_ACCESS"),
    (Key::Auth, "auth", None, "AUTH"),
    (Key::AuthAudience, "auth-audience", None, "AUTH_AUDIENCE"),
    (Key::Webhook, "webhook", None, "WEBHOOK"),
    (Key::Public, "public", None, "PUBLIC"),
    (Key::AllowedHost, "allowed-host", None, "ALLOWED_HOST"),
    (Key::Accept, "accept", None, "ACCEPT"),
    // a positional argument, kept in the same table
    (Key::Filter, "", None, ""),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Key {
    FromFile,
    Port,
    ListenAddress,
    LogLevel,
    LogFormat,
    ForwardedFor,
    Server,
    Namespace,
    TokenFile,
    CertificateAuthority,
    DryRun,
    MaxBodyBytes,
    MaxConnections,
    MaxFilterMemory,
    MaxFilterTime,
    RequestTimeout,
    IdleTimeout,
    ShutdownDelay,
    MaxWait,
    Watch,
    MaxCacheBytes,
    IdempotencyHeaders,
    Enable,
    Docs,
    RequireAccess,
    Auth,
    AuthAudience,
    Webhook,
    Public,
    AllowedHost,
    Accept,
    Filter,
}

/// What was typed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Args {
    values: [Option<OsString>; OPTIONS.len()],
    pub(crate) check: bool,
    /// Usage errors, reported together with all other problems.
    pub(crate) problems: Vec<String>,
}

impl Args {
    fn put(&mut self, key: Key, value: OsString) {
        let place = &mut self.values[key as usize];
        match place {
            Some(before) if REPEATABLE.contains(&key) => {
                before.push("\n");
                before.push(value)
            }
            _ => *place = Some(value),
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&OsString> {
        self.values[key as usize].as_ref()
    }
}

#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Help,
    Version,
    Run(Box<Args>),
}

/// Of a repeated option the last wins, unless it is one of [`REPEATABLE`].
pub(crate) fn parse(argv: impl IntoIterator<Item = OsString>) -> Command {
    let mut parser = Parser::from_args(argv);
    let mut args = Args::default();
    loop {
        match parser.next() {
            Ok(None) => break,
            Ok(Some(Arg::Short('h') | Arg::Long("help"))) => return Command::Help,
            Ok(Some(Arg::Short('V') | Arg::Long("version"))) => return Command::Version,
            Ok(Some(Arg::Long("check"))) => args.check = true,
            Ok(Some(Arg::Value(filter))) => {
                let place = &mut args.values[Key::Filter as usize];
                if place.is_some() {
                    args.problems.push(format!("unexpected argument {filter:?}: there is one filter"));
                }
                place.get_or_insert(filter);
            }
            Ok(Some(option)) => {
                let known = OPTIONS.iter().find(|(key, long, short, _)| match option {
                    Arg::Long(typed) => *key != Key::Filter && typed == *long,
                    Arg::Short(typed) => Some(typed) == *short,
                    Arg::Value(_) => false,
                });
                let Some((key, ..)) = known else {
                    args.problems.push(option.unexpected().to_string());
                    continue;
                };
                if SWITCHES.contains(key) {
                    let value = parser.optional_value().or_else(|| next_boolean(&mut parser));
                    args.values[*key as usize] = Some(value.unwrap_or_else(|| "true".into()));
                    continue;
                }
                match parser.value() {
                    Ok(value) => args.put(*key, value),
                    Err(error) => args.problems.push(error.to_string()),
                }
            }
            Err(error) => args.problems.push(error.to_string()),
        }
    }
    Command::Run(Box::new(args))
}

/// The next word, if it is a boolean; as a filter it would make no sense.
fn next_boolean(parser: &mut Parser) -> Option<OsString> {
    let mut words = parser.try_raw_args()?;
    let is_boolean = words.peek().is_some_and(|word| word == "true" || word == "false");
    if is_boolean { words.next() } else { None }
}

/// As text.
///
/// Errors: not UTF-8.
pub(crate) fn text(value: &OsString) -> Result<String, String> {
    value.clone().string().map_err(|_| format!("{value:?} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(argv: &[&str]) -> Command {
        parse(argv.iter().map(OsString::from))
    }

    fn args(argv: &[&str]) -> Args {
        match run(argv) {
            Command::Run(args) => *args,
            other => panic!("{argv:?} gave {other:?}"),
        }
    }

    #[test]
    fn every_option_is_taken_in_every_form_and_the_last_wins_or_all_count() {
        for (at, (key, long, short, variable)) in OPTIONS.iter().enumerate() {
            assert_eq!(*key as usize, at, "the table is in the order of the keys");
            if *key == Key::Filter {
                continue;
            }
            let option = format!("--{long}");
            let value = |argv: &[&str]| args(argv).get(*key).unwrap().clone();
            if SWITCHES.contains(key) {
                assert_eq!(
                    [value(&[&option]), value(&[&option, "a"]), value(&[&format!("{option}=b")])],
                    ["true", "true", "b"]
                );
                assert_eq!(args(&[&option, "a"]).get(Key::Filter).unwrap(), "a");
                assert_eq!(value(&[&option, "false"]), "false");
                assert_eq!(args(&[&option, "false"]).get(Key::Filter), None);
            } else {
                assert_eq!(value(&[&option, "a"]), "a");
                let last = if REPEATABLE.contains(key) { "a\nb" } else { "b" };
                assert_eq!(value(&[&option, "a", &format!("{option}=b")]), last);
                assert_eq!(args(&[&option]).problems, [format!("missing argument for option '{option}'")]);
            }
            assert_eq!(args(&["."]).get(*key), None);
            assert!(HELP.contains(&option), "help names {option}");
            assert!(HELP.contains(&format!("[env: {variable}]")), "help names {variable}");
            if let Some(short) = short {
                assert_eq!(args(&[&format!("-{short}a")]).get(*key).unwrap(), "a");
                assert!(HELP.contains(&format!("-{short}, {option}")), "help names -{short}");
            }
        }
    }

    #[test]
    fn every_option_in_help_is_taken() {
        for word in HELP.split_whitespace().filter(|word| word.starts_with("--")) {
            let known = OPTIONS.iter().any(|(_, long, ..)| word == format!("--{long}"));
            assert!(known || ["--help", "--version", "--check"].contains(&word), "{word}");
        }
    }

    #[test]
    fn all_problems_are_reported() {
        let problems = args(&["--nope", "-x", ".", "..", "--port"]).problems;
        let want = [
            "invalid option '--nope'",
            "invalid option '-x'",
            "unexpected argument \"..\": there is one filter",
            "missing argument for option '--port'",
        ];
        assert_eq!(problems, want);
    }

    #[test]
    fn the_rest() {
        assert_eq!(run(&["-h", "--nope"]), Command::Help);
        assert_eq!(run(&["--version"]), Command::Version);
        assert!(args(&["--check"]).check);
        assert_eq!(args(&["--", "-x"]).get(Key::Filter).unwrap(), "-x");
    }
}
