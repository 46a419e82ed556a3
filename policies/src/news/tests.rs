use proptest::prelude::*;

use super::*;
use crate::{
    fixture::{Stage, boot, declaration, host, name},
    reply::view,
    state::{Guest, Phase, Tenure},
};

/// Something that changes the view, or that somebody looks.
#[derive(Debug, Clone)]
enum Step {
    /// The guest runs on the host, or nowhere.
    Home(u8, Option<u8>),
    /// The host is known no more, or is there again.
    Host(u8),
    /// Other policies are declared: with or without this guest.
    Declare(u8),
    /// A host is told what is new to it.
    Tell(u8),
    /// Another voter takes the lead: it has not looked so far.
    Elect,
    /// A generation begins.
    Recover,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_u8, proptest::option::of(0..3_u8)).prop_map(|(guest, on)| Step::Home(guest, on)),
        2 => (0..3_u8).prop_map(Step::Host),
        1 => (0..4_u8).prop_map(Step::Declare),
        6 => (0..4_u8).prop_map(Step::Tell),
        1 => Just(Step::Elect),
        1 => Just(Step::Recover),
    ]
}

const HOSTS: [&str; 3] = ["a", "b", "c"];
const GUESTS: [&str; 4] = ["db", "mail", "shop", "web"];

struct Play {
    state: ClusterState,
    ledger: Ledger,
    /// What each of some hosts has.
    views: [View; 4],
}

impl Play {
    fn new() -> Self {
        let state = Stage::new(&HOSTS, &GUESTS).state;
        Self { ledger: Ledger::begun(&state), state, views: [(); 4].map(|()| View::default()) }
    }

    fn changed(&mut self) {
        self.state.applied += 1;
        self.state.view_changed = self.state.applied;
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Home(guest, on) => {
                let epoch = Epoch { generation: self.state.generation, index: self.state.applied + 1 };
                let guest =
                    self.state.guests.entry(name(GUESTS[usize::from(*guest)])).or_insert_with(|| Guest::declared(0));
                guest.phase = match on.map(|on| HOSTS[usize::from(on)]) {
                    Some(on) => {
                        let tenure = Tenure { host: host(on), incarnation: boot(&format!("{on}.1")), epoch };
                        Phase::Running { tenure, since: epoch.index, verified: true, action: None }
                    }
                    None => Phase::Unplaced,
                };
                self.changed();
            }
            Step::Host(of) => {
                let of = host(HOSTS[usize::from(*of)]);
                if self.state.hosts.remove(&of).is_none() {
                    let known = Stage::new(&HOSTS, &[]).state.hosts.remove(&of).unwrap();
                    self.state.hosts.insert(of, known);
                }
                self.changed();
            }
            Step::Declare(without) => {
                let guests: Vec<GuestName> = GUESTS.iter().map(|guest| name(guest)).collect();
                let left = guests.into_iter().filter(|guest| *guest != name(GUESTS[usize::from(*without)]));
                self.state.policies = declaration(&left.collect::<Vec<_>>(), &[]);
                self.state.guests.remove(&name(GUESTS[usize::from(*without)]));
                self.state.policy_version += 1;
                self.changed();
            }
            Step::Tell(to) => {
                self.tell(usize::from(*to));
            }
            Step::Elect => self.ledger = Ledger::begun(&self.state),
            Step::Recover => {
                self.state.generation += 1;
                self.changed();
            }
        }
    }

    /// The host gets what is new to it, and has the whole view then. How much that was is returned.
    fn tell(&mut self, to: usize) -> usize {
        self.ledger.look(&self.state);
        let known = &self.views[to];
        let mark = known.mark.unwrap_or_default();
        let news = self.ledger.news(mark);
        let written = serde_json::to_string(&news).unwrap();
        let news: News = serde_json::from_str(&written).unwrap();
        let said = news.homes.len() + news.hosts.len();
        let declared = (!mark.declares_as(news.to)).then(|| Arc::new(self.state.policies.clone()));
        self.views[to] = news.onto(known, declared).expect("they fit to the view that they were made for");
        assert_eq!(self.views[to], view(&self.state));
        said
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever is told after whatever time, by whatever coordinator, has the view that the whole state makes.
    #[test]
    fn whoever_takes_in_what_is_new_has_the_whole_view(steps in prop::collection::vec(step(), 1..60)) {
        let mut play = Play::new();
        for step in &steps {
            play.step(step);
        }
        for to in 0..play.views.len() {
            play.tell(to);
        }
    }
}

#[test]
fn a_move_of_one_guest_is_told_in_one_line() {
    let mut play = Play::new();
    for guest in 0..4 {
        play.step(&Step::Home(guest, Some(0)));
    }
    assert_eq!(play.tell(0), 7, "all at first");
    assert_eq!(play.tell(0), 0);
    play.step(&Step::Home(2, Some(1)));
    assert_eq!(play.tell(0), 1);
    play.step(&Step::Home(2, None));
    play.step(&Step::Declare(3));
    assert_eq!(play.tell(0), 2, "and what is no more, in one each");
    play.step(&Step::Elect);
    play.step(&Step::Home(1, Some(2)));
    assert_eq!(play.tell(0), 1, "a new coordinator has looked before that");
    assert_eq!(play.tell(1), 5, "whoever comes late gets all that there is");
}

#[test]
fn a_coordinator_that_began_to_look_later_tells_everything() {
    let mut play = Play::new();
    play.tell(0);
    play.step(&Step::Home(1, Some(0)));
    play.step(&Step::Elect);
    play.step(&Step::Home(2, Some(0)));
    assert_eq!(play.tell(0), 5, "it does not know what changed before");
}

#[test]
fn news_that_do_not_fit_are_not_taken_in() {
    let mut play = Play::new();
    play.tell(0);
    let known = play.views[0].clone();
    play.step(&Step::Home(1, Some(0)));
    play.ledger.look(&play.state);
    let news = play.ledger.news(known.mark.unwrap());
    assert!(news.clone().onto(&known, None).is_some());
    assert_eq!(news.clone().onto(&View::default(), Some(Arc::default())), None, "it lacks what was before");
    let lacks = View { mark: known.mark.map(|mark| ViewMark { policies: 0, ..mark }), ..known.clone() };
    assert_eq!(news.clone().onto(&lacks, None), None, "nobody says what is declared");
    let other = View { mark: known.mark.map(|mark| ViewMark { generation: 7, ..mark }), ..known.clone() };
    assert_eq!(news.clone().onto(&other, Some(Arc::default())), None, "of another generation");
    let later = View { mark: known.mark.map(|mark| ViewMark { index: news.to.index + 1, ..mark }), ..known };
    assert_eq!(news.onto(&later, None), None, "they came late");
}

#[test]
fn guests_that_come_and_go_do_not_fill_the_ledger() {
    let mut play = Play::new();
    play.tell(0);
    for row in 0..3 * GONE_MAX {
        let guest = name(&format!("guest-{row}"));
        let tenure = Tenure { host: host("a"), incarnation: boot("a.1"), epoch: Epoch::default() };
        let phase = Phase::Running { tenure, since: 1, verified: true, action: None };
        play.state.guests.insert(guest.clone(), Guest { phase, ..Guest::declared(0) });
        play.changed();
        play.ledger.look(&play.state);
        play.state.guests.remove(&guest);
        play.changed();
        play.ledger.look(&play.state);
        assert!(play.ledger.homes.0.len() <= GONE_MAX + 1);
    }
    play.tell(0);
}
