//! The problem of placing, apart from how the cluster came into it: hosts with what they have, guests with what they
//! need, and rules resolved to rows.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    order::Turn,
    reason::Reason,
    rows,
    rules::{Group, HostRule, OrderRule, Resolver},
    table::{GroupAt, GuestAt, HostAt, Key, Table},
};
use crate::{
    model::{GuestDeclaration, Labels, Policies},
    names::{GuestName, HostName, Incarnation},
    state::{ClusterState, Guest},
};

/// The dimension of memory, in MiB: hard on every host.
pub const MEMORY: &str = "memory_mib";

/// The dimension of processors: hard where it is declared as a capacity, unless settings say otherwise; else a weight.
pub const CPUS: &str = "cpus";

/// What the coordinator thinks of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It syncs and is well.
    Well,
    /// It syncs and doubts itself.
    Unwell,
    /// It does not sync, so it can carry out nothing.
    Unheard,
}

/// Hosts, guests and rules, as placement sees them.
#[derive(Debug)]
pub struct Problem<'a> {
    pub(super) hosts: Table<HostAt, PlanHost<'a>>,
    pub(super) guests: Table<GuestAt, PlanGuest<'a>>,
    /// Starts that each host has to carry out already.
    pub(super) starts: Table<HostAt, u32>,
    /// Memory, processors, then the declared capacities by name.
    pub(super) dimensions: Vec<Dimension<'a>>,
    /// Processors count only as far as more are asked for than there are cores, because no setting says how they count.
    pub(super) cores_strain: bool,
    pub(super) host_rules: Vec<HostRule<'a>>,
    pub(super) groups: Table<GroupAt, Group<'a>>,
    pub(super) orders: Vec<OrderRule<'a>>,
    /// Guests that are kept together, by what rules require.
    pub(super) sets: Vec<Vec<GuestAt>>,
    /// The settings' failure domain label.
    pub(super) failure_domain: Option<&'a str>,
    /// Where those begin of whom not all can be looked at ([`Problem::at_turn`]).
    pub(super) turn: u64,
    /// Those whom the rest of their sets follows ([`Problem::with_arrivals`]).
    pub(super) arrived: BTreeMap<GuestAt, u64>,
}

/// One host.
#[derive(Debug)]
pub struct PlanHost<'a> {
    pub(super) name: &'a HostName,
    pub(super) boot: &'a Incarnation,
    pub(super) labels: Option<&'a Labels>,
    /// What is declared that it has of other things than it tells itself, or instead of that.
    pub(super) capacity: Option<&'a BTreeMap<String, u64>>,
    /// What it tells itself.
    pub(super) memory_mib: u64,
    /// Why it takes no guest, if it takes none.
    pub(super) out: Option<Reason>,
    /// Its guests are left as they are: it is in maintenance, also when it has announced to go.
    pub(super) left_alone: bool,
    /// It will not come back by itself: losing it again means nothing.
    pub(super) gone: bool,
    pub(super) unwell: bool,
    pub(super) cores: u64,
}

/// What a guest takes and a host has of one thing.
#[derive(Debug)]
pub struct Dimension<'a> {
    pub(super) name: &'a str,
    /// What a host is given at most; `None`: not limited.
    pub(super) capacity: Table<HostAt, Option<u64>>,
    /// That of which the taken share is weighed where a host is chosen; `None`: it is not weighed there.
    pub(super) size: Table<HostAt, Option<u64>>,
    /// How much that share counts, in percent.
    pub(super) weight: u64,
    pub(super) demand: Table<GuestAt, u64>,
}

/// Where a guest is in its life, as far as placement minds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It runs nowhere.
    Free,
    /// It is being started.
    Starting,
    /// It runs, and nothing else is under way.
    Running,
    /// It is being stopped.
    Stopping,
    /// It is between two hosts.
    Moving,
}

/// One guest.
#[derive(Debug)]
pub struct PlanGuest<'a> {
    pub(super) name: &'a GuestName,
    pub(super) declared: Option<&'a GuestDeclaration>,
    pub(super) known: Option<&'a Guest>,
    pub(super) priority: u32,
    pub(super) stage: Stage,
    /// Whether operators want it to run.
    pub(super) wanted: bool,
    /// The hosts that may run it: none, one, or two while it moves. It counts on all of them.
    pub(super) here: [Option<HostAt>; 2],
    /// Where it answers.
    pub(super) home: Option<HostAt>,
    /// Where it will answer when what is under way has succeeded.
    pub(super) bound: Option<HostAt>,
    /// The target of its move, until it has arrived.
    pub(super) receives: Option<HostAt>,
    /// Hosts that it should not start on, if there are others.
    pub(super) avoid: Vec<HostAt>,
    /// Starts that failed, by host; a round of them on each that it shuns.
    pub(super) failed: Vec<(HostAt, u32)>,
    /// Starts on one host before another is tried; at least 1.
    pub(super) start_tries: u32,
    pub(super) stickiness: i64,
    pub(super) best_effort: bool,
    pub(super) live_migration: bool,
    pub(super) failback: bool,
    /// Rows of `host_rules`.
    pub(super) host_rules: Vec<usize>,
    pub(super) groups: Vec<GroupAt>,
    /// The row of `sets` that it is in.
    pub(super) set: Option<usize>,
    /// The priority by which it is placed: that of the least one which it gives way to, if it gives way.
    pub(super) rank: (u32, bool),
}

/// A guest that the state knows.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a GuestName,
    /// What is known of it.
    pub guest: &'a Guest,
    /// What is declared of it.
    pub declared: Option<&'a GuestDeclaration>,
    /// How important it is.
    pub priority: u32,
    /// The host where it answers, if the state knows that host.
    pub home: Option<HostAt>,
}

impl<'a> Problem<'a> {
    /// The problem as it stands, under the policies that hold.
    #[must_use]
    pub fn of(state: &'a ClusterState, standing: impl Fn(&HostName) -> Standing) -> Self {
        Self::under(&state.policies, state, standing)
    }

    /// The problem as it would stand under other policies, such as proposed ones.
    #[must_use]
    pub fn under(policies: &'a Policies, state: &'a ClusterState, standing: impl Fn(&HostName) -> Standing) -> Self {
        let hosts = rows::hosts(policies, state, standing);
        let guests = rows::guests(policies, state, &hosts);
        let dimensions = rows::dimensions(policies, &hosts, &guests);
        let starts = rows::starts(&hosts, &guests);
        let mut problem = Self {
            starts,
            hosts,
            guests,
            dimensions,
            cores_strain: !policies.cluster.capacities.contains_key(CPUS),
            host_rules: Vec::new(),
            groups: Table::new(Vec::new()),
            orders: Vec::new(),
            sets: Vec::new(),
            failure_domain: policies.cluster.failure_domain.as_deref(),
            turn: 0,
            arrived: BTreeMap::new(),
        };
        Resolver::resolve(&mut problem, policies);
        problem
    }

    /// The same in another turn: where not all guests that run can be looked at in one call, each of them is in some turn.
    #[must_use]
    pub fn at_turn(self, turn: u64) -> Self {
        Self { turn, ..self }
    }

    /// The same, with guests that have lately been sent where they run for their own sake, each with the log index of that: the rest of
    /// their sets follows the one that was sent last.
    #[must_use]
    pub fn with_arrivals(self, arrived: BTreeMap<GuestAt, u64>) -> Self {
        Self { arrived, ..self }
    }

    /// The row of a host.
    #[must_use]
    pub fn host(&self, name: &HostName) -> Option<HostAt> {
        rows::find_host(&self.hosts, name)
    }

    /// The row of a guest.
    #[must_use]
    pub fn guest(&self, name: &GuestName) -> Option<GuestAt> {
        let rows = self.guests.rows();
        rows.binary_search_by(|guest| guest.name.cmp(name)).ok().map(GuestAt::of)
    }

    /// Whether any rule speaks of places.
    #[must_use]
    pub fn has_rules(&self) -> bool {
        !self.host_rules.is_empty() || !self.groups.is_empty()
    }

    /// The guests that the state knows, those of the highest priority first, what starts before others before these, and by name.
    #[must_use]
    pub fn by_priority(&self) -> Vec<Subject<'a>> {
        let turns = self.turns();
        let subject = |(at, guest): (GuestAt, &PlanGuest<'a>)| {
            let PlanGuest { name, declared, priority, home, .. } = *guest;
            Some((turns[at], Subject { name, guest: guest.known?, declared, priority, home }))
        };
        let mut subjects: Vec<(Turn, Subject<'a>)> = Vec::with_capacity(self.guests.len());
        subjects.extend(self.guests.iter().filter_map(subject));
        subjects.sort_by_key(|(turn, _)| *turn);
        subjects.into_iter().map(|(_, subject)| subject).collect()
    }

    /// Has a declared guest count as wanted that is not, and says whether that would have it started: what runs already, or is
    /// wanted as it is, starts nothing anew.
    pub(super) fn want(&mut self, name: &GuestName) -> bool {
        let Some(at) = self.guest(name) else { return false };
        let guest = &mut self.guests[at];
        let starts = guest.declared.is_some() && !guest.wanted && !guest.is_anchored();
        guest.wanted |= starts;
        starts
    }

    /// Guests that are wanted and run nowhere.
    #[must_use]
    pub fn homeless(&self) -> Vec<GuestAt> {
        let homeless = |guest: &PlanGuest<'_>| guest.wanted && guest.stage == Stage::Free;
        self.guests.iter().filter(|(_, guest)| homeless(guest)).map(|(at, _)| at).collect()
    }

    /// Whether guests that run on a host are moved: in maintenance they are left alone.
    pub(super) fn lets_go(&self, host: HostAt) -> bool {
        !self.hosts[host].left_alone
    }

    /// Those of the least priority among guests.
    #[must_use]
    pub fn least_important(&self, guests: &[GuestAt]) -> BTreeSet<GuestAt> {
        let least = guests.iter().map(|guest| self.guests[*guest].priority).min();
        guests.iter().copied().filter(|guest| Some(self.guests[*guest].priority) == least).collect()
    }

    /// What rules make of a guest on a host: how much it is liked, or the rule that forbids it.
    pub(super) fn liking(&self, guest: GuestAt, host: HostAt) -> Result<i64, Reason> {
        let mut sum = 0_i64;
        for row in &self.guests[guest].host_rules {
            let Some(rule) = self.host_rules.get(*row) else { continue };
            match rule.scores[host] {
                Some(score) => sum = sum.saturating_add(score),
                None => return Err(Reason::Ruled { rule: rule.name.clone() }),
            }
        }
        Ok(sum)
    }

    /// What a guest takes of a dimension; 0 for a dimension that does not exist.
    pub(super) fn demand(&self, guest: GuestAt, dimension: usize) -> u64 {
        self.dimensions.get(dimension).map_or(0, |dimension| dimension.demand[guest])
    }
}

impl PlanGuest<'_> {
    pub(super) fn hosts(&self) -> impl Iterator<Item = HostAt> + use<> {
        self.here.into_iter().flatten()
    }

    /// How often starts there have failed as often as they are tried in a row.
    pub(super) fn failed_rounds(&self, host: HostAt) -> u32 {
        self.failures(host) / self.start_tries
    }

    /// Whether starts have failed there, and tries are left before another host is tried.
    pub(super) fn is_being_tried(&self, host: HostAt) -> bool {
        !self.failures(host).is_multiple_of(self.start_tries)
    }

    fn failures(&self, host: HostAt) -> u32 {
        self.failed.iter().find(|(at, _)| *at == host).map_or(0, |(_, count)| *count)
    }

    /// It stays where it is unless somebody moves it, so that others of its set have to come to it.
    pub(super) fn is_anchored(&self) -> bool {
        match self.stage {
            Stage::Starting | Stage::Running | Stage::Moving => true,
            Stage::Free | Stage::Stopping => false,
        }
    }
}
