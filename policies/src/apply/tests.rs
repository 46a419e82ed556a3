//! Applying by table: one situation, one promise each.

use super::*;
use crate::{
    evidence::LAST_WORDS_BYTES_MAX,
    fixture::{Stage, boot, declaration, done, facts, failed, host, name, place_on},
    model::{Disk, DiskFormat, Severity},
    order::{LAST_SEEN_BYTES_MAX, OrderOutcome},
    proof::Proof,
    state::{Life, MigrationStep, PAST_BOOTS_MAX},
    sync::Authority,
};

mod modes;
mod moved;
mod quarantine;
mod revocation;
mod versions;

fn attempt(stage: &mut Stage, target: &str, executor: &str) {
    stage.must(Change::FenceAttempted { host: host(target), executor: host(executor), level: 0 });
}

#[test]
fn a_guest_is_not_placed_while_its_host_may_still_run_it() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.place("web", "a");
    assert!(matches!(stage.refused(place_on("web", "b")), Refused::Phase { .. }), "starting");
    stage.end("a", done());
    assert!(matches!(stage.refused(place_on("web", "b")), Refused::Phase { .. }), "running");
    let failover = stage.climb("web", 2);
    stage.must(failover);
    assert!(matches!(stage.refused(place_on("web", "b")), Refused::Phase { .. }), "stopping");
    stage.end("a", failed());
    assert!(matches!(stage.refused(place_on("web", "b")), Refused::Phase { .. }), "a failed stop is no proof");
    stage.must(Change::ReleaseAgain { guest: name("web") });
    stage.end("a", done());
    stage.place("web", "b");
}

#[test]
fn a_fence_that_is_only_opened_or_failed_frees_nobody() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    stage.fence("a");
    attempt(&mut stage, "a", "b");
    stage.end("b", failed());
    assert!(matches!(stage.refused(place_on("web", "b")), Refused::Phase { .. }));
    assert_eq!(stage.may_run("web"), ["a".to_owned()].into());
}

#[test]
fn attempts_that_fail_alike_are_told_once_and_what_is_new_is_told_anew() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    stage.fence("a");
    let ends = |stage: &mut Stage, detail: String| {
        attempt(stage, "a", "b");
        stage.end("b", OrderOutcome::Failed { detail });
        stage.state.open_incident("host/a").unwrap().seq
    };
    let told = ends(&mut stage, "no answer within 3s; off was sent 1 times".to_owned());
    for times in 2..30 {
        let same = ends(&mut stage, format!("no answer within {times}.5s; off was sent {times} times"));
        assert_eq!(same, told, "attempt {times}");
    }
    assert!(ends(&mut stage, "the user may not do this".to_owned()) > told);
    let incident = stage.state.open_incident("host/a").unwrap();
    let all = "could not be switched off: no answer within 3s; off was sent 1 times; also: the user may not do this";
    assert!(incident.summary.ends_with(all), "{}", incident.summary);
    assert!(incident.human.is_some());
}

#[test]
fn hosts_that_fail_in_turn_each_in_a_way_of_its_own_are_told_once() {
    let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
    stage.run("web", "a");
    stage.fence("a");
    let mut ends = |executor: &str, detail: &str| {
        attempt(&mut stage, "a", executor);
        stage.end(executor, OrderOutcome::Failed { detail: detail.to_owned() });
        stage.state.open_incident("host/a").unwrap().seq
    };
    ends("b", "no answer within 3s");
    let told = ends("c", "the controller answers, but not with this password");
    for _ in 0..20 {
        assert_eq!(ends("b", "no answer within 2.9s"), told);
        assert_eq!(ends("c", "the controller answers, but not with this password"), told);
    }
    for error in ["one", "two", "three", "four"] {
        ends("b", error);
    }
    let Life::Fencing(fence) = &stage.state.hosts[&host("a")].life else { panic!("it is being fenced") };
    assert_eq!((fence.errors[&0].len(), fence.last_error.as_deref()), (3, Some("four")), "however many there are");
}

#[test]
fn levels_that_fail_in_turn_are_told_together_and_once() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    let mut policies = stage.state.policies.clone();
    let levels = policies.fencing.get_mut(&host("a")).unwrap();
    let second = levels[0].clone();
    levels.push(second);
    stage.declare(policies);
    stage.run("web", "a");
    stage.fence("a");
    let ends = |stage: &mut Stage, level: usize, detail: &str| {
        stage.must(Change::FenceAttempted { host: host("a"), executor: host("b"), level });
        stage.end("b", OrderOutcome::Failed { detail: detail.to_owned() });
        stage.state.open_incident("host/a").unwrap().seq
    };
    ends(&mut stage, 0, "no route");
    let told = ends(&mut stage, 1, "no answer");
    assert_eq!([ends(&mut stage, 0, "no route"), ends(&mut stage, 1, "no answer")], [told; 2]);
    let summary = &stage.state.open_incident("host/a").unwrap().summary;
    assert!(summary.ends_with("could not be switched off: level 1: no route; level 2: no answer"), "{summary}");
}

#[test]
fn devices_that_are_declared_anew_during_a_fence_are_not_blamed_for_those_before_and_begin_with_the_first() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    let mut policies = stage.state.policies.clone();
    let levels = policies.fencing.get_mut(&host("a")).unwrap();
    let device = levels[0].clone();
    levels.push(device.clone());
    stage.declare(policies.clone());
    stage.run("web", "a");
    stage.fence("a");
    attempt(&mut stage, "a", "b");
    stage.end("b", OrderOutcome::Failed { detail: "no route".to_owned() });
    policies.fencing.insert(host("a"), vec![device]);
    stage.declare(policies);
    let Life::Fencing(fence) = &stage.state.hosts[&host("a")].life else { panic!("it is being fenced") };
    assert_eq!((fence.next_level, fence.errors.len()), (0, 0));
}

#[test]
fn an_off_frees_the_guests_during_an_attempt_and_the_next_boot_waits_for_its_end() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    stage.fence("a");
    attempt(&mut stage, "a", "b");
    let gone = stage.gone("a");
    stage.must(gone);
    assert!(matches!(stage.phase("web"), Phase::Free { .. }), "the boot that the proof names is over (R9)");
    let join = Change::HostJoined { host: host("a"), facts: facts("a", "a.2"), follows: None };
    assert!(matches!(stage.refused(join.clone()), Refused::Host { .. }), "R20: the shot could hit the new boot");
    stage.end("b", done());
    stage.must(join);
}

#[test]
fn a_persons_word_frees_the_guests_during_an_attempt_and_the_next_boot_waits_for_its_end() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    stage.fence("a");
    attempt(&mut stage, "a", "b");
    let proof = Proof::operator(&host("a"), &boot("a.1"), "ann", None, 1_500).unwrap();
    stage.must(Change::HostGone { proof, last_well: None, last_words: None });
    assert!(matches!(stage.phase("web"), Phase::Free { .. }));
    let join = Change::HostJoined { host: host("a"), facts: facts("a", "a.2"), follows: None };
    assert!(matches!(stage.refused(join.clone()), Refused::Host { .. }), "R20: the shot could hit the new boot");
    stage.end("b", failed());
    stage.must(join);
}

#[test]
fn a_boot_that_is_being_fenced_cannot_be_replaced_before_the_attempt_has_ended() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    stage.fence("a");
    attempt(&mut stage, "a", "b");
    let join = Change::HostJoined { host: host("a"), facts: facts("a", "a.2"), follows: None };
    assert!(matches!(stage.refused(join), Refused::Host { .. }), "R20: the shot could hit the new boot");
    stage.end("b", failed());
    stage.join("a", "a.2");
    assert_eq!(stage.state.hosts[&host("a")].life, Life::Up);
}

#[test]
fn a_new_boot_is_asked_to_release_before_its_guests_start_elsewhere() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    stage.join("a", "a.2");
    assert!(matches!(stage.refused(place_on("web", "b")), Refused::Phase { .. }));
    assert_eq!(stage.order("a").incarnation, boot("a.2"));
    assert!(stage.state.open_incident("guest/web").is_some(), "a reboot that takes a guest down is told");
    stage.end("a", done());
    stage.place("web", "b");
}

#[test]
fn a_proof_of_the_newest_boot_also_ends_what_its_earlier_boots_may_have_run() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    stage.join("a", "a.2");
    let gone = stage.gone("a");
    stage.must(gone);
    assert!(matches!(stage.phase("web"), Phase::Free { .. }), "{:?}", stage.phase("web"));
}

#[test]
fn boots_remembered_are_bounded() {
    let mut stage = Stage::new(&["a", "b"], &[]);
    for number in 2..=PAST_BOOTS_MAX + 5 {
        stage.join("a", &format!("a.{number}"));
    }
    assert_eq!(stage.state.hosts[&host("a")].past.len(), PAST_BOOTS_MAX);
}

#[test]
fn a_boot_joins_only_when_it_has_seen_the_join_of_the_one_before() {
    let mut stage = Stage::new(&["a"], &[]);
    let joined = stage.state.hosts[&host("a")].joined;
    let seen = |index| Authority { generation: 1, term: 3, index };
    assert!(stage.state.may_join(&host("new"), &boot("new.1"), Authority::default()));
    assert!(stage.state.may_join(&host("a"), &boot("a.1"), Authority::default()), "its own facts may change");
    assert!(!stage.state.may_join(&host("a"), &boot("a.2"), seen(joined - 1)), "it may be older than the known boot");
    assert!(stage.state.may_join(&host("a"), &boot("a.2"), seen(joined)));
    let before = seen(stage.index);
    stage.join("a", "a.2");
    assert!(
        !stage.state.may_join(&host("a"), &boot("a.1"), before),
        "a late sync of a boot that is over undoes nothing"
    );
}

/// Simulator seed 1898: a voter stood still with a request of the boot before, and handed it on when it went on.
#[test]
fn of_two_boots_that_asked_to_join_before_either_had_the_late_one_changes_nothing() {
    let mut stage = Stage::new(&["a"], &[]);
    assert_eq!(stage.state.follows(&host("a")), None, "R26: an earlier version lets the late one in");
    stage.state.level = FeatureLevel::HIGHEST;
    let follows = stage.state.follows(&host("a"));
    assert_eq!(follows, Some(stage.state.hosts[&host("a")].joined));
    let join = |boot: &str| Change::HostJoined { host: host("a"), facts: facts("a", boot), follows };
    stage.must(join("a.3"));
    assert!(matches!(stage.refused(join("a.2")), Refused::Host { .. }));
    assert_eq!(stage.state.hosts[&host("a")].facts.incarnation, boot("a.3"));
    assert_eq!(stage.state.hosts[&host("a")].quarantine, None);
}

#[test]
fn a_storm_hold_is_released_for_the_storm_that_there_is_and_not_in_advance() {
    let mut stage = Stage::new(&["a", "b"], &[]);
    let release = Change::StormHoldReleased { by: "ann".to_owned() };
    assert!(matches!(stage.refused(release.clone()), Refused::Already { .. }));
    let key = "storm".to_owned();
    let (severity, summary, evidence) = (Severity::Critical, "held".to_owned(), Vec::new());
    stage.must(Change::IncidentOpened { key, severity, summary, human: None, guests: Vec::new(), evidence });
    stage.must(release);
    stage.must(Change::StormEnded);
    assert!(matches!(stage.refused(Change::StormEnded), Refused::Already { .. }));
}

#[test]
fn a_device_that_was_distrusted_is_trusted_again_by_a_word_or_a_new_declaration() {
    let distrust = Change::DeviceDistrusted { host: host("a"), level: 0, why: "it lied".to_owned() };
    for by_word in [true, false] {
        let mut stage = Stage::new(&["a", "b"], &[]);
        stage.must(distrust.clone());
        assert!(matches!(stage.refused(distrust.clone()), Refused::Already { .. }));
        if by_word {
            stage.must(Change::DeviceTrusted { host: host("a"), by: "ann".to_owned() });
        } else {
            stage.declare(stage.state.policies.clone());
            assert!(!stage.state.hosts[&host("a")].distrusted.is_empty(), "nothing about the device has changed");
            stage.declare(declaration(&[], &[]));
        }
        assert!(stage.state.hosts[&host("a")].distrusted.is_empty());
    }
}

#[test]
fn a_result_that_comes_twice_changes_nothing_the_second_time() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.place("web", "a");
    let order = stage.end("a", done());
    assert_eq!(stage.refused(Change::OrderEnded { order, outcome: failed() }), Refused::NoOrder { order });
}

#[test]
fn a_rung_that_is_proposed_twice_spends_one_try() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    let page = stage.climb("web", 3);
    stage.must(page.clone());
    assert!(matches!(stage.refused(page), Refused::Already { .. }));
}

#[test]
fn an_incident_that_paged_ends_when_the_probes_confirm_the_guest() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    let page = stage.climb("web", 3);
    stage.must(page);
    assert!(matches!(stage.phase("web"), Phase::Running { verified: false, .. }));
    stage.must(Change::Verified { guest: name("web"), unasked: Vec::new() });
    assert!(stage.state.open_incident("guest/web").is_none());
}

#[test]
fn a_fenced_host_starts_nothing() {
    let mut stage = Stage::new(&["a", "b"], &["web", "db"]);
    stage.run("web", "a");
    stage.fence("a");
    assert!(matches!(stage.refused(place_on("db", "a")), Refused::Host { .. }));
    let reset = stage.climb("web", 1);
    assert!(matches!(stage.refused(reset), Refused::Host { .. }), "R20");
}

#[test]
fn a_start_that_fails_is_released_before_it_is_tried_again() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.place("web", "a");
    stage.end("a", failed());
    assert!(matches!(stage.phase("web"), Phase::Releasing { order: Some(_), .. }));
    stage.end("a", done());
    assert!(matches!(stage.phase("web"), Phase::Free { .. }));
}

#[test]
fn a_guest_that_starts_nowhere_calls_a_human() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    for on in ["a", "a", "b", "b"] {
        assert!(stage.state.open_incident("guest/web").is_none_or(|incident| incident.human.is_none()));
        stage.place("web", on);
        stage.end(on, failed());
        if on == "b" {
            // The release clears the call only when it is about the stop; the next try repeats it.
            assert_eq!(stage.state.guests[&name("web")].start_failures.len(), 2);
        }
        if on != "b" || stage.state.guests[&name("web")].start_failures[&host("b")] < 2 {
            stage.end(on, done());
        }
    }
    assert!(stage.state.open_incident("guest/web").unwrap().human.is_some());
}

#[test]
fn an_attempt_counts_on_when_its_executor_reboots_or_goes() {
    for goes in [true, false] {
        let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
        stage.run("web", "a");
        stage.fence("a");
        attempt(&mut stage, "a", "b");
        let order = stage.order("b").id;
        if goes {
            let gone = stage.gone("b");
            stage.must(gone);
        } else {
            stage.join("b", "b.2");
        }
        let again = Change::FenceAttempted { host: host("a"), executor: host("c"), level: 0 };
        assert!(matches!(stage.refused(again.clone()), Refused::Already { .. }), "R20");
        let join = Change::HostJoined { host: host("a"), facts: facts("a", "a.2"), follows: None };
        assert!(matches!(stage.refused(join.clone()), Refused::Host { .. }), "R20: the shot could hit the new boot");
        stage.must(Change::OrderEnded { order, outcome: failed() });
        stage.must(again);
        stage.end("c", failed());
        stage.must(join);
    }
}

#[test]
fn a_declared_guest_that_is_removed_while_it_starts_is_remembered_until_that_has_ended() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.place("web", "a");
    let hosts = [host("a"), host("b")];
    stage.declare(declaration(&[], &hosts));
    stage.declare(declaration(&[name("web")], &hosts));
    assert!(matches!(stage.phase("web"), Phase::Starting { .. }), "else it could start twice");
    stage.declare(declaration(&[], &hosts));
    stage.end("a", done());
    assert!(stage.state.guests.is_empty());
    assert!(stage.state.orders.is_empty());
}

// ---- migrations ----

/// A guest that runs on `a` and moves to `b`, as far as the source's order to send.
fn sending() -> Stage {
    let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
    stage.run("web", "a");
    stage.migrate("web", "b");
    stage.end("b", done());
    stage
}

fn switched() -> Stage {
    let mut stage = sending();
    stage.end("a", done());
    assert_eq!((stage.orders("a").len(), stage.orders("b").len()), (1, 1));
    assert!(stage.orders("a")[0].starts_with("release"), "{:?}", stage.orders("a"));
    assert!(stage.orders("b")[0].starts_with("resume"), "{:?}", stage.orders("b"));
    stage
}

#[test]
fn a_migration_ends_on_its_target_when_the_source_is_released_and_the_target_runs() {
    for (first, second) in [("a", "b"), ("b", "a")] {
        let mut stage = switched();
        stage.end(first, done());
        assert!(matches!(stage.phase("web"), Phase::Migrating(_)), "R8: both may run it until then");
        stage.end(second, done());
        assert_eq!(stage.may_run("web"), ["b".to_owned()].into());
        assert!(matches!(stage.phase("web"), Phase::Running { verified: false, .. }), "the probes have yet to say so");
    }
}

#[test]
fn a_guest_is_given_as_long_to_be_sent_as_its_memory_takes_once_all_versions_do_that() {
    let given = |level: FeatureLevel, declared: bool| {
        let mut stage = Stage::new(&["a", "b"], &["web"]);
        stage.run("web", "a");
        if level > FeatureLevel::BIRTH {
            stage.must(Change::LevelRaised { to: level });
        }
        let mut policies = stage.state.policies.clone();
        policies.guests.get_mut(&name("web")).unwrap().qemu.memory_mib = 32_768;
        stage.declare(policies.clone());
        stage.migrate("web", "b");
        if !declared {
            policies.guests.clear();
            stage.declare(policies);
        }
        stage.end("b", done());
        let order = stage.order("a");
        assert!(matches!(order.kind, OrderKind::Send { within, .. } if within == order.deadline), "{order:?}");
        order.deadline.0.as_secs()
    };
    assert_eq!(given(FeatureLevel::LONG_SENDS, true), 1_310);
    assert_eq!(
        given(FeatureLevel::LONG_SENDS, false),
        300,
        "one that is declared no more is not ours to hold things up for"
    );
    let older = given(FeatureLevel::BIRTH, true);
    assert_eq!(older, 300, "R26: some voter would write so much into the order");
}

#[test]
fn whoever_sends_a_guest_is_told_the_processor_of_the_machine_that_waits() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    let declares = |stage: &mut Stage, cpu: Option<&str>| {
        let mut policies = stage.state.policies.clone();
        policies.guests.get_mut(&name("web")).unwrap().qemu.cpu = cpu.map(str::to_owned);
        stage.declare(policies);
    };
    declares(&mut stage, Some("Westmere"));
    stage.migrate("web", "b");
    declares(&mut stage, None);
    stage.end("b", done());
    let order = stage.order("a");
    assert!(matches!(&order.kind, OrderKind::Send { cpu: Some(cpu), .. } if cpu == "Westmere"), "{order:?}");
}

/// Policies that are applied between the two orders are those of neither machine.
#[test]
fn whoever_sends_a_guest_is_told_the_machine_that_waits_and_not_what_is_declared_by_then() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    let declares = |stage: &mut Stage, path: &str| {
        let mut policies = stage.state.policies.clone();
        let disk = Disk { path: path.into(), format: DiskFormat::Raw };
        policies.guests.get_mut(&name("web")).unwrap().qemu.disks = vec![disk];
        stage.declare(policies);
    };
    declares(&mut stage, "/srv/new.raw");
    stage.migrate("web", "b");
    let OrderKind::Receive { definition, .. } = stage.order("b").kind.clone() else { panic!("b is to receive") };
    declares(&mut stage, "/srv/newer.raw");
    stage.end("b", done());
    let order = stage.order("a");
    let OrderKind::Send { machine: Some(machine), .. } = &order.kind else { panic!("{order:?}") };
    assert_eq!((&**machine, machine.disks[0].path.to_str()), (&definition, Some("/srv/new.raw")));
}

#[test]
fn a_migration_that_fails_before_the_switch_ends_on_the_source() {
    let mut received = Stage::new(&["a", "b", "c"], &["web"]);
    received.run("web", "a");
    received.migrate("web", "b");
    received.end("b", failed());
    assert!(received.orders("a").is_empty(), "the source never stopped");
    let mut sent = sending();
    sent.end("a", failed());
    assert!(sent.orders("a")[0].starts_with("resume"), "{:?}", sent.orders("a"));
    sent.end("a", done());
    for mut stage in [received, sent] {
        assert!(matches!(stage.refused(place_on("web", "c")), Refused::Phase { .. }));
        stage.end("b", done());
        assert_eq!(stage.may_run("web"), ["a".to_owned()].into());
        assert!(matches!(stage.phase("web"), Phase::Running { .. }));
        assert!(stage.state.orders.is_empty());
    }
}

#[test]
fn a_migration_that_fails_after_the_switch_starts_nowhere_before_both_halves_are_released() {
    let mut stage = switched();
    stage.end("b", failed());
    assert!(matches!(stage.migration("web").step, MigrationStep::Clearing { .. }));
    assert!(stage.orders("a")[0].starts_with("release"), "after the switch the source is not resumed (R22)");
    stage.end("b", done());
    assert!(matches!(stage.refused(place_on("web", "c")), Refused::Phase { .. }));
    stage.end("a", done());
    stage.place("web", "c");
}

#[test]
fn a_source_that_does_not_run_again_is_cleared_on_both_sides() {
    let mut stage = sending();
    stage.end("a", failed());
    stage.end("b", done());
    stage.end("a", failed());
    stage.end("a", done());
    assert!(matches!(stage.phase("web"), Phase::Free { .. }));
}

#[test]
fn a_target_that_dies_midway_leaves_the_guest_running_on_the_source() {
    let mut early = Stage::new(&["a", "b", "c"], &["web"]);
    early.run("web", "a");
    early.migrate("web", "b");
    for mut stage in [early, sending()] {
        let gone = stage.gone("b");
        stage.must(gone);
        assert!(stage.orders("a")[0].starts_with("resume"), "{:?}", stage.orders("a"));
        stage.end("a", done());
        assert_eq!(stage.may_run("web"), ["a".to_owned()].into());
        assert!(matches!(stage.phase("web"), Phase::Running { .. }));
    }
}

#[test]
fn a_target_that_reboots_midway_leaves_the_guest_running_on_the_source() {
    let mut stage = sending();
    stage.join("b", "b.2");
    assert!(stage.orders("a")[0].starts_with("resume"), "{:?}", stage.orders("a"));
    stage.end("a", done());
    stage.end("b", done());
    assert!(matches!(stage.phase("web"), Phase::Running { .. }));
}

#[test]
fn a_source_that_reboots_after_the_switch_leaves_the_guest_on_the_target() {
    let mut stage = switched();
    stage.end("b", done());
    stage.join("a", "a.2");
    assert_eq!(stage.order("a").incarnation, boot("a.2"));
    stage.end("a", done());
    assert_eq!(stage.may_run("web"), ["b".to_owned()].into());
}

#[test]
fn a_target_that_dies_after_the_source_was_released_frees_the_guest() {
    let mut stage = switched();
    stage.end("a", done());
    let gone = stage.gone("b");
    stage.must(gone);
    stage.place("web", "c");
}

#[test]
fn a_source_that_dies_after_the_target_was_released_frees_the_guest() {
    let mut stage = sending();
    stage.end("a", failed());
    stage.end("b", done());
    let gone = stage.gone("a");
    stage.must(gone);
    stage.place("web", "c");
}

#[test]
fn both_hosts_of_a_move_that_die_free_the_guest_in_either_order() {
    for (first, second) in [("a", "b"), ("b", "a")] {
        for mut stage in [sending(), switched()] {
            let gone = stage.gone(first);
            stage.must(gone);
            assert!(matches!(stage.refused(place_on("web", "c")), Refused::Phase { .. }));
            let gone = stage.gone(second);
            stage.must(gone);
            stage.place("web", "c");
        }
    }
}

#[test]
fn a_half_that_cannot_be_released_is_asked_again() {
    let mut stage = switched();
    stage.end("b", done());
    stage.end("a", failed());
    assert!(stage.migration("web").release_failed.is_some());
    assert!(matches!(stage.refused(place_on("web", "c")), Refused::Phase { .. }));
    stage.must(Change::ReleaseAgain { guest: name("web") });
    assert!(matches!(stage.refused(Change::ReleaseAgain { guest: name("web") }), Refused::Already { .. }));
    stage.end("a", done());
    assert!(matches!(stage.phase("web"), Phase::Running { .. }));
}

#[test]
fn the_whole_state_survives_a_snapshot() {
    let mut stage = switched();
    stage.fence("c");
    let text = serde_json::to_string(&stage.state).unwrap();
    assert_eq!(serde_json::from_str::<ClusterState>(&text).unwrap(), stage.state);
}

#[test]
fn what_was_last_seen_of_a_guest_is_kept_cut_and_cleaned_whoever_proposed_it() {
    let mut stage = Stage::new(&["a"], &["web"]);
    stage.place("web", "a");
    let last_seen = Some(format!("\u{1b}[31mpanic\n{}", "x".repeat(10_000)));
    stage.end("a", OrderOutcome::Done { detail: "it is up".to_owned(), uri: None, last_seen });
    let told: Vec<String> = stage.state.journal.entries().map(|entry| entry.what.to_string()).collect();
    let told = told.iter().find(|told| told.contains("it is up; last seen: ")).unwrap();
    assert!(told.contains("it is up; last seen:  [31mpanic xxx") && !told.contains(char::is_control), "{told}");
    assert!(told.len() < LAST_SEEN_BYTES_MAX + 100, "{} bytes", told.len());
}

#[test]
fn the_last_words_of_a_host_that_is_gone_are_kept_cut_and_cleaned_whoever_proposed_them() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    let Change::HostGone { proof, last_well, .. } = stage.gone("a") else { panic!("it is a proof") };
    let last_words = Some(format!("cut off\n{}", "x".repeat(10_000)));
    stage.must(Change::HostGone { proof, last_well, last_words });
    let done = stage.state.open_incident("host/a").unwrap().done.clone();
    let words = done.last().unwrap();
    assert!(words.starts_with("Its last words: cut off xxx") && words.len() < LAST_WORDS_BYTES_MAX + 50, "{words}");
    let told: Vec<String> = stage.state.journal.entries().map(|entry| entry.what.to_string()).collect();
    assert!(told.iter().any(|told| told.contains("; its last words: cut off xxx")), "{told:?}");
}
