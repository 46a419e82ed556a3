//! Old copies of the voters' stores are put back: agents notice, nothing is decided on a state that has forgotten, and a
//! human is called (R3).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what a test's helper cannot do fails the test")]

use std::{path::Path, time::Duration};

use holdfast_tests::lab::{
    Daemon, Scene,
    command::run_ok,
    left_out,
    scene::{GUEST, LIMIT},
    wait,
};

/// How long nothing may happen: longer than it takes to give a lost guest or host up.
const STAY: Duration = Duration::from_secs(8);

#[test]
fn a_cluster_whose_stores_were_restored_to_the_past_halts_and_calls_a_human() {
    if left_out("a_cluster_whose_stores_were_restored_to_the_past_halts_and_calls_a_human") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    let source = scene.calm().unwrap();
    let target = scene.others(&[&source]).remove(0);
    let stores = scene.lab.place().dir.join("stores");
    down(&scene);
    copy(&scene, &Way::Keep, &stores.join("old"));
    up(&scene);
    scene.calm().unwrap();
    // The old copies say that the guest runs where it is not any more.
    scene.migrate(&target).unwrap();
    scene.calm().unwrap();
    down(&scene);
    copy(&scene, &Way::Keep, &stores.join("newest"));
    copy(&scene, &Way::PutBack, &stores.join("old"));
    let (qemu, who) = (scene.qemu().unwrap(), scene.who().unwrap());
    up(&scene);

    halts(&scene);
    assert_eq!(scene.shown(&format!("/guests/{GUEST}/host")).unwrap(), source.as_str(), "the copies are not old");
    stays(&scene, &qemu);
    // Neither another leader nor another start of it forgets that.
    down(&scene);
    up(&scene);
    halts(&scene);
    stays(&scene, &qemu);
    scene.answered_throughout().unwrap();
    assert_eq!(scene.who().unwrap(), who);
    // What an operator wants is refused; what dies is not started.
    let from = scene.lab.status_soon().unwrap().from;
    for order in [&["host", "drain", "h1", "--operator", "ann"][..], &["guest", "migrate", GUEST, "--to", &source]] {
        let answer = scene.lab.holdfast_answered(&from, order).unwrap();
        assert_eq!(answer.code, Some(1), "{}", answer.err);
        assert!(answer.err.contains("old copy of the store"), "{}", answer.err);
    }
    scene.kill_qemu().unwrap();
    scene.client.wait_down(LIMIT).unwrap();
    // It answers nobody, and may still be dying.
    wait::until("the end of its QEMU", LIMIT, || {
        let open = scene.lab.guest_qemu_pids(GUEST);
        if open.is_empty() { Ok(()) } else { Err(format!("open in {open:?}")) }
    })
    .unwrap();
    scene
        .never(STAY, |scene| {
            let open = scene.lab.guest_qemu_pids(GUEST);
            anyhow::ensure!(open.is_empty(), "started by a state that has forgotten: {open:?}");
            Ok(())
        })
        .unwrap();
    assert_eq!(scene.presses(), 0);

    // The human does what the alert says.
    down(&scene);
    copy(&scene, &Way::PutBack, &stores.join("newest"));
    up(&scene);
    assert_eq!(scene.calm().unwrap(), target);
    assert_eq!(scene.presses(), 0);
}

fn halts(scene: &Scene) {
    let told = scene.lab.wait_status("an alert that the store is old", LIMIT, |status| {
        let mut open = status.value["incidents"].as_array()?.iter().filter(|incident| incident["open"] == true);
        let store = open.find(|incident| incident["key"] == "store")?;
        Some((store["severity"].clone(), store["human"].as_str()?.to_owned()))
    });
    let (severity, human) = told.unwrap();
    assert_eq!(severity, "critical");
    assert!(human.contains("put the newest stores back"), "{human}");
}

/// That nothing moves: the guest is where it was, and nobody presses a button.
fn stays(scene: &Scene, qemu: &(String, i32)) {
    scene
        .never(STAY, |scene| {
            anyhow::ensure!(scene.qemu()? == *qemu, "{GUEST} is not where it was");
            anyhow::ensure!(scene.presses() == 0, "a button was pressed");
            Ok(())
        })
        .unwrap();
}

fn down(scene: &Scene) {
    for name in scene.others(&[]) {
        scene.lab.kill_supervisor(&name).unwrap();
        wait::until("its end", LIMIT, || match scene.lab.daemon_pid(&name, Daemon::Supervisor) {
            Ok(pid) => Err(format!("still {pid}")),
            Err(_) => Ok(()),
        })
        .unwrap();
    }
}

fn up(scene: &Scene) {
    for name in scene.others(&[]) {
        scene.lab.start_supervisor(&name).unwrap();
    }
}

enum Way {
    Keep,
    PutBack,
}

/// Copies every voter's store to `kept`, or back from there.
fn copy(scene: &Scene, way: &Way, kept: &Path) {
    for name in scene.others(&[]) {
        let (store, copy) = (scene.lab.host_dir(&name).join("state/raft"), kept.join(&name));
        let (from, to) = match way {
            Way::Keep => (store, copy),
            Way::PutBack => (copy, store),
        };
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        if to.exists() {
            std::fs::remove_dir_all(&to).unwrap();
        }
        run_ok(&["cp", "-a", &from.to_string_lossy(), &to.to_string_lossy()], LIMIT).unwrap();
    }
}
