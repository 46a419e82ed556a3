//! A full disk under the raft log: that supervisor stops voting and says so, and goes on with everything else. And one that stalls
//! under the agent's memory: what needs it waits, and the lease does not.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what a test's helper cannot do fails the test")]

use std::{path::Path, process::Command, time::Duration};

use holdfast_tests::lab::{Daemon, HostSpec, Scene, SmallDisk, cluster::API_PORT, left_out, scene::LIMIT, wait};

/// Size of the small disk: enough for a supervisor's start.
const SIZE_MIB: u32 = 24;
/// Policies that are applied to make the cluster write.
const APPLIED_MAX: u32 = 60;
/// Size of each, most of it a comment.
const COMMENT_BYTES: usize = 300_000;

/// How much longer a disk stalls than it takes to be told of: with that it is longer than a lease.
const STALL: Duration = Duration::from_secs(4);

#[test]
fn a_disk_that_stalls_for_longer_than_a_lease_holds_up_an_order_and_nothing_else() {
    if left_out("a_disk_that_stalls_for_longer_than_a_lease_holds_up_an_order_and_nothing_else") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    let (host, _) = scene.arranged(false).unwrap();
    let (qemu, who) = (scene.qemu().unwrap(), scene.who().unwrap());
    // A pipe that nobody reads holds up whoever opens it to write, as a disk does that stalls.
    let spare = scene.lab.host_dir(&host).join("state").join("agent.spare");
    std::fs::remove_file(&spare).unwrap();
    assert!(Command::new("mkfifo").arg(&spare).status().unwrap().success());

    scene.end_answers("/cgi-bin/crash").unwrap();
    wait::until("a disk that stalls and is told of", LIMIT, || {
        let unwell = scene.shown(&format!("/hosts/{host}/unwell")).map_err(|error| format!("{error:#}"))?;
        let told = unwell.as_str().is_some_and(|why| why.contains("does not answer"));
        if told { Ok(()) } else { Err(unwell.to_string()) }
    })
    .unwrap();
    scene
        .never(STALL, |scene| {
            // Whoever does not sync because of its disk is missed until that goes on. A machine that stands still has it missed for
            // a moment.
            if scene.shown(&format!("/hosts/{host}/verdict"))? == "healthy" {
                Ok(())
            } else {
                scene.lab.wait_hosts_healthy(LIMIT)
            }
        })
        .unwrap();

    go_on(&spare);
    scene.calm().unwrap();
    assert_eq!((scene.qemu().unwrap(), scene.who().unwrap()), (qemu, who), "the order restarts the service, late");
    assert_eq!(scene.presses(), 0);
    drop(scene);
}

/// Lets who waits at the pipe write, and have a plain file the next time.
fn go_on(pipe: &Path) {
    let read = "exec 3< \"$1\"; rm \"$1\"; cat <&3 > /dev/null";
    assert!(Command::new("sh").args(["-c", read, "sh"]).arg(pipe).status().unwrap().success());
}

#[test]
fn a_voter_with_a_full_disk_stops_voting_and_supervises_its_guests() {
    if left_out("a_voter_with_a_full_disk_stops_voting_and_supervises_its_guests") {
        return;
    }
    let names = ["h1", "h2", "h3"];
    let mut disks = Vec::new();
    let mut scene = Scene::prepared(names.map(HostSpec::voter).to_vec(), "", |lab| {
        for name in names {
            disks.push((name, SmallDisk::over(&lab.host_dir(name).join("state"), SIZE_MIB)?));
        }
        Ok(())
    })
    .unwrap();

    for on_leader in [false, true] {
        let (host, _) = scene.arranged(on_leader).unwrap();
        let (qemu, who) = (scene.qemu().unwrap(), scene.who().unwrap());
        let supervisor = scene.lab.daemon_pid(&host, Daemon::Supervisor).unwrap();
        let disk = &disks.iter().find(|(name, _)| *name == host).unwrap().1;
        disk.fill().unwrap();
        until_it_stops(&scene, &host);
        let log = scene.lab.log_tail(&host, "supervisor", 2_000);
        assert!(log.contains("this voter stops"), "no clear error in: {log}");
        // The others lead, decide and write; the guest there runs on.
        wait::until("another leader", LIMIT, || {
            let leader = scene.leader().map_err(|error| format!("{error:#}"))?;
            if leader == host { Err(leader) } else { Ok(()) }
        })
        .unwrap();
        let version = scene.shown("/policy_version").unwrap();
        // Another one each time: what is in force already gets no new version.
        scene.apply(&comment(1_000 + u32::from(on_leader), 10)).unwrap();
        assert_ne!(scene.shown("/policy_version").unwrap(), version);
        wait::pause(Duration::from_secs(5)).unwrap();
        scene.answered_throughout().unwrap();
        assert_eq!((scene.qemu().unwrap(), scene.who().unwrap()), (qemu.clone(), who.clone()));
        assert_eq!(scene.presses(), 0);

        // Its supervisor goes on without its vote, says so, and carries orders out.
        let unwell = scene.shown(&format!("/hosts/{host}/unwell")).unwrap();
        assert!(unwell.as_str().is_some_and(|why| why.contains("votes no more")), "{unwell}");
        restart_the_service(&mut scene);
        assert_eq!(scene.lab.daemon_pid(&host, Daemon::Supervisor).unwrap(), supervisor, "it has not ended");
        // It also starts on the full disk.
        scene.lab.crash(&host, Daemon::Supervisor).unwrap();
        scene.calm().unwrap();
        restart_the_service(&mut scene);
        assert_eq!((scene.qemu().unwrap(), scene.who().unwrap()), (qemu, who));

        // With room it votes again, without anybody's help.
        disk.free().unwrap();
        wait::until("a well voter", LIMIT, || page(&scene, &host, "/readyz").map(drop)).unwrap();
        scene.calm().unwrap();
        wait::until("three voters that answer", LIMIT, || {
            let list = scene.lab.holdfast_json(&host, &["voter", "list"]).map_err(|error| format!("{error:#}"))?;
            let answers = |voter: &serde_json::Value| voter["votes"] == true && voter["answers"] == true;
            let all = list["voters"].as_array().unwrap();
            if all.len() == 3 && all.iter().all(answers) { Ok(()) } else { Err(list.to_string()) }
        })
        .unwrap();
        assert_eq!(scene.presses(), 0);
    }
    drop(disks);
    drop(scene);
}

/// Kills the guest's service and waits until the host has restarted it: the guest is not reset.
fn restart_the_service(scene: &mut Scene) {
    let who = scene.who().unwrap();
    scene.end_answers("/cgi-bin/crash").unwrap();
    scene.calm().unwrap();
    assert_eq!(scene.who().unwrap(), who, "it is the same boot of the guest");
}

/// A page of a host's read-only API.
fn page(scene: &Scene, host: &str, path: &str) -> Result<String, String> {
    let address = format!("{}:{API_PORT}", scene.lab.address(host).unwrap());
    scene.lab.client_get(&address, path).map_err(|error| format!("{error:#}"))
}

/// Has the cluster write until a voter has noticed that it cannot.
fn until_it_stops(scene: &Scene, host: &str) {
    for number in 0..APPLIED_MAX {
        if page(scene, host, "/metrics").is_ok_and(|text| text.contains("\nholdfast_vote_lost 1\n")) {
            let ready = || if page(scene, host, "/readyz").is_err() { Ok(()) } else { Err("it is ready".to_owned()) };
            wait::until("a supervisor that is not ready", LIMIT, ready).unwrap();
            return;
        }
        // Fails when the coordinator itself goes down on it; the next one takes it.
        let _ = scene.apply(&comment(number, COMMENT_BYTES));
    }
    panic!("{host} has a full disk and did not notice");
}

fn comment(number: u32, bytes: usize) -> String {
    format!("# {number} {}\n", "x".repeat(bytes))
}
