//! Requests Jobs that callers wait for, if the watch cannot report them: one call for each Job, for all its waiters.

use super::{Host, Jobs, News};
use crate::kube::{ApiServer, Client, Failure, RefusalKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to ask for a Job that may be gone.
const TIME: Duration = Duration::from_secs(5);

impl<W: Copy + PartialEq> Jobs<W> {
    /// The wait of this caller is nearly over, and the Job may not be as the cache has it: it is woken with the answer to a call.
    pub(crate) fn ask_for(&self, name: &str, waiter: &W, until: Instant, host: &dyn Host<W>) {
        self.waiters.ask_for(name, waiter);
        self.ask(name, until, host)
    }

    /// Waiters for this Job since this version or an older one may wait in vain: it is gone, or not ours.
    pub(super) fn doubt_waiters(&self, name: &str, uid: &str, version: u64, host: &dyn Host<W>) {
        if self.waiters.ask(name, |one| *one.uid == *uid && one.version <= version) {
            self.ask_soon(name, host)
        }
    }

    pub(super) fn ask_soon(&self, name: &str, host: &dyn Host<W>) {
        self.ask(name, Instant::now() + TIME, host)
    }

    fn ask(&self, name: &str, until: Instant, host: &dyn Host<W>) {
        if self.questions.push(name, until) {
            host.start_asking()
        }
    }

    /// There is no thread for it: nobody is answered by a call.
    pub(crate) fn ask_nothing(&self, host: &dyn Host<W>) {
        while let Some((name, _)) = self.questions.pop() {
            self.settle(&name, Instant::now(), News::Unknown, host)
        }
    }

    /// Asks for one Job after the other, until there is none left.
    pub(crate) fn answer(&self, server: &Arc<ApiServer>, namespace: &str, host: &dyn Host<W>) {
        let mut client = Client::new(server.clone());
        while let Some((name, until)) = self.questions.pop() {
            self.ask_now(&mut client, namespace, &name, until, host)
        }
    }

    /// Requests one Job, and wakes the waiters that the response concerns.
    pub(super) fn ask_now(&self, client: &mut Client, namespace: &str, name: &str, until: Instant, host: &dyn Host<W>) {
        let (sent, before) = (Instant::now(), self.known.before(name));
        let news = match client.get(namespace, name, true, until) {
            Ok(job) => {
                self.known.found(&before, &job);
                if job.is_ours { News::Is(Arc::new(*job)) } else { News::Gone }
            }
            Err(Failure::Refused(refusal)) if refusal.kind == RefusalKind::NoSuchJob => {
                self.known.not_found(&before, name);
                News::Gone
            }
            Err(_) => News::Unknown,
        };
        self.settle(name, sent, news, host)
    }

    /// Wakes those that were already waiting when the call was sent.
    fn settle(&self, name: &str, sent: Instant, news: News, host: &dyn Host<W>) {
        let woken = self.waiters.take_those(name, |one| {
            one.since <= sent
                && match &news {
                    News::Is(job) => one.asks || one.uid != job.uid || job.situation.state.is_final(),
                    News::Gone => true,
                    News::Unknown => one.asks,
                }
        });
        for waiter in woken {
            host.wake(waiter, news.clone())
        }
    }
}
