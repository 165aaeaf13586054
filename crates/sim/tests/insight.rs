//! The judge: faults in simulated meshes, and what the bots say of them.

#![allow(clippy::unwrap_used)]

use canary_sim::judge::{ALL, Fault, play};

/// Plays faults in small meshes, labelled and not.
fn judge(wanted: impl Fn(&Fault) -> bool) {
    let mut wrong = Vec::new();
    for fault in ALL.iter().filter(|fault| !fault.is_long && wanted(fault)) {
        for (nodes, labelled) in [(8, true), (20, false)] {
            let Some(outcome) = play(fault, nodes, 7, labelled) else { continue };
            if !outcome.is_right() || outcome.disagree {
                wrong.push(format!(
                    "{} with {nodes} nodes: {:?}\n{}",
                    fault.name,
                    outcome.wrong,
                    outcome.log.join("\n")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn the_culprit_of_a_single_fault_is_named_by_all_and_alone() {
    judge(|fault| fault.causes == 1 && !fault.needs_warmth);
}

#[test]
fn slowness_and_loss_are_distinguished_and_blamed_on_the_right_node() {
    judge(|fault| fault.causes == 1 && fault.needs_warmth);
}

#[test]
fn two_faults_at_once_are_two_incidents() {
    judge(|fault| fault.causes == 2);
}

#[test]
fn restarts_goodbyes_and_newcomers_are_no_incidents() {
    judge(|fault| fault.causes == 0 && !fault.needs_warmth);
}

#[test]
fn latency_that_follows_the_day_and_a_lost_packet_in_a_hundred_are_no_incidents() {
    judge(|fault| fault.causes == 0 && fault.needs_warmth);
}

/// One fault with labels.
fn is_right(name: &str, nodes: usize, seed: u64) {
    let fault = ALL.iter().find(|fault| fault.name == name).unwrap();
    let outcome = play(fault, nodes, seed, true).unwrap();
    assert!(outcome.is_right(), "{:?}\n{}", outcome.wrong, outcome.log.join("\n"));
}

#[test]
fn nobody_is_blamed_while_rows_tell_late_of_a_repair() {
    is_right("zone cut, gossip scarce", 100, 1);
}

#[test]
fn who_held_others_for_dead_is_no_observer_without_time() {
    is_right("rack cut", 20, 1);
}
