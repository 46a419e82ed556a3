//! Unmanaged, in maintenance, suspended: nothing is begun.

use super::*;
use crate::{
    change::Refused,
    decide::tests::four,
    fixture::{boot, done, failed},
    observe::GuestCondition,
    state::Phase,
};

/// Every way in which operators say that `web` on `d` is not to be touched.
fn hands_off_each(with: impl Fn(Scene, &str)) {
    let mut unmanaged = four();
    want(&mut unmanaged, "web", Wanted::Unmanaged);
    with(unmanaged, "unmanaged");
    let mut maintained = four();
    set_mode(&mut maintained, "d", Mode::Maintenance);
    with(maintained, "maintenance");
    let mut suspended = four();
    suspend(&mut suspended, true);
    with(suspended, "suspended by ann");
}

#[test]
fn nothing_is_done_to_a_guest_that_is_to_be_left_alone_whatever_happens_to_it() {
    hands_off_each(|mut scene, why| {
        scene.report("web", "d", GuestCondition::Exited { detail: "signal 9".to_owned() });
        assert_eq!(scene.words(), Vec::<String>::new(), "{why}");
        assert!(doing(&scene, "web").contains("its QEMU has ended"), "reports go on: {}", doing(&scene, "web"));
        assert!(doing(&scene, "web").contains(why), "{}", doing(&scene, "web"));
    });
    hands_off_each(|mut scene, why| {
        scene.seen("web", SightState::Failing);
        assert_eq!(scene.words(), Vec::<String>::new(), "{why}");
    });
}

#[test]
fn a_guest_that_is_left_alone_is_not_moved_off_a_draining_or_unwell_host() {
    let mut scene = four();
    want(&mut scene, "web", Wanted::Unmanaged);
    set_mode(&mut scene, "d", Mode::Draining);
    scene.later(60_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.words(), Vec::<String>::new());
}

#[test]
fn a_guest_that_is_left_alone_and_loses_its_host_stays_down_until_it_is_managed_again() {
    hands_off_each(|mut scene, why| {
        let gone = scene.stage.gone("d");
        scene.stage.must(gone);
        later_without(&mut scene, "d", 60_000);
        assert!(matches!(scene.stage.phase("web"), Phase::Free { .. }), "{why}");
        assert_eq!(scene.settle(), Vec::<String>::new(), "{why}");
        match why {
            "unmanaged" => want(&mut scene, "web", Wanted::Running),
            "maintenance" => set_mode(&mut scene, "d", Mode::Active),
            _ => suspend(&mut scene, false),
        }
        assert_eq!(scene.settle(), ["Place"], "{why}");
    });
}

#[test]
fn a_host_in_maintenance_that_reboots_gets_its_guest_left_down() {
    let mut scene = four();
    set_mode(&mut scene, "d", Mode::Maintenance);
    scene.stage.join("d", "d.2");
    assert_eq!(scene.stage.order("d").incarnation, boot("d.2"));
    scene.stage.end("d", done());
    scene.later(60_000);
    assert_eq!(scene.settle(), Vec::<String>::new());
    assert!(doing(&scene, "web").contains("d is in maintenance"), "{}", doing(&scene, "web"));
}

#[test]
fn a_guest_that_is_managed_again_is_judged_as_it_is_found() {
    let mut scene = four();
    want(&mut scene, "web", Wanted::Unmanaged);
    scene.report("web", "d", GuestCondition::Exited { detail: "shut down by hand".to_owned() });
    want(&mut scene, "web", Wanted::Running);
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn a_proposal_of_before_does_not_touch_a_guest_that_is_to_be_left_alone() {
    hands_off_each(|mut scene, why| {
        let climb = scene.stage.climb("web", 1);
        assert!(matches!(scene.stage.refused(climb), Refused::Guest { .. }), "{why}");
        let stop = Change::Stop { guest: name("web"), why: String::new() };
        assert!(matches!(scene.stage.refused(stop), Refused::Guest { .. }), "{why}");
        let migrate = Change::Migrate { guest: name("web"), to: host("a"), why: String::new() };
        assert!(matches!(scene.stage.refused(migrate), Refused::Guest { .. }), "{why}");
    });
}

#[test]
fn what_was_being_brought_back_when_deciding_was_suspended_is_brought_back() {
    let mut scene = four();
    scene.stage.fence("d");
    suspend(&mut scene, true);
    let gone = scene.stage.gone("d");
    scene.stage.must(gone);
    later_without(&mut scene, "d", 1_000);
    assert_eq!(scene.settle(), ["Place"]);
    let Phase::Starting { tenure, .. } = scene.stage.phase("web").clone() else { panic!("it starts") };
    let on = tenure.host.to_string();
    scene.stage.end(&on, failed());
    scene.stage.end(&on, done());
    later_without(&mut scene, "d", 5_000);
    assert_eq!(scene.settle(), ["Place"], "it does not run yet");
    let Phase::Starting { tenure, .. } = scene.stage.phase("web").clone() else { panic!("it starts") };
    let on = tenure.host.to_string();
    scene.stage.end(&on, done());
    later_without(&mut scene, "d", 60_000);
    scene.report("web", &on, GuestCondition::Panicked);
    assert_eq!(scene.settle(), Vec::<String>::new(), "its recovery is over, and deciding is still suspended");
    suspend(&mut scene, false);
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn a_move_that_is_under_way_when_deciding_is_suspended_is_finished() {
    let mut scene = four();
    scene.stage.migrate("web", "a");
    suspend(&mut scene, true);
    scene.stage.end("a", failed());
    scene.stage.end("a", failed());
    scene.later(20_000);
    assert_eq!(scene.settle(), ["ReleaseAgain"]);
    scene.stage.end("a", done());
    assert!(matches!(scene.stage.phase("web"), Phase::Running { .. }));
    assert!(scene.stage.state.suspended.as_ref().unwrap().under_way.is_empty());
}

#[test]
fn a_guest_is_neither_placed_nor_adopted_for_the_first_time_while_deciding_is_suspended() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    suspend(&mut scene, true);
    let hosts = [host("a"), host("b")];
    scene.stage.declare(crate::fixture::declaration(&[name("web"), name("new")], &hosts));
    scene.later(60_000);
    assert_eq!(scene.settle(), Vec::<String>::new());
    suspend(&mut scene, false);
    assert_eq!(scene.settle(), ["GuestFree", "Place", "Place"]);
}

#[test]
fn verdicts_are_still_committed_while_deciding_is_suspended() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    scene.stage.place("web", "a");
    suspend(&mut scene, true);
    scene.stage.end("a", done());
    scene.later(1_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["Verified"]);
}

#[test]
fn what_people_were_told_of_a_guest_while_it_ran_is_over_when_it_is_left_down() {
    let left_down: [fn(&mut Scene); 3] = [
        |scene| want(scene, "web", Wanted::Unmanaged),
        |scene| set_mode(scene, "c", Mode::Maintenance),
        |scene| scene.stage.state.guests.get_mut(&name("web")).unwrap().given_up = Some("it does not start".to_owned()),
    ];
    for (case, left_down) in left_down.into_iter().enumerate() {
        let mut scene = Scene::new(&["a", "b", "c"], &["web"]);
        scene.stage.run("web", "c");
        for on in ["a", "b"] {
            set_mode(&mut scene, on, Mode::Maintenance);
        }
        set_mode(&mut scene, "c", Mode::Draining);
        scene.later(20_000);
        scene.seen("web", SightState::Passing);
        scene.settle();
        assert!(scene.stage.state.open_incident("leave/web").is_some(), "no other host takes it");
        left_down(&mut scene);
        let gone = scene.stage.gone("c");
        scene.stage.must(gone);
        later_without(&mut scene, "c", 1_000);
        scene.settle();
        assert!(scene.stage.state.open_incident("leave/web").is_none(), "case {case}");
        assert!(scene.stage.state.open_incident("guest/web").is_some(), "case {case}: it is down");
    }
}
