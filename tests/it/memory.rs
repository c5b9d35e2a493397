use crate::support::container::Container;
use crate::support::load::{Rng, Scenario, is_wanted, scenarios};

#[test]
#[ignore = "tests/image makes the image and runs this"]
fn hostile_load_never_gets_it_killed_in_64_mib() {
    let seed = Rng::seed();
    let loads = scenarios(seed).into_iter().filter(|scenario| scenario.is_for_image && is_wanted(&scenario.name));
    let faults: Vec<String> = loads.filter_map(|scenario| fault(&scenario)).collect();
    assert!(faults.is_empty(), "LOAD_SEED={seed}:\n{}", faults.join("\n"));
}

/// Runs a container under the load; returns what was wrong.
fn fault(scenario: &Scenario) -> Option<String> {
    let (mut container, mut outcome) = scenario.run(Container::start_alone);
    if container.was_killed() || !container.dispatcher.is_running() {
        outcome.fault("the container was killed");
    }
    println!("{outcome}");
    (!outcome.faults.is_empty()).then(|| outcome.to_string())
}
