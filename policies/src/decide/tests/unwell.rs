//! Who is told of hosts that are not well by their own word, and when.

use super::{restraint::set_mode, *};

/// The host has been saying so since then; `None`: it is well.
fn says(scene: &mut Scene, on: &str, since: Option<u64>, why: &str) {
    let unwell_for = since.map(|since| (Moment(since), why.to_owned()));
    scene.evidence.hosts.get_mut(&host(on)).unwrap().unwell_for = unwell_for;
}

/// Of which hosts people are told once everything is carried out that is decided.
fn told_of(scene: &mut Scene) -> Vec<String> {
    scene.settle();
    let open = scene.stage.state.incidents.values().filter(|incident| incident.is_open());
    open.filter_map(|incident| Some(incident.key.strip_prefix("unwell/")?.to_owned())).collect()
}

#[test]
fn a_host_that_has_not_been_well_for_minutes_is_told_of_once_and_when_it_is() {
    let mut scene = Scene::new(&["a", "b", "c"], &[]);
    let since = scene.now;
    says(&mut scene, "b", Some(since), "no room");
    scene.later(299_999);
    assert!(told_of(&mut scene).is_empty(), "it may be over in a moment");
    scene.later(1);
    assert_eq!(told_of(&mut scene), ["b"]);
    let open = scene.stage.state.open_incident("unwell/b").unwrap();
    assert!(open.human.as_ref().unwrap().contains("no room"), "{open:?}");
    let told = open.seq;
    says(&mut scene, "b", Some(since), "no room, and its link loses 40%");
    assert_eq!(told_of(&mut scene), ["b"]);
    assert_eq!(scene.stage.state.open_incident("unwell/b").unwrap().seq, told, "other words are no news");
    says(&mut scene, "b", None, "");
    assert!(told_of(&mut scene).is_empty(), "it is well");
}

#[test]
fn a_new_coordinator_does_not_end_what_was_told_of_a_host_that_is_not_well_before_it_has_heard_it() {
    let mut scene = Scene::new(&["a", "b", "c"], &[]);
    let since = scene.now;
    says(&mut scene, "b", Some(since), "no room");
    scene.later(300_000);
    assert_eq!(told_of(&mut scene), ["b"]);
    scene.evidence.hosts.clear();
    scene.evidence.quorum_since = Some(Moment(scene.now));
    assert_eq!(told_of(&mut scene), ["b"], "nobody was heard yet");
    scene.all_well();
    let heard = scene.now;
    says(&mut scene, "b", Some(heard), "no room");
    assert_eq!(told_of(&mut scene), ["b"], "it says so still");
}

#[test]
fn nobody_is_told_of_a_host_that_is_not_well_while_somebody_works_on_it() {
    let mut scene = Scene::new(&["a", "b", "c"], &[]);
    let since = scene.now;
    says(&mut scene, "b", Some(since), "no room");
    set_mode(&mut scene, "b", Mode::Maintenance);
    scene.later(300_000);
    assert!(told_of(&mut scene).is_empty());
}

/// `a` coordinates. Its own complaint is no doubt, and so tells in its syncs alone.
#[test]
fn a_host_that_carries_no_orders_out_gets_no_guest_that_another_can_take_whether_it_coordinates_or_not() {
    for ill in ["a", "b"] {
        let mut scene = Scene::new(&["a", "b"], &["web"]);
        let since = scene.now;
        says(&mut scene, ill, Some(since), "no room");
        let decision = scene.decide();
        assert_eq!(decision.report.hosts[&host(ill)].unwell.as_deref(), Some("no room"));
        let placed = decision.commands.iter().find_map(|change| match change {
            Change::Place { host, .. } => Some(host.clone()),
            _ => None,
        });
        let well = if ill == "a" { "b" } else { "a" };
        assert_eq!(placed, Some(host(well)), "{ill} is not well");
    }
}
