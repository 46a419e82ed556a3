//! Hosts whose fence is their lease, alone or after a power device: the guard stops their guests itself, and where it cannot,
//! the watchdog resets the host. A guard or a supervisor that is away for a moment costs nothing (R13–R15).

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use std::time::{Duration, Instant};

use holdfast_tests::lab::{
    Daemon, Fault, HostSpec, Lent, Scene,
    clock::now_ms,
    left_out,
    scene::{GUEST, LIMIT},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

/// The time-out of the lab's watchdogs.
const SECONDS: u32 = 4;
const TIMEOUT_MS: f64 = 4_000.0;
/// How much later than due a reset may be seen on a busy machine.
const LATE_MS: f64 = 8_000.0;
/// How old the last pet may be when the guard dies. It pets four times a second, but a machine that stands still for a moment
/// has it do so late; a reset that does not wait for the time-out at all comes sooner than what is left of it.
const PET_MS: f64 = 2_000.0;
/// Longer than a lease, the guard's second and a watchdog's time-out together: whatever comes of a lease that is not renewed, or of a
/// watchdog that is not petted, has come by then.
const LONG: Duration = Duration::from_secs(10);
/// How often a supervisor may be back too late for its lease.
const TURNS: u32 = 3;
/// Longer than the guard's second and a watchdog's time-out, which is all that is left once a lease is over.
const AFTER_THE_LEASE: Duration = Duration::from_secs(7);

fn watched() -> Lent {
    let scene = Lent::of(["h1", "h2", "h3"].map(|name| HostSpec::watched(name, SECONDS)).to_vec()).unwrap();
    scene.lab.wait_armed(LIMIT).unwrap();
    scene
}

/// Waits for the first reset after `begin_ms`, and returns how long it took until the watchdog fired. The host is on again then:
/// who counts the hosts that are on while one is between off and on waits for one too few.
fn fired_after(scene: &Scene, host: &str, begin_ms: f64) -> f64 {
    let fired = wait::until(&format!("the watchdog of {host}"), LIMIT, || {
        let events = scene.lab.watchdog_events(host).map_err(|error| format!("{error:#}"))?;
        let mut since = events.iter().skip_while(|event| event.what != "fired" || event.at_ms <= begin_ms);
        let fired = since.next().ok_or("it has not fired")?;
        since.find(|event| event.what.starts_with("reset: ")).ok_or("it fired and still resets")?;
        Ok(fired.at_ms)
    });
    fired.unwrap() - begin_ms
}

/// When the guest's disk was first seen written anywhere but on `host` since `begin_ms`, or else `seen_ms`, when a test saw it open
/// there: the lab's watcher looks more often than a test does.
fn started_elsewhere(scene: &Scene, host: &str, begin_ms: f64, seen_ms: f64) -> f64 {
    let image = format!("{GUEST}.raw");
    let tenures = scene.lab.tenures().into_iter();
    let elsewhere = tenures.filter(|tenure| tenure.image == image && tenure.host != host && tenure.from_ms > begin_ms);
    elsewhere.map(|tenure| tenure.from_ms).fold(seen_ms, f64::min)
}

/// Waits until so long after `begin`.
fn rest_of(time: Duration, begin: Instant) {
    wait::pause(time.saturating_sub(begin.elapsed())).unwrap();
}

fn is_due(took_ms: f64) -> bool {
    (TIMEOUT_MS - PET_MS..TIMEOUT_MS + LATE_MS).contains(&took_ms)
}

#[test]
fn a_dead_or_frozen_guard_has_its_host_reset() {
    if left_out("a_dead_or_frozen_guard_has_its_host_reset") {
        return;
    }
    let mut scene = watched();
    let (guests_host, _) = scene.arranged(true).unwrap();
    let victim = scene.others(&[&guests_host])[0].clone();
    let boot = scene.lab.guard_status(&victim).unwrap()["incarnation"].clone();

    let begin = now_ms();
    scene.lab.kill_guard(&victim).unwrap();
    let took = fired_after(&scene, &victim, begin);
    println!("guard killed: reset after {took:.0} ms");
    assert!(is_due(took), "{took} ms");
    let events = scene.lab.watchdog_events(&victim).unwrap();
    let noticed = events.iter().any(|event| event.what == "notice" && (begin..=begin + took).contains(&event.at_ms));
    assert!(noticed, "it gives notice before: {events:?}");
    let again = scene.lab.wait_guard(&victim, "another boot", LIMIT, |status| {
        Some(status["incarnation"].clone()).filter(|now| *now != boot)
    });
    let boot = again.unwrap();
    scene.lab.wait_hosts_healthy(LIMIT).unwrap();
    scene.lab.wait_armed(LIMIT).unwrap();

    let begin = now_ms();
    scene.lab.suspend(&victim, Daemon::Guard, true).unwrap();
    let took = fired_after(&scene, &victim, begin);
    println!("guard stopped: reset after {took:.0} ms");
    assert!(is_due(took), "{took} ms");
    let again =
        scene.lab.wait_guard(&victim, "another boot", LIMIT, |status| (status["incarnation"] != boot).then_some(()));
    again.unwrap();
    assert_eq!(scene.calm().unwrap(), guests_host);
}

#[test]
fn at_the_end_of_its_lease_a_host_is_rid_of_its_guests_and_is_not_reset() {
    if left_out("at_the_end_of_its_lease_a_host_is_rid_of_its_guests_and_is_not_reset") {
        return;
    }
    let mut scene = watched();
    let (host, _) = scene.arranged(false).unwrap();
    // Its log may tell of earlier tests too.
    let log = || scene.lab.log_tail(&host, "guard", usize::MAX);
    let told = || log().matches("the lease has run out and this host is in stop mode: stopping its guests").count();
    let told_before = told();
    scene.lab.cut_link(&host).unwrap();
    let status = scene.lab.wait_guard(&host, "a stopped guest", LIMIT, |status| {
        (!status["stopped"].as_array()?.is_empty()).then(|| status.clone())
    });
    let status = status.unwrap();
    let stopped = &status["stopped"][0];
    assert_eq!(stopped["guest"], GUEST);
    let after = stopped["at"].as_u64().unwrap() - stopped["lease_ended"].as_u64().unwrap();
    println!("the guest was gone {after} ms after the end of the lease");
    assert!(after <= status["armed"]["guard_ms"].as_u64().unwrap(), "{status}");
    let open = scene.lab.guest_qemu_pids(GUEST);
    assert!(open.iter().all(|(at, _)| *at != host), "{open:?}");
    scene
        .never(AFTER_THE_LEASE, |scene| {
            anyhow::ensure!(scene.lab.is_on(&host), "{host} was reset");
            scene.no_watchdog_fired()
        })
        .unwrap();
    assert!(told() > told_before, "{}", log());
    scene.lab.restore_link(&host).unwrap();
    scene.calm().unwrap();
}

#[test]
fn a_supervisor_or_guard_that_is_back_within_the_lease_costs_nothing() {
    if left_out("a_supervisor_or_guard_that_is_back_within_the_lease_costs_nothing") {
        return;
    }
    let mut scene = watched();
    // A machine that stands still may have it back too late; where it is of no use that it is back, every time is too late.
    let arranged = (0..TURNS).find_map(|_| {
        let (host, _) = scene.arranged(false).unwrap();
        let qemu = scene.qemu().unwrap();
        let begin = Instant::now();
        scene.lab.crash(&host, Daemon::Supervisor).unwrap();
        scene.lab.wait_hosts_healthy(LIMIT).unwrap();
        rest_of(LONG, begin);
        scene.qemu().is_ok_and(|now| now == qemu).then_some((host, qemu))
    });
    let (host, qemu) = arranged.expect("a supervisor that was back in time");
    let begin = Instant::now();
    scene.lab.crash(&host, Daemon::Guard).unwrap();
    scene.lab.wait_armed(LIMIT).unwrap();
    rest_of(LONG, begin);
    assert_eq!(scene.qemu().unwrap(), qemu);
    scene.no_watchdog_fired().unwrap();
}

#[test]
fn a_guard_that_takes_over_goes_on_petting() {
    if left_out("a_guard_that_takes_over_goes_on_petting") {
        return;
    }
    let mut scene = watched();
    let (host, _) = scene.arranged(false).unwrap();
    let qemu = scene.qemu().unwrap();
    let before = scene.lab.guard_status(&host).unwrap();
    let opened = || scene.lab.watchdog_events(&host).unwrap().iter().filter(|event| event.what == "opened").count();
    let opened_before = opened();
    let taken_over = Instant::now();
    let new = scene.lab.take_over_guard(&host).unwrap();
    let after = scene.lab.guard_status(&host).unwrap();
    assert_eq!((&after["guests"], &after["armed"]), (&before["guests"], &before["armed"]));
    rest_of(LONG, taken_over);
    assert_eq!(scene.qemu().unwrap(), qemu);
    scene.no_watchdog_fired().unwrap();
    assert_eq!(opened(), opened_before, "handed over, not opened anew");

    // It is the new one that does it.
    let begin = now_ms();
    kill(Pid::from_raw(new), Signal::SIGKILL).unwrap();
    let took = fired_after(&scene, &host, begin);
    assert!(is_due(took), "{took} ms");
    scene.calm().unwrap();
}

#[test]
fn a_cut_off_stop_host_stops_its_guests_and_they_start_elsewhere_by_lease_alone() {
    if left_out("a_cut_off_stop_host_stops_its_guests_and_they_start_elsewhere_by_lease_alone") {
        return;
    }
    let mut scene = watched();
    let (host, _) = scene.arranged(false).unwrap();
    let begin = now_ms();
    scene.lab.cut_link(&host).unwrap();
    let (gone, started) = wait::until("a start elsewhere", LIMIT, || {
        let open = scene.lab.guest_qemu_pids(GUEST);
        match open.iter().find(|(at, _)| *at != host) {
            Some(_) => Ok((open.iter().all(|(at, _)| *at != host), now_ms())),
            None => Err(format!("open in {open:?}")),
        }
    })
    .unwrap();
    assert!(gone, "it was started elsewhere while it ran on {host}");
    let started = started_elsewhere(&scene, &host, begin, started);
    let status = scene.lab.guard_status(&host).unwrap();
    let deadline = status["deadline"].as_f64().unwrap();
    let (guard, watchdog) =
        (status["armed"]["guard_ms"].as_f64().unwrap(), status["armed"]["watchdog"]["timeout_ms"].as_f64().unwrap());
    println!(
        "started elsewhere {:.0} ms after the cut; the lease ended after {:.0} ms, guard {guard:.0} ms, watchdog {watchdog:.0} ms",
        started - begin,
        deadline - begin
    );
    let earliest = deadline + 1.05 * (guard + watchdog);
    assert!(started >= earliest, "{started} is before {earliest}: {deadline}, {guard}, {watchdog}");
    assert_ne!(scene.lab.wait_guest_healthy(GUEST, LIMIT).unwrap(), host);
    let proof = scene.shown(&format!("/hosts/{host}/proof")).unwrap();
    println!("proof: {proof}");
    assert!(proof.as_str().is_some_and(|proof| proof.contains("lease")), "{proof}");
    assert!(scene.lab.is_on(&host));
    scene.no_watchdog_fired().unwrap();
    scene.lab.restore_link(&host).unwrap();
    scene.calm().unwrap();
}

#[test]
fn a_stop_host_that_stands_still_is_reset_before_its_guests_start_elsewhere() {
    if left_out("a_stop_host_that_stands_still_is_reset_before_its_guests_start_elsewhere") {
        return;
    }
    let mut scene = watched();
    let (host, _) = scene.arranged(false).unwrap();
    let boots = scene.who().unwrap().1;
    let begin = now_ms();
    scene.lab.freeze(&host).unwrap();
    let took = fired_after(&scene, &host, begin);
    assert!(is_due(took), "{took} ms");
    scene
        .lab
        .wait_status("the guest anew", LIMIT, |status| {
            (status.guest_healthy(GUEST) && scene.who().is_ok_and(|who| who.1 == boots + 1)).then_some(())
        })
        .unwrap();
    scene.calm().unwrap();
}

/// Its BMC has no power of its own: nobody can say any more that the host is off, and nobody has to.
#[test]
fn a_host_that_loses_power_together_with_its_bmc_is_safe_by_its_lease_and_nobody_is_called() {
    if left_out("a_host_that_loses_power_together_with_its_bmc_is_safe_by_its_lease_and_nobody_is_called") {
        return;
    }
    let mut scene = watched();
    let lease = "lease: { watchdog_trusted_by: the lab }".to_owned();
    scene.fence_by(|lab, host| Ok(vec![lab.bmc(host).yaml("2s")?, lease.clone()])).unwrap();
    let (host, _) = scene.arranged(false).unwrap();
    scene.lab.wait_armed(LIMIT).unwrap();
    scene.lab.bmc(&host).fault(Fault::Unreachable).unwrap();
    let status = scene.lab.guard_status(&host).unwrap();
    let begin = now_ms();
    scene.lab.power_cut(&host).unwrap();

    // While it is waited for, everybody is told until when.
    let key = format!("host/{host}");
    // Those of earlier tests are over.
    let is_its = |incident: &&serde_json::Value| incident["key"] == key.as_str() && incident["open"] == true;
    let safe = scene.lab.wait_status("from when on its guests are safe", LIMIT, |status| {
        let safe = status.value.pointer(&format!("/hosts/{host}/safe_at"))?;
        let told = status.value["incidents"].as_array()?.iter().find(is_its)?;
        let says_so = told["summary"].as_str()?.contains("safe at") && told["human"].is_null();
        // It is so for some seconds only, so that the guest's story is asked for at once, and again where nobody answers.
        let story = scene.lab.ask(&status.from, &json!({ "explain": { "guest": GUEST } })).ok()?;
        let waits = story["waits"].as_str()?.contains("safe at");
        (says_so && waits && safe["left_ms"].as_u64()? > 0).then(|| safe.clone())
    });
    let safe = safe.unwrap();
    let started = wait::until("a start elsewhere", LIMIT, || {
        let open = scene.lab.guest_qemu_pids(GUEST);
        if open.is_empty() { Err("open nowhere".to_owned()) } else { Ok(now_ms()) }
    })
    .unwrap();
    let started = started_elsewhere(&scene, &host, begin, started);

    // The guard's last lease was granted at `deadline - lease` or later.
    let ms = |value: &serde_json::Value| value.as_f64().unwrap();
    let (lease, guard, watchdog) = (ms(&safe["lease_ms"]), ms(&safe["guard_ms"]), ms(&safe["watchdog_ms"]));
    let armed = &status["armed"];
    assert_eq!((guard, watchdog), (ms(&armed["guard_ms"]), ms(&armed["watchdog"]["timeout_ms"])), "{safe} {armed}");
    let earliest = ms(&status["deadline"]) - lease + 1.05 * (lease + guard + watchdog);
    println!("started elsewhere {:.0} ms after that was safe", started - earliest);
    assert!(started >= earliest, "{started} is before {earliest}: {safe}");
    assert_ne!(scene.lab.wait_guest_healthy(GUEST, LIMIT).unwrap(), host);
    let proof = scene.shown(&format!("/hosts/{host}/proof")).unwrap();
    assert!(proof.as_str().is_some_and(|proof| proof.contains("lease")), "{proof}");
    let journal = scene.journal().unwrap();
    // Whoever was to switch it off waits for what may come of that, longer than the lease lasts.
    let asked = format!("is ordered to switch {host} off");
    assert!(journal.iter().any(|line| line.contains(&asked)), "its power device was asked in vain: {journal:?}");
    let incidents = scene.shown("/incidents").unwrap();
    let of_host = incidents.as_array().unwrap().iter().find(|incident| incident["key"] == key.as_str());
    assert!(of_host.is_some_and(|incident| incident["human"].is_null()), "{incidents}");
    assert_eq!(scene.presses(), 0);
    scene.no_watchdog_fired().unwrap();

    scene.lab.bmc(&host).fault(Fault::None).unwrap();
    scene.lab.power_on(&host).unwrap();
    scene.calm().unwrap();
}
