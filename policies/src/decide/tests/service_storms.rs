//! Storm hold of services (S8, S9): many guests that cease to answer at once.

use proptest::prelude::*;

use super::*;
use crate::{
    happened::{Happened, Happening},
    model::{Rung, Severity},
    time::Span,
};

const HOSTS: [&str; 4] = ["a", "b", "c", "d"];

/// Guests `g0`, `g1` … on so many of four hosts in turn, with a ladder that begins with a reset. All have long been well.
fn world(guests: usize, on: usize) -> Scene {
    let names: Vec<String> = (0..guests).map(|number| format!("g{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut scene = Scene::new(&HOSTS, &names);
    let reset = Rung::ResetGuest { tries: 1, wait: Span::secs(8) };
    ladder(&mut scene, vec![reset, Rung::Page { severity: Severity::Critical }]);
    for (index, guest) in names.iter().enumerate() {
        scene.stage.run(guest, HOSTS[index % on]);
    }
    scene.later(600_000);
    names.iter().for_each(|guest| answers(&mut scene, guest));
    scene
}

fn ladder(scene: &mut Scene, rungs: Vec<Rung>) {
    let mut policies = scene.stage.state.policies.clone();
    policies.policies.values_mut().for_each(|policy| policy.ladder.clone_from(&rungs));
    scene.stage.declare(policies);
}

fn sight_from(scene: &mut Scene, guest: &str, vantage: Vantage, state: SightState, passed_ago: u64) {
    let epoch = scene.stage.state.guests[&name(guest)].tenures()[0].epoch;
    let (at, passed) = (Moment(scene.now), Some(Moment(scene.now - passed_ago)));
    let sight = Sight { epoch, state, at, since: at, passed, warns: false, detail: String::new() };
    let services = scene.evidence.services.entry(name(guest)).or_default();
    services.entry(ServiceName::new("http").unwrap()).or_default().insert(vantage, sight);
}

fn both(scene: &mut Scene, guest: &str, state: SightState, passed_ago: u64) {
    for from in ["a", "b"] {
        sight_from(scene, guest, Vantage::Host(host(from)), state, passed_ago);
    }
}

fn answers(scene: &mut Scene, guest: &str) {
    both(scene, guest, SightState::Passing, 0);
}

/// Hosts get no answer, and got the last one so many milliseconds ago.
fn falls(scene: &mut Scene, guests: &[&str], ago: u64) {
    for guest in guests {
        both(scene, guest, SightState::Failing, ago);
    }
}

fn climbs(scene: &Scene) -> Vec<String> {
    let guest = |change: &Change| match change {
        Change::Climb { guest, .. } => Some(guest.to_string()),
        _ => None,
    };
    let mut climbs: Vec<String> = scene.decide().commands.iter().filter_map(guest).collect();
    climbs.sort_unstable();
    climbs
}

fn doing(scene: &Scene, guest: &str) -> (String, Option<u64>) {
    let judgement = scene.decide().report.guests[&name(guest)].clone();
    (judgement.doing, judgement.waits.map(|(_, left)| left))
}

#[test]
fn only_many_guests_of_different_hosts_that_cease_to_answer_together_are_held() {
    let three: &[&str] = &["g0", "g1", "g2"];
    let table: [(&str, usize, usize, &[&str], bool); 7] = [
        ("three of eight", 8, 4, three, true),
        ("three of nine are no more than a third", 9, 4, three, false),
        ("two of three are too few", 3, 3, &["g0", "g1"], false),
        ("all of two", 2, 2, &["g0", "g1"], false),
        ("all of three", 3, 3, three, true),
        ("three of one host", 8, 2, &["g0", "g2", "g4"], false),
        ("three of two hosts", 8, 2, three, true),
    ];
    for (what, guests, on, fallen, held) in table {
        let mut scene = world(guests, on);
        falls(&mut scene, fallen, 2_000);
        let expected: Vec<&str> = if held { Vec::new() } else { fallen.to_vec() };
        assert_eq!(climbs(&scene), expected, "{what}");
    }
}

#[test]
fn guests_of_one_declared_failure_domain_are_not_held_since_another_one_may_be_better() {
    for (domains, held) in [(["r1", "r1", "r1", "r2"], false), (["r1", "r1", "r2", "r2"], true)] {
        let mut scene = world(8, 4);
        let mut policies = scene.stage.state.policies.clone();
        policies.cluster.failure_domain = Some("rack".to_owned());
        for (on, rack) in HOSTS.iter().zip(domains) {
            policies.hosts.entry(host(on)).or_default().labels.insert("rack".to_owned(), rack.to_owned());
        }
        scene.stage.declare(policies);
        scene.later(1_000);
        (0..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
        falls(&mut scene, &["g0", "g1", "g2"], 2_000);
        assert_eq!(climbs(&scene).is_empty(), held, "{domains:?}");
    }
}

#[test]
fn a_storm_of_services_calls_one_human_says_what_is_held_and_ends_a_moment_after_they_answer() {
    let mut scene = world(8, 4);
    falls(&mut scene, &["g0", "g1", "g2"], 2_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    let incident = scene.stage.state.open_incident("service_storm").unwrap().clone();
    assert_eq!((incident.severity, incident.human.is_some()), (Severity::Critical, true));
    assert_eq!(incident.seen[0].what[0], "3 of 8 guests that hosts ask over the network have ceased to answer");
    assert_eq!(incident.seen[0].what[1], "http of g0 on a does not answer host:a, host:b");
    let (said, left) = doing(&scene, "g0");
    assert!(said.starts_with("http does not answer: the rung reset_guest is held, because guests on"), "{said}");
    assert_eq!(left, Some(298_000));
    // Two answer again, and the third one is on its way to.
    scene.later(20_000);
    (0..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    falls(&mut scene, &["g2"], 22_000);
    assert_eq!(scene.settle(), ["IncidentOpened"], "it is said that this is so");
    assert!(climbs(&scene).is_empty());
    // It has had the time to pass as often as it takes: three times 500 ms, 500 ms for an answer, two syncs.
    scene.later(2_600);
    (0..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    falls(&mut scene, &["g2"], 24_600);
    assert_eq!(scene.words(), ["IncidentResolved", "Climb"]);
    (0..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn services_are_restarted_in_a_storm_and_nobody_is_called_before_something_is_held() {
    let mut scene = world(8, 4);
    let restart = Rung::RestartService { run: vec!["restart".to_owned()], tries: 1, wait: Span::secs(3) };
    ladder(&mut scene, vec![restart, Rung::RebootGuest { tries: 1, wait: Span::secs(8) }]);
    falls(&mut scene, &["g0", "g1", "g2"], 2_000);
    assert_eq!(scene.settle(), ["Climb", "Climb", "Climb"]);
    for on in ["a", "b", "c"] {
        scene.stage.end(on, done());
    }
    scene.later(2_900);
    falls(&mut scene, &["g0", "g1", "g2"], 4_900);
    (3..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    assert_eq!(scene.words(), Vec::<String>::new(), "the restarts may still help");
    scene.later(100);
    falls(&mut scene, &["g0", "g1", "g2"], 5_000);
    (3..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    assert_eq!(scene.settle(), ["IncidentOpened"]);
}

#[test]
fn a_human_is_called_in_a_storm_in_which_ladders_end_without_a_rung_that_is_held() {
    let mut scene = world(8, 4);
    let restart = Rung::RestartService { run: vec!["restart".to_owned()], tries: 1, wait: Span::secs(3) };
    ladder(&mut scene, vec![restart]);
    falls(&mut scene, &["g0", "g1", "g2"], 2_000);
    assert_eq!(scene.settle(), ["Climb", "Climb", "Climb"]);
    for on in ["a", "b", "c"] {
        scene.stage.end(on, done());
    }
    scene.later(3_000);
    falls(&mut scene, &["g0", "g1", "g2"], 5_000);
    (3..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    assert!(tells_of_storm(&scene), "{:?}", scene.words());
    assert_eq!(scene.settle(), ["IncidentOpened"], "one, in place of one for each guest");
}

#[test]
fn no_guest_is_held_for_longer_than_is_said_however_long_the_storm_lasts() {
    let mut scene = world(8, 4);
    falls(&mut scene, &["g0", "g1", "g2"], 2_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    for (later, held) in [(297_000, true), (1_000, false)] {
        scene.later(later);
        (3..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
        let ago = if held { 299_000 } else { 300_000 };
        falls(&mut scene, &["g0", "g1", "g2"], ago);
        assert_eq!(climbs(&scene).is_empty(), held, "{ago} ms");
    }
    assert_eq!(scene.words()[0], "IncidentOpened", "nobody is to think that it is over");
}

/// Three guests with a ladder that only calls somebody have not answered for twenty minutes.
fn long_ago() -> Scene {
    let mut scene = world(8, 4);
    ladder(&mut scene, vec![Rung::Page { severity: Severity::Critical }]);
    falls(&mut scene, &["g0", "g1", "g2"], 2_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    scene.later(298_000);
    (3..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    falls(&mut scene, &["g0", "g1", "g2"], 300_000);
    assert_eq!(scene.settle(), ["IncidentOpened", "Climb", "Climb", "Climb"], "they are let go");
    scene.later(900_000);
    (3..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    falls(&mut scene, &["g0", "g1", "g2"], 1_200_000);
    scene
}

#[test]
fn a_guest_that_fails_long_after_a_storm_began_that_is_not_over_is_not_held_and_is_no_news_of_it() {
    let mut scene = long_ago();
    assert_eq!(scene.words(), Vec::<String>::new(), "people know of it");
    falls(&mut scene, &["g3"], 2_000);
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn another_storm_is_seen_while_an_earlier_one_is_not_over_also_before_it_shows() {
    let mut scene = long_ago();
    falls(&mut scene, &["g3"], 2_000);
    ["g4", "g5"].iter().for_each(|guest| both(&mut scene, guest, SightState::Passing, 1_500));
    assert_eq!(scene.words(), Vec::<String>::new(), "it shows in a moment whether they fail too");
    falls(&mut scene, &["g4", "g5"], 2_000);
    assert!(climbs(&scene).is_empty() && tells_of_storm(&scene), "{:?}", scene.words());
}

#[test]
fn a_service_that_fails_later_has_its_guest_held_no_longer_for_the_first_one() {
    for (ago, expected) in [(299_999, vec![]), (300_000, vec!["g0"])] {
        let mut scene = world(8, 4);
        let (http, mail) = (ServiceName::new("http").unwrap(), ServiceName::new("mail").unwrap());
        let mut policies = scene.stage.state.policies.clone();
        for policy in policies.policies.values_mut() {
            let declared = policy.services[&http].clone();
            policy.services.insert(mail.clone(), declared);
        }
        scene.stage.declare(policies);
        falls(&mut scene, &["g0"], ago);
        falls(&mut scene, &["g1", "g2"], 2_000);
        let passed = Some(Moment(scene.now - 2_000));
        let services = scene.evidence.services.get_mut(&name("g0")).unwrap();
        let mut sights = services[&http].clone();
        sights.values_mut().for_each(|sight| sight.passed = passed);
        services.insert(mail, sights);
        assert_eq!(climbs(&scene), expected, "{ago} ms");
    }
}

#[test]
fn a_guest_whose_own_failure_is_proven_is_no_part_of_a_storm_and_is_let_through() {
    type Tells = fn(&mut Scene);
    fn happened(scene: &mut Scene, ago_ms: u64, what: Happening) {
        let reports = &mut scene.evidence.hosts.get_mut(&host("a")).unwrap().reports;
        reports.get_mut(&name("g0")).unwrap().happened = vec![Happened { ago_ms, what }];
    }
    let table: [(&str, bool, Tells); 8] = [
        ("nothing", false, |_| {}),
        ("its watchdog", true, |scene| happened(scene, 1_000, Happening::Watchdog { action: "none".to_owned() })),
        ("its watchdog long ago", false, |scene| {
            happened(scene, 60_000, Happening::Watchdog { action: "none".to_owned() });
        }),
        ("its agent", true, |scene| happened(scene, 1_000, Happening::AgentLeft { own: true })),
        ("it ended", true, |scene| scene.report("g0", "a", GuestCondition::Exited { detail: "1".to_owned() })),
        ("it panicked", true, |scene| scene.report("g0", "a", GuestCondition::Panicked)),
        ("inside", true, |scene| sight_from(scene, "g0", Vantage::Inside, SightState::Failing, 2_000)),
        ("not inside", false, |scene| sight_from(scene, "g0", Vantage::Inside, SightState::Passing, 0)),
    ];
    for (what, let_through, tells) in table {
        let mut scene = world(8, 4);
        falls(&mut scene, &["g0", "g1", "g2", "g3"], 2_000);
        tells(&mut scene);
        let expected: &[&str] = if let_through { &["g0"] } else { &[] };
        assert_eq!(climbs(&scene), expected, "{what}");
        // With one less the others are too few, unless it is part of the storm.
        answers(&mut scene, "g3");
        assert_eq!(climbs(&scene).is_empty(), !let_through, "{what}");
    }
}

#[test]
fn guests_that_are_frozen_for_a_backup_make_no_storm_with_one_that_fails() {
    let mut scene = world(8, 4);
    falls(&mut scene, &["g0", "g1", "g2", "g3"], 2_000);
    for (guest, on) in [("g0", "a"), ("g1", "b"), ("g2", "c")] {
        let seen = scene.evidence.hosts.get_mut(&host(on)).unwrap();
        let mut reports = seen.reports.clone();
        reports.get_mut(&name(guest)).unwrap().frozen_ms = Some(1_500);
        seen.report(reports, Moment(scene.now));
    }
    assert_eq!(scene.words(), ["Climb"]);
    assert_eq!(climbs(&scene), ["g3"]);
}

/// A rack that has lost its power is no matter of services. Before its hosts are missed it may be one.
#[test]
fn guests_of_hosts_that_are_just_being_missed_make_no_storm() {
    let fallen = ["g0", "g1", "g2", "g4", "g5", "g6"];
    for (unsynced_ms, held, told) in
        [(700, true, true), (800, true, false), (1_499, true, false), (1_500, false, false)]
    {
        let mut scene = world(8, 4);
        falls(&mut scene, &fallen, 2_000);
        scene.synced("a", scene.now - unsynced_ms);
        scene.synced("b", scene.now - unsynced_ms);
        assert_eq!(!climbs(&scene).contains(&"g2".to_owned()), held, "{unsynced_ms} ms");
        assert_eq!(tells_of_storm(&scene), told, "{unsynced_ms} ms");
    }
}

fn tells_of_storm(scene: &Scene) -> bool {
    let tells = |change: &Change| matches!(change, Change::IncidentOpened { key, .. } if key == "service_storm");
    scene.decide().commands.iter().any(tells)
}

/// A hiccup of a second harms nobody, be it of one host or of the coordinator, which hears nobody then.
#[test]
fn a_sync_that_is_late_in_a_storm_lets_nobody_through_and_tells_nobody_anything() {
    let all: &[&str] = &HOSTS;
    for (late, was_told) in [(&all[..1], false), (&all[..1], true), (all, false), (all, true)] {
        let mut scene = world(8, 4);
        falls(&mut scene, &["g0", "g1", "g2"], 2_000);
        if was_told {
            assert_eq!(scene.settle(), ["IncidentOpened"]);
        }
        for on in late {
            scene.synced(on, scene.now - 800);
        }
        assert_eq!(scene.words(), Vec::<String>::new(), "{late:?}, told: {was_told}");
    }
}

#[test]
fn a_guest_that_ceased_to_answer_long_before_makes_no_storm_with_others() {
    for (ago, held) in [(32_000, true), (32_001, false)] {
        let mut scene = world(3, 3);
        falls(&mut scene, &["g0", "g1"], 2_000);
        falls(&mut scene, &["g2"], ago);
        assert_eq!(climbs(&scene).is_empty(), held, "{ago} ms");
    }
    let mut scene = world(8, 4);
    falls(&mut scene, &["g0", "g1", "g2"], 40_000);
    falls(&mut scene, &["g3"], 2_000);
    falls(&mut scene, &["g4"], 90_000);
    assert_eq!(climbs(&scene), ["g4"], "who fails in the course of a storm is part of it, who failed before it is not");
}

#[test]
fn the_first_guest_of_a_storm_is_not_reset_before_it_shows_whether_others_answer() {
    let late = |scene: &mut Scene, passed_ago: u64| {
        ["g1", "g2"].iter().for_each(|guest| both(scene, guest, SightState::Passing, passed_ago));
    };
    // They are asked every 500 ms, and it takes 2 s and two syncs to show that they do not answer.
    for (passed_ago, held) in [(1_000, false), (1_001, true), (2_499, true), (2_500, false)] {
        let mut scene = world(8, 4);
        falls(&mut scene, &["g0"], 1_500);
        late(&mut scene, passed_ago);
        assert_eq!(climbs(&scene).is_empty(), held, "{passed_ago} ms");
        assert!(!scene.words().contains(&"IncidentOpened".to_owned()), "{passed_ago} ms");
        let left = held.then_some(2_500 - passed_ago);
        assert!(!held || doing(&scene, "g0").1 == left, "{:?}", doing(&scene, "g0"));
    }
}

#[test]
fn a_new_coordinator_finds_the_storm_again_and_listens_before_it_resets_anybody() {
    let mut scene = world(8, 4);
    falls(&mut scene, &["g0", "g1", "g2"], 100_000);
    scene.evidence.quorum_since = Some(Moment(scene.now - 10));
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    // Of the others it has heard nothing yet.
    for (since, held) in [(1_499, true), (1_500, false)] {
        let mut scene = world(8, 4);
        scene.evidence.services.clear();
        falls(&mut scene, &["g0"], 2_000);
        scene.evidence.quorum_since = Some(Moment(scene.now - since));
        assert_eq!(climbs(&scene).is_empty(), held, "{since} ms");
    }
}

#[test]
fn a_new_coordinator_ends_no_storm_before_it_has_heard_how_guests_are() {
    let mut scene = world(8, 4);
    falls(&mut scene, &["g0", "g1", "g2"], 2_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    scene.evidence.hosts.clear();
    scene.evidence.services.clear();
    scene.evidence.quorum_since = Some(Moment(scene.now));
    assert_eq!(scene.words(), Vec::<String>::new(), "it has heard nothing yet");
    scene.later(1_400);
    falls(&mut scene, &["g0"], 3_400);
    assert_eq!(scene.words(), Vec::<String>::new(), "it has heard of one");
    falls(&mut scene, &["g1", "g2"], 3_400);
    (3..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    assert_eq!(scene.words(), Vec::<String>::new(), "it goes on");
    scene.later(100);
    (0..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    assert_eq!(scene.words(), ["IncidentResolved"]);
}

#[test]
fn a_storm_is_not_said_to_be_over_because_deciding_is_suspended() {
    let mut scene = world(8, 4);
    falls(&mut scene, &["g0", "g1", "g2"], 2_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    let suspended = |suspended| Change::SuspensionSet { suspended, by: "ann".to_owned() };
    scene.stage.must(suspended(true));
    scene.later(10_000);
    (3..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    falls(&mut scene, &["g0", "g1", "g2"], 12_000);
    assert!(!scene.words().contains(&"IncidentResolved".to_owned()), "{:?}", scene.words());
    scene.stage.must(suspended(false));
    (0..8).for_each(|number| answers(&mut scene, &format!("g{number}")));
    assert!(scene.words().contains(&"IncidentResolved".to_owned()), "{:?}", scene.words());
}

#[test]
fn a_storm_of_services_does_not_hold_up_a_drain() {
    let mut scene = world(4, 4);
    scene.stage.must(Change::ModeSet { host: host("c"), mode: Mode::Draining, by: "ann".to_owned() });
    scene.later(60_000);
    answers(&mut scene, "g3");
    falls(&mut scene, &["g0", "g1", "g2"], 2_000);
    let words = scene.words();
    assert_eq!(words, ["IncidentOpened", "Migrate"], "{words:?}");
}

#[test]
fn in_a_storm_of_services_no_host_is_switched_off_because_its_supervisor_is_silent_and_a_service_there_fails() {
    for is_storm in [false, true] {
        let mut scene = world(8, 4);
        if is_storm {
            falls(&mut scene, &["g0", "g1", "g2"], 2_000);
            assert_eq!(scene.settle(), ["IncidentOpened"]);
        }
        falls(&mut scene, &["g3"], 2_000);
        scene.synced("d", scene.now - 31_000);
        scene.heard("d", 200);
        assert_eq!(scene.verdict("d"), HostVerdict::Isolated);
        let words = scene.words();
        assert_eq!(words.contains(&"FenceOpened".to_owned()), !is_storm, "{words:?}");
    }
}

#[test]
fn no_host_with_a_silent_supervisor_is_switched_off_in_the_round_in_which_a_storm_of_services_shows() {
    for (falling, is_storm) in
        [(vec!["g3"], false), (vec!["g0", "g1", "g3"], false), (vec!["g0", "g1", "g2", "g3"], true)]
    {
        let mut scene = world(8, 4);
        falls(&mut scene, &falling, 2_000);
        scene.synced("d", scene.now - 31_000);
        scene.heard("d", 200);
        let words = scene.words();
        assert_eq!(words.contains(&"FenceOpened".to_owned()), !is_storm, "{falling:?}: {words:?}");
    }
    let mut scene = world(8, 4);
    falls(&mut scene, &["g0", "g1", "g2"], 2_000);
    falls(&mut scene, &["g3"], 100_000);
    scene.synced("d", scene.now - 31_000);
    scene.heard("d", 200);
    let words = scene.words();
    assert!(words.contains(&"FenceOpened".to_owned()), "it has failed long before the others: {words:?}");
}

/// Whether each guest is held, counted one by one: a guest that answers is `None`, any other one has not for so many milliseconds.
fn counted(guests: &[Option<u64>], on: usize) -> Vec<bool> {
    let fallen: Vec<(u64, usize)> =
        guests.iter().enumerate().filter_map(|(index, ago)| Some(((*ago)?, index % on))).collect();
    let is_storm = |first: u64| {
        let within: Vec<usize> =
            fallen.iter().filter(|(ago, _)| *ago <= first && first - ago <= 30_000).map(|(_, at)| *at).collect();
        let hosts: std::collections::BTreeSet<&usize> = within.iter().collect();
        let answered = guests.len() - (fallen.len() - within.len());
        within.len() >= 3 && hosts.len() >= 2 && within.len() * 3 > answered
    };
    let first = fallen.iter().map(|(ago, _)| *ago).filter(|ago| is_storm(*ago)).max();
    let is_held = |ago: u64| ago < 300_000 && first.is_some_and(|first| ago <= first);
    guests.iter().map(|ago| ago.is_some_and(is_held)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_is_held_is_as_a_simple_count_says(
        guests in prop::collection::vec(prop_oneof![
            Just(None::<u64>),
            (1_600_u64..40_000).prop_map(Some),
            (1_600_u64..400_000).prop_map(Some),
        ], 1..9),
        on in 2_usize..5,
    ) {
        let mut scene = world(guests.len(), on);
        for (index, ago) in guests.iter().enumerate().filter_map(|(index, ago)| Some((index, (*ago)?))) {
            falls(&mut scene, &[format!("g{index}").as_str()], ago);
        }
        let held = counted(&guests, on);
        let mut expected: Vec<String> = guests
            .iter()
            .enumerate()
            .filter(|(index, ago)| ago.is_some() && !held[*index])
            .map(|(index, _)| format!("g{index}"))
            .collect();
        expected.sort_unstable();
        prop_assert_eq!(climbs(&scene), expected);
        // The checker, which counts by itself, refuses just what is held.
        for (index, held) in held.iter().enumerate() {
            let plan = [scene.stage.climb(&format!("g{index}"), 0)];
            let now = Moment(scene.now);
            let judged = check(&scene.stage.state, &scene.evidence, &Timing::default(), now, &plan);
            prop_assert_eq!(judged.iter().any(|found| found.promise == "S9"), *held, "g{}", index);
        }
    }
}
