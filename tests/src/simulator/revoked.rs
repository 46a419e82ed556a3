//! Hosts that are revoked after their power is proven gone, and that come back: with the certificate that counts no more they stay out,
//! and join again with a new one that was readmitted (R27). Certificates are numbers here; which of them counts is told by the
//! product's own `admit`, from the state that each voter has.
//!
//! ```text
//!  off, gone, nothing runs there --an operator--> revoked --power--> refused --an operator, after the faults--> new certificate, joins
//! ```

use std::collections::BTreeSet;

use holdfast_policies::{
    change::Change,
    names::{HostName, Incarnation},
    operators::Serial,
    revocation::{HostCertificate, admit, is_heard},
    state::Life,
};

use super::{
    Ms,
    breaks::Break,
    faults::{Happening, Plan, heals},
    oddities::before,
    queue::Event,
    random::Random,
    setup::Setup,
    world::World,
};

/// What had come in when the revocation was committed may wait for a read round so long.
const UNDER_WAY: Ms = 500;
/// A new machine under a name is switched on so long after its certificate was made.
const MADE_ANEW: Ms = 3_000;
/// So much longer it takes until everything is at rest where a name is revoked: people make a certificate, and look whether it counts.
const BACK_WITHIN: Ms = 30_000;
/// An operator tries to revoke a host again and again until it is proven gone: every half a second.
const TRIES: u32 = 40;

/// Before heals, hosts without a vote are switched off, revoked, and switched on again. Not where something is counted of hosts that
/// is forgotten with them.
pub fn draw(setup: &Setup, random: &mut Random, mut plan: Plan) -> Plan {
    let healed = heals(&plan);
    let cluster = &setup.policies.cluster;
    let counts = cluster.fences_per_hour.is_some() || cluster.fences_per_hour_in_all.is_some();
    let members = setup.hosts.len().saturating_sub(setup.voters);
    let loses_history = plan.iter().any(|(_, what)| matches!(what, Happening::MajorityLost { .. }));
    if members == 0 || counts || loses_history || setup.twin.is_some() || !setup.old.is_empty() {
        return plan;
    }
    for healed in healed {
        let host = setup.voters + random.index(members);
        let cut = before(random, healed, 22_000, 32_000);
        plan.push((cut, Happening::PowerCut { host, back: Some(random.between(13_000, 20_000)) }));
        plan.push((cut + random.between(2_000, 8_000), Happening::Revoked { host }));
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

impl World {
    /// The certificate that a host shows.
    fn certificate(&self, host: usize) -> HostCertificate {
        let known = &self.hosts[host];
        HostCertificate { host: known.name.clone(), serial: Serial::from_bytes(&known.serial.to_be_bytes()) }
    }

    /// Whether a voter serves a host, as far as it knows which certificates count.
    pub(super) fn admits(&self, voter: usize, host: usize) -> bool {
        let revoked = &self.voters[voter].state.revoked;
        revoked.is_empty() || self.broken == Some(Break::R27) || admit(revoked, &self.certificate(host)).is_ok()
    }

    /// Whether a voter hears the guard of a boot.
    pub(super) fn hears_of(&self, voter: usize, of: usize, boot: u32) -> bool {
        let (state, host) = (&self.voters[voter].state, &self.hosts[of]);
        // Mostly, and beacons are what there is most of.
        if state.revoked.is_empty() {
            return true;
        }
        let joined = state.hosts.contains_key(&host.name);
        is_heard(&state.revoked, joined, &host.name, &host.incarnation(boot))
    }

    /// An operator begins to try to revoke a host.
    pub(super) fn revoke_soon(&mut self, host: usize) {
        self.queue.push(self.now, Event::Operator { what: Box::new(Happening::Revoked { host }), tries: TRIES });
    }

    /// `holdfast host revoke`; whether there is nothing more to be tried.
    pub(super) fn revoke(&mut self, host: usize) -> bool {
        let name = self.hosts[host].name.clone();
        let Some(known) = self.truth.state.hosts.get(&name).filter(|_| host >= self.voters.len()) else { return true };
        if matches!(known.life, Life::Gone { .. }) {
            let (why, by) = ("it was stolen".to_owned(), "ann".to_owned());
            self.operate(Change::HostRevoked { host: name, why, keys: BTreeSet::new(), by });
        }
        false
    }

    /// How much longer it takes until everything is at rest because of hosts that are revoked, or are about to be.
    pub(super) fn readmitted_within(&self) -> Ms {
        let is_tried = self.queue.latest(is_revocation).is_some();
        if self.truth.state.revoked.is_empty() && !is_tried { 0 } else { BACK_WITHIN }
    }

    /// Once the faults have stopped, whoever was revoked gets a new certificate, which is readmitted, and begins anew with it.
    pub(super) fn readmit(&mut self) {
        for host in self.voters.len()..self.named {
            let Some(revocation) = self.truth.state.revoked.get(&self.hosts[host].name) else { continue };
            let (since, counts) = (revocation.since, revocation.readmitted.clone());
            // One that a recovered cluster knows is readmitted only when that boot is proven gone.
            let known = self.truth.state.hosts.get(&self.hosts[host].name);
            let may_be_on = known.is_some_and(|known| !matches!(known.life, Life::Gone { .. }));
            if self.hosts[host].serial != since || (counts.is_none() && may_be_on) {
                self.power_off(host, None);
                self.hosts[host].serial = since;
            }
            let HostCertificate { host: name, serial } = self.certificate(host);
            if counts.as_ref() != Some(&serial) {
                self.operate(Change::HostReadmitted { host: name, serial, by: "ann".to_owned() });
            } else if !self.hosts[host].on {
                self.power_on_after(host, MADE_ANEW);
            }
        }
    }

    /// Notes who is revoked.
    pub(super) fn note_revoked(&mut self, host: &HostName) {
        self.seen.revoked += 1;
        if let Some(index) = self.host_index(host) {
            self.hosts[index].revoked_at = self.now;
        }
    }

    /// R27: nobody answers a host whose certificate counts no more, in the authority of a round that began after that.
    pub(super) fn check_admitted(&mut self, host: usize, began: Ms) {
        let revoked = &self.truth.state.revoked;
        // A recovery may have forgotten that its certificate counts.
        let since = self.hosts[host].revoked_at.max(self.recovered.unwrap_or(0));
        if revoked.is_empty() || began <= since + UNDER_WAY {
            return;
        }
        if let Err(refused) = admit(revoked, &self.certificate(host)) {
            self.violate("R27", format!("{refused}, and it is answered"));
        }
    }

    /// R27: of a revoked name only a boot joins that came after it, once a certificate of it counts.
    pub(super) fn check_comes_back(&mut self, host: &HostName, incarnation: &Incarnation) {
        let Some(revocation) = self.truth.state.revoked.get(host) else { return };
        if revocation.readmitted.is_none() || revocation.boots.contains(incarnation) {
            self.violate("R27", format!("{host} was revoked, and its boot {incarnation} joins"));
        }
        self.seen.readmitted += 1;
    }
}

/// Whether an operator tries to revoke a host then.
fn is_revocation(event: &Event) -> bool {
    let Event::Operator { what, .. } = event else { return false };
    matches!(**what, Happening::Revoked { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::setup::device;

    const HOSTS: usize = 5;
    /// Has no vote.
    const MEMBER: usize = 4;

    fn world(broken: Option<Break>) -> World {
        let setup = Setup::random(1, HOSTS, HOSTS, None);
        let mut policies = setup.policies;
        policies.fencing = setup.hosts.into_iter().map(|host| (host.name, vec![device()])).collect();
        let mut world = World::at_rest(&Setup { broken, ..Setup::plain(HOSTS, policies) });
        world.happen(&Happening::PowerCut { host: MEMBER, back: Some(25_000) });
        world.happen(&Happening::Revoked { host: MEMBER });
        world.run_until(world.real() + 40_000);
        world
    }

    #[test]
    fn a_revoked_host_stays_out_until_its_new_certificate_is_readmitted_and_everybody_knows_of_it() {
        let mut world = world(None);
        let name = world.hosts[MEMBER].name.clone();
        assert_eq!((world.violation(), world.seen.revoked), (None, 1));
        assert!(world.hosts[MEMBER].on && !world.state().hosts.contains_key(&name));
        for host in 0..MEMBER {
            let view = &world.hosts[host].supervisor.as_ref().unwrap().view;
            assert_eq!(view.revoked, world.state().revoked, "host {host}");
        }
        world.heal_by_hand();
        assert_eq!((world.violation(), world.unhealed()), (None, None));
        assert_eq!(world.state().hosts[&name].life, Life::Up);
    }

    #[test]
    fn a_revoked_host_that_is_answered_is_noticed() {
        assert_eq!(world(Some(Break::R27)).violation().map(|violation| violation.promise), Some("R27"));
    }
}
