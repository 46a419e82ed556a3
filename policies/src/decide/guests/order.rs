//! The order in which guests start and stop (`Rule::Order`).
//!
//! Required: the second guest starts only when the first one runs and its services have answered, also anew (`anew.rs`). Not required: it waits
//! only while the first one is really on its way up. Symmetrical and required: when the first one is stopped for good, the
//! second is stopped before it, and whatever comes after that one before both. Rules that go round in a circle are refused when
//! they are declared; should one be there all the same, it holds nobody, and somebody is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    super::{FOREVER, HostJudgement, HostVerdict, Round, fences::open},
    Pass,
};
use crate::{
    evidence::{Evidence, is_there},
    model::{Policies, Severity},
    names::{GuestName, HostName},
    rules::Rule,
    state::{ClusterState, Guest, Life, Phase, Tenure, Wanted},
    time::millis,
};

/// How long a guest waits for one that it would merely like to start after: a boot and a try more.
const FIRST_PATIENCE: Duration = Duration::from_secs(120);

/// What a guest waits for: in words, and at most for how many more milliseconds; [`FOREVER`] where nothing bounds it.
pub(super) type Waits = (String, Option<(String, u64)>);

/// The guest that has to be ready before this one starts; this one has waited for so long.
pub(super) fn waits_for(state: &ClusterState, name: &GuestName, waited: Duration) -> Option<Waits> {
    rules_before(&state.policies, name).find_map(|(first, required, _)| {
        let known = state.guests.get(first);
        let ready = |known: &Guest| {
            let stays = !required || !is_going(state, first, known);
            stays && matches!(known.phase, Phase::Running { verified: true, .. })
        };
        if known.is_some_and(ready) {
            return None;
        }
        if required {
            let how = known.map_or("not declared", |known| how(state, first, known));
            let text = format!("it starts when {first} is ready, which is {how}");
            return Some((text, Some((format!("{first} to run and answer"), FOREVER))));
        }
        let left = FIRST_PATIENCE.saturating_sub(waited);
        let coming = known.is_some_and(|known| is_coming(state, first, known));
        (coming && !left.is_zero()).then(|| {
            let how = known.map_or("unknown", |known| how(state, first, known));
            let text = format!("it starts after {first}, which is {how}");
            (text, Some((format!("{first} to run and answer, or no longer than that"), millis(left))))
        })
    })
}

/// What a guest waits for although the one before it was ready the last time that anybody looked: that one has ended, or its host
/// is not known to live. It is about to be started anew, and this one would have started before it.
fn waits_in_doubt(
    state: &ClusterState,
    evidence: &Evidence,
    judged: &BTreeMap<HostName, HostJudgement>,
    name: &GuestName,
    waited: Duration,
) -> Option<Waits> {
    rules_before(&state.policies, name).find_map(|(first, required, _)| {
        let known = state.guests.get(first)?;
        let Phase::Running { tenure, .. } = &known.phase else { return None };
        let doubt = doubt(state, evidence, judged, first, tenure)?;
        let text = format!("it starts after {first}, and {doubt}");
        if required {
            return Some((text, Some((format!("{first} to run and answer"), FOREVER))));
        }
        let left = FIRST_PATIENCE.saturating_sub(waited);
        let what = format!("{first} to run and answer, or no longer than that");
        (is_coming(state, first, known) && !left.is_zero()).then(|| (text, Some((what, millis(left)))))
    })
}

/// Why a guest that counts as ready may not be up, if anything says so. A host whose supervisor alone is down is alive, and so are
/// its guests (R16), unless its lease is a level of its fencing and has run out.
fn doubt(
    state: &ClusterState,
    evidence: &Evidence,
    judged: &BTreeMap<HostName, HostJudgement>,
    guest: &GuestName,
    tenure: &Tenure,
) -> Option<String> {
    let host = &tenure.host;
    if state.hosts.get(host).is_some_and(|known| matches!(known.life, Life::Fencing(_))) {
        return Some(format!("{host}, where that one ran, is being fenced"));
    }
    match judged.get(host).map_or(HostVerdict::Unknown, |judgement| judgement.verdict) {
        HostVerdict::Suspect | HostVerdict::Failed | HostVerdict::Gone | HostVerdict::Unknown => {
            Some(format!("{host}, where that one ran, is not heard"))
        }
        // R14, R19: its lease has run out.
        HostVerdict::Isolated if state.policies.lease_level(host).is_some() => {
            Some(format!("{host}, where that one ran, is cut off and stops its guests"))
        }
        HostVerdict::Healthy | HostVerdict::SupervisorDown | HostVerdict::Isolated => {
            let report = evidence.hosts.get(host)?.reports.get(guest)?;
            let has_ended = report.epoch == tenure.epoch && !is_there(&report.condition);
            has_ended.then(|| format!("that one has ended on {host}"))
        }
    }
}

fn how(state: &ClusterState, name: &GuestName, guest: &Guest) -> &'static str {
    match (&guest.phase, guest.wanted) {
        (Phase::Running { .. }, Wanted::Stopped) => "wanted stopped",
        (Phase::Running { .. }, _) if is_going(state, name, guest) => "about to stop",
        (Phase::Running { .. }, _) => "running and does not answer yet",
        (Phase::Unplaced | Phase::Free { .. }, Wanted::Unmanaged) => "unmanaged",
        _ => guest.word(),
    }
}

/// Whether both are to be started: the first one is on its way, and nothing has been told that keeps it down.
fn is_coming(state: &ClusterState, first: &GuestName, guest: &Guest) -> bool {
    let stuck = state.open_incident(&format!("placement/{first}")).is_some();
    guest.wanted == Wanted::Running && guest.given_up.is_none() && !stuck && state.hands_off(first).is_none()
}

/// Why a running guest stops before one that it cannot run without.
fn stops_before(state: &ClusterState, name: &GuestName) -> Option<String> {
    stopped_for(state, name).map(|first| format!("it does not run without {first}, which an operator wants stopped"))
}

/// Whether a guest is to be down because one is that it does not run without: it starts nowhere meanwhile.
pub(in crate::decide) fn is_stopped_for_another(state: &ClusterState, name: &GuestName) -> bool {
    stopped_for(state, name).is_some()
}

/// Whether the guest is down soon: wanted stopped, or unable to run without one that is.
fn is_going(state: &ClusterState, name: &GuestName, guest: &Guest) -> bool {
    let goes_with_it = || state.hands_off(name).is_none() && stopped_for(state, name).is_some();
    guest.wanted == Wanted::Stopped || goes_with_it()
}

/// The guest that an operator wants stopped and without which this one does not run, be it through others in between. One
/// that is left alone stops for nobody, and so nobody stops for its sake.
fn stopped_for<'a>(state: &'a ClusterState, name: &'a GuestName) -> Option<&'a GuestName> {
    let mut reached = BTreeSet::from([name]);
    let mut open = vec![name];
    while let Some(then) = open.pop() {
        for (first, required, symmetrical) in rules_before(&state.policies, then) {
            let known = state.guests.get(first).filter(|_| required && symmetrical);
            match known.map(|known| known.wanted) {
                Some(Wanted::Stopped) => return Some(first),
                Some(Wanted::Running) if state.hands_off(first).is_none() && reached.insert(first) => open.push(first),
                Some(Wanted::Running | Wanted::Unmanaged) | None => {}
            }
        }
    }
    None
}

/// The guest that has to be down before this one stops.
pub(super) fn stops_after<'a>(state: &'a ClusterState, name: &GuestName) -> Option<&'a GuestName> {
    let up = |then: &GuestName| {
        let known = state.guests.get(then).filter(|_| state.hands_off(then).is_none());
        known.filter(|known| !known.tenures().is_empty())
    };
    state.policies.rules.values().find_map(|rule| match rule {
        Rule::Order { first, then, required, symmetrical: true } if first == name => {
            let follows = up(then).is_some_and(|known| *required || known.wanted == Wanted::Stopped);
            (follows && !is_circle(&state.policies, first, then)).then_some(then)
        }
        Rule::Order { .. } | Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } => None,
    })
}

/// The guest that has to be down before this one stops, and is being stopped: until that is proven it may still run (S2), and would
/// run without what it needs. Of one that is left alone nobody tries to stop what is left, so nobody waits for that either.
fn stops_after_one_that_is_stopping<'a>(state: &'a ClusterState, name: &GuestName) -> Option<&'a GuestName> {
    let is_stopping = |then: &GuestName| {
        let phase = state.guests.get(then).map(|known| &known.phase);
        matches!(phase, Some(Phase::Releasing { .. })) && state.hands_off(then).is_none()
    };
    state.policies.rules.values().find_map(|rule| match rule {
        Rule::Order { first, then, required: true, symmetrical: true } if first == name => {
            (is_stopping(then) && !is_circle(&state.policies, first, then)).then_some(then)
        }
        Rule::Order { .. } | Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } => None,
    })
}

/// The guests that start after others. Most do not, and of those nobody has to look at all rules in every round.
pub(in crate::decide) fn that_start_after(policies: &Policies) -> BTreeSet<&GuestName> {
    let second = policies.rules.values().filter_map(|rule| match rule {
        Rule::Order { then, .. } => Some(then),
        Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } => None,
    });
    second.collect()
}

/// Whether a guest waits for one that counts as ready, as far as that shows before anybody is placed: then it takes no room, which
/// that one may need to start elsewhere.
pub(in crate::decide) fn waits_out(
    state: &ClusterState,
    evidence: &Evidence,
    judged: &BTreeMap<HostName, HostJudgement>,
    name: &GuestName,
    waited: Duration,
) -> bool {
    let is_drained = |first: &GuestName| stands_cold(state, first).is_some_and(|home| is_leaving(state, first, home));
    let for_drain = || rules_before(&state.policies, name).any(|(first, required, _)| required && is_drained(first));
    let waits_for_mover = || waited < FIRST_PATIENCE && !is_on_its_way(state, name) && for_drain();
    waits_in_doubt(state, evidence, judged, name, waited).is_some() || waits_for_mover()
}

/// Whether a guest was stopped only to start elsewhere: it ran beside the one before it, and is not to be down until that one has
/// its turn to move.
fn is_on_its_way(state: &ClusterState, name: &GuestName) -> bool {
    state.guests.get(name).is_some_and(|known| known.heading.is_some())
}

/// Where a guest is up, if it moves by a stop and a start, and is not left alone.
fn stands_cold<'a>(state: &'a ClusterState, name: &GuestName) -> Option<&'a HostName> {
    let Phase::Running { tenure, .. } = &state.guests.get(name)?.phase else { return None };
    let live = state.policies.guests.get(name).is_some_and(|declared| declared.needs.live_migration);
    (!live && state.hands_off(name).is_none()).then_some(&tenure.host)
}

/// Whether it leaves its host for a drain. Not while somebody has been told that no other host can take it.
fn is_leaving(state: &ClusterState, name: &GuestName, home: &HostName) -> bool {
    state.is_draining(home) && state.open_incident(&format!("leave/{name}")).is_none()
}

/// Whether a guest is up, and is about to be stopped so that it starts elsewhere.
fn is_about_to_restart(round: &Round<'_>, name: &GuestName) -> bool {
    let Some(home) = stands_cold(round.state, name) else { return false };
    let is_moved = || round.plan.wanted_move(name).is_some_and(|wanted| wanted.required && wanted.to.is_some());
    is_leaving(round.state, name, home) || is_moved()
}

impl Pass<'_, '_> {
    /// Why a guest is to stop for the order in which guests do.
    pub(super) fn stops_before(&self, name: &GuestName) -> Option<String> {
        self.glance.second.contains(name).then(|| stops_before(self.round.state, name)).flatten()
    }

    /// The guest for whose sake this one is not stopped to be started elsewhere, if it moves like that at all.
    pub(super) fn keeps_from_a_cold_move(&self, name: &GuestName) -> Option<&GuestName> {
        let state = self.round.state;
        let is_live = || state.policies.guests.get(name).is_some_and(|declared| declared.needs.live_migration);
        let held = || stops_after_one_that_is_stopping(state, name).filter(|_| !is_live());
        if self.glance.second.is_empty() { None } else { held() }
    }

    /// What a guest waits for although the one before it counts as ready.
    pub(super) fn waits_for_first(&self, name: &GuestName, waited: Duration) -> Option<Waits> {
        if !self.glance.second.contains(name) {
            return None;
        }
        let Round { state, evidence, hosts, .. } = self.round;
        waits_in_doubt(state, evidence, hosts, name, waited).or_else(|| self.waits_for_mover(name, waited))
    }

    /// What a guest waits for that runs, and is ill, before it is started anew. One that would merely like to start after another one has
    /// done so.
    pub(super) fn waits_for_needed(&self, name: &GuestName) -> Option<Waits> {
        if !self.glance.second.contains(name) {
            return None;
        }
        let Round { state, evidence, hosts, .. } = self.round;
        let past_liking = FIRST_PATIENCE;
        waits_for(state, name, past_liking).or_else(|| waits_in_doubt(state, evidence, hosts, name, past_liking))
    }

    /// What a guest waits for whose first one is up, and is about to be stopped so that it starts elsewhere. Not for ever: many may
    /// be moved before that one.
    fn waits_for_mover(&self, name: &GuestName, waited: Duration) -> Option<Waits> {
        let left = FIRST_PATIENCE.saturating_sub(waited);
        if left.is_zero() || is_on_its_way(self.round.state, name) {
            return None;
        }
        let mut required = rules_before(&self.round.state.policies, name).filter(|(_, required, _)| *required);
        let (first, ..) = required.find(|(first, ..)| is_about_to_restart(self.round, first))?;
        let text = format!("it starts after {first}, which is about to be stopped to start elsewhere");
        Some((text, Some((format!("{first} to run there, or no longer than that"), millis(left)))))
    }

    /// A circle is told, because it holds nobody.
    pub(super) fn tell_circle(&mut self, name: &GuestName) {
        let policies = &self.round.state.policies;
        let circles = policies.rules.iter().filter(|(_, rule)| match rule {
            Rule::Order { first, then, .. } => then == name && is_circle(policies, first, then),
            Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } => false,
        });
        let is_second = self.glance.second.contains(name);
        let names: Vec<&str> = if is_second { circles.map(|(rule, _)| rule.as_str()).collect() } else { Vec::new() };
        if names.is_empty() {
            self.close("order");
            return;
        }
        let summary = format!("the rules that say when {name} starts go round in a circle: {}", names.join(", "));
        let human = "Say which guest comes first; until then these rules hold nobody.".to_owned();
        open(self.round, self.decision, format!("order/{name}"), Severity::Warning, summary, Some(human));
    }
}

/// What comes before a guest, with whether that is required and symmetrical; circles are left out.
fn rules_before<'a>(
    policies: &'a Policies,
    name: &'a GuestName,
) -> impl Iterator<Item = (&'a GuestName, bool, bool)> + use<'a> {
    policies.rules.values().filter_map(move |rule| match rule {
        Rule::Order { first, then, required, symmetrical } if then == name && !is_circle(policies, first, then) => {
            Some((first, *required, *symmetrical))
        }
        Rule::Order { .. } | Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } => None,
    })
}

/// Whether what has to be ready first has itself to wait for `then`.
fn is_circle(policies: &Policies, first: &GuestName, then: &GuestName) -> bool {
    let mut reached = BTreeSet::from([first]);
    let mut open = vec![first];
    while let Some(at) = open.pop() {
        if at == then {
            return true;
        }
        for rule in policies.rules.values() {
            if let Rule::Order { first, then, .. } = rule
                && then == at
                && reached.insert(first)
            {
                open.push(first);
            }
        }
    }
    false
}
