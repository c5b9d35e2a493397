use crate::bounds::{EVERYTHING, everything_at_once, namespace_for_everything};
use crate::support::container::{Container, ServiceAccount};
use crate::support::load::process::Cgroup;
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

#[test]
#[ignore = "tests/image makes the image and runs this"]
fn everything_at_once_never_gets_it_killed_in_64_mib() {
    let namespace = namespace_for_everything();
    let account = ServiceAccount::new(&namespace.cluster.ca_pem, &namespace.name, &namespace.token());
    let mut container = Container::start(&namespace, &account, &EVERYTHING);
    let cgroup = Cgroup::of(container.pid).expect("a cgroup of its own");
    everything_at_once(&container.dispatcher, &namespace);
    assert!(container.dispatcher.is_running(), "the container was killed");
    assert_eq!(cgroup.kills(), Some(0));
    println!("everything at once: the cgroup's peak {:.1} MiB", cgroup.peak().expect("its peak"));
}
