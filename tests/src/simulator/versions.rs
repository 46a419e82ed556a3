//! Upgrades: some hosts begin with an older version, and are upgraded one after the other. What a version brings may be committed
//! only when all voters can do it (R26): a voter that cannot halts at the entry, and its vote is gone.

use holdfast_policies::{
    change::Change,
    feature_level::{FeatureLevel, to_raise},
};

use super::{
    Ms,
    breaks::Break,
    faults::{Happening, Plan, heals},
    oddities::before,
    random::Random,
    setup::Setup,
    world::World,
};

/// The stream of chance that upgrades are drawn from.
const VERSIONS: u64 = 16;

/// What older versions can do. The first one knows of no levels.
const OLDER: [FeatureLevel; 3] = [FeatureLevel::BIRTH, FeatureLevel::REVOCATION, FeatureLevel::CALLED_OFF];

/// Has half of the hosts of every third world begin with one older version, and upgrades each of them before one of the heals.
pub fn draw(setup: &mut Setup, mut plan: Plan) -> Plan {
    let mut random = Random::new(setup.seed, VERSIONS);
    let drawn = random.one_in(3) || setup.broken == Some(Break::R26);
    let healed = heals(&plan);
    // A second machine speaks in the name of the first, and would say what it can do for it.
    if !drawn || healed.is_empty() || setup.twin.is_some() {
        return plan;
    }
    let old: Vec<usize> = (0..setup.hosts.len()).filter(|_| random.one_in(2)).collect();
    for host in &old {
        let healed = healed[random.index(healed.len())];
        let at = before(&mut random, healed, 2_000, 24_000);
        plan.push((at, Happening::Upgrade { host: *host, back: random.between(200, 3_000) }));
    }
    let level = OLDER[random.index(OLDER.len())];
    setup.old = old.into_iter().map(|host| (host, level)).collect();
    plan.sort_by_key(|(at, _)| *at);
    plan
}

impl World {
    /// Has the hosts of the setup begin with the older version.
    pub(super) fn begin_with_older_versions(&mut self, setup: &Setup) {
        for (host, level) in &setup.old {
            self.hosts[*host].level = *level;
        }
        self.upgrades = !setup.old.is_empty();
    }

    /// A host's supervisor is stopped, and this version is started in its place.
    pub(super) fn upgrade(&mut self, host: usize, back: Ms) {
        self.hosts[host].level = FeatureLevel::HIGHEST;
        self.stop_supervisor(host, back);
    }

    /// The level that this coordinator has committed: none that its own version cannot do.
    pub(super) fn level_to_raise(&self, voter: usize) -> Option<Change> {
        let (known, own) = (&self.voters[voter], self.hosts[voter].level);
        if own <= FeatureLevel::BIRTH {
            return None;
        }
        if self.broken == Some(Break::R26) {
            return (known.state.level < own).then_some(Change::LevelRaised { to: own });
        }
        let clock = self.hosts[voter].clock(self.now);
        let raise = to_raise(&known.state, &known.brain.evidence, clock, self.timing.suspect_after.0);
        raise.filter(|raise| raised_to(raise).is_none_or(|to| to <= own))
    }

    /// R26: no voter comes upon an entry that its version does not know.
    pub(super) fn check_version(&mut self, voter: usize, number: u64, change: &Change) {
        let needs = raised_to(change).unwrap_or_else(|| change.level());
        let own = self.hosts[voter].level;
        if needs > own {
            let name = self.hosts[voter].name.clone();
            let what = format!("{name} can do level {own}, and halts at entry {number}, which needs level {needs}");
            self.violate("R26", what);
        }
    }
}

/// The level that a change raises the cluster's to, if it does.
fn raised_to(change: &Change) -> Option<FeatureLevel> {
    if let Change::LevelRaised { to } = change { Some(*to) } else { None }
}
