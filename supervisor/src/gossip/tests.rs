//! Gossip between real sockets on the loopback interface.

use std::{ops::RangeInclusive, sync::Arc, sync::atomic::Ordering};

use chitchat::Serializable as _;
use holdfast_policies::names::Incarnation;

use super::{
    super::datagram::{Counters, Datagrams, Ears, Heard, Identity, Keyring, Role, Running},
    room::Room,
    *,
};

mod faults;
mod keeper;

/// Longest wait for anything here, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    pub(crate) gossip: Gossip,
    address: SocketAddr,
    counters: Arc<Counters>,
    heard: Heard,
    _running: Running,
}

pub(crate) async fn node(name: &str, key: u8, generation: u64, seeds: &[SocketAddr]) -> Node {
    advertising(name, key, generation, seeds, None).await
}

/// A member that tells others another address than its own.
async fn advertising(
    name: &str,
    key: u8,
    generation: u64,
    seeds: &[SocketAddr],
    advertise: Option<SocketAddr>,
) -> Node {
    let datagrams = datagrams(name, key, generation).await;
    let address = datagrams.sender.local_address().unwrap();
    let config = GossipConfig {
        host: host(name),
        cluster: "test".to_owned(),
        generation,
        advertise: advertise.unwrap_or(address),
        seeds: seeds.to_vec(),
        interval: Duration::from_millis(50),
    };
    let gossip = Gossip::start(config, datagrams.sender, datagrams.gossip).await.unwrap();
    let (counters, heard) = (datagrams.counters, datagrams.heard);
    Node { gossip, address, counters, heard, _running: datagrams.running }
}

async fn datagrams(name: &str, key: u8, started: u64) -> Datagrams {
    let incarnation = Incarnation::new(format!("{name}.boot")).unwrap();
    let identity = Identity { host: host(name), role: Role::Supervisor, incarnation, started };
    let keyring = Arc::new(Keyring::new(&[[key; 32]]).unwrap());
    Datagrams::bind("127.0.0.1:0".parse().unwrap(), keyring, identity, Ears::default()).await.unwrap()
}

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

/// What somebody says first who knows that one host's supervisor has been started so often: 45 bytes for each start.
fn first_word(starts: RangeInclusive<u64>) -> Vec<u8> {
    let mut word = 45_139_u16.to_le_bytes().to_vec();
    word.extend([0, 0]);
    let ids: Vec<_> = starts.map(|start| ChitchatId::new("hv-x", start, "127.0.0.1:9".parse().unwrap())).collect();
    word.extend(u16::try_from(ids.len()).unwrap().to_le_bytes());
    for id in ids {
        id.serialize(&mut word);
        word.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        word.extend([0; 16]);
    }
    "test".serialize(&mut word);
    word
}

async fn until(gossip: &Gossip, what: &str, condition: impl Fn(&BTreeMap<HostName, Member>) -> bool) {
    let poll = async {
        while !condition(&gossip.members().await) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("not seen in time: {what}"));
}

fn alive(members: &BTreeMap<HostName, Member>, name: &str) -> bool {
    members.get(&host(name)).is_some_and(|member| member.alive)
}

#[tokio::test]
async fn two_nodes_see_each_other_and_one_with_another_key_is_not_seen() {
    let a = node("hv-a", 1, 1, &[]).await;
    let stranger = node("hv-x", 2, 1, &[a.address]).await;
    let b = node("hv-b", 1, 1, &[a.address, stranger.address]).await;
    b.gossip.set("memory_mib", "4096").await.unwrap();
    until(&a.gossip, "b's fact at a", |members| {
        alive(members, "hv-b") && members[&host("hv-b")].keys.get("memory_mib").is_some_and(|value| value == "4096")
    })
    .await;
    until(&b.gossip, "a at b", |members| alive(members, "hv-a")).await;

    assert!(!a.gossip.members().await.contains_key(&host("hv-x")));
    assert_eq!(stranger.gossip.members().await.len(), 1);
    until(&a.gossip, "that the stranger was refused", |_| a.counters.unknown_key.load(Ordering::Relaxed) > 0).await;
    assert_eq!(a.heard.last_any(&host("hv-x")), None);
    let boot = Incarnation::new("hv-b.boot").unwrap();
    assert!(a.heard.last_of(&host("hv-b"), &boot).is_some());
    assert_eq!(a.heard.last_of(&host("hv-b"), &Incarnation::new("other").unwrap()), None);
    assert_eq!(a.heard.last(&host("hv-b"), Role::Guard), None);
}

#[tokio::test]
async fn a_restarted_node_is_one_member_and_a_stopped_one_is_seen_dead() {
    let a = node("hv-a", 1, 1, &[]).await;
    let b = node("hv-b", 1, 1, &[a.address]).await;
    until(&a.gossip, "b alive", |members| alive(members, "hv-b")).await;
    drop(b);
    until(&a.gossip, "b dead", |members| members.get(&host("hv-b")).is_some_and(|member| !member.alive)).await;
    let _again = node("hv-b", 1, 2, &[a.address]).await;
    until(&a.gossip, "b again", |members| alive(members, "hv-b") && members[&host("hv-b")].generation == 2).await;
    assert_eq!(a.gossip.members().await.len(), 2);
}

/// chitchat fails in the last hundred of the 65,507 bytes that it fills, and 1,453 starts bring it there.
#[tokio::test]
async fn a_supervisor_that_starts_again_and_again_ends_nobodys_gossip() {
    let a = node("hv-a", 1, 1, &[]).await;
    let x = datagrams("hv-x", 1, 1).await;
    x.sender.send_gossip(a.address, &first_word(1..=1_450)).await;
    for start in 1_451..=1_460 {
        x.sender.send_gossip(a.address, &first_word(start..=start)).await;
    }
    let b = node("hv-b", 1, 1, &[a.address]).await;
    until(&a.gossip, "b alive", |members| alive(members, "hv-b")).await;
    until(&b.gossip, "a alive", |members| alive(members, "hv-a")).await;
}

#[tokio::test]
async fn there_is_room_for_so_many_starts_those_that_are_known_among_them() {
    let a = node("hv-a", 1, 1, &[]).await;
    let room = Room::default();
    assert!(!room.has(&first_word(1..=1)).await, "nobody knows yet whom it knows");
    room.of(a.gossip.going.chitchat().await);
    assert!(room.has(&first_word(1..=1_354)).await);
    assert!(!room.has(&first_word(1..=1_355)).await);
    let x = datagrams("hv-x", 1, 1).await;
    x.sender.send_gossip(a.address, &first_word(1..=1_000)).await;
    until(&a.gossip, "the starts at a", |members| members.contains_key(&host("hv-x"))).await;
    assert!(room.has(&first_word(1..=1_000)).await, "all of them are known");
    assert!(room.has(&first_word(900..=1_354)).await);
    assert!(!room.has(&first_word(1_000..=1_355)).await);
    for nobody in [&b""[..], &[0; 3], &[0x53, 0xb0, 0, 3], &[0x53, 0xb0, 0, 0, 9, 0]] {
        assert!(room.has(nobody).await, "it names nobody, or cannot be read");
    }
}

#[tokio::test]
async fn facts_that_would_harm_gossip_are_refused() {
    let a = node("hv-a", 1, 1, &[]).await;
    for bad in ["", "é", "with space", &"k".repeat(KEY_BYTES_MAX + 1)] {
        assert!(matches!(a.gossip.set(bad, "x").await, Err(SetError::Key { .. })), "{bad:?}");
    }
    let long = "x".repeat(VALUE_BYTES_MAX + 1);
    assert!(matches!(a.gossip.set("key", &long).await, Err(SetError::Value { .. })));
    for index in 0..OWN_KEYS_MAX {
        a.gossip.set(&format!("key{index}"), "é").await.unwrap();
    }
    assert!(matches!(a.gossip.set("more", "x").await, Err(SetError::Full { .. })));
    a.gossip.set("key0", "other").await.unwrap();
    a.gossip.remove("key1").await;
    a.gossip.remove("never set").await;
    a.gossip.set("more", "x").await.unwrap();
    assert_eq!(a.gossip.members().await[&host("hv-a")].keys["key0"], "other");
}
