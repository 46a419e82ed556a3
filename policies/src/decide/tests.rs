//! Decisions by table: one situation, one promise each.

use super::*;
use crate::{
    check::check,
    evidence::{Answer, Heard, Sight, SightState},
    fixture::{Stage, boot, declaration, done, failed, host, name, off},
    names::{ServiceName, Vantage},
    observe::{GuestCondition, GuestReport},
    proof::{Power, PowerReading, Proof},
    state::{Mode, Phase},
    sync::Authority,
};

mod attempts;
mod boots;
mod budgets;
mod certificates;
mod degraded;
mod departures;
mod frozen;
mod go_aheads;
mod leases;
mod many_hosts;
mod own_resets;
mod paths;
mod power_on;
mod quarantine;
mod recovered;
mod restraint;
mod service_storms;
mod storage;
mod storms;
mod timings;
mod unplaced;
mod unwell;
mod who_counts;

/// A stage, and what the coordinator `a` has heard; all hosts vote.
pub(super) struct Scene {
    pub stage: Stage,
    pub evidence: Evidence,
    pub now: u64,
}

impl Scene {
    /// Everybody is well at second 100.
    pub fn new(hosts: &[&str], guests: &[&str]) -> Self {
        let stage = Stage::new(hosts, guests);
        let voters = hosts.iter().map(|text| host(text)).collect();
        let evidence =
            Evidence { quorum_since: Some(Moment(1_000)), me: Some(host("a")), voters, ..Evidence::default() };
        let mut scene = Self { stage, evidence, now: 100_000 };
        scene.all_well();
        scene
    }

    pub fn all_well(&mut self) {
        let hosts: Vec<String> = self.stage.state.hosts.keys().map(ToString::to_string).collect();
        for on in hosts {
            self.synced(&on, self.now);
        }
        self.evidence.marks.applied(self.stage.index, Moment(self.now));
    }

    /// The newest sync and datagram of the host came at `at`; what may run there is reported as running. It knows all that is
    /// decided, unless it is gone.
    pub fn synced(&mut self, on: &str, at: u64) {
        let known = &self.stage.state.hosts[&host(on)];
        let heard = Heard { at: Moment(at), incarnation: known.facts.incarnation.clone() };
        let here = self.stage.state.guests.iter().filter_map(|(guest, state)| {
            let tenure = state.tenures().into_iter().find(|tenure| tenure.host == host(on))?;
            let report = GuestReport::new(guest.clone(), tenure.epoch, GuestCondition::Running);
            Some((guest.clone(), report))
        });
        let reports = here.collect();
        let is_gone = matches!(known.life, Life::Gone { .. });
        let seen = self.evidence.hosts.entry(host(on)).or_default();
        if !is_gone {
            let ClusterState { generation, applied: index, .. } = self.stage.state;
            seen.seen = Authority { generation, term: 1, index };
        }
        (seen.sync, seen.heard, seen.reports) = (Some(heard.clone()), Some(heard), reports);
    }

    /// Nothing of the host came since so many milliseconds, and the other voters say the same.
    pub fn silent(&mut self, on: &str, ms: u64) {
        self.synced(on, self.now - ms);
        self.asked(on, Some(ms));
    }

    /// What every other voter answers at this moment.
    pub fn asked(&mut self, on: &str, age: Option<u64>) {
        let others: Vec<HostName> = self.evidence.voters.iter().filter(|voter| **voter != host("a")).cloned().collect();
        for voter in others {
            let answer = Answer { asked: Moment(self.now), age: age.map(Duration::from_millis), counts: true };
            self.evidence.hosts.entry(host(on)).or_default().answers.insert(voter, answer);
        }
    }

    pub fn heard(&mut self, on: &str, ago: u64) {
        let incarnation = self.stage.state.hosts[&host(on)].facts.incarnation.clone();
        let heard = Heard { at: Moment(self.now - ago), incarnation };
        self.evidence.hosts.entry(host(on)).or_default().heard = Some(heard);
    }

    /// What the level that is declared now has said.
    pub fn power(&mut self, on: &str, mut reading: PowerReading) {
        if let Some(declared) = self.stage.state.policies.levels_of(&host(on)).get(reading.level) {
            reading.declared = declared.clone();
        }
        self.evidence.hosts.entry(host(on)).or_default().read(reading);
    }

    pub fn report(&mut self, guest: &str, on: &str, condition: GuestCondition) {
        let epoch = self.stage.state.guests[&name(guest)].tenures()[0].epoch;
        let report = GuestReport::new(name(guest), epoch, condition);
        self.evidence.hosts.entry(host(on)).or_default().reports.insert(name(guest), report);
    }

    pub fn sight(&mut self, guest: &str, from: &str, state: SightState) {
        let epoch = self.stage.state.guests[&name(guest)].tenures()[0].epoch;
        let at = Moment(self.now);
        let passed = matches!(state, SightState::Passing | SightState::Slow).then_some(at);
        let sight = Sight { epoch, state, at, since: at, passed, warns: false, detail: String::new() };
        let services = self.evidence.services.entry(name(guest)).or_default();
        let sights = services.entry(ServiceName::new("http").unwrap()).or_default();
        let vantage = Vantage::Host(host(from));
        let sight = sight.following(sights.get(&vantage));
        sights.insert(vantage, sight);
    }

    /// Everybody who looks sees the guest's service like this.
    pub fn seen(&mut self, guest: &str, state: SightState) {
        for from in ["a", "b"] {
            self.sight(guest, from, state);
        }
    }

    pub fn later(&mut self, ms: u64) {
        self.evidence.marks.applied(self.stage.index, Moment(self.now));
        self.now += ms;
        self.all_well();
    }

    pub fn decide(&self) -> Decision {
        let now = Now { moment: Moment(self.now), wall: WallTime(self.now) };
        let decision = decide(&self.stage.state, &self.evidence, &Timing::default(), now);
        let judged = check(&self.stage.state, &self.evidence, &Timing::default(), now.moment, &decision.commands);
        assert!(judged.is_empty(), "the plan breaks promises: {judged:?}");
        decision
    }

    pub fn verdict(&self, on: &str) -> HostVerdict {
        self.decide().report.hosts[&host(on)].verdict
    }

    /// The commands, each by its first word.
    pub fn words(&self) -> Vec<String> {
        let first = |change: &Change| format!("{change:?}").split([' ', '(']).next().unwrap_or_default().to_owned();
        self.decide().commands.iter().map(first).collect()
    }

    /// Applies what is decided until nothing is, and returns all of it.
    pub fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..20 {
            let commands = self.decide().commands;
            if commands.is_empty() {
                return all;
            }
            all.extend(self.words());
            for command in commands {
                self.stage.apply(command);
            }
            self.evidence.marks.applied(self.stage.index, Moment(self.now));
        }
        panic!("it goes on for ever: {all:?}");
    }
}

/// Four hosts, and a guest that runs on `d`.
pub(super) fn four() -> Scene {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    scene.stage.run("web", "d");
    scene.all_well();
    scene.seen("web", SightState::Passing);
    scene
}

/// A guest that has come to run on `d` at this moment, and has six seconds to boot.
pub(super) fn started() -> Scene {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    scene.stage.place("web", "d");
    scene.stage.end("d", done());
    scene.all_well();
    scene
}

#[test]
fn a_quiet_and_healthy_cluster_is_left_alone() {
    assert_eq!(four().words(), Vec::<String>::new());
}

#[test]
fn nothing_is_decided_before_a_majority_has_confirmed_the_leader() {
    let mut scene = four();
    scene.silent("d", 60_000);
    scene.evidence.quorum_since = None;
    assert!(scene.decide().commands.is_empty());
}

// ---- hosts ----

#[test]
fn a_host_that_nobody_hears_is_fenced_and_then_its_guest_starts_elsewhere() {
    let mut scene = four();
    scene.now += 5_000;
    scene.all_well();
    scene.silent("d", 2_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
    scene.stage.end("a", done());
    scene.power("d", off("d", Moment(scene.now)));
    assert_eq!(scene.settle(), ["HostGone", "Place"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Starting { tenure, .. } if tenure.host != host("d")));
}

#[test]
fn a_silent_supervisor_with_a_living_guard_is_not_fenced() {
    let mut scene = four();
    scene.now += 20_000;
    scene.all_well();
    scene.silent("d", 20_000);
    scene.heard("d", 200);
    assert_eq!(scene.verdict("d"), HostVerdict::Isolated);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
}

#[test]
fn a_host_that_another_voter_still_hears_is_not_fenced() {
    let mut scene = four();
    scene.now += 4_000;
    scene.all_well();
    scene.silent("d", 4_000);
    let answer = Answer { asked: Moment(scene.now), age: Some(Duration::from_millis(300)), counts: true };
    scene.evidence.hosts.get_mut(&host("d")).unwrap().answers.insert(host("b"), answer);
    assert_eq!(scene.verdict("d"), HostVerdict::SupervisorDown);
}

#[test]
fn a_host_whose_guest_still_answers_a_prober_elsewhere_is_not_fenced() {
    let mut scene = four();
    scene.now += 4_000;
    scene.all_well();
    scene.silent("d", 4_000);
    scene.sight("web", "b", SightState::Passing);
    assert_eq!(scene.verdict("d"), HostVerdict::SupervisorDown);
}

#[test]
fn silence_without_the_other_voters_word_is_only_a_suspicion() {
    let mut scene = four();
    scene.now += 5_000;
    scene.all_well();
    scene.silent("d", 5_000);
    for answer in scene.evidence.hosts.get_mut(&host("d")).unwrap().answers.values_mut() {
        answer.counts = false;
    }
    assert_eq!(scene.verdict("d"), HostVerdict::Suspect);
    assert!(scene.words().is_empty());
    scene.asked("d", Some(5_000));
    scene.now += 1_001;
    scene.evidence.hosts.get_mut(&host("d")).unwrap().answers.remove(&host("b"));
    assert_eq!(scene.verdict("d"), HostVerdict::Suspect, "old answers do not count");
}

#[test]
fn two_silent_hosts_of_four_hold_fencing() {
    let mut scene = four();
    scene.now += 60_000;
    scene.all_well();
    scene.silent("c", 3_000);
    scene.silent("d", 2_000);
    assert!(scene.decide().report.storm_hold.is_some());
    assert_eq!(scene.settle(), ["IncidentOpened"], "a human is called, once");
    scene.all_well();
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn a_storm_also_holds_the_next_attempt_of_a_fence_that_is_open() {
    let mut scene = four();
    scene.now += 60_000;
    scene.all_well();
    scene.silent("d", 2_000);
    scene.stage.fence("d");
    scene.silent("c", 2_000);
    assert_eq!(scene.words(), ["IncidentOpened"]);
}

#[test]
fn a_host_that_has_long_been_silent_does_not_hold_the_fence_of_the_next_one() {
    let mut scene = four();
    scene.now += 600_000;
    scene.all_well();
    scene.silent("c", 500_000);
    scene.silent("d", 2_000);
    assert!(scene.decide().report.storm_hold.is_none());
}

#[test]
fn an_off_reading_frees_the_guests_of_the_host_at_once() {
    let mut scene = four();
    scene.now += 1_000;
    scene.all_well();
    scene.synced("d", scene.now - 900);
    assert!(scene.decide().wishes.contains(&Wish::AskPower { host: host("d"), incarnation: boot("d.1"), level: 0 }));
    scene.power("d", off("d", Moment(scene.now - 100)));
    assert_eq!(scene.settle(), ["HostGone", "Place"]);
}

#[test]
fn an_off_reading_is_void_when_any_voter_has_heard_the_host_since() {
    let mut scene = four();
    scene.now += 10_000;
    scene.all_well();
    scene.silent("d", 2_000);
    scene.power("d", off("d", Moment(scene.now - 1_000)));
    let answer = Answer { asked: Moment(scene.now), age: Some(Duration::from_millis(500)), counts: true };
    scene.evidence.hosts.get_mut(&host("d")).unwrap().answers.insert(host("b"), answer);
    assert!(!scene.words().contains(&"HostGone".to_owned()), "{:?}", scene.words());
}

#[test]
fn an_off_reading_of_an_earlier_boot_proves_nothing() {
    let mut scene = four();
    scene.stage.join("d", "d.2");
    scene.later(10_000);
    scene.silent("d", 2_000);
    scene.power("d", off("d", Moment(scene.now)));
    assert!(!scene.words().contains(&"HostGone".to_owned()), "{:?}", scene.words());
}

#[test]
fn an_on_or_unknown_reading_proves_nothing() {
    for power in [Power::On, Power::Unknown { detail: String::new() }] {
        let mut scene = four();
        scene.now += 10_000;
        scene.all_well();
        scene.silent("d", 2_000);
        scene.power("d", PowerReading { power, ..off("d", Moment(scene.now)) });
        assert_eq!(scene.words(), ["FenceOpened"]);
    }
}

#[test]
fn an_unverified_device_calls_a_human_and_is_not_asked_to_switch_off_without_pause() {
    let mut scene = four();
    let mut policies = scene.stage.state.policies.clone();
    for levels in policies.fencing.values_mut() {
        if let [crate::model::FenceLevel::Power(devices)] = &mut levels[..]
            && let [crate::model::PowerDevice::Ipmi(device)] = &mut devices[..]
        {
            device.wiring_verified_by = None;
        }
    }
    scene.stage.declare(policies);
    scene.later(10_000);
    scene.silent("d", 2_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
    scene.stage.end("a", done());
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    scene.power("d", off("d", Moment(scene.now)));
    assert_eq!(scene.settle(), ["IncidentOpened"]);
}

#[test]
fn the_coordinators_death_does_not_restart_the_wait() {
    let mut scene = four();
    scene.now += 10_000;
    scene.all_well();
    scene.silent("d", 2_000);
    // The new leader: only what datagrams said and what the voters answer; quorum since this very moment.
    let heard = scene.evidence.hosts[&host("d")].heard.clone();
    scene.evidence.quorum_since = Some(Moment(scene.now));
    let known = scene.evidence.hosts.get_mut(&host("d")).unwrap();
    (known.sync, known.heard) = (None, heard);
    assert_eq!(scene.verdict("d"), HostVerdict::Failed);
}

#[test]
fn a_host_that_a_new_coordinator_has_never_heard_is_waited_for() {
    let mut scene = four();
    scene.evidence.quorum_since = Some(Moment(scene.now));
    scene.evidence.hosts.remove(&host("d"));
    scene.now += 59_000;
    for on in ["a", "b", "c"] {
        scene.synced(on, scene.now);
    }
    scene.asked("d", None);
    assert_eq!(scene.verdict("d"), HostVerdict::Unknown);
    scene.now += 1_000;
    scene.asked("d", None);
    assert_eq!(scene.verdict("d"), HostVerdict::Failed, "R19: no waiting for ever");
}

#[test]
fn a_host_without_guests_is_not_fenced() {
    let mut scene = four();
    scene.now += 10_000;
    scene.all_well();
    scene.silent("c", 5_000);
    assert_eq!(scene.verdict("c"), HostVerdict::Failed);
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    let (what, left) = scene.decide().report.hosts[&host("c")].waits.clone().unwrap();
    assert!(what.contains("not fenced, because nothing may run there") && left == FOREVER, "{what} {left}");
}

#[test]
fn a_lost_host_without_guests_is_told_of_after_some_patience_unless_it_is_drained() {
    let silent = |mode: Mode, ms: u64| {
        let mut scene = four();
        if mode != Mode::Active {
            restraint::set_mode(&mut scene, "c", mode);
        }
        scene.now += 60_000;
        scene.all_well();
        scene.silent("c", ms);
        assert_eq!(scene.verdict("c"), HostVerdict::Failed);
        scene
    };
    assert_eq!(silent(Mode::Active, 29_000).words(), [""; 0], "it may be rebooting");
    for off_on_purpose in [Mode::Draining, Mode::Maintenance, Mode::Leaving { reboot: false }] {
        assert_eq!(silent(off_on_purpose, 50_000).words(), [""; 0], "{off_on_purpose:?}");
    }
    let mut scene = silent(Mode::Active, 30_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    let incident = scene.stage.state.open_incident("supervisor/c").unwrap();
    assert!(incident.summary.contains("heard by nobody"), "{incident:?}");
    scene.later(1_000);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn a_host_that_is_long_silent_and_of_which_too_few_voters_can_say_so_is_not_fenced_and_people_are_told() {
    let mut scene = four();
    scene.now += 200_000;
    scene.all_well();
    for (ms, expected) in [(89_000, 0), (90_000, 1)] {
        scene.silent("d", ms);
        let answers = &mut scene.evidence.hosts.get_mut(&host("d")).unwrap().answers;
        answers.values_mut().for_each(|answer| answer.counts = false);
        assert_eq!(scene.verdict("d"), HostVerdict::Suspect);
        assert_eq!(scene.settle(), vec!["IncidentOpened"; expected], "silent for {ms} ms");
    }
    let told = scene.stage.state.open_incident("supervisor/d").unwrap();
    assert!(told.human.as_ref().unwrap().contains("confirm-off d"), "{told:?}");
    scene.later(1_000);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn people_are_told_too_where_voters_cease_to_be_well_before_a_fence_that_is_open_is_attempted() {
    let mut scene = four();
    scene.stage.fence("d");
    scene.later(200_000);
    scene.silent("d", 90_000);
    let answers = &mut scene.evidence.hosts.get_mut(&host("d")).unwrap().answers;
    answers.values_mut().for_each(|answer| answer.counts = false);
    assert_eq!(scene.verdict("d"), HostVerdict::Suspect);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    assert!(scene.stage.state.open_incident("supervisor/d").is_some_and(|told| told.human.is_some()));
}

#[test]
fn a_host_without_guests_that_was_told_to_live_is_not_called_alive_when_nobody_hears_it() {
    let mut scene = four();
    scene.now += 60_000;
    scene.all_well();
    scene.silent("c", 3_000);
    scene.heard("c", 200);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    scene.silent("c", 3_000);
    assert_eq!(scene.verdict("c"), HostVerdict::Failed);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    let incident = scene.stage.state.open_incident("supervisor/c").unwrap();
    assert!(!incident.summary.contains("alive"), "{incident:?}");
}

#[test]
fn a_drained_host_that_is_switched_off_is_not_called_alive_any_more() {
    let mut scene = four();
    restraint::set_mode(&mut scene, "c", Mode::Draining);
    scene.now += 60_000;
    scene.all_well();
    scene.silent("c", 3_000);
    scene.heard("c", 200);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    scene.silent("c", 3_000);
    assert_eq!(scene.verdict("c"), HostVerdict::Failed);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn a_host_that_syncs_again_before_anything_was_sent_to_its_device_is_not_fenced() {
    let mut scene = four();
    scene.stage.fence("d");
    scene.later(1_000);
    assert_eq!(scene.settle(), ["FenceSuperseded"]);
    let mut heard = four();
    heard.stage.fence("d");
    heard.now += 5_000;
    heard.all_well();
    heard.silent("d", 5_000);
    heard.heard("d", 100);
    assert_eq!(heard.words()[0], "FenceSuperseded", "R16: only its supervisor is down");
}

#[test]
fn a_device_that_does_not_answer_does_not_hold_up_the_fence_of_another_host() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e", "f", "g"], &["web", "db"]);
    scene.stage.run("web", "d");
    scene.stage.run("db", "e");
    scene.later(600_000);
    scene.silent("d", 300_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
    scene.stage.end("a", failed());
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    scene.silent("e", 2_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"], "R21");
    assert_eq!(scene.stage.orders("a"), ["fence e by level 1"]);
}

#[test]
fn one_device_call_runs_at_a_time() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e", "f", "g"], &["web", "db"]);
    scene.stage.run("web", "d");
    scene.stage.run("db", "e");
    scene.later(600_000);
    scene.silent("d", 2_000);
    scene.silent("e", 2_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceOpened", "FenceAttempted"]);
}

#[test]
fn a_failed_attempt_goes_to_another_executor_after_a_pause() {
    let mut scene = four();
    scene.later(60_000);
    scene.silent("d", 2_000);
    scene.settle();
    scene.stage.end("a", failed());
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    scene.later(1_500);
    scene.silent("d", 3_500);
    assert_eq!(scene.settle(), ["FenceAttempted"]);
    assert_eq!(scene.stage.orders("b"), ["fence d by level 1"]);
}

#[test]
fn an_attempt_whose_executor_has_fallen_silent_ends_when_nothing_of_it_can_be_left() {
    let mut scene = four();
    scene.later(60_000);
    scene.silent("d", 2_000);
    scene.settle();
    let began = scene.now;
    let quiet = |scene: &mut Scene, now: u64| {
        scene.now = now;
        scene.all_well();
        scene.evidence.me = Some(host("b"));
        scene.silent("d", now - began + 2_000);
        // The old coordinator, which was the executor: its host is heard, its supervisor is not.
        scene.synced("a", began);
        scene.heard("a", 100);
        scene.words()
    };
    assert!(!quiet(&mut scene, began + 39_000).contains(&"OrderEnded".to_owned()), "lease, deadline and settling: R20");
    assert!(quiet(&mut scene, began + 40_000).contains(&"OrderEnded".to_owned()));
}

#[test]
fn a_host_whose_supervisor_stays_down_is_fenced_when_its_guest_fails() {
    let mut scene = four();
    scene.now += 31_000;
    scene.all_well();
    scene.silent("d", 31_000);
    scene.heard("d", 100);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
}

/// Half a minute later `d` is heard, its supervisor has been silent for that long, and `web` does not answer.
fn fails_behind_a_dead_supervisor(scene: &mut Scene) {
    scene.now += 31_000;
    scene.all_well();
    scene.silent("d", 31_000);
    scene.heard("d", 100);
    scene.seen("web", SightState::Failing);
}

#[test]
fn a_guest_at_the_end_of_its_ladder_for_which_people_have_been_called_costs_no_host_whose_supervisor_is_down() {
    let mut scene = four();
    let page = scene.stage.climb("web", 3);
    scene.stage.must(page);
    fails_behind_a_dead_supervisor(&mut scene);
    let decided = scene.settle();
    assert!(!decided.contains(&"FenceOpened".to_owned()), "{decided:?}");
    scene.stage.must(Change::LookedAfter { guest: name("web"), by: "ann".to_owned() });
    let decided = scene.settle();
    assert!(decided.contains(&"FenceOpened".to_owned()), "somebody wants it tried anew: {decided:?}");
}

/// `web` is started on `d`, by the cluster or by its ladder, and fails half a minute after `d`'s supervisor has fallen silent.
fn fails_after_its_start(by_ladder: bool, allowed: u64) -> Vec<String> {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    let mut policies = scene.stage.state.policies.clone();
    let wait = crate::time::Span::secs(allowed);
    for policy in policies.policies.values_mut() {
        policy.boot_grace = wait;
        policy.ladder = vec![crate::model::Rung::ResetGuest { tries: 2, wait }];
    }
    scene.stage.declare(policies);
    scene.stage.place("web", "d");
    scene.stage.end("d", done());
    if by_ladder {
        scene.stage.must(Change::Verified { guest: name("web"), unasked: Vec::new() });
        let reset = scene.stage.climb("web", 0);
        scene.stage.must(reset);
        scene.stage.end("d", done());
    }
    scene.all_well();
    fails_behind_a_dead_supervisor(&mut scene);
    scene.settle()
}

#[test]
fn a_guest_has_its_time_to_boot_and_its_rung_its_wait_before_it_costs_a_host_whose_supervisor_is_down() {
    for by_ladder in [false, true] {
        for (allowed, fenced) in [(32, false), (31, true)] {
            let decided = fails_after_its_start(by_ladder, allowed);
            assert_eq!(decided.contains(&"FenceOpened".to_owned()), fenced, "{by_ladder} {allowed}: {decided:?}");
        }
    }
}

/// Simulator seed 3582: it had stood still, and its own syncs were missing when it went on.
#[test]
fn a_coordinator_does_not_fence_itself_because_its_own_syncs_are_missing() {
    let mut scene = four();
    scene.now += 31_000;
    scene.all_well();
    scene.silent("d", 31_000);
    scene.heard("d", 100);
    scene.evidence.me = Some(host("d"));
    scene.seen("web", SightState::Failing);
    let decided = scene.settle();
    assert!(!decided.contains(&"FenceOpened".to_owned()), "{decided:?}");
}

#[test]
fn no_host_is_fenced_to_stop_a_guest_behind_a_silent_supervisor() {
    let mut scene = four();
    scene.now += 31_000;
    scene.all_well();
    scene.silent("d", 31_000);
    scene.heard("d", 100);
    let wanted = crate::state::Wanted::Stopped;
    scene.stage.must(Change::WantedSet { guest: name("web"), wanted, by: "ann".to_owned() });
    let decided = scene.settle();
    assert!(!decided.contains(&"FenceOpened".to_owned()), "{decided:?}");
    assert!(matches!(scene.stage.phase("web"), Phase::Releasing { .. }));
}

/// A guest that is removed while something is under way is forgotten when that has ended, and nobody waits for it.
#[test]
fn no_host_is_fenced_for_a_guest_that_was_removed_while_it_was_started_behind_a_silent_supervisor() {
    for removed in [false, true] {
        let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
        scene.stage.place("web", "d");
        if removed {
            let mut policies = scene.stage.state.policies.clone();
            policies.guests.clear();
            scene.stage.declare(policies);
        }
        assert!(matches!(scene.stage.phase("web"), Phase::Starting { .. }));
        scene.now += 31_000;
        scene.all_well();
        scene.silent("d", 31_000);
        scene.heard("d", 100);
        let decided = scene.settle();
        assert_eq!(decided.contains(&"FenceOpened".to_owned()), !removed, "{decided:?}");
    }
}

/// Its start has failed as often as it is tried, and what may be left of it is to be stopped.
#[test]
fn no_host_is_fenced_for_a_guest_that_has_been_given_up_before_a_person_has_looked_after_it() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    let mut policies = scene.stage.state.policies.clone();
    let needs = &mut policies.guests.get_mut(&name("web")).unwrap().needs;
    (needs.start_tries, needs.relocations) = (1, Some(0));
    scene.stage.declare(policies);
    scene.stage.place("web", "d");
    scene.stage.end("d", failed());
    assert!(scene.stage.state.guests[&name("web")].given_up.is_some());
    scene.now += 31_000;
    scene.all_well();
    scene.silent("d", 31_000);
    scene.heard("d", 100);
    let decided = scene.settle();
    assert!(!decided.contains(&"FenceOpened".to_owned()), "{decided:?}");
    scene.stage.must(Change::LookedAfter { guest: name("web"), by: "ann".to_owned() });
    let decided = scene.settle();
    assert!(decided.contains(&"FenceOpened".to_owned()), "somebody wants it started: {decided:?}");
}

#[test]
fn a_guest_that_has_arrived_behind_a_supervisor_that_stays_down_costs_its_host() {
    for (goes_on, fenced) in [(false, true), (true, false)] {
        let mut scene = four();
        scene.stage.migrate("web", "c");
        // It is waited for at `c`, and has been sent; then it goes on there, or is forgotten where it was.
        for on in ["c", "d", if goes_on { "c" } else { "d" }] {
            scene.stage.end(on, done());
        }
        scene.now += 31_000;
        scene.all_well();
        scene.silent("c", 31_000);
        scene.heard("c", 100);
        let decided = scene.settle();
        assert_eq!(decided.contains(&"FenceOpened".to_owned()), fenced, "{decided:?}");
    }
}

#[test]
fn a_guest_that_has_arrived_and_answers_costs_its_host_nothing_though_its_supervisor_did_not_come_to_say_so() {
    let mut scene = four();
    scene.stage.migrate("web", "c");
    for on in ["c", "d", "d"] {
        scene.stage.end(on, done());
    }
    let epoch = scene.stage.state.guests[&name("web")].home().unwrap().epoch;
    let seen = |scene: &mut Scene, state: SightState, passed: u64| {
        let (at, passed) = (Moment(scene.now), Some(Moment(passed)));
        let sight = Sight { epoch, state, at, since: at, passed, warns: false, detail: String::new() };
        let services = scene.evidence.services.entry(name("web")).or_default();
        let sights = services.entry(ServiceName::new("http").unwrap()).or_default();
        for from in ["a", "b"] {
            sights.insert(Vantage::Host(host(from)), sight.clone());
        }
    };
    scene.now += 31_000;
    scene.all_well();
    scene.silent("c", 31_000);
    scene.heard("c", 100);
    let passed = scene.now - 1_000;
    seen(&mut scene, SightState::Passing, passed);
    let decided = scene.settle();
    assert!(!decided.contains(&"FenceOpened".to_owned()), "{decided:?}");
    seen(&mut scene, SightState::Failing, passed);
    let decided = scene.settle();
    assert!(decided.contains(&"FenceOpened".to_owned()), "{decided:?}");
}

#[test]
fn a_boot_that_was_proven_gone_and_is_heard_again_calls_a_human() {
    let mut scene = four();
    let gone = scene.stage.gone("c");
    scene.stage.must(gone);
    scene.power("c", off("c", Moment(scene.now + 50)));
    assert!(scene.words().is_empty(), "what was heard before the device was asked is no contradiction");
    scene.later(1_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    assert_eq!(scene.verdict("c"), HostVerdict::Gone, "R10: it gets nothing");
}

/// `c` is proven gone, was heard again, of which people were told, and has fallen silent.
fn heard_again() -> Scene {
    let mut scene = four();
    let gone = scene.stage.gone("c");
    scene.stage.must(gone);
    scene.power("c", off("c", Moment(scene.now + 50)));
    scene.later(1_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    scene.now += 5_000;
    scene.all_well();
    scene.silent("c", 5_000);
    scene
}

#[test]
fn that_a_boot_which_was_proven_gone_was_heard_is_told_until_a_person_has_looked() {
    let mut scene = heard_again();
    assert!(scene.words().is_empty(), "its silence makes nothing well: {:?}", scene.words());
    let proof = Proof::operator(&host("c"), &boot("c.1"), "ann", Some(5_000), 1_500).unwrap();
    let confirmed = Change::HostGone { proof, last_well: None, last_words: None };
    scene.stage.must(confirmed.clone());
    assert_eq!(scene.stage.state.open_incident("fencing/c"), None);
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    scene.stage.refused(confirmed);
    scene.later(1_000);
    assert_eq!(scene.settle(), ["IncidentOpened"], "a person may be wrong too");
}

#[test]
fn that_a_boot_which_was_proven_gone_was_heard_is_over_when_the_next_one_has_joined() {
    let mut scene = heard_again();
    scene.stage.join("c", "c.2");
    scene.later(1_000);
    assert!(scene.settle().contains(&"IncidentResolved".to_owned()));
    assert_eq!(scene.stage.state.open_incident("fencing/c"), None);
}

// ---- guests ----

#[test]
fn a_guest_is_not_placed_for_the_first_time_before_every_host_has_said_that_it_is_not_there() {
    let mut scene = four();
    let hosts: Vec<HostName> = scene.stage.state.hosts.keys().cloned().collect();
    scene.stage.declare(declaration(&[name("web"), name("new")], &hosts));
    scene.later(1_000);
    scene.evidence.hosts.remove(&host("c"));
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    scene.all_well();
    assert_eq!(scene.settle(), ["GuestFree", "Place"]);
}

#[test]
fn a_guest_that_is_found_running_on_one_host_is_adopted_there() {
    let mut scene = four();
    let hosts: Vec<HostName> = scene.stage.state.hosts.keys().cloned().collect();
    scene.stage.declare(declaration(&[name("web"), name("new")], &hosts));
    scene.later(1_000);
    let epoch = crate::names::Epoch::default();
    let report = GuestReport::new(name("new"), epoch, GuestCondition::Running);
    scene.evidence.hosts.get_mut(&host("b")).unwrap().reports.insert(name("new"), report.clone());
    assert_eq!(scene.words(), ["GuestAdopted"]);
    scene.evidence.hosts.get_mut(&host("c")).unwrap().reports.insert(name("new"), report);
    assert!(!scene.words().contains(&"GuestAdopted".to_owned()), "found twice: {:?}", scene.words());
}

#[test]
fn a_paused_guest_is_not_failed() {
    let conditions = [
        GuestCondition::Paused { reason: "by hand".to_owned() },
        GuestCondition::Unknown { detail: "no answer".to_owned() },
    ];
    for condition in conditions {
        let mut scene = four();
        scene.report("web", "d", condition);
        scene.seen("web", SightState::Failing);
        assert!(scene.words().is_empty(), "{:?}", scene.words());
    }
}

#[test]
fn a_guest_whose_virtual_cpus_cannot_run_on_is_reset_though_qemu_has_it_stand_still_as_if_paused() {
    let mut scene = four();
    scene.report("web", "d", GuestCondition::Paused { reason: "internal-error".to_owned() });
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn a_guest_that_stays_sent_away_after_its_move_was_given_up_is_reset() {
    let mut scene = four();
    scene.report("web", "d", GuestCondition::Sent);
    assert!(scene.words().is_empty(), "a sync of before the end of the move may say so");
    scene.later(11_000);
    scene.report("web", "d", GuestCondition::Sent);
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn a_guest_that_has_ended_is_reset_without_waiting_for_probes() {
    let mut scene = four();
    scene.report("web", "d", GuestCondition::Exited { detail: "signal 9".to_owned() });
    assert_eq!(scene.words(), ["Climb"]);
    assert!(matches!(scene.decide().commands[0], Change::Climb { rung: 1, .. }), "a service restart cannot help");
}

#[test]
fn a_service_that_one_vantage_fails_is_degraded_and_one_that_enough_fail_has_failed() {
    let mut scene = four();
    scene.sight("web", "a", SightState::Passing);
    scene.later(10_000);
    scene.sight("web", "a", SightState::Passing);
    scene.sight("web", "b", SightState::Failing);
    assert_eq!(scene.words(), ["IncidentOpened"]);
    scene.sight("web", "a", SightState::Failing);
    assert!(matches!(scene.decide().commands[0], Change::Climb { rung: 0, .. }));
}

#[test]
fn a_service_that_nobody_could_ask_has_not_failed() {
    let mut scene = four();
    scene.seen("web", SightState::Unknown);
    assert!(scene.words().is_empty(), "S5: {:?}", scene.words());
}

#[test]
fn what_was_seen_of_an_earlier_assignment_does_not_count() {
    let mut scene = four();
    for from in ["a", "b"] {
        scene.sight("web", from, SightState::Failing);
        let sights = scene.evidence.services.get_mut(&name("web")).unwrap();
        for sight in sights.values_mut().flat_map(BTreeMap::values_mut) {
            sight.epoch = crate::names::Epoch::default();
        }
    }
    assert!(scene.words().is_empty(), "{:?}", scene.words());
}

#[test]
fn a_guest_that_took_long_to_start_still_gets_its_time_to_boot() {
    let mut scene = four();
    let failover = scene.stage.climb("web", 2);
    scene.stage.must(failover);
    scene.later(1_000);
    scene.stage.end("d", done());
    scene.later(60_000);
    scene.stage.place("web", "a");
    scene.stage.end("a", done());
    scene.later(2_000);
    scene.seen("web", SightState::Failing);
    assert!(scene.words().is_empty(), "the rung waits 8 s from when the guest runs: {:?}", scene.words());
    scene.later(8_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn a_host_starts_few_guests_at_once_and_nobody_is_paged_for_that() {
    let guests = ["g1", "g2", "g3", "g4", "g5"];
    let mut scene = Scene::new(&["a", "b"], &guests);
    assert_eq!(scene.words(), ["Place"; 4]);
    scene.settle();
    scene.later(60_000);
    assert!(scene.words().is_empty(), "{:?}", scene.words());
}

#[test]
fn starts_that_fail_go_here_then_elsewhere_then_here_again() {
    let mut scene = Scene::new(&["a", "b", "c"], &["web"]);
    let mut policies = scene.stage.state.policies.clone();
    policies.policies.values_mut().for_each(|policy| policy.cool_down = crate::time::Span::secs(600));
    scene.stage.declare(policies);
    let mut tried = Vec::new();
    for _ in 0..12 {
        scene.later(61_000);
        assert_eq!(scene.settle(), ["Place"]);
        let Phase::Starting { tenure, .. } = scene.stage.phase("web").clone() else { panic!("not starting") };
        tried.push(tenure.host.to_string());
        scene.stage.end(tenure.host.as_str(), failed());
        scene.stage.end(tenure.host.as_str(), done());
    }
    assert_eq!(tried, ["a", "a", "b", "b", "c", "c", "a", "a", "b", "b", "c", "c"]);
}

#[test]
fn a_guest_that_fits_nowhere_is_wanted_for_ever_and_told_once() {
    let mut scene = Scene::new(&["a", "b"], &[]);
    let mut policies = declaration(&[name("big")], &[host("a"), host("b")]);
    policies.guests.get_mut(&name("big")).unwrap().qemu.memory_mib = 100_000;
    scene.stage.declare(policies);
    scene.later(1_000);
    assert_eq!(scene.settle(), ["GuestFree"]);
    scene.later(10_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
}

#[test]
fn a_drained_host_loses_its_guests_one_after_another() {
    let mut scene = Scene::new(&["a", "b"], &["g1", "g2"]);
    for guest in ["g1", "g2"] {
        scene.stage.run(guest, "a");
    }
    scene.stage.must(Change::ModeSet { host: host("a"), mode: Mode::Draining, by: "ann".to_owned() });
    scene.later(20_000);
    for guest in ["g1", "g2"] {
        scene.seen(guest, SightState::Passing);
    }
    assert_eq!(scene.words(), ["Migrate"]);
}

#[test]
fn a_move_that_fails_is_not_tried_again_in_the_same_breath() {
    let mut scene = four();
    scene.stage.must(Change::ModeSet { host: host("d"), mode: Mode::Draining, by: "ann".to_owned() });
    scene.later(20_000);
    assert_eq!(scene.settle(), ["Migrate"]);
    let Phase::Migrating(migration) = scene.stage.phase("web").clone() else { panic!("it moves") };
    let to = migration.target.unwrap().host.to_string();
    scene.stage.end(&to, failed());
    scene.stage.end(&to, done());
    scene.later(1_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["Verified"]);
    scene.later(10_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["Migrate"]);
}

#[test]
fn a_stop_that_failed_is_tried_again_after_a_pause_also_in_a_move() {
    let mut scene = four();
    scene.stage.migrate("web", "a");
    scene.stage.end("a", failed());
    scene.stage.end("a", failed());
    scene.later(9_500);
    assert!(!scene.words().contains(&"ReleaseAgain".to_owned()));
    scene.later(10_000);
    assert_eq!(scene.settle(), ["ReleaseAgain"]);
}

#[test]
fn only_what_another_host_has_taken_over_is_superseded() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    let Phase::Running { tenure, .. } = stage.phase("web").clone() else { panic!("it runs") };
    let report = GuestReport::new(name("web"), tenure.epoch, GuestCondition::Running);
    assert!(guests::superseded(&stage.state, &host("a"), std::slice::from_ref(&report)).is_empty());
    let reset = stage.climb("web", 1);
    stage.must(reset);
    assert!(
        guests::superseded(&stage.state, &host("a"), std::slice::from_ref(&report)).is_empty(),
        "its own start stops it"
    );
    let gone = stage.gone("a");
    stage.must(gone);
    stage.place("web", "b");
    assert_eq!(guests::superseded(&stage.state, &host("a"), &[report]), [(name("web"), tenure.epoch)]);
}

#[test]
fn a_host_that_is_proven_gone_keeps_no_guest_that_other_tools_have_moved_there() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    let Phase::Running { tenure, .. } = stage.phase("web").clone() else { panic!("it runs") };
    let report = GuestReport::new(name("web"), tenure.epoch, GuestCondition::Running);
    let superseded = |stage: &Stage| guests::superseded(&stage.state, &host("b"), std::slice::from_ref(&report));
    assert!(superseded(&stage).is_empty(), "it may be followed there");
    let gone = stage.gone("b");
    stage.must(gone);
    assert_eq!(superseded(&stage), [(name("web"), tenure.epoch)], "R10");
    let unmanaged = crate::state::Wanted::Unmanaged;
    stage.must(Change::WantedSet { guest: name("web"), wanted: unmanaged, by: "ann".to_owned() });
    assert!(superseded(&stage).is_empty(), "it is left alone");
}
