//! Modes of hosts, and what they mean for what was decided before.

use super::*;
use crate::state::Mode;

fn set_mode(on: &str, mode: Mode) -> Change {
    Change::ModeSet { host: host(on), mode, by: "ann".to_owned() }
}

#[test]
fn maintenance_and_draining_outlast_a_reboot_and_leaving_ends_with_it() {
    for (mode, after) in [
        (Mode::Maintenance, Mode::Maintenance),
        (Mode::Draining, Mode::Draining),
        (Mode::Leaving { reboot: true }, Mode::Active),
        (Mode::Leaving { reboot: false }, Mode::Active),
    ] {
        let mut stage = Stage::new(&["a", "b"], &[]);
        stage.must(set_mode("a", mode));
        stage.join("a", "a.2");
        assert_eq!(stage.state.hosts[&host("a")].mode, after, "{mode:?}");
    }
}

#[test]
fn what_was_wanted_of_a_host_before_it_announced_to_go_is_wanted_again_when_it_is_back() {
    for before in [Mode::Active, Mode::Draining, Mode::Maintenance] {
        let mut stage = Stage::new(&["a", "b"], &[]);
        if before != Mode::Active {
            stage.must(set_mode("a", before));
        }
        stage.must(set_mode("a", Mode::Leaving { reboot: false }));
        stage.must(set_mode("a", Mode::Leaving { reboot: true }));
        assert_eq!(stage.state.departure(&host("a")).is_none(), before == Mode::Maintenance, "hands off");
        stage.join("a", "a.2");
        assert_eq!(stage.state.hosts[&host("a")].mode, before);
    }
}

#[test]
fn a_host_that_is_being_drilled_is_not_resumed_in_the_middle() {
    let mut stage = Stage::new(&["a", "b"], &[]);
    stage.must(set_mode("a", Mode::Draining));
    stage.must(Change::DrillBegun { host: host("a"), executor: host("b"), level: 0, by: "ann".to_owned() });
    assert!(matches!(stage.refused(set_mode("a", Mode::Active)), Refused::Host { .. }));
    stage.end("b", done());
    stage.must(set_mode("a", Mode::Active));
}

#[test]
fn a_host_that_is_fenced_or_gone_is_neither_drained_nor_set_to_maintenance_nor_announced_to_leave() {
    for mode in [Mode::Draining, Mode::Maintenance, Mode::Leaving { reboot: true }, Mode::Leaving { reboot: false }] {
        let mut fenced = Stage::new(&["a", "b"], &[]);
        fenced.fence("a");
        let mut gone = Stage::new(&["a", "b"], &[]);
        let proof = gone.gone("a");
        gone.must(proof);
        for mut stage in [fenced, gone] {
            assert!(matches!(stage.refused(set_mode("a", mode)), Refused::Host { .. }), "{mode:?}");
        }
    }
}

#[test]
fn a_fence_that_was_decided_before_maintenance_or_suspension_is_not_opened_after_it() {
    let (evidence, last_well, safe_at) = (Vec::new(), None, None);
    let open = Change::FenceOpened { host: host("a"), incarnation: boot("a.1"), evidence, last_well, safe_at };
    let suspend = Change::SuspensionSet { suspended: true, by: "ann".to_owned() };
    for first in [set_mode("a", Mode::Maintenance), suspend] {
        let mut stage = Stage::new(&["a", "b"], &[]);
        stage.must(first);
        assert!(matches!(stage.refused(open.clone()), Refused::Host { .. }));
    }
}
