//! A host that starves is left by its guests, live, before it fails: `on_degraded: migrate`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what a test's helper cannot do fails the test")]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use holdfast_tests::lab::{
    Daemon, Scene, Status, left_out,
    scene::{GUEST, LIMIT},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long the supervisor gets no processor: longer than `wonder_after` (0.75 s), so that its loop is late, and shorter
/// than `suspect_after` (1.5 s), so that nobody misses it.
const STARVED: Duration = Duration::from_millis(950);
/// How long it then gets one. It doubts itself for five seconds each time.
const FED: Duration = Duration::from_millis(1_500);
/// How long its guest has to stay while it doubts itself: where a policy has it leave, that begins within a second or two.
const STAYS: Duration = Duration::from_secs(10);

#[test]
fn a_guest_leaves_a_host_that_is_not_well_and_does_not_notice() {
    if left_out("a_guest_leaves_a_host_that_is_not_well_and_does_not_notice") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    // Without the policy's word it stays, however its host is.
    let (host, _) = scene.arranged(false).unwrap();
    let (who, place) = (scene.who().unwrap(), scene.qemu().unwrap());
    starving(&scene, &host, || {
        said_to_doubt_itself(&scene, &host);
        scene
            .never(STAYS, |scene| {
                anyhow::ensure!(scene.qemu()? == place, "{GUEST} moved without the policy's word");
                Ok(())
            })
            .unwrap();
    });

    declare_migrate(&scene);
    for on_leader in [false, true] {
        let (host, leader) = scene.arranged(on_leader).unwrap();
        starving(&scene, &host, || {
            wait::until(&format!("{GUEST} anywhere but on {host}"), LIMIT, || {
                let status = scene.lab.status().map_err(|error| format!("{error:#}"))?;
                let there = status.guest_host(GUEST).is_some_and(|at| at != host) && status.guest_healthy(GUEST);
                if there { Ok(()) } else { Err(status.value.to_string()) }
            })
            .unwrap();
        });
        eprintln!("{GUEST} left {host} (leader: {leader})");
        scene.answered_throughout().unwrap();
        assert_eq!(scene.who().unwrap(), who, "it was booted again");
        assert_ne!(scene.qemu_alone().unwrap().0, host);
        let journal = scene.journal().unwrap();
        assert!(journal.iter().any(|line| line.contains(&format!("{host} is not well"))), "{journal:?}");
        assert!(!journal.iter().any(|line| line.contains("has failed")), "{journal:?}");
        assert_eq!(scene.presses(), 0);
        scene.calm().unwrap();
    }
}

/// Starves a host's supervisor as an overloaded machine does, in turns, while `meanwhile` lasts. The guard and the guest
/// get what they need.
fn starving(scene: &Scene, host: &str, meanwhile: impl FnOnce()) {
    let pid = Pid::from_raw(scene.lab.daemon_pid(host, Daemon::Supervisor).unwrap());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                kill(pid, Signal::SIGSTOP).unwrap();
                thread::sleep(STARVED);
                kill(pid, Signal::SIGCONT).unwrap();
                thread::sleep(FED);
            }
        });
        let _over = Ending(&over);
        meanwhile();
    });
    let well = |status: &Status| status.value.pointer(&format!("/hosts/{host}/unwell"))?.is_null().then_some(());
    scene.lab.wait_status("a host that is well again", LIMIT, well).unwrap();
}

/// Ends the starving also when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn said_to_doubt_itself(scene: &Scene, host: &str) {
    // It may complain of something else on a busy machine before.
    let unwell = scene.lab.wait_status("a host that doubts itself", LIMIT, |status| {
        status.value.pointer(&format!("/hosts/{host}/unwell"))?.as_str()?.contains("late").then_some(())
    });
    unwell.unwrap();
}

/// The scene's declaration, with `on_degraded: migrate` for its policy.
fn declare_migrate(scene: &Scene) {
    let mut files = scene.declaration().unwrap();
    let (_, web) = files.iter_mut().find(|(name, _)| *name == "web.yaml").unwrap();
    let Some(at) = web.find("    ladder:") else { panic!("no ladder in {web}") };
    web.insert_str(at, "    on_degraded: migrate\n");
    let from = scene.lab.status_soon().unwrap().from;
    scene.lab.apply_texts(&from, &files).unwrap();
}
