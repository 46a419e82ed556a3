//! A guest that is proven to run nowhere: where it starts next, and when.

use std::time::Duration;

use super::{
    super::{FOREVER, fences::open, placement},
    GuestJudgement, Pass,
    order::{self, Waits},
    running::COOL_DOWN,
    strays,
    wanted::hands_on,
};
use crate::{
    change::Change,
    hands_off::HandsOff,
    model::Severity,
    names::{GuestName, HostName},
    state::{ClusterState, Guest, Host, Phase, Wanted},
    time::millis,
};

/// How long a guest may find no host before a human is called.
const PLACE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a guest that was stopped to be moved waits for the host that it is going to before it starts at another.
pub(in crate::decide) const HEADING_PATIENCE: Duration = Duration::from_secs(5);

/// The fields of [`crate::state::Phase::Free`], and whose they are.
pub(super) struct Free<'a> {
    pub name: &'a GuestName,
    pub guest: &'a Guest,
    pub last: Option<&'a HostName>,
    pub since: u64,
}

/// Where a guest that is being moved starts.
enum Headed {
    There { host: HostName, why: String },
    Waits,
    Nowhere,
}

impl Pass<'_, '_> {
    pub(super) fn free(&mut self, free: &Free<'_>, judgement: &mut GuestJudgement) {
        let is_over = self.runs_although_stopped(free, judgement)
            || self.runs_unmanaged(free, judgement)
            || self.stays_down(free.name, free.guest, judgement)
            || self.strays_of_free(free, judgement);
        if is_over {
            return;
        }
        self.decay(free);
        let waited = self.round.age(free.since);
        let second = self.glance.second.contains(free.name);
        let held = held(self.round.state, (free.name, free.guest), second, waited);
        if let Some((doing, waits)) = held.or_else(|| self.waits_for_first(free.name, waited)) {
            (judgement.doing, judgement.waits) = (doing, waits);
            return;
        }
        let chosen = match self.headed(free, judgement) {
            Headed::There { host, why } => {
                self.beside = true;
                Ok((host, why))
            }
            Headed::Waits => return,
            Headed::Nowhere => self.round.plan.answer(free.name),
        };
        match chosen {
            Ok((host, why)) => self.place(free, host, why, judgement),
            Err(reasons) => self.unplaceable(free, &reasons, judgement),
        }
    }

    /// What an operator wants stopped, and has been stopped, is stopped again where somebody has started it past the cluster: it is
    /// kept stopped, and nobody is told that it is down while it runs. What a silent host may have of it, nothing waits for.
    fn runs_although_stopped(&mut self, free: &Free<'_>, judgement: &mut GuestJudgement) -> bool {
        if free.guest.wanted != Wanted::Stopped || self.round.state.hands_off(free.name).is_some() {
            return false;
        }
        let strays = self.found(free.name, free.since);
        if strays.is_empty() {
            return false;
        }
        self.tell_strays(free.name, &strays, format_args!("although an operator wants it stopped"));
        let found = format!("found on {}, although an operator wants it stopped", strays::on(&strays));
        // Nothing waits for its end, so the promise to leave a host as it is can be kept.
        let hosts = &self.round.state.hosts;
        let (left, stopped): (Vec<_>, Vec<_>) =
            strays.into_iter().partition(|stray| hosts.get(stray.host).is_some_and(Host::in_maintenance));
        self.stop_strays(free.name, &stopped, None);
        (judgement.doing, judgement.waits) = match left.first() {
            Some(stray) if stopped.is_empty() => {
                let hands_off = HandsOff::Maintenance { host: stray.host.clone() };
                (format!("{found}; {hands_off}"), Some(hands_on(&hands_off)))
            }
            Some(_) | None => (format!("{found}: it is stopped there"), self.stop_of_strays(free.name, None)),
        };
        true
    }

    /// What is to be left alone, and has been started past the cluster on one host, is left there. It is not down, so that nobody is told
    /// any more that it is.
    fn runs_unmanaged(&mut self, free: &Free<'_>, judgement: &mut GuestJudgement) -> bool {
        if free.guest.wanted != Wanted::Unmanaged {
            return false;
        }
        let strays = self.found(free.name, free.since);
        let [only] = strays.as_slice() else { return false };
        judgement.doing = format!("found on {}, where somebody has started it; {}", only.host, HandsOff::Unmanaged);
        judgement.waits = Some(hands_on(&HandsOff::Unmanaged));
        for about in ["guest", "placement", "twice"] {
            self.close(about);
        }
        true
    }

    /// Whatever a host has of a guest that is proven to run nowhere has no right to be there, and nothing starts before it
    /// is gone.
    fn strays_of_free(&mut self, free: &Free<'_>, judgement: &mut GuestJudgement) -> bool {
        let strays = self.found(free.name, free.since);
        if strays.is_empty()
            && let Some(left) = self.may_be_left(free.name, free.last, free.since)
        {
            let host = left.host;
            self.tell_left(free.name, host);
            self.stop_left(free.name, left);
            judgement.doing =
                format!("{host} had something of it when it was last heard: nothing starts before that is over");
            judgement.waits =
                Some((format!("the word of {host} that nothing of it is left, or proof that it is off"), FOREVER));
            return true;
        }
        // Other tools may have been moving it there when it was released: then it runs there by now.
        if strays.is_empty()
            && let Some(host) = self.had_just_now(free.name, free.last, free.since)
        {
            judgement.doing =
                format!("{host} had something of it a moment ago: nothing starts before it has spoken again");
            let next = millis(self.round.timing.suspect_after.0);
            judgement.waits = Some((format!("the next word of {host} on what runs there"), next));
            return true;
        }
        let mut asked = free.guest.strays.keys();
        let open = asked.find(|host| strays::release_of(self.round.state, free.name, host).is_some());
        let silent = open.filter(|host| strays.is_empty() && !self.round.answers(host));
        match silent {
            Some(host) => self.tell_left(free.name, host),
            None => self.tell_strays(free.name, &strays, format_args!("although it was proven to run nowhere")),
        }
        self.stop_strays(free.name, &strays, None);
        if !strays.is_empty() {
            judgement.doing =
                format!("found on {}, where it has no right to run: it is stopped there", strays::on(&strays));
            judgement.waits = self.stop_of_strays(free.name, None);
            return true;
        }
        if let Some(host) = open {
            judgement.doing = format!("{host} has not said yet that nothing of it is left there");
            judgement.waits = self.stop_of_strays(free.name, None);
        }
        open.is_some()
    }

    /// A failed start counts within the cool-down: one of long ago says nothing of the next.
    fn decay(&mut self, free: &Free<'_>) {
        let cool_down =
            self.round.state.policies.policy_of(free.name).map_or(COOL_DOWN, |(_, policy)| policy.cool_down.0);
        let calm = self.round.age(free.since) >= cool_down + placement::start_pause(free.guest);
        if !free.guest.start_failures.is_empty() && calm {
            self.decision.commands.push(Change::LadderReset { guest: free.name.clone() });
        }
    }

    /// A guest that is being moved starts where it is going, unless that host cannot take it any more.
    fn headed(&self, free: &Free<'_>, judgement: &mut GuestJudgement) -> Headed {
        let Some(heading) = &free.guest.heading else { return Headed::Nowhere };
        match self.round.plan.choose(free.name, |host| *host != heading.to) {
            Ok(_) if self.beside => {
                judgement.doing =
                    format!("waiting to start on {}, where it moves: another guest goes first", heading.to);
                judgement.waits = Some(("that guest to be on its way".to_owned(), 0));
                Headed::Waits
            }
            Ok((host, _)) => {
                let why = heading.by.as_ref().map_or("it moves there".to_owned(), |by| format!("{by} moves it there"));
                Headed::There { host, why }
            }
            Err(reasons) => {
                let age = self.round.age(free.since);
                if age >= HEADING_PATIENCE && !reasons.passes() {
                    return Headed::Nowhere;
                }
                judgement.doing = format!("waiting to start on {}, where it moves: {reasons}", heading.to);
                let left = HEADING_PATIENCE.saturating_sub(age);
                judgement.waits = Some(("that host, then for any other".to_owned(), millis(left)));
                Headed::Waits
            }
        }
    }

    fn place(&mut self, free: &Free<'_>, host: HostName, why: String, judgement: &mut GuestJudgement) {
        judgement.doing = format!("about to start on {host}");
        let why = if Some(&host) == free.last { format!("it ran there last, and {why}") } else { why };
        self.decision.commands.push(Change::Place { guest: free.name.clone(), host, why });
        self.close("placement");
    }

    fn unplaceable(&mut self, free: &Free<'_>, reasons: &placement::Unplaceable, judgement: &mut GuestJudgement) {
        judgement.doing = match reasons.passes() {
            true => format!("waiting to start: {reasons}"),
            false => format!("no host can run it: {reasons}"),
        };
        // Tried again for ever: what ends it is that a host changes.
        judgement.waits = Some(("a host that can run it".to_owned(), FOREVER));
        if !reasons.passes() && self.round.age(free.since) > PLACE_PATIENCE {
            let (name, key) = (free.name, format!("placement/{}", free.name));
            let summary = format!("{name} waits: no host can run it");
            let human = format!("Make room for {name} or bring a host back; Holdfast keeps trying. {reasons}");
            open(self.round, self.decision, key, Severity::Critical, summary, Some(human));
        }
    }
}

/// Whether a guest takes part in placement at this moment: what [`Pass::free`] does not place takes no room from others. It is
/// `second` if rules have it start after others; `age` is the time since a log index was applied.
pub(in crate::decide) fn is_to_be_placed(
    state: &ClusterState,
    name: &GuestName,
    second: bool,
    age: impl Fn(u64) -> Duration,
) -> bool {
    let Some(guest) = state.guests.get(name) else { return false };
    let Phase::Free { since, .. } = &guest.phase else { return false };
    let wanted = guest.wanted == Wanted::Running && guest.given_up.is_none();
    // One that is being moved asks for its host by itself, where its place is promised to it: placed here as well, it would take its own
    // room twice.
    let heads = guest.heading.is_some() && age(*since) < HEADING_PATIENCE;
    let wanted = wanted && !heads;
    wanted && state.hands_off(name).is_none() && held(state, (name, guest), second, age(*since)).is_none()
}

/// Why a guest that is to run, and has waited for so long, is not placed at this moment, whatever room there is.
fn held(state: &ClusterState, (name, guest): (&GuestName, &Guest), second: bool, waited: Duration) -> Option<Waits> {
    let first = if second { order::waits_for(state, name, waited) } else { None };
    first.or_else(|| {
        let left = placement::start_pause(guest).saturating_sub(waited);
        let failures: u32 = guest.start_failures.values().sum();
        let waits = || Some(("the next try".to_owned(), millis(left)));
        (!left.is_zero()).then(|| (format!("waiting after {failures} failed starts"), waits()))
    })
}
