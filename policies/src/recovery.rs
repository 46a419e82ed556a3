//! A new cluster generation, after a majority of the voters was lost for good (R25).
//!
//! The store of one surviving voter is what is left. Others may have decided more, and agents may have acted on it: moved
//! guests, rebooted hosts, changed what is wanted. So nothing that the store says about *where something runs* is believed
//! any more, and nothing is begun before a person has looked:
//!
//! ```text
//!  guest, wherever it was  -> Unplaced: found on one host, or on none by the word of all that could run it (R8)
//!  host, whatever its life -> Up: heard anew, or proven off anew; what was proven is of a boot that may be over
//!  order, fence, drill     -> gone: an agent of the new generation begins nothing that an older one has ordered
//!  deciding                -> suspended, until an operator resumes it
//!  certificate             -> as much as the survivor knows: who was told to be revoked is so still, and may run guests
//!                             all the same until it is proven off (R27)
//! ```
//! It is no command of the log: what it makes is the first snapshot of a new one.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    apply::Context,
    change::Applied,
    evidence::HostEvidence,
    feature_level::FeatureLevel,
    journal::Event,
    model::Severity,
    names::{Epoch, GuestName, HostName},
    revocation::Revocation,
    state::{ClusterState, Guest, Host, Ladder, Life, Phase, Suspension},
    sync::Authority,
    time::WallTime,
};

/// Indexes and the numbers of orders go on from the next multiple of this: far more than a lost history can have had in
/// which the survivor was not present, and still a number that people can read. An agent knows orders by their number, and
/// must take none of the new generation for one that it has carried out already.
const LEAP: u64 = 1_000_000_000;

/// The same for incidents, whose numbers people see and pagers group by. A cluster has a few a day.
const INCIDENTS_LEAP: u64 = 10_000;

/// By how much a new generation is above the old one at most. Two voters that are recovered without knowing of each other
/// hardly come to the same number, and then the higher outranks the other, as an older store does (R3).
const STEP_MAX: u32 = 1_000;

/// What is known of a recovery when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The new generation; see [`next_generation`].
    pub generation: u32,
    /// The log index of the snapshot that it makes; see [`next_index`].
    pub index: u64,
    /// When, on the survivor's wall clock.
    pub at: WallTime,
    /// The voter whose store is the base.
    pub survivor: HostName,
    /// From when the newest thing in that store is, as far as it can be told.
    pub newest: Option<WallTime>,
    /// Who does it.
    pub by: String,
    /// Hosts that were revoked in the lost history, as the survivor was told while it lasted.
    pub revoked: BTreeMap<HostName, Revocation>,
}

/// Why a state was not recovered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRecovered {
    /// It would not outrank what agents have seen.
    #[error("generation {wanted} is not above generation {is}")]
    Generation {
        /// The state's.
        is: u32,
        /// The one that was to be.
        wanted: u32,
    },
    /// It would not come after what agents have seen.
    #[error("index {wanted} is not above index {is}")]
    Index {
        /// The state's.
        is: u64,
        /// The one that was to be.
        wanted: u64,
    },
}

/// The generation after the newest that is known; `chance` is any random number. `None` when there is none left.
#[must_use]
pub fn next_generation(known: u32, chance: u32) -> Option<u32> {
    known.checked_add(1 + chance % STEP_MAX)
}

/// The log index of the first snapshot of a new generation, after a log that ended at `last`, or after whatever later index an
/// agent is known to have seen. No node id of the old generations is as high (R24), because ids are given by the index.
#[must_use]
pub fn next_index(last: u64) -> u64 {
    beyond(last, LEAP)
}

fn beyond(last: u64, leap: u64) -> u64 {
    (last / leap).saturating_add(1).saturating_mul(leap)
}

impl ClusterState {
    /// The incident of a recovery after which nobody has resumed deciding yet.
    pub const RECOVERY_KEY: &'static str = "recovery";

    /// Makes this the first state of a new generation.
    ///
    /// # Errors
    /// [`NotRecovered`]; nothing has changed then.
    pub fn recover(&mut self, recovery: &Recovery) -> Result<(), NotRecovered> {
        let Recovery { generation, index, .. } = *recovery;
        if generation <= self.generation {
            return Err(NotRecovered::Generation { is: self.generation, wanted: generation });
        }
        if index <= self.applied {
            return Err(NotRecovered::Index { is: self.applied, wanted: index });
        }
        let mut context = Context { index, at: recovery.at, applied: Applied::default() };
        self.generation = generation;
        self.applied = index;
        // A generation that is lost, too, may have leapt from the same store: the index tells how often.
        self.last_order = beyond(self.last_order, LEAP).max(index);
        self.last_incident = beyond(self.last_incident, INCIDENTS_LEAP).max(index / LEAP * INCIDENTS_LEAP);
        self.orders.clear();
        self.storm_release = None;
        let declared = &self.policies.guests;
        let undeclared: Vec<GuestName> =
            self.guests.keys().filter(|name| !declared.contains_key(*name)).cloned().collect();
        // What they waited for comes no more, and nobody would end what people were told of them.
        undeclared.iter().for_each(|guest| self.forget_guest(&context, guest));
        self.guests.values_mut().for_each(lose_place);
        self.hosts.values_mut().for_each(|host| lose_proof(host, index));
        let by = format!("{} with a recovery", recovery.by);
        self.suspended = Some(Suspension { by, since: index, under_way: BTreeSet::new() });
        self.revoked.extend(recovery.revoked.clone());
        self.close_outdated(&context);
        self.tell(&context, recovery);
        self.view(&mut context);
        Ok(())
    }

    /// Whether the agent of which this was heard begins nothing any more that an older generation has ordered: it has learned
    /// of this one, and its version makes something of that. Only then does its word count that a guest is not there: before,
    /// a start that was ordered by voters that are lost could follow.
    #[must_use]
    pub(crate) fn is_known_to(&self, heard: &HostEvidence) -> bool {
        self.generation <= 1 || (self.is_known_by(heard.seen) && heard.level >= FeatureLevel::GENERATIONS)
    }

    /// Whether an agent that has seen this authority has learned of this generation, and obeys no older one any more. Before, what it
    /// tells is of another one, whose orders and views may have the same numbers.
    #[must_use]
    pub fn is_known_by(&self, seen: Authority) -> bool {
        // From birth there is no older one.
        self.generation <= 1 || seen.generation >= self.generation
    }

    /// Whether an assignment is of a generation that has ended: whatever moved it then goes on no more. What runs under no
    /// assignment is of none, and other tools may be moving it.
    #[must_use]
    pub fn is_outranked(&self, epoch: Epoch) -> bool {
        epoch.generation > 0 && epoch.generation < self.generation
    }

    /// Incidents of what is not believed any more: what is still so is found and told anew. Those of guests stay open, until
    /// the guest is well.
    fn close_outdated(&mut self, context: &Context) {
        const ABOUT: [&str; 7] =
            ["store", "storm", "host/", "fencing/", "power_on/", "drill/", ClusterState::RECOVERY_KEY];
        let is = |about: &str, key: &str| key == about || (about.ends_with('/') && key.starts_with(about));
        let outdated = |key: &str| ABOUT.iter().any(|about| is(about, key));
        let open = self.incidents.values().filter(|incident| incident.is_open() && outdated(&incident.key));
        let keys: Vec<String> = open.map(|incident| incident.key.clone()).collect();
        for key in keys {
            self.resolve(context, &key);
        }
    }

    fn tell(&mut self, context: &Context, recovery: &Recovery) {
        let Recovery { generation, survivor, by, newest, .. } = recovery;
        let event =
            Event::Recovered { generation: *generation, survivor: survivor.clone(), newest: *newest, by: by.clone() };
        self.note(context, event);
        let summary = format!(
            "{by} has made generation {generation} of the cluster from the store of {survivor}: what was decided after its \
             newest entry is lost, and deciding is suspended"
        );
        let incident = self.incident(context, Self::RECOVERY_KEY, &summary);
        incident.severity = Severity::Critical;
        incident.stamps.detected = Some(context.at);
        incident.human = Some(
            "Look at `holdfast status`: is every host there that may run guests? Apply your policies again. Make sure that \
             hosts which are lost are off, and say so with `holdfast host confirm-off HOST --operator YOUR-NAME`. Then run \
             `holdfast resume`, and add voters: see \"Majority lost for good\" in docs/OPERATING.md."
                .to_owned(),
        );
    }
}

/// A guest may run anywhere: the lost history may have moved it. What operators want of it stays.
fn lose_place(guest: &mut Guest) {
    guest.phase = Phase::Unplaced;
    guest.ladder = Ladder::default();
    guest.start_failures.clear();
    guest.shuns.clear();
    guest.heading = None;
    guest.strays.clear();
}

/// A host may run anything: also one that was proven gone may have come back in the lost history.
fn lose_proof(host: &mut Host, index: u64) {
    host.life = Life::Up;
    host.life_since = index;
    host.powered_on = None;
    host.drill = None;
    host.kept.clear();
    host.lease = host.lease.of_new_generation(index);
}

#[cfg(test)]
mod tests;
