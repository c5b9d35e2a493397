//! The scenes, and their orders.

use super::*;

/// All orders of these events, in which those of each list keep theirs.
fn orders(lists: &[&[Event]]) -> Vec<Vec<Event>> {
    if lists.iter().all(|list| list.is_empty()) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (number, list) in lists.iter().enumerate() {
        if let [first, rest @ ..] = list {
            let mut others = lists.to_vec();
            others[number] = rest;
            all.extend(orders(&others).into_iter().map(|order| [&[*first], &order[..]].concat()))
        }
    }
    all
}

/// Plays all orders of each of these. Returns how many there are.
fn play(request: &str, scenes: &[&[&[Event]]]) -> usize {
    let all = || {
        let mut world = World::new();
        let mut wrongs: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        let orders: Vec<_> = scenes.iter().flat_map(|scene| orders(scene)).collect();
        for order in &orders {
            let wrong = world.run(request, order);
            let is_over = !wrong.is_empty() || order.contains(&Stops);
            if !wrong.is_empty() {
                wrongs.insert(wrong, order.clone());
            }
            if is_over {
                world = World::new() // what is held would be wrong in the next too, and a shutdown is not undone
            }
        }
        assert!(wrongs.is_empty(), "{wrongs:#?}");
        orders.len()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(LARGE_RUN_STACK);
        thread.spawn_scoped(scope, all).unwrap().join().unwrap()
    })
}

const CLIENT: &[Event] = &[Begins, Sends];
const WORK: &[Event] = &[Works, Works, Works];

#[test]
fn a_small_request_has_one_answer_in_every_order() {
    let scenes: &[&[&[Event]]] = &[
        &[CLIENT, WORK, &[PermitIsFree, Arrives], &[Stops]],
        &[CLIENT, WORK, &[PermitIsFree, Arrives], &[Deadline]],
        &[&[Begins, Sends, Leaves], WORK, &[PermitIsFree, Arrives]],
    ];
    assert!(play(&post(1), scenes) > 3_000);
}

#[test]
fn a_large_request_has_one_answer_in_every_order() {
    let scenes: &[&[&[Event]]] = &[
        &[CLIENT, WORK, &[MemoryIsFree, Arrives, RunIsFree]],
        &[CLIENT, WORK, &[MemoryIsFree, Arrives], &[Deadline]],
        &[CLIENT, WORK, &[MemoryIsFree, Arrives], &[Stops]],
        &[CLIENT, &[Works, Works], &[PermitIsFree, Arrives, RunIsFree], &[Deadline]],
        &[&[Begins, Sends, Leaves], WORK, &[MemoryIsFree, Arrives]],
    ];
    assert!(play(&post(LARGE), scenes) > 5_000);
}

#[test]
fn a_lookup_has_one_answer_in_every_order() {
    let request = "GET /job/b HTTP/1.1\r\nHost: h\r\n\r\n";
    let scenes: &[&[&[Event]]] = &[
        &[&[Begins, Sends, Leaves], WORK, &[PermitIsFree, Arrives]],
        &[CLIENT, WORK, &[PermitIsFree, Arrives], &[Stops]],
    ];
    assert!(play(request, scenes) > 1_500);
}

#[test]
fn a_caller_that_waits_has_one_answer_in_every_order() {
    let request = "GET /job/a?wait=20s HTTP/1.1\r\nHost: h\r\n\r\n";
    let scenes: &[&[&[Event]]] = &[
        &[CLIENT, WORK, &[JobEnds, Arrives], &[Deadline]],
        &[CLIENT, WORK, &[JobEnds, Arrives], &[Stops]],
        &[&[Begins, Sends, Leaves], WORK, &[JobEnds, Arrives]],
    ];
    assert!(play(request, scenes) > 3_000);
}

#[test]
fn a_long_answer_is_given_once_in_every_order() {
    let all: &[&[&[Event]]] = &[
        &[CLIENT, WORK, &[MemoryIsFree, Arrives], &[Deadline]],
        &[CLIENT, WORK, &[MemoryIsFree, Arrives], &[Stops]],
        &[&[Begins, Sends, Leaves], WORK, &[MemoryIsFree, Arrives]],
    ];
    assert!(play("GET /job/a HTTP/1.1\r\nHost: h\r\nX: long\r\n\r\n", all) > 3_000);
    let waits: &[&[&[Event]]] = &[&[CLIENT, &[Works, Works], &[JobEnds, Arrives], &[MemoryIsFree, Arrives]]];
    assert!(play("GET /job/a?wait=20s HTTP/1.1\r\nHost: h\r\nX: long\r\n\r\n", waits) > 2_000);
}
