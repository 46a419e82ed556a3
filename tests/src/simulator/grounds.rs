//! Nothing is done to a guest that is well (S5, S8): when a rung of its ladder is committed, something really spoke against it a moment
//! before. It had ended where it runs, or as many vantages as its policy asks for really got no answer, each for as long as it takes
//! to say so.
//!
//! What is really so is noted where it shows: what each look of a vantage comes upon, and at each sync of a host what has ended
//! there. What is made of it on its way to the coordinator, and there, plays no part. How old it may be is bounded by how long a
//! look counts and how late messages are (`counts_for`).
//!
//! | what is so | speaks against the guest |
//! | --- | --- |
//! | its process has ended, its kernel has panicked, its host has nothing of it | where its host tells of it; from vantages too |
//! | it was sent away, or waits for what is to be sent | where its host still has it so |
//! | it hangs; its host is off or stands still; the network between is cut; a vantage's probes fail by themselves | from vantages |
//! | what it shares with other guests does not work | from vantages; who is held for that is looked at by [`super::held_checks`] |
//! | it boots after a reset of its own | from vantages; whether too often is looked at by [`super::oddities`] |
//! | it boots after a start, or is paused; a vantage cannot ask it | no |

use std::collections::{BTreeMap, VecDeque};

use holdfast_policies::{
    change::Change,
    ladder::ladder_of,
    model::Service,
    names::{Epoch, GuestName},
    state::{Phase, Tenure},
    time::millis,
};

use super::{Ms, breaks::Break, found::Found, world::World};

/// From a look until what it leads to is proposed, beside the time for which the look counts: a message that comes twice is six
/// seconds late, a forward of it two more, and what is decided in one round is proposed one after the other.
const ON_ITS_WAY: Ms = 12_000;
/// What has changed within so long is told of a guest that something is done to.
const TOLD_FOR: Ms = 60_000;
/// The most changes that are remembered of one guest: those of half a minute in which two vantages see it otherwise at every sync.
const TOLD_MAX: usize = 256;

/// Something that was really so of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// When.
    pub at: Ms,
    /// The host that came upon it.
    pub by: usize,
    /// The assignment of which it was so.
    pub epoch: Epoch,
    /// What.
    pub found: Found,
}

/// What a vantage has come upon lately.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Its newest look.
    newest: Fact,
    /// Since when it has come upon the same.
    since: Ms,
}

/// What is known of one guest.
#[derive(Debug, Default)]
struct Known {
    /// By vantage.
    looks: BTreeMap<usize, Look>,
    /// The newest reason of each vantage to say that the services fail.
    accused: BTreeMap<usize, Fact>,
    /// When hosts last had it ended, by host and assignment; not what is too old to be told.
    ended: BTreeMap<(usize, Epoch), Fact>,
    /// What changed lately, oldest first.
    changes: VecDeque<Fact>,
}

impl Known {
    fn remember(&mut self, fact: Fact) {
        self.changes.push_back(fact);
        let is_old = |known: &Fact| fact.at.saturating_sub(known.at) > TOLD_FOR;
        while self.changes.len() > TOLD_MAX || self.changes.front().is_some_and(is_old) {
            self.changes.pop_front();
        }
    }
}

/// What has really spoken against guests.
#[derive(Debug, Default)]
pub struct Grounds {
    guests: BTreeMap<GuestName, Known>,
}

impl Grounds {
    /// Notes what a look has come upon. `is_long` says that the vantage has got no answer for as long as it takes to say so.
    pub(super) fn note_look(&mut self, guest: &GuestName, fact: Fact, is_long: bool) {
        let Some(known) = self.about(guest) else { return };
        let before = known.looks.get(&fact.by).copied();
        let same = before.filter(|look| (look.newest.epoch, look.newest.found) == (fact.epoch, fact.found));
        if same.is_none() {
            known.remember(fact);
        }
        known.looks.insert(fact.by, Look { newest: fact, since: same.map_or(fact.at, |look| look.since) });
        if is_long && fact.found.accuses() {
            known.accused.insert(fact.by, fact);
        }
    }

    /// Notes that a host has a guest ended.
    fn note_end(&mut self, guest: &GuestName, fact: Fact) {
        let Some(known) = self.about(guest) else { return };
        let before = known.ended.insert((fact.by, fact.epoch), fact);
        if before.is_none_or(|before| before.found != fact.found) {
            known.remember(fact);
            known.ended.retain(|_, other| fact.at.saturating_sub(other.at) <= TOLD_FOR);
        }
    }

    /// What is known of a guest. Only its first look or end copies its name.
    fn about(&mut self, guest: &GuestName) -> Option<&mut Known> {
        if !self.guests.contains_key(guest) {
            self.guests.insert(guest.clone(), Known::default());
        }
        self.guests.get_mut(guest)
    }

    /// Whether a host had a guest ended under an assignment, at a moment or later.
    fn has_ended(&self, guest: &GuestName, on: usize, epoch: Epoch, since: Ms) -> bool {
        let ended = self.guests.get(guest).and_then(|known| known.ended.get(&(on, epoch)));
        ended.is_some_and(|fact| fact.at >= since)
    }

    /// How many vantages had reason to say that the services of a guest fail, at a moment or later.
    fn accused(&self, guest: &GuestName, epoch: Epoch, since: Ms) -> u64 {
        let facts = self.guests.get(guest).into_iter().flat_map(|known| known.accused.values());
        facts.filter(|fact| fact.epoch == epoch && fact.at >= since).count() as u64
    }

    /// All that is known of a guest, in words.
    fn words(&self, guest: &GuestName, now: Ms, name: impl Fn(usize) -> String) -> String {
        let Some(known) = self.guests.get(guest) else { return "nobody has looked at it".to_owned() };
        let told = |fact: &Fact| {
            let (ago, who) = (now.saturating_sub(fact.at), name(fact.by));
            format!("{ago} ms ago {who} under {}: {}", fact.epoch, fact.found)
        };
        let looks = known.looks.values().map(|look| {
            let lasted = look.newest.at.saturating_sub(look.since);
            format!("{}, for {lasted} ms", told(&look.newest))
        });
        let lately = known.changes.iter().filter(|fact| now.saturating_sub(fact.at) <= TOLD_FOR);
        let parts: [(&str, Vec<String>); 4] = [
            ("looked", looks.collect()),
            ("had reason to accuse it", known.accused.values().map(told).collect()),
            ("had it ended", known.ended.values().map(told).collect()),
            ("changed within the last minute", lately.map(told).collect()),
        ];
        let parts = parts.map(|(what, said)| {
            let said = if said.is_empty() { "nothing".to_owned() } else { said.join(", ") };
            format!("{what}: {said}")
        });
        parts.join("; ")
    }
}

impl World {
    /// Notes which guests are over here when the host tells of its guests: of what it has, and of what is committed to run here.
    pub(super) fn note_ends(&mut self, host: usize) {
        let now = self.now;
        let known = &self.hosts[host];
        let committed = self.truth.state.guests.iter().filter_map(|(guest, about)| match &about.phase {
            Phase::Running { tenure, .. } => Some((guest, tenure)),
            _ => None,
        });
        let here =
            committed.filter(|(_, tenure)| tenure.host == known.name && tenure.incarnation == known.facts.incarnation);
        let here = here.map(|(guest, tenure)| (guest, tenure.epoch));
        let there = known.machines.iter().map(|(guest, machine)| (guest, machine.epoch));
        for (guest, epoch) in here.chain(there) {
            let found = known.found(guest, epoch, now);
            if found.is_over() {
                self.grounds.note_end(guest, Fact { at: now, by: host, epoch, found });
            }
        }
    }

    /// S5, S8: what is to be done to a guest for being ill, if nothing has spoken against it lately; with all that is known of it.
    pub(super) fn ungrounded(&self, change: &Change, proposed: Ms) -> Option<String> {
        let (guest, is_rung) = match change {
            Change::Climb { guest, .. } => (guest, true),
            Change::StoppedByLease { guest } => (guest, false),
            _ => return None,
        };
        // With any other rule broken, that rule's own check has to find it.
        if !matches!(self.broken, None | Some(Break::S5)) {
            return None;
        }
        let Phase::Running { tenure, .. } = &self.truth.state.guests.get(guest)?.phase else { return None };
        let since = proposed.saturating_sub(self.counts_for(guest));
        let agree = self.services(guest).map(|service| u64::from(service.from.agree.max(1))).min();
        let accused = self.grounds.accused(guest, tenure.epoch, since);
        let failed = is_rung && agree.is_some_and(|agree| accused >= agree);
        if failed || self.has_ended(guest, tenure, since) {
            return None;
        }
        let (what, so) = (self.what_is_done(change), self.what_is_so(guest, tenure));
        let (epoch, within) = (tenure.epoch, self.now.saturating_sub(since));
        let agree = agree.unwrap_or_default();
        Some(format!(
            "{what}, and nothing has spoken against it under {epoch} for {within} ms: it had not ended, and {accused} vantages, of \
             {agree} that must agree, had reason to accuse it; {so}"
        ))
    }

    /// For how long what was really so may lead to something.
    pub(super) fn counts_for(&self, guest: &GuestName) -> Ms {
        let fresh = self.services(guest).map(|service| millis(service.fresh_for())).max();
        fresh.unwrap_or_default() + ON_ITS_WAY
    }

    fn services(&self, guest: &GuestName) -> impl Iterator<Item = &Service> {
        let policy = self.truth.state.policies.policy_of(guest);
        policy.into_iter().flat_map(|(_, policy)| policy.services.values())
    }

    /// Whether a guest was over where it runs lately, or is something else at present that its host tells of and that ends by itself
    /// no more.
    fn has_ended(&self, guest: &GuestName, tenure: &Tenure, since: Ms) -> bool {
        let Some(home) = self.machine_of(&tenure.host, &tenure.incarnation) else { return false };
        let found = self.hosts[home].found(guest, tenure.epoch, self.now);
        found.is_over() || found == Found::OnItsWay || self.grounds.has_ended(guest, home, tenure.epoch, since)
    }

    fn what_is_done(&self, change: &Change) -> String {
        match change {
            Change::Climb { guest, rung, ladder, why, evidence, .. } => {
                let rungs = ladder_of(&self.truth.state.policies, guest, *ladder);
                let rung = rungs.get(*rung).map_or("that there is not", |rung| rung.name());
                format!("the rung {rung} is taken for {guest} ({why}: {})", evidence.join(", "))
            }
            Change::StoppedByLease { guest } => format!("{guest} is taken to be stopped by its host"),
            other => format!("{other:?}"),
        }
    }

    fn what_is_so(&self, guest: &GuestName, tenure: &Tenure) -> String {
        let now = self.now;
        let home = self.machine_of(&tenure.host, &tenure.incarnation).map(|home| &self.hosts[home]);
        let home = home.map_or("not there".to_owned(), |home| {
            format!("{}, and there {}", home.how(now), home.found(guest, tenure.epoch, now))
        });
        let words = self.grounds.words(guest, now, |host| self.hosts[host].name.to_string());
        format!("its host {} is {home}; {words}", tenure.host)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{
        journal::Event,
        ladder::LadderKind,
        model::{Rung, Severity},
        time::Span,
    };

    use super::*;
    use crate::simulator::{Happening, Setup};

    const HOSTS: usize = 3;

    /// A world at rest whose guests have a ladder that begins like this, and one of them.
    fn world_with(first: Rung) -> (World, GuestName) {
        let mut policies = Setup::random(1, HOSTS, HOSTS, None).policies;
        for policy in policies.policies.values_mut() {
            policy.ladder = vec![first.clone(), Rung::Page { severity: Severity::Critical }];
        }
        let guest = policies.guests.keys().next().unwrap().clone();
        (World::at_rest(&Setup::plain(HOSTS, policies)), guest)
    }

    fn world() -> (World, GuestName) {
        world_with(Rung::ResetGuest { tries: 1, wait: Span::secs(6) })
    }

    fn world_in_which(what: fn(GuestName) -> Happening) -> (World, GuestName) {
        let (mut world, guest) = world();
        world.happen(&what(guest.clone()));
        (world, guest)
    }

    /// Lets a world go on in which nothing is left out, however calm it is.
    fn go_on(world: &mut World, time: Ms) {
        for _ in 0..time / 500 {
            world.rest_since = None;
            world.run_until(world.real() + 500);
        }
    }

    fn rungs(world: &World, guest: &GuestName) -> usize {
        let is_rung = |event: &Event| matches!(event, Event::RungTaken { guest: of, .. } if of == guest);
        world.state().journal.entries().filter(|entry| is_rung(&entry.what)).count()
    }

    /// The first rung is taken, and nobody knows why.
    fn climb(guest: &GuestName) -> Change {
        Change::Climb {
            guest: guest.clone(),
            rung: 0,
            ladder: LadderKind::Recovery,
            to: None,
            why: "somebody dislikes it".to_owned(),
            evidence: vec!["it was seen".to_owned()],
            last_well: None,
        }
    }

    #[test]
    fn a_rung_that_is_taken_for_a_guest_that_is_well_is_noticed_and_told_with_all_that_was_so() {
        let (mut world, guest) = world();
        world.rest_since = None;
        assert!(world.operate(climb(&guest)));
        go_on(&mut world, 2_000);
        let violation = world.violation().unwrap();
        assert_eq!(violation.promise, "S5");
        for word in [guest.as_str(), "reset_guest", "somebody dislikes it", "it was seen", "is well", "it answers"] {
            assert!(violation.what.contains(word), "{word:?} is missing: {}", violation.what);
        }
    }

    #[test]
    fn one_that_was_ill_too_long_ago_is_noticed_too() {
        // It helps, and leaves the guest under the assignment under which it was ill.
        let restart = Rung::RestartService { run: vec!["restart".to_owned()], tries: 1, wait: Span::secs(3) };
        let (mut world, guest) = world_with(restart);
        world.happen(&Happening::GuestHangs { guest: guest.clone() });
        go_on(&mut world, 10_000);
        assert_eq!((world.violation(), rungs(&world, &guest)), (None, 1));
        // Its ladder has begun anew by then.
        go_on(&mut world, 20_000);
        assert!(world.operate(climb(&guest)));
        go_on(&mut world, 2_000);
        assert_eq!(world.violation().map(|violation| violation.promise), Some("S5"));
    }

    #[test]
    fn a_guest_that_nobody_can_ask_is_let_be_and_is_not_when_not_to_know_is_taken_for_a_failure() {
        for broken in [None, Some(Break::S5)] {
            let (mut world, guest) = world();
            world.broken = broken;
            for host in 0..HOSTS {
                world.happen(&Happening::CannotAsk { host, guest: guest.clone(), time: 6_000 });
            }
            go_on(&mut world, 10_000);
            assert_eq!(world.violation().map(|violation| violation.promise), broken.map(|_| "S5"));
            assert_eq!(rungs(&world, &guest), usize::from(broken.is_some()));
        }
    }

    #[test]
    fn what_really_speaks_against_a_guest_is_no_violation() {
        let hangs = world_in_which(|guest| Happening::GuestHangs { guest });
        let ends = world_in_which(|guest| Happening::GuestExits { guest });
        let panics = world_in_which(|guest| Happening::GuestPanics { guest });
        let (mut blind, guest) = world();
        for host in 0..HOSTS {
            blind.happen(&Happening::Blind { host, guest: guest.clone(), time: 4_000 });
        }
        for (mut world, guest) in [hangs, ends, panics, (blind, guest)] {
            go_on(&mut world, 10_000);
            assert_eq!((world.violation(), rungs(&world, &guest)), (None, 1));
        }
    }
}
