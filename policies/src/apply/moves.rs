//! Beginning a move: live where the guest can move while it runs, cold (a stop, then a start at the target) where not.
//!
//! ```text
//! live:  Running(here) --> Migrating --> Running(there), or Running(here) when it fails before the switch
//! cold:  Running(here) --> Releasing --proof--> Free --placed at the heading--> Starting(there) --> Running(there)
//! ```
//! The heading is remembered in the guest until it runs or a start there fails. A cold move starts nowhere before the proof
//! that every stop needs (S2), and its place there is promised to it meanwhile (`plan/promised.rs`); where its target has become unfit,
//! the guest starts at another host. A live move that an operator calls off is in `called_off.rs`.

use std::collections::BTreeSet;

use super::Context;
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    hands_off::HandsOff,
    journal::Event,
    names::{GuestName, HostName},
    state::{ClusterState, Heading, Migration, MigrationStep, Phase, Tenure, Wanted},
};

impl ClusterState {
    /// Begins a move that was decided here.
    pub(super) fn migrate(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        to: &HostName,
        why: String,
    ) -> Result<(), Refused> {
        let source = self.movable(guest, to)?;
        self.meant_to_run(guest)?;
        if let Some(why) = self.takes_no_guests(to) {
            return Err(Refused::Target { guest: guest.clone(), host: to.clone(), why });
        }
        self.set_out(context, guest, source, Heading { to: to.clone(), by: None }, false, why)
    }

    /// Begins an operator's move: accepted, ignored where it is so already, or denied with the reason.
    pub(super) fn move_asked(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        to: HostName,
        cold: bool,
        by: String,
    ) -> Result<(), Refused> {
        self.may_be_moved(guest)?;
        // An earlier version takes it in, and it starts nowhere (R26).
        if self.level >= FeatureLevel::GIVEN_UP && self.known(guest)?.given_up.is_some() {
            let why = format!("it has failed and needs a person: `holdfast guest cleanup {guest}` comes first");
            return Err(Refused::Guest { guest: guest.clone(), why });
        }
        if let Some(under_way) = self.called_off_by(guest, &to, cold) {
            let heading = Heading { to, by: Some(by.clone()) };
            return self.call_off(context, guest, under_way, heading, &by);
        }
        let free = matches!(self.known(guest)?.phase, Phase::Free { .. });
        let source = if free { None } else { Some(self.movable(guest, &to)?) };
        if !self.hosts.contains_key(&to) {
            return Err(Refused::NoHost { host: to });
        }
        if let Some(why) = self.unfit(guest, &to) {
            return Err(Refused::Target { guest: guest.clone(), host: to, why });
        }
        let heading = Heading { to: to.clone(), by: Some(by.clone()) };
        match source {
            Some(source) => self.set_out(context, guest, source, heading, cold, format!("{by} asked for it"))?,
            None if self.guests.get(guest).and_then(|known| known.heading.as_ref()) == Some(&heading) => {
                return Err(Refused::Already { why: format!("{guest} is to start on {to}") });
            }
            None => self.head(guest, Some(heading)),
        }
        self.note(context, Event::MoveAsked { guest: guest.clone(), to, cold, by });
        self.view(context);
        Ok(())
    }

    /// Says where the guest is going, or that it is going nowhere.
    pub(super) fn head(&mut self, guest: &GuestName, heading: Option<Heading>) {
        if let Some(known) = self.guests.get_mut(guest) {
            known.heading = heading;
        }
    }

    pub(super) fn set_out(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        source: Tenure,
        heading: Heading,
        cold: bool,
        why: String,
    ) -> Result<(), Refused> {
        let live = self.policies.guests.get(guest).is_some_and(|declared| declared.needs.live_migration);
        if live && !cold {
            self.receive(context, guest, source, &heading.to, why)?;
        } else {
            let (why, how) = (format!("it is to start on {}: {why}", heading.to), self.in_order(guest));
            self.release_now(context, guest, &why, BTreeSet::new(), how);
        }
        self.head(guest, Some(heading));
        Ok(())
    }

    /// An operator may also move a guest off a host in maintenance; the hands that are kept off are Holdfast's own.
    pub(super) fn may_be_moved(&self, guest: &GuestName) -> Result<(), Refused> {
        let refuse = |why: String| Err(Refused::Guest { guest: guest.clone(), why });
        if let Some(suspension) = &self.suspended {
            let suspended = HandsOff::Suspended { by: suspension.by.clone() };
            return refuse(format!("{suspended}: `holdfast resume` comes first"));
        }
        match self.known(guest)?.wanted {
            Wanted::Running => Ok(()),
            Wanted::Stopped => refuse(format!("it is wanted stopped: `holdfast guest start {guest}` comes first")),
            Wanted::Unmanaged => {
                refuse(format!("{}: `holdfast guest manage {guest}` comes first", HandsOff::Unmanaged))
            }
        }
    }

    /// The tenure that a running guest is to leave.
    fn movable(&self, guest: &GuestName, to: &HostName) -> Result<Tenure, Refused> {
        let known = self.known(guest)?;
        let already = |why: String| Err(Refused::Already { why });
        let coming = known.heading.as_ref().is_some_and(|heading| heading.to == *to);
        match &known.phase {
            Phase::Running { tenure, .. } | Phase::Starting { tenure, .. } if tenure.host == *to => {
                already(format!("{guest} runs on {to}"))
            }
            Phase::Running { tenure, action: None, .. } => Ok(tenure.clone()),
            Phase::Releasing { .. } if coming => already(format!("{guest} is going to {to}")),
            Phase::Migrating(Migration {
                step: MigrationStep::Receiving { .. } | MigrationStep::Sending { .. } | MigrationStep::Switched { .. },
                ..
            }) if coming => already(format!("{guest} is going to {to}")),
            Phase::Unplaced
            | Phase::Free { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Releasing { .. }
            | Phase::Migrating(_) => Err(Self::refuse_phase(guest, known, "running without an action under way")),
        }
    }
}
