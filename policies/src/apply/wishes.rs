//! What operators want of guests and of deciding itself.

use super::Context;
use crate::{
    change::Refused,
    hands_off::HandsOff,
    journal::Event,
    names::GuestName,
    state::{ClusterState, Phase, Suspension, Wanted},
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
        known.wanted = wanted;
        if wanted == Wanted::Stopped {
            known.heading = None;
        }
        if wanted == Wanted::Running {
            // Whoever wants it anew wants it tried anew.
            known.forget_failures();
            known.shuns.clear();
        }
        self.note(context, Event::WantedSet { guest: guest.clone(), wanted: wanted.word().to_owned(), by });
        self.view(context);
        Ok(())
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
