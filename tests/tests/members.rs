//! Hosts that do not vote, and a voter that runs no guests.

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use holdfast_tests::lab::{
    HostSpec, Scene,
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
    let from = scene.lab.status().unwrap().from;
    assert_eq!(scene.lab.holdfast(&from, &["guest", "migrate", GUEST, "--to", "w1"]).unwrap().code, Some(1));
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
    let mut hosts = ["h1", "h2", "h3"].map(HostSpec::voter).to_vec();
    hosts.push(HostSpec::member("m1"));
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
        let from = scene.lab.status().unwrap().from;
        scene.lab.holdfast_soon(&from, &["guest", "migrate", guest, "--to", target]).unwrap();
    }
    scene
        .lab
        .wait_status(&format!("{guest} on {target}"), LIMIT, |status| {
            (status.guest_host(guest) == Some(target) && status.guest_healthy(guest)).then_some(())
        })
        .unwrap();
}
