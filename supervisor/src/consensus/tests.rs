//! Tests of consensus: voters in one process, over real mutual TLS on loopback, with real stores.

use std::{
    fs,
    future::Future,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redb::{Database, StorageBackend, backends::FileBackend};

use super::{
    super::{
        pki::{self, TlsFiles},
        rpc::{self, Channel, Handler, Limits, Server},
    },
    *,
};

/// Patience for anything to happen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Remembers the lines that were applied; answers with their number.
#[derive(Default)]
struct Lines(Vec<String>);

impl Machine for Lines {
    fn apply(&mut self, _index: u64, entry: &[u8]) -> Result<Vec<u8>, Halt> {
        match std::str::from_utf8(entry) {
            Ok("unknown") => Err(Halt("the command \"unknown\" is not known to this version".to_owned())),
            Ok("panic") => panic!("on purpose"),
            Ok(line) => self.0.push(line.to_owned()),
            Err(_) => self.0.push(format!("{} bytes", entry.len())),
        }
        Ok(self.0.len().to_string().into_bytes())
    }

    fn snapshot(&self) -> Result<Vec<u8>, Halt> {
        serde_json::to_vec(&self.0).map_err(|error| Halt(error.to_string()))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Halt> {
        self.0 = serde_json::from_slice(snapshot).map_err(|error| Halt(error.to_string()))?;
        Ok(())
    }
}

/// Hands raft's messages to consensus, which exists a little later than the port.
#[derive(Default)]
struct RaftOnly(OnceLock<Consensus>);

#[async_trait::async_trait]
impl Handler for RaftOnly {
    async fn handle(&self, peer: HostName, _channel: Channel, body: Vec<u8>) -> Result<Vec<u8>, String> {
        match self.0.get() {
            Some(consensus) => consensus.handle_rpc(&peer, &body).await,
            None => Err("not started".to_owned()),
        }
    }
}

struct Node {
    consensus: Consensus,
    lines: Arc<RwLock<Lines>>,
    _server: Server,
}

impl Node {
    fn lines(&self) -> Vec<String> {
        self.lines.read().unwrap().0.clone()
    }

    fn leads(&self) -> bool {
        self.consensus.leadership().borrow().is_me
    }
}

/// What outlives the nodes: certificates, stores and addresses.
struct Site {
    directory: tempfile::TempDir,
    authority: pki::Authority,
    places: BTreeMap<u64, Place>,
    tuning: Tuning,
}

impl Site {
    fn new(nodes: u64) -> Self {
        let place = |node_id| {
            // The port is free again when the listener is dropped, and nobody else is given it so soon.
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            (node_id, Place { host: host(node_id), address: listener.local_addr().unwrap() })
        };
        Self {
            directory: tempfile::tempdir().unwrap(),
            authority: pki::make_authority().unwrap(),
            places: (1..=nodes).map(place).collect(),
            tuning: Tuning::default(),
        }
    }

    fn config(&self, node_id: u64, create: bool) -> ConsensusConfig {
        let store_dir = self.directory.path().join(format!("store-{node_id}"));
        ConsensusConfig { cluster: "lab".to_owned(), node_id, store_dir, create, tuning: self.tuning }
    }

    fn tls(&self, node_id: u64) -> TlsFiles {
        files(&self.authority, &host(node_id), self.directory.path())
    }

    fn client(&self, node_id: u64) -> Client {
        Client::new(pki::client_config(&self.tls(node_id)).unwrap())
    }

    async fn start(&self, node_id: u64, create: bool) -> Result<Node, StartError> {
        let lines = Arc::new(RwLock::new(Lines::default()));
        let consensus =
            Consensus::start(self.config(node_id, create), lines.clone(), self.client(node_id)).await?;
        Ok(self.serve(node_id, consensus, lines).await)
    }

    async fn serve(&self, node_id: u64, consensus: Consensus, lines: Arc<RwLock<Lines>>) -> Node {
        let handler = RaftOnly::default();
        assert!(handler.0.set(consensus.clone()).is_ok());
        let tls = pki::server_config(&self.tls(node_id)).unwrap();
        let address = self.places[&node_id].address;
        let server = Server::serve(address, tls, Arc::new(handler), Limits::default()).await.unwrap();
        Node { consensus, lines, _server: server }
    }

    /// Starts again on the same store, as soon as the previous owner has let go of it.
    async fn restart(&self, node_id: u64) -> Node {
        let began = Instant::now();
        loop {
            match self.start(node_id, false).await {
                Ok(node) => return node,
                Err(StartError::Store { .. }) if began.elapsed() < PATIENCE => pause().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn cluster(&self) -> BTreeMap<u64, Node> {
        let mut nodes = BTreeMap::new();
        for node_id in self.places.keys() {
            nodes.insert(*node_id, self.start(*node_id, true).await.unwrap());
        }
        nodes[&1].consensus.initialize(self.places.clone()).await.unwrap();
        nodes
    }
}

fn host(node_id: u64) -> HostName {
    HostName::new(format!("hv-{node_id}")).unwrap()
}

fn files(authority: &pki::Authority, host: &HostName, directory: &Path) -> TlsFiles {
    let issued = pki::issue(authority, host).unwrap();
    let at = |kind: &str| directory.join(format!("{host}.{kind}"));
    fs::write(at("ca"), authority.certificate_pem()).unwrap();
    fs::write(at("cert"), issued.certificate_pem).unwrap();
    fs::write(at("key"), issued.key_pem).unwrap();
    fs::set_permissions(at("key"), fs::Permissions::from_mode(0o600)).unwrap();
    TlsFiles { authority: at("ca"), certificate: at("cert"), key: at("key") }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        pause().await;
    }
}

/// Asks every node until one does it, which is the leader.
async fn on_leader<T, F: Future<Output = Result<T, ProposeError>>>(
    nodes: &BTreeMap<u64, Node>,
    act: impl Fn(Consensus) -> F,
) -> (u64, T) {
    let began = Instant::now();
    loop {
        for (node_id, node) in nodes.iter().filter(|(_, node)| node.leads()) {
            if let Ok(done) = act(node.consensus.clone()).await {
                return (*node_id, done);
            }
        }
        assert!(began.elapsed() < PATIENCE, "no leader did it");
        pause().await;
    }
}

async fn propose(nodes: &BTreeMap<u64, Node>, line: &'static str) -> (u64, Applied) {
    on_leader(nodes, |leader| async move { leader.propose(line.into()).await }).await
}

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
    nodes[&second].consensus.transfer_to(&host(third)).await.unwrap();
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
    nodes[&1].consensus.add_learner(2, site.places[&2].clone()).await.unwrap();
    until("the learner caught up", || nodes[&2].lines() == nodes[&1].lines()).await;
    nodes[&1].consensus.set_voters(BTreeSet::from([1, 2])).await.unwrap();
    until("both know the voters", || nodes.values().all(|node| node.consensus.status().voters == site.places)).await;
    propose(&nodes, "together").await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_another_cluster_node_or_host_is_refused() {
    let site = Site::new(3);
    let nodes = site.cluster().await;
    let (leader, _) = propose(&nodes, "one").await;
    let term = nodes[&leader].consensus.status().term;
    let to = nodes.keys().copied().find(|id| *id != leader).unwrap();
    let envelope = |cluster: &str, from, to, speaks_for| {
        let vote = openraft::raft::VoteRequest::new(types::Vote::new(99, speaks_for), None);
        let message = network::Message::Vote(vote);
        serde_json::to_vec(&network::Envelope { cluster: cluster.to_owned(), from, to, message }).unwrap()
    };
    for (peer, body, reason) in [
        (host(leader), b"garbage".to_vec(), "not a raft message"),
        (host(leader), envelope("prod", leader, to, leader), "this is the cluster"),
        (host(leader), envelope("lab", leader, 77, leader), "this is node"),
        (host(leader), envelope("lab", leader, to, to), "may not speak for"),
        (host(to), envelope("lab", leader, to, leader), "and not hv-"),
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

/// A file on a disk that can be declared full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> Result<(), std::io::Error> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(std::io::ErrorKind::StorageFull.into(),
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
    let envelope =
        network::Envelope { cluster: "lab".to_owned(), from: 1, to: 3, message: network::Message::Vote(vote) };
    let asked = nodes[&3].consensus.handle_rpc(&host(1), &serde_json::to_vec(&envelope).unwrap()).await;
    assert!(asked.is_err(), "it does not vote");
    until("another leads", || others.values().any(|node| node.leads())).await;
    drop(others);
    assert_ne!(propose(&nodes, "three").await.0, 3);
    nodes[&3].consensus.shutdown().await;
}
