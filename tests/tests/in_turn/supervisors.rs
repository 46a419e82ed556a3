//! Supervisors die, alone and together, for longer than a lease: guests are not touched, and nobody is fenced (R16, S5).

use std::time::{Duration, Instant};

use holdfast_tests::lab::{
    Daemon, Lent, left_out,
    scene::{GUEST, LIMIT},
    wait,
};
use serde_json::{Value, json};

/// Longer than a lease and the guard's second.
const LONG: Duration = Duration::from_secs(6);

#[test]
fn killing_every_supervisor_touches_no_guest_and_fences_nobody() {
    if left_out("killing_every_supervisor_touches_no_guest_and_fences_nobody") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    let host = scene.calm().unwrap();
    let (qemu, who) = (scene.qemu().unwrap(), scene.who().unwrap());
    let before: Vec<Value> = scene.incidents().unwrap().iter().map(|incident| incident["id"].clone()).collect();
    for name in scene.others(&[]) {
        scene.lab.kill_supervisor(&name).unwrap();
    }
    wait::pause(LONG).unwrap();
    for name in scene.others(&[]) {
        scene.lab.start_supervisor(&name).unwrap();
    }
    scene.lab.wait_hosts_healthy(LIMIT).unwrap();
    assert_eq!(scene.lab.wait_guest_healthy(GUEST, LIMIT).unwrap(), host);
    // Whoever wrongly held a host for dead would switch it off within some seconds of the election.
    wait::pause(Duration::from_secs(4)).unwrap();
    scene.answered_throughout().unwrap();
    assert_eq!((scene.qemu().unwrap(), scene.who().unwrap()), (qemu, who.clone()));
    assert_eq!(scene.presses(), 0);
    // That it answered late for a moment, while three supervisors started, is nothing that was done to it.
    let mut incidents = scene.incidents().unwrap();
    incidents.retain(|incident| !incident["rung"].is_null() && !before.contains(&incident["id"]));
    assert_eq!(incidents, Vec::<Value>::new());

    // A guest that dies while nobody is there is started when somebody is, once.
    for name in scene.others(&[]) {
        scene.lab.kill_supervisor(&name).unwrap();
    }
    scene.kill_qemu().unwrap();
    // Now, while nobody can have started it again.
    scene.client.wait_down(LIMIT).unwrap();
    for name in scene.others(&[]) {
        scene.lab.start_supervisor(&name).unwrap();
    }
    scene.calm().unwrap();
    assert_eq!(scene.who().unwrap().1, who.1 + 1, "it was booted once more, after its death");
    assert_eq!(scene.presses(), 0);
}

#[test]
fn one_supervisor_alone_is_missed_but_its_host_is_not_fenced() {
    if left_out("one_supervisor_alone_is_missed_but_its_host_is_not_fenced") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    let (host, leader) = scene.arranged(false).unwrap();
    let (qemu, who) = (scene.qemu().unwrap(), scene.who().unwrap());
    for victim in [&host, &leader] {
        scene.lab.kill_supervisor(victim).unwrap();
        let killed = Instant::now();
        let key = format!("supervisor/{victim}");
        scene
            .lab
            .wait_status("an incident of the dead supervisor", LIMIT, |status| {
                let open = |incident: &&Value| incident["key"] == key.as_str() && incident["open"] == true;
                status.value["incidents"].as_array()?.iter().find(open)?["human"].as_str()?;
                matches!(status.host_verdict(victim), Some("supervisor_down" | "isolated")).then_some(())
            })
            .unwrap();
        wait::pause(LONG.saturating_sub(killed.elapsed())).unwrap();
        assert_eq!(scene.shown(&format!("/hosts/{victim}/life")).unwrap(), json!("up"));
        scene.lab.start_supervisor(victim).unwrap();
        scene.lab.wait_hosts_healthy(LIMIT).unwrap();
        scene
            .lab
            .wait_status("the end of its incident", LIMIT, |status| {
                let known = status.value["incidents"].as_array()?;
                known.iter().all(|incident| incident["open"] == false).then_some(())
            })
            .unwrap();
    }
    assert_eq!(scene.lab.wait_guest_healthy(GUEST, LIMIT).unwrap(), host);
    scene.answered_throughout().unwrap();
    assert_eq!((scene.qemu().unwrap(), scene.who().unwrap()), (qemu, who));
    assert_eq!(scene.presses(), 0);
}

#[test]
fn a_supervisor_that_crashes_while_it_acts_does_it_once() {
    if left_out("a_supervisor_that_crashes_while_it_acts_does_it_once") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    // Before the order, about when it is carried out, and after it: a start takes some hundred milliseconds.
    for (delay_ms, on_leader) in [(0, true), (60, false), (150, true)] {
        let (host, _) = scene.arranged(on_leader).unwrap();
        let boots = scene.who().unwrap().1;
        scene.kill_qemu().unwrap();
        wait::pause(Duration::from_millis(delay_ms)).unwrap();
        scene.lab.crash(&host, Daemon::Supervisor).unwrap();
        scene.client.wait_down(LIMIT).unwrap();
        scene.calm().unwrap();
        assert_eq!(scene.who().unwrap().1, boots + 1, "crashed {delay_ms} ms after the guest");
    }
    assert_eq!(scene.presses(), 0);
}
