//! Who is told of before certificates of hosts end, and when.

use super::*;
use crate::model::Severity;

const DAY: u64 = 24 * 3_600_000;

/// The host has synced with a certificate that ends in so many days; `None`: its version does not say.
fn syncs(scene: &mut Scene, on: &str, days: Option<u64>) {
    scene.synced(on, scene.now);
    let ends = days.map(|days| WallTime(scene.now + days * DAY));
    scene.evidence.hosts.get_mut(&host(on)).unwrap().certificate_ends = ends;
}

/// Of which hosts people are told once everything is carried out that is decided, and how urgently.
fn told_of(scene: &mut Scene) -> Vec<(String, Severity)> {
    scene.settle();
    let open = scene.stage.state.incidents.values().filter(|incident| incident.is_open());
    open.filter_map(|incident| Some((incident.key.strip_prefix("certificate/")?.to_owned(), incident.severity)))
        .collect()
}

#[test]
fn a_certificate_is_told_of_two_months_before_its_end_and_a_person_called_a_fortnight_before() {
    let mut scene = Scene::new(&["a", "b", "c"], &[]);
    for (days, told) in
        [(61, None), (60, Some(Severity::Warning)), (15, Some(Severity::Warning)), (14, Some(Severity::Critical))]
    {
        syncs(&mut scene, "b", Some(days));
        let told: Vec<(String, Severity)> = told.into_iter().map(|severity| ("b".to_owned(), severity)).collect();
        assert_eq!(told_of(&mut scene), told, "{days} days before");
    }
    syncs(&mut scene, "b", Some(0));
    assert_eq!(told_of(&mut scene), [("b".to_owned(), Severity::Critical)], "it has ended");
    let open = scene.stage.state.open_incident("certificate/b").unwrap();
    assert_eq!(open.summary, "the certificate of b ends on 1970-01-01");
    assert!(open.human.as_ref().unwrap().contains("holdfast host certificate b "), "{open:?}");
    syncs(&mut scene, "b", Some(3_650));
    assert_eq!(scene.settle(), ["IncidentResolved"], "it has another");
}

#[test]
fn what_was_told_of_a_certificate_is_no_news_on_the_next_day() {
    let mut scene = Scene::new(&["a", "b", "c"], &[]);
    syncs(&mut scene, "a", Some(50));
    let ends = scene.evidence.hosts[&host("a")].certificate_ends;
    assert_eq!(told_of(&mut scene), [("a".to_owned(), Severity::Warning)]);
    scene.later(DAY);
    assert_eq!(scene.evidence.hosts[&host("a")].certificate_ends, ends, "the same one");
    let of_it = |change: &Change| matches!(change, Change::IncidentOpened { key, .. } if key == "certificate/a");
    assert!(!scene.decide().commands.iter().any(of_it), "{:?}", scene.decide().commands);
}

#[test]
fn the_next_coordinator_does_not_end_what_was_told_of_a_certificate_before_it_has_heard_of_another() {
    let mut scene = Scene::new(&["a", "b", "c"], &[]);
    syncs(&mut scene, "b", Some(30));
    assert_eq!(told_of(&mut scene), [("b".to_owned(), Severity::Warning)]);
    scene.evidence.hosts.clear();
    scene.evidence.quorum_since = Some(Moment(scene.now));
    assert_eq!(told_of(&mut scene), [("b".to_owned(), Severity::Warning)], "nobody was heard yet");
    syncs(&mut scene, "b", None);
    assert!(told_of(&mut scene).is_empty(), "a version that does not say is accused of nothing");
    syncs(&mut scene, "b", Some(30));
    assert_eq!(told_of(&mut scene), [("b".to_owned(), Severity::Warning)]);
    let gone = scene.stage.gone("b");
    scene.stage.must(gone);
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    let over = Change::IncidentResolved { key: "certificate/b".to_owned() };
    assert!(scene.decide().commands.contains(&over), "{:?}", scene.words());
}
