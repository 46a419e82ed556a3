//! Whose silence is expected is not fenced for it.

use super::*;

pub(super) fn set_mode(scene: &mut Scene, on: &str, mode: Mode) {
    scene.stage.must(Change::ModeSet { host: host(on), mode, by: "ann".to_owned() });
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
}

/// What is decided of `d` when it has been silent for so many seconds, in this mode.
fn silent_in(mode: Mode, secs: u64) -> Vec<String> {
    let mut scene = four();
    if mode != Mode::Active {
        set_mode(&mut scene, "d", mode);
    }
    scene.later(1_000_000);
    scene.silent("d", secs * 1_000);
    scene.settle()
}

#[test]
fn whose_silence_is_expected_is_not_fenced_for_it() {
    let (reboot, shutdown) = (Mode::Leaving { reboot: true }, Mode::Leaving { reboot: false });
    let fenced = ["FenceOpened", "FenceAttempted"];
    let nothing: [&str; 0] = [];
    for (mode, secs, expected) in [
        (Mode::Active, 2, fenced.as_slice()),
        (Mode::Draining, 2, &fenced),
        (Mode::Maintenance, 2, &nothing),
        (Mode::Maintenance, 900, &nothing),
        (reboot, 2, &nothing),
        (reboot, 419, &nothing),
        (reboot, 420, &fenced),
        (shutdown, 119, &nothing),
        (shutdown, 120, &fenced),
    ] {
        assert_eq!(silent_in(mode, secs), expected, "{mode:?} silent for {secs} s");
    }
}

#[test]
fn a_supervisor_that_stops_first_in_an_announced_shutdown_is_neither_told_nor_fenced() {
    let mut scene = four();
    set_mode(&mut scene, "d", Mode::Leaving { reboot: false });
    scene.later(60_000);
    scene.silent("d", 40_000);
    scene.heard("d", 100);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.verdict("d"), HostVerdict::Isolated);
    assert!(scene.words().is_empty(), "{:?}", scene.words());
}

#[test]
fn a_host_that_leaves_and_is_proven_off_frees_its_guests_without_waiting() {
    let mut scene = four();
    set_mode(&mut scene, "d", Mode::Leaving { reboot: false });
    scene.later(10_000);
    scene.silent("d", 2_000);
    scene.power("d", off("d", Moment(scene.now)));
    assert_eq!(scene.settle(), ["HostGone", "Place"]);
}

#[test]
fn in_maintenance_not_even_an_off_reading_is_acted_on_and_a_persons_word_is() {
    let mut scene = four();
    set_mode(&mut scene, "d", Mode::Maintenance);
    scene.later(10_000);
    scene.silent("d", 2_000);
    scene.power("d", off("d", Moment(scene.now)));
    assert!(scene.settle().is_empty());
    assert!(scene.decide().wishes.is_empty());
    let gone = scene.stage.gone("d");
    scene.stage.must(gone);
}

#[test]
fn an_announced_reboot_or_shutdown_of_a_host_in_maintenance_leaves_it_in_maintenance() {
    for reboot in [true, false] {
        let mut scene = four();
        set_mode(&mut scene, "d", Mode::Maintenance);
        set_mode(&mut scene, "d", Mode::Leaving { reboot });
        scene.later(1_000);
        scene.report("web", "d", GuestCondition::Exited { detail: "signal 15".to_owned() });
        assert_eq!(scene.words(), [""; 0], "it ends with its host, and is left down");
        scene.later(1_000_000);
        scene.silent("d", 900_000);
        assert_eq!(scene.verdict("d"), HostVerdict::Failed);
        assert_eq!(scene.settle(), [""; 0], "it is not fenced, however long it takes");
        scene.power("d", off("d", Moment(scene.now)));
        assert_eq!(scene.settle(), [""; 0], "not even an off reading is acted on");
        scene.stage.join("d", "d.2");
        scene.stage.end("d", done());
        scene.later(60_000);
        assert_eq!(scene.settle(), [""; 0], "nor is anything started before its operator says so");
        set_mode(&mut scene, "d", Mode::Active);
        assert_eq!(scene.settle(), ["Place"]);
    }
}

#[test]
fn hosts_whose_silence_is_expected_make_no_storm() {
    let mut scene = four();
    set_mode(&mut scene, "c", Mode::Maintenance);
    scene.later(10_000);
    scene.silent("c", 2_000);
    scene.silent("d", 2_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
}

#[test]
fn a_silent_host_that_is_being_drained_counts_towards_a_storm() {
    let mut scene = four();
    set_mode(&mut scene, "c", Mode::Draining);
    scene.later(10_000);
    scene.silent("c", 2_000);
    scene.silent("d", 2_000);
    assert!(scene.decide().report.storm_hold.is_some());
}

#[test]
fn a_boot_that_has_just_joined_is_given_time_to_be_heard() {
    let mut scene = four();
    scene.later(600_000);
    scene.stage.join("d", "d.2");
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    scene.evidence.hosts.remove(&host("d"));
    scene.asked("d", None);
    assert_eq!(scene.verdict("d"), HostVerdict::Unknown);
    assert!(!scene.words().contains(&"FenceOpened".to_owned()), "{:?}", scene.words());
}

#[test]
fn while_deciding_is_suspended_neither_is_a_fence_opened_nor_does_an_off_reading_count() {
    let mut scene = four();
    scene.stage.must(Change::SuspensionSet { suspended: true, by: "ann".to_owned() });
    scene.later(10_000);
    scene.silent("d", 2_000);
    assert!(!scene.words().contains(&"FenceOpened".to_owned()), "{:?}", scene.words());
    scene.power("d", off("d", Moment(scene.now)));
    assert_eq!(scene.words(), [""; 0], "it was not under way before");
    scene.stage.must(Change::SuspensionSet { suspended: false, by: "ann".to_owned() });
    assert_eq!(scene.words()[0], "HostGone");
}

#[test]
fn a_fence_that_was_opened_before_the_suspension_goes_on_to_its_end() {
    let mut scene = four();
    scene.later(10_000);
    scene.silent("d", 2_000);
    scene.stage.fence("d");
    scene.stage.must(Change::SuspensionSet { suspended: true, by: "ann".to_owned() });
    assert_eq!(scene.words(), ["FenceAttempted"]);
    scene.settle();
    scene.stage.end("a", done());
    scene.power("d", off("d", Moment(scene.now)));
    assert_eq!(scene.words()[0], "HostGone");
}
