//! Applying committed commands: deterministic, complete, and refusing what does not fit the state any more.
//!
//! A command was decided on an older state than the one that it meets, so each checks again that it still fits;
//! one that does not is refused and changes nothing (S7).

mod alike;
mod called_off;
mod departures;
mod devices;
mod drills;
pub(crate) mod failures;
mod fences;
mod guests;
mod halves;
mod hosts;
mod incidents;
mod ladders;
mod leases;
mod migrations;
mod moves;
mod orders;
mod paths;
mod policies;
mod power_on;
mod quarantine;
mod revocation;
mod storm;
mod strays;
mod wishes;

use crate::{
    change::{Applied, Change, Command, Refused},
    feature_level::FeatureLevel,
    journal::Event,
    names::{Epoch, GuestName, HostName, OrderId},
    order::{Order, OrderKind},
    state::{ClusterState, Guest, Phase},
    time::WallTime,
};

/// The entry that is being applied, and what its application wakes up.
pub(crate) struct Context {
    pub index: u64,
    pub at: WallTime,
    pub applied: Applied,
}

impl Context {
    /// Marks that a host has something to fetch that is for it alone.
    pub(crate) fn wake(&mut self, host: &HostName) {
        self.applied.nudge.insert(host.clone());
        self.applied.at_once.insert(host.clone());
    }
}

impl ClusterState {
    /// Applies one committed command.
    pub fn apply(&mut self, index: u64, command: Command) -> Applied {
        let mut context = Context { index, at: command.at, applied: Applied::default() };
        if let Err(refused) = self.change(&mut context, command.what) {
            context.applied.refused = Some(refused);
        } else {
            self.forget_kept();
        }
        self.applied = index;
        context.applied
    }

    fn change(&mut self, context: &mut Context, change: Change) -> Result<(), Refused> {
        self.knows(&change)?;
        match change {
            Change::HostJoined { host, facts, follows } => self.host_joined(context, host, facts, follows),
            Change::FenceOpened { host, incarnation, evidence, last_well, safe_at } => {
                self.fence_opened(context, &host, &incarnation, (evidence, last_well), safe_at)
            }
            Change::FenceAttempted { host, executor, level } => self.fence_attempted(context, &host, &executor, level),
            Change::FenceAllowed { host, by } => self.fence_allowed(context, &host, by),
            Change::FenceSuperseded { host, why } => self.fence_superseded(context, &host, why),
            Change::HostGone { proof, last_well, last_words } => self.host_gone(context, proof, last_well, last_words),
            Change::HostArmed { host, incarnation, armed, lease_ms, known_view, seen } => {
                let said = leases::Said { armed, lease_ms, known_view, seen };
                self.host_armed(context, host, &incarnation, said)
            }
            Change::LeaseClosed { host, incarnation } => self.lease_closed(context, &host, &incarnation),
            Change::HostReturned { host, incarnation, seen } => self.host_returned(context, &host, &incarnation, seen),
            Change::StoppedByLease { guest } => self.stopped_by_lease(context, &guest),
            Change::Vacated { host } => self.vacated(context, &host),
            Change::FenceForgotten { host, attempted } => self.fence_forgotten(&host, attempted),
            Change::QuarantineLifted { host, machine_id, by } => self.quarantine_lifted(context, &host, machine_id, by),
            Change::NameContested { host, other } => self.name_contested(context, &host, other),
            Change::DeviceDistrusted { host, level, why } => self.device_distrusted(context, host, level, why),
            Change::DeviceTrusted { host, by } => self.device_trusted(context, host, by),
            Change::PowerOnOrdered { host, executor, level } => self.power_on_ordered(context, &host, &executor, level),
            Change::DrillBegun { host, executor, level, by } => self.drill_begun(context, &host, &executor, level, by),
            Change::DrillEnded { host, failed } => self.drill_ended(context, &host, failed),
            Change::FenceTested { host, executor, machine_id, policy_version, levels } => {
                self.fence_tested(context, &host, &executor, (&machine_id, policy_version), levels)
            }
            Change::StormHoldReleased { by } => self.storm_hold_released(context, by),
            Change::StormEnded => self.storm_ended(context),
            Change::GuestFree { guest, proof } => self.guest_free(context, &guest, proof),
            Change::GuestAdopted { guest, tenure } => self.guest_adopted(context, &guest, tenure),
            Change::Place { guest, host, why } => self.place(context, &guest, &host, why),
            Change::Climb { guest, rung, ladder, to, why, evidence, last_well } => {
                self.climb(context, &guest, (ladder, rung), to.as_ref(), why, evidence, last_well)
            }
            Change::Migrate { guest, to, why } => self.migrate(context, &guest, &to, why),
            Change::MoveAsked { guest, to, cold, by } => self.move_asked(context, &guest, to, cold, by),
            Change::LookedAfter { guest, by } => self.looked_after(context, &guest, by),
            Change::StrayFound { guest, host, epoch, keep } => {
                self.stray_found(context, &guest, host, epoch, keep.as_ref())
            }
            Change::MovedOutside { guest, tenure } => self.moved_outside(context, &guest, tenure),
            Change::Stop { guest, why } => self.stop(context, &guest, &why),
            Change::ReleaseAgain { guest } => self.release_again(context, &guest),
            Change::Verified { guest, unasked } => self.verified(context, &guest, unasked),
            Change::LadderReset { guest } => self.ladder_reset(&guest),
            Change::OrderEnded { order, outcome } => self.order_ended(context, order, outcome),
            Change::IncidentOpened { key, severity, summary, human, guests, evidence } => {
                self.incident_opened(context, &key, severity, summary, human, guests)?;
                self.incident_seen(context, &key, &evidence);
                Ok(())
            }
            Change::IncidentResolved { key } => self.incident_resolved(context, &key),
            Change::Delivered { incident, receiver, seq } => self.delivered(incident, receiver, seq),
            Change::PoliciesApplied { policies, sources, base_version, by } => {
                self.policies_applied(context, *policies, sources, base_version, by)
            }
            Change::ModeSet { host, mode, by } => self.mode_set(context, &host, mode, by),
            Change::WantedSet { guest, wanted, by } => self.wanted_set(context, &guest, wanted, by),
            Change::SuspensionSet { suspended, by } => self.suspension_set(context, suspended, by),
            Change::HostRevoked { host, why, keys, by } => self.host_revoked(context, &host, why, keys, by),
            Change::HostReadmitted { host, serial, by } => self.host_readmitted(context, &host, serial, by),
            Change::LevelRaised { to } => self.level_raised(context, to),
        }
    }

    /// Whoever proposes looks first; this one counts whoever proposed (R26).
    fn knows(&self, change: &Change) -> Result<(), Refused> {
        let (needs, is) = (change.level(), self.level);
        if needs > is { Err(Refused::Level { needs, is }) } else { Ok(()) }
    }

    fn level_raised(&mut self, context: &Context, to: FeatureLevel) -> Result<(), Refused> {
        if to <= self.level {
            return Err(Refused::Already { why: format!("the cluster is at feature level {}", self.level) });
        }
        let were_alike = self.are_alike();
        self.level = to;
        self.note(context, Event::LevelRaised { to });
        if self.are_alike() && !were_alike {
            self.begin_alike(context);
        }
        Ok(())
    }

    /// Whether all voters make of an entry what the second level made of it. Until then it is done with it what an earlier version does,
    /// wherever that bears on what is ordered, on incidents or on leases (R26).
    pub(super) fn are_alike(&self) -> bool {
        self.level >= FeatureLevel::ALIKE
    }

    /// A guest that is declared no more goes on as it is and is not ours. One with something under way is forgotten only
    /// when that has ended: else, declared again, it could be placed while an order of its earlier life is still to start it.
    pub(crate) fn forget_guest(&mut self, context: &Context, guest: &GuestName) {
        self.guests.remove(guest);
        self.drop_guest_orders(guest);
        // An earlier version knows of no warnings, and leaves them open.
        let warned = self.are_alike().then_some("warned");
        for about in ["guest", "placement", "degraded", "unasked", "leave", "order", "twice"].into_iter().chain(warned)
        {
            let key = format!("{about}/{guest}");
            self.resolve(context, &key);
        }
    }

    pub(crate) fn note(&mut self, context: &Context, event: Event) {
        self.journal.add(context.index, context.at, event);
    }

    /// Marks that agents have something new to know.
    pub(crate) fn view(&mut self, context: &mut Context) {
        self.view_changed = context.index;
        context.applied.nudge.extend(self.hosts.keys().cloned());
    }

    /// The epoch of an assignment that this entry commits (R7).
    pub(crate) fn epoch(&self, context: &Context) -> Epoch {
        Epoch { generation: self.generation, index: context.index }
    }

    /// Makes an order for the boot with which the host has joined.
    pub(crate) fn order(
        &mut self,
        context: &mut Context,
        host: &HostName,
        kind: OrderKind,
    ) -> Result<OrderId, Refused> {
        let known = self.hosts.get(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        let incarnation = known.facts.incarnation.clone();
        self.last_order += 1;
        let id = OrderId(self.last_order);
        let deadline = kind.deadline();
        let order = Order { id, host: host.clone(), incarnation, issued: context.index, deadline, kind };
        self.orders.insert(id, order);
        context.wake(host);
        Ok(id)
    }

    pub(crate) fn refuse_phase(guest: &GuestName, phase: &Guest, needed: &str) -> Refused {
        Refused::Phase { guest: guest.clone(), is: phase.word().to_owned(), needed: needed.to_owned() }
    }

    pub(crate) fn set_phase(&mut self, context: &mut Context, guest: &GuestName, phase: Phase) {
        let Some(known) = self.guests.get_mut(guest) else { return };
        known.phase = phase;
        if let Phase::Running { tenure, .. } = &known.phase {
            let moved = known.heading.take().is_some_and(|heading| heading.by.is_some() && heading.to == tenure.host);
            let stayed = known.settled.as_ref() == Some(&tenure.host);
            known.given_up = None;
            known.settled = (moved || stayed).then(|| tenure.host.clone());
            // What a suspension let finish has finished.
            if let Some(suspension) = &mut self.suspended {
                suspension.under_way.remove(guest);
            }
        }
        if !known.is_between() && !self.policies.guests.contains_key(guest) {
            self.forget_guest(context, guest);
        }
        self.view(context);
    }
}

#[cfg(test)]
mod faults_tests;
#[cfg(test)]
mod tests;
