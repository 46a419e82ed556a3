//! Tests of consensus: voters in one process, over real mutual TLS on loopback, with real stores.

use std::{
    collections::BTreeSet,
    fs,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    super::{
        pki::{self, TlsFiles, fixture::written},
        rpc::{self, Channel, Handler, Limits, Server},
    },
    *,
};

mod faults;
mod full_disk;
mod recovered;
mod voters;

/// Patience for anything to happen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Remembers the lines that were applied; answers with their number.
#[derive(Default)]
struct Lines(Vec<String>);

impl Machine for Lines {
    fn apply(&mut self, _index: u64, entry: &[u8]) -> Result<Vec<u8>, Halt> {
        match std::str::from_utf8(entry) {
            Ok("unknown") => return Err(Halt("the command \"unknown\" is not known to this version".to_owned())),
            Ok("panic") => panic!("on purpose"),
            Ok(line) => self.0.push(line.to_owned()),
            Err(_) => self.0.push(format!("{} bytes", entry.len())),
        }
        Ok(self.0.len().to_string().into_bytes())
    }

    /// Each line that says so has made another one.
    fn generation(&self) -> u32 {
        1 + u32::try_from(self.0.iter().filter(|line| *line == "generation").count()).unwrap()
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
            // The port is free again when the listener is dropped, and nobody else asks for one of this address.
            let listener = std::net::TcpListener::bind((own_loopback(), 0)).unwrap();
            (node_id, Place { host: host(node_id), address: listener.local_addr().unwrap() })
        };
        Self {
            directory: tempfile::tempdir().unwrap(),
            authority: pki::make_authority().unwrap(),
            places: (1..=nodes).map(place).collect(),
            tuning: Tuning::default(),
        }
    }

    /// Voters that elect another leader only after seconds of silence: for what is asked of the one that leads, on a machine that stands
    /// still for a moment, too.
    fn steady(nodes: u64) -> Self {
        let (election_min, election_max) = (Duration::from_secs(2), Duration::from_secs(4));
        Self { tuning: Tuning { election_min, election_max, ..Tuning::default() }, ..Self::new(nodes) }
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
        let consensus = Consensus::start(self.config(node_id, create), lines.clone(), self.client(node_id)).await?;
        Ok(self.serve(node_id, consensus, lines).await)
    }

    async fn serve(&self, node_id: u64, consensus: Consensus, lines: Arc<RwLock<Lines>>) -> Node {
        let handler = RaftOnly::default();
        assert!(handler.0.set(consensus.clone()).is_ok());
        let tls = pki::server_config(&self.tls(node_id)).unwrap();
        let server = listen(self.places[&node_id].address, tls, Arc::new(handler)).await;
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

/// A loopback address of a voter's own: from the usual one all calls of all tests leave, each by a port that was free.
fn own_loopback() -> Ipv4Addr {
    static GIVEN: AtomicU16 = AtomicU16::new(1);
    let [high, low] = GIVEN.fetch_add(1, Relaxed).to_be_bytes();
    let process = u8::try_from(std::process::id() % 254).unwrap();
    Ipv4Addr::new(127, 1 + process, high, low)
}

/// Serves as soon as whoever has served there before has let go of the port.
async fn listen(address: SocketAddr, tls: Arc<rustls::ServerConfig>, handler: Arc<dyn Handler>) -> Server {
    let began = Instant::now();
    loop {
        match Server::serve(address, Arc::clone(&tls), Arc::clone(&handler), Limits::default()).await {
            Ok(server) => return server,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        pause().await;
    }
}

fn host(node_id: u64) -> HostName {
    HostName::new(format!("hv-{node_id}")).unwrap()
}

fn files(authority: &pki::Authority, host: &HostName, directory: &Path) -> TlsFiles {
    written(directory, host.as_str(), authority, &pki::issue(authority, host).unwrap())
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

/// Has a leader hand the lead over as soon as it knows that all it has is committed, which it may learn a moment after whoever proposed it.
async fn hand_over(leader: &Node, to: u64) {
    let began = Instant::now();
    loop {
        match leader.consensus.transfer_to(&host(to)).await {
            Ok(()) => return,
            Err(MembershipError::Uncommitted) if began.elapsed() < PATIENCE => pause().await,
            Err(error) => panic!("{error}"),
        }
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
