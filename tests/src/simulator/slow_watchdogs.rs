//! The worst that clocks which R1 trusts can do to a proof by lease: a host that relies on its lease, and whose clock and watchdog
//! are slow, is cut off from others whose clocks are fast, and its guard ends right before it would stop the guests. Then the
//! watchdog alone ends them, a minute later. How long that minute is to a fast clock is what the margin is for.

use holdfast_policies::model::FenceLevel;

use super::{
    Ms,
    faults::{Happening, Plan},
    guard::Watchdog,
    heal_bound::LIMIT_MAX,
    oddities::{FASTEST, SLOWEST},
    random::Random,
    setup::Setup,
};

/// Long enough that the second which the guard never needs as a whole does not cover its drift.
const TIMEOUT: Ms = 60_000;
/// A lease level that was taken away is declared anew, and what the host has armed is committed, before it is cut off.
const DECLARED_BEFORE: Ms = 20_000;
/// Longer than any clock takes for the lease, the guard, the watchdog and the margin.
const CUT_FOR: Ms = 80_000;

/// Gives one host such a watchdog, and the plan one more burst: after all others, so that these stay what they are. Where clocks
/// drift already, they are left as they are.
pub fn draw(setup: &mut Setup, random: &mut Random, mut plan: Plan) -> Plan {
    let relies = |host: &usize| {
        let levels = setup.policies.levels_of(&setup.hosts[*host].name);
        let by_lease = levels.iter().any(|level| matches!(level, FenceLevel::Lease(_)));
        by_lease && !levels.iter().any(FenceLevel::has_device) && setup.hosts[*host].guests
    };
    let hosts: Vec<usize> = (0..setup.hosts.len()).filter(relies).collect();
    let Some(healed) = plan.last().map(|(at, _)| *at).filter(|_| !hosts.is_empty()) else { return plan };
    let host = hosts[random.index(hosts.len())];
    setup.hosts[host].watchdog = Some(Watchdog { timeout: TIMEOUT, is_virtual: false });
    if setup.drifts.is_empty() {
        setup.drifts = vec![FASTEST; setup.hosts.len()];
        setup.drifts[host] = SLOWEST;
    }
    let declared = healed + LIMIT_MAX + random.between(1_000, 5_000);
    let cut = declared + DECLARED_BEFORE + random.below(1_000);
    plan.extend([
        (declared, Happening::LeaseLevelIs { host, declared: true }),
        (cut, Happening::Cut { host, time: CUT_FOR }),
        // The newest lease may be some hundred milliseconds old when the host is cut off.
        (cut + random.between(2_900, 3_500), Happening::GuardDown { host, time: CUT_FOR }),
        (cut + CUT_FOR, Happening::Heal),
    ]);
    plan
}
