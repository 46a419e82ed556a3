//! Voters that elect, commit, restart, join, and refuse what is not theirs.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn voters_elect_commit_and_survive_the_loss_of_their_leader() {
    let site = Site::new(3);
    let mut nodes = site.cluster().await;
    let (leader, applied) = propose(&nodes, "one").await;
    assert_eq!(applied.reply, b"1");
    until("everybody applied", || nodes.values().all(|node| node.lines() == ["one"])).await;
    let (_, before) = on_leader(&nodes, |leader| async move { leader.read_index().await }).await;
    assert!(before.index >= applied.index && before.vote.1 == leader);

    let follower = nodes.iter().find(|(id, _)| **id != leader).map(|(_, node)| node.consensus.clone()).unwrap();
    assert_eq!(follower.propose(b"x".to_vec()).await, Err(ProposeError::NotLeader(Some(host(leader)))));
    assert_eq!(follower.read_index().await, Err(ProposeError::NotLeader(Some(host(leader)))));
    let large = vec![b'x'; ENTRY_BYTES_MAX + 1];
    assert!(matches!(nodes[&leader].consensus.propose(large).await, Err(ProposeError::TooLarge { .. })));
    assert_eq!(nodes[&1].consensus.initialize(site.places.clone()).await, Err(MembershipError::AlreadyInitialised));

    let gone = nodes.remove(&leader).unwrap();
    gone.consensus.shutdown().await;
    assert!(!gone.leads() || gone.consensus.read_index().await.is_err());
    drop(gone);
    let (second, applied) = propose(&nodes, "two").await;
    assert_eq!((second != leader, applied.reply), (true, b"2".to_vec()));
    let (_, after) = on_leader(&nodes, |leader| async move { leader.read_index().await }).await;
    assert!(after > before, "authority only grows");

    nodes.insert(leader, site.restart(leader).await);
    until("the old leader caught up", || nodes[&leader].lines() == ["one", "two"]).await;
    let third = nodes.keys().find(|id| **id != second).copied().unwrap();
    hand_over(&nodes[&second], third).await;
    until("the lead was handed over", || nodes[&third].leads()).await;
    assert_eq!(propose(&nodes, "three").await.1.reply, b"3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_has_its_state_from_disk() {
    let mut site = Site::new(1);
    site.tuning.snapshot_every = 10;
    site.tuning.keep_entries = 2;
    let nodes = site.cluster().await;
    let store_id = nodes[&1].consensus.store_id();
    for _ in 0..24 {
        propose(&nodes, "line").await;
    }
    // The largest entry there may be, in the form that grows most on the way.
    let large = vec![0; ENTRY_BYTES_MAX];
    nodes[&1].consensus.propose(large).await.unwrap();
    until("a snapshot was taken", || nodes[&1].consensus.status().snapshot > Some(15)).await;
    nodes[&1].consensus.shutdown().await;
    let before = nodes[&1].lines();
    drop(nodes);

    let node = site.restart(1).await;
    assert_eq!(node.lines(), before, "restored before anybody could ask, from snapshot and log");
    assert_eq!(node.consensus.store_id(), store_id);
    assert!(*node.consensus.applied().borrow() > 24);
    let nodes = BTreeMap::from([(1, node)]);
    assert_eq!(propose(&nodes, "more").await.1.reply, b"26");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_gets_snapshot_and_log_and_then_a_vote() {
    let mut site = Site::new(2);
    site.tuning.snapshot_every = 10;
    site.tuning.keep_entries = 1;
    let founder = site.start(1, true).await.unwrap();
    founder.consensus.initialize(BTreeMap::from([(1, site.places[&1].clone())])).await.unwrap();
    let mut nodes = BTreeMap::from([(1, founder)]);
    for _ in 0..4 {
        // Together larger than one part of a snapshot, and larger than one batch of entries.
        on_leader(&nodes, |leader| async move { leader.propose(vec![b'x'; 300_000]).await }).await;
    }
    for _ in 0..20 {
        propose(&nodes, "line").await;
    }
    until("a snapshot was taken", || nodes[&1].consensus.status().snapshot > Some(10)).await;
    nodes.insert(2, site.start(2, true).await.unwrap());
    let alone = nodes[&1].consensus.roster().unwrap();
    nodes[&1].consensus.add_learner(2, site.places[&2].clone(), &alone).await.unwrap();
    // By somebody who has looked in the same moment, and means to add another host under that id.
    let other = Place { host: host(3), ..site.places[&2].clone() };
    assert_eq!(nodes[&1].consensus.add_learner(2, other, &alone).await, Err(MembershipError::Overtaken));
    until("the learner caught up", || nodes[&2].lines() == nodes[&1].lines()).await;
    assert_eq!(nodes[&2].consensus.roster(), None, "only the leader knows who answers");
    let learner = || nodes[&1].consensus.roster().unwrap().nodes[&2].clone();
    until("the leader knows", || learner().answers && learner().behind == Some(0)).await;
    let roster = nodes[&1].consensus.roster().unwrap();
    assert!(!learner().votes && roster.nodes[&1].leads && roster.unfinished.is_none());
    assert!(roster.next_id >= 100, "no founder's id");
    nodes[&1].consensus.set_voters(BTreeSet::from([1, 2]), &roster).await.unwrap();
    until("both know the voters", || nodes.values().all(|node| node.consensus.status().voters == site.places)).await;
    propose(&nodes, "together").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_id_takes_the_place_of_a_dead_one_in_one_change() {
    let mut site = Site::steady(3);
    let mut nodes = site.cluster().await;
    propose(&nodes, "one").await;
    let leader = propose(&nodes, "two").await.0;
    let dead = nodes.keys().copied().find(|node_id| *node_id != leader).unwrap();
    nodes.remove(&dead).unwrap().consensus.shutdown().await;
    let before = nodes[&leader].consensus.roster().unwrap();
    let new_id = before.next_id;
    site.places.insert(new_id, Place { host: host(new_id), address: site.places[&dead].address });
    nodes.insert(new_id, site.start(new_id, true).await.unwrap());
    nodes[&leader].consensus.add_learner(new_id, site.places[&new_id].clone(), &before).await.unwrap();
    assert!(nodes[&leader].consensus.roster().unwrap().next_id > new_id, "ids are never used again");
    let entry = |node_id| nodes[&leader].consensus.roster().unwrap().nodes.get(&node_id).cloned();
    until("it answers", || entry(new_id).is_some_and(|entry| entry.answers && entry.behind == Some(0))).await;
    let voters: BTreeSet<u64> = nodes.keys().copied().collect();
    let before = nodes[&leader].consensus.roster().unwrap();
    nodes[&leader].consensus.set_voters(voters.clone(), &before).await.unwrap();
    let roster = nodes[&leader].consensus.roster().unwrap();
    assert_eq!(roster.nodes.keys().copied().collect::<BTreeSet<u64>>(), voters, "the dead one is in it no more");
    assert!(roster.unfinished.is_none());
    // By somebody who has looked before: the one that has joined would leave again.
    let older = nodes[&leader].consensus.set_voters(BTreeSet::from([leader]), &before).await;
    assert_eq!(older, Err(MembershipError::Overtaken));
    assert!(nodes[&leader].consensus.roster().unwrap().nodes.keys().eq(roster.nodes.keys()));

    // The other old voter is not needed any more.
    let other = nodes.keys().copied().find(|node_id| ![leader, new_id].contains(node_id)).unwrap();
    nodes.remove(&other).unwrap().consensus.shutdown().await;
    propose(&nodes, "three").await;
    until("both have it", || nodes.values().all(|node| node.lines() == ["one", "two", "three"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_was_away_follows_one_that_joined_meanwhile_and_leads() {
    let mut site = Site::new(4);
    let joins = site.places.remove(&4).unwrap();
    let mut nodes = site.cluster().await;
    let leader = propose(&nodes, "one").await.0;
    let away = nodes.keys().copied().find(|node_id| *node_id != leader).unwrap();
    until("everybody applied", || nodes.values().all(|node| node.lines() == ["one"])).await;
    nodes.remove(&away).unwrap().consensus.shutdown().await;

    let before = nodes[&leader].consensus.roster().unwrap();
    let new_id = before.next_id;
    site.places.insert(new_id, Place { host: host(new_id), address: joins.address });
    nodes.insert(new_id, site.start(new_id, true).await.unwrap());
    nodes[&leader].consensus.add_learner(new_id, site.places[&new_id].clone(), &before).await.unwrap();
    let has_all = || {
        let entry = nodes[&leader].consensus.roster().and_then(|roster| roster.nodes.get(&new_id).cloned());
        entry.is_some_and(|entry| entry.answers && entry.behind == Some(0))
    };
    until("it has the log", has_all).await;
    let roster = nodes[&leader].consensus.roster().unwrap();
    nodes[&leader].consensus.set_voters(site.places.keys().copied().collect(), &roster).await.unwrap();
    until("it has the membership", has_all).await;
    hand_over(&nodes[&leader], new_id).await;
    until("it leads", || nodes[&new_id].leads()).await;
    assert_eq!(propose(&nodes, "two").await.0, new_id);

    nodes.insert(away, site.restart(away).await);
    until("it caught up", || nodes[&away].lines() == ["one", "two"]).await;
    until("it knows all voters", || nodes[&away].consensus.status().voters == site.places).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_cluster_is_refused() {
    let site = Site::new(1);
    drop(site.start(1, true).await.unwrap());
    let start = async |change: fn(&mut ConsensusConfig)| {
        let mut config = site.config(1, false);
        change(&mut config);
        let began = Instant::now();
        loop {
            let machine = Arc::new(RwLock::new(Lines::default()));
            match Consensus::start(config.clone(), machine, site.client(1)).await.map(drop) {
                Err(StartError::Store { .. }) if began.elapsed() < PATIENCE => pause().await,
                result => return result.unwrap_err(),
            }
        }
    };
    let other = start(|config| config.cluster = "prod".to_owned()).await;
    assert!(matches!(&other, StartError::OtherCluster { found, .. } if found == "lab"), "{other}");
    let other = start(|config| config.node_id = 2).await;
    assert!(matches!(other, StartError::OtherNode { found: 1, wanted: 2, .. }), "{other}");
    let lost = start(|config| config.store_dir = config.store_dir.join("lost")).await;
    assert!(matches!(lost, StartError::NoStore { .. }), "{lost}");
}

#[test]
fn what_an_older_version_says_to_voters_is_read() {
    let message = network::Message::Vote(openraft::raft::VoteRequest::new(types::Vote::new(2, 1), None));
    let (cluster, promised) = ("lab".to_owned(), Promised::default());
    let envelope = network::Envelope { cluster, from: 1, to: 2, generation: 3, promised, message };
    let mut written = serde_json::to_value(&envelope).unwrap();
    let fields = written.as_object_mut().unwrap();
    assert!(fields.remove("generation").is_some() && fields.remove("promised").is_some());
    // And what a later one may say beside that.
    fields.insert("later".to_owned(), 1.into());
    let read: network::Envelope = serde_json::from_value(written).unwrap();
    assert_eq!((read.generation, read.promised, read.from, read.to), (0, Promised::default(), 1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_another_cluster_node_or_host_is_refused() {
    let site = Site::steady(3);
    let nodes = site.cluster().await;
    let (leader, _) = propose(&nodes, "one").await;
    let term = nodes[&leader].consensus.status().term;
    let to = nodes.keys().copied().find(|id| *id != leader).unwrap();
    let envelope = |cluster: &str, from, to, speaks_for| {
        let vote = openraft::raft::VoteRequest::new(types::Vote::new(99, speaks_for), None);
        let message = network::Message::Vote(vote);
        serde_json::to_vec(&network::Envelope {
            cluster: cluster.to_owned(),
            from,
            to,
            generation: 0,
            promised: Promised::default(),
            message,
        })
        .unwrap()
    };
    for (peer, body, reason) in [
        (host(leader), b"garbage".to_vec(), "not a raft message"),
        (host(leader), envelope("prod", leader, to, leader), "this is the cluster"),
        (host(leader), envelope("lab", leader, 77, leader), "this is node"),
        (host(leader), envelope("lab", leader, to, to), "may not speak for"),
        (host(to), envelope("lab", leader, to, leader), "and not hv-"),
        (host(9), envelope("lab", 9, to, 9), "hv-9 is not known here as node 9"),
    ] {
        let refused = nodes[&to].consensus.handle_rpc(&peer, &body).await.unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
    assert_eq!(nodes[&to].consensus.status().term, term, "nothing changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_with_a_certificate_of_another_authority_takes_no_part() {
    let site = Site::new(1);
    let mut nodes = site.cluster().await;
    propose(&nodes, "one").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut stranger = files(&pki::make_authority().unwrap(), &host(2), elsewhere.path());
    stranger.authority = site.tls(1).authority;
    let client = Client::new(pki::client_config(&stranger).unwrap());
    let place = &site.places[&1];
    let called = client.call(&place.host, place.address, Channel::Raft, vec![], Duration::from_secs(5)).await;
    assert!(matches!(called, Err(rpc::CallError::Unreachable(_))), "{called:?}");
    assert_eq!(nodes.remove(&1).unwrap().lines(), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_entry_halts_apply_with_a_clear_error() {
    for (entry, reason) in [("unknown", "the command \"unknown\" is not known"), ("panic", "a panic left the state")] {
        let site = Site::new(1);
        let nodes = site.cluster().await;
        propose(&nodes, "one").await;
        let halted = nodes[&1].consensus.propose(entry.into()).await;
        assert!(matches!(&halted, Err(ProposeError::Halted(why)) if why.contains(reason)), "{halted:?}");
        let health = nodes[&1].consensus.health().unwrap_err();
        assert!(health.contains("cannot apply the log entry") && health.contains(reason), "{health}");
        assert!(matches!(nodes[&1].consensus.propose(b"two".to_vec()).await, Err(ProposeError::Halted(_))));
        until("it does not seem to lead", || !nodes[&1].leads()).await;
        nodes[&1].consensus.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_restored_from_an_older_copy_does_not_vote_again() {
    let site = Site::new(3);
    let mut nodes = site.cluster().await;
    let (leader, _) = propose(&nodes, "one").await;
    let other = *nodes.keys().find(|id| **id != leader).unwrap();
    until("everybody applied", || nodes.values().all(|node| node.lines() == ["one"])).await;
    let stop = async |nodes: &mut BTreeMap<u64, Node>| {
        let node = nodes.remove(&other).unwrap();
        node.consensus.shutdown().await;
    };
    let (store, copy) = (site.config(other, false).store_dir, site.directory.path().join("copy"));
    stop(&mut nodes).await;
    // A healthy store comes back, as often as it likes, whatever was acknowledged in between.
    nodes.insert(other, site.restart(other).await);
    propose(&nodes, "two").await;
    until("it caught up", || nodes[&other].lines() == ["one", "two"]).await;
    stop(&mut nodes).await;
    copy_files(&store, &copy);
    nodes.insert(other, site.restart(other).await);
    propose(&nodes, "three").await;
    until("it caught up", || nodes[&other].lines() == ["one", "two", "three"]).await;
    // The acknowledgement that this is committed comes with the next entry or heartbeat.
    propose(&nodes, "four").await;
    until("it caught up", || nodes[&other].lines().len() == 4).await;
    assert_eq!(nodes[&other].consensus.health(), Ok(()));
    stop(&mut nodes).await;

    fs::remove_dir_all(&store).unwrap();
    copy_files(&copy, &store);
    nodes.insert(other, site.restart(other).await);
    until("it knows that it has forgotten", || nodes[&other].consensus.cause() == Some(Cause::Restored)).await;
    let why = nodes[&other].consensus.health().unwrap_err();
    assert!(why.contains("has forgotten what it had acknowledged"), "{why}");
    assert_eq!(propose(&nodes, "five").await.1.reply, b"5", "the others go on");
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
