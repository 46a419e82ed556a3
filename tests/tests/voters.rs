//! Voters come back under a new id, and come and go, while the others decide (R23, R24).

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use std::{fs, time::Duration};

use holdfast_tests::lab::{HostSpec, Scene, Status, left_out, scene::LIMIT, wait};
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
        (["remove", "nowhere"], "neither a voter nor a learner"),
    ] {
        let before = voters(&scene, &leader)["voters"].as_array().unwrap().len();
        let [what, target] = arguments;
        let answer = scene.lab.holdfast_answered(&leader, &["voter", what, target]).unwrap();
        assert!(answer.code == Some(1) && answer.err.contains(why), "voter {what} {target}: {answer:?}");
        assert_eq!(voters(&scene, &leader)["voters"].as_array().unwrap().len(), before);
    }
    wait::until("a refusal for who leads", LIMIT, || {
        // Asked for anew: the lead may have changed on a busy machine, and may do so in this moment.
        let leads = scene.leader().map_err(|error| format!("{error:#}"))?;
        let answer = scene.lab.holdfast_answered(&leads, &["voter", "remove", &leads]);
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        assert_eq!(answer.code, Some(1), "{leads}: {answer:?}");
        if answer.err.contains("coordinates") { Ok(()) } else { Err(answer.err) }
    })
    .unwrap();
    assert_eq!(voters(&scene, &leader)["voters"].as_array().unwrap().len(), 3);

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
    let hosts = HostSpec::three_and_member();
    let mut scene = Scene::with(hosts, "").unwrap();
    scene.calm().unwrap();
    bring_in(&scene, "m1");
    wait_for_all(&scene, &scene.leader().unwrap(), 4);
    // Only then, because the lead may change meanwhile, and whoever leads is not removed.
    let leader = scene.leader().unwrap();
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

#[test]
fn a_cluster_whose_majority_is_lost_for_good_goes_on_from_one_survivor_and_starts_nothing_twice() {
    if left_out("a_cluster_whose_majority_is_lost_for_good_goes_on_from_one_survivor_and_starts_nothing_twice") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    let source = scene.calm().unwrap();
    let mut others = scene.others(&[&source]);
    let (target, survivor) = (others.remove(0), others.remove(0));
    let lost = [source.as_str(), target.as_str()];
    // The survivor was not there when the guest moved.
    scene.lab.kill_supervisor(&survivor).unwrap();
    let leads = |status: &Status| status.leader().filter(|leader| *leader != survivor).map(|_| ());
    scene.lab.wait_status("a coordinator among the others", LIMIT, leads).unwrap();
    scene.migrate(&target).unwrap();
    // Once it answers: an emulated guest that hangs after a move is reset, and its QEMU is another one then.
    let who = scene.who().unwrap();
    let qemu = scene.qemu_alone().unwrap();
    for host in lost {
        scene.lab.kill_supervisor(host).unwrap();
        move_papers(&scene, host, ".", "lost");
    }

    let shown = scene.lab.holdfast_json(&survivor, &["recover"]).unwrap();
    let words = shown["words"].as_str().unwrap();
    assert!(lost.iter().all(|host| words.contains(host)), "{shown}");
    let order = ["recover", "--force", "--operator", "ann", "--i-understand"];
    let refused = scene.lab.holdfast(&survivor, &[&order[..], &["yes"]].concat()).unwrap();
    assert!(refused.code == Some(1) && refused.err.contains("nothing was changed"), "{refused:?}");
    let done = scene.lab.holdfast_json(&survivor, &[&order[..], &[words]].concat()).unwrap();
    assert!(done["generation"].as_u64() > Some(1), "{done}");
    for host in scene.others(&[]) {
        scene.lab.start_supervisor(&host).unwrap();
    }
    let leads = |status: &Status| status.leader().filter(|leader| *leader == survivor).map(|_| ());
    scene.lab.wait_status("the survivor to coordinate", LIMIT, leads).unwrap();
    scene.lab.wait_hosts_healthy(LIMIT).unwrap();
    // Nothing is begun before somebody has looked.
    let stays = |scene: &Scene| -> anyhow::Result<()> {
        anyhow::ensure!(scene.qemu()? == qemu, "the guest is not where it was");
        anyhow::ensure!(scene.presses() == 0, "a button was pressed");
        Ok(())
    };
    scene.never(Duration::from_secs(4), stays).unwrap();
    scene.lab.holdfast_soon(&survivor, &["resume", "--operator", "ann"]).unwrap();
    assert_eq!(scene.calm().unwrap(), target, "it is adopted where it runs");
    scene.never(Duration::from_secs(4), stays).unwrap();

    // The lost stores come back: a majority of the old voters, and nobody listens to them.
    for host in lost {
        scene.lab.kill_supervisor(host).unwrap();
        move_papers(&scene, host, "lost", ".");
    }
    for host in lost {
        scene.lab.start_supervisor(host).unwrap();
    }
    for host in lost {
        // It may be told that it was removed before it tells that itself; either way its store is aside.
        wait::until("an old voter whose store is out of the way", LIMIT, || {
            let state = scene.lab.host_dir(host).join("state");
            let aside = !state.join("raft").exists() && state.join("raft.old").exists();
            if aside { Ok(()) } else { Err(format!("{} is still there", state.join("raft").display())) }
        })
        .unwrap();
    }
    assert_eq!(scene.leader().unwrap(), survivor);
    for host in lost {
        bring_in(&scene, host);
    }
    wait_for_all(&scene, &survivor, 3);
    assert_eq!(scene.calm().unwrap(), target);
    assert_eq!((scene.qemu().unwrap(), scene.who().unwrap()), (qemu.clone(), who), "no guest has noticed");
    assert_eq!(scene.presses(), 0);
}

/// Moves what makes a host a voter, its store and the id of that, between its state and a folder in it. Its supervisor is down.
fn move_papers(scene: &Scene, host: &str, from: &str, to: &str) {
    let state = scene.lab.host_dir(host).join("state");
    fs::create_dir_all(state.join(to)).unwrap();
    for name in ["raft", "node.json"] {
        fs::rename(state.join(from).join(name), state.join(to).join(name)).unwrap();
    }
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
