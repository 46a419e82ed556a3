//! Power devices that are not trusted (R9): from when one has called a living host off until somebody has checked it.

use std::collections::BTreeMap;

use super::Context;
use crate::{
    change::Refused,
    journal::Event,
    model::Policies,
    names::HostName,
    state::{ClusterState, Life},
};

impl ClusterState {
    pub(super) fn device_distrusted(
        &mut self,
        context: &Context,
        host: HostName,
        level: usize,
        why: String,
    ) -> Result<(), Refused> {
        let known = self.hosts.get_mut(&host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        if self.policies.fencing.get(&host).is_none_or(|levels| level >= levels.len()) {
            return Err(Refused::Host { host, why: format!("has no level {}", level + 1) });
        }
        if !known.distrusted.insert(level) {
            return Err(Refused::Already { why: format!("level {} of {host} is not trusted", level + 1) });
        }
        self.note(context, Event::DeviceDistrusted { host, level, why });
        Ok(())
    }

    pub(super) fn device_trusted(&mut self, context: &Context, host: HostName, by: String) -> Result<(), Refused> {
        let known = self.hosts.get_mut(&host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        if known.distrusted.is_empty() {
            return Err(Refused::Already { why: format!("every power device of {host} is trusted") });
        }
        known.distrusted.clear();
        known.trusted = context.index;
        self.note(context, Event::DeviceTrusted { host, by });
        Ok(())
    }

    /// Whoever declares a host's devices anew vouches for them anew. What was asked, or is being tried, of those declared
    /// before counts no more.
    pub(super) fn fencing_declared(&mut self, context: &mut Context, policies: &Policies) {
        let changed = |name: &&HostName| self.policies.fencing.get(*name) != policies.fencing.get(*name);
        let changed: Vec<HostName> = self.hosts.keys().filter(changed).cloned().collect();
        for name in changed {
            if let Some(host) = self.hosts.get_mut(&name) {
                host.fencing_since = context.index;
                if !host.distrusted.is_empty() {
                    host.distrusted.clear();
                    // Those that are as they were have been checked too: what they had said before is known.
                    host.trusted = context.index;
                }
                if let Life::Fencing(fence) = &mut host.life {
                    (fence.next_level, fence.errors) = (0, BTreeMap::new());
                }
            }
            self.forget_paths(&name);
            self.end_drill(context, &name, Some("its fencing was declared anew meanwhile".to_owned()));
        }
    }
}
