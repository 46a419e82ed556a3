//! What operators want of guests and of deciding itself.

use super::Context;
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    hands_off::HandsOff,
    journal::Event,
    names::GuestName,
    state::{ClusterState, Host, Phase, Suspension, Wanted},
};

impl ClusterState {
    /// Refuses what was decided before an operator said that the guest is not to be touched.
    pub(super) fn in_hand(&self, guest: &GuestName) -> Result<(), Refused> {
        match self.hands_off(guest) {
            None => Ok(()),
            Some(HandsOff::Suspended { .. }) if self.is_tried_on(guest) => Ok(()),
            Some(hands_off) => Err(Refused::Guest { guest: guest.clone(), why: hands_off.to_string() }),
        }
    }

    /// Whether an earlier version goes on trying to start the guest while deciding is suspended: it was being brought back when
    /// that began, and has been tried everywhere since. Whoever leads by this version does not order it, but what is ordered by
    /// an earlier one counts for all voters (R26).
    fn is_tried_on(&self, guest: &GuestName) -> bool {
        let finishing = self.suspended.as_ref().is_some_and(|suspension| suspension.under_way.contains(guest));
        let is_free = self.guests.get(guest).is_some_and(|known| matches!(known.phase, Phase::Free { .. }));
        !self.are_alike() && finishing && is_free
    }

    /// Refuses to start or to heal what is wanted stopped.
    pub(super) fn meant_to_run(&self, guest: &GuestName) -> Result<(), Refused> {
        self.in_hand(guest)?;
        let known = self.known(guest)?;
        if known.given_up.is_some() {
            return Err(Refused::Guest { guest: guest.clone(), why: "it has failed and needs a person".to_owned() });
        }
        match known.wanted {
            Wanted::Running | Wanted::Unmanaged => Ok(()),
            Wanted::Stopped => Err(Refused::Guest { guest: guest.clone(), why: "it is wanted stopped".to_owned() }),
        }
    }

    pub(super) fn wanted_set(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        wanted: Wanted,
        by: String,
    ) -> Result<(), Refused> {
        let known = self.guests.get_mut(guest).ok_or_else(|| Refused::NoGuest { guest: guest.clone() })?;
        let anew = wanted == Wanted::Running && known.given_up.is_some();
        if known.wanted == wanted && !anew {
            return Err(Refused::Already { why: format!("{guest} is wanted {}", wanted.word()) });
        }
        // That it is managed again says nothing of when it is to be up.
        let is_started = wanted == Wanted::Running && known.wanted != Wanted::Unmanaged;
        known.wanted = wanted;
        if wanted == Wanted::Stopped {
            known.heading = None;
        }
        if wanted == Wanted::Running {
            // Whoever wants it anew wants it tried anew.
            known.forget_failures();
            known.shuns.clear();
        }
        if is_started {
            self.leave_maintenance(guest);
        }
        self.note(context, Event::WantedSet { guest: guest.clone(), wanted: wanted.word().to_owned(), by });
        self.view(context);
        Ok(())
    }

    /// Whoever starts a guest wants it up now: where its host is in maintenance, or it was left down there, it starts elsewhere, as one
    /// does that was sent away. An earlier version has it wait for the end of the maintenance, and refuses its start (R26).
    fn leave_maintenance(&mut self, guest: &GuestName) {
        if self.level < FeatureLevel::SENT_AWAY {
            return;
        }
        let Some(known) = self.guests.get_mut(guest) else { return };
        let (last, avoid) = match &mut known.phase {
            Phase::Free { last: Some(last), avoid, .. } => (last.clone(), avoid),
            Phase::Releasing { tenure, avoid, .. } => (tenure.host.clone(), avoid),
            Phase::Unplaced
            | Phase::Free { last: None, .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Migrating(_) => return,
        };
        if self.hosts.get(&last).is_some_and(Host::in_maintenance) {
            avoid.insert(last);
        }
    }

    pub(super) fn suspension_set(&mut self, context: &mut Context, suspended: bool, by: String) -> Result<(), Refused> {
        if self.suspended.is_some() == suspended {
            let why = if suspended { "deciding is suspended" } else { "deciding is not suspended" };
            return Err(Refused::Already { why: why.to_owned() });
        }
        let under_way = self.under_way();
        self.suspended = suspended.then(|| Suspension { by: by.clone(), since: context.index, under_way });
        self.note(context, Event::SuspensionSet { suspended, by });
        if !suspended {
            // Whoever resumes after a recovery has looked (R25).
            self.resolve(context, Self::RECOVERY_KEY);
        }
        self.view(context);
        Ok(())
    }
}
