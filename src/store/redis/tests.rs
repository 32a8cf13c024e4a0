//! Checks all scripts of the Redis store, as the modules declare them.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::core::script::Script;
use super::core::{epoch_check, fences};
use super::{aggregates, cache, checkpoints, generations, leases, locks, series};

fn all() -> impl Iterator<Item = &'static Script> {
    let modules: [&[&LazyLock<Script>]; 11] = [
        epoch_check::ALL,
        fences::ALL,
        locks::ALL,
        leases::ALL,
        leases::grants::ALL,
        checkpoints::ALL,
        generations::ALL,
        cache::ALL,
        cache::fill_claims::ALL,
        series::scripts::ALL,
        aggregates::scripts::ALL,
    ];
    modules.into_iter().flatten().map(|script| &***script)
}

#[test]
fn a_script_names_no_key_that_it_does_not_declare() {
    for script in all() {
        let (largest, last) = script.keys_in_text();
        let declared = 1 + script.keys.len();
        assert!(largest <= declared, "{}: KEYS[{largest}] of {declared}", script.name);
        assert!(!last || script.keys.last() == Some(&"fences"), "{}: fences go last", script.name);
    }
}

#[test]
fn a_script_that_checks_a_fence_checks_the_epoch_first() {
    let fenced = all().filter_map(|script| {
        let refusal = script.text().find("local function fence_refusal")?;
        Some((script.name, refusal, script.text().find("run_id:")))
    });
    let fenced: Vec<_> = fenced.collect();
    assert_eq!(fenced.len(), 8);
    for (name, refusal, epoch_check) in fenced {
        assert!(epoch_check.is_some_and(|epoch_check| epoch_check < refusal), "{name}");
    }
}

#[test]
fn each_script_has_its_own_name_and_declares_a_key_once() {
    let mut names = HashSet::new();
    for script in all() {
        assert!(names.insert(script.name), "{} is declared twice", script.name);
        let keys: HashSet<_> = script.keys.iter().collect();
        assert_eq!(keys.len(), script.keys.len(), "{}", script.name);
    }
    assert!(names.len() > 20);
}
