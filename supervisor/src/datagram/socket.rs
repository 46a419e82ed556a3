//! The UDP socket: one task reads it and hands messages to bounded queues; [`Sender`] handles write to it.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use holdfast_policies::{
    names::{HostName, Incarnation},
    revocation::KeyId,
    time::Moment,
};
use tokio::{net::UdpSocket, sync::mpsc, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::clock, Beacon, Counters, Ears, Heard, Identity, Keyring, Kind, Message, Nudge, Receiver, Refusal, Role,
    Sealer, buffer::make_room, seal::DATAGRAM_BYTES_MAX,
};

/// Gossip messages waiting for the gossip task: a round of a large cluster.
const GOSSIP_QUEUE: usize = 256;
/// Beacons waiting for their reader: every host's, for a moment.
const BEACON_QUEUE: usize = 512;
/// Nudges waiting: each says the same.
const NUDGE_QUEUE: usize = 4;
/// Hosts on one link that may be gone at once without a datagram to another being lost: a rack, of which each is nudged ten times a
/// second. More only fill the buffer where each is sent as much as the kernel keeps for one.
const GONE_AT_ONCE: usize = 32;
/// How long the kernel may take to take a datagram in. It takes none for seconds while what it holds is for hosts that do not answer
/// on their link, as when a rack has lost its power: it waits for them, and the socket with it. Gossip and the coordinator send from
/// here to those who are left, and wait for nobody; what is lost is said again within a quarter of a second.
const TAKEN_WITHIN: Duration = Duration::from_millis(10);
/// Pause after a failed read, so that a broken socket does not eat a processor.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// A gossip message.
#[derive(Debug, Clone)]
pub struct GossipReceived {
    /// From where it came, which is where answers go.
    pub from: SocketAddr,
    /// The host that sealed it.
    pub host: HostName,
    /// Its content.
    pub body: Vec<u8>,
}

/// A beacon whose host and incarnation are those of its seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeaconReceived {
    /// When it came.
    pub moment: Moment,
    /// Which process sent it.
    pub role: Role,
    /// What it says.
    pub beacon: Beacon,
}

/// Somebody wants this host to sync at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nudged {
    /// Who.
    pub by: HostName,
    /// Of which boot.
    pub incarnation: Incarnation,
}

/// An open socket, in parts that go to different owners.
#[derive(Debug)]
pub struct Datagrams {
    /// Writes; can be cloned.
    pub sender: Sender,
    /// Gossip, for [`Gossip::start`](super::super::gossip::Gossip::start).
    pub gossip: mpsc::Receiver<GossipReceived>,
    /// Beacons.
    pub beacons: mpsc::Receiver<BeaconReceived>,
    /// Nudges for this host.
    pub nudges: mpsc::Receiver<Nudged>,
    /// Who was heard when.
    pub heard: Heard,
    /// What was dropped and why.
    pub counters: Arc<Counters>,
    /// Keeps the reading task alive.
    pub running: Running,
}

/// The reading task; it ends when this is dropped.
#[derive(Debug)]
pub struct Running(#[expect(dead_code, reason = "dropping it is all that it is for")] AbortOnDropHandle<()>);

impl Datagrams {
    /// Opens the socket and starts the reading task.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(listen: SocketAddr, keyring: Arc<Keyring>, identity: Identity, ears: Ears) -> io::Result<Self> {
        let socket = UdpSocket::bind(listen).await?;
        make_room(&socket, GONE_AT_ONCE);
        let socket = Arc::new(socket);
        let (heard, counters) = (Heard::default(), Arc::new(Counters::default()));
        let (gossip_sender, gossip) = mpsc::channel(GOSSIP_QUEUE);
        let (beacon_sender, beacons) = mpsc::channel(BEACON_QUEUE);
        let (nudge_sender, nudges) = mpsc::channel(NUDGE_QUEUE);
        let outlets = Outlets {
            host: identity.host.clone(),
            gossip: gossip_sender,
            beacons: beacon_sender,
            nudges: nudge_sender,
            counters: Arc::clone(&counters),
        };
        let receiver = Receiver::new(Arc::clone(&keyring), heard.clone(), Arc::clone(&counters), ears);
        let running = Running(AbortOnDropHandle::new(tokio::spawn(read(Arc::clone(&socket), receiver, outlets))));
        let sealer = Arc::new(Sealer::new(keyring, identity));
        let sender = Sender { socket, sealer, counters: Arc::clone(&counters) };
        Ok(Self { sender, gossip, beacons, nudges, heard, counters, running })
    }
}

async fn read(socket: Arc<UdpSocket>, mut receiver: Receiver, outlets: Outlets) {
    // One byte more than the longest datagram, so that a longer one is seen to be longer.
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let now = clock::moment();
                let message = buffer.get(..length).and_then(|datagram| receiver.receive(datagram, now));
                if let Some(Err(refusal)) = message.map(|message| outlets.deliver(message, from, now)) {
                    outlets.counters.count(refusal);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "reading the datagram socket failed");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Where messages go.
struct Outlets {
    host: HostName,
    gossip: mpsc::Sender<GossipReceived>,
    beacons: mpsc::Sender<BeaconReceived>,
    nudges: mpsc::Sender<Nudged>,
    counters: Arc<Counters>,
}

impl Outlets {
    fn deliver(&self, message: Message, from: SocketAddr, now: Moment) -> Result<(), Refusal> {
        match message.kind {
            Kind::Gossip => {
                let gossip = GossipReceived { from, host: message.host, body: message.body };
                self.gossip.try_send(gossip).map_err(|_| Refusal::Overrun)
            }
            Kind::Beacon => {
                let beacon: Beacon = serde_json::from_slice(&message.body).map_err(|_| Refusal::Malformed)?;
                if beacon.host != message.host || beacon.incarnation != message.incarnation {
                    return Err(Refusal::Malformed);
                }
                let received = BeaconReceived { moment: now, role: message.role, beacon };
                self.beacons.try_send(received).map_err(|_| Refusal::Overrun)
            }
            Kind::Nudge => {
                let nudge: Nudge = serde_json::from_slice(&message.body).map_err(|_| Refusal::Malformed)?;
                if nudge.to != self.host {
                    return Err(Refusal::Malformed);
                }
                // When the queue is full, a nudge that says the same is already waiting.
                let _ = self.nudges.try_send(Nudged { by: message.host, incarnation: message.incarnation });
                Ok(())
            }
        }
    }
}

/// Writes to the socket. What the network does not take is counted; UDP promises nothing anyway.
#[derive(Debug, Clone)]
pub struct Sender {
    socket: Arc<UdpSocket>,
    sealer: Arc<Sealer>,
    counters: Arc<Counters>,
}

impl Sender {
    /// Sends a gossip message.
    pub async fn send_gossip(&self, to: SocketAddr, body: &[u8]) {
        self.send(Kind::Gossip, to, body).await;
    }

    /// Asks `host`, which listens at `to`, to sync at once.
    pub async fn send_nudge(&self, to: SocketAddr, host: &HostName) {
        self.send_json(Kind::Nudge, to, &Nudge { to: host.clone() }).await;
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Who speaks.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.sealer.identity()
    }

    /// The keys under which this process seals and opens.
    #[must_use]
    pub fn key_ids(&self) -> BTreeSet<KeyId> {
        self.sealer.key_ids()
    }

    /// What was dropped and why.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    async fn send_json(&self, kind: Kind, to: SocketAddr, payload: &impl serde::Serialize) {
        match serde_json::to_vec(payload) {
            Ok(body) => self.send(kind, to, &body).await,
            Err(_) => self.counters.count(Refusal::Malformed),
        }
    }

    async fn send(&self, kind: Kind, to: SocketAddr, body: &[u8]) {
        let datagrams = match self.sealer.seal(kind, body) {
            Ok(datagrams) => datagrams,
            Err(error) => {
                tracing::warn!(%error, %to, "a message could not be sealed");
                return self.counters.count(Refusal::Oversize);
            }
        };
        for datagram in datagrams {
            if let Err(error) = taken(self.socket.send_to(&datagram, to)).await {
                self.counters.unsent.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, %to, "a datagram could not be sent");
                return;
            }
        }
    }
}

/// Waits for a moment until the kernel has taken a datagram in.
async fn taken(sending: impl Future<Output = io::Result<usize>>) -> io::Result<usize> {
    timeout(TAKEN_WITHIN, sending).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{getsockopt, sockopt};

    use super::{super::given, *};

    async fn open_on_loopback(name: &str, key: u8) -> Datagrams {
        let identity = Identity {
            host: HostName::new(name).unwrap(),
            role: Role::Supervisor,
            incarnation: Incarnation::new(format!("{name}.boot")).unwrap(),
            started: 1,
        };
        let ring = Arc::new(Keyring::new(&[[key; 32]]).unwrap());
        Datagrams::bind("127.0.0.1:0".parse().unwrap(), ring, identity, Ears::default()).await.unwrap()
    }

    async fn soon<T>(future: impl Future<Output = Option<T>>) -> T {
        tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time").expect("an open queue")
    }

    #[tokio::test]
    async fn gossip_beacons_and_nudges_share_one_socket_and_reach_their_own_readers() {
        let (a, mut b) = (open_on_loopback("hv-a", 1).await, open_on_loopback("hv-b", 1).await);
        let (to, me) = (b.sender.local_address().unwrap(), a.sender.identity().clone());
        let beacon = Beacon {
            host: me.host.clone(),
            incarnation: me.incarnation.clone(),
            uptime_ms: 7,
            lease_left_ms: Some(3_000),
        };
        let long = vec![3; 20_000];
        a.sender.send_gossip(to, &long).await;
        let of_another = Beacon { host: HostName::new("hv-c").unwrap(), ..beacon.clone() };
        a.sender.send_json(Kind::Beacon, to, &of_another).await;
        a.sender.send_json(Kind::Beacon, to, &beacon).await;
        a.sender.send_nudge(to, &HostName::new("hv-c").unwrap()).await;
        a.sender.send_nudge(to, &HostName::new("hv-b").unwrap()).await;

        let gossip = soon(b.gossip.recv()).await;
        assert_eq!((gossip.from, gossip.body), (a.sender.local_address().unwrap(), long));
        assert_eq!(soon(b.beacons.recv()).await.beacon, beacon, "the one for another host was dropped");
        assert_eq!(soon(b.nudges.recv()).await, Nudged { by: me.host.clone(), incarnation: me.incarnation.clone() });
        assert_eq!(b.counters.malformed.load(Ordering::Relaxed), 2);
        assert_eq!(b.heard.last(&me.host, Role::Supervisor).unwrap().incarnation, me.incarnation);
    }

    #[tokio::test]
    async fn a_kernel_that_takes_no_datagram_keeps_nobody_waiting() {
        let given_up = tokio::time::timeout(Duration::from_secs(20), taken(std::future::pending())).await;
        assert!(given_up.expect("it still waits").is_err());
    }

    #[tokio::test]
    async fn what_waits_for_a_rack_that_is_gone_leaves_room_for_datagrams_to_the_living() {
        let open = open_on_loopback("hv-a", 1).await;
        assert_eq!(getsockopt(&*open.sender.socket, sockopt::SndBuf).unwrap(), given(GONE_AT_ONCE));
    }

    #[tokio::test]
    async fn a_datagram_under_another_key_is_dropped_and_counted() {
        let (a, mut b) = (open_on_loopback("hv-a", 1).await, open_on_loopback("hv-b", 2).await);
        let friend = open_on_loopback("hv-c", 2).await;
        let to = b.sender.local_address().unwrap();
        a.sender.send_gossip(to, b"hello").await;
        friend.sender.send_gossip(to, b"friend").await;
        assert_eq!(soon(b.gossip.recv()).await.body, b"friend");
        assert_eq!(b.counters.unknown_key.load(Ordering::Relaxed), 1);
        assert_eq!(b.heard.last_any(&HostName::new("hv-a").unwrap()), None);
    }
}
