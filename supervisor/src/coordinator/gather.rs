//! Gathering evidence: syncs, gossip and beacons, voters' answers and power readings, on this host's clock.

use std::time::Duration;

use holdfast_policies::{
    evidence::{Answer, Evidence, Heard, Marks, Sight},
    names::HostName,
    proof::PowerReading,
    state::ClusterState,
    sync::{AgedReading, SightReport, SyncRequest},
    time::Moment,
};

use crate::node::Node;

/// Forgets what only this leadership has gathered. What the datagrams say is kept, so that the coordinator's own death
/// does not begin every wait anew (R18).
pub fn begin_anew(evidence: &mut Evidence) {
    let marks = std::mem::replace(&mut evidence.marks, Marks::new(Moment(0)));
    *evidence = Evidence { marks, me: evidence.me.clone(), ..Evidence::default() };
}

/// Notes what a sync says.
pub fn sync(evidence: &mut Evidence, request: &SyncRequest, now: Moment) {
    let host = evidence.hosts.entry(request.host.clone()).or_default();
    host.sync = Some(Heard { at: now, incarnation: request.facts.incarnation.clone() });
    host.reports = request.reports.iter().map(|report| (report.guest.clone(), report.clone())).collect();
    host.unwell.clone_from(&request.unwell);
    for result in &request.results {
        if let Some(reading) = &result.reading {
            power(evidence, &reading.host, from_travelled(reading, now));
        }
    }
    for report in &request.sights {
        sight(evidence, report, now);
    }
}

fn from_travelled(reading: &AgedReading, now: Moment) -> PowerReading {
    PowerReading {
        incarnation: reading.incarnation.clone(),
        asked: now.minus(Duration::from_millis(reading.asked_ago_ms)),
        power: reading.power.clone(),
        devices: reading.devices.clone(),
        level: reading.level,
    }
}

fn sight(evidence: &mut Evidence, report: &SightReport, now: Moment) {
    let ago = |ms: u64| now.minus(Duration::from_millis(ms));
    let sight = Sight {
        epoch: report.epoch,
        state: report.state,
        at: ago(report.age_ms),
        passed: report.passed_ago_ms.map(ago),
        detail: report.detail.clone(),
    };
    let services = evidence.services.entry(report.guest.clone()).or_default();
    services.entry(report.service.clone()).or_default().insert(report.vantage.clone(), sight);
}

/// Notes a power reading, unless a newer one is known.
pub fn power(evidence: &mut Evidence, host: &HostName, reading: PowerReading) {
    let known = evidence.hosts.entry(host.clone()).or_default();
    if known.power.as_ref().is_none_or(|power| power.asked <= reading.asked) {
        known.power = Some(reading);
    }
}

/// Notes a voter's answer.
pub fn answer(evidence: &mut Evidence, host: &HostName, voter: HostName, answer: Answer) {
    evidence.hosts.entry(host.clone()).or_default().answers.insert(voter, answer);
}

/// Brings the evidence up to date with what came by datagram, and drops what no longer has a subject.
pub fn refresh(evidence: &mut Evidence, node: &Node, state: &ClusterState) {
    evidence.voters = node.voters().into_keys().collect();
    for (name, host) in &state.hosts {
        let incarnation = &host.facts.incarnation;
        if let Some(at) = node.heard.last_of(name, incarnation) {
            let heard = Heard { at, incarnation: incarnation.clone() };
            evidence.hosts.entry(name.clone()).or_default().heard = Some(heard);
        }
    }
    evidence.hosts.retain(|name, _| state.hosts.contains_key(name));
    evidence.services.retain(|name, _| state.guests.contains_key(name));
}
