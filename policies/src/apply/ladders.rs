//! Ladders that are declared anew while guests are on them.

use crate::{
    feature_level::FeatureLevel,
    ladder::{ladder_of, stands_on, stood_on},
    model::Policies,
    state::ClusterState,
};

impl ClusterState {
    /// Has guests stand where they do on the ladders of these policies, which are about to take the place of the present ones.
    pub(super) fn ladders_declared(&mut self, policies: &Policies) {
        // An earlier version goes by the number of the rung alone (R26).
        if self.level < FeatureLevel::LADDERS {
            return;
        }
        let stands_on = if self.level >= FeatureLevel::WAITS { stands_on } else { stood_on };
        for (name, guest) in &mut self.guests {
            let Some(position) = &guest.ladder.position else { continue };
            let before = ladder_of(&self.policies, name, position.ladder);
            let now = ladder_of(policies, name, position.ladder);
            if now != before {
                guest.ladder.position = stands_on(&now, &before, position);
            }
        }
    }
}
