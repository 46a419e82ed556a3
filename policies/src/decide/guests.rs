//! Guests: what each one needs next, from its phase and from what is seen of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Decision, GuestJudgement, Round, ServiceVerdict,
    fences::{close, open},
    placement::{self, Planned},
    services,
};
use crate::{
    change::Change,
    evidence::is_there,
    ladder::{NextStep, Trouble, ladder_of, next_step},
    model::{OnDegraded, Policy, Rung, Severity},
    names::{GuestName, HostName, Incarnation, OrderId},
    observe::GuestCondition,
    proof::Proof,
    state::{ClusterState, Guest, Life, Migration, MigrationStep, Mode, Phase, Position, Tenure},
    time::{Span, millis},
};

/// How long a guest that came back from a move may still be reported as sent away: some syncs.
const SENT_PATIENCE: Duration = Duration::from_secs(10);

/// Pause before a failed stop is tried again.
const STOP_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Pause before a guest that has just come to rest is moved: a move that fails is not tried again in the same breath.
const MOVE_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Moves under way at once, cluster-wide: each one takes a host's network for itself.
const MOVES_AT_ONCE: usize = 1;

/// Longest pause between two rounds of starts that failed everywhere.
const START_PAUSE_MAX: Duration = Duration::from_secs(60);

pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    let mut planned = Planned::new();
    let mut names: Vec<&GuestName> = round.state.guests.keys().collect();
    let priority = |name: &GuestName| round.state.policies.guests.get(name).map_or(0, |declared| declared.priority);
    names.sort_by_key(|name| (std::cmp::Reverse(priority(name)), (*name).clone()));
    let mut moving = round.state.guests.values().filter(|guest| matches!(guest.phase, Phase::Migrating(_))).count();
    for name in names {
        let Some(guest) = round.state.guests.get(name) else { continue };
        let mut judgement = GuestJudgement::default();
        match &guest.phase {
            Phase::Unplaced => unplaced(round, decision, name, &mut judgement),
            Phase::Free { last, avoid, since, .. } => {
                free(round, decision, name, guest, last.as_ref(), avoid, *since, &mut planned, &mut judgement);
            }
            Phase::Starting { tenure, .. } => judgement.doing = format!("starting on {}", tenure.host),
            Phase::Running { tenure, since, verified, action } => {
                let run = Run { name, guest, tenure, since: *since, verified: *verified, busy: action.is_some() };
                running(round, decision, &run, &mut moving, &mut judgement);
            }
            Phase::Releasing { tenure, order, failed, .. } => {
                judgement.doing = format!("stopping on {}", tenure.host);
                let again = failed.as_ref().is_none_or(|(index, _)| round.age(*index) >= STOP_AGAIN_AFTER);
                if order.is_none() && again && round.answers(&tenure.host) {
                    decision.commands.push(Change::ReleaseAgain { guest: name.clone() });
                }
            }
            Phase::Migrating(migration) => migrating(round, decision, name, migration, &mut judgement),
        }
        decision.report.guests.insert(name.clone(), judgement);
    }
}

/// A guest that this cluster never placed: found running on one host, or proven to run on none (R8).
fn unplaced(round: &Round<'_>, decision: &mut Decision, name: &GuestName, judgement: &mut GuestJudgement) {
    let mut found = Vec::new();
    let mut said: BTreeMap<HostName, Incarnation> = BTreeMap::new();
    let mut could_run = Vec::new();
    for (host, known) in round.state.hosts.iter().filter(|(_, known)| known.facts.guests) {
        if matches!(known.life, Life::Gone { .. }) {
            continue;
        }
        could_run.push(host.clone());
        let incarnation = &known.facts.incarnation;
        let Some(seen) = round.evidence.hosts.get(host).filter(|_| round.answers(host)) else { continue };
        match seen.reports.get(name).filter(|report| is_there(&report.condition)) {
            Some(report) => {
                let (host, incarnation) = (host.clone(), incarnation.clone());
                found.push(Tenure { host, incarnation, epoch: report.epoch });
            }
            None => {
                said.insert(host.clone(), incarnation.clone());
            }
        }
    }
    match (found.as_slice(), Proof::not_here(could_run.clone(), &said)) {
        ([tenure], _) if said.len() + 1 == could_run.len() => {
            decision.commands.push(Change::GuestAdopted { guest: name.clone(), tenure: tenure.clone() });
            judgement.doing = format!("found on {}", tenure.host);
        }
        ([], Ok(proof)) if !could_run.is_empty() => {
            decision.commands.push(Change::GuestFree { guest: name.clone(), proof });
            "about to be placed for the first time".clone_into(&mut judgement.doing);
        }
        ([], Ok(_)) => "waiting for a host that runs guests".clone_into(&mut judgement.doing),
        ([], Err(missing)) => judgement.doing = format!("waiting before the first placement: {missing}"),
        (found, _) => {
            let hosts: Vec<&str> = found.iter().map(|tenure| tenure.host.as_str()).collect();
            judgement.doing = format!("found on {}, waiting for every host's word", hosts.join(" and "));
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the fields of one phase, taken apart")]
fn free(
    round: &Round<'_>,
    decision: &mut Decision,
    name: &GuestName,
    guest: &Guest,
    last: Option<&HostName>,
    avoid: &BTreeSet<HostName>,
    since: u64,
    planned: &mut Planned,
    judgement: &mut GuestJudgement,
) {
    let failures: u32 = guest.start_failures.values().sum();
    if failures > 0 {
        let pause = Duration::from_millis(500 << failures.min(8)).min(START_PAUSE_MAX);
        let age = round.age(since);
        if age < pause {
            judgement.doing = format!("waiting after {failures} failed starts");
            judgement.waits = Some(("the next try".to_owned(), millis(pause.saturating_sub(age))));
            return;
        }
    }
    let key = format!("placement/{name}");
    // Hosts to avoid are still better than none (DESIGN section 8: retries here, untried hosts, here again).
    let chosen = match placement::choose(round, name, |host| avoid.contains(host), planned) {
        Err(reasons) if !placement::only_busy(&reasons) => {
            placement::choose(round, name, |_| false, planned).map_err(|_| reasons)
        }
        chosen => chosen,
    };
    match chosen {
        Ok((host, why)) => {
            let on_host = planned.entry(host.clone()).or_default();
            *on_host = (on_host.0 + placement::memory(round.state, name), on_host.1 + 1);
            judgement.doing = format!("about to start on {host}");
            let why = if Some(&host) == last { format!("it ran there last, and {why}") } else { why };
            decision.commands.push(Change::Place { guest: name.clone(), host, why });
            close(round, decision, &key);
        }
        Err(reasons) => {
            let busy = placement::only_busy(&reasons);
            let reasons: Vec<String> = reasons.iter().map(|(host, reason)| format!("{host} {reason}")).collect();
            judgement.doing = format!("no host can run it: {}", reasons.join("; "));
            if !busy && round.age(since) > Duration::from_secs(5) {
                let summary = format!("{name} waits: no host can run it");
                let human =
                    format!("Make room for {name} or bring a host back; Holdfast keeps trying. {}", reasons.join("; "));
                open(round, decision, key, Severity::Critical, summary, Some(human));
            }
        }
    }
}

struct Run<'a> {
    name: &'a GuestName,
    guest: &'a Guest,
    tenure: &'a Tenure,
    since: u64,
    verified: bool,
    busy: bool,
}

fn running(
    round: &Round<'_>,
    decision: &mut Decision,
    run: &Run<'_>,
    moving: &mut usize,
    judgement: &mut GuestJudgement,
) {
    judgement.doing = format!("runs on {}", run.tenure.host);
    let policy = round.state.policies.policy_of(run.name).map(|(_, policy)| policy);
    judge_services(round, run, policy, judgement);
    if run.busy {
        "restarting a service".clone_into(&mut judgement.doing);
        return;
    }
    if !round.answers(&run.tenure.host) {
        judgement.doing = format!("its host {} is not well heard", run.tenure.host);
        return;
    }
    match trouble(round, run, policy, judgement) {
        Condition::Well => well(round, decision, run, policy, moving, judgement),
        Condition::NotToBeJudged(why) => judgement.doing = why,
        Condition::Ill { trouble, why, evidence } => ill(round, decision, run, trouble, why, evidence, judgement),
    }
}

fn judge_services(round: &Round<'_>, run: &Run<'_>, policy: Option<&Policy>, judgement: &mut GuestJudgement) {
    for (name, service) in policy.into_iter().flat_map(|policy| &policy.services) {
        let verdict = services::judge(round.evidence, round.now.moment, run.name, run.tenure.epoch, name, service);
        judgement.services.insert(name.clone(), verdict);
    }
}

enum Condition {
    Well,
    NotToBeJudged(String),
    Ill { trouble: Trouble, why: String, evidence: Vec<String> },
}

fn trouble(round: &Round<'_>, run: &Run<'_>, policy: Option<&Policy>, judgement: &GuestJudgement) -> Condition {
    let host = &run.tenure.host;
    let ill =
        |why: String| Condition::Ill { trouble: Trouble::Guest, why, evidence: vec![format!("{host} reports it")] };
    match round.evidence.report(host, run.name).filter(|report| report.epoch == run.tenure.epoch) {
        Some(report) => match &report.condition {
            GuestCondition::Exited { detail } => return ill(format!("its QEMU has ended ({detail})")),
            GuestCondition::Panicked => return ill("its kernel has panicked".to_owned()),
            GuestCondition::Paused { reason } => {
                return Condition::NotToBeJudged(format!("it is paused ({reason}); that is not a failure"));
            }
            GuestCondition::IoError { detail } => {
                return Condition::NotToBeJudged(format!(
                    "its storage failed ({detail}); restarting it would not help"
                ));
            }
            GuestCondition::Unknown { detail } => {
                return Condition::NotToBeJudged(format!("{host} cannot tell how it is ({detail})"));
            }
            // The move was given up, and yet everything was sent: nothing will let its virtual CPUs run again.
            GuestCondition::Sent if round.age(run.since) >= SENT_PATIENCE => {
                return ill("it was sent away, and its move was given up".to_owned());
            }
            GuestCondition::Running | GuestCondition::Incoming | GuestCondition::Sent => {}
        },
        // Absent from a whole inventory that was taken after the start was reported.
        None => {
            let synced = round.evidence.hosts.get(host).and_then(|seen| seen.sync.as_ref());
            let started = round.evidence.marks.at(run.since).plus(round.timing.sync_every.0 * 2);
            if synced.is_some_and(|sync| sync.incarnation == run.tenure.incarnation && sync.at > started) {
                return ill("its host has nothing of it".to_owned());
            }
            return Condition::NotToBeJudged("its host has not reported it yet".to_owned());
        }
    }
    service_trouble(round, run, policy, judgement)
}

fn service_trouble(round: &Round<'_>, run: &Run<'_>, policy: Option<&Policy>, judgement: &GuestJudgement) -> Condition {
    let failed = judgement.services.iter().find(|(_, service)| service.verdict == ServiceVerdict::Failed);
    if let Some((name, service)) = failed {
        let grace = policy.map_or(Duration::ZERO, |policy| policy.boot_grace.0);
        let restarted =
            run.guest.ladder.position.as_ref().is_some_and(|position| !position.recovered && !position.failed);
        if !run.verified && !restarted && round.age(run.since) < grace {
            return Condition::NotToBeJudged(format!("{name} does not answer yet; it has {} to boot", Span(grace)));
        }
        let why = format!("{name} does not answer");
        return Condition::Ill { trouble: Trouble::Service, why, evidence: service.evidence.clone() };
    }
    Condition::Well
}

fn ill(
    round: &Round<'_>,
    decision: &mut Decision,
    run: &Run<'_>,
    trouble: Trouble,
    why: String,
    evidence: Vec<String>,
    judgement: &mut GuestJudgement,
) {
    let rungs = ladder_of(&round.state.policies, run.name);
    let position = run.guest.ladder.position.as_ref();
    // A rung that starts the guest gets its wait from when the guest runs, however long the way there was.
    let age = position.map_or(Duration::ZERO, |position| round.age(position.acted.max(run.since)));
    let mut step = next_step(&rungs, position, age, trouble);
    if let NextStep::Take { rung } = step
        && let Some(Rung::Migrate { .. }) = rungs.get(rung)
        && target(round, run).is_none()
    {
        // Nowhere to move to: the rung cannot be taken, the next one may help.
        let spent = Position { rung, tries: u32::MAX, acted: 0, recovered: false, failed: true };
        step = next_step(&rungs, Some(&spent), age, trouble);
    }
    match step {
        NextStep::Take { rung } => {
            let to =
                rungs.get(rung).filter(|rung| matches!(rung, Rung::Migrate { .. })).and_then(|_| target(round, run));
            let last_well = last_well(round, run);
            judgement.doing = format!("{why}: taking rung {}", rung + 1);
            decision.commands.push(Change::Climb { guest: run.name.clone(), rung, to, why, evidence, last_well });
        }
        NextStep::Wait { left } => {
            judgement.doing = format!("{why}: waiting for the newest try to help");
            judgement.waits = Some(("the rung's wait".to_owned(), millis(left)));
        }
        NextStep::Exhausted => {
            judgement.doing = format!("{why}: every rung was taken, a human has been called");
            // A ladder that ends without `page` still ends with a human.
            if !rungs.iter().any(|rung| matches!(rung, Rung::Page { .. })) {
                let key = ClusterState::guest_key(run.name);
                let summary = format!("{}: {why}, and every rung of its ladder was taken", run.name);
                let human = format!("Look at {} (`holdfast explain {}`).", run.name, run.name);
                open(round, decision, key, Severity::Critical, summary, Some(human));
            }
        }
    }
}

fn last_well(round: &Round<'_>, run: &Run<'_>) -> Option<crate::time::WallTime> {
    let services = round.evidence.services.get(run.name)?;
    let newest = services.values().flatten().filter_map(|(_, sight)| sight.passed).max()?;
    Some(round.wall(newest))
}

fn target(round: &Round<'_>, run: &Run<'_>) -> Option<HostName> {
    let unwell = |host: &HostName| round.hosts.get(host).is_some_and(|judgement| judgement.unwell.is_some());
    let avoid = |host: &HostName| *host == run.tenure.host || unwell(host);
    placement::choose(round, run.name, avoid, &Planned::new()).ok().map(|(host, _)| host)
}

fn well(
    round: &Round<'_>,
    decision: &mut Decision,
    run: &Run<'_>,
    policy: Option<&Policy>,
    moving: &mut usize,
    judgement: &mut GuestJudgement,
) {
    let answers = judgement.services.values().all(|service| service.verdict == ServiceVerdict::Healthy);
    if !run.verified {
        if answers {
            decision.commands.push(Change::Verified { guest: run.name.clone() });
            judgement.doing = format!("runs on {}, all services answer", run.tenure.host);
        } else {
            judgement.doing = format!("runs on {}, waiting for its services to answer", run.tenure.host);
        }
        return;
    }
    let cool_down = policy.map_or(Duration::from_secs(300), |policy| policy.cool_down.0);
    if run.guest.ladder.position.as_ref().is_some_and(|position| round.age(position.acted) >= cool_down) {
        decision.commands.push(Change::LadderReset { guest: run.name.clone() });
    }
    degraded(round, decision, run, judgement);
    if let Some(why) = reason_to_move(round, run, policy)
        && *moving < MOVES_AT_ONCE
        && round.age(run.since) >= MOVE_AGAIN_AFTER
        && let Some(to) = target(round, run)
    {
        *moving += 1;
        judgement.doing = format!("about to move to {to}: {why}");
        decision.commands.push(Change::Migrate { guest: run.name.clone(), to, why });
    }
}

/// The gray failure: vantages that disagree are named, and somebody is told.
fn degraded(round: &Round<'_>, decision: &mut Decision, run: &Run<'_>, judgement: &GuestJudgement) {
    let key = format!("degraded/{}", run.name);
    let found = judgement.services.iter().find(|(_, service)| service.verdict == ServiceVerdict::Degraded);
    match found {
        Some((name, service)) => {
            let side = |evidence: &&String| evidence.contains(" fails ");
            let who: Vec<&str> =
                service.evidence.iter().filter(side).filter_map(|said| said.split(' ').next()).collect();
            let summary = format!("{name} of {} does not answer {}, and answers the others", run.name, who.join(", "));
            open(round, decision, key, Severity::Warning, summary, None);
        }
        None => close(round, decision, &key),
    }
}

fn reason_to_move(round: &Round<'_>, run: &Run<'_>, policy: Option<&Policy>) -> Option<String> {
    let host = round.state.hosts.get(&run.tenure.host)?;
    if host.mode == Mode::Draining {
        return Some(format!("{} is being drained", run.tenure.host));
    }
    let unwell = round.hosts.get(&run.tenure.host)?.unwell.as_ref()?;
    let migrate = policy.is_some_and(|policy| policy.on_degraded == OnDegraded::Migrate);
    migrate.then(|| format!("{} is not well: {unwell}", run.tenure.host))
}

/// Orders that failed or were lost are given again; everything else comes by results.
fn migrating(
    round: &Round<'_>,
    decision: &mut Decision,
    name: &GuestName,
    migration: &Migration,
    judgement: &mut GuestJudgement,
) {
    let host = |half: &Option<Tenure>| half.as_ref().map_or("nowhere".to_owned(), |half| half.host.to_string());
    judgement.doing = format!("moving from {} to {}", host(&migration.source), host(&migration.target));
    let unasked = |half: &Option<Tenure>, order: &Option<OrderId>| {
        order.is_none() && half.as_ref().is_some_and(|half| round.answers(&half.host))
    };
    let missing = match &migration.step {
        MigrationStep::Receiving { .. } | MigrationStep::Sending { .. } => false,
        MigrationStep::Switched { release, .. } => unasked(&migration.source, release),
        MigrationStep::Returning { release, .. } => unasked(&migration.target, release),
        MigrationStep::Clearing { source, target } => {
            unasked(&migration.source, source) || unasked(&migration.target, target)
        }
    };
    let again = migration.release_failed.is_none_or(|index| round.age(index) >= STOP_AGAIN_AFTER);
    if missing && again {
        decision.commands.push(Change::ReleaseAgain { guest: name.clone() });
    }
}

/// Guests that a host runs although another assignment has replaced theirs; its agent is to stop them (R10).
#[must_use]
pub fn superseded(state: &ClusterState, host: &HostName, reports: &[crate::observe::GuestReport]) -> Vec<GuestName> {
    let wrong = reports.iter().filter(|report| {
        let Some(guest) = state.guests.get(&report.guest) else { return false };
        let newest = guest.tenures().into_iter().map(|tenure| tenure.epoch).max();
        // A newer assignment to this very host stops the older one itself, as the first part of its start.
        let here = guest.tenures().iter().any(|tenure| tenure.host == *host && tenure.epoch >= report.epoch);
        is_there(&report.condition) && !here && newest.is_some_and(|newest| newest > report.epoch)
    });
    wrong.map(|report| report.guest.clone()).collect()
}
