//! Placement: where free and moving guests go. A thin layer over [`crate::plan`]: who is to be placed in this round, and
//! the answer for each.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use super::{
    HostJudgement, HostVerdict, departures,
    departures::Kept,
    guests::{
        free::is_to_be_placed,
        order::{that_start_after, waits_out},
    },
};
use crate::{
    evidence::Evidence,
    model::Policies,
    names::{GuestName, HostName},
    plan::{self, Ask, GuestAt, Move, Place, Placement, Problem, Promised, Reasons, Room, Standing, Subject, Until},
    state::{ClusterState, Guest, Phase},
    time::{Now, millis},
};

pub use crate::plan::STARTS_PER_HOST;

mod arrived;
mod heading;

/// Guests that one round places together, by priority: some times what a round may propose, so that those who are cut
/// off wait for a round, not for a place.
const GUESTS_PER_ROUND: usize = 256;

/// How long a guest waits for a start on a less loaded host while another one could start it at once. Time for two turns of starts
/// that take as long as most; a host where they take longer is not waited for.
pub const BALANCE_PATIENCE: Duration = Duration::from_secs(5);

/// Longest pause between two rounds of starts that failed everywhere.
const START_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long a turn is, of those in which guests are looked at that are too many for one round: several rounds, so that whoever is to move
/// is sent on its way.
const TURN: Duration = Duration::from_secs(1);

/// Where guests go in this round.
pub(crate) struct Plan<'a> {
    pub problem: Problem<'a>,
    /// What is taken, this round's placements among it.
    room: Room,
    /// What is taken in it for guests that were stopped to start elsewhere.
    promised: Promised,
    placement: Placement,
    /// What rules want of running guests.
    moves: Vec<Move>,
    /// Running guests of which nobody has looked in this round whether rules want them elsewhere.
    unseen: BTreeSet<GuestAt>,
    /// Hosts whose guests take more than there is, before anything is placed in this round: of what, how much they take,
    /// and how much there is.
    pub overfull: Vec<(&'a HostName, &'a str, u64, u64)>,
}

/// Why a guest is placed nowhere in this round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unplaceable {
    /// No host can take it.
    Nowhere(Reasons),
    /// A host will take it when something has passed.
    Soon {
        /// Which.
        host: HostName,
        /// What it waits for.
        until: String,
    },
    /// Guests of higher priority are placed first.
    Turn,
}

impl fmt::Display for Unplaceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere(reasons) => reasons.fmt(f),
            Self::Soon { host, until } => write!(f, "{host} {until}"),
            Self::Turn => f.write_str("guests of higher priority are placed first"),
        }
    }
}

impl Unplaceable {
    /// Whether it passes by itself, so that no human has to make room.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Nowhere(_) => false,
            Self::Soon { .. } | Self::Turn => true,
        }
    }
}

impl<'a> Plan<'a> {
    /// Places all guests that are ready to be placed.
    pub(super) fn of(
        state: &'a ClusterState,
        evidence: &Evidence,
        now: Now,
        judged: &BTreeMap<HostName, HostJudgement>,
    ) -> Self {
        let age = |index| evidence.marks.age(index, now.moment);
        let problem = problem(state, judged).at_turn(now.moment.0 / millis(TURN));
        let arrived = arrived::of(state, &problem, age);
        let problem = problem.with_arrivals(arrived);
        let kept = departures::waiting(state, judged, age);
        let mut room = Room::of(&problem);
        let ready = ready(state, evidence, judged, &problem, &room, &kept, age);
        // One that has found no host for long does not keep others from waiting, although it may be less important.
        let freed_now = ready.iter().copied().filter(|at| may_wait(state, problem.guest_name(*at), age));
        let patient = problem.least_important(&freed_now.collect::<Vec<GuestAt>>());
        let overfull = room.overfull(&problem);
        // While deciding is suspended nobody is stopped, and what is brought back would wait for that.
        let keep_best_effort = state.suspended.is_some();
        let free = |guests, patient| Ask { guests, patient, keep_best_effort, ..Ask::default() };
        let placing = |room: &mut Room| match kept.is_empty() {
            true => plan::place(&problem, room, &free(ready.clone(), patient.clone())),
            false => with_kept(&problem, room, ready.clone(), &kept, |guests| free(guests, patient.clone())),
        };
        let heading = heading::of(state, judged, &problem, age);
        let (promised, mut placement) = Promised::place(&problem, &mut room, &heading, placing);
        // It may have taken the only place of guests whose hosts are drained or lost, too.
        if let Some((around, then)) = plan::around_leaving(&problem, &promised, &room, &placement, placing) {
            (room, placement) = (around, then);
        }
        let plan::Looked { mut moves, unseen } = plan::look_for_moves(&problem, &room);
        let splits = |found: &Move, placement: &Placement| {
            found.to.is_some_and(|to| plan::starts_elsewhere(&problem, placement, found.guest, to))
        };
        moves.retain(|found| !splits(found, &placement));
        // What is placed may have taken the only place of guests that cannot stay where they are, and have others itself.
        let stuck = plan::stuck(&problem, &moves);
        if stuck > 0 && !placement.places.is_empty() {
            let mut other = promised.room(&problem);
            let first = plan::moves_first(&problem, &mut other);
            // Mostly they have no place whatever else is placed, for as long as nothing changes: then that costs no more than this.
            if plan::stuck(&problem, &first) < stuck {
                let then = placing(&mut other);
                if then.is_as_good_as(&placement) && !first.iter().any(|found| splits(found, &then)) {
                    (room, placement, moves) = (other, then, first);
                }
            }
        }
        let may_go = |guest: &GuestName| {
            let home = state.guests.get(guest).and_then(Guest::home);
            let answers = |host: &HostName| judged.get(host).is_some_and(|on| on.verdict == HostVerdict::Healthy);
            state.hands_off(guest).is_none() && home.is_some_and(|home| answers(&home.host))
        };
        plan::make_way(&problem, &room, &mut moves, may_go);
        promised.tell(&problem, &mut placement);
        Self { problem, room, promised, placement, moves, unseen, overfull }
    }

    /// All guests of the state, those of the highest priority first, and what starts before others before these.
    pub(super) fn by_priority(&self) -> Vec<Subject<'a>> {
        self.problem.by_priority()
    }

    /// What rules want of a running guest, if it is not where they want it.
    pub(super) fn wanted_move(&self, guest: &GuestName) -> Option<&Move> {
        if self.moves.is_empty() {
            return None;
        }
        let at = self.problem.guest(guest)?;
        self.moves.iter().find(|found| found.guest == at)
    }

    /// Why rules want a running guest elsewhere, whether a host is there for it or not.
    pub(super) fn reason_to_move(&self, guest: &GuestName) -> Option<String> {
        if self.moves.is_empty() && self.placement.moves.is_empty() {
            return None;
        }
        let wanted = self.wanted_move(guest).map(|wanted| wanted.why.clone());
        wanted.or_else(|| self.follows(guest).map(|_| "its set has room for all of it only elsewhere".to_owned()))
    }

    /// Whether it is not known in this round whether rules want a running guest elsewhere.
    pub(super) fn is_unseen(&self, guest: &GuestName) -> bool {
        !self.unseen.is_empty() && self.problem.guest(guest).is_some_and(|at| self.unseen.contains(&at))
    }

    /// Where a running guest has to go, so that a member of its set that can start only there finds it there.
    pub(super) fn follows(&self, guest: &GuestName) -> Option<&'a HostName> {
        let at = self.problem.guest(guest)?;
        let found = self.placement.moves.iter().find(|(mover, _)| *mover == at)?;
        Some(self.problem.host_name(found.1))
    }

    /// The only hosts to which what rules want takes a running guest that is kept together with others: the one where its
    /// whole set goes, or none at all. `None` for a guest that goes alone.
    pub(super) fn with_set(&self, guest: &GuestName) -> Option<BTreeSet<HostName>> {
        self.problem.guest(guest).filter(|at| self.problem.has_set(*at))?;
        let to = match self.wanted_move(guest) {
            Some(wanted) => wanted.to.map(|host| self.problem.host_name(host)),
            None => self.follows(guest),
        };
        Some(to.into_iter().cloned().collect())
    }

    /// Whether a running guest stays beside one of its set whose moves fail again and again, unless it cannot stay.
    pub(super) fn is_held(&self, guest: &GuestName) -> bool {
        self.problem.guest(guest).is_some_and(|at| plan::is_held(&self.problem, at))
    }

    /// For whom a running guest of best effort has to make room, if for anybody.
    pub(super) fn gives_way_to(&self, guest: &GuestName) -> Option<String> {
        if self.placement.preempted.is_empty() {
            return None;
        }
        let at = self.problem.guest(guest)?;
        let found = self.placement.preempted.iter().find(|preemption| preemption.guest == at)?;
        let below: Vec<&str> = found.below.iter().map(|at| self.problem.guest_name(*at).as_str()).collect();
        Some(below.join(", "))
    }

    /// Where a guest that runs nowhere starts in this round.
    pub(super) fn answer(&self, guest: &GuestName) -> Result<(HostName, String), Unplaceable> {
        let at = self.problem.guest(guest);
        self.told(at.and_then(|at| self.placement.places.get(&at)).ok_or(Unplaceable::Turn)?)
    }

    fn told(&self, place: &Place) -> Result<(HostName, String), Unplaceable> {
        match place {
            Place::On { host, why } => Ok((self.problem.host_name(*host).clone(), why.to_string())),
            Place::Later { host, until } => {
                let until = self.problem.until(until);
                Err(Unplaceable::Soon { host: self.problem.host_name(*host).clone(), until })
            }
            Place::Nowhere { reasons } => Err(Unplaceable::Nowhere(reasons.clone())),
        }
    }

    /// Chooses a host for one guest that runs, beside all that this round places.
    pub(super) fn choose(
        &self,
        guest: &GuestName,
        avoid: impl Fn(&HostName) -> bool,
    ) -> Result<(HostName, String), Unplaceable> {
        self.choose_as(guest, false, avoid)
    }

    /// The same for one that is stopped for its move where that is to be `cold`, although it could go on running.
    fn choose_as(
        &self,
        guest: &GuestName,
        cold: bool,
        avoid: impl Fn(&HostName) -> bool,
    ) -> Result<(HostName, String), Unplaceable> {
        let nowhere = || Unplaceable::Nowhere(Reasons::default());
        let at = self.problem.guest(guest).ok_or_else(nowhere)?;
        let planned = self.wanted_move(guest).and_then(|wanted| Some((wanted.to?, &wanted.why)));
        if let Some((host, why)) = planned.filter(|(host, _)| !avoid(self.problem.host_name(*host))) {
            return Ok((self.problem.host_name(host).clone(), why.clone()));
        }
        // Its room there is counted already: looking for it again would find the host too full.
        if let Some(host) = self.follows(guest).filter(|host| !avoid(host)) {
            return Ok((host.clone(), "its whole set has room there".to_owned()));
        }
        let excluded: BTreeSet<_> = self.problem.hosts().filter(|host| avoid(self.problem.host_name(*host))).collect();
        let live = !cold && self.problem.moves_live(at);
        let ask = Ask { guests: vec![at], excluded, keep_best_effort: true, live, ..Ask::default() };
        let mut room = self.room.clone();
        self.promised.take_out(&self.problem, &mut room, at);
        let placement = plan::place(&self.problem, &mut room, &ask);
        match placement.places.get(&at).ok_or_else(nowhere)? {
            // The next round sees those of its set where this one starts them.
            Place::On { host, .. } | Place::Later { host, .. }
                if plan::starts_elsewhere(&self.problem, &self.placement, at, *host) =>
            {
                Err(Unplaceable::Turn)
            }
            // The others follow it: somebody has to go first.
            Place::Later { host, until: Until::SetMoved { .. } } => {
                Ok((self.problem.host_name(*host).clone(), "its whole set has room there".to_owned()))
            }
            place @ (Place::On { .. } | Place::Later { .. } | Place::Nowhere { .. }) => self.told(place),
        }
    }
}

/// The guests that this round places, by priority. `age` is the time since a log index was applied.
fn ready(
    state: &ClusterState,
    evidence: &Evidence,
    judged: &BTreeMap<HostName, HostJudgement>,
    problem: &Problem<'_>,
    room: &Room,
    kept: &BTreeMap<&GuestName, Kept<'_>>,
    age: impl Fn(u64) -> Duration + Copy,
) -> Vec<GuestAt> {
    // Who waits for a host that is away takes no turn from those who can be placed.
    let waits =
        |guest: &GuestName| kept.get(guest).is_some_and(|kept| !departures::is_fit_to_start(state, judged, kept.host));
    let second = that_start_after(&state.policies);
    let for_first = |guest: &GuestName| {
        let Some(Phase::Free { since, .. }) = state.guests.get(guest).map(|known| &known.phase) else {
            return false;
        };
        second.contains(guest) && waits_out(state, evidence, judged, guest, age(*since))
    };
    let takes_part = |guest: &GuestName| is_to_be_placed(state, guest, second.contains(guest), age);
    let is_ready = |guest: &GuestName| !waits(guest) && takes_part(guest) && !for_first(guest);
    let mut ready: Vec<GuestAt> = problem.homeless();
    ready.retain(|at| is_ready(problem.guest_name(*at)));
    if ready.len() > GUESTS_PER_ROUND {
        // Those that find no host, which people have been told, do not keep others from a place for ever.
        let told = told_to_wait(state);
        let has_room = room.has_for(problem);
        let in_vain = |at: GuestAt| told.contains(problem.guest_name(at).as_str()) && !has_room(at);
        ready.sort_by_cached_key(|at| (in_vain(*at), Reverse(problem.priority(*at)), *at));
        ready.truncate(GUESTS_PER_ROUND);
    }
    ready.sort_by_key(|at| (Reverse(problem.priority(*at)), *at));
    ready
}

/// Places guests that have waited for a host that is back on that host, and then the others. One that its host cannot take
/// any more goes elsewhere, unless it is frozen, and with its set, which shows in the next round where it is. `ask` says how others are
/// placed.
fn with_kept(
    problem: &Problem<'_>,
    room: &mut Room,
    ready: Vec<GuestAt>,
    kept: &BTreeMap<&GuestName, Kept<'_>>,
    ask: impl Fn(Vec<GuestAt>) -> Ask,
) -> Placement {
    let (mut waiting, mut free) = (BTreeMap::<&HostName, Vec<GuestAt>>::new(), Vec::new());
    for at in ready {
        match kept.get(problem.guest_name(at)) {
            Some(kept) => waiting.entry(kept.host).or_default().push(at),
            None => free.push(at),
        }
    }
    let mut placed = Placement::default();
    for (keeper, guests) in waiting {
        let excluded = problem.hosts().filter(|host| problem.host_name(*host) != keeper).collect();
        let settled = placed.settled();
        let found =
            plan::place(problem, room, &Ask { guests, excluded, settled, keep_best_effort: true, ..Ask::default() });
        let frozen = |at: &GuestAt| kept.get(problem.guest_name(*at)).is_some_and(|kept| kept.is_frozen());
        free.extend(found.nowhere().filter(|at| !frozen(at)));
        placed.add(found);
    }
    let settled = placed.settled();
    free.retain(|at| !problem.is_kept_with(*at, &settled));
    let begun = placed.begun();
    placed.add(plan::place(problem, room, &Ask { settled, begun, ..ask(free) }));
    placed
}

/// The guests of which people have been told that no host can run them.
fn told_to_wait(state: &ClusterState) -> BTreeSet<&str> {
    let open = state.incidents.values().filter(|incident| incident.is_open());
    open.filter_map(|incident| incident.key.strip_prefix("placement/")).collect()
}

/// Whether a guest may wait for a less loaded host: it has not done so for long, and has not lost time by starts that failed.
/// `age` is the time since a log index was applied.
fn may_wait(state: &ClusterState, guest: &GuestName, age: impl Fn(u64) -> Duration) -> bool {
    let Some(known) = state.guests.get(guest) else { return false };
    let Phase::Free { since, .. } = &known.phase else { return false };
    known.start_failures.is_empty() && age(*since) < BALANCE_PATIENCE
}

/// The host that an operator's move goes to when none is named: what this round would choose, other than the guest's own
/// and one that doubts itself. A guest that is stopped for its move (`cold`) has to start again there.
///
/// # Errors
/// [`Unplaceable`], with the reason for every host.
pub fn where_to(
    state: &ClusterState,
    evidence: &Evidence,
    now: Now,
    judged: &BTreeMap<HostName, HostJudgement>,
    guest: &GuestName,
    cold: bool,
) -> Result<HostName, Unplaceable> {
    let plan = Plan::of(state, evidence, now, judged);
    let found = match state.guests.get(guest).and_then(Guest::home) {
        Some(home) => {
            let unwell = |host: &HostName| judged.get(host).is_some_and(|judgement| judgement.unwell.is_some());
            plan.choose_as(guest, cold, |host| *host == home.host || unwell(host))
        }
        None => plan.answer(guest),
    };
    found.map(|(host, _)| host)
}

/// The cluster as placement sees it, by what is thought of its hosts.
#[must_use]
pub fn problem<'a>(state: &'a ClusterState, judged: &BTreeMap<HostName, HostJudgement>) -> Problem<'a> {
    problem_under(&state.policies, state, judged)
}

/// The same under other policies, such as proposed ones.
#[must_use]
pub fn problem_under<'a>(
    policies: &'a Policies,
    state: &'a ClusterState,
    judged: &BTreeMap<HostName, HostJudgement>,
) -> Problem<'a> {
    let quarantined = |host: &HostName| state.hosts.get(host).is_some_and(|known| known.quarantine.is_some());
    let stands = |host: &HostName| if quarantined(host) { Standing::Unheard } else { standing(judged.get(host)) };
    Problem::under(policies, state, stands)
}

/// What the planner has to know of a verdict.
fn standing(judgement: Option<&HostJudgement>) -> Standing {
    match judgement {
        Some(judgement) if judgement.verdict != HostVerdict::Healthy => Standing::Unheard,
        Some(judgement) if judgement.unwell.is_some() => Standing::Unwell,
        Some(_) => Standing::Well,
        None => Standing::Unheard,
    }
}

/// The pause before the next start, which grows with the starts that have failed.
#[must_use]
pub fn start_pause(guest: &Guest) -> Duration {
    start_pause_after(guest.start_failures.values().sum())
}

/// The same, by the number of starts that have failed.
pub(crate) fn start_pause_after(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        failures => Duration::from_millis(500 << failures.min(8)).min(START_PAUSE_MAX),
    }
}

#[cfg(test)]
mod tests;
