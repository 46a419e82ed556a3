//! Gossip over a network that loses, delays and repeats datagrams, and cuts a member off: the real chitchat. Each member
//! is reached only through a relay that does the harm.

use std::{
    collections::{BTreeSet, btree_map},
    sync::{Mutex, atomic::AtomicU64},
};

use tokio::net::UdpSocket;

use super::*;

/// Of a hundred datagrams so many are lost; as many come twice.
const LOSS: u64 = 25;
/// The longest delay, in milliseconds.
const LATE: u64 = 80;
/// Largest datagram.
const BYTES: usize = 65_536;

/// What the network does.
#[derive(Default)]
struct Weather {
    /// Members, by where they really listen, that nothing reaches and that reach nobody.
    cut: Mutex<BTreeSet<SocketAddr>>,
    chance: AtomicU64,
}

impl Weather {
    fn draw(&self, below: u64) -> u64 {
        let seed = self.chance.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 29)) % below
    }

    fn cut(&self, members: impl IntoIterator<Item = SocketAddr>) {
        *self.cut.lock().unwrap() = members.into_iter().collect();
    }

    /// Carries one datagram between two members, out of this socket, unless it is lost.
    fn carry(
        self: &Arc<Self>,
        (from, to): (SocketAddr, SocketAddr),
        out: &Arc<UdpSocket>,
        at: SocketAddr,
        bytes: &[u8],
    ) {
        let is_cut = {
            let cut = self.cut.lock().unwrap();
            cut.contains(&from) || cut.contains(&to)
        };
        if is_cut || self.draw(100) < LOSS {
            return;
        }
        let copies = if self.draw(100) < LOSS { 2 } else { 1 };
        for _ in 0..copies {
            let (out, bytes, late) = (Arc::clone(out), bytes.to_vec(), self.draw(LATE));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(late)).await;
                let _ = out.send_to(&bytes, at).await;
            });
        }
    }
}

async fn socket() -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap())
}

/// Takes what is sent to a member; what it answers goes back to whoever sent.
async fn relay(front: Arc<UdpSocket>, member: SocketAddr, weather: Arc<Weather>) {
    let mut backs: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut buffer = vec![0; BYTES];
    loop {
        let Ok((length, from)) = front.recv_from(&mut buffer).await else { return };
        let back = match backs.entry(from) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => {
                let back = socket().await;
                tokio::spawn(answers(Arc::clone(&back), Arc::clone(&front), (member, from), Arc::clone(&weather)));
                new.insert(back)
            }
        };
        weather.carry((from, member), back, member, &buffer[..length]);
    }
}

async fn answers(
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    (member, to): (SocketAddr, SocketAddr),
    weather: Arc<Weather>,
) {
    let mut buffer = vec![0; BYTES];
    loop {
        let Ok((length, _)) = back.recv_from(&mut buffer).await else { return };
        weather.carry((member, to), &front, to, &buffer[..length]);
    }
}

/// A member that tells others the address of its relay; and where it really listens.
async fn exposed(name: &str, seeds: &[SocketAddr], weather: &Arc<Weather>) -> (Node, SocketAddr) {
    let front = socket().await;
    let advertised = front.local_addr().unwrap();
    let node = advertising(name, 1, 1, seeds, Some(advertised)).await;
    let real = node.address;
    tokio::spawn(relay(front, real, Arc::clone(weather)));
    (Node { address: advertised, ..node }, real)
}

#[tokio::test]
async fn members_find_each_other_in_bad_weather_and_a_cut_one_is_seen_dead_until_it_is_back() {
    let weather = Arc::new(Weather::default());
    let (a, _) = exposed("hv-a", &[], &weather).await;
    let (b, _) = exposed("hv-b", &[a.address], &weather).await;
    let (c, real) = exposed("hv-c", &[a.address, b.address], &weather).await;
    c.gossip.set("memory_mib", "4096").await.unwrap();
    for (node, name) in [(&a, "hv-a"), (&b, "hv-b"), (&c, "hv-c")] {
        let all = |members: &BTreeMap<HostName, Member>| {
            ["hv-a", "hv-b", "hv-c"].iter().all(|other| *other == name || alive(members, other))
        };
        until(&node.gossip, "all others", all).await;
    }
    let fact = |members: &BTreeMap<HostName, Member>| {
        members.get(&host("hv-c")).is_some_and(|member| member.keys.get("memory_mib").is_some_and(|mib| mib == "4096"))
    };
    until(&a.gossip, "c's fact at a", fact).await;

    weather.cut([real]);
    let dead = |members: &BTreeMap<HostName, Member>| !alive(members, "hv-c");
    until(&a.gossip, "c dead at a", dead).await;
    // What was on its way when c was cut off still arrives.
    let mut heard = None;
    while heard != a.heard.last_any(&host("hv-c")) {
        heard = a.heard.last_any(&host("hv-c"));
        tokio::time::sleep(Duration::from_millis(3 * LATE)).await;
    }
    until(&b.gossip, "c dead at b", dead).await;
    until(&c.gossip, "the others dead at c", |members| !alive(members, "hv-a") && !alive(members, "hv-b")).await;
    assert_eq!(a.heard.last_any(&host("hv-c")), heard, "R16: nobody else's word makes it heard");
    until(&a.gossip, "b at a, meanwhile", |members| alive(members, "hv-b")).await;

    weather.cut([]);
    until(&a.gossip, "c back at a", |members| alive(members, "hv-c")).await;
    until(&c.gossip, "a back at c", |members| alive(members, "hv-a")).await;
    let again = async {
        while a.heard.last_any(&host("hv-c")) <= heard {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("c is heard again by a itself");
}
