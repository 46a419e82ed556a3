//! Failures of the host that a guest is on: how long until it is proven that the guest runs there no longer (R9).

use std::{collections::BTreeSet, time::Duration};

use super::{
    Bound, Case, ELECTION, Failure, Part, ROUND, Stage, Stretch, StretchedBy,
    back::{self, failed_start},
    devices::Devices,
    named,
};
use crate::{
    decide::{FENCE_COUNTS_FOR, grace, pause_after},
    lease::{Ground, NoGround},
    model::FenceLevel,
    names::{GuestName, HostName},
    power_device::SETTLE,
    rules::Rule,
    state::Mode,
    time::{Span, millis},
};

/// The voters are asked anew this often while a host is silent.
const VOTERS_ASKED_EVERY: Duration = Duration::from_millis(200);

/// How much longer than its devices may take an attempt lasts of which nobody knows what came: its newest off may be carried
/// out for so long (R20), and is looked for once more.
pub const UNCLEAR: Duration = SETTLE.saturating_add(Duration::from_millis(2_500));

/// The bounds of the failures of the host that the guest is on; none for a guest that is nowhere.
pub(super) fn failures(case: &Case<'_>) -> Vec<Bound> {
    let known = case.state.guests.get(case.guest);
    let tenure = known.and_then(|known| known.home().or_else(|| known.tenures().first().copied()));
    tenure.map_or_else(Vec::new, |tenure| failures_of(case, &tenure.host))
}

/// The bound of the loss of a host that is supposed. It may have lost its power or be cut off, and it looks the same: each failure
/// that it may be and that has a bound holds, so the shortest does.
pub(super) fn of_loss(case: &Case<'_>, host: &HostName) -> Option<Bound> {
    let answers = matches!(Devices::of_lost(case, host), Devices::Prove { .. });
    let may_be = |failure: Failure| match failure {
        Failure::HostCutOff => answers,
        Failure::DeviceSilent => !answers,
        Failure::HostUnproven | Failure::ByLease => true,
        // One whose device says off by itself is back sooner than one that has to be switched off.
        Failure::HostDied | Failure::CoordinatorDied | Failure::AppFailed | Failure::GuestDied => false,
    };
    let bounds = failures_of(case, host).into_iter().filter(|bound| may_be(bound.failure));
    bounds.min_by_key(|bound| (bound.within_ms.is_none(), bound.within_ms))
}

fn failures_of(case: &Case<'_>, host: &HostName) -> Vec<Bound> {
    let devices = match Devices::of_lost(case, host) {
        devices @ Devices::Prove { .. } => devices,
        // Those that do not answer at present are tried until they do.
        Devices::Switch { .. } | Devices::None => Devices::of(case.state, host, |_| false),
    };
    let place = Place { case, host, devices, way_back: back::parts(case, host) };
    let ground = case.state.lease_ground(host);
    let mut bounds = Vec::new();
    match (&place.devices, &ground) {
        (Devices::Prove { .. }, ground) => bounds.extend(place.with_device(ground.as_ref().ok())),
        (Devices::Switch { .. }, ground) => bounds.push(place.unverified(ground.as_ref().ok())),
        (Devices::None, Ok(_)) => {}
        (Devices::None, Err(_)) => bounds.push(place.without_device()),
    }
    bounds.extend(place.by_lease(&ground));
    for bound in &mut bounds {
        let stretches = place.stretches(bound);
        bound.stretched_by.extend(stretches);
    }
    bounds
}

/// The host that fails.
struct Place<'a> {
    case: &'a Case<'a>,
    host: &'a HostName,
    devices: Devices<'a>,
    /// From the proof on it is the same, however the host has failed.
    way_back: Vec<Part>,
}

impl Place<'_> {
    /// A host of which some device is believed.
    fn with_device(&self, ground: Option<&Ground>) -> Vec<Bound> {
        let Devices::Prove { level, .. } = &self.devices else { return Vec::new() };
        let wonder = self.case.timing.wonder_after;
        let said = || {
            let because = format!("its power device has {} to say that it is off, which is proof", level.timeout());
            Part::of(Stage::Prove, self.said(level), because)
        };
        let asked = format!("after {wonder} of silence its power device is asked; off is proof");
        let died = Part::of(Stage::Detect, wonder.0, asked);
        let coordinator = "the same, after the other voters have elected a coordinator".to_owned();
        let elected = Part::of(Stage::Detect, wonder.0 + ELECTION, coordinator);
        let off = format!("{}; then it is switched off", self.silence());
        let tries = format!("{}; its power device is tried until it answers{}", self.silence(), self.or_else(ground));
        vec![
            self.bound(Failure::HostDied, "failover", died, said()),
            self.bound(Failure::CoordinatorDied, "failover", elected, said()),
            self.bound(Failure::HostCutOff, "fence, failover", self.unrestrained(self.agreed(off)), self.fenced()),
            self.bound(Failure::DeviceSilent, acts(ground), self.agreed(tries), self.without_its_word(ground)),
        ]
    }

    fn unverified(&self, ground: Option<&Ground>) -> Bound {
        let because = format!(
            "{}; its power device can switch it off, but nobody has verified its wiring{}",
            self.silence(),
            self.or_else(ground)
        );
        self.bound(Failure::HostUnproven, acts(ground), self.agreed(because), self.without_its_word(ground))
    }

    fn without_device(&self) -> Bound {
        let because = format!("{}; it has no power device{}", self.silence(), self.human());
        self.bound(Failure::HostUnproven, "page", self.agreed(because), self.without_its_word(None))
    }

    /// What the host's lease says when nothing else does, or is too slow (R9).
    fn by_lease(&self, ground: &Result<Ground, NoGround>) -> Option<Bound> {
        let suspect = self.case.timing.suspect_after;
        let detect = |because: String| Part::of(Stage::Detect, suspect.0, because);
        match ground {
            Ok(ground) => {
                let seen =
                    detect(format!("nothing is heard of {} for {suspect}: it gets no lease any more", self.host));
                Some(self.bound(Failure::ByLease, "failover", seen, self.lease_runs_out(ground)))
            }
            Err(NoGround::NoLevel) => None,
            Err(why) => {
                let because = format!("its lease proves nothing: {why}{}", self.human());
                let proven = Part::without_bound(Stage::Prove, because.clone());
                Some(self.bound(Failure::ByLease, "page", detect(because), proven))
            }
        }
    }

    fn bound(&self, failure: Failure, act: &str, detect: Part, proven: Part) -> Bound {
        let (detect, proven) = (self.after_election(detect), self.after_others(failure, proven));
        let rest = std::iter::once(proven).chain(self.way_back.iter().cloned()).collect();
        Bound::of(failure, act.to_owned(), detect, rest)
    }

    // ---- parts ----

    fn agreed(&self, because: String) -> Part {
        Part::of(Stage::Detect, self.case.timing.suspect_after.0 + VOTERS_ASKED_EVERY, because)
    }

    /// A host that has announced to go is not switched off for its silence while it may be on its way.
    fn unrestrained(&self, mut detect: Part) -> Part {
        let grace = match self.case.state.hosts.get(self.host).map(|host| host.mode) {
            Some(Mode::Leaving { reboot }) => grace(reboot),
            Some(Mode::Active | Mode::Draining | Mode::Maintenance) | None => return detect,
        };
        let time = Span::secs(grace.as_secs());
        detect.within_ms = detect.within_ms.map(|within| within.max(millis(grace)));
        detect.because = format!("{}, after {time} of silence, because it has announced to go", detect.because);
        detect
    }

    /// Where the coordinator is known to be lost, others elect another one first.
    fn after_election(&self, mut detect: Part) -> Part {
        if self.coordinator_is_lost() == Some(true) {
            detect.within_ms = detect.within_ms.map(|within| within.saturating_add(millis(ELECTION)));
            detect.because = format!("{}; before that the other voters elect another coordinator", detect.because);
        }
        detect
    }

    /// Where other hosts are known to be lost with it, they may be proven gone first, one after another.
    fn after_others(&self, failure: Failure, mut proven: Part) -> Part {
        if let Some(held) = self.held().filter(|_| failure == Failure::HostCutOff) {
            return Part::without_bound(Stage::Prove, held.to_owned());
        }
        let others = self.case.lost_with(self.host);
        let first = self.others_first(failure, &others);
        if let Some(own) = proven.within_ms.filter(|_| !first.is_zero()) {
            proven.within_ms = Some(own.saturating_add(millis(first)));
            proven.because = format!("{}; it may be the last, after {}", proven.because, named(&others));
        }
        proven
    }

    /// How much later the host is proven gone if all of these are first. A lease waits for nobody.
    fn others_first(&self, failure: Failure, others: &[&HostName]) -> Duration {
        let one = |host: &HostName| {
            let devices = Devices::of_lost(self.case, host);
            match failure {
                Failure::HostDied | Failure::CoordinatorDied => match &devices {
                    Devices::Prove { level, .. } => self.said(level),
                    Devices::Switch { .. } | Devices::None => Duration::ZERO,
                },
                Failure::HostCutOff => devices.turns().map_or(Duration::ZERO, |turns| self.switched_off(turns)),
                Failure::AppFailed
                | Failure::GuestDied
                | Failure::DeviceSilent
                | Failure::HostUnproven
                | Failure::ByLease => Duration::ZERO,
            }
        };
        others.iter().map(|host| one(host)).fold(Duration::ZERO, Duration::saturating_add)
    }

    /// One level's devices say that the host is off.
    fn said(&self, level: &FenceLevel) -> Duration {
        ROUND + self.call(level)
    }

    /// A host is switched off, by one level after the other.
    fn switched_off(&self, turns: &[&FenceLevel]) -> Duration {
        let mut within = ROUND;
        for (level, attempts) in turns.iter().zip(0_u32..) {
            let unclear = if attempts == 0 { Duration::ZERO } else { UNCLEAR };
            within = within.saturating_add(unclear + pause_after(attempts) + self.case.turn() + self.call(level));
        }
        within + ROUND
    }

    /// It is switched off, by one level after the other up to the one whose word is proof.
    fn fenced(&self) -> Part {
        let turns = self.devices.turns().unwrap_or_default();
        let times: Vec<String> = turns.iter().map(|level| level.timeout().to_string()).collect();
        let unclear = Span::ms(millis(UNCLEAR));
        let after = match turns.len() {
            0 | 1 => String::new(),
            _ => format!(
                ", one level after the other with pauses between, after up to {unclear} more where an off is unclear"
            ),
        };
        let because = format!("its power device has {} to switch it off and to confirm it{after}", times.join(" and "));
        Part::of(Stage::Prove, self.switched_off(turns), because)
    }

    /// Where no device says anything that counts: its lease, or a person.
    fn without_its_word(&self, ground: Option<&Ground>) -> Part {
        match ground {
            Some(ground) => self.lease_runs_out(ground),
            None => {
                let host = self.host;
                let because = format!(
                    "a person makes sure that {host} is off, and runs `holdfast host confirm-off {host} \
                     --operator YOUR-NAME`"
                );
                Part::without_bound(Stage::Prove, because)
            }
        }
    }

    /// The wait counts from the last lease, so what passes until its silence is noticed is part of it. A boot of the host that
    /// joins before it is over answers for the one before, and is asked to stop what there is (R10).
    fn lease_runs_out(&self, ground: &Ground) -> Part {
        let left = ground.longest.wait().saturating_sub(self.case.timing.suspect_after.0);
        let within = left + ROUND + self.case.turn() + self.case.limits.stop;
        let because = format!(
            "{} stops its guests when its lease runs out, and its watchdog {} resets it when it cannot: {} after the last \
             lease it was granted; a new boot of it that joins before is asked instead",
            self.host, ground.watchdog, ground.longest
        );
        Part::of(Stage::Prove, within, because)
    }

    /// One call of the devices of a level.
    fn call(&self, level: &FenceLevel) -> Duration {
        self.case.limits.device.unwrap_or(level.timeout().0)
    }

    // ---- words ----

    fn silence(&self) -> String {
        let suspect = self.case.timing.suspect_after;
        format!("nothing is heard of {} for {suspect}, and a majority of the other voters says so too", self.host)
    }

    fn human(&self) -> String {
        format!("; then a human runs `holdfast host confirm-off {} --operator YOUR-NAME`", self.host)
    }

    /// What ends the wait where no power device does.
    fn or_else(&self, ground: Option<&Ground>) -> String {
        match ground {
            Some(_) => "; its lease proves it gone meanwhile".to_owned(),
            None => self.human(),
        }
    }

    // ---- what is known of the loss that is supposed ----

    fn coordinator_is_lost(&self) -> Option<bool> {
        self.case.loss?.loss.coordinator
    }

    fn held(&self) -> Option<&str> {
        self.case.loss?.loss.held.as_deref()
    }

    // ---- what stretches it ----

    fn stretches(&self, bound: &Bound) -> Vec<Stretch> {
        let mut stretches = vec![failed_start(self.case)];
        let asked_early = matches!(bound.failure, Failure::HostDied | Failure::CoordinatorDied);
        if !asked_early && self.coordinator_is_lost().is_none() {
            let why = "it coordinates when it fails: the other voters elect another coordinator first".to_owned();
            stretches.push(Stretch { by: StretchedBy::Coordinator, by_ms: Some(millis(ELECTION)), why });
        }
        stretches.extend(self.domain(bound));
        stretches.extend(order(self.case));
        if bound.failure == Failure::HostCutOff && self.held().is_none() {
            let why =
                "more than a third of the hosts, or of the failure domains, fall silent together: fencing is held \
                       until they are heard again or a person releases it"
                    .to_owned();
            stretches.push(Stretch { by: StretchedBy::Storm, by_ms: None, why });
            stretches.extend(self.budget());
        }
        stretches
    }

    /// As many hosts were switched off within the hour as it has room for.
    fn budget(&self) -> Option<Stretch> {
        let cluster = &self.case.state.policies.cluster;
        let own = cluster.fences_per_hour.map(|limit| format!("`fences_per_hour: {limit}`"));
        let in_all = cluster.fences_per_hour_in_all.map(|limit| format!("`fences_per_hour_in_all: {limit}`"));
        // Of what all hosts share, others may take the room first.
        let by_ms = in_all.is_none().then(|| millis(FENCE_COUNTS_FOR));
        let names: Vec<String> = own.into_iter().chain(in_all).collect();
        let why = format!(
            "{} is used up: it is switched off when the hour has room again, or when a person allows it",
            names.join(" or ")
        );
        (!names.is_empty()).then_some(Stretch { by: StretchedBy::Budget, by_ms, why })
    }

    /// All of its failure domain: the others are proven gone one after another at worst, and their guests start too.
    fn domain(&self, bound: &Bound) -> Option<Stretch> {
        let policies = &self.case.state.policies;
        let label = policies.cluster.failure_domain.as_ref()?;
        let value = |host: &HostName| policies.hosts.get(host)?.labels.get(label);
        let own = value(self.host)?;
        // Those that are lost for certain are part of the bound.
        let fails_too = |host: &HostName| host != self.host && !self.case.is_lost(host) && value(host) == Some(own);
        let others: Vec<&HostName> = self.case.state.hosts.keys().filter(|host| fails_too(host)).collect();
        let count = Some(others.len()).filter(|count| *count > 0)?;
        let ahead = back::before_it_elsewhere(self.case, &others);
        let proven = bound.parts.iter().find(|part| part.stage == Stage::Prove)?.within_ms;
        // As many more starts as make whole rows, whatever is left over of its own host's.
        let starts = back::held_up(self.case, ahead + 1);
        let longer = millis(self.others_first(bound.failure, &others).saturating_add(starts));
        let by_ms = proven.map(|_| longer);
        let why = format!(
            "all of {label}={own} fails: {count} more hosts, fenced one after another, and {ahead} more starts"
        );
        (by_ms != Some(0)).then_some(Stretch { by: StretchedBy::Domain, by_ms, why })
    }
}

/// The guests that have to be ready before it starts.
pub(super) fn order(case: &Case<'_>) -> Option<Stretch> {
    // A guest that is known to be lost with it is waited for in any case, which is part of the bound.
    let waits_already = |first: &GuestName| case.loss.is_some_and(|known| known.loss.starts.contains(first));
    let firsts = case.state.policies.rules.values().filter_map(|rule| match rule {
        Rule::Order { first, then, .. } if then == case.guest && !waits_already(first) => Some(first.as_str()),
        Rule::Order { .. } | Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } => None,
    });
    let firsts: BTreeSet<&str> = firsts.collect();
    let names: Vec<&str> = firsts.into_iter().collect();
    let why =
        format!("it starts after {}, should that be down too, or on its way to another host", names.join(" and "));
    (!names.is_empty()).then_some(Stretch { by: StretchedBy::Order, by_ms: None, why })
}

/// What is done where no power device's word counts.
fn acts(ground: Option<&Ground>) -> &'static str {
    match ground {
        Some(_) => "fence, failover",
        None => "fence, page",
    }
}
