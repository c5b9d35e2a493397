//! What happens to the watch: it is cut, silenced, answered with errors, and etcd is restored from a backup.

use super::super::super::Folder;
use super::super::super::cluster::{ApiServer, Cluster};
use super::super::super::load::Rng;
use super::super::proxy::Proxy;
use super::changes::Changes;
use super::check::{Span, Trouble};
use super::front::{Front, Mood};
use super::history::{Time, seconds};
use super::recorder::Recorder;
use super::{REPLICAS, Shared};
use std::thread;
use std::time::Duration;

/// The replica behind the front, and its API server; the other one has both.
const FRONT: usize = 1;
/// Until a replica lists in pages, and has a watch.
const PAGES: Time = 4_000;
/// Lists and watches in trouble.
const MOST_PER_SECOND: usize = 3;
const MOST_AT_ONCE: usize = 4;

pub(super) struct Faults<'f> {
    pub(super) shared: &'f Shared,
    pub(super) recorder: &'f Recorder,
    pub(super) cluster: &'f Cluster,
    pub(super) servers: [ApiServer; 2],
    pub(super) proxies: [Proxy; REPLICAS],
    pub(super) front: Front,
    pub(super) spans: Vec<Span>,
    /// What was seen to be wrong.
    pub(super) wrong: Vec<String>,
    /// Gives the replicas a new token, before theirs expires.
    pub(super) renew: &'f dyn Fn(),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Card {
    Cut(usize),
    Freeze(usize),
    Silence(usize),
    Errors(Mood),
    BackUp,
    Restore,
}

/// In a random order; a backup comes before its restoration, with at least another card between them.
fn deck(rng: &mut Rng) -> Vec<Card> {
    use Card::*;
    let mut cards = vec![Cut(0), Cut(1), Silence(0), Silence(1), Cut(0), Cut(1), Freeze(0), Freeze(1)];
    cards.extend([Errors(Mood::Gone), Errors(Mood::Busy), Errors(Mood::Slow), Errors(Mood::SlowAtFirst)]);
    let mut deck = Vec::new();
    while !cards.is_empty() {
        deck.push(cards.swap_remove(rng.below(cards.len())))
    }
    let backup = 1 + rng.below(4);
    deck.insert(backup, BackUp);
    deck.insert(backup + 2 + rng.below(3), Restore);
    deck
}

impl Faults<'_> {
    /// Everything once, then again until there are this many answers.
    pub(super) fn play(&mut self, seed: u64, wanted: usize, changes: &Changes) {
        let mut rng = Rng::new(seed);
        let mut was_played = false;
        loop {
            let mut backup = None;
            for card in deck(&mut rng) {
                thread::sleep(Duration::from_millis(1_000 + rng.below(3_000) as u64));
                if was_played && self.shared.answers.lock().unwrap().len() >= wanted {
                    return;
                }
                self.act(card, &mut rng, changes, &mut backup)
            }
            was_played = true;
            (self.renew)()
        }
    }

    fn act(&mut self, card: Card, rng: &mut Rng, changes: &Changes, backup: &mut Option<Folder>) {
        match card {
            Card::Cut(replica) => {
                let from = self.shared.clock.now();
                self.proxies[replica].cut_all();
                self.note(Trouble::Cut, vec![replica], from);
                self.shared.count("the watch was cut");
            }
            Card::Freeze(replica) => {
                let from = self.shared.clock.now();
                let time = Duration::from_millis(18_000 + rng.below(4_000) as u64);
                self.proxies[replica].freeze_all(time);
                thread::sleep(time);
                self.note(Trouble::Silenced, vec![replica], from);
                self.shared.count("connections were frozen");
            }
            Card::Silence(number) => {
                let replicas = if number == FRONT { vec![0, FRONT] } else { vec![0] };
                let from = self.shared.clock.now();
                // shorter than a silent watch is believed, or longer than a state may be old
                let least = if rng.below(2) == 0 { 6_000 } else { 13_000 };
                self.servers[number].silence(Duration::from_millis(least + rng.below(3_000) as u64));
                self.note(Trouble::Silenced, replicas, from);
                self.shared.count("an API server was silenced");
            }
            Card::Errors(mood) => self.refuse(mood, rng),
            Card::BackUp => {
                *backup = Some(self.cluster.back_up());
                self.shared.count("etcd was backed up");
            }
            Card::Restore => {
                let Some(copy) = backup.take() else { return };
                let closed = changes.gate.lock().unwrap();
                let (from, lists, recorder) = (self.shared.clock.now(), self.recorder.lists(), self.recorder);
                let mut listed = from;
                self.cluster.restore(&copy, &mut self.servers, || {
                    recorder.wait(lists);
                    listed = self.shared.clock.now();
                });
                let replicas = (0..REPLICAS).collect::<Vec<_>>();
                self.spans.push(Span { trouble: Trouble::Outage, replicas: replicas.clone(), from, to: listed });
                // until their own API servers are ready they cannot see
                self.note(Trouble::Missing, replicas, from);
                drop(closed);
                self.shared.count("etcd was restored");
            }
        }
    }

    fn refuse(&mut self, mood: Mood, rng: &mut Rng) {
        let (from, injected) = (self.shared.clock.now(), self.front.injected());
        self.front.be(mood);
        self.proxies[FRONT].cut_all();
        thread::sleep(Duration::from_millis(3_000 + rng.below(7_000) as u64));
        self.front.be(Mood::Quiet);
        self.note(Trouble::Missing, vec![FRONT], from);
        self.is_patient(self.front.injected() - injected, mood, from);
        let what = match mood {
            Mood::Gone => "lists and watches were answered 410",
            Mood::Busy => "lists and watches were answered 429",
            Mood::Quiet | Mood::Slow => "lists and watches were answered 504",
            Mood::SlowAtFirst => {
                // pages and watches work
                self.spans.last_mut().unwrap().to = from + PAGES;
                "streaming lists were answered 504"
            }
        };
        self.shared.count(what)
    }

    /// Lists and watches are begun once a second at most; each may be tried in two ways, and a caller may ask for a list.
    fn is_patient(&mut self, injected: usize, mood: Mood, from: Time) {
        let most = MOST_AT_ONCE + MOST_PER_SECOND * (self.shared.clock.now() - from) as usize / 1000;
        if injected > most {
            let from = seconds(from);
            self.wrong.push(format!(
                "{injected} lists and watches were begun, not {most}, while they were {mood:?} from {from}"
            ))
        }
    }

    /// A trouble that is over now.
    fn note(&mut self, trouble: Trouble, replicas: Vec<usize>, from: Time) {
        self.spans.push(Span { trouble, replicas, from, to: self.shared.clock.now() })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_backup_is_restored_later() {
        for seed in 0..200 {
            let deck = super::deck(&mut super::Rng::new(seed));
            let place = |card: super::Card| deck.iter().position(|one| *one == card).unwrap();
            assert!(place(super::Card::BackUp) + 1 < place(super::Card::Restore), "{deck:?}");
            assert_eq!(deck.len(), 14);
        }
    }
}
