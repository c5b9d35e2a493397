//! The thread that follows our Jobs: one watch, begun again when it ends. Without the right to watch it asks for each Job that somebody
//! waits for, in turn.

use super::{Jobs, News};
use crate::kube::{ApiServer, Client, End, Event, From, Outcome, RefusalKind};
use crate::metrics::METRICS;
use log::{debug, info, warn};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The API server ends a watch after this time, and up to as much again.
const WATCH: Duration = Duration::from_secs(300);
/// Bookmarks come once a minute, so a watch that says nothing for longer is dead.
const SILENCE: Duration = Duration::from_secs(90);
/// Between two beginnings.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// The longest random pause beside it, which doubles with each failure.
const MAX_PAUSE: Duration = Duration::from_secs(8);
/// How long to poll before the watch is tried again.
const FORBIDDEN: Duration = Duration::from_secs(10);
/// Between two calls of the poll: 20 a second.
const POLL: Duration = Duration::from_millis(50);
const POLL_TIME: Duration = Duration::from_secs(5);

impl<W: PartialEq> Jobs<W> {
    /// For ever. `wake`: tells one who waits. `random`: any number.
    pub(crate) fn follow(
        &self,
        server: &Arc<ApiServer>,
        namespace: &str,
        wake: &dyn Fn(W, News),
        random: &dyn Fn() -> u64,
    ) {
        let mut client = Client::with_silence(server.clone(), SILENCE);
        let (mut from, mut can_stream, mut failures, mut was_forbidden) = (From::Beginning, true, 0, false);
        loop {
            let begun = Instant::now();
            let share = |time: Duration| time.mul_f64((random() >> 11) as f64 / (1u64 << 53) as f64);
            let end = match from {
                From::Beginning if !can_stream => match self.list(&mut client, namespace, wake) {
                    Ok(()) => {
                        from = From::Version(self.cache().version());
                        continue;
                    }
                    Err(end) => end,
                },
                from => self.watch(&mut client, namespace, from, WATCH + share(WATCH), wake),
            };
            if self.is_live.swap(false, SeqCst) {
                self.hear() // until now it went on
            }
            METRICS.watch_ended(end.cause());
            let version = self.cache().version();
            from = match end {
                End::Expired | End::Unsupported => From::Beginning,
                // what was known before is known still
                End::Closed | End::Forbidden(_) | End::Failed(_) if self.is_whole() => From::Version(version),
                End::Closed | End::Forbidden(_) | End::Failed(_) => From::Beginning,
            };
            failures = if matches!(end, End::Failed(_)) { failures + 1 } else { 0 };
            match end {
                End::Closed | End::Expired => debug!("the watch of Jobs ended: {}", end.cause()),
                End::Unsupported => {
                    can_stream = false;
                    info!("the API server cannot begin a watch with all Jobs: they are listed instead")
                }
                End::Forbidden(said) => {
                    if !std::mem::replace(&mut was_forbidden, true) {
                        warn!(
                            "the dispatcher may not list and watch Jobs in namespace {namespace}: each Job that somebody asks for \
                             is got by a call, and those who wait are served by polling ({said})"
                        )
                    }
                    self.is_forbidden.store(true, SeqCst);
                    self.cache_mut().clear();
                    from = From::Beginning;
                    self.poll(&mut client, namespace, Instant::now() + FORBIDDEN, wake);
                    self.is_forbidden.store(false, SeqCst);
                    continue;
                }
                End::Failed(why) if failures == 1 => warn!("the watch of Jobs ended: {why}"),
                End::Failed(why) => debug!("the watch of Jobs ended: {why}"),
            }
            let longest = LEAST_PAUSE.saturating_mul(1 << failures.min(3)).min(MAX_PAUSE);
            thread::sleep(LEAST_PAUSE.saturating_sub(begun.elapsed()) + share(longest))
        }
    }

    fn is_whole(&self) -> bool {
        self.cache().is_whole()
    }

    fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now())
    }

    fn watch(&self, client: &mut Client, namespace: &str, from: From, time: Duration, wake: &dyn Fn(W, News)) -> End {
        client.watch(namespace, from, time, &mut |event| {
            self.hear();
            match event {
                Event::Begun => match from {
                    From::Beginning => self.cache_mut().begin(),
                    From::Version(_) => self.go_live(wake),
                },
                Event::Changed(name, job) => {
                    let job = self.write(&name, *job);
                    self.tell(&name, &job, wake)
                }
                Event::Deleted(name, job) => {
                    let last = self.cache_mut().delete(&name, *job);
                    self.tell_last(&name, &last, last.version, wake)
                }
                Event::Bookmark { version, is_whole: true } => self.finish(version, wake),
                Event::Bookmark { version, is_whole: false } => self.cache_mut().advance(version),
            }
        })
    }

    /// All Jobs that there are have been told.
    fn finish(&self, version: u64, wake: &dyn Fn(W, News)) {
        let gone = self.cache_mut().finish(version);
        for (name, last) in gone {
            self.tell_last(&name, &last, version, wake)
        }
        self.go_live(wake)
    }

    fn go_live(&self, wake: &dyn Fn(W, News)) {
        self.is_live.store(true, SeqCst);
        self.tell_all(wake)
    }

    /// Lists all Jobs, page by page.
    fn list(&self, client: &mut Client, namespace: &str, wake: &dyn Fn(W, News)) -> Result<(), End> {
        self.cache_mut().begin();
        let mut token = None;
        loop {
            let page = client.list(namespace, token.as_deref(), &mut |name, job| {
                let job = self.write(&name, *job);
                self.tell(&name, &job, wake)
            })?;
            self.hear();
            token = page.next;
            if token.is_none() {
                self.finish(page.version, wake);
                self.is_live.store(false, SeqCst); // the watch is yet to begin
                return Ok(());
            }
        }
    }

    /// Asks for each Job that somebody waits for, in turn.
    fn poll(&self, client: &mut Client, namespace: &str, until: Instant, wake: &dyn Fn(W, News)) {
        while Instant::now() < until {
            for (name, uid, version) in self.waiters.jobs() {
                let is_gone = match client.get(namespace, &name, Instant::now() + POLL_TIME) {
                    Outcome::Found(job) if job.is_ours && job.uid == uid => {
                        self.tell(&name, &Arc::new(*job), wake);
                        false
                    }
                    Outcome::Found(_) => true,
                    Outcome::Refused(refusal) => refusal.kind == RefusalKind::NoSuchJob,
                    _ => false, // it is asked for again
                };
                let is_meant = |of: &str, since: u64| of == uid && since <= version;
                let gone = if is_gone { self.waiters.take(&name, is_meant) } else { Vec::new() };
                gone.into_iter().for_each(|waiter| wake(waiter, News::Unknown));
                thread::sleep(POLL)
            }
            thread::sleep(POLL)
        }
    }
}
