//! One guest explained: how it is, how long each failure of it would last at most, and the stories of its incidents.

use holdfast_policies::{
    bound::{Bound, Limits, bounds},
    decide::Report,
    hostfile::Timing,
    model::Policies,
    names::{GuestName, HostName},
    state::{ClusterState, Wanted},
};
use serde::{Deserialize, Serialize};

use super::{
    stock::guest_waits,
    story::{self, IncidentStory},
};

/// One guest explained. Its JSON form is an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The guest.
    pub guest: GuestName,
    /// Its state, as in the status.
    pub state: String,
    /// The host that runs it, or may run it.
    pub host: Option<HostName>,
    /// What is done about it, or why nothing is.
    pub doing: String,
    /// What is waited for.
    pub waits: Option<String>,
    /// What operators want of it.
    #[serde(default)]
    pub wanted: Wanted,
    /// Why it is not started any more before a person has looked after it, if so.
    #[serde(default)]
    pub given_up: Option<String>,
    /// The host that it is on its way to, and who has asked for that, if a person has.
    #[serde(default)]
    pub heading: Option<(HostName, Option<String>)>,
    /// Why that host stops its guests, or has, because it has lost its lease, if it said so.
    #[serde(default)]
    pub last_words: Option<String>,
    /// What its hypervisor says has happened to it lately, oldest first.
    #[serde(default)]
    pub happened: Vec<String>,
    /// What each service amounts to, and who says so.
    pub services: Vec<String>,
    /// Why nothing in it is asked, if nothing is.
    #[serde(default)]
    pub unasked: Option<String>,
    /// The bound before the fact (L1).
    pub bound: Vec<Bound>,
    /// Its incidents, newest first.
    pub incidents: Vec<IncidentStory>,
}

/// Explains a guest; `None` when no such guest is declared.
#[must_use]
pub fn explain(state: &ClusterState, report: &Report, guest: &GuestName, timing: &Timing) -> Option<Explanation> {
    let known = state.guests.get(guest)?;
    let judgement = report.guests.get(guest);
    let tenure = known.home().or_else(|| known.tenures().first().copied());
    let doing = judgement.map(|judgement| judgement.doing.clone()).filter(|doing| !doing.is_empty());
    let host = tenure.and_then(|tenure| report.hosts.get(&tenure.host));
    let services = judgement.into_iter().flat_map(|judgement| &judgement.services);
    Some(Explanation {
        guest: guest.clone(),
        state: known.word().to_owned(),
        host: tenure.map(|tenure| tenure.host.clone()),
        doing: doing.unwrap_or_else(|| known.word().to_owned()),
        waits: guest_waits(known, judgement),
        wanted: known.wanted,
        given_up: known.given_up.clone(),
        heading: known.heading.as_ref().map(|heading| (heading.to.clone(), heading.by.clone())),
        last_words: host.and_then(|host| host.last_words.clone()),
        happened: judgement.map(|judgement| judgement.happened.clone()).unwrap_or_default(),
        services: services
            .map(|(name, service)| {
                let verb = if service.waits_for.is_some() { "" } else { "is " };
                format!("{name} {verb}{}: {}", service.word(), service.evidence.join("; "))
            })
            .collect(),
        unasked: unasked(&state.policies, guest),
        bound: bounds(state, guest, timing, &Limits::default()),
        incidents: story::incidents(state, guest),
    })
}

/// A label with a typo looks like this, and so does a guest whose machine alone is to be looked after.
fn unasked(policies: &Policies, guest: &GuestName) -> Option<String> {
    let declared = policies.guests.get(guest)?;
    match policies.policy_for(declared) {
        None => Some("no policy matches its labels".to_owned()),
        Some((name, policy)) if policy.services.is_empty() => Some(format!("its policy, {name}, names no services")),
        Some(_) => None,
    }
}
