//! Every history of a small world, in which [`next`] decides as it does in the product: callers that repeat what failed, each through a
//! dispatcher of its own, and an API server that may fail before or after it has created a Job, or much later. Known bugs are put back, to
//! see that they are found.

mod bugs;

use super::*;
use bugs::{Bug, decide};
use std::collections::HashSet;

/// What may still happen in a history.
#[derive(Clone, Debug)]
struct Luck {
    /// Answers that are lost or faults.
    faults: u8,
    /// Refusals for a quota, or by a policy.
    refusals: u8,
    deletions: u8,
}

#[derive(Clone, Debug, PartialEq)]
struct Stored {
    /// 0 is the name that the filter or the key gives; others are random.
    name: u8,
    request: u8,
    nonce: u8,
    is_being_deleted: bool,
}

#[derive(Clone, Debug)]
struct Caller {
    request: u8,
    naming: Naming,
    /// How often it still repeats what failed.
    repeats: u8,
    dispatch: Option<Running>,
    heard: Option<Heard>,
}

/// A dispatch between two calls.
#[derive(Clone, Debug)]
struct Running {
    nonce: u8,
    name: u8,
    call: Call,
    attempts: Attempts,
    /// Nothing went wrong in it so far, and no Job was deleted.
    is_calm: bool,
    /// Its Job was there when it began.
    was_there: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Yes,
    /// It may be repeated.
    Failure,
    Refusal,
}

#[derive(Clone, Debug)]
struct World {
    callers: Vec<Caller>,
    jobs: Vec<Stored>,
    /// All Jobs that were ever created.
    created: Vec<Stored>,
    /// POSTs whose caller has given up, and which the API server may still process.
    late: Vec<Stored>,
    luck: Luck,
    /// The next nonce, and the next random name.
    next: u8,
}

fn refused(kind: RefusalKind) -> CallOutcome {
    CallOutcome::Failed(Failure::Refused(Refusal { kind, causes: Vec::new(), retry_after: None, said: String::new() }))
}

impl World {
    fn new(callers: &[(u8, Naming)], luck: Luck) -> Self {
        let repeats = luck.faults + luck.refusals + luck.deletions;
        let caller = |&(request, naming)| Caller { request, naming, repeats, dispatch: None, heard: None };
        let callers = callers.iter().map(caller).collect();
        World { callers, jobs: Vec::new(), created: Vec::new(), late: Vec::new(), luck, next: 1 }
    }

    fn create(&mut self, job: Stored) {
        self.created.push(job.clone());
        self.jobs.push(job)
    }

    /// All worlds that may come next. Errors: what must not be.
    fn successors(&self, bug: Option<Bug>) -> Result<Vec<World>, String> {
        let mut worlds = Vec::new();
        for number in 0..self.callers.len() {
            let mut world = self.clone();
            let caller = &mut world.callers[number];
            match &caller.dispatch {
                None if matches!(caller.heard, None | Some(Heard::Failure)) => {
                    let is_repeated = caller.heard.is_some();
                    // without a name or a key, each request makes a Job
                    if is_repeated && (caller.naming == Naming::Random || caller.repeats == 0) {
                        continue;
                    }
                    caller.repeats -= u8::from(is_repeated);
                    let request = caller.request;
                    let was_there = world.jobs.iter().any(|job| job.name == 0 && job.request == request);
                    let name = if caller.naming == Naming::Random { world.next } else { 0 };
                    let nonce = world.next;
                    world.next += 1;
                    let attempts = Attempts::default();
                    let is_calm = !world.jobs.iter().any(|job| job.is_being_deleted);
                    let running = Running { nonce, name, call: Call::Create, attempts, is_calm, was_there };
                    world.callers[number].dispatch = Some(running);
                    worlds.push(world)
                }
                None => (),
                Some(running) => {
                    let running = running.clone();
                    for (world, outcome) in self.outcomes(&running, self.callers[number].request) {
                        world.decided(number, running.clone(), outcome, bug, &mut worlds)?
                    }
                }
            }
        }
        for (number, late) in self.late.iter().enumerate() {
            let mut world = self.clone();
            world.late.remove(number);
            if !world.jobs.iter().any(|job| job.name == late.name) {
                world.create(late.clone())
            }
            worlds.push(world)
        }
        for (number, job) in self.jobs.iter().enumerate() {
            let mut world = self.clone();
            if job.is_being_deleted {
                world.jobs.remove(number);
            } else if self.luck.deletions > 0 {
                world.luck.deletions -= 1;
                world.jobs[number].is_being_deleted = true;
                let running = world.callers.iter_mut().filter_map(|caller| caller.dispatch.as_mut());
                running.for_each(|running| (running.is_calm, running.was_there) = (false, false));
            } else {
                continue;
            }
            worlds.push(world)
        }
        Ok(worlds)
    }

    /// What the call of a dispatch may come to, with the world after it.
    fn outcomes(&self, running: &Running, request: u8) -> Vec<(World, CallOutcome)> {
        let mut all = Vec::new();
        let held = self.jobs.iter().find(|job| job.name == running.name);
        let lost = || CallOutcome::Failed(Failure::Disconnected(String::new()));
        let faulty = |mut world: World| {
            world.luck.faults -= 1;
            world
        };
        match running.call {
            Call::Pods | Call::Log | Call::Delete => unreachable!("nobody asks us for it"),
            Call::Get => {
                all.push((
                    self.clone(),
                    match held {
                        None => refused(RefusalKind::NoSuchJob),
                        Some(job) => CallOutcome::Found(Box::new(Job {
                            is_ours: true,
                            fingerprint: Some(job.request.to_string().into()),
                            nonce: Some(job.nonce.to_string().into()),
                            is_being_deleted: job.is_being_deleted,
                            ..Job::default()
                        })),
                    },
                ));
                if self.luck.faults > 0 {
                    all.push((faulty(self.clone()), lost()));
                    all.push((faulty(self.clone()), CallOutcome::Failed(Failure::TooLong)));
                    all.push((faulty(self.clone()), CallOutcome::Failed(Failure::NotCalled)))
                }
            }
            Call::Create => {
                let job = Stored { name: running.name, request, nonce: running.nonce, is_being_deleted: false };
                let mut world = self.clone();
                let taken = held.is_some();
                if !taken {
                    world.create(job.clone())
                }
                all.push((
                    world.clone(),
                    if taken { refused(RefusalKind::NameTaken) } else { CallOutcome::Created(Box::default()) },
                ));
                if self.luck.refusals > 0 {
                    let mut world = self.clone();
                    world.luck.refusals -= 1;
                    all.push((world.clone(), refused(RefusalKind::Quota)));
                    all.push((world, refused(RefusalKind::Policy)))
                }
                if self.luck.faults > 0 {
                    all.push((faulty(world.clone()), lost()));
                    all.push((faulty(world.clone()), CallOutcome::Failed(Failure::InvalidResponse(String::new()))));
                    if !taken {
                        all.push((faulty(world.clone()), CallOutcome::Failed(Failure::TooLong)))
                    }
                    all.push((faulty(world), refused(RefusalKind::Fault)));
                    all.push((faulty(self.clone()), refused(RefusalKind::Busy)));
                    all.push((faulty(self.clone()), refused(RefusalKind::WebhookUnreachable)));
                    all.push((faulty(self.clone()), CallOutcome::Failed(Failure::NotCalled)));
                    let late = World { late: [&self.late[..], &[job]].concat(), ..faulty(self.clone()) };
                    all.push((late.clone(), refused(RefusalKind::Slow)));
                    all.push((late, CallOutcome::Failed(Failure::TimedOut(String::new()))))
                }
            }
        }
        all
    }

    /// Adds the worlds after the decision about an outcome.
    fn decided(
        self,
        number: usize,
        running: Running,
        outcome: CallOutcome,
        bug: Option<Bug>,
        worlds: &mut Vec<World>,
    ) -> Result<(), String> {
        let caller = self.callers[number].clone();
        let is_calm = running.is_calm
            && match &outcome {
                CallOutcome::Failed(Failure::Refused(refusal)) => {
                    matches!(refusal.kind, RefusalKind::NameTaken | RefusalKind::NoSuchJob)
                }
                outcome => matches!(outcome, CallOutcome::Created(_) | CallOutcome::Found(_)),
            };
        let (fingerprint, nonce) = (&*caller.request.to_string(), &*running.nonce.to_string());
        let intent = Intent::Create { fingerprint, nonce, delivery: None, naming: caller.naming, is_dry_run: false };
        let names = running.attempts.names;
        let step = decide(bug, intent, running.attempts.clone(), running.call, outcome);
        let mut steps = vec![step];
        while let Some(step) = steps.pop() {
            let (call, attempts) = match step {
                Step::Call(call, attempts) => (call, attempts),
                Step::ReadLong(attempts) => (Call::Get, attempts),
                Step::Again { call, attempts, otherwise, .. } => {
                    steps.push(without_call((*otherwise).clone()));
                    steps.push(*otherwise);
                    (call, attempts)
                }
                Step::Answer(answer) => {
                    let mut world = self.clone();
                    world.heard(number, &Running { is_calm, ..running.clone() }, answer)?;
                    worlds.push(world);
                    continue;
                }
            };
            let mut world = self.clone();
            let mut now = Running { call, is_calm, ..running.clone() };
            if attempts.names > names {
                now.name = world.next;
                world.next += 1
            }
            now.attempts = attempts;
            world.callers[number].dispatch = Some(now);
            worlds.push(world)
        }
        Ok(())
    }

    fn heard(&mut self, number: usize, running: &Running, answer: Result<Answer, Status>) -> Result<(), String> {
        let caller = &mut self.callers[number];
        caller.dispatch = None;
        let request = caller.request;
        let is_ours = |job: &&Stored| job.request == request && job.name == running.name;
        let others = self.jobs.iter().any(|job| job.name == running.name && job.request != request);
        caller.heard = Some(match &answer {
            Ok(Answer::Created(_) | Answer::Gone) if !self.created.iter().any(|job| job.nonce == running.nonce) => {
                return Err("201 without a Job".into());
            }
            Ok(Answer::Same(_)) if !self.created.iter().any(|job| is_ours(&job)) => {
                return Err("200 without a Job of this request".into());
            }
            Ok(_) => Heard::Yes,
            Err(_) if running.is_calm && !others => {
                return Err(format!("nothing went wrong, but the caller got {answer:?}"));
            }
            Err(status)
                if matches!(status.code(), 409 | 422)
                    && status.retry_after.is_none()
                    && self.jobs.iter().any(|job| job.nonce == running.nonce) =>
            {
                return Err(format!("{} although the Job was created", status.code()));
            }
            Err(status) if status.reason == Reason::QuotaExceeded && running.was_there => {
                return Err("429 although the Job was there".into());
            }
            Err(status) if status.code() == 409 && status.retry_after.is_none() || status.code() == 422 => {
                Heard::Refusal
            }
            Err(_) => Heard::Failure,
        });
        Ok(())
    }

    /// Errors: a caller has repeated its request as often as something went wrong, and did not get its Job. While a Job
    /// is being deleted, its callers may fail for long.
    fn check_end(&self) -> Result<(), String> {
        let is_lost = |caller: &Caller| caller.naming != Naming::Random && caller.heard == Some(Heard::Failure);
        if self.callers.iter().any(is_lost) { Err("a request ends with a failure".into()) } else { Ok(()) }
    }

    /// Errors: two Jobs where one was asked for.
    fn check(&self, deletions: u8) -> Result<(), String> {
        for caller in &self.callers {
            let made = self.created.iter().filter(|job| job.request == caller.request).count();
            let callers = self.callers.iter().filter(|other| other.request == caller.request).count();
            let most = if caller.naming == Naming::Random { callers } else { 1 };
            if made > most + usize::from(deletions - self.luck.deletions) {
                return Err(format!("{made} Jobs for request {}", caller.request));
            }
        }
        Ok(())
    }
}

/// Visits every world that can come of this one. Returns how many there are, or the first that must not be.
fn explore(first: World, bug: Option<Bug>) -> Result<usize, String> {
    let deletions = first.luck.deletions;
    let (mut seen, mut open) = (HashSet::new(), vec![first]);
    while let Some(world) = open.pop() {
        if !seen.insert(format!("{world:?}")) {
            continue;
        }
        let wrong = |error| format!("{error}, in {world:#?}");
        world.check(deletions).map_err(wrong)?;
        let next = world.successors(bug).map_err(wrong)?;
        if next.is_empty() && deletions == 0 {
            world.check_end().map_err(wrong)?
        }
        open.extend(next)
    }
    Ok(seen.len())
}

const FIRSTS: [&[(u8, Naming)]; 6] = [
    &[(1, Naming::Given)],
    &[(1, Naming::Given), (1, Naming::Given)],
    &[(1, Naming::Given), (2, Naming::Given)],
    &[(1, Naming::Keyed), (1, Naming::Keyed)],
    &[(1, Naming::Keyed), (2, Naming::Keyed)],
    &[(1, Naming::Random), (1, Naming::Random)],
];

fn worlds() -> impl Iterator<Item = World> {
    FIRSTS.iter().flat_map(|callers| {
        [(2, 0, 0), (2, 1, 0), (1, 0, 1)]
            .map(|(faults, refusals, deletions)| World::new(callers, Luck { faults, refusals, deletions }))
    })
}

#[test]
fn there_is_exactly_one_job_in_every_history() {
    for world in worlds() {
        let callers = format!("{:?}", world.callers);
        let worlds = explore(world, None).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(worlds > 10, "{worlds} worlds of {callers}")
    }
}

#[test]
fn known_bugs_are_found() {
    for bug in [Bug::RandomNameOnRetry, Bug::TakenIsDone, Bug::NoNonce, Bug::QuotaIsBelieved, Bug::RefusalIsBelieved] {
        assert!(worlds().any(|world| explore(world, Some(bug)).is_err()), "{bug:?} is not found");
    }
}
