//! What is seen and done inside a guest: an application that answers slowly, one that ceases to report in, a reboot by the
//! guest's agent, a clean stop.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what a test's helper cannot do fails the test")]

use holdfast_tests::lab::{
    Lent, Scene,
    guest::PORT,
    left_out,
    scene::{ADDRESS, GUEST, LIMIT},
    wait,
};
use serde_json::Value;

#[test]
fn a_slow_application_is_degraded_a_silent_one_gets_a_reboot_and_a_stop_is_a_shutdown() {
    if left_out("a_slow_application_is_degraded_a_silent_one_gets_a_reboot_and_a_stop_is_a_shutdown") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    declare(&scene);
    scene.calm().unwrap();

    // Slow, as its users see it: told, named, and nothing is restarted.
    let (who, qemu) = (scene.who().unwrap(), scene.qemu().unwrap());
    ask(&scene, "/cgi-bin/lazy-on");
    service_is(&scene, "http", |service| service["verdict"] == "degraded" && service["degraded"] == "slow");
    wait::until("the incident of it", LIMIT, || {
        let incidents = scene.shown("/incidents").map_err(|error| format!("{error:#}"))?.to_string();
        if incidents.contains("is slow, as seen by") { Ok(()) } else { Err(incidents) }
    })
    .unwrap();
    ask(&scene, "/cgi-bin/lazy-off");
    scene.calm().unwrap();

    // It says that it goes down, and is away: nothing is held against it.
    ask(&scene, "/cgi-bin/going-down");
    service_is(&scene, "shop", |service| service["verdict"] == "unknown");
    ask(&scene, "/cgi-bin/back");
    service_is(&scene, "shop", |service| service["verdict"] == "healthy");
    scene.calm().unwrap();
    assert_eq!((scene.who().unwrap(), scene.qemu().unwrap()), (who.clone(), qemu.clone()), "something was restarted");

    // Silent, while it answers everybody outside: the guest is rebooted by its own agent, and its QEMU goes on.
    ask(&scene, "/cgi-bin/hush");
    wait::until("another boot of the guest", LIMIT, || {
        let now = scene.who().map_err(|error| format!("{error:#}"))?;
        if now.0 == who.0 { Err("the same boot".to_owned()) } else { Ok(()) }
    })
    .unwrap();
    scene.calm().unwrap();
    let journal = scene.journal().unwrap();
    assert_eq!(scene.qemu().unwrap(), qemu, "its QEMU was replaced: {journal:?}");
    assert_eq!(scene.who().unwrap().1, who.1 + 1, "it was booted once");
    assert!(journal.iter().any(|line| line.contains("it began anew after")), "{journal:?}");
    assert!(journal.iter().any(|line| line.contains("shop") && line.contains("reboot")), "{journal:?}");

    // Stopped by an operator: it shuts down.
    let from = scene.lab.status_soon().unwrap().from;
    scene.lab.holdfast_soon(&from, &["guest", "stop", GUEST]).unwrap();
    let stopped = |scene: &Scene| scene.shown(&format!("/guests/{GUEST}/state"));
    wait::until("a stopped guest", LIMIT, || {
        let state = stopped(&scene).map_err(|error| format!("{error:#}"))?;
        if state == "stopped" { Ok(()) } else { Err(state.to_string()) }
    })
    .unwrap();
    let journal = scene.journal().unwrap();
    assert!(journal.iter().any(|line| line.contains("it shut down in")), "{journal:?}");
    assert_eq!(scene.presses(), 0);
    // The scene is another test's next.
    scene.lab.holdfast_soon(&from, &["guest", "start", GUEST]).unwrap();
}

/// Waits for a service to be shown as it should be.
fn service_is(scene: &Scene, name: &str, as_it_should: impl Fn(&Value) -> bool) {
    let path = format!("/guests/{GUEST}/services/{name}");
    wait::until(&path, LIMIT, || {
        let service = scene.shown(&path).map_err(|error| format!("{error:#}"))?;
        if as_it_should(&service) { Ok(()) } else { Err(service.to_string()) }
    })
    .unwrap();
}

/// Tells the guest something until it answers: told twice, it does the same.
fn ask(scene: &Scene, path: &str) {
    wait::until(&format!("the guest's answer to {path}"), LIMIT, || {
        scene.lab.client_get(&format!("{ADDRESS}:{PORT}"), path).map_err(|error| format!("{error:#}"))
    })
    .unwrap();
}

/// The scene's declaration, with a probe whose answer can be made slow, a heartbeat, and a ladder that begins with a reboot.
fn declare(scene: &Scene) {
    let mut files = scene.declaration().unwrap();
    let (_, web) = files.iter_mut().find(|(name, _)| *name == "web.yaml").unwrap();
    let Some(at) = web.find("policies:") else { panic!("no policies in {web}") };
    web.truncate(at);
    web.push_str(
        r#"policies:
  web:
    match: { app: web }
    services:
      http:
        probe: { http: { url: "http://{address}:8080/cgi-bin/lazy", body: "ok" } }
        every: 3s
        timeout: 3s
        # What an emulated guest answers too late is slow, and not dead.
        fails_after: 10
        slow: { above: 1500ms, share: 50%, over: 15s }
        from: { inside: false, hosts: 2, agree: 2 }
      shop:
        probe: { heartbeat: { file: /run/heartbeat, max_age: 8s } }
        every: 2s
        timeout: 2s
    ladder:
      - reboot_guest: { tries: 1, wait: 120s }
      - reset_guest: { tries: 20, wait: 120s }
      - page: { severity: critical }
    cool_down: 10s
"#,
    );
    let from = scene.lab.status_soon().unwrap().from;
    scene.lab.apply_texts(&from, &files).unwrap();
}
