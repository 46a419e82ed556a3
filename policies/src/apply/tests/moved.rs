//! Guests that other tools have moved.

use super::*;
use crate::state::{Tenure, Wanted};

fn moved(stage: &Stage, to: &str) -> Change {
    let epoch = stage.state.guests[&name("web")].tenures()[0].epoch;
    let tenure = Tenure { host: host(to), incarnation: boot(&format!("{to}.1")), epoch };
    Change::MovedOutside { guest: name("web"), tenure }
}

fn runs() -> Stage {
    let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
    stage.run("web", "a");
    stage
}

#[test]
fn a_guest_that_other_tools_have_moved_may_run_in_both_places_until_the_old_one_has_released_it() {
    let mut stage = runs();
    let change = moved(&stage, "b");
    stage.must(change.clone());
    assert!(matches!(stage.refused(change), Refused::Phase { .. }));
    assert!(matches!(stage.refused(place_on("web", "c")), Refused::Phase { .. }));
    stage.end("a", failed());
    stage.end("b", done());
    assert_eq!(stage.may_run("web"), ["a".to_owned(), "b".to_owned()].into(), "a failed release is no proof");
    stage.must(Change::ReleaseAgain { guest: name("web") });
    stage.end("a", done());
    assert!(matches!(stage.phase("web"), Phase::Running { tenure, .. } if tenure.host == host("b")));
}

#[test]
fn a_guest_that_other_tools_have_moved_is_free_only_when_nothing_is_left_in_either_place() {
    let mut stage = runs();
    let change = moved(&stage, "b");
    stage.must(change);
    let gone = stage.gone("b");
    stage.must(gone);
    assert_eq!(stage.may_run("web"), ["a".to_owned()].into());
    stage.end("a", done());
    assert!(matches!(stage.phase("web"), Phase::Free { .. }));
}

#[test]
fn a_guest_is_not_followed_to_another_assignment_or_boot_nor_where_it_is_being_stopped_nor_against_an_operators_word() {
    let mut stage = runs();
    let change = moved(&stage, "b");
    assert!(matches!(stage.refused(moved(&stage, "a")), Refused::Already { .. }));
    let Change::MovedOutside { guest, tenure } = change.clone() else { panic!("it is a move") };
    let other = Tenure { epoch: Epoch { generation: 9, index: 9 }, ..tenure.clone() };
    assert!(matches!(
        stage.refused(Change::MovedOutside { guest: guest.clone(), tenure: other }),
        Refused::Guest { .. }
    ));
    let other = Tenure { incarnation: boot("b.0"), ..tenure };
    assert!(matches!(
        stage.refused(Change::MovedOutside { guest: guest.clone(), tenure: other }),
        Refused::Host { .. }
    ));
    stage.must(Change::WantedSet { guest: guest.clone(), wanted: Wanted::Unmanaged, by: "ann".to_owned() });
    assert!(matches!(stage.refused(change.clone()), Refused::Guest { .. }));
    stage.must(Change::WantedSet { guest: guest.clone(), wanted: Wanted::Running, by: "ann".to_owned() });
    let epoch = stage.state.guests[&guest].tenures()[0].epoch;
    stage.must(Change::StrayFound { guest, host: host("b"), epoch, keep: Some(host("a")) });
    assert!(matches!(stage.refused(change), Refused::Host { .. }));
}
