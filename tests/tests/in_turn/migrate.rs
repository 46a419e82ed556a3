//! Guests move while they run: nobody notices, and whatever loses power midway, the guest ends in exactly one place.

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use std::time::Duration;

use holdfast_tests::lab::{
    Lent, Scene, Status,
    guest::PORT,
    left_out,
    scene::{ADDRESS, GUEST, LIMIT},
    wait,
};

/// What the source of a move that is not to be over soon may send, in megabits a second. QEMU takes what it has sent in a tenth of a
/// second for the speed of the network, so nothing below is near a limit.
const NARROW_MBIT: u32 = 80;
/// By the end of this round a longer stop would have been tried if one did: the first round sends all, the second one is what three are
/// compared with that do not help.
const VAIN_ROUND: u64 = 5;

#[test]
fn a_guest_moves_and_a_host_is_drained_without_a_reboot() {
    if left_out("a_guest_moves_and_a_host_is_drained_without_a_reboot") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    let first = scene.calm().unwrap();
    let who = scene.who().unwrap();
    let second = scene.others(&[&first]).remove(0);
    scene.migrate(&second).unwrap();
    scene.answered_throughout().unwrap();
    assert_eq!(scene.who().unwrap(), who, "it was booted again");

    scene.calm().unwrap();
    let from = scene.lab.status_soon().unwrap().from;
    scene.lab.holdfast_soon(&from, &["host", "drain", &second, "--operator", "ann"]).unwrap();
    let third = scene
        .lab
        .wait_status("an empty host", LIMIT * 2, |status| {
            let host = status.guest_host(GUEST).filter(|host| *host != second && status.guest_healthy(GUEST))?;
            status.value["hosts"][&second]["guests"].as_array()?.is_empty().then(|| host.to_owned())
        })
        .unwrap();
    scene.answered_throughout().unwrap();
    assert_eq!(scene.who().unwrap(), who, "it was booted again");
    assert_eq!(scene.qemu_alone().unwrap().0, third);
    // A drained host takes no guests, not even by order, until it is resumed.
    assert_eq!(scene.shown(&format!("/hosts/{second}/mode")).unwrap(), "draining");
    assert_eq!(
        scene.lab.holdfast_answered(&from, &["guest", "migrate", GUEST, "--to", &second]).unwrap().code,
        Some(1)
    );
    scene.lab.holdfast_soon(&from, &["host", "resume", &second, "--operator", "ann"]).unwrap();
    scene.calm().unwrap();
    scene.migrate(&second).unwrap();
    scene.answered_throughout().unwrap();
    assert_eq!(scene.who().unwrap(), who, "it was booted again");
    assert_eq!(scene.presses(), 0);
}

#[test]
fn a_migration_whose_target_or_source_loses_power_ends_in_exactly_one_place() {
    if left_out("a_migration_whose_target_or_source_loses_power_ends_in_exactly_one_place") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    for victim_is_source in [false, true] {
        let (source, leader) = scene.arranged(false).unwrap();
        let target = scene.others(&[&source, &leader]).remove(0);
        let who = scene.who().unwrap();
        // For some seconds: a quick move might be over before it is seen, or before its victim stands still.
        scene.lab.narrow(&source, Some(NARROW_MBIT)).unwrap();
        scene.lab.holdfast_soon(&leader, &["guest", "migrate", GUEST, "--to", &target]).unwrap();
        // Midway: the target has the image open and does not write it yet.
        wait::until("both halves", LIMIT, || {
            let open = scene.lab.guest_qemu_pids(GUEST);
            if open.len() == 2 { Ok(()) } else { Err(format!("open in {open:?}")) }
        })
        .unwrap();
        let victim = if victim_is_source { &source } else { &target };
        // It stands still at once; pressing its button takes longer than a quick move may last.
        scene.lab.freeze(victim).unwrap();
        scene.lab.power_cut(victim).unwrap();
        let host = scene
            .lab
            .wait_status("one place", LIMIT, |status| {
                let host = status.guest_host(GUEST).filter(|host| host != victim && status.guest_healthy(GUEST))?;
                (status.host_verdict(victim) == Some("gone") || host == source).then(|| host.to_owned())
            })
            .unwrap();
        scene.client.wait_up(LIMIT).unwrap();
        assert_eq!(scene.qemu_alone().unwrap().0, host);
        if !victim_is_source {
            assert_eq!((&host, scene.who().unwrap()), (&source, who), "its source was well");
        }
        // It stays there.
        let place = scene.qemu().unwrap();
        wait::pause(Duration::from_secs(2)).unwrap();
        assert_eq!(scene.qemu().unwrap(), place);
        // The next victim is another one. A source that was the victim forgets at its next boot how little it may send.
        if !victim_is_source {
            scene.lab.narrow(&source, None).unwrap();
            scene.lab.power_on(victim).unwrap();
            scene.calm().unwrap();
        }
    }
}

#[test]
fn a_move_that_a_busy_guest_outruns_is_called_off_or_ends_by_a_longer_stop() {
    if left_out("a_move_that_a_busy_guest_outruns_is_called_off_or_ends_by_a_longer_stop") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    let source = scene.calm().unwrap();
    let target = scene.others(&[&source]).remove(0);
    let (place, who) = (scene.qemu().unwrap(), scene.who().unwrap());
    scene.lab.narrow(&source, Some(NARROW_MBIT)).unwrap();

    // What it writes over takes two and a half seconds to send, and for no more than 1.6 it may be stopped: that never ends. An operator
    // does not wait until it is given up.
    busy(&scene, 24);
    let from = scene.lab.status_soon().unwrap().from;
    scene.lab.holdfast_soon(&from, &["guest", "migrate", GUEST, "--to", &target]).unwrap();
    let vain = |status: &Status| sending(status).filter(|(round, _)| *round > VAIN_ROUND);
    let (_, may_stop_ms) = scene.lab.wait_status("rounds that do not help", LIMIT, vain).unwrap();
    assert_eq!(may_stop_ms, 100, "no longer stop would do");
    scene.lab.holdfast_soon(&from, &["guest", "migrate", GUEST, "--to", &source]).unwrap();
    arrived(&scene, &source);
    assert_eq!((scene.qemu_alone().unwrap(), scene.who().unwrap()), (place, who.clone()));
    let journal = scene.journal().unwrap();
    assert!(journal.iter().any(|line| line.contains("has called it off")), "{journal:?}");

    // This takes 0.6 seconds, again and again, so that it moves once it may be stopped for as long.
    busy(&scene, 6);
    scene.lab.holdfast_soon(&from, &["guest", "migrate", GUEST, "--to", &target]).unwrap();
    let may_stop_ms = arrived(&scene, &target);
    assert!(may_stop_ms > 100, "it was sent as any other guest");
    busy(&scene, 0);
    assert_eq!((scene.qemu_alone().unwrap().0, scene.who().unwrap()), (target, who), "it was booted again");
    scene.lab.narrow(&source, None).unwrap();
    scene.answered_throughout().unwrap();
    assert_eq!(scene.presses(), 0);
}

/// Has the guest write over so many MiB of its memory again and again.
fn busy(scene: &Scene, mib: u32) {
    let line = format!("/cgi-bin/busy?{mib}");
    wait::until("the guest's word", LIMIT, || {
        scene.lab.client_get(&format!("{ADDRESS}:{PORT}"), &line).map_err(|error| format!("{error:#}"))
    })
    .unwrap();
}

/// Waits until the guest runs there and is well. Returns for how long it might be stopped at most on the way, in milliseconds.
fn arrived(scene: &Scene, host: &str) -> u64 {
    let mut longest = 0;
    let look = |status: &Status| {
        longest = longest.max(sending(status).map_or(0, |(_, may_stop_ms)| may_stop_ms));
        (status.guest_host(GUEST) == Some(host) && status.guest_healthy(GUEST)).then_some(())
    };
    scene.lab.wait_status(&format!("{GUEST} on {host}"), LIMIT, look).unwrap();
    longest
}

/// In which round the guest is sent, and for how long it may be stopped for the rest, in milliseconds, as operators are told.
fn sending(status: &Status) -> Option<(u64, u64)> {
    let doing = status.value.pointer(&format!("/guests/{GUEST}/doing"))?.as_str()?;
    let (_, told) = doing.split_once(" left of round ")?;
    let (round, told) = told.split_once(", and it stops once the rest takes no more than ")?;
    Some((round.parse().ok()?, told.split(' ').next()?.parse().ok()?))
}

#[test]
fn a_guest_does_not_move_to_a_host_that_does_not_see_its_locks() {
    if left_out("a_guest_does_not_move_to_a_host_that_does_not_see_its_locks") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    let (host, leader) = scene.arranged(false).unwrap();
    let target = scene.others(&[&host, &leader]).remove(0);
    let (place, who) = (scene.qemu().unwrap(), scene.who().unwrap());
    // To the target, the image is a file that nobody else has open: so does storage look whose locks stop at the host.
    let image = format!("/srv/holdfast/{GUEST}.raw");
    let line = format!("cp --sparse=always {image} /run/other.raw && mount --bind /run/other.raw {image}");
    assert!(scene.lab.exec(&target, &["sh", "-c", &line], LIMIT).unwrap().ok());
    let from = scene.lab.status_soon().unwrap().from;
    scene.lab.holdfast_soon(&from, &["guest", "migrate", GUEST, "--to", &target]).unwrap();
    wait::until("a move that is given up for its locks", LIMIT, || {
        let journal = scene.journal().map_err(|error| format!("{error:#}"))?;
        let told = journal.iter().any(|line| line.contains("its lock is not seen here") && line.contains(&image));
        if told { Ok(()) } else { Err(format!("{journal:?}")) }
    })
    .unwrap();
    assert_eq!(scene.calm().unwrap(), host);
    assert_eq!((scene.qemu().unwrap(), scene.who().unwrap()), (place, who));

    // Policies that would bring a guest of that image onto such storage are refused as well.
    let mut files = scene.declaration().unwrap();
    files[0].1 = files[0].1.replace(&format!("path: {image}"), &format!("path: {image}x"));
    let lines = format!("cp --sparse=always {image} {image}x");
    assert!(scene.lab.exec(&host, &["sh", "-c", &lines], LIMIT).unwrap().ok());
    let line = format!("mount --bind /run/other.raw {image}x");
    assert!(scene.lab.exec(&target, &["sh", "-c", &line], LIMIT).unwrap().ok());
    let refused = wait::until("policies that are refused", LIMIT, || {
        let Err(refused) = scene.lab.apply_texts(&from, &files) else {
            // A host that is too late to answer, as on a busy machine, speaks against nothing.
            scene.apply("").map_err(|error| format!("{error:#}"))?;
            return Err("they were taken".to_owned());
        };
        Ok(format!("{refused:#}"))
    })
    .unwrap();
    assert!(refused.contains("does not see that") && refused.contains(&format!("{image}x of {GUEST}")), "{refused}");
    for mounted in [format!("{image}x"), image] {
        // Whoever has looked at it there may still have it open.
        wait::until("an end of the mount", LIMIT, || {
            let answer = scene.lab.exec(&target, &["umount", &mounted], LIMIT).map_err(|error| format!("{error:#}"))?;
            if answer.ok() { Ok(()) } else { Err(answer.err) }
        })
        .unwrap();
    }
    scene.migrate(&target).unwrap();
    assert_eq!(scene.presses(), 0);
}
