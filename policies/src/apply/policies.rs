//! What operators declare takes effect: guests come and go with it, and what was so of power devices and leases may be over.

use std::collections::BTreeMap;

use super::Context;
use crate::{
    change::Refused,
    journal::Event,
    model::Policies,
    names::GuestName,
    state::{ClusterState, Guest},
};

impl ClusterState {
    pub(super) fn policies_applied(
        &mut self,
        context: &mut Context,
        policies: Policies,
        sources: BTreeMap<String, String>,
        base_version: u64,
        by: String,
    ) -> Result<(), Refused> {
        if base_version != self.policy_version {
            return Err(Refused::Version { is: self.policy_version, base: base_version });
        }
        let forgotten = |name: &GuestName, guest: &Guest| !policies.guests.contains_key(name) && !guest.is_between();
        let gone: Vec<GuestName> =
            self.guests.iter().filter(|(name, guest)| forgotten(name, guest)).map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.forget_guest(context, name);
        }
        for name in policies.guests.keys() {
            self.guests.entry(name.clone()).or_insert_with(|| Guest::declared(context.index));
        }
        self.fencing_declared(context, &policies);
        self.lease_levels_set(context, &policies);
        self.ladders_declared(&policies);
        self.policies = policies;
        self.sources = sources;
        self.policy_version += 1;
        self.note(context, Event::PoliciesApplied { version: self.policy_version, by });
        self.view(context);
        Ok(())
    }
}
