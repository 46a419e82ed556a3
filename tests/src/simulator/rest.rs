//! When a cluster is at rest: every guest that there is room for runs and answers where it is committed to be, every host serves or is
//! known to be gone, and nothing is under way.

use holdfast_policies::{
    names::GuestName,
    state::{Guest, Life, Mode, Phase, Wanted},
};

use super::world::World;

impl World {
    /// Notes since when the whole cluster is at rest, as its coordinator finds out.
    pub(super) fn notice_rest(&mut self, voter: usize) {
        let rests = self.coordinator() == Some(voter)
            && self.brain_rests(voter)
            && self.to_declare.is_none()
            && self.truth.state.orders.is_empty()
            && self.lies.is_empty()
            && self.truth.state.suspended.is_none()
            && !self.truth.state.guests.is_empty()
            && self.all_active()
            && self.all_run()
            && self.hosts_rest()
            && self.views_rest()
            && self.shares_no_trouble()
            && super::rules::broken(&self.truth.state).is_none();
        if rests && self.rest_since.is_none() {
            self.note_rest();
        }
        self.rest_since = if rests { self.rest_since.or(Some(self.now)) } else { None };
    }

    /// Whether a host is joined and serves, or is known to be gone and stays so.
    pub(super) fn host_rests(&self, index: usize) -> bool {
        let (now, host) = (self.now, &self.hosts[index]);
        if index >= self.named {
            return !host.on;
        }
        let known = self.truth.state.hosts.get(&host.name);
        match known.map(|known| &known.life) {
            None | Some(Life::Fencing(_)) => false,
            Some(Life::Gone { .. }) => !host.on || host.hung,
            Some(Life::Up) => {
                let boot = known.map(|known| super::host::boot_of(&known.facts.incarnation));
                host.serves(now) && boot == Some(host.boot_number()) && host.lease_until > now
            }
        }
    }

    fn hosts_rest(&self) -> bool {
        (0..self.hosts.len()).all(|host| self.host_rests(host)) && self.voters.iter().all(|voter| !voter.learner)
    }

    /// What the coordinator makes of a guest, for people.
    fn judged(&self, name: &GuestName) -> String {
        let Some(brain) = self.coordinator().map(|voter| &self.voters[voter].brain) else {
            return "nobody says".to_owned();
        };
        let judged = brain.report.as_ref().and_then(|report| report.guests.get(name));
        judged.map_or_else(|| "nothing is said of it".to_owned(), |judged| format!("{judged:?}"))
    }

    pub(super) fn why_not_at_rest(&self) -> String {
        let state = &self.truth.state;
        let mut why = Vec::new();
        match self.coordinator() {
            None => why.push("nobody coordinates".to_owned()),
            Some(voter) if !self.brain_rests(voter) => {
                why.push(format!("{} has something to decide: {}", self.hosts[voter].name, self.brain_wants(voter)));
            }
            Some(_) => {}
        }
        for (name, guest) in &state.guests {
            if !self.guest_rests(name, guest) && !self.waits_for_room(name, guest) {
                let phase: String = format!("{:?}", guest.phase).chars().take(160).collect();
                let judged: String = self.judged(name).chars().take(600).collect();
                why.push(format!("{name} is {} (ladder {:?}, {phase}): {judged}", guest.word(), guest.ladder.position));
            }
        }
        for (index, host) in self.hosts.iter().enumerate() {
            if !self.host_rests(index) {
                let known = state.hosts.get(&host.name);
                let life: String = format!("{:?}", known.map(|known| &known.life)).chars().take(200).collect();
                let on = if host.on { "on" } else { "off" };
                why.push(format!("{} is {on}, boot {}, {life}", host.name, host.boot));
            }
        }
        why.extend(
            state
                .hosts
                .iter()
                .filter(|(_, host)| host.mode != Mode::Active)
                .map(|(name, host)| format!("{name} is {}", host.mode.word())),
        );
        why.extend(
            self.voters.iter().filter(|voter| voter.learner).map(|voter| format!("voter {} learns", voter.host)),
        );
        why.extend(state.orders.values().map(|order| format!("{} to {}: {}", order.id, order.host, order.kind)));
        why.extend(state.suspended.as_ref().map(|_| "deciding is suspended".to_owned()));
        why.extend((!self.shares_no_trouble()).then(|| "guests share a trouble, or are said to".to_owned()));
        why.extend(super::rules::broken(state));
        why.join("; ")
    }

    /// Whether the declared guests are where the cluster has committed that they are, and answer; or no host has room for them.
    fn all_run(&self) -> bool {
        let mut guests = self.truth.state.guests.iter();
        guests.all(|(name, guest)| self.guest_rests(name, guest) || self.waits_for_room(name, guest))
    }

    /// Whether a guest is well, and nothing is remembered against it.
    fn guest_rests(&self, name: &GuestName, guest: &Guest) -> bool {
        let Phase::Running { tenure, verified: true, action: None, .. } = &guest.phase else { return false };
        let Some(host) = self.host_index(&tenure.host) else { return false };
        guest.wanted == Wanted::Running
            && guest.ladder.position.is_none()
            && guest.start_failures.is_empty()
            && self.hosts[host].answers(name, tenure.epoch, self.now)
    }
}
