//! Storm hold of services (S8, S9): guests on different hosts that cease to answer together have one cause until somebody knows
//! better.
//!
//! ```text
//! Calm --others are late too--> Forming --they fail too--> Held --some answer again--> Fading --a moment--> Calm
//!                                  +--they answer--> Calm    +--all were held for HELD_MAX--> LetGo --> Calm
//! ```
//! Hosts cannot tell a guest that is silent from a network that is, or from a database that all services ask. No reboot helps against
//! those. So where more than a third of the guests that answered, three at least, of more than one failure domain cease to answer
//! within half a minute, rungs that kill or move a guest are held. A guest is no part of it, and is not held, where more than the
//! network speaks against it: its end, its panic, a reset, its watchdog, an agent that has left, a probe from inside. Guests on a host
//! that is just being missed make no storm, for that may be a matter of the host: they are held until that shows, and no longer.
//!
//! All of it is made anew in every round from what is seen, so that it outlives every coordinator; a guest is held for [`HELD_MAX`] from
//! when the first of its failed services last answered, and nobody by a storm that began longer than [`COURSE_MAX`] ago. It is looked at
//! only in rounds in which a guest is ill, or while people have been told of a storm.

mod seen;

use std::{collections::BTreeMap, time::Duration};

use self::seen::{How, Seen, ceased_by_network, look_at};
use super::{Round, storm::Domain};
use crate::{
    change::Change,
    evidence::SightState,
    model::{Rung, Severity},
    names::GuestName,
    state::ClusterState,
    time::{Moment, Span},
};

/// Guests that cease to answer within so long of each other have one cause until somebody knows better, as hosts do (S9).
const WINDOW: Duration = Duration::from_secs(30);

/// Fewest guests that are a storm: two that fail together may be two failures.
pub(crate) const GUESTS_MIN: usize = 3;

/// Fewest failure domains that are a storm: what one has, a move to another one may mend.
const DOMAINS_MIN: usize = 2;

/// Longest time for which a guest is held, from when the first of its failed services last answered: a switch has started anew by then, a database has failed over,
/// and a person has been called. Raising it has guests that a reboot would help wait for longer.
pub(crate) const HELD_MAX: Duration = Duration::from_secs(300);

/// For how long a storm holds guests, from its beginning: who ceases to answer later has a cause of their own, though the first ones may
/// not answer for days.
const COURSE_MAX: Duration = Duration::from_secs(600);

/// The key of its incident.
const KEY: &str = "service_storm";

/// Guests that are named with the incident.
const NAMED_MAX: usize = 5;

/// What is said while guests are held. It has no number and no name in it: each change of it would be told anew.
const HELD: &str = "guests on different hosts have ceased to answer over the network at once, which looks like one cause outside of \
                    them: none of them is rebooted, reset or moved";

/// What is said when they have been held for long enough.
const LET_GO: &str = "guests on different hosts that have ceased to answer over the network at once do not answer yet: they have been \
                      held for long enough, and their ladders are climbed on";

/// What is said while the hold outlasts the storm.
const FADING: &str = "guests are held a moment longer: some answer again after a storm, and not all of them yet";

/// Why a guest is held.
const TOGETHER: &str = "guests on different hosts have ceased to answer over the network at once";

/// Why a guest is held while it is not known yet whether there is a storm. Nobody is called for it: it is over in a moment.
const PERHAPS: &str = "it shows in a moment whether others have ceased to answer too";

/// Whether a rung is held in a storm. The restart of a service is the smallest kill, and where it helps there is no common cause; a page
/// would call the same human once for each guest.
pub(crate) fn is_held(rung: &Rung) -> bool {
    match rung {
        Rung::RebootGuest { .. }
        | Rung::ResetGuest { .. }
        | Rung::Failover { .. }
        | Rung::Migrate { .. }
        | Rung::Page { .. } => true,
        Rung::RestartService { .. } | Rung::ResumeGuest { .. } => false,
    }
}

/// What the services of all guests amount to together, in one round.
pub(super) struct ServiceStorm<'b> {
    /// Guests that answered, and do not; only the network tells so. Those on hosts that are just being missed are among them.
    fallen: BTreeMap<&'b GuestName, Seen<'b>>,
    /// All guests that hosts have had answers of over the network.
    watched: usize,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is none.
    Calm,
    /// It may be one, of guests that have not answered since `from`; that shows within `left`.
    Forming { from: Moment, left: Duration },
    /// It is one, of guests that have not answered since `from`.
    Held { from: Moment },
    /// It is one, and all of them have been held for [`HELD_MAX`]. Others may be the beginning of the `next` one, as in `Forming`.
    LetGo { next: Option<(Moment, Duration)> },
    /// It was one; those that have not answered yet are held for so much longer.
    Fading { left: Duration },
}

impl<'b> ServiceStorm<'b> {
    pub(super) fn of(round: &Round<'b>) -> Self {
        let state: &'b ClusterState = round.state;
        let mut storm = Self { fallen: BTreeMap::new(), watched: 0, standing: Standing::Calm };
        // Fewer are never one, and are not looked at.
        if state.guests.len() < GUESTS_MIN {
            return storm;
        }
        let mut late = Vec::new();
        for seen in state.guests.iter().filter_map(|(name, guest)| look_at(round, name, guest)) {
            storm.watched += 1;
            match seen.how {
                How::Fallen | How::Unheard => {
                    storm.fallen.insert(seen.guest, seen);
                }
                How::Late => late.push(seen),
                How::Otherwise => {}
            }
        }
        storm.standing = storm.stands(round, &late);
        storm
    }

    fn stands(&self, round: &Round<'b>, late: &[Seen<'b>]) -> Standing {
        let fallen = || self.fallen.values();
        if self.fallen.is_empty() {
            return Standing::Calm;
        }
        // Once people have been told, a sync that is late neither ends a storm nor begins it anew.
        let was_told = is_told(round);
        let counted = || fallen().filter(move |seen| was_told || seen.how != How::Unheard);
        let recent = round.now.moment.minus(COURSE_MAX);
        if let Some(from) = begins(counted(), self.watched, recent) {
            let waits = |seen: &Seen<'b>| seen.answered >= from && !held_left(round, seen.first).is_zero();
            return if fallen().any(waits) { Standing::Held { from } } else { Standing::LetGo { next: None } };
        }
        let left = listens_for(round);
        if begins(counted(), self.watched, Moment(0)).is_some() {
            let next = if left.is_zero() { self.forms(late, recent) } else { Some((Moment(0), left)) };
            return Standing::LetGo { next };
        }
        if !left.is_zero() {
            return Standing::Forming { from: Moment(0), left };
        }
        if let Some(left) = self.fades(round) {
            return Standing::Fading { left };
        }
        self.forms(late, recent).map_or(Standing::Calm, |(from, left)| Standing::Forming { from, left })
    }

    /// Since when guests have not answered that may be a storm together with those of which that shows within so long.
    fn forms(&self, late: &[Seen<'b>], oldest: Moment) -> Option<(Moment, Duration)> {
        let fallen = || self.fallen.values();
        let open = fallen().filter(|seen| seen.how == How::Unheard).chain(late);
        let left = open.map(|seen| seen.settles).max()?;
        Some((begins(fallen().chain(late), self.watched, oldest)?, left))
    }

    /// For how much longer the hold outlasts the storm: guests that are reached again pass one after another, and the first ones end
    /// the storm.
    fn fades(&self, round: &Round<'b>) -> Option<Duration> {
        let known = round.told.by_key(KEY)?;
        let settles = self.fallen.values().map(|seen| seen.settles).max()?;
        let left = match known.summary.as_str() {
            // What has not been committed yet has not begun to count.
            HELD => settles,
            FADING => settles.saturating_sub(round.age(known.changed)),
            _ => Duration::ZERO,
        };
        (!left.is_zero()).then_some(left)
    }

    /// Why rungs that kill or move the guest are held, and for how much longer at most.
    pub(super) fn holds(&self, round: &Round<'_>, guest: &GuestName) -> Option<(&'static str, Duration)> {
        let seen = self.fallen.get(guest)?;
        self.standing.holds(seen.answered, held_left(round, seen.first))
    }

    /// How many there are, and of some who sees what.
    fn words(&self, round: &Round<'_>) -> Vec<String> {
        let named = self.fallen.iter().take(NAMED_MAX).filter_map(|(guest, seen)| {
            let (_, policy) = round.state.policies.policy_of(guest)?;
            let service = policy.services.get(seen.service)?;
            let watched = round.watched(guest, seen.tenure.epoch);
            let who = watched.who_sees(seen.service, service, SightState::Failing);
            Some(format!("{} of {guest} on {} does not answer {who}", seen.service, seen.tenure.host))
        });
        let (fallen, watched) = (self.fallen.len(), self.watched);
        let all = format!("{fallen} of {watched} guests that hosts ask over the network have ceased to answer");
        std::iter::once(all).chain(named).collect()
    }
}

impl Standing {
    /// Why a guest is held that last answered then, and for how much longer at most: its `own` time is the longest.
    fn holds(self, answered: Moment, own: Duration) -> Option<(&'static str, Duration)> {
        let (from, why, left) = match self {
            Self::Calm | Self::LetGo { next: None } => return None,
            Self::Forming { from, left } | Self::LetGo { next: Some((from, left)) } => (from, PERHAPS, left),
            Self::Held { from } => (from, TOGETHER, own),
            Self::Fading { left } => (Moment(0), FADING, left),
        };
        (answered >= from && !own.is_zero()).then_some((why, left.min(own)))
    }
}

/// Whether a guest whose host does not answer is held like others: people have been told that they are, or it would be by what is seen
/// now. Fences are decided about before guests, and the first round of a storm is no time to begin one.
pub(super) fn is_held_unheard(round: &Round<'_>, guest: &GuestName) -> bool {
    let held = || {
        let (answered, first) = ceased_by_network(round, guest)?;
        let standing = round.services.get_or_init(|| ServiceStorm::of(round).standing);
        standing.holds(answered, held_left(round, first))
    };
    is_held_as_told(round) || held().is_some()
}

/// Whether people have been told of a storm that is not over.
pub(super) fn is_told(round: &Round<'_>) -> bool {
    round.told.by_key(KEY).is_some()
}

/// Whether people have been told that guests are held, and that is not over.
fn is_held_as_told(round: &Round<'_>) -> bool {
    round.told.by_key(KEY).is_some_and(|open| open.summary == HELD || open.summary == FADING)
}

/// What people are to be told, unless they have been. They are called when a rung is held for the first time: what the restart of its
/// service has helped needs nobody.
pub(super) fn news(round: &Round<'_>, storm: Option<&ServiceStorm<'_>>, is_holding: bool) -> Option<Change> {
    let known = round.told.by_key(KEY);
    let was_told = known.is_some();
    let (storm, summary) = match storm.map(|storm| (storm, storm.standing)) {
        Some((storm, Standing::Held { .. })) if was_told || is_holding => (storm, HELD),
        Some((storm, Standing::LetGo { .. })) if was_told => (storm, LET_GO),
        Some((storm, Standing::Fading { .. })) => (storm, FADING),
        Some((_, Standing::Calm | Standing::Forming { .. } | Standing::Held { .. } | Standing::LetGo { .. }))
        | None => {
            let over = known.filter(|_| may_end(round));
            return over.map(|open| Change::IncidentResolved { key: open.key.clone() });
        }
    };
    let human = (summary == HELD).then(human);
    if known.is_some_and(|open| open.summary == summary && open.human == human) {
        return None;
    }
    let (key, summary, evidence) = (KEY.to_owned(), summary.to_owned(), storm.words(round));
    Some(Change::IncidentOpened { key, severity: Severity::Critical, summary, human, guests: Vec::new(), evidence })
}

/// Whether that there is no storm to be seen means that it is over. A new coordinator has not heard of it yet, and while deciding is
/// suspended, as people are told to do for a longer hold, nobody looks.
fn may_end(round: &Round<'_>) -> bool {
    listens_for(round).is_zero() && round.state.suspended.is_none()
}

/// For how much longer a new coordinator listens: what it has heard first is not all that there is to hear.
fn listens_for(round: &Round<'_>) -> Duration {
    let listened = round.evidence.quorum_since.map(|since| round.now.moment.since(since));
    round.timing.suspect_after.0.saturating_sub(listened.unwrap_or_default())
}

fn human() -> String {
    let held = Span(HELD_MAX);
    format!(
        "One lost switch, name server or database looks like many failed guests: find it. Services are restarted meanwhile, and \
         nothing more is done to these guests for {held} from when each of them last answered. If you need longer, run `holdfast \
         suspend --operator YOUR-NAME`; if a guest has really failed, `holdfast guest stop GUEST` and `holdfast guest start GUEST` \
         start it anew."
    )
}

/// Since when guests have not answered that are a storm: [`GUESTS_MIN`] at least, of [`DOMAINS_MIN`] failure domains at least, have
/// ceased to within [`WINDOW`], and are more than a third of all but those that ceased to at other times: these have their own cause.
/// Of several the first that is not older than `oldest`.
fn begins<'s, 'b: 's>(seen: impl Iterator<Item = &'s Seen<'b>>, watched: usize, oldest: Moment) -> Option<Moment> {
    let mut all: Vec<(Moment, Domain<'b>)> = seen.map(|seen| (seen.answered, seen.domain)).collect();
    all.sort_unstable();
    let mut domains: BTreeMap<Domain<'b>, usize> = BTreeMap::new();
    let mut end = 0;
    for (start, (first, own)) in all.iter().enumerate() {
        while let Some((_, domain)) = all.get(end).filter(|(answered, _)| answered.since(*first) <= WINDOW) {
            *domains.entry(*domain).or_default() += 1;
            end += 1;
        }
        let together = end - start;
        let answered = watched.saturating_sub(all.len() - together);
        let is_storm = together >= GUESTS_MIN && domains.len() >= DOMAINS_MIN && together * 3 > answered;
        if is_storm && *first >= oldest {
            return Some(*first);
        }
        match domains.get(own).copied() {
            Some(count) if count > 1 => domains.insert(*own, count - 1),
            Some(_) | None => domains.remove(own),
        };
    }
    None
}

/// For how much longer a guest may be held of which the first failed service last answered then.
fn held_left(round: &Round<'_>, first: Moment) -> Duration {
    HELD_MAX.saturating_sub(round.now.moment.since(first))
}
