//! How long a world may take until it is at rest once its faults have stopped (L1): a sum of its own, from its policies, its hosts
//! and what has gone wrong in it by then.
//!
//! ```text
//!  everything is back ──> a coordinator ──> people have looked ──┬─> silence ──> proofs ──> starts ─┬──> moves ──> rest
//!                                                                ├─> the longest ladder ────────────┤
//!                                                                └─> lies are contradicted ─────────┘
//! ```
//! A guest is well again by its ladder, or because its host is proven gone and it starts elsewhere, and devices that have lied
//! are found out; these go on beside each other, so the longest one counts. Orders, devices and boots count with the simulator's
//! own times (`own_limits` of [`super::quiet`]), waits of the product with what is declared or with its constants. Each part is
//! the longest that it takes alone, so that the sum is seldom used up.

use std::collections::BTreeMap;

use holdfast_policies::{
    bound::{Failure, UNCLEAR, bounds},
    decide::{
        pause_after,
        placement::{BALANCE_PATIENCE, start_pause},
    },
    hostfile::Timing,
    model::Policies,
    names::{GuestName, HostName},
    plan::STARTS_PER_HOST,
    rules::Rule,
    state::{ClusterState, Life, Mode, Phase, Wanted},
    time::millis,
};

use super::{
    Ms,
    boots::SUPERVISOR_WITHIN,
    guard::GUARD_MS,
    guest::{ORDER_MAX, SEND_MAX, SLOW_START_MAX, UP_AFTER},
    healing::{BACK_WITHIN, LOOKING, VOTER_BACK_AFTER},
    held_checks::{GUESTS_MIN, HELD_MAX},
    lies::{LIE_OVER_WITHIN, REST_AFTER_LIE},
    queue::Event,
    quiet::own_limits,
    setup::Setup,
    world::{LOOK, RESTED, World},
};

/// No world is given longer, but for the time for which guests are held. Bursts of faults are further apart than this (`bursts.rs`), so
/// that no limit passes unjudged because the next burst has begun; with guests that are held, one that is nearly the longest may.
pub const LIMIT_MAX: Ms = 420_000;

/// One order beside its work: it is decided and committed, and its agent is told and tells with its next syncs.
const TURN: Ms = 1_000;
/// Elections until one voter leads that stays: each takes 1.2 s at most, and clocks that stood still come late.
const ELECTIONS: Ms = 6_000;
/// A voter whose own link has lost much doubts itself until the window of what was lost is over, and another one takes over.
const DOUBTS: Ms = 12_000;
/// Operators look every five seconds, and miss a turn when a look comes late.
const PEOPLE_LOOK: Ms = 10_000;
/// A command of an operator from before is tried again for so long.
const TRIED_FOR: Ms = 21_000;
/// A host that a fence has switched off comes back by chance within this.
const BACK_AFTER_FENCE: Ms = 25_000;
/// A host that its watchdog has reset comes back within this.
const BACK_AFTER_WATCHDOG: Ms = 8_000;
/// The voters are asked how long ago they have heard a host.
const VOTERS_SAY: Ms = 200;
/// A placement is waited for, and a guest that is on its way to another host: five seconds each.
const PLACING: Ms = 10_000;
/// A move that stops midway: 30 s until it is overdue, 10 s for what was sent, and 10 s until the guest moves again.
const MOVE_UNDONE: Ms = 50_000;
/// The longest pause before a guest is moved again that has to leave its host, and whose moves have failed again and again.
const MOVE_PAUSE_MAX: Ms = 60_000;
/// Moves one after the other of one guest, for places or because its host was drained.
const MOVES: Ms = 2;
/// It shows whether other guests have ceased to answer too, and a new coordinator listens before.
const SHOWS: Ms = 5_000;
/// The part in which guests are held.
const HELD: &str = "guests that ceased to answer together are held";

/// The parts of a world's limit, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealBound {
    parts: Vec<Part>,
}

/// What is waited for, and for how long at most.
type Part = (&'static str, Ms);

impl HealBound {
    /// The whole. The slowest clocks are two and a half in a hundred slow; a twentieth more covers any two of them (R1).
    #[must_use]
    pub fn limit(&self) -> Ms {
        let sum = sum(&self.parts);
        let held: Ms = self.parts.iter().filter(|(what, _)| *what == HELD).map(|(_, ms)| ms).sum();
        (sum + sum / 20).min(LIMIT_MAX + held)
    }

    /// The sum in words.
    #[must_use]
    pub fn words(&self) -> String {
        let parts: Vec<String> =
            self.parts.iter().filter(|(_, ms)| *ms > 0).map(|(what, ms)| format!("{what} {ms} ms")).collect();
        format!("to be at rest within {} ms: {}", self.limit(), parts.join(", "))
    }
}

fn sum(parts: &[Part]) -> Ms {
    parts.iter().map(|(_, ms)| ms).sum()
}

impl World {
    /// The limit of this world, if its faults stop at this moment. To be asked before anything is repaired: what is broken tells
    /// what may still be under way.
    #[must_use]
    pub fn heal_bound(&self) -> HealBound {
        let fenced = self.may_be_fenced();
        let proven = [
            ("hosts are silent", self.silence()),
            ("fences and leases", self.proofs(&fenced)),
            ("starts, and hosts that come back", self.starts(&fenced).max(self.returns())),
        ];
        let ladder = [(HELD, self.held()), ("the longest ladder", self.ladder())];
        let lies = [("power devices that have lied", if self.lies_drawn { LIE_OVER_WITHIN } else { 0 })];
        let beside: [&[Part]; 3] = [&proven, &ladder, &lies];
        let longest = beside.into_iter().max_by_key(|parts| sum(parts)).unwrap_or_default();
        let mut parts = vec![
            ("machines and processes come back", self.comes_back()),
            ("a coordinator", ELECTIONS + if self.lossy_links { DOUBTS } else { 0 }),
            ("people look", self.people(&fenced)),
        ];
        parts.extend_from_slice(longest);
        parts.extend([
            ("a guest after another one", self.in_order()),
            ("moves", self.moves()),
            ("a revoked host", self.readmitted_within()),
            ("a new machine", self.settled_within()),
            ("a new generation", self.recovered_within()),
            ("everything is calm", self.calm()),
        ]);
        HealBound { parts }
    }

    /// Hosts that neither serve nor are known to be gone, that will hang, or that somebody may not hear: these may be fenced.
    fn may_be_fenced(&self) -> Vec<usize> {
        let now = self.now;
        let voters = 0..self.voters.len();
        let is_heard = |host: usize| {
            let good = |voter: usize| self.network.good(host, voter, now) && self.network.good(voter, host, now);
            voters.clone().all(good)
        };
        let may_be = |host: &usize| !self.host_rests(*host) || self.hangs_at_boot.contains(host) || !is_heard(*host);
        (0..self.named).filter(may_be).collect()
    }

    /// Until the last machine that stands still goes on, what was about to come back has, and its supervisor has started; what an
    /// operator or a device was told before is over by then too.
    fn comes_back(&self) -> Ms {
        let is_return = |event: &Event| {
            matches!(
                event,
                Event::PowerOn { .. }
                    | Event::SupervisorUp { .. }
                    | Event::LateOff { .. }
                    | Event::JobEnd { .. }
                    | Event::Kept { .. }
                    | Event::Held { .. }
                    | Event::Watchdog { .. }
            )
        };
        let stand_still = self.hosts.iter().flat_map(|host| {
            let process = host.supervisor.as_ref().map_or(0, |supervisor| supervisor.frozen_until);
            [host.frozen_until, host.guard.down_until, process]
        });
        let latest = stand_still.chain(self.queue.latest(is_return)).max().unwrap_or_default();
        let tried = self.queue.latest(|event| matches!(event, Event::Operator { .. })).map_or(0, |_| TRIED_FOR);
        let reset = if self.guarded { BACK_AFTER_WATCHDOG } else { 0 };
        (latest.saturating_sub(self.now) + reset).max(tried).max(BACK_WITHIN) + SUPERVISOR_WITHIN
    }

    /// One look at modes, suspensions and quarantines, and one at what only shows after that. Hosts that hang are looked at in
    /// person, switched off, confirmed to be off and started; of fences that a budget holds each look lets some go on.
    fn people(&self, fenced: &[usize]) -> Ms {
        let cluster = &self.declared().cluster;
        let has_budgets = cluster.fences_per_hour.is_some() || cluster.fences_per_hour_in_all.is_some();
        let held = if has_budgets { fenced.len() as Ms } else { 0 };
        let hangs = !self.hangs_at_boot.is_empty() || self.hosts.iter().any(|host| host.hung);
        let hung = if hangs { LOOKING + 2 * PEOPLE_LOOK } else { 0 };
        (2 + held) * PEOPLE_LOOK + hung
    }

    /// A new coordinator gives hosts that it has never heard their time to join; then the voters are asked.
    fn silence(&self) -> Ms {
        let timing = self.whole_timing();
        millis(timing.join_grace.0) + millis(timing.suspect_after.0) + VOTERS_SAY
    }

    /// Fences, one after another wherever one is to run at a time, after what is left of an attempt from before. Leases run out
    /// beside them.
    fn proofs(&self, fenced: &[usize]) -> Ms {
        let policies = self.declared();
        let mut turns: BTreeMap<String, Ms> = BTreeMap::new();
        for host in fenced {
            let name = &self.hosts[*host].name;
            *turns.entry(policies.fenced_one_by_one_with(name)).or_default() += fence(policies, name);
        }
        (self.unclear() + turns.into_values().max().unwrap_or_default()).max(self.leases())
    }

    /// The host that carries out a fence may have failed itself: the attempt has its devices' time, its off may come late, and a
    /// pause follows, which is longer when attempts have failed before. Where a device's word was void, no other is proof for a
    /// moment.
    fn unclear(&self) -> Ms {
        let levels = self.declared().fencing.values().flatten();
        let device = levels.map(|level| millis(level.timeout().0)).max().unwrap_or_default();
        let has_failed = self.truth.state.hosts.values().any(|host| matches!(&host.life, Life::Fencing(_)));
        let void = if self.lies_drawn { REST_AFTER_LIE } else { 0 };
        device + millis(UNCLEAR) + void + millis(pause_after(if has_failed { u32::MAX } else { 1 }))
    }

    /// A lease, the guard's time and the watchdog's with the product's margin for clocks; a new boot is asked to stop what there is.
    fn leases(&self) -> Ms {
        if !self.guarded {
            return 0;
        }
        let watchdogs = self.hosts.iter().filter_map(|host| host.guard.watchdog);
        let watchdog = watchdogs.map(|watchdog| watchdog.timeout).max().unwrap_or_default();
        let counted = millis(self.whole_timing().lease.0) + GUARD_MS + watchdog;
        counted + counted / 20 + TURN + ORDER_MAX
    }

    /// All guests in rows, as many at a time as the hosts that are left take, and one row for what has to give way or fails; after
    /// the pause of the guest whose starts have failed most, and the time for which less loaded hosts are waited for.
    fn starts(&self, fenced: &[usize]) -> Ms {
        let takes = |host: &usize| {
            let known = &self.hosts[*host];
            known.facts.guests && known.serves(self.now) && !fenced.contains(host)
        };
        let takers = (0..self.named).filter(takes).count().max(1) as Ms;
        let guests = self.declared().guests.len() as Ms;
        let rows = guests.div_ceil(takers * Ms::from(STARTS_PER_HOST)) + 1;
        let pause = self.truth.state.guests.values().map(|guest| millis(start_pause(guest))).max().unwrap_or_default();
        pause + millis(BALANCE_PATIENCE) + PLACING + rows * self.start() + self.slowest_answer()
    }

    /// A host that was fenced comes back by chance; a voter is switched on by whoever looks. Its agent joins.
    fn returns(&self) -> Ms {
        let by_chance = if self.chance { BACK_AFTER_FENCE } else { 0 };
        by_chance.max(PEOPLE_LOOK + VOTER_BACK_AFTER) + SUPERVISOR_WITHIN + 2 * TURN
    }

    /// What `explain` would promise for the longest ladder, by the simulator's own times. One that has been climbed to its end is
    /// begun anew with the next look.
    fn ladder(&self) -> Ms {
        let state = self.as_operators_leave_it();
        let (timing, limits) = (self.whole_timing(), own_limits(self));
        let of = |guest: &GuestName| bounds(&state, guest, &timing, &limits);
        let climbs = state.guests.keys().flat_map(of);
        let climbs = climbs.filter(|bound| matches!(bound.failure, Failure::AppFailed | Failure::GuestDied));
        PEOPLE_LOOK + climbs.filter_map(|bound| bound.within_ms).max().unwrap_or_default()
    }

    /// For how long guests are held before their ladders are climbed on: five minutes from when they last answered, which was before the
    /// faults stopped. Where too few of them may be held together, until that shows.
    fn held(&self) -> Ms {
        match (self.passes_remembered, self.may_be_held()) {
            (false, _) => 0,
            (true, guests) if guests >= GUESTS_MIN => HELD_MAX,
            (true, _) => SHOWS,
        }
    }

    /// A guest that starts after another one. One that is ill beside the one that it needs is started anew only after that.
    fn in_order(&self) -> Ms {
        let is_ordered = self.declared().rules.values().any(|rule| matches!(rule, Rule::Order { .. }));
        if is_ordered { self.ladder() + self.start() + self.slowest_answer() } else { 0 }
    }

    /// Moves that are under way may have to be undone; then guests move to where they should be.
    fn moves(&self) -> Ms {
        let moves = |phase: &Phase| matches!(phase, Phase::Migrating(_));
        let under_way = self.truth.state.guests.values().any(|guest| moves(&guest.phase));
        let live = 4 * TURN + 3 * ORDER_MAX + SEND_MAX;
        let anew = TURN + ORDER_MAX + self.start();
        // Whose moves have failed again and again waits for longer before the next.
        let in_vain = self.truth.state.guests.values().any(|guest| guest.failed_moves > 0);
        let undone = if under_way { MOVE_UNDONE } else { 0 };
        MOVES * live.max(anew) + undone + if in_vain || under_way { MOVE_PAUSE_MAX } else { 0 }
    }

    /// Nothing is remembered against any guest, and that is noticed. A guest that has reset itself has its time to boot, as often
    /// as that is let pass.
    fn calm(&self) -> Ms {
        let policies = self.declared().policies.values();
        let times = policies.map(|policy| (millis(policy.cool_down.0), millis(policy.boot_grace.0)));
        let (cool_down, boot) = times.max().unwrap_or_default();
        let resets = if self.seen.own_resets > 0 { 3 * boot } else { 0 };
        cool_down + boot + resets + 2 * TURN + RESTED + 2 * LOOK
    }

    fn start(&self) -> Ms {
        TURN + if self.chance { SLOW_START_MAX } else { ORDER_MAX }
    }

    /// A service is up, and is asked until it counts as well.
    fn slowest_answer(&self) -> Ms {
        UP_AFTER + 2 * TURN
    }

    /// What is declared, or is about to be.
    fn declared(&self) -> &Policies {
        self.to_declare.as_ref().unwrap_or(&self.truth.state.policies)
    }

    /// A world with a broken rule is given as long as it would need with the rule in force.
    fn whole_timing(&self) -> Timing {
        if self.broken.is_some() { Setup::random_timing(None) } else { self.timing }
    }

    /// Operators take back what keeps guests from being helped.
    fn as_operators_leave_it(&self) -> ClusterState {
        let mut state = self.truth.state.clone();
        state.suspended = None;
        state.hosts.values_mut().for_each(|host| host.mode = Mode::Active);
        for guest in state.guests.values_mut() {
            (guest.wanted, guest.given_up) = (Wanted::Running, None);
        }
        state
    }
}

/// One fence with devices that work: each level has its turn, its order and a pause at most.
fn fence(policies: &Policies, host: &HostName) -> Ms {
    let levels = policies.levels_of(host).iter().filter(|level| level.has_device()).count().max(1);
    levels as Ms * (2 * TURN + ORDER_MAX + millis(pause_after(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::{
        Happening,
        setup::{a_guest_each, guest},
    };

    fn quiet() -> World {
        World::at_rest(&Setup::plain(5, Setup::random(1, 5, 5, None).policies))
    }

    #[test]
    fn what_is_broken_when_the_faults_stop_makes_the_limit_longer() {
        let well = quiet().heal_bound().limit();
        let after = |what: Happening| {
            let mut world = quiet();
            world.happen(&what);
            world.heal_bound().limit()
        };
        assert!(after(Happening::Freeze { host: 4, time: 60_000 }) > well);
        assert!(after(Happening::PowerCut { host: 4, back: Some(50_000) }) > well);
        assert!(after(Happening::Blackout { hangs: Some(4), back: 2_000 }) > well);
        assert!(well < LIMIT_MAX, "{}", quiet().heal_bound().words());
    }

    #[test]
    fn no_limit_is_longer_than_bursts_are_apart() {
        let bound = HealBound { parts: vec![("a", LIMIT_MAX), ("b", 1)] };
        assert_eq!(bound.limit(), LIMIT_MAX);
        assert_eq!(HealBound { parts: vec![("a", 15_000), ("b", 5_000)] }.limit(), 21_000);
        let held = HealBound { parts: vec![("a", 2 * LIMIT_MAX), (HELD, HELD_MAX)] };
        assert_eq!(held.limit(), LIMIT_MAX + HELD_MAX);
    }

    #[test]
    fn guests_that_hang_together_are_given_the_time_for_which_they_are_held_where_vantages_remember() {
        let limit = |passes_remembered: bool, hang: usize| {
            let mut world = World::at_rest(&Setup { passes_remembered, ..Setup::plain(5, a_guest_each(5)) });
            (0..hang as u64).for_each(|index| world.happen(&Happening::GuestHangs { guest: guest(index) }));
            world.heal_bound().limit()
        };
        assert!(limit(true, GUESTS_MIN) > limit(false, GUESTS_MIN));
        assert!(limit(true, GUESTS_MIN) > limit(true, GUESTS_MIN - 1), "too few are not held together");
        assert!(limit(true, GUESTS_MIN) > HELD_MAX);
    }
}
