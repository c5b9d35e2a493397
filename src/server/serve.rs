//! Answers whole requests: plans, and calls the API server. A panic is answered with 500.

use super::access::Access;
use super::access_log::begin_series;
use super::slot::Slot;
use crate::account::Account;
use crate::answered::Answered;
use crate::auth::{Caller, Purpose, Wanted};
use crate::config::Config;
use crate::dispatch::{
    Begun, Page, Plan, PodReasons, Progress, Query, RetryBudget, Shared, Work, no_page, perform, plan, plan_large,
};
use crate::docs::Docs;
use crate::http::{Reply, Request};
use crate::jobs::{Jobs, NoPage};
use crate::kube::Client;
use crate::logger::about;
use crate::metrics::{Gauges, METRICS};
use crate::route::{Route, check_headers, route};
use crate::status::{Reason, Status, internal_error};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Minimum time between two readiness checks of the API server, however many probes arrive.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Longer than a readiness check takes with all its time-outs.
const GIVE_UP: Duration = Duration::from_secs(10);

/// What a request for a page of Jobs comes to.
pub(super) enum Listed {
    Answer(Answered),
    /// It is asked first why pods wait.
    Asks(Box<Work>),
}

/// Answers a whole request.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) config: Config,
    retries: RetryBudget,
    /// The cache of Jobs, and the callers that wait for them.
    pub(super) jobs: Jobs<Slot>,
    readiness: Mutex<Readiness>,
    pub(super) access: Access,
    docs: Docs,
}

#[derive(Debug, Default)]
struct Readiness {
    is_ready: bool,
    known_since: Option<Instant>,
    /// One thread checks; the others answer with the previous result, unless that check never ends.
    asked_since: Option<Instant>,
}

impl Server {
    pub(super) fn new(config: Config) -> Self {
        let docs = Docs::new(&config);
        begin_series();
        config.auth.begin_series();
        Server {
            jobs: Jobs::new(config.max_cache_bytes),
            config,
            retries: RetryBudget::default(),
            readiness: Mutex::default(),
            access: Access::default(),
            docs,
        }
    }

    /// Answers what is not a dispatch. `id`: of the request, for the log; likewise below. `gauges`: for the metrics.
    pub(super) fn answer(
        &self,
        id: &str,
        route: &Result<Route, Status>,
        request: &Request,
        client: &mut Option<Client>,
        is_stopping: bool,
        gauges: &dyn Fn() -> Gauges,
    ) -> Answered {
        let _about = about(id);
        self.guarded(client, |client| match route {
            Err(status) => status.clone().into(),
            Ok(Route::Live) => ok(),
            Ok(Route::Ready) => self.ready(client, is_stopping),
            Ok(Route::Metrics) => {
                let (media_type, text) = METRICS.print(&gauges(), request.header("accept").unwrap_or_default());
                Reply::text(media_type, text.into_bytes()).into()
            }
            Ok(Route::OpenApi) => self.docs.contract().into(),
            Ok(Route::Page(page)) => self.docs.page(*page).into(),
            // see `plan`, `perform` and `list`
            Ok(Route::Dispatch(_) | Route::Job(_) | Route::Log(_) | Route::Delete(_) | Route::List) => {
                internal_error().into()
            }
        })
    }

    /// A page of Jobs; None if they are not known at the moment. `reasons`: why pods wait, once that is known.
    pub(super) fn list(&self, id: &str, request: &Request, reasons: Option<&PodReasons>) -> Option<Listed> {
        let _about = about(id);
        let listed = catch_unwind(AssertUnwindSafe(|| match Query::of(request, self.config.enabled) {
            Err(status) => Some(Listed::Answer(status.into())),
            Ok(query) if self.config.api_server.is_none() => Some(Listed::Answer(query.empty_page().into())),
            Ok(query) => match query.page(&self.jobs.known, reasons) {
                Ok(Page { reply, starting }) if starting.is_empty() => Some(Listed::Answer(reply.into())),
                Ok(Page { starting, .. }) => Some(Listed::Asks(Work::for_page(starting))),
                Err(NoPage::Forbidden) => Some(Listed::Answer(no_page(NoPage::Forbidden).into())),
                Err(NoPage::NotNow) => None,
            },
        }));
        listed.unwrap_or_else(|_panic| Some(Listed::Answer(internal_error().into())))
    }

    /// Decides what a dispatch does, unless its filter needs a large run.
    pub(super) fn plan(
        &self,
        id: &str,
        route: &Result<Route, Status>,
        request: &Request,
        caller: Option<&Caller>,
        until: Instant,
    ) -> Result<Plan, Status> {
        let _about = about(id);
        let route = route.as_ref().map_err(Status::clone)?;
        let planned = catch_unwind(AssertUnwindSafe(|| plan(&self.config, route, request, caller, until)));
        planned.unwrap_or_else(|_panic| Err(internal_error()))
    }

    /// Decides what a dispatch does, with a large run of its filter, which ends at `until` at the latest.
    pub(super) fn plan_large(
        &self,
        id: &str,
        route: &Result<Route, Status>,
        request: &Request,
        caller: Option<&Caller>,
        begun: Begun,
        until: Instant,
    ) -> Result<Box<Work>, Status> {
        let _about = about(id);
        let Ok(Route::Dispatch(path)) = route else { return Err(internal_error()) };
        let planned = catch_unwind(AssertUnwindSafe(|| plan_large(&self.config, path, request, caller, begun, until)));
        planned.unwrap_or_else(|_panic| Err(internal_error()))
    }

    /// Calls the API server until a dispatch is done, or has to pause.
    pub(super) fn perform(
        &self,
        id: &str,
        work: Box<Work>,
        client: &mut Option<Client>,
        account: &Arc<Account>,
        until: Instant,
    ) -> Progress {
        let _about = about(id);
        self.guarded(client, |client| {
            let (config, budget, known) = (&self.config, &self.retries, &self.jobs.known);
            perform(Shared { config, budget, account, known }, client, work, until)
        })
    }

    /// Turns a panic into a 500.
    pub(super) fn guarded<R: From<Status>>(
        &self,
        client: &mut Option<Client>,
        work: impl FnOnce(Option<&mut Client>) -> R,
    ) -> R {
        let reply = catch_unwind(AssertUnwindSafe(|| work(client.as_mut())));
        reply.unwrap_or_else(|_panic| {
            *client = self.client(); // whatever state the old one is in
            internal_error().into()
        })
    }

    /// Checks that need only the head of a request. `is_reserved`: its connection is for probes alone.
    ///
    /// Errors: the error that it gets.
    pub(super) fn admit(&self, request: &Request, is_reserved: bool) -> Result<(), Status> {
        let Config { auth, hosts, accept, .. } = &self.config;
        let route = self.route(request, is_reserved)?;
        auth.check_head(purpose(&route), request)?;
        check_headers(&route?, request, hosts, *accept)
    }

    /// The route of a request. `is_reserved`: its connection is for probes alone.
    ///
    /// Errors: it is refused, whoever calls.
    pub(super) fn route(&self, request: &Request, is_reserved: bool) -> Result<Result<Route, Status>, Status> {
        let route = route(request, self.config.enabled);
        if is_reserved && !route.as_ref().is_ok_and(Route::is_probe) {
            METRICS.connection_rejected();
            return Err(Status::new(Reason::Overloaded, "too many connections"));
        }
        if !matches!(route, Ok(Route::Live | Route::Ready)) {
            self.config.hosts.check(request)?
        }
        Ok(route)
    }

    #[inline(never)] // it is rare, and needed in several places
    pub(super) fn client(&self) -> Option<Client> {
        self.config.api_server.clone().map(Client::new)
    }

    fn ready(&self, client: Option<&mut Client>, is_stopping: bool) -> Answered {
        if is_stopping {
            return Status::new(Reason::ShuttingDown, "shutting down").into();
        }
        // without a client there is nothing to have access to
        if let Some(message) = self.access.lack().filter(|_| self.config.require_access && client.is_some()) {
            return Status::new(Reason::ServiceUnavailable, message).with_retry_after(1).into();
        }
        let is_ready = client.is_none_or(|client| self.is_ready(client));
        match is_ready {
            true => ok(),
            false => Status::new(Reason::ServiceUnavailable, "the API server is not ready").with_retry_after(1).into(),
        }
    }

    fn is_ready(&self, client: &mut Client) -> bool {
        let lock = || self.readiness.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut readiness = lock();
            let within = |since: Option<Instant>, time| since.is_some_and(|since| since.elapsed() < time);
            if within(readiness.asked_since, GIVE_UP) || within(readiness.known_since, ASK_AGAIN) {
                return readiness.is_ready;
            }
            readiness.asked_since = Some(Instant::now());
        }
        let is_ready = client.is_ready();
        *lock() = Readiness { is_ready, known_since: Some(Instant::now()), asked_since: None };
        is_ready
    }
}

/// The answer to a probe. Some load balancers accept only 200.
fn ok() -> Answered {
    Reply::text("text/plain; charset=utf-8", &b"ok"[..]).into()
}

/// For the decision whether its caller may.
pub(super) fn purpose(route: &Result<Route, Status>) -> Purpose<'_> {
    let jobs = |verb, subresource| Purpose::Jobs(Wanted { verb, subresource });
    match route {
        Ok(Route::Live | Route::Ready) => Purpose::Health,
        Ok(Route::Metrics) => Purpose::Metrics,
        Ok(Route::OpenApi | Route::Page(_)) => Purpose::Docs,
        Ok(Route::Dispatch(path)) => Purpose::Dispatch(path),
        Ok(Route::Job(_)) => jobs("get", ""),
        Ok(Route::Log(_)) => jobs("get", "log"),
        Ok(Route::List) => jobs("list", ""),
        Ok(Route::Delete(_)) => jobs("delete", ""),
        Err(_) => Purpose::Other,
    }
}
