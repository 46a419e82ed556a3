//! A boot that is heard and has not joined is its machine, alive: its supervisor is down, it is not (R11, R16, R17).

use super::*;
use crate::state::Wanted;

fn with_guest() -> Scene {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    scene.stage.run("web", "d");
    scene.later(10_000);
    scene
}

/// The boot `d.2` is heard at this moment.
fn booted(scene: &mut Scene) {
    let now = Moment(scene.now);
    scene.evidence.hosts.entry(host("d")).or_default().hear_other(&boot("d.2"), now, now);
}

/// Time in which nothing is heard of `d` but its new boot.
fn only_new_boot_for(scene: &mut Scene, ms: u64) {
    let (sync, heard) = {
        let known = &scene.evidence.hosts[&host("d")];
        (known.sync.clone(), known.heard.clone())
    };
    scene.later(ms);
    let known = scene.evidence.hosts.get_mut(&host("d")).unwrap();
    (known.sync, known.heard) = (sync, heard);
    scene.asked("d", Some(ms));
    booted(scene);
}

#[test]
fn a_boot_that_has_not_joined_speaks_for_the_life_of_its_host() {
    let mut scene = with_guest();
    scene.silent("d", 5_000);
    assert_eq!(scene.verdict("d"), HostVerdict::Failed, "nothing is heard of it");
    booted(&mut scene);
    assert_eq!(scene.verdict("d"), HostVerdict::Isolated, "R16");
    assert_eq!(scene.words(), ["IncidentOpened"], "a person is told, and nobody is shot");
    scene.now += 1_500;
    scene.asked("d", Some(6_500));
    assert_eq!(scene.verdict("d"), HostVerdict::Failed, "that boot is silent too");
}

#[test]
fn a_coordinator_that_never_heard_the_boot_before_takes_the_new_one_for_life() {
    let mut scene = with_guest();
    scene.later(120_000);
    scene.evidence.hosts.remove(&host("d"));
    scene.asked("d", None);
    assert_eq!(
        scene.verdict("d"),
        HostVerdict::Failed,
        "R19: the time to join has passed, and nobody has ever heard it"
    );
    booted(&mut scene);
    assert_eq!(scene.verdict("d"), HostVerdict::Isolated, "R16");
}

#[test]
fn a_boot_that_is_over_speaks_for_nobody() {
    let mut scene = with_guest();
    scene.stage.state.hosts.get_mut(&host("d")).unwrap().past.push(boot("d.2"));
    scene.silent("d", 5_000);
    booted(&mut scene);
    assert_eq!(scene.verdict("d"), HostVerdict::Failed, "what is heard of an earlier boot was late on its way");
}

#[test]
fn a_guest_that_waits_for_a_boot_without_a_supervisor_costs_its_host_after_some_patience() {
    let mut scene = with_guest();
    scene.silent("d", 1_000);
    booted(&mut scene);
    only_new_boot_for(&mut scene, 29_000);
    assert!(!scene.words().contains(&"FenceOpened".to_owned()), "{:?}", scene.words());
    only_new_boot_for(&mut scene, 1_000);
    let decision = scene.decide();
    let evidence = decision.commands.iter().find_map(|change| match change {
        Change::FenceOpened { evidence, .. } => Some(evidence.join("; ")),
        _ => None,
    });
    let evidence = evidence.expect("nobody else can say that what ran there has ended");
    assert!(evidence.contains("it has booted anew (d.2) and has not joined for 30 s"), "{evidence}");
}

#[test]
fn a_boot_without_a_supervisor_costs_no_host_for_a_guest_that_is_to_be_stopped_or_left_alone() {
    for wanted in [Wanted::Stopped, Wanted::Unmanaged] {
        let mut scene = with_guest();
        let want = |wanted| Change::WantedSet { guest: name("web"), wanted, by: "ann".to_owned() };
        scene.stage.must(want(wanted));
        scene.silent("d", 1_000);
        booted(&mut scene);
        only_new_boot_for(&mut scene, 60_000);
        assert!(!scene.words().contains(&"FenceOpened".to_owned()), "{wanted:?}: {:?}", scene.words());
        scene.stage.must(want(Wanted::Running));
        assert!(scene.words().contains(&"FenceOpened".to_owned()), "{wanted:?}: {:?}", scene.words());
    }
}

#[test]
fn an_open_fence_waits_for_the_new_boot_to_join_and_ends_with_that() {
    let mut scene = with_guest();
    scene.silent("d", 5_000);
    let opened = scene.decide().commands.into_iter().find(|change| matches!(change, Change::FenceOpened { .. }));
    scene.stage.apply(opened.expect("it has failed"));
    booted(&mut scene);
    let fenced = |scene: &Scene| scene.words().iter().any(|word| word.starts_with("Fence"));
    assert!(!fenced(&scene), "{:?}", scene.words());
    let waits = scene.decide().report.hosts[&host("d")].waits.clone();
    assert_eq!(waits, Some(("the supervisor of its new boot".to_owned(), 30_000)));
    scene.stage.apply(Change::HostJoined { host: host("d"), facts: crate::fixture::facts("d", "d.2"), follows: None });
    assert_eq!(scene.stage.state.hosts[&host("d")].life, Life::Up);
}
