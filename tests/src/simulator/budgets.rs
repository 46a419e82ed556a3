//! Budgets of fences, and hosts that are quarantined because they were fenced often: what the hour has no room for waits until an
//! operator lets it go on (S8, S9).

use holdfast_policies::{
    change::Change,
    names::HostName,
    rules::ClusterSettings,
    state::{Fence, Host, Life},
};

use super::{
    Ms,
    faults::{Happening, Plan, heals},
    oddities::before,
    random::Random,
    setup::Setup,
    world::World,
};

/// What counts for an hour counts for so long by the fastest clock.
const HOUR: Ms = 3_500_000;

/// Gives a world budgets that its bursts use up, and a host that is cut off in each of them.
pub fn draw(setup: &mut Setup, random: &mut Random, mut plan: Plan) -> Plan {
    let cluster = &mut setup.policies.cluster;
    let limit = 1 + u32::from(random.one_in(3));
    match random.below(3) {
        0 => cluster.fences_per_hour = Some(limit),
        1 => cluster.fences_per_hour_in_all = Some(limit),
        _ => (cluster.fences_per_hour, cluster.fences_per_hour_in_all) = (Some(limit), Some(limit + 1)),
    }
    // Whoever lifts a quarantine has seen why the host was fenced: its budget is whole again then.
    cluster.quarantine_after_fences = random.one_in(3).then_some(limit);
    let host = random.index(setup.hosts.len());
    let healed = heals(&plan);
    for healed in healed {
        let at = before(random, healed, 12_000, 24_000);
        plan.push((at, Happening::Cut { host, time: random.between(9_000, 16_000) }));
        plan.extend([5_500, 9_000].map(|after| (at + after, Happening::FencesAllowed)));
    }
    plan
}

/// The fences that have begun, each with its moment and its host, oldest first; what is an hour old, or was looked into, is gone.
#[derive(Debug, Default)]
pub struct Begun(Vec<(Ms, HostName)>);

impl Begun {
    /// The budget that has no room for another fence of this host, in words.
    fn spent(&self, limits: &ClusterSettings, host: &HostName, now: Ms) -> Option<String> {
        let within = self.0.iter().filter(|(at, _)| now - at < HOUR);
        let (all, own) = (within.clone().count(), within.filter(|(_, of)| of == host).count());
        let is_full = |limit: Option<u32>, count: usize| limit.is_some_and(|limit| count as u64 >= u64::from(limit));
        if is_full(limits.fences_per_hour, own) {
            return Some(format!("{own} fences of it have begun within the hour"));
        }
        is_full(limits.fences_per_hour_in_all, all).then(|| format!("{all} fences have begun within the hour"))
    }

    fn note(&mut self, host: &HostName, now: Ms) {
        self.0.retain(|(at, _)| now - at < HOUR);
        self.0.push((now, host.clone()));
    }
}

impl World {
    /// S8: a fence that has no room in the hour begins only when an operator lets it. A fence begins with its first attempt.
    pub(super) fn check_budget(&mut self, host: &HostName) {
        let Some(known) = self.truth.state.hosts.get(host) else { return };
        let Life::Fencing(Fence { attempts: 1, allowed, .. }) = &known.life else { return };
        let is_held = allowed.is_none();
        let is_often = known.quarantine.is_some() && !known.is_contested();
        let spent = self.begun.spent(&self.truth.state.policies.cluster, host, self.now);
        self.seen.often_fenced += u64::from(is_often);
        self.begun.note(host, self.now);
        if let Some(spent) = spent.filter(|_| is_held) {
            self.violate("S8", format!("{host} is to be switched off, and {spent}"));
        }
    }

    /// A quarantine was lifted: whoever did that has looked at the host's fences.
    pub(super) fn forget_fences(&mut self, host: &HostName) {
        self.begun.0.retain(|(_, of)| of != host);
    }

    /// An operator lets every fence go on that a budget holds; whether somebody could take that.
    pub(super) fn allow_fences(&mut self) -> bool {
        let state = &self.truth.state;
        let is_held = |(name, known): &(&HostName, &Host)| {
            let waits = matches!(&known.life, Life::Fencing(Fence { attempts: 0, attempt: None, allowed: None, .. }));
            waits && self.begun.spent(&state.policies.cluster, name, self.now).is_some()
        };
        let held: Vec<HostName> = state.hosts.iter().filter(is_held).map(|(name, _)| name.clone()).collect();
        let mut taken = true;
        for host in held {
            taken &= self.operate(Change::FenceAllowed { host, by: "ann".to_owned() });
        }
        taken
    }

    /// Once faults have stopped, whoever was called for a host that was fenced often has looked at it.
    pub(super) fn lift_quarantines(&mut self) {
        let is_often = |(_, known): &(&HostName, &Host)| known.quarantine.is_some() && !known.is_contested();
        let often: Vec<HostName> =
            self.truth.state.hosts.iter().filter(is_often).map(|(name, _)| name.clone()).collect();
        for host in often {
            self.operate(Change::QuarantineLifted { host, machine_id: None, by: Some("ann".to_owned()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_by_the_fences_of_the_hour_and_by_no_others() {
        let host = |name: &str| HostName::new(name).unwrap();
        let limits = |own, all| ClusterSettings {
            fences_per_hour: own,
            fences_per_hour_in_all: all,
            ..ClusterSettings::default()
        };
        let mut begun = Begun::default();
        begun.note(&host("a"), 1_000);
        begun.note(&host("b"), 2_000);
        for (own, all, of, now, is_spent) in [
            (None, None, "a", 3_000, false),
            (Some(1), None, "a", 3_000, true),
            (Some(1), None, "c", 3_000, false),
            (Some(2), None, "a", 3_000, false),
            (None, Some(2), "c", 3_000, true),
            (None, Some(3), "c", 3_000, false),
            (Some(1), None, "a", 1_000 + HOUR, false),
            (None, Some(2), "c", 1_000 + HOUR, false),
            (None, Some(1), "c", 1_000 + HOUR, true),
        ] {
            let spent = begun.spent(&limits(own, all), &host(of), now);
            assert_eq!(spent.is_some(), is_spent, "{own:?} {all:?} {of} at {now}: {spent:?}");
        }
    }
}
