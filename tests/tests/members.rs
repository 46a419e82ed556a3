//! Hosts that do not vote, and a voter that runs no guests.

use holdfast_tests::lab::{
    HostSpec, Scene, left_out,
    scene::{GUEST, LIMIT},
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
