//! The lease's record against a host that does whatever it may: no proof while a guest can run there.

use proptest::prelude::*;

use super::*;
use crate::{
    agent::{Action, Agent, Disk},
    armed::ArmedWatchdog,
    fence_level::LeaseLevel,
    fixture::{Stage, boot, declaration, facts, host, name},
    hostfile::Timing,
    model::FenceLevel,
    proof::{NoProof, Proof},
    reply::reply,
    sync::{Authority, SyncReply},
};

fn armed(guard_ms: u64, timeout_ms: u64) -> Armed {
    let watchdog = ArmedWatchdog { identity: "iTCO_wdt".to_owned(), timeout_ms, is_virtual: false };
    Armed { stops: true, guard_ms, watchdog: Some(watchdog) }
}

fn policies(lease: Option<LeaseLevel>) -> Policies {
    let mut policies = declaration(&[name("web")], &[host("a"), host("d")]);
    let levels = lease.map_or(FenceLevel::Operator {}, FenceLevel::Lease);
    policies.fencing.insert(host("d"), vec![levels]);
    policies
}

fn said(stage: &Stage, armed: Option<Armed>) -> Change {
    let index = stage.index;
    let incarnation = boot("d.1");
    Change::HostArmed { host: host("d"), incarnation, armed, lease_ms: 4_000, known_view: index, seen: index }
}

fn closed() -> Change {
    Change::LeaseClosed { host: host("d"), incarnation: boot("d.1") }
}

fn stage() -> Stage {
    let mut stage = Stage::new(&["a", "d"], &["web"]);
    stage.declare(policies(Some(LeaseLevel::default())));
    stage
}

#[test]
fn the_wait_is_the_lease_the_guard_and_the_watchdog_with_a_margin_on_the_whole() {
    let longest = Longest { lease_ms: 4_000, guard_ms: 1_000, watchdog_ms: 10_000 };
    assert_eq!(longest.wait(), Duration::from_millis(15_000 + 750));
    let ground = Ground { longest, watchdog: "iTCO_wdt".to_owned(), closed: Some(7) };
    let proof = |now| Proof::lease_expired(&host("d"), &boot("d.1"), &ground, Moment(50_000), Moment(now));
    assert_eq!(proof(65_749), Err(NoProof::LeaseLasts { host: host("d"), left_ms: 1 }));
    let text = proof(65_750).unwrap().to_string();
    assert_eq!(
        text,
        "the lease of d ran out (4s), and its guard (1s) and its watchdog iTCO_wdt (10s) have had their time"
    );
}

/// R1: a host whose clocks are slow by all that is trusted has reset itself, and not a millisecond is waited beyond that.
#[test]
fn the_wait_outlasts_the_slowest_guard_and_watchdog_that_are_trusted() {
    for (lease_ms, guard_ms, watchdog_ms) in
        [(4_000, 1_000, 10_000), (4_000, 1_000, 60_000), (4_000, 1_000, 300_000), (4_001, 999, 3_333), (1, 0, 0)]
    {
        let counted = lease_ms + guard_ms + watchdog_ms;
        let wait = millis(Longest { lease_ms, guard_ms, watchdog_ms }.wait());
        assert!(wait * 100 >= counted * 105, "{wait} ms for {counted} ms");
        assert!((wait - 1) * 100 < counted * 105, "{wait} ms for {counted} ms");
    }
    let endless = Longest { lease_ms: u64::MAX, guard_ms: u64::MAX, watchdog_ms: u64::MAX };
    assert_eq!(millis(endless.wait()), u64::MAX);
}

#[test]
fn nothing_is_proven_while_a_lease_may_still_be_granted() {
    let ground = Ground { longest: Longest::default(), watchdog: String::new(), closed: None };
    let proof = Proof::lease_expired(&host("d"), &boot("d.1"), &ground, Moment(0), Moment(1_000_000));
    assert_eq!(proof, Err(NoProof::LeaseOpen { host: host("d") }));
}

#[test]
fn only_a_guard_that_stops_guests_with_a_watchdog_to_rely_on_is_a_ground() {
    let virtual_one = || {
        let mut armed = armed(1_000, 10_000);
        armed.watchdog.as_mut().unwrap().is_virtual = true;
        Some(armed)
    };
    let cases = [
        (Some(armed(1_000, 10_000)), None, true),
        (None, None, false),
        (Some(Armed { watchdog: None, ..armed(1_000, 0) }), None, false),
        (Some(Armed { stops: false, ..armed(1_000, 10_000) }), None, false),
        (virtual_one(), None, false),
        (virtual_one(), Some("ann".to_owned()), true),
    ];
    for (what, watchdog_trusted_by, counts) in cases {
        let mut stage = stage();
        stage.declare(policies(Some(LeaseLevel { watchdog_trusted_by })));
        let change = said(&stage, what.clone());
        stage.must(change);
        assert_eq!(stage.state.lease_ground(&host("d")).is_ok(), counts, "{what:?}");
    }
}

#[test]
fn a_shorter_time_shortens_no_wait() {
    let mut stage = stage();
    for (guard_ms, timeout_ms) in [(1_000, 30_000), (2_000, 10_000), (500, 5_000)] {
        let change = said(&stage, Some(armed(guard_ms, timeout_ms)));
        stage.must(change);
    }
    let longest = Longest { lease_ms: 4_000, guard_ms: 2_000, watchdog_ms: 30_000 };
    assert_eq!(stage.state.lease_ground(&host("d")).unwrap().longest, longest);
}

#[test]
fn what_is_armed_counts_only_from_an_agent_that_knows_the_declaration_in_force() {
    let mut stage = stage();
    let late = said(&stage, Some(armed(1_000, 10_000)));
    stage.declare(policies(None));
    stage.refused(late.clone());
    stage.declare(policies(Some(LeaseLevel::default())));
    stage.refused(late);
    assert_eq!(stage.state.lease_ground(&host("d")), Err(NoGround::NotRecorded));
}

#[test]
fn what_was_said_before_the_newest_word_was_committed_does_not_replace_it() {
    let mut stage = stage();
    let earlier = said(&stage, Some(armed(1_000, 10_000)));
    let newer = said(&stage, None);
    stage.must(newer);
    stage.refused(earlier);
}

#[test]
fn a_guard_that_has_begun_anew_is_recorded_also_while_its_host_waits_for_a_disk() {
    let mut stage = stage();
    for what in [Some(armed(1_000, 10_000)), None] {
        let change = said(&stage, what);
        stage.must(change);
    }
    let since = stage.state.hosts[&host("d")].lease.record.as_ref().unwrap().since;
    let recorded = |known_view| {
        let seen = Authority { generation: 1, term: 1, index: 1 };
        let request = request(&stage.state, Some(armed(1_000, 10_000)), 9, seen, known_view);
        to_record(&stage.state, &request, Duration::from_millis(4_000))
    };
    assert_eq!(recorded(since - 1), None, "that may have been sent before");
    let change = recorded(since).unwrap();
    stage.must(change);
}

#[test]
fn a_proof_that_was_made_before_the_host_came_back_and_left_again_is_refused() {
    let mut stage = stage();
    let change = said(&stage, Some(armed(1_000, 10_000)));
    stage.must(change.clone());
    stage.must(closed());
    let ground = stage.state.lease_ground(&host("d")).unwrap();
    let proof = Proof::lease_expired(&host("d"), &boot("d.1"), &ground, Moment(0), Moment(100_000)).unwrap();
    let gone = Change::HostGone { proof, last_well: None, last_words: None };
    stage.must(change);
    stage.refused(gone.clone());
    stage.must(closed());
    stage.refused(gone);
}

#[test]
fn a_new_boot_has_armed_nothing_yet() {
    let mut stage = stage();
    let change = said(&stage, Some(armed(1_000, 10_000)));
    stage.must(change.clone());
    stage.join("d", "d.2");
    assert_eq!(stage.state.lease_ground(&host("d")), Err(NoGround::NotRecorded));
    stage.refused(change);
}

#[test]
fn a_lease_that_is_longer_than_the_record_waits_for_a_new_one() {
    let mut stage = stage();
    let change = said(&stage, Some(armed(1_000, 10_000)));
    stage.must(change);
    let request =
        request(&stage.state, Some(armed(1_000, 10_000)), 1, Authority { index: stage.index, ..seen() }, stage.index);
    let lease = |ms| {
        reply(&stage.state, &request, 1, Duration::from_millis(ms), &crate::go_ahead::GoAheads::nothing()).lease_ms
    };
    assert_eq!((lease(4_000), lease(4_001)), (Some(4_000), None));
    assert!(to_record(&stage.state, &request, Duration::from_millis(4_000)).is_none());
    assert!(to_record(&stage.state, &request, Duration::from_millis(9_000)).is_some());
}

#[test]
fn what_a_host_has_armed_is_not_committed_before_it_has_learned_of_the_generation_that_would_count_on_it() {
    let mut stage = stage();
    stage.recover();
    // Its leases may still be granted by another generation, whose indexes are as high.
    let told = |generation: u32| {
        let seen = Authority { generation, term: 9, index: u64::MAX };
        let request = request(&stage.state, Some(armed(1_000, 10_000)), 1, seen, u64::MAX);
        to_record(&stage.state, &request, Duration::from_millis(4_000)).is_some()
    };
    assert!(!told(stage.state.generation - 1) && told(stage.state.generation));
}

#[test]
fn a_host_that_says_that_it_has_no_watchdog_cannot_be_made_to_rely_on_its_lease() {
    let stage = Stage::new(&["a", "d"], &["web"]);
    let none = Armed { watchdog: None, ..armed(1_000, 0) };
    let refused = |armed: Option<Armed>, has_watchdog| {
        let mut evidence = Evidence::default();
        let heard = evidence.hosts.entry(host("d")).or_default();
        heard.sync = Some(Heard { at: Moment(1), incarnation: boot("d.1") });
        (heard.armed, heard.has_watchdog) = (armed, has_watchdog);
        let found = unarmed(&stage.state, &evidence, &policies(Some(LeaseLevel::default())));
        matches!(found, Some(Unarmed::Lacks { .. }))
    };
    assert!(refused(None, Some(false)) && refused(Some(none), Some(true)));
    assert!(!refused(None, Some(true)) && !refused(None, None), "its guard has not said");
    assert!(!refused(Some(armed(1_000, 10_000)), Some(true)));
}

#[test]
fn a_host_of_which_it_is_not_known_whether_it_has_a_watchdog_is_not_made_to_rely_on_its_lease() {
    let stage = Stage::new(&["a", "d"], &["web"]);
    let lease = policies(Some(LeaseLevel::default()));
    let heard = |incarnation: &str, armed: Option<Armed>| {
        let mut evidence = Evidence::default();
        let heard = evidence.hosts.entry(host("d")).or_default();
        heard.sync = Some(Heard { at: Moment(1), incarnation: boot(incarnation) });
        (heard.armed, heard.has_watchdog) = (armed, Some(true));
        evidence
    };
    let well = || Some(armed(1_000, 10_000));
    for (evidence, why) in [
        (heard("d.1", None), "its guard has not said yet"),
        (Evidence::default(), "it has not been heard"),
        (heard("d.0", well()), "it has not been heard"),
    ] {
        let found = unarmed(&stage.state, &evidence, &lease);
        let Some(Unarmed::Unknown { host: of, why: said }) = &found else { panic!("{why}: {found:?}") };
        assert!(*of == host("d") && said.starts_with(why), "{said}, not {why}");
    }
    assert_eq!(unarmed(&stage.state, &heard("d.1", well()), &lease), None);
    let without = unarmed(&stage.state, &Evidence::default(), &policies(None));
    assert_eq!(without, None, "who does not rely on it needs none");

    // A host that has never joined waits for it, too; one that is known to have none is named first.
    let mut more = lease.clone();
    more.fencing.insert(host("new"), vec![FenceLevel::Lease(LeaseLevel::default())]);
    let found = unarmed(&stage.state, &heard("d.1", well()), &more);
    assert!(matches!(&found, Some(Unarmed::Unknown { host: of, .. }) if *of == host("new")), "{found:?}");
    more.fencing.insert(host("a"), vec![FenceLevel::Lease(LeaseLevel::default())]);
    let mut evidence = heard("d.1", Some(Armed { watchdog: None, ..armed(1_000, 0) }));
    evidence.hosts.entry(host("a")).or_default();
    let found = unarmed(&stage.state, &evidence, &more);
    assert!(matches!(&found, Some(Unarmed::Lacks { host: of, .. }) if *of == host("d")), "{found:?}");
}

#[test]
fn a_host_that_is_gone_keeps_nobody_from_declaring_and_what_is_open_is_said() {
    let mut stage = Stage::new(&["a", "d"], &["web"]);
    let lease = policies(Some(LeaseLevel::default()));
    assert_eq!(left_open(&stage.state, &lease), Vec::<String>::new());
    let gone = stage.gone("d");
    stage.must(gone);
    assert_eq!(unarmed(&stage.state, &Evidence::default(), &lease), None);
    let open = left_open(&stage.state, &lease);
    assert!(open.len() == 1 && open[0].starts_with("? d is gone"), "{open:?}");
    assert_eq!(left_open(&stage.state, &policies(None)), Vec::<String>::new());
}

fn seen() -> Authority {
    Authority { generation: 1, term: 1, index: 0 }
}

fn request(state: &ClusterState, armed: Option<Armed>, nonce: u64, seen: Authority, known_view: u64) -> SyncRequest {
    let facts = state.hosts.get(&host("d")).map_or_else(|| facts("d", "d.1"), |known| known.facts.clone());
    SyncRequest { nonce, seen, known_view, armed, ..SyncRequest::of(host("d"), facts) }
}

/// A host, the way to it, and leaders that follow one another. Time is everybody's; its drift is the margin's business.
struct Play {
    stage: Stage,
    now: u64,
    term: u64,
    authority_since: u64,
    granted: Option<u64>,
    /// What an earlier leader knew when it was replaced.
    before: Option<(ClusterState, u64, u64)>,
    agent: Agent,
    nonce: u64,
    sent: Vec<(u64, u64)>,
    requests: Vec<SyncRequest>,
    replies: Vec<SyncReply>,
    /// What the guard has really armed.
    really: Option<Armed>,
    /// It is to disarm, and says so already.
    disarming: bool,
    /// The last moment at which a guest can run, by all leases that it has had; `None` for ever.
    can_run_until: Option<u64>,
    lease_until: u64,
    views: BTreeMap<u64, bool>,
}

const LEASE: u64 = 4_000;

impl Play {
    fn new() -> Self {
        let stage = stage();
        let disk = Disk { floors_known: true, ..Disk::default() };
        let agent = Agent::new(boot("d.1"), Timing::default(), disk, None);
        Self {
            stage,
            now: 100_000,
            term: 1,
            authority_since: 100_000,
            granted: None,
            before: None,
            agent,
            nonce: 0,
            sent: Vec::new(),
            requests: Vec::new(),
            replies: Vec::new(),
            really: None,
            disarming: false,
            can_run_until: Some(0),
            lease_until: 0,
            views: BTreeMap::new(),
        }
    }

    fn wants_lease_level(&self) -> bool {
        self.views.get(&self.agent.view()).copied().unwrap_or(false)
    }

    fn send(&mut self) {
        self.nonce += 1;
        self.sent.push((self.nonce, self.now));
        let says = self.really.clone().filter(|_| !self.disarming);
        let (seen, view) = (self.agent.disk().authority, self.agent.view());
        self.requests.push(request(&self.stage.state, says, self.nonce, seen, view));
    }

    /// The leader takes a request in, commits what it says, and answers from what was committed before or after.
    fn take(&mut self, pick: usize, round_age: u64) {
        if self.requests.is_empty() {
            return;
        }
        let request = self.requests.remove(pick % self.requests.len());
        let began = self.now.saturating_sub(round_age).max(self.authority_since);
        if let Some(change) = to_record(&self.stage.state, &request, Duration::from_millis(LEASE)) {
            self.stage.apply(change);
        }
        let left = Duration::from_millis(LEASE - (self.now - began));
        let reply = reply(&self.stage.state, &request, self.term, left, &crate::go_ahead::GoAheads::nothing());
        if reply.lease_ms.is_some() {
            self.granted = self.granted.max(Some(began));
        }
        self.replies.push(reply);
    }

    /// A leader that has been replaced answers from what it knew, by a round that it began before.
    fn answer_of_the_replaced(&mut self, pick: usize) {
        let Some((state, term, replaced)) = self.before.clone().filter(|_| !self.requests.is_empty()) else { return };
        let request = self.requests.remove(pick % self.requests.len());
        let lease = LEASE.saturating_sub(self.now - replaced);
        self.replies.push(reply(
            &state,
            &request,
            term,
            Duration::from_millis(lease),
            &crate::go_ahead::GoAheads::nothing(),
        ));
    }

    fn deliver(&mut self, pick: usize) {
        if self.replies.is_empty() {
            return;
        }
        let reply = self.replies.remove(pick % self.replies.len());
        let nonce = reply.nonce;
        let Some((_, sent)) = self.sent.iter().find(|(known, _)| *known == nonce).copied() else { return };
        let Ok(actions) = self.agent.on_reply(reply, nonce, Moment(sent), Moment(self.now)) else { return };
        self.sent.retain(|(known, _)| *known > nonce);
        for action in actions {
            match action {
                // One that is over when it is heard of has nothing run on, nor a watchdog petted.
                Action::Grant(until) if until.0 <= self.now => {}
                Action::Grant(until) => self.lease_until = self.lease_until.max(until.0),
                Action::Look(view) => {
                    self.views.insert(view.index, view.policies.lease_level(&host("d")).is_some());
                    // From here on it says nothing of what it is about to disarm.
                    self.disarming |= !self.wants_lease_level() && self.really.is_some();
                }
                Action::Persist(_) | Action::Carry(_) | Action::StopSuperseded { .. } | Action::SyncNow => {}
            }
        }
        self.note_lease();
    }

    /// Guests run as long as they may: to the end of the lease, and of the guard's and the watchdog's time.
    fn note_lease(&mut self) {
        self.can_run_until = match &self.really {
            Some(Armed { stops: true, guard_ms, watchdog: Some(watchdog) }) => {
                Some(self.lease_until + guard_ms + watchdog.timeout_ms)
            }
            Some(_) | None => None,
        };
    }

    /// The guard does what its agent knows of the policies; armed, it never becomes slower.
    fn guard(&mut self, guard_ms: u64, timeout_ms: u64) {
        if self.disarming || !self.wants_lease_level() {
            (self.really, self.disarming) = (None, false);
        } else {
            let before =
                self.really.as_ref().map(|armed| (armed.guard_ms, armed.watchdog.as_ref().unwrap().timeout_ms));
            let (most_guard, most_timeout) = before.unwrap_or((u64::MAX, u64::MAX));
            self.really = Some(armed(guard_ms.min(most_guard), timeout_ms.min(most_timeout)));
        }
        self.note_lease();
    }

    fn evidence(&self) -> Evidence {
        let mut evidence = Evidence { authority_since: Some(Moment(self.authority_since)), ..Evidence::default() };
        let granted = self.granted.map(|at| Heard { at: Moment(at), incarnation: boot("d.1") });
        evidence.hosts.entry(host("d")).or_default().granted = granted;
        evidence
    }

    /// The leader takes the host for gone as soon as it has a proof, whatever it hears.
    fn prove(&mut self) -> bool {
        let evidence = self.evidence();
        let Ok(ground) = self.stage.state.lease_ground(&host("d")) else { return false };
        let granted = last_grant(&self.stage.state, &evidence, &host("d")).unwrap();
        let Ok(proof) = Proof::lease_expired(&host("d"), &boot("d.1"), &ground, granted, Moment(self.now)) else {
            return false;
        };
        self.stage.apply(Change::HostGone { proof, last_well: None, last_words: None }).refused.is_none()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Send,
    Take(usize, u64),
    AnswerOfTheReplaced(usize),
    Deliver(usize),
    Guard(u64, u64),
    Declare(bool),
    Close,
    Elect,
    Prove,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u64..6_000).prop_map(Step::Pass),
        6 => Just(Step::Send),
        6 => (0_usize..4, 0_u64..400).prop_map(|(pick, age)| Step::Take(pick, age)),
        2 => (0_usize..4).prop_map(Step::AnswerOfTheReplaced),
        6 => (0_usize..4).prop_map(Step::Deliver),
        3 => (0_u64..2_000, 1_000_u64..15_000).prop_map(|(guard, timeout)| Step::Guard(guard, timeout)),
        1 => any::<bool>().prop_map(Step::Declare),
        2 => Just(Step::Close),
        1 => Just(Step::Elect),
        3 => Just(Step::Prove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Requests and replies are late, lost and out of order, leaders follow one another, policies take the lease level away
    /// and give it back, the guard disarms and arms anew: a proof is accepted only when no guest can run there any more.
    #[test]
    fn no_boot_is_proven_gone_by_its_lease_while_a_guest_can_run_there(steps in prop::collection::vec(step(), 1..80)) {
        let mut play = Play::new();
        for step in steps {
            match step {
                Step::Pass(ms) => play.now += ms,
                Step::Send => play.send(),
                Step::Take(pick, age) => play.take(pick, age),
                Step::AnswerOfTheReplaced(pick) => play.answer_of_the_replaced(pick),
                Step::Deliver(pick) => play.deliver(pick),
                Step::Guard(guard_ms, timeout_ms) => play.guard(guard_ms, timeout_ms),
                Step::Declare(lease) => {
                    let level = lease.then(LeaseLevel::default);
                    let (version, by) = (play.stage.state.policy_version, "ann".to_owned());
                    let policies = Box::new(policies(level));
                    play.stage.apply(Change::PoliciesApplied { policies, sources: BTreeMap::new(), base_version: version, by });
                }
                Step::Close => { play.stage.apply(closed()); }
                Step::Elect => {
                    play.before = Some((play.stage.state.clone(), play.term, play.now));
                    (play.term, play.authority_since, play.granted) = (play.term + 1, play.now, None);
                }
                Step::Prove => if play.prove() {
                    prop_assert!(play.can_run_until.is_some_and(|until| until <= play.now),
                        "proven at {}, and guests can run until {:?}", play.now, play.can_run_until);
                    return Ok(());
                },
            }
        }
    }
}

/// The play does reach proofs, or the property above would say nothing.
#[test]
fn a_host_that_was_armed_and_fell_silent_is_proven_gone() {
    let mut play = Play::new();
    for _ in 0..4 {
        play.send();
        play.take(0, 0);
        play.deliver(0);
        play.guard(1_000, 10_000);
    }
    assert!(play.lease_until > play.now, "it has a lease");
    play.stage.apply(closed());
    play.now += (LEASE + 11_000) * 21 / 20 - 1;
    assert!(!play.prove(), "a millisecond too early");
    play.now += 1;
    assert!(play.prove());
    assert!(play.can_run_until.is_some_and(|until| until <= play.now));
}
