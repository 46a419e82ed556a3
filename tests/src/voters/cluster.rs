//! The voters' processes and disks: births, power cuts and returns, what must hold at every step, and how everything has to
//! end when the troubles do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use holdfast::consensus::{Place, Tuning};
use holdfast_policies::names::HostName;
use openraft::{AsyncRuntime as _, Config, Instant as _, async_runtime::WatchReceiver as _};
use openraft_rt_sim::{SimInstant, SimRuntime};

use super::{
    disk::Disk,
    exchange::Exchange,
    ledger::Ledger,
    link::Links,
    machine::{Applier, Mirror, SharedMirror, locked},
    network::{Network, Process, Weather},
    plan::Setup,
    run::End,
    types::{LeaderId, LogId, Voter},
};

/// How often everything is looked at.
const STEP: Duration = Duration::from_millis(25);
/// Longer than this nobody needs after the troubles have ended: a lease and two elections, messages that raft sends again with
/// its longest back-off, a snapshot, and an exchange that is still to be carried out.
const HEAL_MAX: Duration = Duration::from_secs(15);

/// The voters, and all that they stand on.
pub(super) struct Cluster {
    pub(super) setup: Setup,
    pub(super) network: Network,
    pub(super) ledger: Ledger,
    pub(super) exchanges: Vec<Exchange>,
    /// Whom the leader was asked to hand the lead to.
    pub(super) successor: Option<u64>,
    config: Arc<Config>,
    disks: BTreeMap<u64, Disk>,
    /// When those come back who lost their power.
    down: BTreeMap<u64, SimInstant>,
    leader: Option<LeaderId>,
    /// How far everybody was when states were last compared.
    compared: Vec<(u64, Option<LogId>)>,
}

impl Cluster {
    /// Starts the founders, on empty disks, and has one of them found the cluster.
    pub(super) async fn found(setup: Setup, ledger: Ledger) -> Result<Self, End> {
        let defaults = Tuning::default();
        let (snapshot_every, keep_entries) =
            setup.snapshots.unwrap_or((defaults.snapshot_every, defaults.keep_entries));
        let tuning = Tuning { snapshot_every, keep_entries, ..defaults };
        let config = tuning.raft_config("voters").map_err(|error| End::Violated(error.to_string()))?;
        let mut cluster = Self {
            setup,
            network: Network::new(ledger.clone(), setup.chance(1)),
            ledger,
            exchanges: Vec::new(),
            successor: None,
            config: Arc::new(config),
            disks: BTreeMap::new(),
            down: BTreeMap::new(),
            leader: None,
            compared: Vec::new(),
        };
        let mut places = BTreeMap::new();
        for id in 1..=setup.voters {
            cluster.start(id).await?;
            places.insert(id, place(id)?);
        }
        if let Some(founder) = cluster.network.process(1) {
            let founded = founder.voter.initialize(places).await;
            founded.map_err(|error| End::Violated(format!("R23: the cluster is not founded: {error}")))?;
        }
        Ok(cluster)
    }

    /// Starts a voter's process on its disk; a new voter has an empty one.
    pub(super) async fn start(&mut self, id: u64) -> Result<(), End> {
        let disk = self.disk(id);
        disk.kept(|kept| self.ledger.check_memory(id, kept));
        self.stop_at_violation()?;
        let store = disk.store(self.setup.append_waits);
        let boot = store.boot();
        let mirror = Mirror::new(id, self.ledger.clone());
        let applier = Applier::new(SharedMirror::clone(&mirror), store.clone());
        let links = Links { network: self.network.clone(), from: id, boot };
        match Voter::new(id, Arc::clone(&self.config), links, store, applier).await {
            Ok(voter) => {
                self.ledger.note(&format!("voter {id} starts, boot {boot}"));
                self.network.join(Process { id, boot, voter, mirror });
                self.stop_at_violation()
            }
            Err(error) => Err(End::Violated(format!("S6: voter {id} cannot start from what it has on disk: {error}"))),
        }
    }

    fn disk(&mut self, id: u64) -> Disk {
        let (chance, broken) = (self.setup.chance(1_000 + id), self.setup.broken);
        self.disks.entry(id).or_insert_with(|| Disk::new(chance, broken)).clone()
    }

    /// Cuts a process's power. It comes back after a while, or never.
    pub(super) fn crash(&mut self, id: u64, back: Option<Duration>) {
        self.down.remove(&id);
        if let Some(back) = back {
            self.down.insert(id, SimInstant::now() + back);
        }
        let Some(process) = self.network.leave(id) else { return };
        if let Some(disk) = self.disks.get(&id) {
            disk.cut_power();
        }
        self.ledger.count(|seen| seen.crashes += 1);
        self.ledger.note(&format!("voter {id} has no power"));
        // What is left of the process reaches neither disk nor network, and ends.
        SimRuntime::spawn(async move { process.voter.shutdown().await.is_ok() });
    }

    /// Everybody who has ever had a disk.
    pub(super) fn everybody(&self) -> Vec<u64> {
        self.disks.keys().copied().collect()
    }

    pub(super) fn set_slowness(&self, id: u64, times: u64) {
        if let Some(disk) = self.disks.get(&id) {
            disk.set_slowness(times);
        }
    }

    /// Lets time pass up to this moment, looking at everything again and again.
    pub(super) async fn until(&mut self, moment: SimInstant) -> Result<(), End> {
        while SimInstant::now() < moment {
            self.step().await?;
        }
        Ok(())
    }

    pub(super) async fn step(&mut self) -> Result<(), End> {
        SimRuntime::sleep(STEP).await;
        let now = SimInstant::now();
        let back: Vec<u64> = self.down.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in back {
            self.down.remove(&id);
            self.start(id).await?;
        }
        self.retire();
        self.check_alive()?;
        self.compare();
        self.follow_leader();
        self.stop_at_violation()
    }

    /// Whoever was exchanged ends for good.
    fn retire(&mut self) {
        let all = std::mem::take(&mut self.exchanges).into_iter();
        let (done, going_on): (Vec<Exchange>, Vec<Exchange>) = all.partition(Exchange::is_done);
        self.exchanges = going_on;
        for exchange in done {
            self.ledger.count(|seen| seen.exchanged += 1);
            self.ledger.note(&format!("voter {} has taken the place of {}", exchange.new, exchange.old));
            self.crash(exchange.old, None);
        }
    }

    /// Nobody whose power was not cut stops by itself.
    fn check_alive(&self) -> Result<(), End> {
        for process in self.network.processes() {
            let mut metrics = process.voter.metrics();
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return Err(End::Violated(format!("S6: voter {} has stopped by itself: {fatal}", process.id)));
            }
            // Raft that has panicked says nothing any more.
            while let Some(changed) = metrics.changed().now_or_never() {
                if changed.is_err() {
                    return Err(End::Violated(format!("S6: voter {} has stopped without a word", process.id)));
                }
            }
        }
        Ok(())
    }

    /// S6: two states that are equally far are equal.
    fn compare(&mut self) {
        let processes = self.network.processes();
        let reached = |process: &Process| (process.id, locked(&process.mirror).applied);
        let reached: Vec<(u64, Option<LogId>)> = processes.iter().map(reached).collect();
        if reached == self.compared {
            return;
        }
        self.compared = reached;
        let mut first: BTreeMap<LogId, &Process> = BTreeMap::new();
        for process in &processes {
            let own = locked(&process.mirror);
            let Some(applied) = own.applied else { continue };
            match first.get(&applied) {
                None => {
                    first.insert(applied, process);
                }
                Some(other) => {
                    let theirs = locked(&other.mirror);
                    if own.replica.state != theirs.replica.state || own.history != theirs.history {
                        let (one, two) = (other.id, process.id);
                        self.ledger.fail(&format!("S6: voters {one} and {two} differ at {applied}"));
                    }
                }
            }
        }
    }

    fn follow_leader(&mut self) {
        let Some(process) = self.network.leader() else { return };
        let leader = process.leads();
        if leader != self.leader {
            self.leader = leader;
            self.ledger.note(&format!("voter {} leads", process.id));
            if self.successor.take() == Some(process.id) {
                self.ledger.count(|seen| seen.handed_over += 1);
            }
        }
    }

    fn stop_at_violation(&self) -> Result<(), End> {
        self.ledger.violation().map_or(Ok(()), |violation| Err(End::Violated(violation)))
    }

    /// All troubles end. Returns how long it took until everybody had everything.
    pub(super) async fn heal(&mut self) -> Result<Duration, End> {
        self.ledger.note("all troubles end");
        self.network.set_weather(Weather::default());
        self.disks.values().for_each(|disk| disk.set_slowness(1));
        let now = SimInstant::now();
        self.down.values_mut().for_each(|back| *back = now);
        let last_number = self.ledger.last_number();
        while !self.ledger.is_acknowledged_after(last_number) || !self.exchanges.is_empty() {
            self.step_before(now + HEAL_MAX, "nothing was acknowledged, or an exchange goes on").await?;
        }
        self.ledger.close();
        while !self.is_at_rest() {
            self.step_before(now + HEAL_MAX, "not everybody has everything").await?;
        }
        let healed = SimInstant::now() - now;
        for process in self.network.processes() {
            self.ledger.check_history(process.id, &locked(&process.mirror).history);
        }
        self.stop_at_violation()?;
        self.ledger.note("everybody has everything");
        Ok(healed)
    }

    async fn step_before(&mut self, end: SimInstant, why: &str) -> Result<(), End> {
        if SimInstant::now() < end {
            return self.step().await;
        }
        let told =
            |process: &Process| format!("voter {} has applied {:?}", process.id, locked(&process.mirror).applied);
        let all: Vec<String> = self.network.processes().iter().map(told).collect();
        Err(End::Unhealed(format!("{why} {HEAL_MAX:?} after the troubles had ended: {}", all.join(", "))))
    }

    /// Whether there is a leader, and all its voters have applied all that it has.
    fn is_at_rest(&self) -> bool {
        let Some(leader) = self.network.leader() else { return false };
        let (last, voters) = {
            let metrics = leader.voter.metrics();
            let metrics = metrics.borrow_watched();
            let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
            (metrics.last_log_index, voters)
        };
        let has_all = |id: u64| {
            let process = self.network.process(id);
            process.is_some_and(|process| locked(&process.mirror).applied.map(|applied| applied.index()) == last)
        };
        last.is_some() && voters.into_iter().all(has_all)
    }
}

/// Who a voter is. Nobody listens there: the simulated network knows voters by their ids.
pub(super) fn place(id: u64) -> Result<Place, End> {
    let host = HostName::new(format!("hv-{id}")).map_err(|error| End::Violated(error.to_string()))?;
    let port = u16::try_from(7_000 + id).unwrap_or(7_000);
    Ok(Place { host, address: ([127, 0, 0, 1], port).into() })
}
