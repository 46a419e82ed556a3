//! Budgets of fences: how many of one host, and of all hosts together, an hour has room for. What is beyond them is switched
//! off when the hour has room again, or when an operator lets it go on (S8, S9).
//!
//! A fence counts from its first attempt, once however many attempts it takes, and for an hour. What proves a host off without
//! switching it needs no room: a device's status, a lease, a person's word.

use std::fmt;

use crate::{
    names::HostName,
    state::{ClusterState, Fence, Life},
};

/// A budget without room for a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Whose.
    pub of: Whose,
    /// How many fences within an hour it allows.
    pub limit: u32,
    /// The log index of the fence that has to be an hour old before there is room again.
    pub until: u64,
}

/// Whose budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// One host's.
    Host(HostName),
    /// That of all hosts together.
    All,
}

impl ClusterState {
    /// The budget that holds the fence of this host: it is open, nothing of it has been attempted, and no operator lets it go
    /// on. Of two budgets the one that has room last.
    pub(crate) fn budget_spent(&self, host: &HostName) -> Option<Spent> {
        let known = self.hosts.get(host)?;
        let Life::Fencing(Fence { attempts: 0, allowed: None, .. }) = &known.life else { return None };
        let cluster = &self.policies.cluster;
        let own = spent(Whose::Host(host.clone()), cluster.fences_per_hour, &known.fences);
        let mut all: Vec<u64> = self.hosts.values().flat_map(|known| known.fences.iter().copied()).collect();
        all.sort_unstable();
        let together = spent(Whose::All, cluster.fences_per_hour_in_all, &all);
        own.into_iter().chain(together).max_by_key(|spent| spent.until)
    }

    /// Which of these fences the hour has no room for, if all of them were begun at once.
    pub(crate) fn beyond_budgets(&self, hosts: &[&HostName]) -> Option<String> {
        let cluster = &self.policies.cluster;
        let begun = |host: &HostName| self.hosts.get(host).map_or(0, |known| known.fences.len());
        let room = |limit: u32, begun: usize| usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(begun);
        if let Some(limit) = cluster.fences_per_hour_in_all {
            let (room, fences) = (room(limit, self.hosts.keys().map(begun).sum()), hosts.len());
            if room < fences {
                return Some(format!("`fences_per_hour_in_all: {limit}` has room for {room} of these {fences} fences"));
            }
        }
        let limit = cluster.fences_per_hour?;
        let spent = hosts.iter().filter(|host| room(limit, begun(host)) == 0);
        let names: Vec<&str> = spent.map(|host| host.as_str()).collect();
        (!names.is_empty()).then(|| format!("`fences_per_hour: {limit}` is used up for {}", names.join(", ")))
    }
}

/// Whether these fences, oldest first, leave no room.
fn spent(of: Whose, limit: Option<u32>, fences: &[u64]) -> Option<Spent> {
    let limit = limit?;
    let position = fences.len().checked_sub(usize::try_from(limit).unwrap_or(usize::MAX))?;
    fences.get(position).map(|until| Spent { of, limit, until: *until })
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Whose::Host(host) => write!(f, "`fences_per_hour: {}` is used up for {host}", self.limit),
            Whose::All => write!(f, "`fences_per_hour_in_all: {}` is used up", self.limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::{Change, Refused},
        feature_level::FeatureLevel,
        fixture::{Stage, host},
    };

    /// The fence of `a` is open; so many fences have begun at these indexes.
    fn stage(own: Option<u32>, all: Option<u32>, of_a: &[u64], of_b: &[u64]) -> Stage {
        let mut stage = Stage::new(&["a", "b", "c"], &[]);
        let mut policies = stage.state.policies.clone();
        (policies.cluster.fences_per_hour, policies.cluster.fences_per_hour_in_all) = (own, all);
        stage.declare(policies);
        stage.fence("a");
        for (name, fences) in [("a", of_a), ("b", of_b)] {
            stage.state.hosts.get_mut(&host(name)).unwrap().fences = fences.to_vec();
        }
        stage
    }

    #[test]
    fn a_budget_has_room_again_when_enough_of_its_fences_are_an_hour_old() {
        type Case<'a> = (Option<u32>, Option<u32>, &'a [u64], &'a [u64], Option<&'a str>);
        let cases: [Case<'_>; 8] = [
            (None, None, &[1, 2, 3], &[4, 5], None),
            (Some(2), None, &[1], &[2, 3], None),
            (Some(2), None, &[1, 2], &[3], Some("`fences_per_hour: 2` is used up for a until 1")),
            (Some(2), None, &[1, 2, 3], &[], Some("`fences_per_hour: 2` is used up for a until 2")),
            (None, Some(3), &[1], &[2], None),
            (None, Some(3), &[4], &[2, 3], Some("`fences_per_hour_in_all: 3` is used up until 2")),
            (Some(1), Some(3), &[4], &[2, 3], Some("`fences_per_hour: 1` is used up for a until 4")),
            (Some(2), Some(3), &[1, 4], &[2, 3], Some("`fences_per_hour_in_all: 3` is used up until 2")),
        ];
        for (own, all, of_a, of_b, expected) in cases {
            let spent = stage(own, all, of_a, of_b).state.budget_spent(&host("a"));
            let said = spent.map(|spent| format!("{spent} until {}", spent.until));
            assert_eq!(said.as_deref(), expected, "{own:?} {all:?} {of_a:?} {of_b:?}");
        }
    }

    #[test]
    fn a_fence_that_has_begun_or_that_an_operator_lets_go_on_needs_no_room() {
        let changes: [fn(&mut Fence); 2] = [|fence| fence.attempts = 1, |fence| fence.allowed = Some("ann".to_owned())];
        for change in changes {
            let mut stage = stage(Some(1), Some(1), &[1], &[]);
            assert!(stage.state.budget_spent(&host("a")).is_some());
            let Life::Fencing(fence) = &mut stage.state.hosts.get_mut(&host("a")).unwrap().life else { panic!() };
            change(fence);
            assert_eq!(stage.state.budget_spent(&host("a")), None);
        }
    }

    #[test]
    fn an_attempt_beyond_a_budget_counts_for_all_voters_or_for_none() {
        let attempt = || Change::FenceAttempted { host: host("a"), executor: host("b"), level: 0 };
        let mut upgraded = stage(Some(1), None, &[1], &[]);
        upgraded.must(Change::LevelRaised { to: FeatureLevel::BUDGETS });
        assert!(matches!(upgraded.refused(attempt()), Refused::Host { .. }));
        let mut mixed = stage(Some(1), None, &[1], &[]);
        mixed.must(attempt());
    }
}
