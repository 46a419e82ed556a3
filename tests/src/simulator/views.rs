//! What simulated hosts know of the view: they keep the one that they have, say which it is, and are told what has changed, by the
//! product's own code on both sides.
//!
//! ```text
//!  coordinator: state --Teller--> news --reply (lost, late, overtaken)--> host: view --onto--> view --> prober and guard
//!                                                                                                 |
//!  what is committed --noted at every change--> Versions ----------------- are they the same? ----+
//! ```
//! In a third of the worlds hosts and views are as with thousands of guests: news take their time to be read, guards learn late,
//! and what is declared has no room in every reply.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use holdfast_policies::{
    feature_level::FeatureLevel,
    model::Policies,
    names::{Epoch, GuestName, HostName},
    news::{News, ViewMark},
    reply,
    revocation::Revocation,
    state::ClusterState,
    sync::{SyncReply, SyncRequest, View},
};

use super::{Ms, breaks::Break, queue::Event, random::Random, world::World};

/// From this level on a version knows that a view can be told as news; one before it wants it whole, and tells it whole.
const TELLS_NEWS: FeatureLevel = FeatureLevel::PACKED;
/// Versions of the view that are remembered. Who knows an older one when it looks has stood still for an hour or so.
const VERSIONS_MAX: usize = 512;
/// A host that is well, and reaches the coordinator, knows what was committed so long ago: what has no room comes with one of the
/// next replies, and what is being read is asked for again.
pub(super) const KNOWN_WITHIN: Ms = 12_000;

/// So long after it is back a guard is told what it has missed.
const TOLD_AFTER: Ms = 250;

/// The views of worlds in which they are as large as those of thousands of guests.
pub struct Large(Random);

/// The stream of chance of what takes its time with them.
const LARGE: u64 = 26;

impl Large {
    /// Its own chance: all other streams of the seed stay what they are.
    pub(super) fn new(seed: u64) -> Self {
        Self(Random::new(seed, LARGE))
    }

    /// Whether what is declared is not written down yet, or what goes out has no room.
    fn has_no_room(&mut self) -> bool {
        self.0.one_in(4)
    }

    /// How long a host reads news.
    fn reads_for(&mut self) -> Ms {
        if self.0.one_in(6) { self.0.between(300, 1_500) } else { self.0.between(1, 40) }
    }

    /// How long a guard learns later what follows from a view.
    fn guard_waits(&mut self) -> Ms {
        if self.0.one_in(6) { self.0.between(250, 750) } else { self.0.between(1, 60) }
    }
}

/// Whether a host makes a view of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Learning {
    /// It makes none.
    #[default]
    Nothing,
    /// It makes one.
    News,
    /// It makes one, and was told something meanwhile.
    NewsAndMore,
}

/// The view as it was committed at some index.
struct Version {
    mark: ViewMark,
    /// When.
    since: Ms,
    policies: Arc<Policies>,
    homes: BTreeMap<GuestName, (HostName, Epoch)>,
    hosts: BTreeMap<HostName, SocketAddr>,
    revoked: BTreeMap<HostName, Revocation>,
}

impl Version {
    /// In what a view differs from it.
    fn differs(&self, view: &View) -> Vec<&'static str> {
        let parts = [
            ("the index", view.index != self.mark.index),
            ("what is declared", view.policies != self.policies),
            ("where guests run", view.homes != self.homes),
            ("where supervisors listen", view.hosts != self.hosts),
            ("who is revoked", view.revoked != self.revoked),
        ];
        parts.into_iter().filter_map(|(part, differs)| differs.then_some(part)).collect()
    }
}

/// What the view was at each of its versions, from what is really committed; the newest last.
#[derive(Default)]
pub struct Versions(VecDeque<Version>);

impl Versions {
    /// Notes the view of what is committed, if it is another one.
    pub(super) fn note(&mut self, state: &ClusterState, now: Ms) {
        let mark = ViewMark::of(state);
        let newest = self.0.back();
        if newest.is_some_and(|newest| newest.mark == mark) {
            return;
        }
        let declared = newest.filter(|newest| newest.mark.declares_as(mark)).map(|newest| Arc::clone(&newest.policies));
        let policies = declared.unwrap_or_else(|| Arc::new(state.policies.clone()));
        let (homes, hosts, revoked) = (reply::homes(state), reply::places(state), state.revoked.clone());
        if self.0.len() >= VERSIONS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Version { mark, since: now, policies, homes, hosts, revoked });
    }

    /// The newest index that had been committed by then.
    fn index_at(&self, then: Ms) -> Option<u64> {
        self.0.iter().rev().find(|version| version.since <= then).map(|version| version.mark.index)
    }

    /// What is wrong with a view, if anything is.
    fn complaint(&self, view: &View) -> Option<String> {
        // An older coordinator does not say which it is.
        let is = |version: &&Version| view.mark.map_or(version.mark.index == view.index, |mark| version.mark == mark);
        match self.0.iter().rev().find(is) {
            Some(version) => {
                let differs = version.differs(view);
                let parts = differs.join(" and ");
                (!differs.is_empty())
                    .then(|| format!("{parts} otherwise than committed at entry {}", version.mark.index))
            }
            None => {
                let forgotten = self.0.front().is_some_and(|oldest| view.index < oldest.mark.index);
                (!forgotten).then(|| format!("a view that never was, of entry {}", view.index))
            }
        }
    }
}

/// What is declared, as it was read last: all hosts of a world read the same text.
#[derive(Default)]
pub struct Read(Option<(String, Arc<Policies>)>);

impl Read {
    /// What a text declares. What is the same as in a version that there was is taken from there, so that nobody compares it again.
    fn declared(&mut self, text: String, versions: &Versions) -> Arc<Policies> {
        if let Some((read, declared)) = &self.0
            && *read == text
        {
            return Arc::clone(declared);
        }
        let declared: Policies = match serde_json::from_str(&text) {
            Ok(declared) => declared,
            Err(error) => panic!("what is declared cannot be read: {error}"),
        };
        let same = versions.0.iter().rev().find(|version| *version.policies == declared);
        let declared = same.map_or_else(|| Arc::new(declared), |version| Arc::clone(&version.policies));
        self.0 = Some((text, Arc::clone(&declared)));
        declared
    }
}

impl World {
    /// The view that a host says that it has; nothing where its version wants it whole.
    pub(super) fn has_view(&self, host: usize) -> Option<ViewMark> {
        let known = &self.hosts[host];
        let held = known.supervisor.as_ref().and_then(|supervisor| supervisor.view.mark);
        (known.level >= TELLS_NEWS).then(|| held.unwrap_or_default())
    }

    /// What an older coordinator makes of a request: it does not know that a host can say which view it has.
    pub(super) fn as_it_is_read(&self, voter: usize, request: &SyncRequest) -> Option<SyncRequest> {
        let older = self.hosts[voter].level < TELLS_NEWS && request.has_view.is_some();
        older.then(|| SyncRequest { has_view: None, ..request.clone() })
    }

    /// Adds to a reply what is new to whoever asks.
    pub(super) fn tell_news(&mut self, voter: usize, request: &SyncRequest, reply: &mut SyncReply) {
        if let Some(view) = &mut reply.view
            && self.hosts[voter].level < TELLS_NEWS
        {
            view.mark = None;
        }
        let known = &mut self.voters[voter];
        let Some(mut news) = known.teller.news(&known.state, request, known.term) else { return };
        let has = request.has_view.unwrap_or_default();
        // R4 broken: it takes its own changes for all that there were.
        if self.broken == Some(Break::R4News) && has.generation == news.to.generation {
            news.after = news.after.or(Some(has.index));
        }
        if self.broken == Some(Break::R27News) {
            news.revoked = None;
        }
        if self.large_views.as_mut().is_some_and(Large::has_no_room) {
            self.seen.news_without_room += 1;
            return;
        }
        if !has.declares_as(news.to) {
            news.declared = Some(self.written_down(voter, news.to).to_string());
        }
        self.seen.news_of_changes += u64::from(news.after.is_some());
        reply.news = Some(news);
    }

    /// What is declared as JSON, written once for all hosts.
    fn written_down(&mut self, voter: usize, of: ViewMark) -> Rc<str> {
        let known = &mut self.voters[voter];
        if let Some((written, text)) = &known.written
            && written.declares_as(of)
        {
            return Rc::clone(text);
        }
        let text: Rc<str> = match serde_json::to_string(&known.state.policies) {
            Ok(text) => text.into(),
            Err(error) => panic!("what is declared cannot be written: {error}"),
        };
        known.written = Some((of, Rc::clone(&text)));
        text
    }

    /// A host makes a view of what it was told. What is told meanwhile is asked for again.
    pub(super) fn learn(&mut self, host: usize, mut news: News) {
        let (now, life) = (self.now, self.hosts[host].life);
        let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
        if supervisor.learning != Learning::Nothing {
            supervisor.learning = Learning::NewsAndMore;
            return;
        }
        // The view that a host has with what it was told, as the product makes it.
        let declared = news.declared.take().map(|text| self.declared.declared(text, &self.versions));
        let made = news.onto(&supervisor.view, declared);
        match &mut self.large_views {
            Some(large) => {
                supervisor.learning = Learning::News;
                self.queue.push(now + large.reads_for(), Event::Viewed { host, life, made: Box::new(made) });
            }
            None => self.learned(host, made),
        }
    }

    /// It has made one, if it could.
    pub(super) fn learned(&mut self, host: usize, made: Option<View>) {
        let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
        let more = std::mem::take(&mut supervisor.learning) == Learning::NewsAndMore;
        match made {
            Some(view) => supervisor.actions.extend(supervisor.agent.on_view(view)),
            // The next sync says so, and is told anew.
            None => self.seen.news_that_fit_nothing += 1,
        }
        self.act(host);
        if more {
            self.sync_soon(host);
        }
    }

    /// A host looks at a new view from here on: its prober at once, its guard when somebody tells it.
    pub(super) fn look_at(&mut self, host: usize, view: View) {
        self.check_view(host, &view);
        let life = self.hosts[host].life;
        let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
        supervisor.view = view;
        match &mut self.large_views {
            Some(large) => self.queue.push(self.now + large.guard_waits(), Event::GuardTold { host, life }),
            None => self.tell_guard(host),
        }
    }

    /// The guard learns of the newest view. Only then it counts as known: what is armed may change by it (R9). One that is down is
    /// told when it is back.
    pub(super) fn tell_guard(&mut self, host: usize) {
        let (back, life) = (self.hosts[host].guard.down_until, self.hosts[host].life);
        if self.guarded && back > self.now {
            self.queue.push(back + TOLD_AFTER, Event::GuardTold { host, life });
            return;
        }
        let known = &mut self.hosts[host];
        let Some(supervisor) = &mut known.supervisor else { return };
        supervisor.guard_knows = supervisor.view.index;
        let stops = supervisor.view.policies.lease_level(&known.name).is_some();
        self.guard_learns(host, stops);
    }

    /// Whether every host that can knows the view that is committed. Where views take their time, nothing rests before.
    pub(super) fn views_rest(&self) -> bool {
        self.large_views.is_none() || (0..self.named).all(|host| self.is_behind(host, self.now).is_none())
    }

    /// R4: the view that a host has is the one that was committed, whoever told it in however many parts.
    fn check_view(&mut self, host: usize, view: &View) {
        if let Some(complaint) = self.versions.complaint(view) {
            let name = self.hosts[host].name.clone();
            self.violate("R4", format!("{name} has {complaint}"));
        }
    }

    /// R4: a host that is well and reaches the coordinator for so long knows what was committed before.
    pub(super) fn check_told_views(&mut self, host: usize) {
        if let Some((knows, is)) = self.is_behind(host, self.now.saturating_sub(KNOWN_WITHIN)) {
            let name = self.hosts[host].name.clone();
            self.violate("R4", format!("{name} knows the view of entry {knows}, and {is} was committed long ago"));
        }
    }

    /// Which view a host has, and which it could have, if that was committed by then.
    fn is_behind(&self, host: usize, then: Ms) -> Option<(u64, u64)> {
        let knows = self.hosts[host].supervisor.as_ref()?.view.index;
        let is = self.versions.index_at(then)?;
        (knows < is).then_some((knows, is))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::{Happening, setup::Setup};

    const HOSTS: usize = 4;

    fn world(large: bool) -> World {
        let policies = Setup::random(1, HOSTS, HOSTS, None).policies;
        World::at_rest(&Setup { large_views: large, ..Setup::plain(HOSTS, policies) })
    }

    fn view_of(world: &World, host: usize) -> View {
        world.hosts[host].supervisor.as_ref().unwrap().view.clone()
    }

    #[test]
    fn every_host_has_the_view_that_is_committed_after_a_lost_coordinator_and_an_agent_that_began_anew() {
        for large in [false, true] {
            let mut world = world(large);
            for round in 0..6 {
                world.happen(&Happening::CoordinatorCrash { back: 2_000 });
                world.happen(&Happening::SupervisorCrash { host: round % HOSTS, back: 1_000 });
                let guest = world.state().guests.keys().next().unwrap().clone();
                world.happen(&Happening::GuestExits { guest });
                world.happen(&Happening::BadNetwork { host: (round + 1) % HOSTS, time: 3_000, loss: 300, late: 400 });
                world.run_until(world.real() + 30_000);
                assert_eq!(world.violation(), None, "large: {large}");
            }
            assert!(world.seen.news_of_changes > 0, "nobody was told only what had changed");
            for host in 0..HOSTS {
                assert_eq!(view_of(&world, host).index, world.state().view_changed, "large: {large}, host {host}");
                assert_eq!(world.is_behind(host, world.now), None);
                assert_eq!(world.versions.complaint(&view_of(&world, host)), None, "large: {large}, host {host}");
            }
        }
    }

    #[test]
    fn a_view_that_lacks_or_adds_anything_is_noticed() {
        let world = world(false);
        let view = view_of(&world, 0);
        assert_eq!(world.versions.complaint(&view), None);
        type Tamper = fn(&mut View);
        let tampered: [(&str, Tamper); 7] = [
            ("where guests run", |view| drop(view.homes.pop_first())),
            ("where supervisors listen", |view| drop(view.hosts.pop_first())),
            ("what is declared", |view| drop(Arc::make_mut(&mut view.policies).fencing.pop_first())),
            ("the index", |view| view.index -= 1),
            ("never was", |view| view.mark = view.mark.map(|mark| ViewMark { index: mark.index + 1, ..mark })),
            ("never was", |view| view.mark = view.mark.map(|mark| ViewMark { generation: 7, ..mark })),
            ("never was", |view| (view.mark, view.index) = (None, view.index + 1)),
        ];
        for (what, tamper) in tampered {
            let mut other = view.clone();
            tamper(&mut other);
            let complaint = world.versions.complaint(&other).unwrap_or_default();
            assert!(complaint.contains(what), "{what}: {complaint}");
        }
    }

    #[test]
    fn a_host_that_is_told_nothing_new_is_noticed() {
        let mut world = world(false);
        assert_eq!((0..HOSTS).find_map(|host| world.is_behind(host, world.now)), None);
        let is = view_of(&world, 1).index;
        world.hosts[1].supervisor.as_mut().unwrap().view = View::default();
        assert_eq!(world.is_behind(1, world.now), Some((0, is)));
        assert_eq!(world.is_behind(1, 0), None, "nothing was committed so early");
        assert_eq!(world.violation(), None);
        world.now += KNOWN_WITHIN;
        world.check_told_views(1);
        assert_eq!(world.violation().unwrap().promise, "R4");
    }
}
