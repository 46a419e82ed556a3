//! What is decided for guests, by table: one situation, one promise each.

mod failures;
mod hands_off;
mod moves;
mod order;
mod strays;
mod unasked;
mod vanished;
mod waits;
mod wanted;

use crate::{
    change::Change,
    decide::tests::Scene,
    evidence::SightState,
    fixture::{host, name},
    names::RuleName,
    rules::{Guests, Hosts, Rule, Score},
    state::{Mode, Wanted},
};

fn want(scene: &mut Scene, guest: &str, wanted: Wanted) {
    scene.stage.must(Change::WantedSet { guest: name(guest), wanted, by: "ann".to_owned() });
}

fn set_mode(scene: &mut Scene, on: &str, mode: Mode) {
    scene.stage.must(Change::ModeSet { host: host(on), mode, by: "ann".to_owned() });
}

fn suspend(scene: &mut Scene, suspended: bool) {
    scene.stage.must(Change::SuspensionSet { suspended, by: "ann".to_owned() });
}

fn doing(scene: &Scene, guest: &str) -> String {
    scene.decide().report.guests[&name(guest)].doing.clone()
}

/// Time passes, and nothing is heard of a host that is gone.
fn later_without(scene: &mut Scene, on: &str, ms: u64) {
    scene.later(ms);
    scene.evidence.hosts.remove(&host(on));
}

/// Time passes, all hosts sync, and `d` has nothing of `web`.
fn later_with_nothing(scene: &mut Scene, ms: u64) {
    let left = scene.evidence.hosts[&host("d")].left.clone();
    scene.later(ms);
    let here = scene.evidence.hosts.get_mut(&host("d")).unwrap();
    here.left = left;
    here.reports.clear();
}

/// Changes what is declared.
fn redeclare(scene: &mut Scene, change: impl FnOnce(&mut crate::model::Policies)) {
    let mut policies = scene.stage.state.policies.clone();
    change(&mut policies);
    scene.stage.declare(policies);
}

/// Declares one more rule.
fn rule(scene: &mut Scene, rule: Rule) {
    redeclare(scene, |policies| {
        let name = format!("rule-{}", policies.rules.len());
        policies.rules.insert(RuleName::new(name).unwrap(), rule);
    });
}

fn hosts_rule(guest: &str, scores: &[(&str, Score)], required: bool) -> Rule {
    let hosts = Hosts::Named(scores.iter().map(|(on, score)| (host(on), *score)).collect());
    Rule::Hosts { guests: Guests::Named(vec![name(guest)]), hosts, required }
}

fn ask_move(guest: &str, to: &str) -> Change {
    Change::MoveAsked { guest: name(guest), to: host(to), cold: false, by: "ann".to_owned() }
}

fn cold_only(scene: &mut Scene, guest: &str) {
    redeclare(scene, |policies| policies.guests.get_mut(&name(guest)).unwrap().needs.live_migration = false);
}

/// Where the guest runs or starts.
fn home(scene: &Scene, guest: &str) -> String {
    scene.stage.state.guests[&name(guest)].tenures().first().map_or("nowhere".to_owned(), |home| home.host.to_string())
}
