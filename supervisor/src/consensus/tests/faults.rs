//! Voters over a network that loses, delays and repeats messages, and cuts voters off: the real openraft on real stores
//! with real TLS between them. What the seeded simulator models (decision 0013) is checked here against the real thing,
//! without a seed.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::*;

/// How long one trouble lasts.
const TROUBLE: Duration = Duration::from_millis(1_300);
/// How long a proposal or a question of authority is waited for in the middle of troubles.
const BRIEFLY: Duration = Duration::from_millis(800);
/// Longer than any voter waits for an answer.
const SILENCE: Duration = Duration::from_secs(3);
/// Messages of more bytes are large: heartbeats, votes and answers never are.
const LARGE: usize = 64 * 1024;

/// What the network does, for all voters together.
#[derive(Default)]
struct Weather {
    /// Directions in which nothing gets through.
    cut: Mutex<BTreeSet<(u64, u64)>>,
    /// Directions in which nothing large gets through, as where packets of full size are dropped without a word.
    narrow: Mutex<BTreeSet<(u64, u64)>>,
    /// Of a hundred messages, and of a hundred answers, so many are lost; as many messages come twice.
    loss: AtomicU64,
    /// The longest delay, in milliseconds.
    late: AtomicU64,
    chance: AtomicU64,
}

impl Weather {
    fn set(&self, loss: u64, late: u64, cut: impl IntoIterator<Item = (u64, u64)>) {
        self.loss.store(loss, Ordering::Relaxed);
        self.late.store(late, Ordering::Relaxed);
        *self.cut.lock().unwrap_or_else(PoisonError::into_inner) = cut.into_iter().collect();
        self.narrow([]);
    }

    fn narrow(&self, narrow: impl IntoIterator<Item = (u64, u64)>) {
        *self.narrow.lock().unwrap_or_else(PoisonError::into_inner) = narrow.into_iter().collect();
    }

    fn is_narrow(&self, from: u64, to: u64) -> bool {
        self.narrow.lock().unwrap_or_else(PoisonError::into_inner).contains(&(from, to))
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).contains(&(from, to))
    }

    fn draw(&self, below: u64) -> u64 {
        let seed = self.chance.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 29)) % below.max(1)
    }

    fn happens(&self) -> bool {
        self.draw(100) < self.loss.load(Ordering::Relaxed)
    }

    async fn delay(&self) {
        let late = self.draw(self.late.load(Ordering::Relaxed) + 1);
        tokio::time::sleep(Duration::from_millis(late)).await;
    }
}

/// A voter's port, exposed to the weather.
struct Exposed {
    to: u64,
    ids: BTreeMap<HostName, u64>,
    weather: Arc<Weather>,
    consensus: Consensus,
}

impl Exposed {
    /// Whoever sent it hears nothing.
    async fn lost() -> Result<Vec<u8>, String> {
        tokio::time::sleep(SILENCE).await;
        Err("lost on the way".to_owned())
    }
}

#[async_trait::async_trait]
impl Handler for Exposed {
    async fn handle(&self, peer: HostName, _channel: Channel, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let from = self.ids.get(&peer).copied().unwrap_or_default();
        let too_large = body.len() > LARGE && self.weather.is_narrow(from, self.to);
        if too_large || self.weather.is_cut(from, self.to) || self.weather.happens() {
            return Self::lost().await;
        }
        self.weather.delay().await;
        if self.weather.happens() {
            let _ = self.consensus.handle_rpc(&peer, &body).await;
        }
        let answer = self.consensus.handle_rpc(&peer, &body).await;
        self.weather.delay().await;
        if self.weather.is_cut(self.to, from) || self.weather.happens() { Self::lost().await } else { answer }
    }
}

/// What befalls the voters.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// Messages and answers are lost, late and repeated.
    Loss,
    /// The leader is cut off.
    LeaderCut,
    /// The leader hears nobody, and is heard.
    LeaderDeaf,
    /// The leader hears everybody, and nobody hears it.
    LeaderMute,
    /// Somebody who does not lead is cut off.
    FollowerCut,
    /// The leader's process ends and comes back with what it has on disk.
    LeaderRestarts,
    /// Nothing.
    Calm,
}

/// Voters in bad weather, and what they have confirmed.
struct Sea {
    site: Site,
    weather: Arc<Weather>,
    nodes: BTreeMap<u64, Node>,
    /// Entries whose commit was confirmed, with their index.
    confirmed: Vec<(u64, String)>,
    /// The newest authority that was confirmed.
    newest: Option<Authority>,
    lines: u64,
}

impl Sea {
    async fn new(voters: u64) -> Self {
        let (site, weather) = (Site::new(voters), Arc::new(Weather::default()));
        let mut sea = Self { site, weather, nodes: BTreeMap::new(), confirmed: Vec::new(), newest: None, lines: 0 };
        for node_id in 1..=voters {
            let node = sea.start(node_id, true).await.unwrap();
            sea.nodes.insert(node_id, node);
        }
        sea.nodes[&1].consensus.initialize(sea.site.places.clone()).await.unwrap();
        sea
    }

    async fn start(&self, node_id: u64, create: bool) -> Result<Node, StartError> {
        let (site, lines) = (&self.site, Arc::new(RwLock::new(Lines::default())));
        let consensus = Consensus::start(site.config(node_id, create), lines.clone(), site.client(node_id)).await?;
        let ids = site.places.iter().map(|(id, place)| (place.host.clone(), *id)).collect();
        let exposed = Exposed { to: node_id, ids, weather: self.weather.clone(), consensus: consensus.clone() };
        let tls = pki::server_config(&site.tls(node_id)).unwrap();
        let server = listen(site.places[&node_id].address, tls, Arc::new(exposed)).await;
        Ok(Node { consensus, lines, _server: server })
    }

    fn leader(&self) -> Option<u64> {
        self.nodes.iter().find(|(_, node)| node.leads()).map(|(node_id, _)| *node_id)
    }

    async fn restart(&mut self, node_id: u64) {
        let node = self.nodes.remove(&node_id).unwrap();
        node.consensus.shutdown().await;
        drop(node);
        let began = Instant::now();
        loop {
            match self.start(node_id, false).await {
                Ok(node) => {
                    self.nodes.insert(node_id, node);
                    return;
                }
                Err(StartError::Store { .. }) if began.elapsed() < PATIENCE => pause().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn befall(&mut self, trouble: Trouble) {
        let all: Vec<u64> = self.nodes.keys().copied().collect();
        let leader = self.leader().unwrap_or(1);
        let others = || all.iter().copied().filter(move |other| *other != leader);
        let follower = others().next().unwrap();
        let around = |node_id: u64| all.iter().flat_map(move |other| [(node_id, *other), (*other, node_id)]);
        match trouble {
            Trouble::Calm => self.weather.set(0, 0, []),
            Trouble::Loss => self.weather.set(25, 40, []),
            Trouble::LeaderCut => self.weather.set(0, 5, around(leader)),
            Trouble::LeaderDeaf => self.weather.set(0, 5, others().map(|other| (other, leader))),
            Trouble::LeaderMute => self.weather.set(5, 5, others().map(|other| (leader, other))),
            Trouble::FollowerCut => self.weather.set(5, 20, around(follower)),
            Trouble::LeaderRestarts => {
                self.weather.set(5, 10, []);
                self.restart(leader).await;
            }
        }
        let end = Instant::now() + TROUBLE;
        while Instant::now() < end {
            self.propose().await;
            self.ask_authority().await;
            self.check_alike();
            pause().await;
        }
    }

    /// Proposes a line where somebody thinks that it leads. One that is not confirmed may be committed yet.
    async fn propose(&mut self) {
        self.lines += 1;
        let line = format!("line {}", self.lines);
        for node in self.nodes.values().filter(|node| node.leads()) {
            match tokio::time::timeout(BRIEFLY, node.consensus.propose(line.clone().into_bytes())).await {
                Ok(Ok(applied)) => self.confirmed.push((applied.index, line)),
                // Nothing was appended: somebody else may take it.
                Ok(Err(ProposeError::NotLeader(_))) => continue,
                Ok(Err(_)) | Err(_) => {}
            }
            return;
        }
    }

    /// R2, R3: authority never goes back, whoever says that it has it, and reaches all that was confirmed before.
    async fn ask_authority(&mut self) {
        let committed = self.confirmed.iter().map(|(index, _)| *index).max().unwrap_or(0);
        for (node_id, node) in self.nodes.iter().filter(|(_, node)| node.leads()) {
            let Ok(Ok(authority)) = tokio::time::timeout(BRIEFLY, node.consensus.read_index()).await else { continue };
            assert!(
                self.newest.is_none_or(|newest| newest <= authority),
                "{node_id} has the authority {authority:?} after {:?}",
                self.newest
            );
            assert!(authority.index >= committed, "{authority:?} of {node_id} does not reach entry {committed}");
            self.newest = Some(authority);
        }
    }

    /// S6: what two voters have applied differs in length only.
    fn check_alike(&self) {
        let all: Vec<(u64, Vec<String>)> = self.nodes.iter().map(|(id, node)| (*id, node.lines())).collect();
        let (longest, most) = all.iter().max_by_key(|(_, lines)| lines.len()).unwrap();
        for (node_id, lines) in &all {
            assert!(most.starts_with(lines), "{node_id} and {longest} have applied different entries");
        }
    }

    /// All troubles end: everybody has everything that was ever confirmed, once, in the order of its commit.
    async fn settle(&mut self) {
        self.weather.set(0, 0, []);
        let (_, last) = propose(&self.nodes, "the end").await;
        let nodes = &self.nodes;
        until("everybody has all", || nodes.values().all(|node| *node.consensus.applied().borrow() >= last.index))
            .await;
        self.check_alike();
        let lines = self.nodes[&1].lines();
        for node in self.nodes.values() {
            assert_eq!(node.lines().len(), lines.len());
        }
        self.confirmed.sort_unstable();
        let mut from = 0;
        for (index, line) in &self.confirmed {
            let found = lines.iter().skip(from).position(|known| known == line);
            from += found.unwrap_or_else(|| panic!("{line:?}, confirmed as entry {index}, is lost")) + 1;
        }
        let unique: BTreeSet<&String> = lines.iter().collect();
        assert_eq!(unique.len(), lines.len(), "an entry was applied twice");
    }
}

async fn ride_out(voters: u64, troubles: &[Trouble]) {
    let mut sea = Sea::new(voters).await;
    let nodes = &sea.nodes;
    until("somebody leads", || nodes.values().any(Node::leads)).await;
    for trouble in troubles {
        sea.befall(*trouble).await;
    }
    sea.settle().await;
    assert!(sea.confirmed.len() > troubles.len(), "only {} entries were confirmed", sea.confirmed.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_voters_lose_nothing_and_never_differ_whatever_befalls_their_leader() {
    let troubles = [
        Trouble::Calm,
        Trouble::Loss,
        Trouble::LeaderCut,
        Trouble::Loss,
        Trouble::LeaderDeaf,
        Trouble::LeaderRestarts,
        Trouble::LeaderMute,
        Trouble::Loss,
        Trouble::Calm,
    ];
    ride_out(3, &troubles).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_voters_go_on_while_two_of_them_are_in_trouble() {
    let troubles = [
        Trouble::FollowerCut,
        Trouble::LeaderCut,
        Trouble::FollowerCut,
        Trouble::LeaderRestarts,
        Trouble::Loss,
        Trouble::LeaderMute,
        Trouble::LeaderDeaf,
        Trouble::Calm,
    ];
    ride_out(5, &troubles).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_confirms_nothing_and_gives_its_place_up() {
    let mut sea = Sea::new(3).await;
    propose(&sea.nodes, "before").await;
    let old = sea.leader().unwrap();
    let others = (1..=3).filter(|other| *other != old);
    sea.weather.set(0, 0, others.flat_map(|other| [(old, other), (other, old)]));
    let alone = sea.nodes[&old].consensus.clone();
    assert!(alone.propose(b"alone".to_vec()).await.is_err(), "no majority has it");
    let nodes = &sea.nodes;
    until("another one leads", || nodes.iter().any(|(node_id, node)| *node_id != old && node.leads())).await;
    assert!(alone.read_index().await.is_err(), "R2: it has no authority, whatever it thinks");
    sea.settle().await;
    let lines = sea.nodes[&old].lines();
    assert_eq!(lines.first().map(String::as_str), Some("before"));
}

/// Has a line committed that is too large for a narrow link; returns who did it.
async fn propose_large(nodes: &BTreeMap<u64, Node>, number: u64) -> u64 {
    on_leader(nodes, |leader| async move { leader.propose(large(number)).await }).await.0
}

fn large(number: u64) -> Vec<u8> {
    format!("{number} {}", "x".repeat(LARGE)).into_bytes()
}

/// L1.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_large_messages_get_lost_gives_way_and_is_in_nobodys_way_as_a_follower() {
    let mut sea = Sea::new(3).await;
    propose(&sea.nodes, "before").await;
    let old = sea.leader().unwrap();
    let others = (1..=3).filter(|other| *other != old);
    sea.weather.narrow(others.flat_map(|other| [(old, other), (other, old)]));
    let stuck = sea.nodes[&old].consensus.clone();
    let proposer = stuck.clone();
    let proposal = tokio::spawn(async move { proposer.propose(large(0)).await });
    let is_stuck = || stuck.progress().is_some_and(|progress| progress.dispensable && progress.applied < progress.last);
    until("it has what the others do not get, and they answer", is_stuck).await;
    assert!(stuck.read_index().await.is_ok(), "by its heartbeats it leads, and it would for ever");
    stuck.give_way(PATIENCE);
    let nodes = &sea.nodes;
    until("another one leads", || nodes.iter().any(|(node_id, node)| *node_id != old && node.leads())).await;
    for number in 1..4 {
        assert_ne!(propose_large(&sea.nodes, number).await, old);
    }
    assert!(proposal.await.unwrap().is_err(), "nobody else had it, and so nobody ever will");
    until("it follows", || !sea.nodes[&old].leads()).await;
    sea.settle().await;
    assert_eq!(sea.nodes[&old].lines().len(), 5, "what it could not commit is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_gave_way_where_nobody_else_can_be_elected_is_back_soon() {
    let mut sea = Sea::new(3).await;
    propose(&sea.nodes, "before").await;
    let old = sea.leader().unwrap();
    let others: Vec<u64> = (1..=3).filter(|other| *other != old).collect();
    sea.weather.set(0, 0, [(others[0], others[1]), (others[1], others[0])]);
    let leader = sea.nodes[&old].consensus.clone();
    until("all is committed", || leader.progress().is_some_and(|all| all.applied == all.last)).await;
    leader.give_way(TROUBLE);
    let handed_over = leader.transfer_to(&host(others[0])).await;
    assert_eq!(handed_over, Err(MembershipError::Uncommitted), "nobody would be told, and it would lead no more");
    assert_eq!(leader.read_index().await, Err(ProposeError::NotLeader(None)), "it has no authority meanwhile");
    assert_eq!(leader.propose(b"meanwhile".to_vec()).await, Err(ProposeError::NotLeader(None)));
    propose(&sea.nodes, "after").await;
    assert!(!leader.gives_way(), "the other two do not hear each other");
    sea.settle().await;
}

/// R29.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_hands_nothing_over_while_others_may_lack_what_it_has() {
    let mut sea = Sea::new(3).await;
    propose(&sea.nodes, "before").await;
    let old = sea.leader().unwrap();
    let others: Vec<u64> = (1..=3).filter(|other| *other != old).collect();
    sea.weather.narrow(others.iter().map(|other| (old, *other)));
    let leader = sea.nodes[&old].consensus.clone();
    let proposer = leader.clone();
    let proposal = tokio::spawn(async move { proposer.propose(large(0)).await });
    until("it has what the others do not get", || leader.progress().is_some_and(|all| all.applied < all.last)).await;
    assert_eq!(leader.transfer_to(&host(others[0])).await, Err(MembershipError::Uncommitted));
    sea.weather.narrow([]);
    assert!(proposal.await.unwrap().is_ok(), "it leads on, and the links are wide again");
    sea.settle().await;
}
