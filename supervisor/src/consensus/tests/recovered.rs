//! One voter is left, and goes on as a new generation of the cluster (R25).

use super::*;

const NEW_ID: u64 = 1_000_000_000;

/// What the store of a voter has, as soon as its owner has let go of it.
async fn read(site: &Site, node_id: u64) -> (Remains, Lines) {
    let began = Instant::now();
    loop {
        let mut lines = Lines::default();
        match Remains::read(&site.config(node_id, false).store_dir, "lab", &mut lines) {
            Ok(remains) => return (remains, lines),
            Err(StartError::Store { .. }) if began.elapsed() < PATIENCE => pause().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Makes the store of a new generation from that of a voter which does not run.
async fn recover(site: &Site, node_id: u64) {
    let (remains, mut lines) = read(site, node_id).await;
    assert_eq!((remains.node_id, &remains.voters), (node_id, &site.places));
    assert_eq!(remains.sets, [site.places.keys().copied().collect::<BTreeSet<u64>>()]);
    lines.0.push("generation".to_owned());
    let anew = Anew {
        cluster: "lab".to_owned(),
        node_id: NEW_ID,
        place: site.places[&node_id].clone(),
        term: remains.term + 1,
        index: NEW_ID,
        state: lines.snapshot().unwrap(),
    };
    anew.write(&site.config(NEW_ID, false).store_dir).unwrap();
}

/// Starts the only voter of the new generation on the host of an old one.
async fn start_anew(site: &Site, node_id: u64) -> BTreeMap<u64, Node> {
    let lines = Arc::new(RwLock::new(Lines::default()));
    let consensus = Consensus::start(site.config(NEW_ID, false), lines.clone(), site.client(node_id)).await.unwrap();
    BTreeMap::from([(NEW_ID, site.serve(node_id, consensus, lines).await)])
}

async fn stop(nodes: BTreeMap<u64, Node>) {
    for node in nodes.values() {
        node.consensus.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_goes_on_alone_with_all_that_its_store_has() {
    let mut site = Site::new(3);
    site.tuning.snapshot_every = 10;
    site.tuning.keep_entries = 2;
    let nodes = site.cluster().await;
    for _ in 0..15 {
        propose(&nodes, "line").await;
    }
    until("everybody applied", || nodes.values().all(|node| node.lines().len() == 15)).await;
    until("a snapshot was taken", || nodes[&3].consensus.status().snapshot.is_some()).await;
    stop(nodes).await;
    recover(&site, 3).await;
    let survivor = start_anew(&site, 3).await;
    let (_, applied) = propose(&survivor, "more").await;
    assert_eq!(
        (applied.reply, applied.index > NEW_ID),
        (b"17".to_vec(), true),
        "snapshot, log, and what the recovery added"
    );
    let voters = survivor[&NEW_ID].consensus.status().voters;
    assert_eq!(voters.keys().copied().collect::<Vec<u64>>(), [NEW_ID]);
    let (_, authority) = on_leader(&survivor, |leader| async move { leader.read_index().await }).await;
    assert!(authority.index > NEW_ID);
    // It comes back like any other voter.
    stop(survivor).await;
    let (remains, lines) = read(&site, NEW_ID).await;
    assert!(remains.index > NEW_ID && lines.0.len() == 17, "{remains:?}");
    let survivor = start_anew(&site, 3).await;
    assert_eq!(propose(&survivor, "again").await.1.reply, b"18");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_voters_that_come_back_take_part_in_nothing_however_many_they_are() {
    let site = Site::new(3);
    let nodes = site.cluster().await;
    propose(&nodes, "one").await;
    until("everybody applied", || nodes.values().all(|node| node.lines() == ["one"])).await;
    stop(nodes).await;
    recover(&site, 3).await;
    let survivor = start_anew(&site, 3).await;
    propose(&survivor, "two").await;

    let heard = ask(&site.client(1), "lab", 3, &site.places[&3], PATIENCE).await;
    assert!(
        matches!(heard, Heard::Votes(standing) if standing.generation == 2 && standing.index > NEW_ID && standing.term > 0),
        "{heard:?}"
    );
    let nobody = ask(&site.client(3), "lab", 1, &site.places[&1], PATIENCE).await;
    assert!(matches!(nobody, Heard::Nothing(_)), "{nobody:?}");

    // Together they were a majority.
    let old = BTreeMap::from([(1, site.restart(1).await), (2, site.restart(2).await)]);
    let ended = |node: &Node| node.consensus.cause() == Some(Cause::Superseded);
    until("both know that their generation has ended", || old.values().all(ended)).await;
    let why = old[&1].consensus.health().unwrap_err();
    assert!(why.contains("goes on as generation 2") && why.contains("hv-3"), "{why}");
    for node in old.values() {
        assert!(matches!(node.consensus.propose(b"x".to_vec()).await, Err(ProposeError::Halted(_))));
        assert!(matches!(node.consensus.read_index().await, Err(ProposeError::Halted(_))));
    }
    assert_eq!(propose(&survivor, "three").await.1.reply, b"4", "the survivor goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_takes_connections_is_not_lost_whatever_keeps_it_from_being_asked() {
    let (site, strangers) = (Site::new(1), Site::new(1));
    let _nodes = site.cluster().await;
    // As when the certificate of whoever asks has run out.
    let misunderstood = ask(&strangers.client(1), "lab", 1, &site.places[&1], PATIENCE).await;
    assert!(matches!(misunderstood, Heard::Unclear(_)), "{misunderstood:?}");
    // As a process does that stands still.
    let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place { host: host(1), address: frozen.local_addr().unwrap() };
    let silent = ask(&site.client(1), "lab", 1, &place, Duration::from_millis(200)).await;
    assert!(matches!(silent, Heard::Unclear(_)), "{silent:?}");
}
