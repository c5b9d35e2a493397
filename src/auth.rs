//! Who calls. Decided from the raw request, before anything parses its body: [`Auth::check`].
//!
//! There are three means: tokens in files, tokens that the API server knows, and signatures of webhooks. A path that belongs to a webhook is
//! opened by its signature alone; for all others any one of the means of `--auth` is enough. A failure is the same 401 for the caller, whatever
//! its cause; the log has the cause.

mod caller;
mod counts;
mod credential;
mod followed;
mod reviews;
mod signature;
mod tokens;
mod webhooks;

pub(crate) use caller::Caller;
pub(crate) use reviews::{Known, Wanted};

use caller::CallerKind;
use counts::{Counts, Means, Outcome};
use credential::Credential;
use followed::Followed;
use reviews::{Answer, Reviews};
use tokens::Tokens;
use webhooks::Webhook;

use crate::hash::{Digest, sha256};
use crate::http::Request;
use crate::kube::User;
use crate::status::{Reason, Status};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Schemes of `WWW-Authenticate` (RFC 9110 11.6.1).
const BEARER: &str = "Bearer realm=\"k8s-job-dispatcher\"";
const BASIC: &str = "Basic realm=\"k8s-job-dispatcher\", charset=\"UTF-8\"";

/// What a request is for, as far as it matters who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose<'p> {
    /// Whoever asks is answered.
    Health,
    Metrics,
    /// The page for people, and OpenAPI.
    Docs,
    /// A POST to this decoded path.
    Dispatch(&'p str),
    /// Something with Jobs.
    Jobs(Wanted),
    /// It will be an error.
    Other,
}

/// What is served to whoever asks (`--public`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Public {
    pub(crate) metrics: bool,
    pub(crate) docs: bool,
}

/// What is decided of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is served. None: it was not asked who calls.
    Admitted(Option<Arc<Caller>>),
    Refused(Status),
    /// The API server has to be asked about this token.
    Ask(Digest),
}

/// What the API server has to be asked about a token. It has no `Debug`.
pub(crate) struct Question {
    /// The token, as text.
    pub(crate) token: String,
    /// Who has it, if that is known.
    pub(crate) known: Option<Known>,
    /// Whether that may do this is asked too.
    pub(crate) wanted: Option<Wanted>,
}

/// What `--auth` and `--webhook` say, with the files that they name.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    tokens: Option<Followed<Tokens>>,
    reviews: Option<Mutex<Reviews>>,
    /// A token has to be for one of them.
    audiences: Vec<String>,
    webhooks: Vec<Webhook>,
    public: Public,
    counts: Counts,
}

impl Auth {
    /// `means`: the words of `--auth`. `webhooks`: the values of `--webhook`.
    ///
    /// Errors: usage, and what is wrong with files.
    pub(crate) fn new(
        means: &[&str],
        audiences: Vec<String>,
        webhooks: &[&str],
        public: Public,
    ) -> Result<Self, (Vec<String>, Vec<String>)> {
        let (mut auth, mut usage, mut failed) = (Auth { audiences, public, ..Auth::default() }, Vec::new(), Vec::new());
        for means in means {
            match means.split_once('=') {
                Some(("tokens", folder)) if auth.tokens.is_none() && !folder.is_empty() => {
                    match Followed::open(PathBuf::from(folder), true, Box::new(Tokens::of)) {
                        Ok(tokens) => auth.tokens = Some(tokens),
                        Err(problems) => failed.extend(problems),
                    }
                }
                None if *means == "token-review" => auth.reviews = Some(Mutex::new(Reviews::new(Instant::now()))),
                Some(("tokens", _)) => usage.push("--auth: there is one folder: tokens=FOLDER".to_owned()),
                _ => usage.push(format!("--auth: unknown value {means:?}: expected tokens=FOLDER or token-review")),
            }
        }
        for text in webhooks {
            match Webhook::parse(text) {
                Ok(Ok(webhook)) if auth.webhooks.iter().any(|other| other.path == webhook.path) => {
                    usage.push(format!("--webhook: {} is given twice", webhook.path))
                }
                Ok(Ok(webhook)) => auth.webhooks.push(webhook),
                Ok(Err(problems)) => failed.extend(problems),
                Err(why) => usage.push(format!("--webhook: {text:?} {why}")),
            }
        }
        if usage.is_empty() && failed.is_empty() { Ok(auth) } else { Err((usage, failed)) }
    }

    /// Whether all callers have to prove who they are, except those of webhooks.
    pub(crate) fn is_on(&self) -> bool {
        self.tokens.is_some() || self.reviews.is_some()
    }

    /// Whether the API server is asked about tokens.
    pub(crate) fn asks(&self) -> bool {
        self.reviews.is_some()
    }

    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// For a line of the log: `tokens in /auth, token-review; webhooks /job/github (github)`.
    pub(crate) fn summary(&self) -> String {
        let tokens = self.tokens.as_ref().map(|tokens| format!("tokens in {}", tokens.path().display()));
        let review = self.reviews.as_ref().map(|_| "token-review".to_owned());
        let means = tokens.into_iter().chain(review).collect::<Vec<_>>().join(", ");
        let means = if means.is_empty() { "not authenticated".to_owned() } else { means };
        if self.webhooks.is_empty() { means } else { format!("{means}; webhooks {}", self.paths()) }
    }

    /// The paths of webhooks with their schemes; empty without any.
    pub(crate) fn paths(&self) -> String {
        let one = |webhook: &Webhook| format!("{} ({})", webhook.path, webhook.scheme.word());
        self.webhooks.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Begins the series of the metric.
    pub(crate) fn begin_series(&self) {
        let is_on = |means: &Means| match means {
            Means::Tokens => self.tokens.is_some(),
            Means::TokenReview => self.asks(),
            Means::Webhook => !self.webhooks.is_empty(),
            Means::Nothing => self.is_on(),
        };
        Means::ALL.into_iter().filter(is_on).for_each(|means| self.counts.begin(means))
    }

    /// Decides from the head alone.
    ///
    /// Errors: the refusal, if it does not depend on the body, nor on the API server.
    pub(crate) fn check_head(&self, purpose: Purpose<'_>, request: &Request) -> Result<(), Status> {
        match purpose {
            Purpose::Dispatch(path) if self.webhook(path).is_some() => Ok(()),
            _ => match self.decide(purpose, request) {
                (means, outcome, Verdict::Refused(status)) => {
                    self.counts.add(means, outcome);
                    Err(status)
                }
                _ => Ok(()),
            },
        }
    }

    /// Decides who calls, from the whole request.
    pub(crate) fn check(&self, purpose: Purpose<'_>, request: &Request) -> Verdict {
        if !self.is_on() && self.webhooks.is_empty() {
            return Verdict::Admitted(None);
        }
        let (means, outcome, verdict) = self.decide(purpose, request);
        if !matches!(verdict, Verdict::Admitted(None) | Verdict::Ask(_)) {
            self.counts.add(means, outcome)
        }
        verdict
    }

    fn webhook(&self, path: &str) -> Option<&Webhook> {
        self.webhooks.iter().filter(|webhook| webhook.is_for(path)).max_by_key(|webhook| webhook.path.len())
    }

    /// With the means, and the outcome.
    fn decide(&self, purpose: Purpose<'_>, request: &Request) -> (Means, Outcome, Verdict) {
        if let Purpose::Dispatch(path) = purpose
            && let Some(webhook) = self.webhook(path)
        {
            return match webhook.verify(request, &now) {
                Ok(caller) => (Means::Webhook, Outcome::Ok, Verdict::Admitted(Some(caller.clone()))),
                Err(why) => (
                    Means::Webhook,
                    Outcome::Unauthorized,
                    self.unauthorized(format!("webhook {}: {why}", webhook.path)),
                ),
            };
        }
        let is_public = match purpose {
            Purpose::Health => true,
            Purpose::Metrics => self.public.metrics,
            Purpose::Docs => self.public.docs,
            Purpose::Dispatch(_) | Purpose::Jobs(_) | Purpose::Other => false,
        };
        if is_public || !self.is_on() {
            return (Means::Nothing, Outcome::Ok, Verdict::Admitted(None));
        }
        let credential = Credential::of(request);
        let found = self.tokens.as_ref().and_then(|tokens| of_files(&tokens.current(), &credential));
        match (found, credential, &self.reviews) {
            (Some(caller), ..) => (Means::Tokens, Outcome::Ok, Verdict::Admitted(Some(caller))),
            (None, Credential::Bearer(token), Some(reviews)) if is_plain(token) => {
                self.of_review(&lock(reviews), purpose, token)
            }
            (None, Credential::Missing, _) => {
                (Means::Nothing, Outcome::Unauthorized, self.unauthorized("there is no Authorization".to_owned()))
            }
            (None, Credential::Unusable(why), _) => {
                (Means::Nothing, Outcome::Unauthorized, self.unauthorized(why.to_owned()))
            }
            (None, Credential::Bearer(_) | Credential::Basic { .. }, _) => {
                let (means, why) = match self.tokens {
                    Some(_) => (Means::Tokens, "the token is not one of those in the files"),
                    None => (Means::TokenReview, "the API server is asked about Bearer tokens of printable ASCII only"),
                };
                (means, Outcome::Unauthorized, self.unauthorized(why.to_owned()))
            }
        }
    }

    fn of_review(&self, reviews: &Reviews, purpose: Purpose<'_>, token: &[u8]) -> (Means, Outcome, Verdict) {
        let digest = sha256(token);
        let (outcome, verdict) = match reviews.answer(&digest, wanted(purpose), Instant::now()) {
            Answer::Yes(caller) => (Outcome::Ok, Verdict::Admitted(Some(caller))),
            Answer::NoToken => (
                Outcome::Unauthorized,
                self.unauthorized("the API server did not know the token a moment ago".to_owned()),
            ),
            Answer::NoRight(caller) => (Outcome::Forbidden, Verdict::Refused(forbidden(&caller, purpose))),
            Answer::Ask(_) => (Outcome::Ok, Verdict::Ask(digest)),
        };
        (Means::TokenReview, outcome, verdict)
    }

    fn unauthorized(&self, why: String) -> Verdict {
        let message = "a valid credential is needed: see docs/security.md of the dispatcher";
        let challenges: &[&str] = if self.tokens.is_some() { &[BEARER, BASIC] } else { &[BEARER] };
        Verdict::Refused(Status { challenges, ..Status::new(Reason::Unauthorized, message) }.with_note(why))
    }

    /// A request begins to ask about this token, for all that have it. [`Auth::has_asked`] ends that, in any case.
    ///
    /// Errors: too many ask.
    pub(crate) fn begin_asking(&self, token: &Digest) -> Result<(), Status> {
        let may = self.reviews.as_ref().is_none_or(|reviews| lock(reviews).begin_asking(token, Instant::now()));
        if may {
            return Ok(());
        }
        self.counts.add(Means::TokenReview, Outcome::Unavailable);
        Err(Status::new(Reason::Overloaded, "too many tokens are being checked"))
    }

    /// What to ask about a token; None if there is no need any longer, for another request has asked.
    pub(crate) fn question(&self, purpose: Purpose<'_>, request: &Request) -> Option<Question> {
        let (Credential::Bearer(token), Some(reviews)) = (Credential::of(request), &self.reviews) else { return None };
        let answer = lock(reviews).answer(&sha256(token), wanted(purpose), Instant::now());
        let Answer::Ask(known) = answer else { return None };
        Some(Question { token: String::from_utf8_lossy(token).into_owned(), known, wanted: wanted(purpose) })
    }

    /// A request that has begun to ask has ended with that.
    pub(crate) fn has_asked(&self) {
        self.reviews.iter().for_each(|reviews| lock(reviews).has_asked())
    }

    /// The API server could not say.
    pub(crate) fn cannot_tell(&self, status: Status) -> Verdict {
        self.counts.add(Means::TokenReview, Outcome::Unavailable);
        Verdict::Refused(status)
    }

    /// The API server has said that a token is nobody's.
    pub(crate) fn learn_nobody(&self, token: &str) {
        self.learn(token, None)
    }

    /// The API server has said who has a token.
    pub(crate) fn learn_owner(&self, token: &str, user: User) -> Known {
        let is_service_account = user.username.starts_with("system:serviceaccount:");
        let kind = if is_service_account { CallerKind::ServiceAccount } else { CallerKind::User };
        let caller = Caller { groups: user.groups.clone(), ..Caller::new(kind, &user.username) };
        let known = Known { caller: Arc::new(caller), user: Arc::new(user) };
        self.learn(token, Some(known.clone()));
        known
    }

    fn learn(&self, token: &str, known: Option<Known>) {
        self.reviews
            .iter()
            .for_each(|reviews| lock(reviews).is_of(sha256(token.as_bytes()), known.clone(), Instant::now()))
    }

    /// The API server has said what the owner of a token may do.
    pub(crate) fn learn_right(&self, token: &str, wanted: Wanted, may: bool) {
        let digest = sha256(token.as_bytes());
        self.reviews.iter().for_each(|reviews| lock(reviews).may(&digest, wanted, may, Instant::now()))
    }

    /// What comes of the answers to a question. `known`: None if the token is nobody's, and `why`.
    pub(crate) fn conclude(&self, purpose: Purpose<'_>, known: Option<&Known>, may: bool, why: &str) -> Verdict {
        let (outcome, verdict) = match known {
            None => (Outcome::Unauthorized, self.unauthorized(why.to_owned())),
            Some(known) if may => (Outcome::Ok, Verdict::Admitted(Some(known.caller.clone()))),
            Some(known) => (Outcome::Forbidden, Verdict::Refused(forbidden(&known.caller, purpose))),
        };
        self.counts.add(Means::TokenReview, outcome);
        verdict
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn lock(reviews: &Mutex<Reviews>) -> MutexGuard<'_, Reviews> {
    reviews.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the API server may be asked about a token: it is sent as JSON, and a JWT has few characters.
fn is_plain(token: &[u8]) -> bool {
    !token.is_empty() && token.iter().all(u8::is_ascii_graphic)
}

/// The caller whose file has the token; with Basic it has to be the one of that name.
fn of_files(tokens: &Tokens, credential: &Credential<'_>) -> Option<Arc<Caller>> {
    match credential {
        Credential::Bearer(token) => tokens.find(token).cloned(),
        Credential::Basic { name, password } => {
            tokens.find(password).filter(|caller| caller.name.as_bytes() == name).cloned()
        }
        Credential::Missing | Credential::Unusable(_) => None,
    }
}

/// The right that a purpose needs; None if it suffices to be somebody.
fn wanted(purpose: Purpose<'_>) -> Option<Wanted> {
    match purpose {
        Purpose::Dispatch(_) => Some(Wanted { verb: "create", subresource: "" }),
        Purpose::Jobs(wanted) => Some(wanted),
        Purpose::Health | Purpose::Metrics | Purpose::Docs | Purpose::Other => None,
    }
}

fn forbidden(caller: &Caller, purpose: Purpose<'_>) -> Status {
    let right = match wanted(purpose) {
        Some(Wanted { verb, subresource: "" }) => format!("{verb} jobs.k8s-job-dispatcher"),
        Some(Wanted { verb, subresource }) => format!("{verb} jobs/{subresource}.k8s-job-dispatcher"),
        None => "do this".to_owned(),
    };
    let status = Status::new(Reason::NotPermitted, "the caller is not permitted to do this");
    status.with_note(format!("{} may not {right}", caller.name))
}

#[cfg(test)]
mod tests;
