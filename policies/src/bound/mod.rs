//! The bound before the fact (L1): how long each kind of failure of a guest lasts at most, part by part, and why.
//!
//! ```text
//!  a service fails      detect ──> ladder: one rung after the other, each with its tries and waits
//!  its machine ends     detect ──> ladder, from the first rung that starts it anew
//!  its host fails       detect ──> prove ──> queue ──> start ──> answer
//! ```
//! Every part is the longest time that declarations, deadlines and the pace of the cluster leave for it; the whole is their
//! sum, so that what is seen is usually sooner. Where nothing bounds a part, it has no time and says what is waited for:
//! a person, mostly. No number is made up.
//!
//! It holds for one failure at a time, while a majority of voters can talk, the device that is to prove something does what
//! it is declared to do, another host has room, starts succeed, and services come up in the time that their policy gives
//! them. What stretches it is listed with it ([`Stretch`]).

mod back;
mod climb;
mod devices;
mod failure;
mod hosts;
mod limits;
mod loss;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::devices::levels_to_proof;
use self::loss::Supposed;
pub use self::{
    failure::{Failure, Stage, StretchedBy},
    hosts::UNCLEAR,
    limits::Limits,
    loss::{Loss, when_lost},
};
use crate::{
    decide::{GUESTS_MIN, HELD_MAX, is_held},
    hostfile::Timing,
    ladder::{NextStep, Trouble, ladder_of, next_step},
    model::{Policy, Service},
    names::{GuestName, HostName, ServiceName},
    some_of::some_of,
    state::{ClusterState, Wanted},
    time::{Span, millis},
};

/// Longest usual election: one of 300 to 600 ms, and another one after a split vote.
const ELECTION: Duration = Duration::from_millis(1_200);

/// From a fact that is known to the decision about it that is committed: rounds of deciding are 200 ms apart at most, and
/// a commit is a trip to another voter and its disk, which may be busy.
const ROUND: Duration = Duration::from_millis(500);

/// How long one kind of failure of a guest lasts at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// What fails.
    pub failure: Failure,
    /// The service that fails, where it is one.
    pub service: Option<ServiceName>,
    /// Longest time from the last good sign to the verdict, in milliseconds.
    pub detect_ms: u64,
    /// What is done first: a rung, or `fence` and a rung.
    pub act: String,
    /// Why the verdict takes so long, in a sentence.
    pub because: String,
    /// What the time until the guest is back is made of, in order.
    #[serde(default)]
    pub parts: Vec<Part>,
    /// Longest time from the failure until the guest is back, in milliseconds: the sum of the parts. `None` where one of
    /// them has no bound.
    #[serde(default)]
    pub within_ms: Option<u64>,
    /// Why there is none, where there is none.
    #[serde(default)]
    pub unbounded: Option<String>,
    /// Where a ladder is climbed: how long it lasts at most if it is this rung that helps.
    #[serde(default)]
    pub rungs: Vec<Helped>,
    /// What makes it longer than that, and by how much.
    #[serde(default)]
    pub stretched_by: Vec<Stretch>,
}

/// One part of a bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which.
    pub stage: Stage,
    /// How long it takes at most, in milliseconds; `None`: nothing bounds it.
    pub within_ms: Option<u64>,
    /// Why so long, or what is waited for.
    pub because: String,
}

/// A rung, and how long the failure lasts at most if that rung helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Helped {
    /// The rung's key in YAML.
    pub rung: String,
    /// From the failure until the guest is back by its last try, in milliseconds.
    pub within_ms: u64,
}

/// Something that makes a failure last longer than its bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// What it is.
    pub by: StretchedBy,
    /// By how much at most, in milliseconds; `None`: nothing bounds it.
    pub by_ms: Option<u64>,
    /// In words.
    pub why: String,
}

/// The bounds of one guest: of each of its services, of its machine, and of the host that it is on.
#[must_use]
pub fn bounds(state: &ClusterState, guest: &GuestName, timing: &Timing, limits: &Limits) -> Vec<Bound> {
    let policy = state.policies.policy_of(guest).map(|(_, policy)| policy);
    let case = Case { state, guest, policy, timing, limits, loss: None };
    let services = policy.into_iter().flat_map(|policy| &policy.services);
    let mut bounds: Vec<Bound> = services.map(|(name, service)| app_failed(&case, name, service)).collect();
    bounds.push(guest_died(&case));
    bounds.extend(hosts::failures(&case));
    let on_contested = || {
        let halves = state.guests.get(guest)?.halves();
        halves.into_iter().flatten().find_map(|half| contested(state, &half.host))
    };
    if let Some(why) = left_alone(state, guest).or_else(on_contested) {
        bounds.iter_mut().for_each(|bound| bound.never(why.clone()));
    }
    bounds
}

/// Why nothing proves a host gone, and nothing is ordered of it, if nobody knows which machine it is (R11).
pub(crate) fn contested(state: &ClusterState, host: &HostName) -> Option<String> {
    let quarantine = state.hosts.get(host)?.quarantine.as_ref().filter(|quarantine| quarantine.is_contested())?;
    Some(format!("a person has to settle whose name {host} is: {quarantine}"))
}

/// A time for people, never shorter than it is: whole seconds from ten on.
#[must_use]
pub fn rounded_up(ms: u64) -> Span {
    if ms < 10_000 { Span::ms(ms) } else { Span::secs(ms.div_ceil(1_000)) }
}

/// Hosts named in one sentence: the answer names all that are lost.
const NAMED_MAX: usize = 5;

/// Hosts in words, of many the first ones.
fn named(hosts: &[&HostName]) -> String {
    some_of(hosts, NAMED_MAX, ", ")
}

/// What every part is worked out from.
struct Case<'a> {
    state: &'a ClusterState,
    guest: &'a GuestName,
    policy: Option<&'a Policy>,
    timing: &'a Timing,
    limits: &'a Limits,
    /// A loss that is supposed; `None`: whatever may fail.
    loss: Option<&'a Supposed<'a>>,
}

impl<'a> Case<'a> {
    /// Other hosts that are supposed to be lost at once with this one, and to need proof.
    fn lost_with(&self, host: &HostName) -> Vec<&'a HostName> {
        let lost = self.loss.into_iter().flat_map(|supposed| &supposed.loss.hosts).copied();
        lost.filter(|other| *other != host).collect()
    }

    fn is_lost(&self, host: &HostName) -> bool {
        self.loss.is_some_and(|supposed| supposed.loss.hosts.contains(host))
    }

    /// What one order takes beside its work: it is decided and committed, its agent is told of it, and tells its end, with
    /// the next sync at the latest.
    fn turn(&self) -> Duration {
        ROUND + self.timing.sync_every.0 * 2
    }

    fn first_rung(&self, trouble: Trouble) -> String {
        let rungs = ladder_of(&self.state.policies, self.guest, trouble.ladder());
        let first = match next_step(&rungs, None, Duration::ZERO, trouble) {
            NextStep::Take { rung } => rungs.get(rung),
            NextStep::Wait { .. } | NextStep::Exhausted => None,
        };
        first.map_or("nothing", |rung| rung.name()).to_owned()
    }
}

fn app_failed(case: &Case<'_>, name: &ServiceName, service: &Service) -> Bound {
    let asked = service.answered_within(service.fails_after);
    let sync = case.timing.sync_every;
    let mut because = format!(
        "asked every {} and failed after {} answers in a row, the last one given up after {}, told with the next sync ({sync})",
        service.every, service.fails_after, service.timeout
    );
    let mut seen = asked;
    if let Some((heard, need, every)) = needs_heard(case, service).filter(|(heard, ..)| *heard > asked) {
        because = format!("{because}; it needs {need}, asked every {every}, which has to be heard to answer first");
        seen = heard;
    }
    let detect = Part::of(Stage::Detect, seen.saturating_add(sync.0), because);
    let mut bound = climb::bound(case, Failure::AppFailed, Trouble::Service, detect);
    bound.service = Some(name.clone());
    bound.stretched_by.extend(held_in_storm(case, service));
    bound
}

/// What kills a guest or moves it is held where many cease to answer hosts at once.
fn held_in_storm(case: &Case<'_>, service: &Service) -> Option<Stretch> {
    let state = case.state;
    let may_be_storm = service.from.hosts > 0 && state.guests.len() >= GUESTS_MIN && state.hosts.len() > 1;
    let rungs = ladder_of(&state.policies, case.guest, Trouble::Service.ladder());
    let (held, by_ms) = (Span(HELD_MAX), Some(millis(HELD_MAX)));
    let why = format!(
        "more than a third of the guests, {GUESTS_MIN} or more and on different hosts, cease to answer over the network at once: \
         rungs that kill or move them are held for {held} at most"
    );
    (may_be_storm && rungs.iter().any(is_held)).then_some(Stretch { by: StretchedBy::Storm, by_ms, why })
}

/// Of the services that one needs, the one that may be heard last after it has answered for the last time: before that it may
/// be what has failed. Within which time, its name, and how often it is asked.
fn needs_heard<'a>(case: &Case<'a>, service: &Service) -> Option<(Duration, &'a ServiceName, Span)> {
    let policy = case.policy?;
    let needs = service.tuning.needs.iter().filter_map(|need| policy.services.get_key_value(need));
    let heard = needs.map(|(name, need)| (need.every.0.saturating_add(need.timeout.0), name, need.every));
    heard.max_by_key(|(within, ..)| *within)
}

fn guest_died(case: &Case<'_>) -> Bound {
    let sync = case.timing.sync_every;
    let because = format!("the end of QEMU is an event that is told at once, or with the next sync ({sync})");
    climb::bound(case, Failure::GuestDied, Trouble::Guest, Part::of(Stage::Detect, sync.0, because))
}

/// Why nothing at all is done to the guest, whatever fails.
pub(crate) fn left_alone(state: &ClusterState, guest: &GuestName) -> Option<String> {
    let known = state.guests.get(guest)?;
    match known.wanted {
        Wanted::Stopped => return Some("operators want it stopped".to_owned()),
        Wanted::Running | Wanted::Unmanaged => {}
    }
    if known.given_up.is_some() {
        return Some("it is not started any more before a person has looked after it".to_owned());
    }
    state.hands_off(guest).map(|hands_off| hands_off.to_string())
}

impl Part {
    fn of(stage: Stage, within: Duration, because: String) -> Self {
        Self { stage, within_ms: Some(millis(within)), because }
    }

    fn without_bound(stage: Stage, because: String) -> Self {
        Self { stage, within_ms: None, because }
    }
}

impl Bound {
    /// The sum of its parts, the first of which is the detection.
    fn of(failure: Failure, act: String, detect: Part, rest: Vec<Part>) -> Self {
        let (detect_ms, because) = (detect.within_ms.unwrap_or_default(), detect.because.clone());
        let mut bound = Self {
            failure,
            service: None,
            detect_ms,
            act,
            because,
            parts: std::iter::once(detect).chain(rest).collect(),
            within_ms: None,
            unbounded: None,
            rungs: Vec::new(),
            stretched_by: Vec::new(),
        };
        bound.add_up();
        bound
    }

    fn add_up(&mut self) {
        let parts = &self.parts;
        self.within_ms = parts.iter().try_fold(0_u64, |sum, part| Some(sum.saturating_add(part.within_ms?)));
        self.unbounded = parts.iter().find(|part| part.within_ms.is_none()).map(|part| part.because.clone());
    }

    /// Puts in a part that begins when the host is proven gone.
    fn add_after_proof(&mut self, part: Part) {
        let after =
            self.parts.iter().rposition(|part| part.stage == Stage::Prove).map_or(self.parts.len(), |at| at + 1);
        self.parts.insert(after, part);
        self.add_up();
    }

    /// Nothing bounds it, whatever its parts are.
    fn never(&mut self, why: String) {
        (self.within_ms, self.unbounded) = (None, Some(why));
        self.rungs.clear();
    }

    /// What fails, with the name of the service.
    #[must_use]
    pub fn what(&self) -> String {
        match &self.service {
            Some(service) => format!("{} ({service})", self.failure),
            None => self.failure.to_string(),
        }
    }

    /// How long it lasts at most if this rung is the one that helps.
    #[must_use]
    pub fn helped_by(&self, rung: &str) -> Option<u64> {
        self.rungs.iter().find(|helped| helped.rung == rung).map(|helped| helped.within_ms)
    }
}

#[cfg(test)]
mod tests;
