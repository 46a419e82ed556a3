//! The lease of a host's boot: what it has armed, from when on it gets no lease, and its return after proof (R9, R10, R14).

use super::{Context, hosts::in_boot};
use crate::{
    armed::Armed,
    change::Refused,
    feature_level::FeatureLevel,
    journal::Event,
    model::Policies,
    names::{GuestName, HostName, Incarnation},
    order::StopHow,
    proof::{Proof, ProofKind},
    state::{ClusterState, Life, Phase},
};

/// What a sync said of what its host has armed.
pub(super) struct Said {
    pub armed: Option<Armed>,
    pub lease_ms: u64,
    pub known_view: u64,
    pub seen: u64,
}

impl ClusterState {
    /// What a boot has armed becomes the ground of its leases.
    pub(super) fn host_armed(
        &mut self,
        context: &mut Context,
        host: HostName,
        incarnation: &Incarnation,
        said: Said,
    ) -> Result<(), Refused> {
        let refuse = |why: &str| Refused::Host { host: host.clone(), why: why.to_owned() };
        if self.policies.lease_level(&host).is_none() {
            return Err(refuse("has no lease level"));
        }
        let known = in_boot(&mut self.hosts, &host, incarnation)?;
        // R20: nothing opens the way to a lease while it is being fenced, or after it was proven gone.
        if known.life != Life::Up || known.is_contested() {
            return Err(refuse("is fenced, gone or contested"));
        }
        // It may still do what an older declaration asked for: to disarm.
        if said.known_view < known.lease.declared {
            return Err(refuse("has not learned of its lease level yet"));
        }
        if let Some(record) = &known.lease.record {
            let same = record.armed == said.armed;
            if !same && said.seen < record.since {
                return Err(refuse("said so before it said what is committed"));
            }
            if same && record.closed.is_none() && said.lease_ms <= known.lease.longest.lease_ms {
                return Err(Refused::Already { why: format!("it is committed what {host} has armed") });
            }
        }
        let before = known.lease.record.as_ref().map(|record| record.armed.clone());
        known.lease.record(said.armed.clone(), said.lease_ms, context.index);
        if before.as_ref() != Some(&said.armed) {
            self.note(context, Event::HostArmed { host: host.clone(), armed: said.armed });
        }
        context.wake(&host);
        Ok(())
    }

    /// From here on no leader grants this boot a lease, until it has said again what it has armed.
    pub(super) fn lease_closed(
        &mut self,
        context: &Context,
        host: &HostName,
        incarnation: &Incarnation,
    ) -> Result<(), Refused> {
        let known = in_boot(&mut self.hosts, host, incarnation)?;
        if known.lease.record.as_ref().is_none_or(|record| record.closed.is_some()) {
            return Err(Refused::Already { why: format!("{host} gets no lease as it is") });
        }
        known.lease.close(context.index);
        Ok(())
    }

    /// R9: a proof by lease holds only on the record that it was made from. What was committed since may have let in a lease.
    pub(super) fn lease_proof_holds(&self, proof: &Proof) -> Result<(), Refused> {
        let ProofKind::LeaseExpired { host, longest, closed, .. } = proof.kind() else { return Ok(()) };
        let refuse = |why: String| Err(Refused::Host { host: host.clone(), why });
        match self.lease_ground(host) {
            Err(none) => refuse(format!("cannot be proven gone by its lease: {none}")),
            Ok(ground) if ground.closed != Some(*closed) || ground.longest != *longest => {
                refuse("may have got another lease since".to_owned())
            }
            Ok(_) => Ok(()),
        }
    }

    /// A lease level that is declared, changed or taken away: what is armed has to be said anew by an agent that knows it.
    pub(super) fn lease_levels_set(&mut self, context: &Context, policies: &Policies) {
        for host in self.policies.lease_levels_changed(policies) {
            if let Some(known) = self.hosts.get_mut(&host) {
                known.lease.declared = context.index;
                known.lease.record = None;
            }
        }
    }

    /// A boot that was proven gone is alive, has learned of all that it may not run any more, and has nothing of it: it is
    /// taken in again without a reboot (R10).
    pub(super) fn host_returned(
        &mut self,
        context: &mut Context,
        host: &HostName,
        incarnation: &Incarnation,
        seen: u64,
    ) -> Result<(), Refused> {
        let under_way = self.fence_under_way(host);
        let refuse = |why: String| Refused::Host { host: host.clone(), why };
        let known = in_boot(&mut self.hosts, host, incarnation)?;
        let Life::Gone { .. } = known.life else {
            return Err(Refused::Already { why: format!("{host} is not gone") });
        };
        if known.is_contested() {
            return Err(refuse("is quarantined: two machines or two boots use its name".to_owned()));
        }
        if let Some(order) = under_way {
            return Err(refuse(format!("is being fenced ({order}) and cannot return until that has ended")));
        }
        if seen < known.life_since {
            return Err(refuse("has not learned yet that it was proven gone".to_owned()));
        }
        known.life = Life::Up;
        known.life_since = context.index;
        known.lease.owes.clear();
        known.lease.close(context.index);
        // It is on, whatever came of switching it on. An earlier version keeps that, and what people were told of it (R26).
        let is_on = self.level >= FeatureLevel::IS_ON;
        if is_on {
            known.powered_on = None;
        }
        self.note(context, Event::HostReturned { host: host.clone(), incarnation: incarnation.clone() });
        self.resolve(context, &Self::host_key(host));
        if is_on {
            self.resolve(context, &format!("power_on/{host}"));
        }
        self.view(context);
        Ok(())
    }

    /// A host has stopped the guest because its lease ran out, and is back: that is no failure of the guest (R14).
    pub(super) fn stopped_by_lease(&mut self, context: &mut Context, guest: &GuestName) -> Result<(), Refused> {
        let known = self.known(guest)?;
        let Phase::Running { tenure, .. } = &known.phase else {
            return Err(Self::refuse_phase(guest, known, "running"));
        };
        let host = tenure.host.clone();
        if self.lease_reopened_since(tenure).is_none() {
            return Err(Refused::Host { host, why: "has had a lease ever since it started".to_owned() });
        }
        self.meant_to_run(guest)?;
        let why = format!("{host} stopped it when its lease ran out");
        self.guest_hit(context, guest, format!("{guest} is down: {why}"), None);
        self.release_now(context, guest, &why, std::collections::BTreeSet::new(), StopHow::PullPlug);
        Ok(())
    }
}
