//! What becomes of gossip when somebody who has its key sends what chitchat fails at.

use tokio::time::Instant;

use super::{
    super::bounds::{Flow, is_bounded},
    *,
};

/// What begins each of chitchat's messages.
const MAGIC: u16 = 45_139;
/// The message that answers an answer, and brings facts alone.
const ACK: u8 = 2;

/// Facts of one member, newer than all before, as chitchat lays them out: a stream of one block that is not compressed.
struct Facts(Vec<u8>);

impl Facts {
    fn of(member: &ChitchatId) -> Self {
        let mut operations = vec![0];
        member.serialize(&mut operations);
        // Nothing is forgotten, and all versions are told.
        operations.extend([0; 16]);
        Self(operations)
    }

    fn fact(mut self, key: &str, version: u64) -> Self {
        self.0.push(1);
        key.serialize(&mut self.0);
        "x".serialize(&mut self.0);
        version.serialize(&mut self.0);
        self.0.push(0);
        self
    }

    fn newest(mut self, version: u64) -> Self {
        self.0.push(2);
        version.serialize(&mut self.0);
        self
    }

    fn message(self) -> Vec<u8> {
        let mut message = MAGIC.to_le_bytes().to_vec();
        message.extend([0, ACK, 2]);
        u16::try_from(self.0.len()).unwrap().serialize(&mut message);
        message.extend(self.0);
        message.push(0);
        message
    }
}

/// What a member is to chitchat at its first start.
fn member(node: &Node, name: &str) -> ChitchatId {
    ChitchatId::new(name, 1, node.address)
}

/// The newest version that a node has of its own facts.
async fn newest_of_its_own(node: &Node) -> u64 {
    let newest = |chitchat: &chitchat::Chitchat| {
        chitchat.node_state(chitchat.self_chitchat_id()).map_or(0, chitchat::NodeState::max_version)
    };
    node.gossip.going.look(newest).await
}

fn says(members: &BTreeMap<HostName, Member>, name: &str, key: &str, value: &str) -> bool {
    alive(members, name) && members[&host(name)].keys.get(key).is_some_and(|said| said == value)
}

async fn restarted(node: &Node) {
    let poll = async {
        while node.gossip.restarts() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.expect("gossip did not begin anew");
}

async fn goes_on(node: &Node) {
    let stopped = tokio::time::timeout(Duration::from_millis(50), node.gossip.stopped()).await;
    assert!(stopped.is_err(), "the supervisor would end");
}

#[tokio::test]
async fn a_message_that_chitchat_fails_at_costs_a_new_start_of_gossip_and_no_fact() {
    let a = node("hv-a", 1, 1, &[]).await;
    let b = node("hv-b", 1, 1, &[a.address]).await;
    a.gossip.set("memory_mib", "4096").await.unwrap();
    until(&b.gossip, "a's fact at b", |members| says(members, "hv-a", "memory_mib", "4096")).await;

    let x = datagrams("hv-x", 1, 1).await;
    let contradiction = Facts::of(&member(&a, "hv-a")).fact("load", 1_000).newest(999);
    x.sender.send_gossip(a.address, &contradiction.message()).await;
    restarted(&a).await;
    goes_on(&a).await;
    until(&b.gossip, "a's new start at b, with its fact", |members| {
        says(members, "hv-a", "memory_mib", "4096") && members[&host("hv-a")].generation == 2
    })
    .await;
    until(&a.gossip, "b at a", |members| alive(members, "hv-b")).await;
    a.gossip.set("memory_mib", "8192").await.unwrap();
    until(&b.gossip, "a's next fact at b", |members| says(members, "hv-a", "memory_mib", "8192")).await;
}

#[tokio::test]
async fn a_fact_that_chitchat_cannot_take_because_somebody_has_used_up_its_versions_is_told_by_a_new_start() {
    let a = node("hv-a", 1, 1, &[]).await;
    let x = datagrams("hv-x", 1, 1).await;
    x.sender.send_gossip(a.address, &Facts::of(&member(&a, "hv-a")).newest(u64::MAX).message()).await;
    let poll = async {
        while newest_of_its_own(&a).await < u64::MAX {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.expect("the message was not taken");

    a.gossip.set("unwell", "late").await.unwrap();
    restarted(&a).await;
    goes_on(&a).await;
    let b = node("hv-b", 1, 1, &[a.address]).await;
    until(&b.gossip, "what a said", |members| says(members, "hv-a", "unwell", "late")).await;
    a.gossip.remove("unwell").await;
    until(&b.gossip, "that a took it back", |members| {
        alive(members, "hv-a") && !members[&host("hv-a")].keys.contains_key("unwell")
    })
    .await;
}

#[tokio::test]
async fn gossip_begins_anew_before_what_is_said_fills_the_memory() {
    let a = node("hv-a", 1, 1, &[]).await;
    a.gossip.set("load", &"x".repeat(4_000)).await.unwrap();
    let unbounded = a.gossip.going.failed(5_000);
    assert!(tokio::time::timeout(Duration::from_millis(2_500), unbounded).await.is_err(), "so much may be said");
    let why = tokio::time::timeout(PATIENCE, a.gossip.going.failed(4_000)).await.unwrap();
    assert!(why.contains("at most 4000 are kept"), "{why}");
    restarted(&a).await;
    assert!(says(&a.gossip.members().await, "hv-a", "load", &"x".repeat(4_000)), "what it says itself is bounded");
}

/// Facts that nobody can read, in so many blocks.
fn ack(blocks: usize) -> Vec<u8> {
    let mut message = MAGIC.to_le_bytes().to_vec();
    message.extend([0, ACK]);
    (0..blocks).for_each(|_| message.extend([2, 1, 0, 9]));
    message.push(0);
    message
}

#[test]
fn no_more_is_taken_in_within_a_second_than_may_be_known_before_it_is_looked_how_much_that_is() {
    let began = Instant::now();
    let mut flow = Flow::new(began);
    for _ in 0..8 {
        assert!(flow.takes(&ack(128), began));
    }
    let soon = began + Duration::from_millis(999);
    assert!(!flow.takes(&ack(1), soon));
    assert!(flow.takes(&first_word(1..=3), soon), "it brings no facts");
    assert!(flow.takes(&ack(128), began + Duration::from_secs(1)));
}

#[tokio::test]
async fn a_message_that_would_unfold_to_more_than_any_host_says_is_not_read() {
    assert!(is_bounded(&ack(128)) && !is_bounded(&ack(129)));
    let answer = |blocks: usize| {
        let mut message = MAGIC.to_le_bytes().to_vec();
        // Whom it names comes before the facts: one member.
        message.extend([0, 1, 1, 0]);
        ChitchatId::new("hv-x", 1, "127.0.0.1:9".parse().unwrap()).serialize(&mut message);
        message.extend([0; 24]);
        message.extend(&ack(blocks)[4..]);
        message
    };
    assert!(is_bounded(&answer(128)) && !is_bounded(&answer(129)));
    for other in [&b""[..], &[0; 3], &ack(129)[..4], &answer(129)[..9], &first_word(1..=3)[..]] {
        assert!(is_bounded(other), "it says nothing, or cannot be read");
    }
    let (a, x) = (node("hv-a", 1, 1, &[]).await, datagrams("hv-x", 1, 1).await);
    x.sender.send_gossip(a.address, &ack(129)).await;
    until(&a.gossip, "that it was refused", |_| a.counters.malformed.load(Ordering::Relaxed) > 0).await;
    assert_eq!(a.gossip.restarts(), 0);
}

#[tokio::test]
async fn gossip_ends_when_its_socket_is_closed() {
    let a = node("hv-a", 1, 1, &[]).await;
    let Node { gossip, _running: running, .. } = a;
    drop(running);
    tokio::time::timeout(PATIENCE, gossip.stopped()).await.expect("nobody would start the supervisor again");
    assert_eq!(gossip.restarts(), 0);
}
