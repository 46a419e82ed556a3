//! What the hypervisor says of a guest before any probe does: a kernel that panics (`pvpanic`), and a disk whose storage has
//! no room left (`werror=stop`).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what a test's helper cannot do fails the test")]

use holdfast_tests::lab::{
    HostSpec, Scene, SmallDisk, left_out,
    scene::{GUEST, LIMIT},
    wait,
};
use serde_json::Value;

/// Room of the hosts' shared storage: enough for what a guest writes to its disk in a test, and filled at once.
const SHARED_MIB: u32 = 24;

#[test]
fn a_guest_whose_kernel_panics_is_reset_for_that_and_its_story_says_so() {
    if left_out("a_guest_whose_kernel_panics_is_reset_for_that_and_its_story_says_so") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    for on_leader in [false, true] {
        let (host, _) = scene.arranged(on_leader).unwrap();
        let (who, qemu) = (scene.who().unwrap(), scene.qemu().unwrap());
        let counted = events(&scene, &host, "panicked");
        let (taken, known) = (rungs(&scene).len(), scene.incidents().unwrap());
        scene.end_answers("/cgi-bin/panic").unwrap();
        let incident = scene.mended(&known).unwrap();
        scene.calm().unwrap();

        // Told by QEMU: probes that fail would have had the service restarted first.
        assert_eq!(incident["rung"], "reset_guest", "{incident}");
        assert_eq!(incident["summary"], format!("{GUEST}: its kernel has panicked"), "{incident}");
        let taken = rungs(&scene).split_off(taken);
        assert!(taken.len() == 1 && taken.iter().all(|rung| rung.contains("reset_guest")), "{taken:?}");
        assert!(taken.iter().all(|rung| rung.contains(&format!("{host} reports it"))), "{taken:?}");
        assert_eq!(events(&scene, &host, "panicked"), counted + 1.0);
        // What it was, and what its kernel has said last.
        let story = incident["story"].to_string();
        for part in ["last seen: panicked", "Kernel panic - not syncing"] {
            assert!(story.contains(part), "no {part} in {story}");
        }
        eprintln!("on {host}: {}", incident["stages"]);

        // The same host, another QEMU, one more boot; no power button was pressed.
        let anew = scene.qemu().unwrap();
        assert!(anew.0 == host && anew.1 != qemu.1, "{qemu:?} before, {anew:?} after");
        assert_eq!(scene.who().unwrap().1, who.1 + 1, "it was booted once");
        assert_eq!(scene.presses(), 0);
    }
}

#[test]
fn a_guest_whose_storage_is_full_goes_on_where_it_was_once_there_is_room() {
    if left_out("a_guest_whose_storage_is_full_goes_on_where_it_was_once_there_is_room") {
        return;
    }
    let mut shared = None;
    let mut scene = Scene::prepared(HostSpec::three(), "", |lab| {
        shared = Some(SmallDisk::over(&lab.shared(), SHARED_MIB)?);
        Ok(())
    })
    .unwrap();
    let shared = shared.unwrap();
    let host = scene.calm().unwrap();
    let (who, qemu) = (scene.who().unwrap(), scene.qemu().unwrap());

    // Room comes back before the second try.
    shared.fill().unwrap();
    let first = stopped(&scene, "resume_guest");
    assert!(summary(&first).contains("its storage failed (write on disk0: No space left on device)"), "{first}");
    assert!(events(&scene, &host, "io_error") >= 1.0);
    shared.free().unwrap();
    scene.calm().unwrap();
    goes_on(&scene, &who, &qemu);
    wait::until("the end of the incident", LIMIT, || {
        let newest = newest(&scene)?;
        if newest["open"] == false { Ok(()) } else { Err(newest.to_string()) }
    })
    .unwrap();

    // It does not in time: a human is called, and nothing else happens to the guest.
    shared.fill().unwrap();
    let second = stopped(&scene, "page");
    assert!(second["id"] != first["id"] && second["human"].to_string().contains("Mend the storage"), "{second}");
    assert_eq!(second["severity"], "critical", "{second}");
    assert_eq!(scene.qemu().unwrap(), qemu);
    shared.free().unwrap();
    // What the human is told to do.
    let command = ["guest", "cleanup", GUEST];
    assert!(second["human"].to_string().contains(&format!("holdfast {}", command.join(" "))), "{second}");
    let from = scene.lab.status_soon().unwrap().from;
    scene.lab.holdfast_soon(&from, &command).unwrap();
    scene.calm().unwrap();
    goes_on(&scene, &who, &qemu);
    drop(scene);
    drop(shared);
}

/// Waits until the guest is known to have been stopped by its storage, and its ladder has come to `rung`.
fn stopped(scene: &Scene, rung: &str) -> Value {
    wait::until(&format!("a guest that its storage has stopped, and the rung {rung}"), LIMIT * 2, || {
        let newest = newest(scene)?;
        let there = newest["open"] == true && newest["rung"] == rung && summary(&newest).contains("its storage failed");
        if there { Ok(newest) } else { Err(newest.to_string()) }
    })
    .unwrap()
}

/// That it is the same boot in the same QEMU, and that nothing was done to it but to let it run.
fn goes_on(scene: &Scene, who: &(String, u64), qemu: &(String, i32)) {
    assert_eq!(scene.who().unwrap(), *who, "it was booted again");
    assert_eq!(scene.qemu().unwrap(), *qemu, "its QEMU was replaced");
    let rungs = rungs(scene);
    let harmless = |rung: &String| rung.starts_with("resume_guest") || rung.starts_with("page");
    assert!(rungs.iter().all(harmless), "{rungs:?}");
    assert_eq!(scene.presses(), 0);
}

/// The newest incident of the guest itself; `Null` before there is one.
fn newest(scene: &Scene) -> Result<Value, String> {
    let all = scene.incidents().map_err(|error| format!("{error:#}"))?;
    Ok(all.into_iter().find(|incident| incident["key"] == format!("guest/{GUEST}")).unwrap_or_default())
}

fn summary(incident: &Value) -> &str {
    incident["summary"].as_str().unwrap_or_default()
}

/// The rungs that were taken for the guest, as the journal tells them, oldest first.
fn rungs(scene: &Scene) -> Vec<String> {
    let journal = scene.journal().unwrap();
    journal.into_iter().filter(|line| line.contains(&format!(" of {GUEST} (try "))).collect()
}

/// How often a host has heard this of its guests, as its metrics say.
fn events(scene: &Scene, host: &str, event: &str) -> f64 {
    let page = scene.lab.metrics(host).unwrap();
    let series = format!("holdfast_guest_events_total{{event=\"{event}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap()
}
