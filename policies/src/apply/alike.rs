//! What voters have noted differently while they were of two versions is made alike once all of them are of this one (R26).
//!
//! An earlier version notes less than this one, and a voter that is upgraded has what it noted before: none of it bears on what is
//! ordered, but whoever leads decides by it. So all of them begin it anew at the same entry.

use super::Context;
use crate::{
    model::FenceLevel,
    state::{ClusterState, Host},
};

impl ClusterState {
    /// Begins anew what an earlier version does not note.
    pub(super) fn begin_alike(&mut self, context: &Context) {
        for guest in self.guests.values_mut() {
            guest.shuns.clear();
            guest.failed_moves = 0;
        }
        let policies = &self.policies;
        for (name, host) in &mut self.hosts {
            // Whoever tells of devices that nobody has tried or verified waits from here on.
            host.fencing_since = context.index;
            host.paths.iter_mut().for_each(|path| path.denials = 0);
            if let Some(drill) = &mut host.drill {
                drill.executor = None;
            }
            forget_local(host, policies.levels_of(name));
        }
        self.close_unheard_of(context);
    }

    /// Incidents of guests that are declared no more, of a kind that an earlier version does not close with the guest.
    fn close_unheard_of(&mut self, context: &Context) {
        let is_declared = |guest: &str| self.guests.keys().any(|name| name.as_str() == guest);
        let is_over = |key: &str| key.strip_prefix("warned/").is_some_and(|guest| !is_declared(guest));
        let open = self.incidents.values().filter(|incident| incident.is_open() && is_over(&incident.key));
        let keys: Vec<String> = open.map(|incident| incident.key.clone()).collect();
        for key in keys {
            self.resolve(context, &key);
        }
    }
}

/// What was found of devices that mean another machine on each host that asks: an earlier version does not note for whom it holds.
/// With the tries of all levels forgotten, every host asks them anew at once.
fn forget_local(host: &mut Host, levels: &[FenceLevel]) {
    if !levels.iter().any(FenceLevel::is_local) {
        return;
    }
    let device = |level: usize, device: usize| levels.get(level).and_then(|level| level.devices().get(device));
    host.wired.retain(|wired| device(wired.level, wired.device).is_none_or(|device| !device.is_local()));
    host.paths.clear();
}
