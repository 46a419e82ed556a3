//! Who is held in a storm of services is held rightly (L1): hosts that ask it really get no answer, nothing else speaks against it, it is
//! held for no longer than five minutes from when it last answered, and where one cause is suspected others have ceased to answer too.
//!
//! What is really so is noted with each look of a vantage, as in [`super::grounds`]; what the coordinator makes of it plays no part. It
//! is judged whenever a coordinator says that it holds somebody. In worlds whose vantages do not remember nobody is held.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::{
    decide::Report,
    names::{Epoch, GuestName, HostName},
    state::Phase,
};

use super::{Ms, found::Found, world::World};

/// Fewer guests are never held together.
pub(super) const GUESTS_MIN: usize = 3;
/// A guest is held for so long at most, from when it last answered.
pub const HELD_MAX: Ms = 300_000;
/// What waited for a coordinator that stood still is taken for new by it, beside the time for which a look counts.
const STOOD_STILL: Ms = 30_000;
/// The same by any clock, with how late what is said of it may be.
const HELD_REALLY: Ms = HELD_MAX + HELD_MAX / 20 + STOOD_STILL + 12_000;
/// Held for so long, a guest has been held for as long as it may be.
const NEARLY: Ms = HELD_MAX - HELD_MAX / 20;
/// What a coordinator says of a guest that it holds.
const HELD: &str = " is held, because ";
/// What it says where it does not wait for that to show.
const TOGETHER: &str = "guests on different hosts have ceased to answer over the network at once";

/// What vantages have really got, and what is remembered of those that are held.
#[derive(Debug, Default)]
pub struct Answers {
    guests: BTreeMap<GuestName, BTreeMap<usize, Asked>>,
    /// Guests that are held and over where they run, and since when.
    over: BTreeMap<GuestName, (Epoch, Ms)>,
}

/// What one vantage has got of a guest.
#[derive(Debug, Clone, Copy)]
struct Asked {
    epoch: Epoch,
    /// Its newest answer.
    answered: Ms,
    /// The newest time in which it got none.
    gap: Option<Gap>,
}

#[derive(Debug, Clone, Copy)]
struct Gap {
    /// The answer before it.
    answered: Ms,
    /// The newest look without one.
    until: Ms,
}

impl Answers {
    /// Notes what a look has come upon.
    pub(super) fn note(&mut self, guest: &GuestName, by: usize, epoch: Epoch, found: Found, now: Ms) {
        if !self.guests.contains_key(guest) {
            self.guests.insert(guest.clone(), BTreeMap::new());
        }
        let Some(vantages) = self.guests.get_mut(guest) else { return };
        let known = vantages.get_mut(&by).filter(|known| known.epoch == epoch);
        match (known, found) {
            // Who cannot ask says nothing.
            (_, Found::NotAsked) => {}
            (Some(known), Found::Answers) => known.answered = now,
            (None, Found::Answers) => {
                vantages.insert(by, Asked { epoch, answered: now, gap: None });
            }
            (Some(known), _) => known.gap = Some(Gap { answered: known.answered, until: now }),
            // It has never answered there.
            (None, _) => {}
        }
    }

    fn gaps<'a>(&'a self, guest: &GuestName, since: Ms) -> impl Iterator<Item = (Epoch, Ms)> + use<'a> {
        let vantages = self.guests.get(guest).into_iter().flat_map(BTreeMap::values);
        vantages.filter_map(move |asked| {
            let gap = asked.gap.filter(|gap| gap.until >= since)?;
            Some((asked.epoch, gap.answered))
        })
    }

    /// When a guest last answered one of those who have got no answer at a moment or later.
    fn ceased(&self, guest: &GuestName, epoch: Epoch, since: Ms) -> Option<Ms> {
        self.gaps(guest, since).filter(|(under, _)| *under == epoch).map(|(_, answered)| answered).max()
    }

    /// Whether somebody has got no answer of a guest at a moment or later.
    fn has_ceased(&self, guest: &GuestName, since: Ms) -> bool {
        self.gaps(guest, since).next().is_some()
    }
}

impl World {
    /// How many guests may be held if faults stop at this moment: they hang, or somebody has got no answer of them lately.
    pub(super) fn may_be_held(&self) -> usize {
        let hangs = |guest: &GuestName| {
            self.hosts.iter().any(|host| host.machines.get(guest).is_some_and(|machine| machine.ill))
        };
        let lacks = |guest: &GuestName| self.answers.has_ceased(guest, self.lately(guest));
        self.truth.state.guests.keys().filter(|guest| hangs(guest) || lacks(guest)).count()
    }

    /// L1: whoever is held is held rightly.
    pub(super) fn check_held(&mut self, voter: usize, report: &Report) {
        // With a rule broken, that rule's own check has to find it.
        if !self.passes_remembered || self.broken.is_some() {
            return;
        }
        let said = report.guests.iter().filter(|(_, judged)| judged.doing.contains(HELD));
        let held: Vec<(&GuestName, &str)> = said.map(|(guest, judged)| (guest, judged.doing.as_str())).collect();
        self.seen.held += held.len() as u64;
        let over = held.iter().filter_map(|(guest, _)| self.is_over_and_held(voter, guest)).collect();
        self.answers.over = over;
        let wrong = held.iter().find_map(|(guest, doing)| self.wrongly_held(voter, guest, doing));
        if let Some(why) = wrong {
            self.violate("L1", why);
        }
    }

    /// Why a guest should not be held.
    fn wrongly_held(&self, voter: usize, guest: &GuestName, doing: &str) -> Option<String> {
        let (_, epoch) = self.runs_on(voter, guest)?;
        let Some(answered) = self.answers.ceased(guest, epoch, self.lately(guest)) else {
            return Some(format!("{guest} is held, and every host that asks it gets an answer ({doing})"));
        };
        let ago = self.now.saturating_sub(answered);
        if ago > HELD_REALLY {
            return Some(format!("{guest} is held, and last answered {ago} ms ago ({doing})"));
        }
        if let Some((_, since)) = self.answers.over.get(guest)
            && self.now.saturating_sub(*since) > STOOD_STILL
        {
            return Some(format!("{guest} is held, and has been over since {since} ms where it runs ({doing})"));
        }
        self.has_no_company(voter).filter(|_| doing.contains(TOGETHER)).map(|why| format!("{guest} is held: {why}"))
    }

    /// How many have ceased to answer, where these are too few to be suspected of having one cause.
    fn has_no_company(&self, voter: usize) -> Option<String> {
        let guests = self.voters[voter].state.guests.keys();
        let ceased = guests.filter_map(|guest| {
            let (on, epoch) = self.runs_on(voter, guest)?;
            self.answers.ceased(guest, epoch, self.lately(guest)).map(|_| on)
        });
        let ceased: Vec<&HostName> = ceased.collect();
        let hosts: BTreeSet<&HostName> = ceased.iter().copied().collect();
        let few = ceased.len() < GUESTS_MIN || hosts.len() < 2;
        few.then(|| format!("only {} guests on {} hosts have ceased to answer", ceased.len(), hosts.len()))
    }

    /// Since when a guest that is held has been over where it runs.
    fn is_over_and_held(&self, voter: usize, guest: &GuestName) -> Option<(GuestName, (Epoch, Ms))> {
        let Some(Phase::Running { tenure, .. }) = self.voters[voter].state.guests.get(guest).map(|known| &known.phase)
        else {
            return None;
        };
        let home = self.machine_of(&tenure.host, &tenure.incarnation)?;
        let epoch = tenure.epoch;
        let is_over = self.hosts[home].found(guest, epoch, self.now).is_over();
        let before = self.answers.over.get(guest).filter(|(under, _)| *under == epoch).copied();
        is_over.then(|| (guest.clone(), before.unwrap_or((epoch, self.now))))
    }

    fn runs_on(&self, voter: usize, guest: &GuestName) -> Option<(&HostName, Epoch)> {
        match &self.voters[voter].state.guests.get(guest)?.phase {
            Phase::Running { tenure, .. } => Some((&tenure.host, tenure.epoch)),
            Phase::Unplaced
            | Phase::Free { .. }
            | Phase::Starting { .. }
            | Phase::Releasing { .. }
            | Phase::Migrating(_) => None,
        }
    }

    /// From when on what hosts have got may be why a guest is held.
    fn lately(&self, guest: &GuestName) -> Ms {
        self.now.saturating_sub(self.counts_for(guest) + STOOD_STILL)
    }

    /// Notes that something is done to a guest that has been held for as long as guests are.
    pub(super) fn note_let_go(&mut self, guest: &GuestName) {
        let now = self.now;
        let newest = self.answers.gaps(guest, self.lately(guest)).map(|(_, answered)| answered).max();
        self.seen.let_go += u64::from(newest.is_some_and(|answered| now.saturating_sub(answered) >= NEARLY));
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{
        decide::GuestJudgement,
        model::{Rung, Severity},
        time::Span,
    };

    use super::*;
    use crate::simulator::{
        Happening, Setup,
        held_guests::go_on,
        setup::{a_guest_each, guest},
    };

    const HOSTS: usize = 3;

    /// A world at rest whose vantages remember, with a guest on each host, and nothing is done to any.
    fn world() -> World {
        let mut policies = a_guest_each(HOSTS);
        for policy in policies.policies.values_mut() {
            let reset = Rung::ResetGuest { tries: 1, wait: Span::secs(6) };
            policy.ladder = vec![reset, Rung::Page { severity: Severity::Critical }];
        }
        let running = (0..HOSTS).map(|index| (guest(index), index)).collect();
        let setup = Setup { running, passes_remembered: true, ..Setup::plain(HOSTS, policies) };
        let mut world = World::at_rest(&setup);
        world.happen(&Happening::Suspended { suspended: true });
        go_on(&mut world, 2_000);
        world
    }

    /// What is noticed where a coordinator says that it holds the first guest.
    fn noticed(world: &mut World) -> Option<String> {
        let voter = world.coordinator().unwrap();
        let doing = format!("http does not answer: the rung reset_guest{HELD}{TOGETHER}");
        let judged = GuestJudgement { doing, ..GuestJudgement::default() };
        let report = Report { guests: BTreeMap::from([(guest(0), judged)]), ..Report::default() };
        world.check_held(voter, &report);
        world.violation().map(|violation| violation.what.clone())
    }

    fn hang(world: &mut World, guests: usize) {
        for index in 0..guests {
            world.happen(&Happening::GuestHangs { guest: guest(index) });
        }
        go_on(world, 10_000);
    }

    #[test]
    fn a_guest_that_is_held_and_answers_is_noticed() {
        let why = noticed(&mut world()).unwrap();
        assert!(why.contains("every host that asks it gets an answer"), "{why}");
    }

    #[test]
    fn a_guest_that_is_held_with_too_few_others_is_noticed() {
        let mut world = world();
        hang(&mut world, 2);
        let why = noticed(&mut world).unwrap();
        assert!(why.contains("only 2 guests on 2 hosts"), "{why}");
    }

    #[test]
    fn a_guest_that_is_held_for_longer_than_is_promised_is_noticed_and_not_before() {
        let mut world = world();
        hang(&mut world, HOSTS);
        go_on(&mut world, HELD_MAX - 20_000);
        assert_eq!(noticed(&mut world), None);
        go_on(&mut world, HELD_REALLY - HELD_MAX + 20_000);
        let why = noticed(&mut world).unwrap();
        assert!(why.contains("last answered"), "{why}");
    }

    #[test]
    fn a_guest_that_is_held_and_has_ended_is_noticed_once_its_host_must_have_told() {
        let mut world = world();
        hang(&mut world, HOSTS);
        world.happen(&Happening::GuestExits { guest: guest(0) });
        go_on(&mut world, 1_000);
        assert_eq!(noticed(&mut world), None);
        go_on(&mut world, STOOD_STILL);
        // As if that had been said in each round between.
        let voter = world.coordinator().unwrap();
        let (_, epoch) = world.runs_on(voter, &guest(0)).unwrap();
        world.answers.over.insert(guest(0), (epoch, world.now - STOOD_STILL - 1));
        let why = noticed(&mut world).unwrap();
        assert!(why.contains("has been over"), "{why}");
    }
}
