//! A voter whose disk is full.

use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, StorageBackend, backends::FileBackend};

use super::*;

/// A file on a disk that can be declared full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> Result<(), std::io::Error> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(std::io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> Result<(), std::io::Error> {
        self.file.close()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_whose_disk_is_full_stops_voting_with_a_clear_error() {
    let site = Site::new(3);
    let full = Arc::new(AtomicBool::new(false));
    let path = site.directory.path().join("full.redb");
    let file = fs::File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    let disk = Disk { file: FileBackend::new(file).unwrap(), full: Arc::clone(&full) };
    let database = Database::builder().create_with_backend(disk).unwrap();
    let store = Store::adopt(database, path, "lab", 3, true).unwrap();
    let lines = Arc::new(RwLock::new(Lines::default()));
    let third = Consensus::start_on(store, site.config(3, true), lines.clone(), site.client(3)).await.unwrap();
    let mut nodes = BTreeMap::from([(3, site.serve(3, third, lines).await)]);
    for node_id in [1, 2] {
        nodes.insert(node_id, site.start(node_id, true).await.unwrap());
    }
    nodes[&1].consensus.initialize(site.places.clone()).await.unwrap();
    propose(&nodes, "one").await;
    until("everybody applied", || nodes.values().all(|node| node.lines() == ["one"])).await;

    full.store(true, Ordering::Relaxed);
    // Either an append or, when the third leads, its own proposal meets the full disk; the others go on.
    let began = Instant::now();
    while nodes[&3].consensus.health().is_ok() {
        assert!(began.elapsed() < PATIENCE);
        for node in nodes.values().filter(|node| node.leads()) {
            let _ = node.consensus.propose(b"two".to_vec()).await;
        }
    }
    let health = nodes[&3].consensus.health().unwrap_err();
    assert!(health.contains("cannot write the raft store") && health.contains("full.redb"), "{health}");
    let others: BTreeMap<_, _> = nodes.iter().filter(|(id, _)| **id != 3).collect();
    let vote = openraft::raft::VoteRequest::new(types::Vote::new(99, 1), None);
    let envelope = network::Envelope {
        cluster: "lab".to_owned(),
        from: 1,
        to: 3,
        generation: 0,
        promised: Promised::default(),
        message: network::Message::Vote(vote),
    };
    let asked = nodes[&3].consensus.handle_rpc(&host(1), &serde_json::to_vec(&envelope).unwrap()).await;
    assert!(asked.is_err(), "it does not vote");
    until("another leads", || others.values().any(|node| node.leads())).await;
    drop(others);
    assert_ne!(propose(&nodes, "three").await.0, 3);
    nodes[&3].consensus.shutdown().await;
    nodes.remove(&3);

    // With room again and a restart, it is a voter like before: nothing that it had confirmed is missing.
    let path = site.directory.path().join("full.redb");
    let began = Instant::now();
    let database = loop {
        match Database::create(&path) {
            Ok(database) => break database,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        pause().await;
    };
    let store = Store::adopt(database, path, "lab", 3, false).unwrap();
    let lines = Arc::new(RwLock::new(Lines::default()));
    let third = Consensus::start_on(store, site.config(3, false), lines.clone(), site.client(3)).await.unwrap();
    nodes.insert(3, site.serve(3, third, lines).await);
    until("it caught up", || nodes[&3].lines() == nodes[&1].lines() && nodes[&3].lines().contains(&"three".into()))
        .await;
    nodes[&3].consensus.health().unwrap();
}
