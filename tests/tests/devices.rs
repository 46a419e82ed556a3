//! Power devices of other kinds than IPMI, levels of several, tests and drills of fencing, on real guests and power.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what a test's helper cannot do fails the test")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use holdfast_tests::lab::{
    Fault, HostSpec, Scene, bmc, left_out,
    scene::{GUEST, LIMIT},
    wait,
};

/// How long a guest has to stay whose host is not proven off. Several attempts fall into it.
const STAY: Duration = Duration::from_secs(10);

/// Waits until it is known how the wiring of every host's first level was verified. A device that hiccups is asked again after
/// 15 s, then after 30 s.
fn wired(scene: &Scene, how: &str) {
    let known = scene.lab.wait_status(&format!("wiring verified by {how}"), 2 * LIMIT, |status| {
        let hosts = status.value["hosts"].as_object()?;
        hosts.values().all(|host| host["fencing"]["1"]["wiring"] == how).then_some(())
    });
    if known.is_err() {
        eprintln!("the services say:\n{}", scene.lab.redfish_said());
    }
    known.unwrap();
}

#[test]
fn redfish_verifies_its_wiring_by_itself_and_switches_a_frozen_host_off() {
    if left_out("redfish_verifies_its_wiring_by_itself_and_switches_a_frozen_host_off") {
        return;
    }
    let mut devices = BTreeMap::new();
    // Before the hosts are on: what takes the processors for seconds takes them from nobody then.
    let mut scene = Scene::prepared(HostSpec::three(), "", |lab| {
        devices = lab.start_redfish()?;
        Ok(())
    })
    .unwrap();
    scene.fence_by(|_, host| Ok(vec![devices[host].clone()])).unwrap();
    let (host, leader) = scene.arranged(false).unwrap();
    wired(&scene, "its machine id");

    let began = Instant::now();
    // An emulator that is busy with another question may answer too late.
    wait::until("a test by both others", LIMIT, || {
        let tested =
            scene.lab.holdfast_json(&leader, &["fence", "test", &host]).map_err(|error| format!("{error:#}"))?;
        let devices = tested["devices"].as_array().ok_or("no devices")?;
        assert_eq!(devices.len(), 2, "asked by both others: {tested}");
        let well = devices.iter().all(|said| said["power"] == "on" && said["machine"] == "its own");
        if well { Ok(()) } else { Err(tested.to_string()) }
    })
    .unwrap();
    eprintln!("fence test took {:?}", began.elapsed());
    assert_eq!(scene.presses(), 0, "a test switches nothing");

    scene.lab.freeze(&host).unwrap();
    scene.moved_after_proof(&host, LIMIT).unwrap();
    let proof = scene.shown(&format!("/hosts/{host}/proof")).unwrap();
    assert!(
        proof.as_str().is_some_and(|proof| proof.contains("redfish") && proof.contains("its machine id")),
        "{proof}"
    );
}

#[test]
fn a_level_of_two_devices_of_which_one_lies_is_no_proof_before_both_say_off() {
    if left_out("a_level_of_two_devices_of_which_one_lies_is_no_proof_before_both_say_off") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    // The second says "off" of everything, at any time.
    let liar = "command: { status: [sh, -c, \"exit 2\"], off: [\"true\", HOST], wiring_verified_by: the lab }";
    // By itself it is found out while nothing is wrong. Nobody vouches for it meanwhile: a busy machine may be silent for a moment.
    let unverified = liar.replace(", wiring_verified_by: the lab", "");
    scene.fence_by(|_, host| Ok(vec![unverified.replace("HOST", host)])).unwrap();
    let found_out = scene.lab.wait_status("that nobody trusts a device that lies", LIMIT, |status| {
        let hosts = status.value["hosts"].as_object()?;
        hosts.values().all(|host| host["distrusted"][0] == 1).then_some(())
    });
    found_out.unwrap();

    scene
        .fence_by(|lab, host| {
            let ipmi = lab.bmc(host).yaml("4s")?;
            Ok(vec![format!("all: [{{ {ipmi} }}, {{ {} }}]", liar.replace("HOST", host))])
        })
        .unwrap();
    let (host, _) = scene.arranged(false).unwrap();
    scene.lab.bmc(&host).fault(Fault::Stuck).unwrap();
    scene.lab.freeze(&host).unwrap();
    scene
        .never(STAY, |scene| {
            let open = scene.lab.guest_qemu_pids(GUEST);
            anyhow::ensure!(open.iter().all(|(at, _)| *at == host), "started without proof: {open:?}");
            Ok(())
        })
        .unwrap();
    scene.lab.bmc(&host).fault(Fault::None).unwrap();
    scene.moved_after_proof(&host, LIMIT).unwrap();
}

#[test]
fn a_fence_agent_is_drilled_and_then_its_word_is_proof() {
    if left_out("a_fence_agent_is_drilled_and_then_its_word_is_proof") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    scene
        .fence_by(|lab, host| {
            let address = lab.bmc(host).address()?;
            Ok(vec![format!(
                "agent: {{ name: fence_ipmilan, password_file: {}, options: {{ ip: {address}, username: {}, lanplus: 1, cipher: 3, power_wait: 0 }} }}",
                bmc::PASSWORD_FILE,
                bmc::USER
            )])
        })
        .unwrap();
    let (guest_on, leader) = scene.arranged(true).unwrap();
    let host = scene.others(&[&leader]).remove(0);
    let refused = scene.lab.holdfast_answered(&leader, &["fence", "drill", &guest_on, "--operator", "ann"]).unwrap();
    assert_eq!(refused.code, Some(1), "a host that is not drained: {}", refused.out);
    scene.lab.holdfast_soon(&leader, &["host", "drain", &host, "--operator", "ann"]).unwrap();
    // Refused while any host is not well, as it is on a busy machine for a moment.
    wait::until("a drill that begins", LIMIT, || {
        let begun = scene.lab.holdfast_soon(&leader, &["fence", "drill", &host, "--operator", "ann"]);
        begun.map(drop).map_err(|error| format!("{error:#}"))
    })
    .unwrap();
    wait::until("the drill to end well", 3 * LIMIT, || {
        let journal = scene.journal().map_err(|error| format!("{error:#}"))?;
        let told = format!("the drill of {host} ");
        let ended = journal.iter().find(|line| line.starts_with(&told)).ok_or("it goes on")?;
        if ended.contains("succeeded") { Ok(()) } else { panic!("{ended}") }
    })
    .unwrap();
    scene.answered_throughout().unwrap();
    let wiring = scene.shown(&format!("/hosts/{host}/fencing/1/wiring")).unwrap();
    assert_eq!(wiring, format!("a drill of ann through {leader}"));

    scene.lab.holdfast_soon(&leader, &["host", "resume", &host, "--operator", "ann"]).unwrap();
    scene.calm().unwrap();
    scene.migrate(&host).unwrap();
    scene.calm().unwrap();
    scene.lab.freeze(&host).unwrap();
    scene.moved_after_proof(&host, 2 * LIMIT).unwrap();
}
