//! Hosts and links fail: what is cut off is fenced, and what only two of them do not see of each other is not.

use std::time::Duration;

use holdfast_tests::lab::{Lent, left_out, scene::LIMIT, wait};

#[test]
fn a_cut_off_host_is_fenced_and_its_guest_runs_elsewhere_only_after_proof() {
    if left_out("a_cut_off_host_is_fenced_and_its_guest_runs_elsewhere_only_after_proof") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    for on_leader in [false, true] {
        let (host, _) = scene.arranged(on_leader).unwrap();
        let known = scene.incidents().unwrap();
        // It still reaches every power button; it must not press any.
        scene.lab.cut_link(&host).unwrap();
        scene.moved_after_proof(&host, LIMIT).unwrap();
        let incident = scene.mended(&known).unwrap();
        assert_eq!(incident["rung"], "failover");
        assert!(incident["proof"].as_str().is_some_and(|proof| proof.contains(&host)), "{incident}");
        for other in scene.others(&[&host]) {
            let asked = scene.lab.bmc(&other).asked();
            assert!(!asked.iter().any(|line| line.contains(" set ")), "{other} was shot: {asked:?}");
        }
        scene.lab.restore_link(&host).unwrap();
        if !on_leader {
            scene.lab.power_on(&host).unwrap();
            scene.calm().unwrap();
            for spec in scene.others(&[]) {
                scene.lab.bmc(&spec).forget_asked().unwrap();
            }
        }
    }
}

#[test]
fn a_partition_of_one_voter_from_the_leader_alone_fences_nobody() {
    if left_out("a_partition_of_one_voter_from_the_leader_alone_fences_nobody") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    let who = scene.who().unwrap();
    for (there, back) in [(true, true), (true, false), (false, true)] {
        let (voter, leader) = scene.arranged(false).unwrap();
        if there {
            scene.lab.block(&leader, &voter).unwrap();
        }
        if back {
            scene.lab.block(&voter, &leader).unwrap();
        }
        wait::pause(Duration::from_secs(6)).unwrap();
        if there {
            scene.lab.unblock(&leader, &voter).unwrap();
        }
        if back {
            scene.lab.unblock(&voter, &leader).unwrap();
        }
        scene.answered_throughout().unwrap();
        assert_eq!(scene.presses(), 0, "blocked {there} {back}");
        assert!(!scene.journal().unwrap().iter().any(|line| line.contains("has failed")));
    }
    scene.calm().unwrap();
    assert_eq!(scene.who().unwrap(), who);
}
