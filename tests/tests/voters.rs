//! Voters come back under a new id, and come and go, while the others decide (R23, R24).

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use std::fs;

use holdfast_tests::lab::{HostSpec, Scene, left_out, scene::LIMIT, wait};
use serde_json::Value;

#[test]
fn a_voter_that_lost_its_store_comes_back_under_a_new_id_by_the_operators_word() {
    if left_out("a_voter_that_lost_its_store_comes_back_under_a_new_id_by_the_operators_word") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    let (host, leader) = scene.arranged(false).unwrap();
    let (qemu, who) = (scene.qemu().unwrap(), scene.who().unwrap());
    // The guest's host is the one whose store is lost: it must not suffer.
    let old = node(&voters(&scene, &leader), &host).unwrap();
    scene.lab.kill_supervisor(&host).unwrap();
    fs::remove_dir_all(scene.lab.host_dir(&host).join("state/raft")).unwrap();
    scene.lab.start_supervisor(&host).unwrap();
    scene.calm().unwrap();
    // It goes on as an agent, says why it does not vote, and is refused under its old id.
    wait::until("a host that says why it does not vote", LIMIT, || {
        let unwell = scene.shown(&format!("/hosts/{host}/unwell")).map_err(|error| format!("{error:#}"))?;
        let told = unwell.as_str().is_some_and(|why| why.contains("its raft store was lost"));
        if told { Ok(()) } else { Err(unwell.to_string()) }
    })
    .unwrap();
    wait::until("a voter that does not answer", LIMIT, || {
        let list = voters(&scene, &leader);
        let silent =
            list["voters"].as_array().unwrap().iter().any(|voter| voter["host"] == *host && voter["answers"] == false);
        if silent { Ok(()) } else { Err(list.to_string()) }
    })
    .unwrap();

    // What is not allowed is refused, and changes nothing.
    let other = scene.others(&[&host, &leader]).remove(0);
    for (arguments, why) in [
        (["add", &other], "answers"),
        (["add", "nowhere"], "has never joined"),
        (["promote", &host], "comes first"),
        (["remove", &host], "only 2 voters would be left"),
        (["remove", &leader], "coordinates"),
        (["remove", "nowhere"], "neither a voter nor a learner"),
    ] {
        let before = voters(&scene, &leader)["voters"].as_array().unwrap().len();
        let [what, target] = arguments;
        let answer = scene.lab.holdfast(&leader, &["voter", what, target]).unwrap();
        assert!(answer.code == Some(1) && answer.err.contains(why), "voter {what} {target}: {answer:?}");
        assert_eq!(voters(&scene, &leader)["voters"].as_array().unwrap().len(), before);
    }

    bring_in(&scene, &host);
    let list = voters(&scene, &leader);
    let new = node(&list, &host).unwrap();
    assert!(new > old && list["voters"].as_array().unwrap().iter().all(|voter| voter["node_id"] != old), "{list}");
    scene.calm().unwrap();
    assert_eq!((scene.qemu().unwrap(), scene.who().unwrap()), (qemu, who), "no guest has noticed");
    assert_eq!(scene.presses(), 0);

    // It counts: with another voter gone, it is half of the majority.
    scene.lab.kill_supervisor(&leader).unwrap();
    let version = wait::until("another coordinator", LIMIT, || {
        scene.shown("/policy_version").map_err(|error| format!("{error:#}"))
    })
    .unwrap();
    scene.apply("# decided by two\n").unwrap();
    assert_ne!(scene.shown("/policy_version").unwrap(), version);
    scene.lab.start_supervisor(&leader).unwrap();
    scene.calm().unwrap();
    // Without a restart it would not be known whether the new id is kept.
    scene.lab.kill_supervisor(&host).unwrap();
    scene.lab.start_supervisor(&host).unwrap();
    scene.calm().unwrap();
    let leader = scene.leader().unwrap();
    wait_for_all(&scene, &leader, 3);
    assert_eq!(node(&voters(&scene, &leader), &host), Some(new));
    assert_eq!(scene.presses(), 0);
}

#[test]
fn a_member_becomes_a_voter_and_a_voter_a_member() {
    if left_out("a_member_becomes_a_voter_and_a_voter_a_member") {
        return;
    }
    let mut hosts = ["h1", "h2", "h3"].map(HostSpec::voter).to_vec();
    hosts.push(HostSpec::member("m1"));
    let mut scene = Scene::with(hosts, "").unwrap();
    scene.calm().unwrap();
    bring_in(&scene, "m1");
    let leader = scene.leader().unwrap();
    wait_for_all(&scene, &leader, 4);
    let gone = ["h1", "h2", "h3"].into_iter().find(|host| *host != leader).unwrap();
    scene.lab.holdfast_soon(&leader, &["voter", "remove", gone]).unwrap();
    // It is no voter any more, still asks the others, and does not complain.
    scene.calm().unwrap();
    wait::until("a well member", LIMIT, || {
        let host = scene.shown(&format!("/hosts/{gone}")).map_err(|error| format!("{error:#}"))?;
        let aside = scene.lab.host_dir(gone).join("state/raft.old").exists();
        if host["voter"] == false && host["unwell"] == Value::Null && aside { Ok(()) } else { Err(host.to_string()) }
    })
    .unwrap();
    scene.calm().unwrap();
    wait_for_all(&scene, &scene.leader().unwrap(), 3);
    assert_eq!(scene.presses(), 0);
}

/// `voter add`, and `voter promote` as soon as it is allowed.
fn bring_in(scene: &Scene, host: &str) {
    let ask = |what: &str| {
        let from = scene.leader().map_err(|error| format!("{error:#}"))?;
        let answer = scene.lab.holdfast(&from, &["voter", what, host]).map_err(|error| format!("{error:#}"))?;
        if answer.ok() { Ok(answer.out) } else { Err(answer.err) }
    };
    wait::until("an addition", LIMIT, || ask("add")).unwrap();
    let said = wait::until("a promotion", LIMIT, || ask("promote")).unwrap();
    assert!(said.contains("the voters are") && said.contains(host), "{said}");
}

fn voters(scene: &Scene, from: &str) -> Value {
    scene.lab.holdfast_json(from, &["voter", "list"]).unwrap()
}

/// The id under which a host votes.
fn node(list: &Value, host: &str) -> Option<u64> {
    let all = list["voters"].as_array().unwrap();
    all.iter().find(|voter| voter["host"] == host && voter["votes"] == true)?["node_id"].as_u64()
}

/// Waits until there are so many voters, and all of them answer.
fn wait_for_all(scene: &Scene, from: &str, voters: usize) {
    wait::until("voters that answer", LIMIT, || {
        let list = scene.lab.holdfast_json(from, &["voter", "list"]).map_err(|error| format!("{error:#}"))?;
        let well = |voter: &Value| voter["votes"] == true && voter["answers"] == true;
        let all = list.get("voters").and_then(Value::as_array).cloned().unwrap_or_default();
        if all.len() == voters && all.iter().all(well) { Ok(()) } else { Err(list.to_string()) }
    })
    .unwrap();
}
