//! A majority of the voters that is lost for good, and the survivor from whose store an operator makes a new generation (R25).
//!
//! ```text
//!  all voters --their stores are gone, at once--> one store --product's `recover`--> first snapshot of a new log, deciding suspended
//!                                                                                       |
//!  the other voters' hosts and their guests run on; their supervisors come back with empty stores, and learn (R24) <--+
//! ```
//! Often the survivor was cut off for a while before: what the others have decided meanwhile is lost, and hosts have acted on it.
//! What else is lost with the stores, and how a cluster is lost once more, is drawn in [`super::losses`].
//! Operators resume deciding once every host has learned of the generation, or is off and said to be.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::{
    names::{Epoch, HostName, OrderId},
    proof::Proof,
    recovery::{Recovery, next_generation, next_index},
    revocation::Revocation,
    state::{ClusterState, Life, Phase},
};

use super::{
    Ms,
    breaks::Break,
    faults::{Happening, Plan, heals},
    losses::{Loss, Store},
    oddities::before,
    queue::Event,
    random::Random,
    setup::Setup,
    snapshot::Snapshot,
    voter::LogEntry,
    world::World,
};

/// A recovery so long ago is over, for whoever waits for everything to be at rest.
const RECENT: Ms = 60_000;
/// So much longer it takes until everything is at rest after one: every host has to be asked, and people look twice.
const RECOVERED_WITHIN: Ms = 60_000;

/// Has a majority be lost before one of the heals. Not where something is counted that a lost history forgets, and not beside
/// versions that know of no generations.
pub fn draw(setup: &Setup, random: &mut Random, mut plan: Plan) -> Plan {
    let healed = heals(&plan);
    let cluster = &setup.policies.cluster;
    let counts = cluster.fences_per_hour.is_some() || cluster.fences_per_hour_in_all.is_some();
    if healed.is_empty() || counts || setup.twin.is_some() || !setup.old.is_empty() || setup.voters < 3 {
        return plan;
    }
    let healed = healed[random.index(healed.len())];
    let (survivor, at) = (random.index(setup.voters), before(random, healed, 6_000, 14_000));
    let cut = at.saturating_sub(random.between(1_000, 16_000)).max(18_000).min(at);
    if !random.one_in(3) {
        let (dies, back) = (random.index(setup.hosts.len()), Some(random.between(500, 9_000)));
        plan.push((cut, Happening::Cut { host: survivor, time: at - cut + 500 }));
        plan.push((cut + 100, Happening::PowerCut { host: dies, back }));
    }
    let back = random.between(1_000, 6_000);
    plan.push((at, Happening::MajorityLost { survivor, back, loss: Loss::default() }));
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// What the store of a voter amounts to: all that it has, committed or not.
#[derive(Clone)]
pub struct Remains {
    state: ClusterState,
    /// The number of its last entry.
    last: u64,
    /// The newest term that it knows.
    term: u64,
}

/// Who was revoked as of which view, as a host was told.
type Told = (u64, BTreeMap<HostName, Revocation>);

impl World {
    /// All voters but one lose their stores at once, and the survivor's becomes the first of a new generation. Of all the stores that
    /// there were when that came first, some may turn out to be whole when it comes again.
    pub(super) fn lose_majority(&mut self, survivor: usize, back: Ms, loss: &Loss) {
        if self.truth.state.guests.is_empty() || !self.has_store(survivor, loss.from) {
            return;
        }
        self.rest_since = None;
        let told = self.hosts[survivor].supervisor.as_ref().map(|known| (known.view.index, known.view.revoked.clone()));
        for voter in 0..self.voters.len() {
            self.crash_supervisor(voter);
        }
        if self.recovered.is_none() {
            self.old_stores = (0..self.voters.len()).map(|voter| (voter, self.remains(voter))).collect();
        }
        let remains = match loss.from {
            Store::Newest => Some(self.remains(survivor)),
            Store::Older => self.old_stores.get(&survivor).cloned(),
        };
        let Some(remains) = remains else { return };
        self.lose_memories(survivor, loss);
        let Some(state) = self.as_recovered(survivor, &remains, told, loss.chance) else { return };
        self.story
            .note(self.real(), || format!("generation {} begins after entry {}", state.generation, state.applied));
        self.note_lost(&remains.state);
        self.seen.lost_again += u64::from(self.recovered.is_some());
        self.seen.older_stores += u64::from(loss.from == Store::Older);
        self.begin_generation(survivor, remains.term, state);
        for voter in 0..self.voters.len() {
            // The others are added by hand, one after the other.
            let later = if voter == survivor { 0 } else { 1_000 + 700 * voter as Ms };
            let known = &self.hosts[voter];
            let (boot, life, runs) = (known.boot, known.life, known.on && !known.hung);
            if runs {
                self.queue.push(self.now + back + later, Event::SupervisorUp { host: voter, boot, life });
            } else if voter == survivor && !self.hosts[voter].on {
                self.power_on_after(voter, back);
            }
        }
    }

    /// Whether a voter has such a store. The first time all have to vote: what a learner has is no store to go on from.
    fn has_store(&self, survivor: usize, from: Store) -> bool {
        let votes = |voter: usize| self.voters.get(voter).is_some_and(|known| !known.learner);
        match from {
            Store::Newest if self.recovered.is_none() => votes(survivor) && (0..self.voters.len()).all(votes),
            Store::Newest => votes(survivor),
            Store::Older => self.old_stores.get(&survivor).is_some_and(|old| !old.state.guests.is_empty()),
        }
    }

    /// An agent's memory lies beside the store, on the disk that is lost. Nothing of the host's guests lies there.
    fn lose_memories(&mut self, survivor: usize, loss: &Loss) {
        for voter in (0..self.voters.len()).filter(|voter| *voter != survivor) {
            if loss.memories.contains(&voter) {
                self.lose_disk(voter);
                self.seen.memories_lost += 1;
            }
        }
    }

    fn remains(&self, voter: usize) -> Remains {
        let known = &self.voters[voter];
        let mut state = known.state.clone();
        for (place, entry) in known.log.iter().enumerate().skip(known.applied) {
            if let Some(command) = &entry.command {
                let _applied = state.apply(self.base + place as u64 + 1, (**command).clone());
            }
        }
        Remains { state, last: self.base + known.log.len() as u64, term: known.term }
    }

    /// What is made of all that the survivor's store has, committed or not.
    fn as_recovered(
        &self,
        survivor: usize,
        remains: &Remains,
        told: Option<Told>,
        chance: u32,
    ) -> Option<ClusterState> {
        let mut state = remains.state.clone();
        let agent = self.hosts[survivor].disk.authority;
        let known = state.generation.max(agent.generation).max(self.heard_generation(survivor));
        let recovery = Recovery {
            generation: next_generation(known, chance)?,
            index: next_index(state.applied.max(remains.last).max(agent.index)),
            at: self.wall(),
            survivor: self.hosts[survivor].name.clone(),
            newest: None,
            by: "ann".to_owned(),
            revoked: told.map(|told| revoked_since(told, &state)).unwrap_or_default(),
        };
        if let Err(error) = state.recover(&recovery) {
            panic!("a store was not recovered: {error}");
        }
        if self.broken == Some(Break::R25) {
            take_to_be_nowhere(&mut state, &recovery.survivor);
        }
        Some(state)
    }

    /// The newest generation that another host tells of to whoever looks at the survivor's store: their supervisors run meanwhile.
    fn heard_generation(&self, survivor: usize) -> u32 {
        let good = |one: usize, other: usize| self.network.good(one, other, self.now);
        let is_heard = |host: &usize| {
            self.hosts[*host].alive(self.now) && good(*host, survivor) && good(survivor, *host) && *host != survivor
        };
        let heard = (0..self.named).filter(is_heard).map(|host| self.known_generation(host));
        heard.max().unwrap_or_default()
    }

    /// A log begins whose first place is that state; nothing that an older one's voters have said arrives any more.
    fn begin_generation(&mut self, survivor: usize, term: u64, state: ClusterState) {
        // The others may have known later ones: whose word counts is told by the generation first. An older store's next one may be one
        // in which this voter has asked power devices since, and their answers are told apart by it.
        let term = term.max(self.voters[survivor].term) + 1;
        for voter in 0..self.voters.len() {
            self.voters[voter].wipe(voter);
            self.voters[voter].learner = voter != survivor;
        }
        let known = &mut self.voters[survivor];
        known.term = term;
        known.log = vec![LogEntry { term, id: 0, proposed: self.now, command: None }];
        (known.synced, known.commit, known.applied, known.purged) = (1, 1, 1, 1);
        known.snapshot = Some(Snapshot::of(&state, 1, term));
        known.state = state.clone();
        self.base = state.applied.saturating_sub(1);
        self.era += 1;
        self.members = BTreeSet::from([survivor]);
        // From an older store numbers may begin anew that were given since: for a while nobody can tell which order one means.
        let given = self.lost_orders.max(self.truth.state.last_order);
        if state.last_order <= given {
            self.restarted.clear();
        }
        (self.recovered, self.lost_orders) = (Some(self.now), given.max(state.last_order));
        self.seen.generations += 1;
        (self.truth.log, self.truth.state) = (vec![0], state);
        self.versions.note(&self.truth.state, self.now);
        self.note_shut();
        self.untold.clear();
        self.lies.clear();
    }

    /// How much longer it takes until everything is at rest because of recoveries: of one, and of one that is still to be made.
    pub(super) fn recovered_within(&self) -> Ms {
        let once_more = self.recovered.is_some() && (0..self.named).any(|host| self.is_ahead(host));
        let recent = if self.has_recovered() { RECOVERED_WITHIN } else { 0 };
        recent + if once_more { RECOVERED_WITHIN } else { 0 }
    }

    /// Whether people may resume deciding: after a recovery only when every host has learned of the generation, or is off and said
    /// to be.
    pub(super) fn may_resume(&self) -> bool {
        let state = &self.truth.state;
        let is_known = |index: usize| {
            let host = &self.hosts[index];
            let agent = host.supervisor.as_ref().map(|supervisor| &supervisor.agent);
            // One that has seen a later generation halts the cluster, and has to be outranked first.
            let knows = agent.is_some_and(|agent| agent.disk().authority.generation == state.generation);
            let life = state.hosts.get(&host.name).map(|known| &known.life);
            let is_gone = !host.on && life.is_none_or(|life| matches!(life, Life::Gone { .. }));
            is_gone || (host.serves(self.now) && knows)
        };
        state.open_incident(ClusterState::RECOVERY_KEY).is_none() || (0..self.named).all(is_known)
    }

    /// Whether an order was given in a history that was lost lately. What it has sent to a power device may still arrive: nothing
    /// that is known any more says of it what it should have been.
    pub(super) fn is_lost(&self, order: OrderId) -> bool {
        self.has_recovered() && order.0 <= self.lost_orders
    }

    /// The same of an assignment: a guest that was sent under it may still be let run.
    pub(super) fn is_of_lost(&self, epoch: Epoch) -> bool {
        self.has_recovered() && epoch.generation > 0 && epoch.generation != self.truth.state.generation
    }

    /// Whether a generation has begun lately: longer ago than any fault, device or go-ahead lasts, nothing of before is under way.
    pub(super) fn has_recovered(&self) -> bool {
        self.recovered.is_some_and(|at| self.now - at < RECENT)
    }
}

/// Whom a host was told to be revoked after the newest entry of its store, as the product finds it there.
fn revoked_since((index, revoked): Told, state: &ClusterState) -> BTreeMap<HostName, Revocation> {
    if index <= state.applied {
        return BTreeMap::new();
    }
    revoked.into_iter().filter(|(host, revocation)| state.revoked.get(host) != Some(revocation)).collect()
}

/// R25 broken: what nobody knows the place of is taken to be nowhere, and nobody looks before it is started.
fn take_to_be_nowhere(state: &mut ClusterState, survivor: &HostName) {
    let boot = state.hosts.get(survivor).map(|known| known.facts.incarnation.clone());
    let Some(proof) = boot.and_then(|boot| Proof::operator(survivor, &boot, "ann", None, 0).ok()) else { return };
    let since = state.applied;
    state.suspended = None;
    for guest in state.guests.values_mut() {
        guest.phase = Phase::Free { proof: proof.clone(), last: None, avoid: BTreeSet::new(), since };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::guest::Vm;

    const HOSTS: usize = 4;

    /// What the others have decided while the survivor was cut off is lost; the guests that they moved are adopted where they are.
    #[test]
    fn a_cluster_goes_on_from_a_survivor_that_has_missed_a_failover_and_starts_nothing_twice() {
        let mut policies = Setup::random(1, HOSTS, HOSTS, None).policies;
        let names = Setup::random(1, HOSTS, HOSTS, None).hosts.into_iter().map(|host| host.name);
        policies.fencing = names.map(|name| (name, vec![crate::simulator::setup::device()])).collect();
        for survivor in 0..3 {
            let mut world = World::at_rest(&Setup::plain(HOSTS, policies.clone()));
            let dies =
                (0..HOSTS).rev().find(|host| *host != survivor && !world.hosts[*host].machines.is_empty()).unwrap();
            world.happen(&Happening::Cut { host: survivor, time: 14_000 });
            world.happen(&Happening::PowerCut { host: dies, back: None });
            world.run_until(world.real() + 13_000);
            world.happen(&Happening::MajorityLost { survivor, back: 2_000, loss: Loss::default() });
            assert_eq!((world.state().generation, world.seen.generations), (2, 1));
            world.run_until(world.real() + 15_000);
            assert!(world.state().suspended.is_some(), "nobody has looked yet");
            world.heal_by_hand();
            assert_eq!((world.violation(), world.unhealed()), (None, None), "survivor {survivor}");
            for guest in world.state().guests.keys() {
                let runs = |host: &&crate::simulator::host::Host| {
                    host.machines.get(guest).is_some_and(|machine| machine.state == Vm::Running)
                };
                assert_eq!(world.hosts.iter().filter(runs).count(), 1, "survivor {survivor}: {guest}");
            }
            assert!(world.voters.iter().all(|voter| !voter.learner), "all of them vote again");
        }
    }
}
