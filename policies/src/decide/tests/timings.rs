//! Who is told of when host files say different things of `timing`.

use super::*;
use crate::{model::Severity, time::Span, timing::TimingTold};

/// Three voters, and nothing that waits for any of them.
fn three() -> Scene {
    Scene::new(&["a", "b", "c"], &[])
}

/// The host has synced, with a lease of so many seconds in its host file; `None`: its version does not say.
fn syncs(scene: &mut Scene, on: &str, lease_secs: Option<u64>) {
    scene.synced(on, scene.now);
    let timing = |secs| TimingTold::of(&Timing { lease: Span::secs(secs), ..Timing::default() });
    scene.evidence.hosts.get_mut(&host(on)).unwrap().timing = lease_secs.map(timing);
}

/// The hosts of which people are told once everything is carried out that is decided.
fn told_of(scene: &mut Scene) -> Vec<String> {
    scene.settle();
    let open = scene.stage.state.incidents.values().filter(|incident| incident.is_open());
    open.filter_map(|incident| incident.key.strip_prefix("timing/")).map(str::to_owned).collect()
}

#[test]
fn a_host_with_another_timing_than_most_voters_is_told_of_until_they_agree() {
    let mut scene = four();
    for on in ["a", "b", "c", "d"] {
        syncs(&mut scene, on, Some(4));
    }
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    syncs(&mut scene, "a", Some(40));
    assert_eq!(scene.settle(), ["IncidentOpened"], "it leads, and is told of all the same");
    let open = scene.stage.state.open_incident("timing/a").unwrap();
    assert_eq!(
        (open.severity, open.summary.as_str()),
        (Severity::Warning, "the timing of a is not the cluster's: lease is 40s and not 4s")
    );
    let human = open.human.clone().unwrap();
    assert!(human.contains("in the host file of a,") && human.contains("its guard too"), "{human}");
    syncs(&mut scene, "a", Some(5));
    assert_eq!(scene.settle(), ["IncidentOpened"], "another value is news");
    syncs(&mut scene, "a", Some(4));
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn hosts_without_a_vote_are_compared_and_have_no_say() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e"], &[]);
    scene.evidence.voters = [host("a")].into();
    syncs(&mut scene, "a", Some(4));
    for on in ["b", "c", "d", "e"] {
        syncs(&mut scene, on, Some(5));
    }
    assert_eq!(told_of(&mut scene), ["b", "c", "d", "e"]);
}

#[test]
fn the_next_coordinator_neither_ends_it_nor_accuses_another_host_before_it_has_heard_enough() {
    let mut scene = three();
    for (on, lease) in [("a", 4), ("b", 40), ("c", 4)] {
        syncs(&mut scene, on, Some(lease));
    }
    assert_eq!(told_of(&mut scene), ["b"]);
    let before = scene.stage.index;
    // Each leadership begins without what was heard in the one before.
    scene.evidence.hosts.clear();
    scene.evidence.quorum_since = Some(Moment(scene.now));
    assert_eq!(told_of(&mut scene), ["b"], "nobody was heard yet");
    syncs(&mut scene, "b", Some(40));
    assert_eq!(told_of(&mut scene), ["b"], "all that were heard agree");
    syncs(&mut scene, "a", Some(4));
    assert_eq!(told_of(&mut scene), ["b"], "as many have the one as the other, and b is not the first by name");
    syncs(&mut scene, "c", Some(4));
    assert_eq!(told_of(&mut scene), ["b"]);
    assert_eq!(scene.stage.index, before, "people were told nothing new");
}

#[test]
fn of_a_host_that_does_not_say_its_timing_nobody_is_told() {
    let mut scene = three();
    for (on, lease) in [("a", Some(4)), ("b", None), ("c", Some(40))] {
        syncs(&mut scene, on, lease);
    }
    assert_eq!(told_of(&mut scene), Vec::<String>::new(), "b may have the one or the other");
    syncs(&mut scene, "b", Some(4));
    assert_eq!(told_of(&mut scene), ["c"]);
    syncs(&mut scene, "c", None);
    assert_eq!(told_of(&mut scene), Vec::<String>::new(), "an older version was put in its place");
}

#[test]
fn of_a_host_that_is_gone_it_is_not_told_any_more() {
    let mut scene = three();
    for (on, lease) in [("a", 4), ("b", 4), ("c", 40)] {
        syncs(&mut scene, on, Some(lease));
    }
    assert_eq!(told_of(&mut scene), ["c"]);
    let gone = scene.stage.gone("c");
    scene.stage.must(gone);
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    let over = Change::IncidentResolved { key: "timing/c".to_owned() };
    assert!(scene.decide().commands.contains(&over), "{:?}", scene.words());
}
