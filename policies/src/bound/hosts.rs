//! Failures of the host that a guest is on: how long until it is proven that the guest runs there no longer (R9).

use std::{collections::BTreeSet, time::Duration};

use super::{
    Bound, Case, ELECTION, Failure, Part, ROUND, Stage, Stretch, StretchedBy,
    back::{self, failed_start},
};
use crate::{
    decide::{FENCE_COUNTS_FOR, pause_after},
    lease::{Ground, NoGround},
    model::FenceLevel,
    names::HostName,
    power_device::SETTLE,
    rules::Rule,
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
    let Some(tenure) = tenure else { return Vec::new() };
    let place = Place { case, host: &tenure.host, devices: Devices::of(case, &tenure.host) };
    let ground = case.state.lease_ground(&tenure.host);
    let mut bounds = Vec::new();
    match (&place.devices, &ground) {
        (Devices::Prove { .. }, ground) => bounds.extend(place.with_device(ground.as_ref().ok())),
        (Devices::Switch, ground) => bounds.push(place.unverified(ground.as_ref().ok())),
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

/// What the power devices of a host are good for. Those that are not trusted are good for nothing.
enum Devices<'a> {
    /// The word of one level is proof; in a fence those before it have their turn first.
    Prove { level: &'a FenceLevel, turns: Vec<&'a FenceLevel> },
    /// They can switch it off, and nobody has verified their wiring.
    Switch,
    /// There are none.
    None,
}

impl<'a> Devices<'a> {
    fn of(case: &Case<'a>, host: &HostName) -> Self {
        let state = case.state;
        let distrusted = state.hosts.get(host).map(|known| &known.distrusted);
        let trusted = |row: &usize| distrusted.is_none_or(|distrusted| !distrusted.contains(row));
        let mut turns = Vec::new();
        for (row, level) in state.policies.levels_of(host).iter().enumerate() {
            if !level.has_device() || !trusted(&row) {
                continue;
            }
            turns.push(level);
            if state.wiring_of(host, row).is_some() {
                return Self::Prove { level, turns };
            }
        }
        if turns.is_empty() { Self::None } else { Self::Switch }
    }
}

/// The host that fails.
struct Place<'a> {
    case: &'a Case<'a>,
    host: &'a HostName,
    devices: Devices<'a>,
}

impl Place<'_> {
    /// A host of which some device is believed.
    fn with_device(&self, ground: Option<&Ground>) -> Vec<Bound> {
        let Devices::Prove { level, .. } = &self.devices else { return Vec::new() };
        let wonder = self.case.timing.wonder_after;
        let said = || {
            let because = format!("its power device has {} to say that it is off, which is proof", level.timeout());
            Part::of(Stage::Prove, ROUND + self.call(level), because)
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
            self.bound(Failure::HostCutOff, "fence, failover", self.agreed(off), self.fenced()),
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
        let rest = std::iter::once(proven).chain(back::parts(self.case, self.host)).collect();
        Bound::of(failure, act.to_owned(), detect, rest)
    }

    // ---- parts ----

    fn agreed(&self, because: String) -> Part {
        Part::of(Stage::Detect, self.case.timing.suspect_after.0 + VOTERS_ASKED_EVERY, because)
    }

    /// It is switched off, by one level after the other up to the one whose word is proof.
    fn fenced(&self) -> Part {
        let turns: &[&FenceLevel] = match &self.devices {
            Devices::Prove { turns, .. } => turns,
            Devices::Switch | Devices::None => &[],
        };
        let mut within = ROUND;
        for (level, attempts) in turns.iter().zip(0_u32..) {
            let unclear = if attempts == 0 { Duration::ZERO } else { UNCLEAR };
            within = within.saturating_add(unclear + pause_after(attempts) + self.case.turn() + self.call(level));
        }
        let times: Vec<String> = turns.iter().map(|level| level.timeout().to_string()).collect();
        let unclear = Span::ms(millis(UNCLEAR));
        let after = match turns.len() {
            0 | 1 => String::new(),
            _ => format!(
                ", one level after the other with pauses between, after up to {unclear} more where an off is unclear"
            ),
        };
        let because = format!("its power device has {} to switch it off and to confirm it{after}", times.join(" and "));
        Part::of(Stage::Prove, within + ROUND, because)
    }

    /// Where no device says anything that counts: its lease, or a person.
    fn without_its_word(&self, ground: Option<&Ground>) -> Part {
        match ground {
            Some(ground) => self.lease_runs_out(ground),
            None => {
                let host = self.host;
                let because =
                    format!("a person makes sure that {host} is off, and runs `holdfast host confirm-off {host}`");
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
        format!("; then a human runs `holdfast host confirm-off {}`", self.host)
    }

    /// What ends the wait where no power device does.
    fn or_else(&self, ground: Option<&Ground>) -> String {
        match ground {
            Some(_) => "; its lease proves it gone meanwhile".to_owned(),
            None => self.human(),
        }
    }

    // ---- what stretches it ----

    fn stretches(&self, bound: &Bound) -> Vec<Stretch> {
        let mut stretches = vec![failed_start(self.case)];
        if bound.failure != Failure::HostDied && bound.failure != Failure::CoordinatorDied {
            let why = "it coordinates when it fails: the other voters elect another coordinator first".to_owned();
            stretches.push(Stretch { by: StretchedBy::Coordinator, by_ms: Some(millis(ELECTION)), why });
        }
        stretches.extend(self.domain(bound));
        stretches.extend(self.order());
        if bound.failure == Failure::HostCutOff {
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
        let others = self.case.state.hosts.keys().filter(|host| *host != self.host && value(host) == Some(own));
        let others: Vec<&HostName> = others.collect();
        let count = u32::try_from(others.len()).ok().filter(|count| *count > 0)?;
        let ahead: usize = others.iter().map(|host| back::before_it(self.case, host).count()).sum();
        let proofs = bound.parts.iter().find(|part| part.stage == Stage::Prove)?.within_ms;
        // As many more starts as make whole rows, whatever is left over of its own host's.
        let starts = back::held_up(self.case, ahead + 1);
        let by_ms =
            proofs.map(|proof| millis(Duration::from_millis(proof).saturating_mul(count).saturating_add(starts)));
        let why = format!(
            "all of {label}={own} fails: {count} more hosts, fenced one after another, and {ahead} more starts"
        );
        Some(Stretch { by: StretchedBy::Domain, by_ms, why })
    }

    fn order(&self) -> Option<Stretch> {
        let firsts = self.case.state.policies.rules.values().filter_map(|rule| match rule {
            Rule::Order { first, then, .. } if then == self.case.guest => Some(first.as_str()),
            Rule::Order { .. } | Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } => None,
        });
        let firsts: BTreeSet<&str> = firsts.collect();
        let names: Vec<&str> = firsts.into_iter().collect();
        let why = format!("it starts after {}, should that be down too", names.join(" and "));
        (!names.is_empty()).then_some(Stretch { by: StretchedBy::Order, by_ms: None, why })
    }
}

/// What is done where no power device's word counts.
fn acts(ground: Option<&Ground>) -> &'static str {
    match ground {
        Some(_) => "fence, failover",
        None => "fence, page",
    }
}
