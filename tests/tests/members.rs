//! Hosts that do not vote, and a voter that runs no guests.

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use std::{fs, time::Duration};

use holdfast_tests::lab::{
    HostSpec, Scene,
    cluster::API_PORT,
    command::Answer,
    guest::PORT,
    left_out,
    scene::{GUEST, LIMIT},
    wait,
};

#[test]
fn a_guest_of_a_member_without_a_vote_moves_and_survives_its_host() {
    if left_out("a_guest_of_a_member_without_a_vote_moves_and_survives_its_host") {
        return;
    }
    let mut hosts = ["h1", "h2"].map(HostSpec::voter).to_vec();
    hosts.extend([HostSpec::witness("w1"), HostSpec::member("m1")]);
    let mut scene = Scene::with(hosts, "").unwrap();
    scene.calm().unwrap();
    // Whatever stands in the state, a witness gets no guests.
    let from = scene.lab.status_soon().unwrap().from;
    assert_eq!(scene.lab.holdfast_answered(&from, &["guest", "migrate", GUEST, "--to", "w1"]).unwrap().code, Some(1));
    if scene.calm().unwrap() != "m1" {
        scene.migrate("m1").unwrap();
    }
    scene.calm().unwrap();
    let status = scene.lab.holdfast_json("m1", &["status"]).unwrap();
    assert_eq!(
        (&status["hosts"]["m1"]["voter"], &status["hosts"]["w1"]["runs_guests"]),
        (&false.into(), &false.into())
    );
    assert_eq!(status["guests"][GUEST]["host"], "m1");
    // It hears of the coordinator without a vote: nobody is to be called for a quorum that is there.
    wait::until("a member that hears of the coordinator", LIMIT, || {
        let page = scene.lab.metrics("m1").map_err(|error| format!("{error:#}"))?;
        if page.lines().any(|line| line == "holdfast_quorum 1") { Ok(()) } else { Err(page) }
    })
    .unwrap();

    scene.lab.power_cut("m1").unwrap();
    let host = scene.moved_after_proof("m1", LIMIT).unwrap();
    assert_ne!(host, "w1");
    // The witness and one other voter are a majority: the next host may go too, when nothing runs beside the guest.
    scene.lab.power_cut(&host).unwrap();
    let last = if host == "h1" { "h2" } else { "h1" };
    assert_eq!(scene.moved_after_proof(&host, LIMIT).unwrap(), last);
    scene.lab.power_on("m1").unwrap();
    scene.lab.power_on(&host).unwrap();
    scene.calm().unwrap();
}

/// The second guest, which stays where the first one is not.
const OTHER: &str = "web-2";

#[test]
fn guests_of_a_voter_and_of_a_member_survive_their_hosts_and_each_others() {
    if left_out("guests_of_a_voter_and_of_a_member_survive_their_hosts_and_each_others") {
        return;
    }
    let hosts = HostSpec::three_and_member();
    let address = "10.77.0.101";
    let mut scene = Scene::prepared(hosts, "", |lab| lab.make_guest(OTHER, address)).unwrap();
    scene.apply(&scene.lab.guest_yaml(OTHER, address)).unwrap();
    let boot = |scene: &Scene| {
        // Right after a move the switch may not know yet where it is.
        let who = wait::until("the second guest's word", LIMIT, || {
            let asked = scene.lab.client_get(&format!("{address}:{PORT}"), "/cgi-bin/who");
            asked.map_err(|error| format!("{error:#}"))
        });
        let who: serde_json::Value = serde_json::from_str(&who.unwrap()).unwrap();
        who["boot_id"].clone()
    };

    // A voter, first one that follows and then the one that leads: the member's guest does not notice.
    for on_leader in [false, true] {
        let (host, _) = arranged_on_a_voter(&mut scene, on_leader);
        to(&scene, OTHER, "m1");
        let (before, pids) = (boot(&scene), scene.lab.guest_qemu_pids(OTHER));
        scene.lab.power_cut(&host).unwrap();
        let next = scene.moved_after_proof(&host, LIMIT).unwrap();
        eprintln!("{host} (leader: {on_leader}) was cut; {GUEST} runs on {next} after {:.0} ms", scene.outage_ms());
        assert_eq!((boot(&scene), scene.lab.guest_qemu_pids(OTHER)), (before, pids), "the member's guest was touched");
        scene.lab.power_on(&host).unwrap();
        scene.calm().unwrap();
    }

    // The member: the voters' guest does not notice.
    let (host, _) = arranged_on_a_voter(&mut scene, false);
    to(&scene, OTHER, "m1");
    let (who, qemu) = (scene.who().unwrap(), scene.qemu().unwrap());
    scene.lab.power_cut("m1").unwrap();
    let moved = scene.lab.wait_status("the member's guest elsewhere", LIMIT, |status| {
        let host = status.guest_host(OTHER).filter(|host| *host != "m1" && status.guest_healthy(OTHER))?;
        (status.host_verdict("m1") == Some("gone")).then(|| host.to_owned())
    });
    assert_ne!(moved.unwrap(), "m1");
    // How long it answers late while another guest boots beside it on two cores is the machine's business.
    assert_eq!((scene.who().unwrap(), scene.qemu().unwrap()), (who, qemu), "the guest on {host} was touched");
    eprintln!("m1 was cut; longest gap of {GUEST} on {host}: {:.0} ms", scene.outage_ms());
    scene.lab.power_on("m1").unwrap();
    scene.calm().unwrap();
    for name in ["h1", "h2", "h3"] {
        assert_ne!(scene.shown(&format!("/hosts/{name}/verdict")).unwrap(), "gone");
    }
}

/// How long a host that must stay out is watched: many times as long as one takes to join.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn a_revoked_host_stays_out_until_a_new_certificate_of_its_name_is_readmitted() {
    if left_out("a_revoked_host_stays_out_until_a_new_certificate_of_its_name_is_readmitted") {
        return;
    }
    let hosts = HostSpec::three_and_member();
    let mut scene = Scene::with(hosts, "").unwrap();
    arranged_on_a_voter(&mut scene, true);
    let who = scene.who().unwrap();
    let revoke = ["host", "revoke", "m1", "--why", "stolen", "--operator", "ann"];

    // Proof first, and no voter. That it is refused for no other reason shows that the level has risen by itself.
    let alive = answered(&scene, &revoke);
    assert!(alive.code == Some(1) && alive.err.contains("not proven gone"), "{alive:?}");
    let voter = scene.others(&[&scene.leader().unwrap(), "m1"]).remove(0);
    let votes = answered(&scene, &["host", "revoke", &voter, "--why", "stolen", "--operator", "ann"]);
    assert!(votes.code == Some(1) && votes.err.contains("voter remove"), "{votes:?}");

    scene.lab.power_cut("m1").unwrap();
    wait::until("the word that it is off", LIMIT, || {
        let answer = answered(&scene, &["host", "confirm-off", "m1", "--operator", "ann"]);
        if answer.ok() { Ok(()) } else { Err(answer.err) }
    })
    .unwrap();
    let revoked = answered(&scene, &revoke);
    assert!(revoked.ok() && revoked.out.contains("gossip key"), "{revoked:?}");
    assert!(scene.shown("/hosts/m1").unwrap().is_null());
    assert_eq!(scene.shown("/revoked/m1/why").unwrap(), "stolen");
    wait::until("the warning about the gossip key", LIMIT, || {
        let incidents = scene.shown("/incidents").map_err(|error| format!("{error:#}"))?;
        let told = incidents.as_array().is_some_and(|all| all.iter().any(|one| one["key"] == "gossip_key"));
        if told { Ok(()) } else { Err(incidents.to_string()) }
    })
    .unwrap();
    assert!(scene.journal().unwrap().iter().any(|line| line.starts_with("ann") && line.contains("has revoked m1")));

    // It has its key and the cluster's, and nobody speaks with it or listens to it.
    scene.lab.power_on("m1").unwrap();
    for refused in
        ["holdfast_rpc_refused_total{reason=\"revoked\"}", "holdfast_datagrams_dropped_total{reason=\"revoked\"}"]
    {
        wait::until(refused, LIMIT, || counted(&scene, refused)).unwrap();
    }
    wait::until("the reason in its own log", LIMIT, || {
        let log = scene.lab.log_tail("m1", "supervisor", 200);
        if log.contains("of m1 is revoked") { Ok(()) } else { Err(log) }
    })
    .unwrap();
    let stays_out = |scene: &Scene| {
        let shown = scene.shown("/hosts/m1")?;
        anyhow::ensure!(shown.is_null(), "it has joined: {shown}");
        Ok(())
    };
    scene.never(WATCHED, stays_out).unwrap();

    // A new certificate alone is not enough.
    let (authority, made) = (scene.lab.place().dir.join("etc/authority"), scene.lab.shared().join("m1-again"));
    let order = ["host", "certificate", "m1", "--ca", authority.to_str().unwrap(), "--out", made.to_str().unwrap()];
    let certificate = scene.lab.holdfast_json(&scene.leader().unwrap(), &order).unwrap();
    for file in ["m1.pem", "m1.key"] {
        fs::copy(made.join(file), scene.lab.host_file("m1").with_file_name(file)).unwrap();
    }
    scene.lab.kill_supervisor("m1").unwrap();
    scene.lab.start_supervisor("m1").unwrap();
    scene.never(WATCHED, stays_out).unwrap();
    let serial = certificate["serial"].as_str().unwrap();
    let readmitted = answered(&scene, &["host", "readmit", "m1", "--serial", serial, "--operator", "ann"]);
    assert!(readmitted.ok(), "{readmitted:?}");
    scene.lab.wait_hosts_healthy(LIMIT).unwrap();
    assert_eq!(scene.shown("/revoked/m1/readmitted").unwrap(), serial);
    assert_eq!(scene.who().unwrap(), who, "no guest has noticed");
    scene.migrate("m1").unwrap();
    scene.calm().unwrap();
    assert_eq!(scene.presses(), 0);
}

/// What the coordinator answers to a command, once there is one.
fn answered(scene: &Scene, arguments: &[&str]) -> Answer {
    wait::until("a coordinator that answers", LIMIT, || {
        let from = scene.leader().map_err(|error| format!("{error:#}"))?;
        let answer = scene.lab.holdfast(&from, arguments).map_err(|error| format!("{error:#}"))?;
        if answer.code == Some(3) { Err(answer.err) } else { Ok(answer) }
    })
    .unwrap()
}

/// Whether any voter has counted something of this kind.
fn counted(scene: &Scene, series: &str) -> Result<(), String> {
    for voter in ["h1", "h2", "h3"] {
        let address = scene.lab.address(voter).map_err(|error| format!("{error:#}"))?;
        let page = scene.lab.client_get(&format!("{address}:{API_PORT}"), "/metrics").unwrap_or_default();
        let count = page.lines().find_map(|line| line.strip_prefix(series)).map(str::trim);
        if count.is_some_and(|count| count != "0") {
            return Ok(());
        }
    }
    Err(format!("no voter has counted {series}"))
}

/// The first guest on a voter, and who leads.
fn arranged_on_a_voter(scene: &mut Scene, on_leader: bool) -> (String, String) {
    if !on_leader && scene.calm().unwrap() == "m1" {
        let follower = scene.others(&[&scene.leader().unwrap(), "m1"]).remove(0);
        scene.migrate(&follower).unwrap();
    }
    let (host, leader) = scene.arranged(on_leader).unwrap();
    assert_ne!(host, "m1");
    (host, leader)
}

/// Moves a guest unless it is there, and waits until it is.
fn to(scene: &Scene, guest: &str, target: &str) {
    let host = scene.lab.wait_guest_healthy(guest, LIMIT).unwrap();
    if host != target {
        let from = scene.lab.status_soon().unwrap().from;
        scene.lab.holdfast_soon(&from, &["guest", "migrate", guest, "--to", target]).unwrap();
    }
    scene
        .lab
        .wait_status(&format!("{guest} on {target}"), LIMIT, |status| {
            (status.guest_host(guest) == Some(target) && status.guest_healthy(guest)).then_some(())
        })
        .unwrap();
}
