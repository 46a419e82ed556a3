//! Guests move while they run: nobody notices, and whatever loses power midway, the guest ends in exactly one place.

use std::time::Duration;

use holdfast_tests::lab::{
    Scene, left_out,
    scene::{GUEST, LIMIT},
    wait,
};

/// Longest gap for the outside client during a live migration.
const GAP_MS_MAX: f64 = 2_000.0;

#[test]
fn a_guest_moves_and_a_host_is_drained_without_a_reboot() {
    if left_out("a_guest_moves_and_a_host_is_drained_without_a_reboot") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    let first = scene.calm().unwrap();
    let who = scene.who().unwrap();
    let second = scene.others(&[&first]).remove(0);
    scene.migrate(&second).unwrap();
    let moved_ms = scene.outage_ms();
    assert_eq!(scene.who().unwrap(), who, "it was booted again");

    scene.calm().unwrap();
    let from = scene.lab.status().unwrap().from;
    scene.lab.holdfast_soon(&from, &["host", "drain", &second, "--operator", "ann"]).unwrap();
    let third = scene
        .lab
        .wait_status("an empty host", LIMIT, |status| {
            let host = status.guest_host(GUEST).filter(|host| *host != second && status.guest_healthy(GUEST))?;
            status.value["hosts"][&second]["guests"].as_array()?.is_empty().then(|| host.to_owned())
        })
        .unwrap();
    let drained_ms = scene.outage_ms();
    assert_eq!(scene.who().unwrap(), who, "it was booted again");
    assert_eq!(scene.qemu().unwrap().0, third);
    // A drained host takes no guests, not even by order, until it is resumed.
    assert_eq!(scene.shown(&format!("/hosts/{second}/mode")).unwrap(), "draining");
    assert_eq!(scene.lab.holdfast(&from, &["guest", "migrate", GUEST, "--to", &second]).unwrap().code, Some(1));
    scene.lab.holdfast_soon(&from, &["host", "resume", &second, "--operator", "ann"]).unwrap();
    scene.calm().unwrap();
    scene.migrate(&second).unwrap();
    let back_ms = scene.outage_ms();
    assert_eq!(scene.who().unwrap(), who, "it was booted again");
    eprintln!("longest gap: {moved_ms:.0} ms moved, {drained_ms:.0} ms drained, {back_ms:.0} ms moved back");
    assert!(moved_ms.max(drained_ms).max(back_ms) < GAP_MS_MAX);
    assert_eq!(scene.presses(), 0);
}

#[test]
fn a_migration_whose_target_or_source_loses_power_ends_in_exactly_one_place() {
    if left_out("a_migration_whose_target_or_source_loses_power_ends_in_exactly_one_place") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    for victim_is_source in [false, true] {
        let (source, leader) = scene.arranged(false).unwrap();
        let target = scene.others(&[&source, &leader]).remove(0);
        let who = scene.who().unwrap();
        scene.lab.holdfast_soon(&leader, &["guest", "migrate", GUEST, "--to", &target]).unwrap();
        // Midway: the target has the image open and does not write it yet.
        wait::until("both halves", LIMIT, || {
            let open = scene.lab.guest_qemu_pids(GUEST);
            if open.len() == 2 { Ok(()) } else { Err(format!("open in {open:?}")) }
        })
        .unwrap();
        let victim = if victim_is_source { &source } else { &target };
        scene.lab.power_cut(victim).unwrap();
        let host = scene
            .lab
            .wait_status("one place", LIMIT, |status| {
                let host = status.guest_host(GUEST).filter(|host| host != victim && status.guest_healthy(GUEST))?;
                (status.host_verdict(victim) == Some("gone") || host == source).then(|| host.to_owned())
            })
            .unwrap();
        scene.client.wait_up(LIMIT).unwrap();
        assert_eq!(scene.qemu().unwrap().0, host);
        if !victim_is_source {
            assert_eq!((&host, scene.who().unwrap()), (&source, who), "its source was well");
        }
        // It stays there.
        let place = scene.qemu().unwrap();
        wait::pause(Duration::from_secs(2)).unwrap();
        assert_eq!(scene.qemu().unwrap(), place);
        scene.lab.power_on(victim).unwrap();
        scene.calm().unwrap();
    }
}
