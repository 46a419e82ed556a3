//! Fence attempts: by which device and executor, one at a time, and for how long each one counts (R20, R21).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Decision, FOREVER, Round, Waits,
    fences::open,
    leases::{longest_lease, pending, wait},
    quarantine::FENCE_COUNTS_FOR,
    subject::Subject,
    supervisors::SUPERVISOR_PATIENCE,
};
use crate::{
    budget::Spent,
    change::Change,
    lease::{NoGround, clock},
    model::{FenceLevel, Severity},
    names::{HostName, OrderId},
    order::{Order, OrderKind, OrderOutcome},
    power_device::SETTLE,
    proof::ProofKind,
    state::{ClusterState, Fence, Life, Mode},
    time::{WallTime, millis},
};

/// Longest pause between two fence attempts; the first retry comes after a second.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The one device call that may run at a time: it is held only while it runs, so that a device that does not answer
/// blocks no other fence (R21).
pub(super) struct Slot {
    /// How much longer the call takes at most, in milliseconds, by the failure domain of the host that is switched; one name
    /// stands for the whole cluster where it is one.
    held: BTreeMap<String, u64>,
}

impl Slot {
    pub(super) fn of(round: &Round<'_>) -> Self {
        let mut slot = Self { held: BTreeMap::new() };
        for order in round.state.orders.values().filter(|order| is_running(round, order)) {
            if let OrderKind::Fence { target, .. } = &order.kind {
                slot.hold(round, target, left_of(round, order));
            }
        }
        slot
    }

    fn hold(&mut self, round: &Round<'_>, target: &HostName, left: u64) {
        let held = self.held.entry(round.state.policies.fenced_one_by_one_with(target)).or_default();
        *held = left.max(*held);
    }
}

/// Orders the next attempt of an open fence.
pub(super) fn attempt(
    round: &Round<'_>,
    decision: &mut Decision,
    subject: &Subject<'_>,
    fence: &Fence,
    slot: &mut Slot,
) -> Waits {
    let name = subject.name;
    if let Some(quarantine) = subject.host.quarantine.as_ref().filter(|quarantine| quarantine.is_contested()) {
        return Some((format!("a person to settle whose name it is: {quarantine}"), FOREVER));
    }
    // R20: a drill that had begun before the fence was opened.
    if let Some(order) = round.state.fence_under_way(name).and_then(|order| round.state.orders.get(&order)) {
        return Some(("the end of its drill, which may yet switch it off".to_owned(), left_of(round, order)));
    }
    if let Some(hold) = &decision.report.storm_hold {
        return Some((format!("fencing is held: {hold}"), FOREVER));
    }
    if let Some(spent) = round.state.budget_spent(name) {
        let room = room_again(round, &spent);
        // Where its lease ends the wait, nobody has to get up; mostly that is long before the hour has room.
        if let Some(safe) = pending(round, subject) {
            return [wait(&safe), room].into_iter().min_by_key(|(_, left)| *left);
        }
        over_budget(round, decision, name, &spent);
        return Some(room);
    }
    if fence.attempts == 0 && takes_the_room(round, decision) {
        return Some(("the fence of another host to begin, which may take the room in the hour".to_owned(), 0));
    }
    if let Some(left) = slot.held.get(&round.state.policies.fenced_one_by_one_with(name)).copied() {
        return Some(("the device call that runs for another host".to_owned(), left));
    }
    let left =
        pause_after(fence.attempts).saturating_sub(fence.failed.map_or(Duration::MAX, |failed| round.age(failed)));
    if !left.is_zero() {
        return Some((format!("the pause after attempt {}", fence.attempts), millis(left)));
    }
    let levels = subject.levels;
    let Some(level) = next_device(levels, fence.next_level, &subject.host.distrusted) else {
        // Its lease ends the wait without a person.
        if let Some(safe) = pending(round, subject) {
            return Some(wait(&safe));
        }
        nobody_can(round, decision, name, !subject.host.distrusted.is_empty());
        return Some(("a person's word that it is off".to_owned(), FOREVER));
    };
    let Some(executor) = executor(round, name, level, fence.attempts) else {
        nobody_is_there(round, decision, subject, fence);
        return Some(("a host that can ask its power device".to_owned(), FOREVER));
    };
    slot.hold(round, name, levels.get(level).map_or(0, |level| millis(level.timeout().0)));
    decision.commands.push(Change::FenceAttempted { host: name.clone(), executor, level });
    None
}

/// The pause before the attempt after so many; none before the first.
pub fn pause_after(attempts: u32) -> Duration {
    if attempts == 0 { Duration::ZERO } else { Duration::from_secs(1 << attempts.min(5)).min(RETRY_MAX) / 2 }
}

/// The next level with a device; one that is not trusted may be wired to another machine.
pub(super) fn next_device(levels: &[FenceLevel], from: usize, distrusted: &BTreeSet<usize>) -> Option<usize> {
    let count = levels.len();
    let mut turn = (0..count).map(|step| (from + step) % count).filter(|level| !distrusted.contains(level));
    turn.find(|level| levels.get(*level).is_some_and(FenceLevel::has_device))
}

/// Whether this round begins a fence already, where one budget is that of all hosts: the next one is counted with it.
fn takes_the_room(round: &Round<'_>, decision: &Decision) -> bool {
    let begun = || decision.commands.iter().any(|change| matches!(change, Change::FenceAttempted { .. }));
    round.state.policies.cluster.fences_per_hour_in_all.is_some() && begun()
}

/// When there is room for a fence again. A new coordinator may know it later than it is.
fn room_again(round: &Round<'_>, spent: &Spent) -> (String, u64) {
    let left = millis(FENCE_COUNTS_FOR.saturating_sub(round.age(spent.until)));
    let at = clock(WallTime(round.now.wall.0.saturating_add(left)));
    (format!("room in the hour at {at}, or an operator: {spent}"), left)
}

fn over_budget(round: &Round<'_>, decision: &mut Decision, name: &HostName, spent: &Spent) {
    let summary = format!("{name} has failed, and is not switched off: {spent}");
    let human = format!(
        "Find out why hosts fail so often. Make sure that {name} is off, then run `holdfast host confirm-off {name} \
         --operator YOUR-NAME`; or have it switched off all the same by `holdfast fence allow {name} --operator YOUR-NAME`. \
         If nobody does, it is switched off when the hour has room again: `holdfast status` says when."
    );
    open(round, decision, ClusterState::host_key(name), Severity::Critical, summary, Some(human));
}

fn nobody_can(round: &Round<'_>, decision: &mut Decision, name: &HostName, distrusted: bool) {
    let lack = if distrusted { "its power device is not trusted" } else { "no power device is declared for it" };
    let lease = match round.state.lease_ground(name) {
        Ok(_) | Err(NoGround::NoLevel) => String::new(),
        Err(why) => format!("; its lease proves nothing: {why}"),
    };
    call(round, decision, name, format!("{name} has failed, and {lack}{lease}"));
}

/// A new coordinator has yet to hear those who could do it; and where the host's lease ends the wait, nobody has to get up.
fn nobody_is_there(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>, fence: &Fence) {
    let listens_for = round.evidence.quorum_since.map_or(Duration::ZERO, |since| round.now.moment.since(since));
    let is_long = round.age(fence.opened).min(listens_for) >= SUPERVISOR_PATIENCE;
    if is_long && pending(round, subject).is_none() {
        let name = subject.name;
        call(round, decision, name, format!("{name} has failed, and no host that is heard can ask its power device"));
    }
}

/// Calls somebody to switch a host off.
fn call(round: &Round<'_>, decision: &mut Decision, name: &HostName, summary: String) {
    let human = format!(
        "Make sure that {name} is off, then run `holdfast host confirm-off {name} --operator YOUR-NAME`. Until then its guests \
         start nowhere else."
    );
    open(round, decision, ClusterState::host_key(name), Severity::Critical, summary, Some(human));
}

/// Each level by one host after the other. The coordinator first, because its word needs no further trip; last those that are
/// known not to reach the device, or are about to go.
///
/// Were it by the number of attempts alone, two levels and two hosts would stay paired for ever: the host that cannot reach
/// the second level would be the only one to try it.
pub(super) fn executor(round: &Round<'_>, target: &HostName, level: usize, attempts: u32) -> Option<HostName> {
    let me = round.evidence.me.iter().filter(|me| *me != target).filter(|me| round.state.hosts.contains_key(*me));
    let others = round.state.hosts.keys().filter(|host| *host != target && Some(*host) != round.evidence.me.as_ref());
    let mut able: Vec<&HostName> = me.chain(others).filter(|host| round.answers(host)).collect();
    // Where the declaration means another machine on each host, whoever knows that it means the right one switches no other.
    if round.state.policies.levels_of(target).get(level).is_some_and(FenceLevel::is_local) {
        let knows = |host: &&HostName| round.state.wiring_for(target, level, Some(*host)).is_some();
        if able.iter().any(knows) {
            able.retain(knows);
        }
    }
    // Who could not reach the device when nothing was wrong hardly can when something is.
    let known = round.state.hosts.get(target);
    let goes = |host| round.state.hosts.get(host).is_some_and(|host| matches!(host.mode, Mode::Leaving { .. }));
    let fails = |host| known.and_then(|known| known.path(level, host)).is_some_and(|path| path.error.is_some());
    able.sort_by_key(|host| (goes(*host), fails(*host)));
    let likely = able.partition_point(|host| !goes(*host) && !fails(*host));
    let (first, last) = able.split_at(likely);
    // All levels have their turn before the first has its next.
    let (attempts, turns) = (usize::try_from(attempts).unwrap_or(0), turns(round, target));
    let (position, cycle) = (attempts % turns, (attempts / turns).checked_rem(able.len())?);
    let (group, cycle) = if cycle < likely { (first, cycle) } else { (last, cycle - likely) };
    let turn = (position + cycle).checked_rem(group.len())?;
    group.get(turn).map(|host| (*host).clone())
}

/// How many levels have their turn, and at least one.
fn turns(round: &Round<'_>, target: &HostName) -> usize {
    let distrusted = round.state.hosts.get(target).map(|known| &known.distrusted);
    let levels = round.state.policies.levels_of(target).iter().enumerate();
    let usable = levels.filter(|(level, declared)| {
        declared.has_device() && distrusted.is_none_or(|distrusted| !distrusted.contains(level))
    });
    usable.count().max(1)
}

/// R20: an attempt of which nothing can be left ends as failed, though nobody has reported it.
pub(super) fn overdue(round: &Round<'_>, decision: &mut Decision, attempt: OrderId) {
    let Some(order) = round.state.orders.get(&attempt) else { return };
    if left_of(round, order) > 0 {
        return;
    }
    let detail = match over_since(round, order) {
        Some(_) => format!("its executor {} has gone, and whatever it had begun has ended", order.host),
        None => format!("its executor {} has been silent for longer than an attempt may take", order.host),
    };
    decision.commands.push(Change::OrderEnded { order: attempt, outcome: OrderOutcome::Failed { detail } });
}

/// How much longer an attempt counts at most, unless its executor reports, in milliseconds (R20).
///
/// One that is silent may have begun with the lease of its last sync, and then has its deadline; what more is known of it makes no
/// attempt count for longer. An executor whose boot is over has begun nothing since: its deadline and the device's settling remain.
/// One of which no more is proven than that its lease has run out may have begun until then, because its supervisor lives.
pub(super) fn left_of(round: &Round<'_>, order: &Order) -> u64 {
    let (age, deadline) = (round.age(order.issued), order.deadline.0);
    let unsynced = round.hosts.get(&order.host).map_or(0, |judgement| judgement.unsynced_ms);
    let longest = longest_lease(round.timing.lease) + deadline + SETTLE;
    let left = longest.saturating_sub(age.min(Duration::from_millis(unsynced)));
    let Some(over) = over_since(round, order) else { return millis(left) };
    let begun = if is_cut_off(round, order) { deadline } else { Duration::ZERO };
    let settled = (begun + SETTLE).saturating_sub(round.age(over));
    millis((deadline + SETTLE).saturating_sub(age).max(settled).min(left))
}

/// Whether a device call of this order can still be running. Without a go-ahead younger than one lease its executor
/// sends no more `off` (R20), and one whose boot is over sends nothing at all.
fn is_running(round: &Round<'_>, order: &Order) -> bool {
    let OrderKind::Fence { switch, .. } = &order.kind else { return false };
    if !switch.switches_off() {
        return false;
    }
    let unsynced = round.hosts.get(&order.host).map(|judgement| Duration::from_millis(judgement.unsynced_ms));
    over_since(round, order).is_none() && unsynced.is_none_or(|unsynced| unsynced < longest_lease(round.timing.lease))
}

/// The log index at which the boot that was to carry the order out was known to be over, if it is.
fn over_since(round: &Round<'_>, order: &Order) -> Option<u64> {
    let executor = round.state.hosts.get(&order.host)?;
    let replaced = (executor.facts.incarnation != order.incarnation).then_some(executor.joined);
    replaced.or(matches!(executor.life, Life::Gone { .. }).then_some(executor.life_since))
}

/// Whether the boot that was to carry the order out counts as over by its lease alone.
fn is_cut_off(round: &Round<'_>, order: &Order) -> bool {
    let executor = round.state.hosts.get(&order.host);
    executor.filter(|host| host.facts.incarnation == order.incarnation).is_some_and(|host| match &host.life {
        Life::Gone { proof } => matches!(proof.kind(), ProofKind::LeaseExpired { .. }),
        Life::Up | Life::Fencing(_) => false,
    })
}
