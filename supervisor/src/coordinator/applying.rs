//! Policies that an operator applies: what they change is told, they are checked against the cluster, and committed.

use std::collections::BTreeMap;

use holdfast_policies::{
    change::Change,
    lease::{Unarmed, left_open, unarmed},
    model::Policies,
    names::HostName,
    state::{ClusterState, Guest, Phase},
};

use super::{
    brain::Brain,
    declared::{Planned, plan_aside},
};
use crate::desk::{Answer, Denied, Voucher, of_refusal};

impl Brain {
    /// Applies the policies in these files, or only says what that would change.
    pub(super) async fn apply(
        &mut self,
        sources: BTreeMap<String, String>,
        by: String,
        dry_run: bool,
        voucher: &Voucher,
    ) -> Result<Answer, Denied> {
        let (current, base_version, level) =
            self.node.read(|state| (state.policies.clone(), state.policy_version, state.level));
        let Planned { policies, mut changes, sources } = plan_aside(current, sources, level).await?;
        if !dry_run {
            voucher.keep_way_in(&policies.cluster)?;
        }
        self.check_against_cluster(&policies)?;
        changes.extend(self.node.read(|state| {
            policies.to_be_started_anew(&state.policies, |guest| state.guests.get(guest).is_some_and(may_run))
        }));
        changes.extend(self.node.read(|state| {
            let hosts = state.hosts.iter().filter(|(_, known)| known.facts.guests);
            policies.unfenced(hosts.map(|(name, _)| name))
        }));
        changes.extend(self.node.read(|state| left_open(state, &policies)));
        changes.extend(self.node.read(|state| policies.local_levels_declared(&state.policies)));
        changes.extend(self.node.read(|state| policies.strangers_named(|host| self.is_known(state, host))));
        let too_early = self.node.read(|state| state.too_early(&policies));
        if dry_run {
            changes
                .extend(too_early.map(|refused| format!("? {refused}: `holdfast status` names who is to be upgraded")));
            return Ok(Answer::Applied { version: base_version, changes, dry_run });
        }
        let same = self.node.read(|state| state.policies == policies && state.sources == sources);
        if same && base_version > 0 {
            return Ok(Answer::Ignored { why: format!("version {base_version} says so already") });
        }
        if let Some(refused) = too_early {
            return of_refusal(refused);
        }
        let change = Change::PoliciesApplied { policies: Box::new(policies), sources, base_version, by };
        self.done(change, String::new()).await?;
        Ok(Answer::Applied { version: base_version + 1, changes, dry_run })
    }

    /// Whether a host has joined, or is expected to. What is declared of one that was revoked is there for the one that gets
    /// its name.
    fn is_known(&self, state: &ClusterState, host: &HostName) -> bool {
        let joined = state.hosts.contains_key(host) || state.revoked.contains_key(host);
        joined || self.node.file.voters.contains_key(host)
    }

    /// What cannot be seen in the files alone.
    fn check_against_cluster(&self, policies: &Policies) -> Result<(), Denied> {
        let stranger = self.node.read(|state| {
            let host = policies.fencing.keys().find(|host| !self.is_known(state, host))?;
            let hosts: Vec<&str> = state.hosts.keys().map(HostName::as_str).collect();
            Some(format!("fencing names the host {host}, which has never joined; the hosts are {}", hosts.join(", ")))
        });
        if let Some(text) = stranger {
            return Err(Denied::Refused(text));
        }
        match self.node.read(|state| unarmed(state, &self.evidence, policies)) {
            None => {}
            Some(lacks @ Unarmed::Lacks { .. }) => return Err(Denied::Refused(lacks.to_string())),
            // A host that has just started, or a coordinator that has just taken over, will know in a moment.
            Some(unknown @ Unarmed::Unknown { .. }) => return Err(Denied::NoLeader(unknown.to_string())),
        }
        let busy = self.node.read(|state| {
            let removed = state.guests.iter().filter(|(name, _)| !policies.guests.contains_key(*name));
            let unsettled =
                |phase: &Phase| !matches!(phase, Phase::Unplaced | Phase::Free { .. } | Phase::Running { .. });
            removed.filter(|(_, guest)| unsettled(&guest.phase)).map(|(name, _)| name.to_string()).next()
        });
        match busy {
            Some(guest) => {
                Err(Denied::Refused(format!("{guest} is being started, stopped or moved; remove it when that is over")))
            }
            None => self.check_tolerance(policies),
        }
    }
}

/// Whether something of a guest may run, wherever.
fn may_run(guest: &Guest) -> bool {
    !matches!(guest.phase, Phase::Unplaced | Phase::Free { .. })
}
