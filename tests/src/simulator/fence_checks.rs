//! The promises about fences, checked against what is really so: what one rests on, when it is held, and who is switched off by it.

use std::collections::BTreeSet;

use holdfast_policies::{
    names::{GuestName, HostName, OrderId},
    state::{Life, Mode},
};

use super::{Ms, guest::Vm, world::World};

/// A voter that has heard a host without a gap for this long, until now, does not say that the host is dead.
const HEARD_WELL: Ms = 4_000;
/// An executor acts for one lease at most on what it was told last; a leader has to notice first.
const GO_AHEAD: Ms = 5_000;
/// A supervisor that is silent for longer may have its host fenced for the sake of a guest (R16).
const SUPERVISOR_PATIENCE: Ms = 28_000;
/// Silence that everybody must have noticed.
const SILENT: Ms = 3_500;
/// A proposal that took longer to commit than this has waited for a quorum.
const STALE: Ms = 500;

impl World {
    /// S3, R13, R16, R17: a fence has evidence, and its host is no machine that is up and connected to a majority of the
    /// other voters, and of which only the supervisor is down.
    pub(super) fn check_fence(&mut self, host: &HostName, evidence: &[String], proposed: Ms) {
        if evidence.is_empty() {
            self.violate("S3", format!("the fence of {host} names no evidence"));
        }
        // What waited for a quorum was decided on what was so then. Nothing is switched off for it: whoever is heard by then
        // gets no go-ahead ([`World::check_still_wanted`]).
        if self.now - proposed > STALE {
            return;
        }
        let Some(target) = self.host_index(host) else { return };
        let now = self.now;
        let others: Vec<usize> = self.members.iter().copied().filter(|voter| *voter != target).collect();
        let hear = others.iter().filter(|voter| self.hears_well(**voter, target, HEARD_WELL)).count();
        let unserved = now.saturating_sub(self.served[target]);
        if hear * 2 > others.len() && unserved < SUPERVISOR_PATIENCE {
            let count = others.len();
            self.violate(
                "S3",
                format!("{host} is to be fenced, and {hear} of {count} other voters can hear its machine well (R16)"),
            );
        }
    }

    /// S9, R21: no active fence is decided while many hosts are silent to the voters and not known to be off, unless
    /// somebody has looked and says that fencing goes on ([`World::release_hold`]).
    pub(super) fn check_storm(&mut self, host: &HostName, proposed: Ms) {
        let Some(leader) = self.coordinator().filter(|_| self.truth.state.storm_release.is_none()) else { return };
        // What waited for a quorum was decided on what was so then.
        if self.now - proposed > STALE {
            return;
        }
        // A declared failure domain counts once.
        let policies = &self.truth.state.policies;
        let domain = |name: &HostName| match &policies.cluster.failure_domain {
            Some(label) => policies.hosts.get(name).and_then(|host| host.labels.get(label)).map(String::as_str),
            None => None,
        };
        let domains = |hosts: &mut dyn Iterator<Item = &HostName>| {
            hosts.map(|name| domain(name).unwrap_or(name.as_str()).to_owned()).collect::<BTreeSet<_>>().len()
        };
        let silent: Vec<&HostName> = (0..self.named)
            .filter(|index| *index != leader)
            .filter(|index| {
                let known = &self.hosts[*index];
                let committed = self.truth.state.hosts.get(&known.name);
                let counts =
                    committed.is_some_and(|host| host.mode == Mode::Active && !matches!(host.life, Life::Gone { .. }));
                let last = self.last_heard(leader, *index);
                let heard = last.map_or(0, |at| self.now - at);
                // One that another voter hears is not silent, however long the coordinator has not heard it itself.
                let others = self.members.iter().filter(|voter| **voter != *index);
                let by_others = others.filter_map(|voter| self.last_heard(*voter, *index)).max();
                let is_heard = by_others.is_some_and(|at| self.now - at <= SILENT);
                let synced = self.now.saturating_sub(self.served[*index]);
                // One that has just booted was known to be off.
                let boots = known.on_since > 0 && self.now - known.on_since < SILENT;
                counts && known.on && !boots && (SILENT..20_000).contains(&heard) && !is_heard && synced > SILENT
            })
            .map(|index| &self.hosts[index].name)
            .collect();
        let failed = domains(&mut silent.iter().copied());
        if failed > 1 && failed * 3 > domains(&mut self.truth.state.hosts.keys()) {
            let silent = silent.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            self.violate("S9", format!("{host} is to be switched off while {silent} are silent at once (R21)"));
        }
    }

    /// When a host last heard another one. Of a second machine under a name the boots count as newer, whichever was heard last.
    fn last_heard(&self, by: usize, of: usize) -> Option<Ms> {
        let ears = &self.hosts[by];
        [ears.heard[of], ears.heard_before[of]].into_iter().flatten().map(|(at, _)| at).max()
    }

    /// S3, R20: a power device switches a host off only for the fence attempt that is open.
    pub(super) fn check_shot(&mut self, target: usize, order: OrderId) {
        if self.is_lost(order) {
            return;
        }
        let name = self.hosts[target].name.clone();
        if self.truth.state.fence_under_way(&name) != Some(order) {
            self.violate("R20", format!("{order} switches {name} off, and is not the fence attempt that is open"));
        }
        if self.is_drill(order) {
            self.seen.drills += 1;
            let runs = |(_, machine): &(&GuestName, &super::guest::Machine)| machine.state != Vm::Exited;
            if let Some((guest, _)) = self.hosts[target].machines.iter().find(runs) {
                let guest = guest.clone();
                self.violate("S5", format!("a drill ({order}) switches {name} off, and {guest} is there"));
            }
        }
    }

    /// S3, S6, R20: nothing is switched off any more that a majority of the other voters has heard well for longer than an
    /// executor may act on what it was told.
    pub(super) fn check_still_wanted(&mut self, target: usize) {
        let others: Vec<usize> = self.members.iter().copied().filter(|voter| *voter != target).collect();
        let hear = others.iter().filter(|voter| self.hears_well(**voter, target, GO_AHEAD)).count();
        let unserved = self.now.saturating_sub(self.served[target]);
        let back_for = self.now.saturating_sub(self.served_since[target]);
        if hear * 2 > others.len() && unserved < SUPERVISOR_PATIENCE && back_for >= GO_AHEAD {
            let (name, count) = (self.hosts[target].name.clone(), others.len());
            self.violate(
                "S3",
                format!("{name} is switched off, and {hear} of {count} other voters hear it well (R20)"),
            );
        }
    }

    /// An agent got a reply: whatever waits for its supervisor has no reason to from here on.
    pub(super) fn note_served(&mut self, host: usize) {
        if self.now.saturating_sub(self.served[host]) >= SUPERVISOR_PATIENCE {
            self.served_since[host] = self.now;
        }
        self.served[host] = self.now;
    }

    /// Whether a voter could have heard the machine that is on there without a gap for so long, if its guard did its duty.
    fn hears_well(&self, voter: usize, target: usize, for_long: Ms) -> bool {
        let (now, known) = (self.now, &self.hosts[voter]);
        let fresh =
            known.audible[target].is_some_and(|(at, boot)| now - at < 600 && boot == self.hosts[target].boot_number());
        known.serves(now) && fresh && now - known.audible_since[target] >= for_long
    }
}
