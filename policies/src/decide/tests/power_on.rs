//! Power-on after fencing, and how many fences there may be (R21).

use super::*;
use crate::{
    feature_level::FeatureLevel,
    model::Policies,
    order::{OrderKind, Switch},
    rules::{FencesAtOnce, HostDeclaration},
    state::POWER_ON_TRIES_MAX,
};

/// Seven hosts, of which `g` was fenced and is proven off, with these settings.
fn fenced(change: fn(&mut Policies)) -> Scene {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e", "f", "g"], &["web", "db"]);
    scene.stage.state.level = FeatureLevel::HIGHEST;
    scene.stage.run("web", "g");
    scene.stage.run("db", "f");
    let mut policies = scene.stage.state.policies.clone();
    policies.cluster.power_on_after_fence = true;
    change(&mut policies);
    scene.stage.declare(policies);
    scene.later(60_000);
    scene.silent("g", 2_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
    scene.stage.end("a", done());
    scene.power("g", off("g", Moment(scene.now)));
    assert!(scene.settle().contains(&"HostGone".to_owned()));
    let start = scene.stage.state.orders.values().next().unwrap().id;
    scene.stage.must(Change::OrderEnded { order: start, outcome: done() });
    scene
}

impl Scene {
    /// Time passes, and nothing more is heard of `g`.
    fn quietly_later(&mut self, ms: u64) {
        let known = self.evidence.hosts[&host("g")].clone();
        self.later(ms);
        self.evidence.hosts.insert(host("g"), known);
    }
}

#[test]
fn a_host_that_was_fenced_is_switched_on_again_after_a_while_if_that_is_wanted() {
    let mut scene = fenced(|_| {});
    scene.quietly_later(19_000);
    assert!(!scene.words().contains(&"PowerOnOrdered".to_owned()), "what was ordered before may still act");
    scene.quietly_later(1_000);
    assert!(scene.settle().contains(&"PowerOnOrdered".to_owned()));
    let order = scene.stage.state.orders.values().find(|order| matches!(order.kind, OrderKind::Fence { .. })).unwrap();
    assert!(matches!(&order.kind, OrderKind::Fence { switch: Switch::On, .. }));
    assert_eq!(scene.stage.state.fence_under_way(&host("g")), None, "its next boot may join at once");
    scene.stage.join("g", "g.2");
    assert!(scene.stage.state.hosts[&host("g")].powered_on.is_none());

    let mut unwanted = fenced(|policies| policies.cluster.power_on_after_fence = false);
    unwanted.quietly_later(600_000);
    assert!(!unwanted.settle().contains(&"PowerOnOrdered".to_owned()));
}

#[test]
fn who_is_quarantined_or_switched_off_by_somebody_else_or_held_by_a_person_stays_off() {
    let mut often = fenced(|policies| policies.cluster.quarantine_after_fences = Some(1));
    often.quietly_later(60_000);
    assert!(!often.settle().contains(&"PowerOnOrdered".to_owned()), "quarantined");

    let mut kept = fenced(|_| {});
    kept.stage.state.hosts.get_mut(&host("g")).unwrap().mode = Mode::Maintenance;
    kept.quietly_later(60_000);
    assert!(!kept.settle().contains(&"PowerOnOrdered".to_owned()), "in maintenance");

    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    scene.stage.run("web", "d");
    let mut policies = scene.stage.state.policies.clone();
    policies.cluster.power_on_after_fence = true;
    scene.stage.declare(policies);
    scene.now += 1_000;
    scene.all_well();
    scene.synced("d", scene.now - 900);
    scene.power("d", off("d", Moment(scene.now - 100)));
    assert!(scene.settle().contains(&"HostGone".to_owned()));
    scene.later(60_000);
    scene.silent("d", 60_000);
    assert!(!scene.settle().contains(&"PowerOnOrdered".to_owned()), "nobody fenced it");
}

#[test]
fn a_host_that_cannot_be_switched_on_is_told_after_some_tries() {
    let mut scene = fenced(|_| {});
    for attempt in 0..POWER_ON_TRIES_MAX {
        scene.quietly_later(600_000);
        assert!(scene.settle().contains(&"PowerOnOrdered".to_owned()), "try {attempt}");
        let order = scene.stage.state.hosts[&host("g")].powered_on.as_ref().unwrap().order.unwrap();
        scene.stage.must(Change::OrderEnded { order, outcome: failed() });
    }
    scene.quietly_later(600_000);
    assert!(!scene.settle().contains(&"PowerOnOrdered".to_owned()));
    assert!(scene.stage.state.open_incident("power_on/g").is_some());
}

#[test]
fn beyond_the_budget_of_an_hour_nobody_is_fenced_and_a_person_is_called() {
    let mut scene = fenced(|policies| policies.cluster.fences_per_hour_in_all = Some(1));
    scene.later(60_000);
    scene.silent("g", 60_000);
    scene.silent("f", 2_000);
    let decided = scene.settle();
    assert!(!decided.contains(&"FenceAttempted".to_owned()), "{decided:?}");
    let incident = scene.stage.state.open_incident("host/f").unwrap();
    assert!(incident.human.as_ref().unwrap().contains("confirm-off f"), "{incident:?}");
    // An hour later the first one is forgotten.
    scene.later(3_600_000);
    scene.silent("g", 60_000);
    scene.silent("f", 60_000);
    assert!(scene.settle().contains(&"FenceAttempted".to_owned()));
}

#[test]
fn one_fence_runs_at_a_time_or_one_in_each_failure_domain_if_that_is_wanted() {
    for (at_once, fences) in [(FencesAtOnce::One, 1), (FencesAtOnce::OnePerFailureDomain, 2)] {
        let mut scene = Scene::new(&["a", "b", "c", "d", "e", "f", "g"], &["web", "db", "app"]);
        for (guest, on) in [("web", "g"), ("db", "f"), ("app", "e")] {
            scene.stage.run(guest, on);
        }
        let mut policies = scene.stage.state.policies.clone();
        policies.cluster.failure_domain = Some("rack".to_owned());
        policies.cluster.fences_at_once = at_once;
        for (name, rack) in [("g", "r1"), ("f", "r1"), ("e", "r2")] {
            let labels = [("rack".to_owned(), rack.to_owned())].into();
            policies.hosts.insert(host(name), HostDeclaration { labels, ..HostDeclaration::default() });
        }
        scene.stage.declare(policies);
        scene.later(600_000);
        // One after the other, so that they are no storm.
        for name in ["g", "f", "e"] {
            scene.stage.fence(name);
        }
        for (name, ms) in [("g", 400_000), ("f", 200_000), ("e", 2_000)] {
            scene.silent(name, ms);
        }
        let attempts = scene.words().iter().filter(|word| *word == "FenceAttempted").count();
        assert_eq!(attempts, fences, "{at_once:?}: {:?}", scene.words());
    }
}
