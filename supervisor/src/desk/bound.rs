//! The bound before the fact (L1): how soon each kind of failure is seen, and what is done first.

use std::time::Duration;

use holdfast_policies::{
    hostfile::Timing,
    ladder::{NextStep, Trouble, ladder_of, next_step},
    lease::NoGround,
    model::{FenceLevel, Service},
    names::{GuestName, HostName, ServiceName},
    state::ClusterState,
    time::{Span, millis},
};
use serde::{Deserialize, Serialize};

/// Longest usual election: one of 300 to 600 ms, and another one after a split vote.
const ELECTION: Duration = Duration::from_millis(1_200);

/// The voters are asked anew this often while a host is silent.
const VOTERS_ASKED_EVERY: Duration = Duration::from_millis(200);

/// How soon one kind of failure is seen, and what is done first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// What fails.
    pub failure: String,
    /// The service that fails, where it is one.
    pub service: Option<ServiceName>,
    /// Longest time from the last good sign to the verdict, in milliseconds.
    pub detect_ms: u64,
    /// What is done first: a rung, or `fence` and a rung.
    pub act: String,
    /// Why it is this long, in a sentence.
    pub because: String,
}

/// The bounds of one guest.
pub(super) fn bounds(state: &ClusterState, guest: &GuestName, timing: &Timing) -> Vec<Bound> {
    let act = |trouble| first_rung(state, guest, trouble);
    let services = state.policies.policy_of(guest).into_iter().flat_map(|(_, policy)| &policy.services);
    let mut bounds: Vec<Bound> =
        services.map(|(name, service)| app_failed(name, service, timing, act(Trouble::Service))).collect();
    bounds.push(Bound {
        failure: "guest process died".to_owned(),
        service: None,
        detect_ms: millis(timing.sync_every.0),
        act: act(Trouble::Guest),
        because: format!(
            "the end of QEMU is an event that is told at once, or with the next sync ({})",
            timing.sync_every
        ),
    });
    bounds.extend(host_failures(state, guest, timing));
    bounds
}

fn first_rung(state: &ClusterState, guest: &GuestName, trouble: Trouble) -> String {
    let rungs = ladder_of(&state.policies, guest, trouble.ladder());
    let first = match next_step(&rungs, None, Duration::ZERO, trouble) {
        NextStep::Take { rung } => rungs.get(rung),
        NextStep::Wait { .. } | NextStep::Exhausted => None,
    };
    first.map_or("nothing", |rung| rung.name()).to_owned()
}

fn app_failed(name: &ServiceName, service: &Service, timing: &Timing, act: String) -> Bound {
    let asked = service.every.0.saturating_mul(service.fails_after);
    let detect = asked + service.timeout.0 + timing.sync_every.0;
    let because = format!(
        "asked every {} and failed after {} answers in a row, the last one given up after {}, told with the next sync ({})",
        service.every, service.fails_after, service.timeout, timing.sync_every
    );
    Bound { failure: "app failed".to_owned(), service: Some(name.clone()), detect_ms: millis(detect), act, because }
}

/// What is known of the power devices of the host that a guest is on.
struct Fencing<'a> {
    /// The first level whose devices' word is proof.
    proves: Option<&'a FenceLevel>,
    /// Any level that can switch it off.
    switches: Option<&'a FenceLevel>,
}

fn fencing<'a>(state: &'a ClusterState, host: &HostName) -> Fencing<'a> {
    let mut levels = state.policies.levels_of(host).iter().enumerate().filter(|(_, level)| level.has_device());
    let switches = levels.clone().map(|(_, level)| level).next();
    let proves = levels.find(|(row, _)| state.wiring_of(host, *row).is_some()).map(|(_, level)| level);
    Fencing { proves, switches }
}

fn host_failures(state: &ClusterState, guest: &GuestName, timing: &Timing) -> Vec<Bound> {
    let known = state.guests.get(guest);
    let tenure = known.and_then(|known| known.home().or_else(|| known.tenures().first().copied()));
    let Some(host) = tenure.map(|tenure| &tenure.host) else { return Vec::new() };
    let fencing = fencing(state, host);
    let bound = |failure: &str, detect: Duration, act: &str, because: String| Bound {
        failure: failure.to_owned(),
        service: None,
        detect_ms: millis(detect),
        act: act.to_owned(),
        because,
    };
    let (wonder, suspect) = (timing.wonder_after, timing.suspect_after);
    let agreed = suspect.0 + VOTERS_ASKED_EVERY;
    let silence = format!("nothing is heard of {host} for {suspect}, and a majority of the other voters says so too");
    let human = format!("; then a human runs `holdfast host confirm-off {host}`");
    let mut bounds = Vec::new();
    if let Some(level) = fencing.proves {
        let asked = format!(
            "after {wonder} of silence its power device is asked (its answer takes its own time on top); off is proof"
        );
        bounds.push(bound("host died, power device answers", wonder.0, "failover", asked));
        let coordinator = "the same, after the other voters have elected a coordinator".to_owned();
        bounds.push(bound(
            "coordinator's host died, power device answers",
            wonder.0 + ELECTION,
            "failover",
            coordinator,
        ));
        let off = format!("{silence}; then it is switched off, within {}", level.timeout());
        bounds.push(bound("host frozen or cut off", agreed, "fence, failover", off));
        let tries = format!("{silence}; its power device is tried until it answers{human}");
        bounds.push(bound("host died, power device does not answer", agreed, "fence, page", tries));
    } else if fencing.switches.is_some() {
        let unverified =
            format!("{silence}; its power device can switch it off, but nobody has verified its wiring{human}");
        bounds.push(bound("host died", agreed, "fence, page", unverified));
    } else if state.lease_ground(host).is_err() {
        bounds.push(bound("host died", agreed, "page", format!("{silence}; it has no power device{human}")));
    }
    bounds.extend(by_lease(state, host));
    bounds
}

/// What the host's lease says when nothing else does, or is too slow (R9).
fn by_lease(state: &ClusterState, host: &HostName) -> Option<Bound> {
    let bound = |detect: Duration, act: &str, because: String| Bound {
        failure: "host died or cut off, by its lease alone".to_owned(),
        service: None,
        detect_ms: millis(detect),
        act: act.to_owned(),
        because,
    };
    match state.lease_ground(host) {
        Ok(ground) => {
            let why = format!(
                "{host} stops its guests when its lease runs out, and its watchdog {} resets it when it cannot: {} after \
                 the last lease it was granted",
                ground.watchdog, ground.longest
            );
            Some(bound(ground.longest.wait(), "failover", why))
        }
        Err(NoGround::NoLevel) => None,
        Err(why) => {
            let human = format!("a human runs `holdfast host confirm-off {host}`");
            Some(bound(Duration::ZERO, "page", format!("its lease proves nothing: {why}; {human}")))
        }
    }
}

impl Bound {
    /// What fails, with the name of the service.
    pub(super) fn what(&self) -> String {
        match &self.service {
            Some(service) => format!("{} ({service})", self.failure),
            None => self.failure.clone(),
        }
    }

    /// The longest time to the verdict.
    pub(super) fn within(&self) -> Span {
        Span::ms(self.detect_ms)
    }
}
