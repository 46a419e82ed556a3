//! Restraint: what storms and budgets (S9), suspensions and hosts in maintenance (S8) forbid, found out by the checker itself.
//!
//! It errs on the side of letting pass: whoever may have been heard is not silent, whoever may be off is no part of a storm,
//! and that a hold outlasts its storm for a moment is not judged. So what it refuses is wrong for certain.

use std::{collections::BTreeSet, time::Duration};

use super::Check;
use crate::{
    change::Change,
    names::{GuestName, HostName},
    proof::Power,
    state::{Guest, Host, Life, Mode, Phase, Wanted},
    time::millis,
};

/// Hosts that fall silent within so many milliseconds of each other have one cause until somebody knows better.
const TOGETHER_MS: u64 = 30_000;

/// How long a fence counts.
const HOUR: Duration = Duration::from_secs(3_600);

impl Check<'_> {
    /// S9, R21: while many hosts are silent at once, nothing that switches a host off is begun, unless an operator has said
    /// so. Proof passes: that a host is off switches nothing.
    pub(super) fn no_storm(&mut self) {
        let fenced = self.plan.iter().find_map(|change| {
            if let Change::FenceOpened { host, .. } | Change::FenceAttempted { host, .. } = change {
                Some(host)
            } else {
                None
            }
        });
        let Some(host) = fenced.filter(|_| self.state.storm_release.is_none()) else { return };
        let storm = self.storm();
        if let Some(silent) = storm {
            self.breaks("S9", format!("has {host} switched off while {silent} are silent at once"));
        }
    }

    /// S8, S9: no fence is begun for which an hour has no room, of its host or of all, unless an operator lets it go on. One
    /// that has begun goes on, and proof passes: it switches nothing.
    pub(super) fn within_budgets(&mut self) {
        let cluster = &self.state.policies.cluster;
        let (own, all) = (cluster.fences_per_hour, cluster.fences_per_hour_in_all);
        let mut in_all: usize = self.state.hosts.values().map(|known| self.fences_within_the_hour(known)).sum();
        let mut found = Vec::new();
        for change in self.plan {
            let Change::FenceAttempted { host, .. } = change else { continue };
            let Some(known) = self.state.hosts.get(host) else { continue };
            let Life::Fencing(fence) = &known.life else { continue };
            if fence.attempts > 0 {
                continue;
            }
            let of_host = self.fences_within_the_hour(known);
            if fence.allowed.is_none() && own.is_some_and(|budget| of_host >= budget as usize) {
                found.push(("S8", format!("fences {host} again, which was fenced {of_host} times within an hour")));
            }
            if fence.allowed.is_none() && all.is_some_and(|budget| in_all >= budget as usize) {
                found.push(("S9", format!("fences {host} after {in_all} fences within an hour")));
            }
            in_all += 1;
        }
        for (promise, what) in found {
            self.breaks(promise, what);
        }
    }

    /// Fences that have not been forgotten, and are younger than an hour as far as this coordinator knows.
    fn fences_within_the_hour(&self, known: &Host) -> usize {
        known.fences.iter().filter(|index| self.evidence.marks.age(**index, self.now) < HOUR).count()
    }

    /// The hosts of a storm: of more than one failure domain, and of more than a third of all.
    fn storm(&self) -> Option<String> {
        let missed = || self.state.hosts.iter().filter(|(_, known)| is_missed(known));
        let all: BTreeSet<String> = missed().map(|(name, _)| self.domain(name)).collect();
        let silent: Vec<(u64, &HostName)> =
            missed().filter_map(|(name, known)| Some((self.silent_ms(name, known)?, name))).collect();
        let mut worst: (BTreeSet<String>, Vec<&str>) = (BTreeSet::new(), Vec::new());
        for (since, _) in &silent {
            let together = || silent.iter().filter(move |(ms, _)| ms >= since && *ms - since <= TOGETHER_MS);
            let domains: BTreeSet<String> = together().map(|(_, name)| self.domain(name)).collect();
            if domains.len() > worst.0.len() {
                worst = (domains, together().map(|(_, name)| name.as_str()).collect());
            }
        }
        let (failed, names) = (worst.0.len(), worst.1);
        (failed > 1 && failed * 3 > all.len()).then(|| names.join(" and "))
    }

    /// The label that says which hosts fail together; a host without it stands for itself.
    pub(super) fn domain(&self, host: &HostName) -> String {
        let label = self.state.policies.cluster.failure_domain.as_ref();
        let value = label.and_then(|label| self.state.policies.hosts.get(host)?.labels.get(label));
        value.map_or_else(|| format!("the host {host}"), |value| format!("the domain {value}"))
    }

    /// For how long nobody at all has heard a host, whatever of it, where that is long enough to count. `None` also for one that
    /// was never heard, and for one that any power device has called off.
    fn silent_ms(&self, name: &HostName, known: &Host) -> Option<u64> {
        let seen = self.evidence.hosts.get(name)?;
        let boot = &known.facts.incarnation;
        if seen.power.values().any(|reading| reading.power == Power::Off && reading.incarnation == *boot) {
            return None;
        }
        let own = seen.sync.iter().chain(&seen.heard).filter(|sign| sign.incarnation == *boot).map(|sign| sign.at);
        let voters = seen.answers.values().filter_map(|answer| Some(answer.asked.minus(answer.age?)));
        let next_boot =
            seen.other_boot.iter().filter(|other| !known.knows_boot(&other.incarnation)).map(|other| other.at);
        let newest = own.chain(voters).chain(next_boot).max()?;
        let passes = self.state.guests_of(name).filter_map(|(guest, placed)| {
            let here =
                placed.tenures().into_iter().filter(|tenure| tenure.host == *name && tenure.incarnation == *boot);
            here.filter_map(|tenure| self.evidence.last_pass_from_others(guest, tenure.epoch, name)).max()
        });
        let silence = self.now.since(passes.chain([newest]).max()?);
        (silence >= self.timing.suspect_after.0).then(|| millis(silence))
    }

    /// S8: nothing is begun with a guest that operators keep hands off. What is under way is finished: it is no beginning.
    pub(super) fn hands_on(&mut self, guest: &GuestName) {
        let why = self.state.guests.get(guest).and_then(|known| self.kept_off(guest, known));
        if let Some(why) = why {
            self.breaks("S8", format!("begins something with {guest}, and {why}"));
        }
    }

    /// S8: that a guest is free, or adopted, is what its placement begins with. One that is left alone is merely found.
    pub(super) fn hands_on_first(&mut self, guest: &GuestName) {
        if self.state.guests.get(guest).is_some_and(|known| known.wanted != Wanted::Unmanaged) {
            self.hands_on(guest);
        }
    }

    /// S8: nothing is decided about a host in maintenance, and about others only what was under way when deciding was
    /// suspended: a fence that is open.
    pub(super) fn hands_on_host(&mut self, host: &HostName, does: &str) {
        let Some(known) = self.state.hosts.get(host) else { return };
        if known.in_maintenance() {
            self.breaks("S8", format!("{does} {host}, which is in maintenance"));
        }
        let is_open = matches!(known.life, Life::Fencing(_));
        if let Some(suspension) = self.state.suspended.as_ref().filter(|_| !is_open) {
            self.breaks("S8", format!("{does} {host}, and {} has suspended deciding", suspension.by));
        }
    }

    /// Why operators keep hands off a guest, if they do.
    pub(super) fn kept_off(&self, name: &GuestName, guest: &Guest) -> Option<String> {
        let on = match &guest.phase {
            Phase::Running { tenure, .. } => Some(&tenure.host),
            // Sent away by its ladder or by an operator, it is not waiting for its host.
            Phase::Free { last, avoid, .. } => {
                last.as_ref().filter(|last| !avoid.contains(*last) && guest.heading.is_none())
            }
            Phase::Unplaced | Phase::Starting { .. } | Phase::Releasing { .. } | Phase::Migrating(_) => None,
        };
        let maintained = |host: &&HostName| self.state.hosts.get(*host).is_some_and(Host::in_maintenance);
        if let Some(host) = on.filter(maintained) {
            return Some(format!("{host} is in maintenance"));
        }
        let suspension = self.state.suspended.as_ref()?;
        let runs = matches!(guest.phase, Phase::Running { .. });
        let finishes = !runs && suspension.under_way.contains(name);
        (!finishes).then(|| format!("{} has suspended deciding", suspension.by))
    }
}

/// Whether a host's silence is a failure: it is not in maintenance, about to go, or proven gone.
fn is_missed(host: &Host) -> bool {
    let expected = match host.mode {
        Mode::Active | Mode::Draining => false,
        Mode::Maintenance | Mode::Leaving { .. } => true,
    };
    !expected && !matches!(host.life, Life::Gone { .. })
}

#[cfg(test)]
mod tests;
