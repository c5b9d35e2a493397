//! The thread that follows our Jobs: one watch, resumed when it ends, and begun with all Jobs where what is known may not belong to the API
//! server's present history. While there is no watch it asks for each Job that somebody waits for, in turn.

use super::evidence::SILENCE;
use super::{Host, Jobs};
use crate::kube::{ApiServer, Client, End, Event, From};
use crate::metrics::METRICS;
use log::{debug, info, warn};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

/// The API server ends a watch after this time, and up to as much again.
const WATCH: Duration = Duration::from_secs(300);
/// Between two starts.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// The longest random pause after failures, which doubles with each.
const MAX_PAUSE: Duration = Duration::from_secs(8);
/// How long to do without a watch that is forbidden before it is tried again.
const FORBIDDEN: Duration = Duration::from_secs(10);
/// Between two calls of the poll: 20 a second.
const POLL: Duration = Duration::from_millis(50);
const POLL_TIME: Duration = Duration::from_secs(5);
/// Pages of a list: a million Jobs and more, for which no cache has room.
const MAX_PAGES: usize = 10_000;
/// How long a cache may lack Jobs before all are listed again, once others were deleted.
const TRUNCATED: Duration = Duration::from_secs(60);

/// How the watch starts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    /// With all Jobs, by a streaming list.
    Stream,
    /// With all Jobs, listed in pages.
    Pages,
    /// Where it ended, once a list of one Job has shown that the API server's history continues from there. Acceptance of a watch shows
    /// nothing: one from a version of the future is accepted too, and silent.
    Resume,
}

/// What one start came to.
struct Ended {
    end: End,
    /// The API server had accepted the watch.
    was_accepted: bool,
}

/// The thread's own part.
struct Follower<'f, W> {
    jobs: &'f Jobs<W>,
    host: &'f dyn Host<W>,
    namespace: &'f str,
    /// For lists and watches.
    client: Client,
    /// For what is asked while there is no watch.
    asking: Client,
    /// When all Jobs may be listed next because somebody wants them.
    next_list: Instant,
    /// When they were last listed.
    whole_since: Instant,
    /// Any number.
    random: &'f dyn Fn() -> u64,
    /// The API server cannot begin a watch with all Jobs.
    can_stream: bool,
    was_forbidden: bool,
}

impl<W: Copy + PartialEq> Jobs<W> {
    /// For ever. `watches`: false leaves the watch out. `random`: any number.
    pub(crate) fn follow(
        &self,
        server: &Arc<ApiServer>,
        namespace: &str,
        watches: bool,
        host: &dyn Host<W>,
        random: &dyn Fn() -> u64,
    ) {
        let client = Client::with_patience(server.clone(), Some(self.known.patience()));
        let now = Instant::now();
        let mut follower = Follower {
            jobs: self,
            host,
            namespace,
            client,
            asking: Client::new(server.clone()),
            next_list: now,
            whole_since: now,
            random,
            can_stream: true,
            was_forbidden: false,
        };
        let (mut start, mut failures) = (Start::Stream, 0);
        loop {
            if !watches {
                follower.next_list = Instant::now() + FORBIDDEN; // there is no right to list
                follower.do_without_until(follower.next_list, None);
                continue;
            }
            let begun = Instant::now();
            let Ended { end, was_accepted } = follower.watch(start);
            METRICS.watch_ended(end.cause());
            failures = if was_accepted { 0 } else { failures + 1 };
            start = follower.next_start(start, &end, was_accepted);
            if start != Start::Resume {
                self.known.evidence.end_live()
            }
            let asked = if let End::Failed { retry_after: Some(seconds), .. } = end { Some(seconds) } else { None };
            let pause = follower.pause(end, failures);
            follower.do_without_until((begun + LEAST_PAUSE).max(Instant::now() + pause), asked)
        }
    }
}

impl<W: Copy + PartialEq> Follower<'_, W> {
    /// Decides how to begin again.
    fn next_start(&mut self, start: Start, end: &End, was_accepted: bool) -> Start {
        let known = &self.jobs.known;
        let is_live = known.evidence.is_live();
        let is_silent = known.evidence.take_silence();
        let again = if self.can_stream { Start::Stream } else { Start::Pages };
        match end {
            End::Unsupported(said) => {
                self.can_stream = false;
                info!("the API server cannot begin a watch with all Jobs: they are listed instead ({said})");
                Start::Pages
            }
            End::Expired => {
                known.cache_mut().forget();
                again
            }
            _ if known.evidence.is_doubted() => again,
            // it ended in order, or has said nothing while somebody asked
            End::Closed if is_live && was_accepted => Start::Resume,
            End::Failed { .. } if is_live && was_accepted && is_silent => Start::Resume,
            // a streaming list that has failed may fail again
            End::Closed | End::Failed { .. } if start == Start::Stream && !was_accepted => Start::Pages,
            // the connection broke: what answers next may be another API server
            _ => again,
        }
    }

    /// Logs why the watch ended. Returns how long to do without it.
    fn pause(&mut self, end: End, failures: u32) -> Duration {
        let share = |time: Duration| time.mul_f64(((self.random)() >> 11) as f64 / (1u64 << 53) as f64);
        let longest = LEAST_PAUSE.saturating_mul(1 << failures.min(3)).min(MAX_PAUSE);
        let namespace = self.namespace;
        match end {
            End::Forbidden(said) => {
                if !std::mem::replace(&mut self.was_forbidden, true) {
                    warn!(
                        "the dispatcher may not list and watch Jobs in namespace {namespace}: each requested Job is fetched, \
                         and waiting callers are served by polling ({said}); set --watch=false to stop trying"
                    )
                }
                let mut cache = self.jobs.known.cache_mut();
                cache.forget();
                FORBIDDEN
            }
            End::Closed | End::Expired | End::Unsupported(_) => {
                debug!("the watch of Jobs ended: {}", end.cause());
                Duration::ZERO
            }
            End::Failed { why, retry_after } => {
                match failures {
                    1 => warn!("the watch of Jobs ended: {why}"),
                    _ => debug!("the watch of Jobs ended: {why}"),
                }
                let asked = Duration::from_secs(retry_after.unwrap_or(0).into());
                if failures > 0 { asked + share(longest) } else { asked }
            }
        }
    }

    /// Begins the watch, and reports its events until it ends.
    fn watch(&mut self, start: Start) -> Ended {
        let share = ((self.random)() >> 11) as f64 / (1u64 << 53) as f64;
        let time = WATCH + WATCH.mul_f64(share);
        if start != Start::Resume {
            self.jobs.known.evidence.end_doubt()
        }
        let from = match start {
            Start::Stream => Ok(From::Beginning),
            Start::Pages => self.list_all().map(From::Version),
            Start::Resume => self.confirm().map(From::Version),
        };
        let from = match from {
            Ok(from) => from,
            Err(end) => return Ended { end, was_accepted: false },
        };
        let (known, host) = (&self.jobs.known, self.host);
        let (mut was_accepted, mut whole_since) = (false, self.whole_since);
        let end = self.client.watch(self.namespace, from, time, &mut |event| {
            known.evidence.hear();
            match (event, from) {
                (Event::Begun, From::Beginning) => self.jobs.begin(),
                (Event::Begun, From::Version(_)) => {
                    was_accepted = true;
                    self.jobs.go_live(host)
                }
                (Event::Changed(job), _) if self.jobs.is_in_order(job.version) => self.jobs.change(*job, host),
                (Event::Deleted(job), _) if self.jobs.is_in_order(job.version) => {
                    self.jobs.delete(*job, host);
                    self.jobs.list_again_if_there_is_room(whole_since.elapsed())
                }
                (Event::Unreadable(name), _) => self.jobs.lose_sight_of(&name, host),
                (Event::Bookmark { version, is_whole: true }, From::Beginning) => {
                    was_accepted = true;
                    whole_since = Instant::now();
                    self.jobs.finish(version);
                    self.jobs.go_live(host)
                }
                (Event::Bookmark { version, .. }, _) if self.jobs.is_in_order(version) => {
                    known.cache_mut().advance(version)
                }
                (Event::Changed(_) | Event::Deleted(_) | Event::Bookmark { .. }, _) => (), // of another history
            }
            !known.evidence.is_doubted()
        });
        self.whole_since = whole_since;
        Ended { end, was_accepted }
    }

    /// Lists all Jobs. Returns their version.
    fn list_all(&mut self) -> Result<u64, End> {
        let version = self.jobs.list(&mut self.client, self.namespace, self.host)?;
        self.whole_since = Instant::now();
        Ok(version)
    }

    /// Confirms that the API server's history continues from where the watch ended. Returns that version.
    fn confirm(&mut self) -> Result<u64, End> {
        let version = self.client.version(self.namespace, SILENCE)?;
        let mut cache = self.jobs.known.cache_mut();
        let passed = cache.passed();
        if version < passed {
            let why = format!("the API server is at version {version}, before {passed}");
            self.jobs.known.doubt(&mut cache, &why);
            return Err(End::Expired);
        }
        Ok(passed)
    }

    /// Serves without a watch. `asked`: seconds that the API server asks to wait.
    fn do_without_until(&mut self, until: Instant, asked: Option<u32>) {
        if let Some(seconds) = asked {
            thread::sleep(Duration::from_secs(seconds.into()));
            self.next_list = self.next_list.max(Instant::now())
        }
        while Instant::now() < until {
            if self.jobs.known.evidence.is_list_wanted() && Instant::now() >= self.next_list {
                self.list_once()
            }
            for (name, ..) in self.jobs.waiters.jobs() {
                let now = Instant::now();
                if now >= until {
                    return;
                }
                self.jobs.ask_now(&mut self.asking, self.namespace, &name, now + POLL_TIME, self.host);
                thread::sleep(POLL)
            }
            thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())))
        }
    }

    /// Lists all Jobs because somebody wants them and there is no watch.
    fn list_once(&mut self) {
        let known = &self.jobs.known;
        known.evidence.end_doubt();
        let listed = self.jobs.list(&mut self.asking, self.namespace, self.host);
        known.is_forbidden.store(matches!(listed, Err(End::Forbidden(_))), SeqCst);
        let pause = match listed {
            Ok(_) => {
                known.evidence.list();
                self.jobs.tell_all(self.host);
                LEAST_PAUSE
            }
            Err(End::Forbidden(_)) => FORBIDDEN,
            Err(End::Failed { retry_after: Some(seconds), .. }) => LEAST_PAUSE.max(Duration::from_secs(seconds.into())),
            Err(_) => LEAST_PAUSE,
        };
        self.next_list = Instant::now() + pause
    }
}

impl<W: Copy + PartialEq> Jobs<W> {
    /// All Jobs are about to be listed.
    pub(super) fn begin(&self) {
        self.known.cache_mut().forget();
        self.waiters.forget_versions()
    }

    /// Lists all Jobs, page by page. Returns their version.
    fn list(&self, client: &mut Client, namespace: &str, host: &dyn Host<W>) -> Result<u64, End> {
        let mut token = None;
        for number in 0..MAX_PAGES {
            let page = client.list(namespace, token.as_deref(), &mut |event| match event {
                Event::Begun if number == 0 => self.begin(),
                Event::Changed(job) => self.change(*job, host),
                Event::Begun | Event::Deleted(_) | Event::Unreadable(_) | Event::Bookmark { .. } => (), // a list has no others
            })?;
            self.known.evidence.hear();
            token = page.next;
            if token.is_none() {
                self.finish(page.version);
                return Ok(page.version);
            }
        }
        Err(End::Failed { why: format!("the list has more than {MAX_PAGES} pages"), retry_after: None })
    }

    /// The watch has sent an event of this Job that cannot be read: it is requested from now on.
    fn lose_sight_of(&self, name: &str, host: &dyn Host<W>) {
        self.known.cache_mut().remove(name);
        if self.waiters.ask(name, |_| true) {
            self.ask_soon(name, host)
        }
    }

    /// All Jobs that there are have been listed.
    pub(super) fn finish(&self, version: u64) {
        self.known.is_forbidden.store(false, SeqCst);
        self.known.cache_mut().finish(version)
    }

    pub(super) fn go_live(&self, host: &dyn Host<W>) {
        {
            let cache = self.known.cache_mut();
            self.known.evidence.go_live();
            drop(cache)
        }
        self.tell_all(host)
    }

    /// Whether what the watch says of this version can follow what it has said; if not, all is in doubt. At the beginning Jobs come in any
    /// order.
    pub(super) fn is_in_order(&self, version: u64) -> bool {
        let mut cache = self.known.cache_mut();
        let (is_doubted, passed) = (self.known.evidence.is_doubted(), cache.passed());
        if !is_doubted && cache.is_whole() && version < passed {
            self.known.doubt(&mut cache, &format!("the watch reported version {version} after {passed}"))
        }
        !is_doubted && version >= passed
    }

    /// Jobs that were evicted are listed again when others have made room for them, or may have. `since`: how long ago all were listed.
    fn list_again_if_there_is_room(&self, since: Duration) {
        let mut cache = self.known.cache_mut();
        if cache.has_room_again() || cache.is_truncated() && since > TRUNCATED {
            self.known.doubt(&mut cache, "some were evicted from a full cache that may have room now")
        }
    }
}
