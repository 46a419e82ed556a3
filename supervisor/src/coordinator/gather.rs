//! Gathering evidence: syncs, gossip and beacons, voters' answers and power readings, on this host's clock.

use std::{collections::BTreeMap, time::Duration};

use holdfast_policies::{
    change::Change,
    evidence::{Answer, Evidence, Heard, HostEvidence, LAST_WORDS_BYTES_MAX, Marks, Sight, TestedOff},
    names::{HostName, Incarnation, Vantage},
    observe::{clean, clean_to},
    order::OrderOutcome,
    proof::PowerReading,
    state::{ClusterState, Host},
    sync::{SightReport, SyncRequest},
    time::Moment,
};

use super::paths::Tested;
use crate::{
    agent::{carry::is_socket, last_words},
    datagram::KEYS_MAX,
    gossip::Member,
    node::Node,
};

/// Forgets what only this leadership has gathered. What the datagrams say is kept, so that the coordinator's own death
/// does not begin every wait anew (R18).
pub fn begin_anew(evidence: &mut Evidence) {
    let marks = std::mem::replace(&mut evidence.marks, Marks::new(Moment(0)));
    let (me, handed_over) = (evidence.me.clone(), evidence.handed_over);
    *evidence = Evidence { marks, me, handed_over, ..Evidence::default() };
}

/// Notes that all which is in the state has been applied by `now`. An entry that this coordinator has not seen being applied, as one that
/// it had given up after some seconds or that its predecessor left behind, counts from then on: what waits since it would otherwise seem
/// to have waited since the entry before it, which may be hours.
pub fn applied(evidence: &mut Evidence, state: &ClusterState, now: Moment) {
    evidence.marks.applied(state.applied, now);
}

/// Notes what a sync says that was received at `now`. A host speaks for itself only: what it says for others is dropped.
pub fn sync(evidence: &mut Evidence, state: &ClusterState, request: &SyncRequest, now: Moment) {
    let host = evidence.hosts.entry(request.host.clone()).or_default();
    if host.sync.as_ref().is_none_or(|newest| newest.incarnation != request.facts.incarnation) {
        // Each boot counts anew.
        host.sights_known = None;
    }
    host.sync = Some(Heard { at: now, incarnation: request.facts.incarnation.clone() });
    let reports = request.reports.iter().map(|report| (report.guest.clone(), report.clone().bounded()));
    host.report(reports.collect(), now);
    (host.seen, host.armed, host.has_watchdog) = (request.seen, request.armed.clone(), request.has_watchdog);
    (host.level, host.unwell) = (request.level, request.unwell.as_deref().map(clean));
    let since = host.unwell_for.take().map_or(now, |(since, _)| since);
    host.unwell_for = host.unwell.clone().map(|why| (since, why));
    host.unwell_at = if host.unwell.is_some() { Some(now) } else { host.unwell_at };
    host.gossip_keys = request.gossip_keys.iter().copied().take(KEYS_MAX).collect();
    (host.timing, host.certificate_ends) = (request.timing, request.certificate_ends);
    for result in &request.results {
        let Some(reading) = &result.reading else { continue };
        if let Some(taken) = request.reading_asked_for(state, result.order, reading, now) {
            power(evidence, &reading.host, taken);
        } else {
            tracing::debug!(host = %request.host, of = %reading.host, "a power reading that no open fence order asked for");
        }
    }
    let mut all_taken = true;
    let waited = evidence.may_have_waited(now);
    for report in &request.sights {
        if waited {
            all_taken = false;
        } else if may_see(state, &request.host, report) {
            sight(evidence, report, now);
        } else {
            all_taken = false;
            tracing::debug!(host = %request.host, guest = %report.guest, vantage = %report.vantage, "not its sight to report");
        }
    }
    let host = evidence.hosts.entry(request.host.clone()).or_default();
    host.sights_known = match request.sights_told {
        Some(told) if all_taken => told.taken_by(host.sights_known),
        // What was not taken is to be told again: it may be its sight by then.
        Some(told) => host.sights_known.filter(|known| known.start == told.start),
        None => None,
    };
}

/// A boot that asks to join is a sign of life of its machine, whatever keeps it out for the time being (R16, R20).
pub fn unjoined(evidence: &mut Evidence, state: &ClusterState, request: &SyncRequest, now: Moment) {
    let incarnation = &request.facts.incarnation;
    let same = state.hosts.get(&request.host).is_some_and(|host| host.facts.machine_id == request.facts.machine_id);
    if same && state.may_join(&request.host, incarnation, request.seen) {
        evidence.hosts.entry(request.host.clone()).or_default().hear_other(incarnation, now, now);
    }
}

/// An outcome as it may be committed: a host's words are bounded, and a migration goes to a socket or nowhere.
pub fn clean_outcome(outcome: &OrderOutcome) -> OrderOutcome {
    match outcome {
        OrderOutcome::Done { detail, uri, last_seen } => {
            let (detail, uri) = (clean(detail), uri.clone().filter(|uri| is_socket(uri)));
            OrderOutcome::Done { detail, uri, last_seen: last_seen.clone() }.bounded()
        }
        OrderOutcome::Failed { detail } => OrderOutcome::Failed { detail: clean(detail) },
    }
}

/// A host looks from itself, and into the guests that it runs; only at services that are declared.
fn may_see(state: &ClusterState, from: &HostName, report: &SightReport) -> bool {
    let declared = state.policies.policy_of(&report.guest);
    let own = match &report.vantage {
        Vantage::Host(vantage) => vantage == from,
        Vantage::Inside => {
            state.guests.get(&report.guest).and_then(|guest| guest.home()).is_some_and(|home| home.host == *from)
        }
    };
    own && declared.is_some_and(|(_, policy)| policy.services.contains_key(&report.service))
}

fn sight(evidence: &mut Evidence, report: &SightReport, now: Moment) {
    let ago = |ms: u64| now.minus(Duration::from_millis(ms));
    let at = ago(report.age_ms);
    let sight = Sight {
        epoch: report.epoch,
        state: report.state,
        at,
        since: at,
        passed: report.passed_ago_ms.map(ago),
        warns: report.warns,
        detail: clean(&report.detail),
    };
    let services = evidence.services.entry(report.guest.clone()).or_default();
    let vantages = services.entry(report.service.clone()).or_default();
    let sight = sight.following(vantages.get(&report.vantage));
    vantages.insert(report.vantage.clone(), sight);
}

/// Notes a power reading.
pub fn power(evidence: &mut Evidence, host: &HostName, reading: PowerReading) {
    evidence.hosts.entry(host.clone()).or_default().read(reading);
}

/// Notes which levels have called their host off in a test that ended at `now`: the boot that had joined before it may go on
/// living, and then they are not to be trusted (R9).
pub fn tested(evidence: &mut Evidence, state: &ClusterState, tested: &Tested, now: Moment) {
    let Change::FenceTested { host, executor, policy_version, levels, .. } = &tested.change else { return };
    // Other devices may be declared by now than were asked.
    if *policy_version != Some(state.policy_version) {
        return;
    }
    let known = evidence.hosts.entry(host.clone()).or_default();
    for test in levels.iter().filter(|test| test.says_off()) {
        let Some(declared) = state.policies.levels_of(host).get(test.level) else { continue };
        // What means another machine on each host that asks may rightly be off there.
        if declared.is_local() && state.wiring_for(host, test.level, Some(executor)).is_none() {
            continue;
        }
        let (incarnation, declared) = (tested.boot.clone(), declared.clone());
        known.tested_off.insert(test.level, TestedOff { incarnation, answered: now, declared });
    }
}

/// Notes a voter's answer, and what it has heard of a boot that has not joined.
pub fn answer(
    evidence: &mut Evidence,
    host: &HostName,
    voter: HostName,
    answer: Answer,
    other: Option<&(Incarnation, Duration)>,
    now: Moment,
) {
    let known = evidence.hosts.entry(host.clone()).or_default();
    if let Some((incarnation, age)) = other {
        known.hear_other(incarnation, answer.asked.minus(*age), now);
    }
    known.answers.insert(voter, answer);
}

/// Brings the evidence up to date with what came by datagram, and drops what no longer has a subject.
pub fn refresh(evidence: &mut Evidence, node: &Node, state: &ClusterState, now: Moment) {
    evidence.voters = node.voters().into_keys().collect();
    for (name, host) in &state.hosts {
        datagrams(evidence, node, name, host, now);
    }
    evidence.hosts.retain(|name, _| state.hosts.contains_key(name));
    evidence.note_beside(&state.hosts, now);
    forget_undeclared(evidence, state);
}

/// Drops what was seen of what is not declared any more: declared again, it is not judged by that. A host need not have
/// noticed that it was gone between, so that all is to be told anew.
fn forget_undeclared(evidence: &mut Evidence, state: &ClusterState) {
    let mut dropped = false;
    evidence.services.retain(|guest, services| {
        let policy = state.policies.policy_of(guest).filter(|_| state.guests.contains_key(guest));
        let seen = services.len();
        services.retain(|name, _| policy.is_some_and(|(_, policy)| policy.services.contains_key(name)));
        dropped |= services.len() < seen;
        !services.is_empty()
    });
    if dropped {
        evidence.hosts.values_mut().for_each(|host| host.sights_known = None);
    }
}

/// Takes in what came by datagram from one host.
pub fn datagrams(evidence: &mut Evidence, node: &Node, name: &HostName, host: &Host, now: Moment) {
    let incarnation = &host.facts.incarnation;
    if let Some(at) = node.heard.last_of(name, incarnation) {
        let heard = Heard { at, incarnation: incarnation.clone() };
        evidence.hosts.entry(name.clone()).or_default().heard = Some(heard);
    }
    if let Some(life) = node.heard.last_other(name, |boot| host.knows_boot(boot)) {
        evidence.hosts.entry(name.clone()).or_default().hear_other(&life.incarnation, life.moment, now);
    }
}

/// Takes in why hosts stop their guests, or have, as they gossip. Only the words of the boot that has joined count, and
/// a host that has taken them back has none. Of a host that gossip has forgotten they stay as they were.
pub fn last_words(evidence: &mut Evidence, state: &ClusterState, members: &BTreeMap<HostName, Member>) {
    for (name, host) in &state.hosts {
        let Some(member) = members.get(name) else { continue };
        let boot = member.keys.get("incarnation").map(String::as_str);
        let own = boot == Some(host.facts.incarnation.as_str());
        let words = member.keys.get(last_words::KEY).filter(|_| own).map(|said| clean_to(said, LAST_WORDS_BYTES_MAX));
        if let Some(known) = evidence.hosts.get_mut(name) {
            known.last_words = words;
        } else if words.is_some() {
            evidence.hosts.insert(name.clone(), HostEvidence { last_words: words, ..HostEvidence::default() });
        }
    }
}

#[cfg(test)]
mod tests;
