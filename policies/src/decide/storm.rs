//! Storm hold (S9, R21): many hosts that fall silent together have one cause until somebody knows better.
//!
//! A failure domain counts once, however many of its hosts are silent: that a rack fails is one failure. What is proven
//! off, or expected to be silent, does not count; what is proven gone is not part of the whole either. Hosts that are cut
//! off together come back one after another, so the hold outlasts the storm by the time in which the last one is heard. They
//! are missed one after another too, so a storm that may be beginning holds for the moment in which that shows.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Decision, HostJudgement, HostVerdict, Round, fences::open, hosts::newest_word, proofs::is_proven_off,
    restraint::is_missed,
};
use crate::{
    change::Change,
    model::Severity,
    names::HostName,
    state::{ClusterState, Host, Life},
    time::millis,
};

/// Hosts that fall silent within so long of each other have one cause until somebody knows better (S9).
const STORM_WINDOW_MS: u64 = 30_000;

/// Fewest failure domains that are a storm.
const STORM_MIN: usize = 2;

/// What is said while the hold outlasts the storm. It names nobody: a change of it would begin the wait anew.
const FADING: &str = "fencing is held a moment longer: hosts are heard again after a storm, and not all of them yet";

/// What is said while it is not known yet whether there is a storm. Nobody is called for it: it is over in a moment.
const FORMING: &str = "other hosts have not been heard for a moment either, which may be the beginning of a storm";

/// What is said while a new coordinator does not know yet whether the storm goes on of which people have been told.
const UNHEARD: &str = "there was a storm, and a new coordinator has not heard yet which hosts are silent";

/// Finds out whether fencing is held, says so, and ends an operator's release with the storm that it was meant for.
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    let key = || ClusterState::STORM_KEY.to_owned();
    let was_told = round.told.by_key(ClusterState::STORM_KEY).is_some();
    match (storm(round), &round.state.storm_release) {
        (Some(storm), None) => {
            let human = "One lost switch, storage or power feed looks like many dead hosts: find it. Holdfast switches no host \
                         off meanwhile. For each host that is really off, run `holdfast host confirm-off HOST --operator YOUR-NAME`; \
                         if they have really failed, run `holdfast release-storm-hold --operator YOUR-NAME`.";
            let summary = format!("fencing is held: {storm}");
            open(round, decision, key(), Severity::Critical, summary, Some(human.to_owned()));
            decision.report.storm_hold = Some(storm);
        }
        (Some(storm), Some(release)) => {
            let summary = format!("{storm}, and fencing goes on: {} has released the hold", release.by);
            open(round, decision, key(), Severity::Critical, summary, None);
        }
        // What was said, and a release, outlive the coordinator.
        (None, release) if (was_told || release.is_some()) && !is_heard_out(round) => {
            decision.report.storm_hold = release.is_none().then(|| UNHEARD.to_owned());
        }
        (None, None) if fades(round) => {
            open(round, decision, key(), Severity::Critical, FADING.to_owned(), None);
            decision.report.storm_hold = Some(FADING.to_owned());
        }
        (None, None) if forms(round) => {
            end(round, decision);
            decision.report.storm_hold = Some(FORMING.to_owned());
        }
        (None, release) => {
            if release.is_some() {
                decision.commands.push(Change::StormEnded);
            }
            end(round, decision);
        }
    }
}

/// Tells people that it is over, if they were told.
fn end(round: &Round<'_>, decision: &mut Decision) {
    if let Some(open) = round.told.by_key(ClusterState::STORM_KEY) {
        decision.commands.push(Change::IncidentResolved { key: open.key.clone() });
    }
}

/// Whether a coordinator has heard, or has missed, all hosts that would be missed: one that has just begun to listen knows of no silence.
fn is_heard_out(round: &Round<'_>) -> bool {
    let listened = round.evidence.quorum_since.map(|since| round.now.moment.since(since)).unwrap_or_default();
    let is_open = |name: &HostName| round.hosts.get(name).is_some_and(|judged| judged.verdict == HostVerdict::Unknown);
    let mut missed = round.state.hosts.iter().filter(|(_, host)| is_missed(host)).map(|(name, _)| name);
    listened >= round.timing.suspect_after.0 && !missed.any(is_open)
}

/// Whether the hold outlasts the storm for a moment. Hosts that were cut off together are heard again one after another:
/// the first ones end the storm, and the others are still silent then.
fn fades(round: &Round<'_>) -> bool {
    let Some(incident) = round.told.by_key(ClusterState::STORM_KEY) else { return false };
    // What has not been committed yet has not begun to count.
    let left = incident.summary != FADING || round.age(incident.changed) < round.timing.suspect_after.0;
    left && silent(round).next().is_some()
}

/// The hosts whose silence counts, and for how many milliseconds each has been silent.
fn silent<'a>(round: &'a Round<'_>) -> impl Iterator<Item = (u64, &'a HostName)> {
    let is_silent = |verdict| matches!(verdict, HostVerdict::Suspect | HostVerdict::Failed);
    let silent = round.hosts.iter().filter(move |(name, judged)| is_silent(judged.verdict) && counts(round, name));
    silent.map(|(name, judged)| (judged.silent_ms, name))
}

/// Whether it is a storm if those are missed too that have not been heard for a moment. Hosts that are cut off together are not
/// missed together: their last words lie up to an interval of their signs of life apart.
fn forms(round: &Round<'_>) -> bool {
    let moment = millis(round.timing.wonder_after.0)..millis(round.timing.suspect_after.0);
    let missed_soon =
        |judged: &HostJudgement| judged.verdict != HostVerdict::Gone && moment.contains(&judged.silent_ms);
    let soon = round.hosts.iter().filter(|(name, judged)| missed_soon(judged) && counts(round, name));
    let soon = soon.filter(|(name, _)| was_heard(round, name));
    let mut quiet: Vec<(u64, &HostName)> = silent(round).collect();
    if quiet.is_empty() {
        return false;
    }
    quiet.extend(soon.map(|(name, judged)| (judged.silent_ms, name)));
    storm_of(round, quiet).is_some()
}

/// Whether anybody has ever heard the host. Of one that nobody has, it is only known since when this coordinator listens, and it is
/// not missed before it has had its time to join.
fn was_heard(round: &Round<'_>, name: &HostName) -> bool {
    let Some(known) = round.state.hosts.get(name) else { return false };
    let word = newest_word(round.evidence, name, &known.facts.incarnation);
    word.is_some() || round.evidence.other_boot(name, known).is_some()
}

/// What of the hosts that are silent is a storm.
fn storm(round: &Round<'_>) -> Option<String> {
    storm_of(round, silent(round).collect()).map(|names| format!("{} are silent at once", names.join(", ")))
}

/// The hosts of a storm: more than one failure domain, and more than a third of them, fell silent within [`STORM_WINDOW_MS`] and
/// are silent still. A host that fell silent long before has its own cause, and must not hold the fence of the next one for ever.
fn storm_of<'a>(round: &'a Round<'_>, mut silent: Vec<(u64, &'a HostName)>) -> Option<Vec<&'a str>> {
    silent.sort_unstable();
    let together = |(since, _): &(u64, &'a HostName)| {
        let window = *since..=since.saturating_add(STORM_WINDOW_MS);
        let within = silent.iter().filter(|(other, _)| window.contains(other));
        within.map(|(_, name)| (domain(round.state, name), *name)).collect::<Vec<_>>()
    };
    let domains =
        |hosts: &Vec<(Domain<'_>, &HostName)>| hosts.iter().map(|(domain, _)| *domain).collect::<BTreeSet<_>>().len();
    let most = silent.iter().map(together).max_by_key(&domains)?;
    let failed = domains(&most);
    // One alone is none, of however many.
    if failed < STORM_MIN {
        return None;
    }
    let mut names: Vec<&str> = most.iter().map(|(_, name)| name.as_str()).collect();
    names.sort_unstable();
    is_storm(failed, whole(round).len()).then_some(names)
}

/// Of how many failure domains the loss of these hosts at once would be the silence of how many, if that looks like a storm.
pub(crate) fn supposed_storm(state: &ClusterState, lost: &[HostName]) -> Option<(usize, usize)> {
    let counts = |host: &Host| is_missed(host) && !matches!(host.life, Life::Gone { .. });
    let mut all = BTreeSet::new();
    let mut hit = BTreeSet::new();
    for (name, _) in state.hosts.iter().filter(|(_, host)| counts(host)) {
        if lost.contains(name) {
            hit.insert(domain(state, name));
        }
        all.insert(domain(state, name));
    }
    is_storm(hit.len(), all.len()).then_some((hit.len(), all.len()))
}

fn is_storm(silent: usize, of: usize) -> bool {
    silent >= STORM_MIN && silent * 3 > of
}

/// The failure domains that there are, with a host of each: those of which silence would be missed.
fn whole<'a>(round: &'a Round<'_>) -> BTreeMap<Domain<'a>, &'a HostName> {
    let gone = |name: &HostName| round.hosts.get(name).is_some_and(|judgement| judgement.verdict == HostVerdict::Gone);
    let hosts = round.state.hosts.iter().filter(|(name, host)| is_missed(host) && !gone(name));
    hosts.map(|(name, _)| (domain(round.state, name), name)).collect()
}

/// Whether the silence of this host is part of a storm.
fn counts(round: &Round<'_>, name: &HostName) -> bool {
    round.state.hosts.get(name).is_some_and(is_missed) && !is_proven_off(round, name)
}

/// A failure domain. What a label says is never a host's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Domain<'a> {
    Host(&'a HostName),
    Label(&'a str),
}

/// The failure domain of a host: what its label says, else the host itself.
pub(super) fn domain<'a>(state: &'a ClusterState, host: &'a HostName) -> Domain<'a> {
    let label = state.policies.cluster.failure_domain.as_ref();
    let declared = label.and_then(|label| state.policies.hosts.get(host)?.labels.get(label));
    declared.map_or(Domain::Host(host), |value| Domain::Label(value))
}
