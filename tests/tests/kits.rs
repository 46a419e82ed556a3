//! The recovery kits of `examples/kits` on guests that run the real programs, with Holdfast's own agent in them: each program
//! is healthy by every probe of its kit, is restarted when it has died (Redis, Apache, MariaDB, PostgreSQL) or hangs (nginx), and
//! PostgreSQL's rows outlive its host. In one of them an agent listens on vsock too, and takes nobody who is not the host.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what a test's helper cannot do fails the test")]

use std::thread;

use holdfast_tests::lab::{
    Scene,
    kits::{self, APACHE, Kit, MARIADB, NGINX, POSTGRES, REDIS, SIDE_PORT},
    left_out,
    scene::{GUEST, LIMIT},
    wait,
};
use serde_json::Value;

#[test]
fn kits_restart_real_programs_that_have_died_or_hang_and_a_database_outlives_its_host() {
    if left_out("kits_restart_real_programs_that_have_died_or_hang_and_a_database_outlives_its_host") {
        return;
    }
    let scene = with_kits();
    // One guest at a time: two processors emulate no more of them and still answer in time. Only while the next one boots, the last
    // one shuts down.
    let mut before = GUEST;
    let mut files: Vec<(String, String)> =
        scene.declaration().unwrap().into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
    let tried = [(REDIS, "kill"), (NGINX, "stop"), (APACHE, "kill"), (MARIADB, "kill"), (POSTGRES, "kill")];
    for (kit, hurt) in tried {
        scene.lab.make_kit_guest(&kit).unwrap();
        files.extend(scene.lab.kit_yaml(&kit).unwrap());
        stop(&scene, before);
        let from = scene.lab.status_soon().unwrap().from;
        scene.lab.apply_texts(&from, &files).unwrap();
        eprintln!("{} is well on {}", kit.guest, well(&scene, &kit));
        is_stopped(&scene, before);
        if kit.guest == NGINX.guest {
            lets_in_nobody_but_the_host(&scene, &kit);
        }
        survives(&scene, &kit, hurt);
        before = kit.guest;
    }

    // The host of the database loses power: the table that only its disk holds takes rows again, elsewhere.
    let host = well(&scene, &POSTGRES);
    scene.lab.power_cut(&host).unwrap();
    wait::until("the database elsewhere", LIMIT * 2, || {
        let status = scene.lab.status().map_err(|error| format!("{error:#}"))?;
        let there =
            status.guest_host(POSTGRES.guest).is_some_and(|at| at != host) && status.guest_healthy(POSTGRES.guest);
        if there { Ok(()) } else { Err(status.value["guests"][POSTGRES.guest].to_string()) }
    })
    .unwrap();
    assert_eq!(scene.presses(), 0);
}

/// Three voters, with the files of the kits, which are made while those come up.
fn with_kits() -> Scene {
    let scene = thread::scope(|scope| {
        let made = scope.spawn(kits::make);
        let scene = Scene::three().unwrap();
        made.join().unwrap().unwrap();
        scene
    });
    scene.lab.build_kits().unwrap();
    scene
}

fn stop(scene: &Scene, guest: &str) {
    let from = scene.lab.status_soon().unwrap().from;
    scene.lab.holdfast_soon(&from, &["guest", "stop", guest, "--operator", "ann"]).unwrap();
}

fn is_stopped(scene: &Scene, guest: &str) {
    wait::until(&format!("{guest} stopped"), LIMIT, || {
        let state = scene.shown(&format!("/guests/{guest}/state")).map_err(|error| format!("{error:#}"))?;
        if state == "stopped" { Ok(()) } else { Err(state.to_string()) }
    })
    .unwrap();
}

/// The guest's kernel leads a program in it to the agent over vsock, as CID 1, and to a port where nobody listens it does not. The
/// agent takes the connection, hears nothing of it and hangs up, from whichever port it comes, and says once who that was.
fn lets_in_nobody_but_the_host(scene: &Scene, kit: &Kit) {
    let expected = [
        "700 to 7413: hung up after 0 bytes",
        "5000 to 7413: hung up after 0 bytes",
        "701 to 7414: Connection reset by peer",
        "holdfast-guest: vsock: 1:700 is not the host",
    ];
    wait::until("an agent on vsock that refuses its own guest", LIMIT, || {
        let said = scene.lab.client_get(&side(kit), "/cgi-bin/vsock").map_err(|error| format!("{error:#}"))?;
        if said.lines().eq(expected) { Ok(()) } else { Err(said) }
    })
    .unwrap();
}

/// Its program dies or hangs: it is restarted, and the guest runs on.
fn survives(scene: &Scene, kit: &Kit, hurt: &str) {
    let (booted, mut before) = (boot(scene, kit), incidents(scene, kit));
    // One that is open, and for which nothing has been done, may become that of what happens next.
    before.retain(|one| one["open"] == false || one["rung"].is_string());
    // Its answer may be late; whether it has hurt is seen below.
    let answer = scene.lab.client_get(&side(kit), &format!("/cgi-bin/app?{hurt}"));
    eprintln!("{} after {hurt}: {answer:?}", kit.guest);
    // Before it and after it others may come and go, for which nothing is done: an emulated program answers late for a moment.
    let incident = wait::until(&format!("{} after {hurt}: an incident that is over", kit.guest), LIMIT * 2, || {
        let mut new = incidents(scene, kit);
        new.retain(|one| before.iter().all(|known| known["id"] != one["id"]));
        let its = new.iter().rfind(|one| one["rung"].is_string());
        its.filter(|one| one["open"] == false).cloned().ok_or_else(|| format!("{new:?}"))
    })
    .unwrap();
    assert_eq!(incident["rung"], "restart_service", "{incident}");
    well(scene, kit);
    eprintln!("{} after {hurt}: {}", kit.guest, incident["stages"]);
    assert_eq!(boot(scene, kit), booted, "{} was booted again", kit.guest);
}

fn side(kit: &Kit) -> String {
    format!("{}:{SIDE_PORT}", kit.address)
}

/// Waits until every service of the kit is healthy; returns the guest's host.
fn well(scene: &Scene, kit: &Kit) -> String {
    wait::until(&format!("{} with all its services", kit.guest), LIMIT * 2, || {
        let status = scene.lab.status().map_err(|error| format!("{error:#}"))?;
        let guest = &status.value["guests"][kit.guest];
        let services = guest["services"].as_object().ok_or("no services")?;
        let healthy = services.values().all(|service| service["verdict"] == "healthy");
        match status.guest_host(kit.guest) {
            Some(host) if healthy && !services.is_empty() && status.guest_healthy(kit.guest) => Ok(host.to_owned()),
            _ => Err(guest.to_string()),
        }
    })
    .unwrap()
}

fn boot(scene: &Scene, kit: &Kit) -> String {
    let who = wait::until("the guest's word", LIMIT, || {
        scene.lab.client_get(&side(kit), "/cgi-bin/who").map_err(|error| format!("{error:#}"))
    });
    let who: Value = serde_json::from_str(&who.unwrap()).unwrap();
    who["boot_id"].as_str().unwrap().to_owned()
}

fn incidents(scene: &Scene, kit: &Kit) -> Vec<Value> {
    let from = scene.lab.status_soon().unwrap().from;
    let story = scene.lab.holdfast_json(&from, &["explain", kit.guest]).unwrap();
    // Not those of vantages that see its end one after the other.
    let key = format!("guest/{}", kit.guest);
    story["incidents"].as_array().into_iter().flatten().filter(|incident| incident["key"] == key).cloned().collect()
}
