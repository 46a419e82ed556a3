//! What every part of a running supervisor shares.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_fencing::{Kept, Refusals};
use holdfast_policies::{
    agent::margin,
    hostfile::HostFile,
    names::{Epoch, GuestName, HostName, Incarnation, OrderId},
    state::ClusterState,
    time::{Moment, WallTime},
};
use tokio::sync::{Notify, watch};

use crate::{
    clock,
    consensus::Consensus,
    datagram::{Heard, Sender},
    duties::Duties,
    gossip::Gossip,
    guard::GuardClient,
    health::Health,
    metrics::Metrics,
    qemu::Driver,
    replica::{Replica, SharedReplica},
    revocations::Revocations,
    rpc,
};
use holdfast_policies::sync::View;

/// A running supervisor's shared parts.
pub struct Node {
    /// The host file.
    pub file: HostFile,
    /// This boot of this host.
    pub incarnation: Incarnation,
    /// What this machine is.
    pub machine_id: String,
    /// When this process started.
    pub started: Moment,
    /// When the certificate ends with which it was started.
    pub certificate_ends: WallTime,
    /// The replicated state, on voters.
    pub replica: SharedReplica,
    /// Consensus, on hosts that take part in it; it may have stopped: see [`Node::taking_part`].
    pub consensus: Option<Consensus>,
    /// The raft node id of this host, where it has one, even if consensus could not be started.
    pub raft_id: Option<u64>,
    /// What the coordinator told of the voters, for when consensus here does not.
    pub told: Told,
    /// Calls other supervisors.
    pub rpc: rpc::Client,
    /// Sends datagrams.
    pub sender: Sender,
    /// Who was heard when.
    pub heard: Heard,
    /// Membership and facts.
    pub gossip: Gossip,
    /// The guard.
    pub guard: GuardClient,
    /// The guests, on hosts that run some.
    pub driver: Option<Driver>,
    /// Numbers for Prometheus.
    pub metrics: Arc<Metrics>,
    /// What the agent learned of the cluster in its newest sync.
    pub view: watch::Receiver<Arc<View>>,
    /// Wakes the agent to sync at once.
    pub sync_now: Arc<Notify>,
    /// Whether this supervisor trusts itself.
    pub health: Health,
    /// This host's lease.
    pub lease: Lease,
    /// Epochs that nothing of may run here any more.
    pub released: Released,
    /// Fence orders that are not wanted any more.
    pub withdrawn: Withdrawn,
    /// Power devices that have refused this supervisor.
    pub refusals: Refusals,
    /// Power devices that are being asked.
    pub kept: Kept,
    /// Whose certificates count no more.
    pub revocations: Revocations,
    /// What is done for as long as this supervisor runs.
    pub duties: Duties,
}

impl Node {
    /// Reads the replicated state of this host. A poisoned lock means that a panic has already stopped consensus here.
    pub fn read<T>(&self, look: impl FnOnce(&ClusterState) -> T) -> T {
        let replica = self.replica.read().unwrap_or_else(PoisonError::into_inner);
        let replica: &Replica = &replica;
        look(&replica.state)
    }

    /// This host's name.
    #[must_use]
    pub fn host(&self) -> &HostName {
        &self.file.host
    }

    /// The newest generation of the cluster that is known here, by the state or by what the agent was told (R25).
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.read(|state| state.generation).max(self.released.generation())
    }

    /// Consensus, while it has not stopped on this host: only then may its state and its word be used.
    #[must_use]
    pub fn taking_part(&self) -> Option<&Consensus> {
        self.consensus.as_ref().filter(|consensus| consensus.health().is_ok())
    }

    /// The voters and where they listen: the committed membership where it is known, the host file before (R23).
    #[must_use]
    pub fn voters(&self) -> BTreeMap<HostName, SocketAddr> {
        let known = self.known_voters();
        if known.is_empty() { self.file.voters.clone() } else { known }
    }

    /// The voters and where they listen, by the committed membership alone; nobody while it is not known here.
    #[must_use]
    pub fn known_voters(&self) -> BTreeMap<HostName, SocketAddr> {
        let own = self.taking_part().map(Consensus::voters).unwrap_or_default();
        if own.is_empty() { self.told.get() } else { own }
    }

    /// Where a host's supervisor listens, as far as is known here.
    #[must_use]
    pub fn address(&self, host: &HostName) -> Option<SocketAddr> {
        let committed = self.read(|state| state.hosts.get(host).map(|known| known.facts.address));
        committed
            .or_else(|| self.view.borrow().hosts.get(host).copied())
            .or_else(|| self.file.voters.get(host).copied())
    }

    /// The voter that leads, if this host is a voter and knows.
    #[must_use]
    pub fn leader(&self) -> Option<HostName> {
        let leadership = self.taking_part()?.leadership();
        let leader = leadership.borrow().leader.clone();
        leader.map(|(_, host)| host)
    }

    /// Whether this host hears a majority of the voters, itself counted.
    #[must_use]
    pub fn hears_majority(&self, now: Moment) -> bool {
        let voters = self.voters();
        let fresh = self.file.timing.suspect_after.0;
        let heard = voters.keys().filter(|voter| {
            *voter == self.host() || self.heard.last_any(voter).is_some_and(|at| now.since(at) < fresh)
        });
        heard.count() * 2 > voters.len()
    }

    /// How much of what most other voters send is lost on its way here, in percent, if that is too much.
    #[must_use]
    pub fn losing(&self, now: Moment) -> Option<u64> {
        let voters = self.voters();
        let others = voters.keys().filter(|voter| *voter != self.host());
        self.heard.losses().of_most(others, self.health.is_losing(), now)
    }

    /// Whether what this host has not heard says anything: it has neither slept nor been cut off from the majority for as
    /// long as it takes to suspect somebody. A voter that was has missed everybody (R17).
    #[must_use]
    pub fn has_listened(&self, now: Moment) -> bool {
        let time = self.file.timing.suspect_after.0;
        let connected = self.health.connected_since().is_some_and(|since| now.since(since) >= time);
        connected && !self.health.doubted_within(now, time) && self.hears_majority(now)
    }
}

/// The voters, as the coordinator told them to a host without a working copy of the membership.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<BTreeMap<HostName, SocketAddr>>>);

impl Told {
    /// The newest word of the coordinator; empty before the first.
    #[must_use]
    pub fn get(&self) -> BTreeMap<HostName, SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in a newer one.
    pub fn set(&self, voters: BTreeMap<HostName, SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = voters;
    }
}

/// Epochs that were released here, by guest: what the agent has on disk, for the tasks that carry orders out. A start that
/// was taken before a release came, and reaches its last step after it, finds it here (R9).
///
/// Nothing is forgotten before the supervisor ends, unlike on the agent's disk: a start on its way may wait for longer than anybody
/// waits for it, and nobody could say that none does. Each guest that was ever ordered to start or to stop here takes some 200 bytes.
#[derive(Debug, Clone, Default)]
pub struct Released {
    floors: Arc<Mutex<BTreeMap<GuestName, Epoch>>>,
    /// The newest epoch under which a start was begun, by guest (R7).
    begun: Arc<Mutex<BTreeMap<GuestName, Epoch>>>,
    generation: Arc<AtomicU32>,
}

impl Released {
    /// Those of a supervisor whose agent has learned of this generation in an earlier process: what is on its disk counts before
    /// anybody answers.
    #[must_use]
    pub fn knowing(generation: u32) -> Self {
        Self { generation: Arc::new(AtomicU32::new(generation)), ..Self::default() }
    }

    /// Nothing up to this epoch is started any more.
    pub fn raise(&self, guest: &GuestName, epoch: Epoch) {
        let mut floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = floors.entry(guest.clone()).or_default();
        *floor = (*floor).max(epoch);
    }

    /// A start under this epoch begins: one under an older epoch that is still on its way, because its host was slow and nobody waits
    /// for it any more, does not run the guest in its place (R7).
    pub fn begin(&self, guest: &GuestName, epoch: Epoch) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = begun.entry(guest.clone()).or_default();
        *newest = (*newest).max(epoch);
    }

    /// The newest generation that the agent has learned of: nothing is started any more that an older one has ordered (R25).
    pub fn outrank(&self, generation: u32) {
        self.generation.fetch_max(generation, Ordering::SeqCst);
    }

    /// The newest generation that the agent has learned of.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Whether the epoch may be started.
    ///
    /// # Errors
    /// That it was released, that a newer one was begun, or that its generation has ended.
    pub fn check_start(&self, guest: &GuestName, epoch: Epoch) -> Result<(), String> {
        let known = self.generation();
        if epoch.generation < known {
            return Err(format!("epoch {epoch} of {guest} is of an older generation than {known}"));
        }
        self.check(guest, epoch)
    }

    /// Whether the epoch may run: as the agent's disk has it, so that an order is judged alike when it is taken and when it is carried
    /// out. What arrives under a newer epoch is not let run by an older one's word.
    ///
    /// # Errors
    /// That it was released, or that a newer one was begun.
    pub fn check(&self, guest: &GuestName, epoch: Epoch) -> Result<(), String> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).get(guest).copied();
        if let Some(newest) = begun.filter(|newest| epoch < *newest) {
            return Err(format!("epoch {epoch} of {guest} is older than {newest}, which was begun meanwhile"));
        }
        let floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner);
        match floors.get(guest) {
            Some(floor) if epoch <= *floor => Err(format!("epoch {epoch} of {guest} was released meanwhile")),
            _ => Ok(()),
        }
    }
}

/// Orders that are not wanted any more, for the tasks that carry them out: no further `off` is sent (R20), and no guest is
/// handed over for a generation that has ended (R25).
#[derive(Debug, Clone, Default)]
pub struct Withdrawn(Arc<Mutex<BTreeSet<OrderId>>>);

impl Withdrawn {
    /// What the newest reply says.
    pub fn set(&self, orders: &BTreeSet<OrderId>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(orders);
    }

    /// Whether the order is withdrawn.
    #[must_use]
    pub fn contains(&self, order: OrderId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&order)
    }
}

/// Until when this host holds a lease; shared with the tasks that carry orders out.
#[derive(Debug, Clone)]
pub struct Lease {
    deadline: Arc<AtomicU64>,
    margin: Duration,
}

impl Lease {
    /// No lease yet. `lease` is how long one lasts.
    #[must_use]
    pub fn none(lease: Duration) -> Self {
        Self { deadline: Arc::default(), margin: margin(lease) }
    }

    /// The guard has accepted this deadline.
    pub fn extend(&self, deadline: Moment) {
        self.deadline.fetch_max(deadline.0, Ordering::Relaxed);
    }

    /// Whether it is valid with margin, read on the clock that counts suspend.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        clock::moment().plus(self.margin).0 < self.deadline.load(Ordering::Relaxed)
    }

    /// What is left of it.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let left = Moment(self.deadline.load(Ordering::Relaxed)).since(clock::moment());
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_epoch_is_not_started_and_the_next_one_is() {
        let (released, guest) = (Released::default(), GuestName::new("web-1").unwrap());
        let epoch = |index| Epoch { generation: 1, index };
        assert!(released.check(&guest, epoch(5)).is_ok());
        released.raise(&guest, epoch(5));
        released.raise(&guest, epoch(4));
        assert!(released.check(&guest, epoch(5)).is_err());
        assert!(released.check(&guest, epoch(6)).is_ok());
    }

    #[test]
    fn a_start_that_comes_late_does_not_run_in_the_place_of_a_newer_one() {
        let (released, guest) = (Released::default(), GuestName::new("web-1").unwrap());
        let epoch = |index| Epoch { generation: 1, index };
        released.begin(&guest, epoch(5));
        assert!(released.check_start(&guest, epoch(5)).is_ok());
        released.begin(&guest, epoch(7));
        released.begin(&guest, epoch(6));
        assert!(released.check_start(&guest, epoch(5)).is_err());
        assert!(released.check_start(&guest, epoch(7)).is_ok());
        assert!(released.check(&guest, epoch(5)).is_err(), "nor is what comes in its place resumed by its word");
        assert!(released.check(&guest, epoch(7)).is_ok());
    }

    #[test]
    fn nothing_is_started_that_an_older_generation_has_ordered_and_what_runs_may_be_resumed() {
        let (released, guest) = (Released::default(), GuestName::new("web-1").unwrap());
        let epoch = Epoch { generation: 1, index: 7 };
        assert!(released.check_start(&guest, epoch).is_ok());
        released.outrank(3);
        released.outrank(2);
        assert!(released.check_start(&guest, epoch).is_err());
        assert!(released.check(&guest, epoch).is_ok());
        assert!(released.check_start(&guest, Epoch { generation: 3, index: 1 }).is_ok());
        let next_process = Released::knowing(released.generation());
        assert!(next_process.generation() == 3 && next_process.check_start(&guest, epoch).is_err());
    }
}
