//! A live move that an operator calls off before its switch: to have the guest stay where it runs, or to have it moved by a stop and
//! a start, because its memory changes faster than it is copied.
//!
//! ```text
//! Receiving, Sending --to where it runs----> Returning --> Running (here)
//!                    --cold, to any host---> Returning --> Running (here) --> Releasing --proof--> Free --> Starting (there)
//! ```
//! Before the switch only the source may run the guest (R22), so it runs on whatever becomes of what it has sent. The stop comes
//! when nothing of the target's half is left, as with any move that is given up.

use super::Context;
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    journal::Event,
    names::{GuestName, HostName},
    state::{ClusterState, Heading, Migration, MigrationStep, Tenure},
};

impl ClusterState {
    /// Whether all voters know how a live move is called off, and all agents end a send whose order was withdrawn (R26).
    pub(crate) fn may_call_off(&self) -> bool {
        self.level >= FeatureLevel::CALLED_OFF
    }

    /// The live move that this wish of an operator calls off, if it does: it has not switched, and the guest is to stay or to be
    /// stopped for its move. A voter of an earlier version refuses the wish (R26).
    pub(super) fn called_off_by(&self, guest: &GuestName, to: &HostName, cold: bool) -> Option<Migration> {
        let migration = self.migration(guest).filter(|_| self.may_call_off())?;
        let is_unswitched = match migration.step {
            MigrationStep::Receiving { .. } | MigrationStep::Sending { .. } => true,
            MigrationStep::Switched { .. } | MigrationStep::Returning { .. } | MigrationStep::Clearing { .. } => false,
        };
        let wished = cold || migration.runs_on(to);
        (is_unswitched && wished).then_some(migration)
    }

    /// Calls it off.
    pub(super) fn call_off(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        mut migration: Migration,
        heading: Heading,
        by: &str,
    ) -> Result<(), Refused> {
        let stays = migration.runs_on(&heading.to);
        if !stays {
            if !self.hosts.contains_key(&heading.to) {
                return Err(Refused::NoHost { host: heading.to });
            }
            if let Some(why) = self.unfit(guest, &heading.to) {
                return Err(Refused::Target { guest: guest.clone(), host: heading.to, why });
            }
        }
        let why = if stays {
            format!("{by} has called it off")
        } else {
            format!("{by} asked for a move by a stop and a start")
        };
        let (to, cold) = (heading.to.clone(), !stays);
        self.note(context, Event::MoveAsked { guest: guest.clone(), to, cold, by: by.to_owned() });
        migration.then = cold.then(|| heading.clone());
        self.head(guest, Some(heading));
        let resume = matches!(migration.step, MigrationStep::Sending { .. });
        let failed_moves = self.guests.get(guest).map_or(0, |known| known.failed_moves);
        self.give_up(context, guest, migration, resume, why);
        if let Some(known) = self.guests.get_mut(guest) {
            // It has not failed.
            known.failed_moves = failed_moves;
        }
        Ok(())
    }

    /// A guest runs on where it was. What an operator asked for meanwhile begins, unless something speaks against it by now.
    pub(super) fn go_on_cold(&mut self, context: &mut Context, guest: &GuestName, source: Tenure, heading: Heading) {
        if self.may_be_moved(guest).is_err() {
            return;
        }
        let by = heading.by.clone().unwrap_or_default();
        // Nothing of a move by a stop and a start is refused: where its target has become unfit, the guest starts elsewhere.
        _ = self.set_out(context, guest, source, heading, true, format!("{by} asked for it"));
    }
}

impl Migration {
    /// Whether the guest runs on this host as long as its move has not switched.
    fn runs_on(&self, host: &HostName) -> bool {
        self.source.as_ref().is_some_and(|source| source.host == *host)
    }
}
