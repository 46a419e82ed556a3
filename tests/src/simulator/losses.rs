//! What is lost beside the stores of a majority, and what is left of them (R24, R25).
//!
//! ```text
//!  a lost voter's disk --often--> its agent's memory, which lies beside the store: it fetches its floors anew (R12)
//!  a recovered cluster --lost once more--> from the store that is newest, or from one that was put aside when it was lost first
//!        |                                                               |
//!        |                        a host has seen a later generation still (alert `store`): a person does it once more
//!        +-- what the lost history had of others: hosts that were revoked, and names that got a new machine
//! ```
//! Two survivors that are recovered by mistake, and both decide, are out of reach: what is really committed is one log here.

use std::collections::BTreeSet;

use holdfast_policies::{
    change::Change,
    state::{ClusterState, QuarantineCause},
};

use super::{
    Ms,
    faults::{Happening, Plan, heals},
    host::Host,
    oddities::before,
    queue::Event,
    random::Random,
    setup::Setup,
    world::World,
};

/// The stream of chance that all of it is drawn from: what else there is of a majority that is lost stays as it was.
const LOSSES: u64 = 31;
/// New generations are up to so many above the newest that is known, as chance has it.
const CHANCES: u64 = 1_000;
/// A supervisor of whoever recovers the cluster once more is started so long after it was stopped.
const AGAIN_BACK: Ms = 2_000;
/// So soon it is lost once more before all voters vote again, if that is to be.
const SOON: std::ops::Range<Ms> = 2_000..12_000;
/// So much longer it takes until everything is at rest where a name has a new machine: it comes, people look, and it joins.
const SETTLED_WITHIN: Ms = 15_000;
/// A person tries to settle which machine a name means again and again until it has joined: every half a second.
const TRIES: u32 = 40;

/// From which store the cluster goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Store {
    /// The one that the survivor votes with.
    #[default]
    Newest,
    /// The one that it had when the majority was lost the first time: it was put aside then.
    Older,
}

/// What a majority is lost with, and what is left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loss {
    /// Lost voters whose agents' memories are gone too. Their hosts and guests run on.
    pub memories: BTreeSet<usize>,
    /// From which store the cluster goes on.
    pub from: Store,
    /// What decides by how much the new generation is above the newest that is known.
    pub chance: u32,
}

/// Makes more of a majority that is lost: the memories go too, it is lost once more, and what the lost history had is more than
/// moves and failovers.
pub fn draw(setup: &Setup, mut plan: Plan) -> Plan {
    let mut random = Random::new(setup.seed, LOSSES);
    let lost = plan.iter_mut().find_map(|(at, what)| match what {
        Happening::MajorityLost { survivor, loss, .. } => Some((*at, *survivor, loss)),
        _ => None,
    });
    let Some((at, survivor, loss)) = lost else { return plan };
    if random.one_in(2) {
        loss.memories = others(&mut random, setup, survivor);
    }
    let mut last = at;
    let mut more = Plan::new();
    if random.one_in(2) {
        loss.chance = chance(&mut random, CHANCES);
        let once_more = lost_again(&mut random, setup, survivor, loss);
        last = when(&mut random, at, &heals(&plan));
        more = between(&mut random, setup, (at, last), once_more);
    }
    if random.one_in(2) {
        let lost = if random.one_in(2) { at } else { last };
        more.extend(history(&mut random, setup, (begun(&plan, lost), lost)));
    }
    plan.extend(more);
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// Some of the voters that are lost.
fn others(random: &mut Random, setup: &Setup, survivor: usize) -> BTreeSet<usize> {
    (0..setup.voters).filter(|voter| *voter != survivor && random.one_in(2)).collect()
}

fn chance(random: &mut Random, below: u64) -> u32 {
    u32::try_from(random.below(below)).unwrap_or(0)
}

/// From which store the cluster goes on once it is lost again: the newest of whoever votes then, or an old one. Whose store was put
/// aside, its agent's memory is there too.
fn lost_again(random: &mut Random, setup: &Setup, first: usize, loss: &mut Loss) -> (usize, Loss) {
    let any = random.index(setup.voters);
    let (survivor, from) = match random.below(5) {
        0 => (first, Store::Newest),
        1 => (any, Store::Newest),
        2 => (first, Store::Older),
        _ => (any, Store::Older),
    };
    if from == Store::Older {
        loss.memories.remove(&survivor);
    }
    let memories = if random.one_in(2) { others(random, setup, survivor) } else { BTreeSet::new() };
    // Two that do not know of each other come to the same number once in a thousand times: that is put up with in the product.
    let apart = 1 + chance(random, CHANCES - 1);
    (survivor, Loss { memories, from, chance: (loss.chance + apart) % 1_000 })
}

/// Soon, before all of them vote again; or in a later burst of faults.
fn when(random: &mut Random, at: Ms, healed: &[Ms]) -> Ms {
    let later: Vec<Ms> = healed.iter().copied().filter(|healed| *healed > at).collect();
    match later.as_slice() {
        [_, rest @ ..] if !rest.is_empty() && random.one_in(2) => {
            let healed = rest[random.index(rest.len())];
            before(random, healed, 6_000, 14_000)
        }
        [soon, ..] => (at + random.between(SOON.start, SOON.end)).min(soon.saturating_sub(500)),
        [] => at + random.between(SOON.start, SOON.end),
    }
}

/// The second loss, and what happens between the two. Whoever has an old store often learns nothing of the generation between.
fn between(random: &mut Random, setup: &Setup, (at, again): (Ms, Ms), (survivor, loss): (usize, Loss)) -> Plan {
    let mut plan = Plan::new();
    if loss.from == Store::Older && !random.one_in(3) {
        let time = again.saturating_sub(at) + random.between(500, 6_000);
        plan.push((at, Happening::Cut { host: survivor, time }));
    }
    if random.one_in(2) {
        let host = random.index(setup.hosts.len());
        let boots = again.saturating_sub(random.between(500, 6_000)).max(at);
        plan.push((boots, Happening::PowerCut { host, back: Some(random.between(500, 4_000)) }));
    }
    plan.push((again, Happening::MajorityLost { survivor, back: random.between(1_000, 6_000), loss }));
    plan
}

/// When the faults have begun in whose midst something is lost. Before that other tools may be moving guests, and resets of a guest's own
/// are let pass, which a fault of its host would spoil.
fn begun(plan: &[(Ms, Happening)], lost: Ms) -> Ms {
    let is_fault = |what: &Happening| {
        !matches!(
            what,
            Happening::MovedByOthers { .. } | Happening::ResetsItself { .. } | Happening::ResetsItselfAgain { .. }
        )
    };
    let before = plan.iter().rev().filter(|(at, what)| *at <= lost && is_fault(what));
    before.take_while(|(_, what)| !matches!(what, Happening::Heal)).last().map_or(lost, |(at, _)| *at)
}

/// A host without a vote is revoked in the history that is lost, or its name is given to a new machine.
fn history(random: &mut Random, setup: &Setup, (begun, lost): (Ms, Ms)) -> Plan {
    let members = setup.hosts.len().saturating_sub(setup.voters);
    if members == 0 {
        return Plan::new();
    }
    let host = setup.voters + random.index(members);
    let at = lost.saturating_sub(random.between(8_000, 22_000)).max(begun).min(lost);
    if random.one_in(2) {
        return vec![(at, Happening::NewMachine { host, back: random.between(2_000, 6_000) })];
    }
    let revoked = (at + random.between(1_000, 5_000)).min(lost);
    let off = Happening::PowerCut { host, back: Some(random.between(12_000, 20_000)) };
    vec![(at, off), (revoked, Happening::Revoked { host })]
}

impl World {
    /// Notes what was committed that a store knows nothing of.
    pub(super) fn note_lost(&mut self, left: &ClusterState) {
        let lost = &self.truth.state;
        let hosts = || lost.hosts.iter().map(|(name, known)| (known, left.hosts.get(name)));
        let boots =
            hosts().filter(|(known, left)| left.is_none_or(|left| left.facts.incarnation != known.facts.incarnation));
        let machines =
            hosts().filter(|(known, left)| left.is_some_and(|left| left.facts.machine_id != known.facts.machine_id));
        let revoked = lost.revoked.iter().filter(|(name, known)| left.revoked.get(*name) != Some(*known));
        let (boots, machines, revoked) = (boots.count(), machines.count(), revoked.count());
        self.seen.boots_lost += boots as u64;
        self.seen.machines_lost += machines as u64;
        self.seen.revocations_lost += revoked as u64;
    }

    /// The newest generation that a host knows of.
    pub(super) fn known_generation(&self, host: usize) -> u32 {
        let known = &self.hosts[host];
        let agent = known.supervisor.as_ref().map_or(0, |supervisor| supervisor.agent.disk().authority.generation);
        agent.max(known.disk.authority.generation)
    }

    /// Whether a host has seen a later generation than the one that goes on, and so obeys nobody.
    pub(super) fn is_ahead(&self, host: usize) -> bool {
        self.known_generation(host) > self.truth.state.generation
    }

    /// Alert `store` after a recovery: a host has seen a later generation still. Whoever is called does it once more, and is told of
    /// that one by then.
    pub(super) fn recover_once_more(&mut self) {
        let is_ahead = (0..self.named).any(|host| self.hosts[host].serves(self.now) && self.is_ahead(host));
        let Some(voter) = self.coordinator().filter(|_| is_ahead && self.recovered.is_some()) else { return };
        if !self.voters[voter].brain.halted {
            return;
        }
        let loss = Loss { chance: chance(&mut self.random, CHANCES), ..Loss::default() };
        self.seen.done_once_more += 1;
        self.lose_majority(voter, AGAIN_BACK, &loss);
    }

    /// Another machine is set up under a host's name, with an empty disk, in the place of one that is scrapped. Not of a voter: that
    /// one would begin with an invitation.
    pub(super) fn new_machine(&mut self, host: usize, back: Ms) {
        if host < self.voters.len() || host >= self.named || self.twin.is_some() {
            return;
        }
        self.power_off(host, None);
        let id = format!("machine {} of {}", self.hosts[host].boot, self.hosts[host].name);
        self.hosts[host].is_machine(&id);
        self.lose_disk(host);
        self.power_on_after(host, back);
        self.queue.push(self.now, Event::Operator { what: Box::new(Happening::NameSettled { host }), tries: TRIES });
    }

    /// A person says that a name means the new machine, once it has come; whether there is nothing more to be tried.
    pub(super) fn settle_new_machine(&mut self, host: usize) -> bool {
        let (name, id) = (self.hosts[host].name.clone(), self.hosts[host].facts.machine_id.clone());
        let Some(known) = self.truth.state.hosts.get(&name) else { return false };
        let claimed = known.quarantine.as_ref().map(|quarantine| &quarantine.cause);
        if matches!(claimed, Some(QuarantineCause::OtherMachine { claims }) if *claims == id) {
            let (machine_id, by) = (Some(id), Some("ann".to_owned()));
            self.operate(Change::QuarantineLifted { host: name, machine_id, by });
            return false;
        }
        known.facts.machine_id == id
    }

    /// How much longer it takes until everything is at rest because of new machines.
    pub(super) fn settled_within(&self) -> Ms {
        let hosts = &self.truth.state.hosts;
        let is_new = |host: &Host| {
            let known = hosts.get(&host.name);
            known.is_some_and(|known| known.facts.machine_id != host.facts.machine_id)
        };
        if self.twin.is_none() && self.hosts.iter().any(is_new) { SETTLED_WITHIN } else { 0 }
    }

    /// Once the faults have stopped, people do so for all names; with a second machine under one of them that is another matter.
    pub(super) fn settle_new_machines(&mut self) {
        if self.twin.is_some() {
            return;
        }
        for host in 0..self.named {
            self.settle_new_machine(host);
        }
    }
}

#[cfg(test)]
mod tests;
