//! The shapes that others rely on, on a handmade state: `web-1` fails over from `h1` to `h2`.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::{
    bound::{Limits, bounds},
    change::{Change, Command, Refused},
    decide::{FOREVER, GuestJudgement, HostJudgement, HostVerdict, Report, ServiceJudgement, ServiceVerdict},
    feature_level::FeatureLevel,
    hostfile::Timing,
    ladder::LadderKind,
    model::{FenceLevel, Severity},
    names::{GuestName, HostName, Incarnation, OrderId, ServiceName},
    order::OrderOutcome,
    proof::{Power, PowerReading, Proof, QUIET},
    revocation::Revocation,
    state::{ClusterState, Heading, HostFacts, Mode, Quarantine, QuarantineCause, Wanted},
    time::{Moment, WallTime},
};
use serde_json::json;

use super::*;

/// When it began: 2026-03-02T03:04:05.000Z.
const BEGAN: u64 = 1_772_420_645_000;
const POLICIES: &str = "
guests:
  web-1: { labels: { app: web }, address: 10.0.0.21, qemu: { memory: 128MiB, disks: [{ path: /srv/web-1.raw, format: raw }] } }
policies:
  web:
    match: { app: web }
    services: { http: { probe: { tcp: { port: 80 } }, every: 1s, timeout: 500ms, fails_after: 3 } }
    ladder: [{ restart_service: { run: [restart] } }, { failover: { tries: 2 } }]
fencing:
  h1: [{ ipmi: { address: 10.0.9.1, user: u, password_file: /pw, wiring_verified_by: ann } }]
";

pub(crate) fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

pub(crate) fn guest(name: &str) -> GuestName {
    GuestName::new(name).unwrap()
}

fn boot(name: &str) -> Incarnation {
    Incarnation::new(format!("boot-{name}")).unwrap()
}

/// A state to which commands are applied at given times.
struct Told {
    state: ClusterState,
    index: u64,
}

impl Told {
    fn at(&mut self, after_ms: i64, what: Change) {
        self.index += 1;
        let at = WallTime(BEGAN.checked_add_signed(after_ms).unwrap());
        let applied = self.state.apply(self.index, Command { at, what });
        assert_eq!(applied.refused, None);
    }

    fn done(&mut self, after_ms: i64) {
        let order = OrderId(self.state.last_order);
        self.at(after_ms, Change::OrderEnded { order, outcome: OrderOutcome::done("ok") });
    }
}

/// What a host says of itself.
pub(crate) fn facts(incarnation: &str, machine: &str) -> HostFacts {
    HostFacts {
        incarnation: Incarnation::new(incarnation).unwrap(),
        machine_id: machine.to_owned(),
        address: "10.0.0.1:7400".parse().unwrap(),
        memory_mib: 1024,
        cores: 2,
        guests: true,
    }
}

fn joined(name: &str) -> Change {
    Change::HostJoined { host: host(name), facts: facts(boot(name).as_str(), name), follows: None }
}

pub(crate) fn failed_over() -> ClusterState {
    let mut told = Told { state: ClusterState::born(), index: 0 };
    let place = |name: &str| Change::Place { guest: guest("web-1"), host: host(name), why: "it has room".to_owned() };
    told.at(-90_000, joined("h1"));
    told.at(-90_000, joined("h2"));
    let sources = BTreeMap::from([("web.yaml".to_owned(), POLICIES.to_owned())]);
    let (policies, _) = plan(&told.state.policies, &sources).unwrap();
    let by = "ann".to_owned();
    told.at(-80_000, Change::PoliciesApplied { policies: Box::new(policies), sources, base_version: 0, by });
    let said = BTreeMap::from(["h1", "h2"].map(|name| (host(name), boot(name))));
    let proof = Proof::not_here([host("h1"), host("h2")], &said).unwrap();
    told.at(-70_000, Change::GuestFree { guest: guest("web-1"), proof });
    told.at(-70_000, place("h1"));
    told.done(-69_000);
    told.at(-60_000, Change::Verified { guest: guest("web-1"), unasked: Vec::new() });
    let asked = Moment(5_000);
    let reading = PowerReading {
        incarnation: boot("h1"),
        asked,
        power: Power::Off,
        devices: vec!["10.0.9.1".into()],
        level: 0,
        declared: FenceLevel::Operator {},
        asker: None,
    };
    let proof = Proof::power_off(&host("h1"), &boot("h1"), &reading, Some("ann"), None, QUIET).unwrap();
    told.at(800, Change::HostGone { proof, last_well: Some(WallTime(BEGAN)), last_words: None });
    told.at(810, place("h2"));
    told.done(1_810);
    told.at(4_810, Change::Verified { guest: guest("web-1"), unasked: Vec::new() });
    told.state
}

fn report() -> Report {
    let healthy = ServiceJudgement::plain(ServiceVerdict::Healthy, vec!["inside passes 1s ago (ok)".into()]);
    let services = [(ServiceName::new("http").unwrap(), healthy)].into_iter().collect();
    let judgement = GuestJudgement { services, doing: "runs on h2".into(), ..GuestJudgement::default() };
    let judged = |verdict| HostJudgement {
        verdict,
        silent_ms: 0,
        unsynced_ms: 0,
        evidence: vec![],
        unwell: None,
        last_words: None,
        waits: None,
        safe_at: None,
    };
    let hosts = BTreeMap::from([(host("h1"), judged(HostVerdict::Gone)), (host("h2"), judged(HostVerdict::Healthy))]);
    Report { hosts, guests: BTreeMap::from([(guest("web-1"), judgement)]), storm_hold: None }
}

pub(crate) fn shown() -> Status {
    let facts = Facts {
        cluster: "c1".into(),
        leader: Some(host("h2")),
        quorum: true,
        term: 3,
        voters: vec![host("h1"), host("h2"), host("h3")],
        mute_voters: vec![],
        now: WallTime(BEGAN + 60_000),
        abilities: BTreeMap::new(),
        alert_troubles: vec![],
    };
    status(&failed_over(), &report(), &facts)
}

fn explained() -> Explanation {
    explain(&failed_over(), &report(), &guest("web-1"), &Timing::default()).unwrap()
}

#[test]
fn the_status_has_the_published_shape() {
    let value = serde_json::to_value(shown()).unwrap();
    assert_eq!((&value["leader"], &value["quorum"], &value["term"]), (&json!("h2"), &json!(true), &json!(3)));
    assert_eq!((&value["storm_hold"], &value["policy_version"]), (&json!(null), &json!(1)));
    assert_eq!(value["suspended_by"], json!(null));
    let (gone, well) = (&value["hosts"]["h1"], &value["hosts"]["h2"]);
    assert_eq!((&gone["verdict"], &gone["life"], &gone["guests"]), (&json!("gone"), &json!("gone"), &json!([])));
    assert_eq!(gone["proof"], "10.0.9.1 says that h1 is off (wiring verified by ann)");
    let expected = json!({
        "verdict": "healthy", "evidence": [], "incarnation": "boot-h2", "mode": "active", "mode_on_return": null,
        "voter": true, "runs_guests": true,
        "memory_mib": 1024, "guests": ["web-1"], "life": "up", "proof": null, "waits": null, "unwell": null,
        "last_words": null, "quarantine": null, "distrusted": [], "kept": [], "safe_at": null,
        "fencing": {}, "drilled_by": null
    });
    assert_eq!(*well, expected);
    assert_eq!(gone["fencing"], json!({ "1": { "proven_ago_ms": null, "wiring": "ann", "unreached": {} } }));
    let expected = json!({
        "state": "running", "wanted": "running", "host": "h2", "epoch": "1.9", "verified": true, "doing": "runs on h2", "waits": null,
        "services": { "http": { "verdict": "healthy", "evidence": ["inside passes 1s ago (ok)"], "degraded": null, "warns": false, "waits_for": null } },
        "given_up": null, "heading": null, "strays": []
    });
    assert_eq!(value["guests"]["web-1"], expected);
    let incident = value["incidents"].as_array().unwrap().iter().find(|one| one["key"] == "guest/web-1").unwrap();
    let keys: BTreeSet<&str> = incident.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = "human id key lasted_ms open opened_at proof resolved_at rung severity stages summary";
    assert_eq!(keys, wanted.split(' ').collect());
    assert_eq!(incident["opened_at"], "2026-03-02T03:04:05.800Z");
    assert_eq!(incident["resolved_at"], "2026-03-02T03:04:09.810Z");
    let stages = json!({ "detect_ms": 800, "fence_ms": 0, "place_ms": 10, "start_ms": 1_000, "verify_ms": 3_000 });
    assert_eq!(
        (&incident["open"], &incident["rung"], &incident["stages"]),
        (&json!(false), &json!("failover"), &stages)
    );
    assert_eq!(serde_json::from_value::<Status>(value).unwrap(), shown());
}

#[test]
fn a_guest_whose_services_are_not_judged_shows_a_map_of_none() {
    let mut report = report();
    report.guests.get_mut(&guest("web-1")).unwrap().services = GuestJudgement::default().services;
    let shown = status(&failed_over(), &report, &Facts::default());
    let value = serde_json::to_value(&shown).unwrap();
    assert_eq!(value["guests"]["web-1"]["services"], json!({}));
    assert_eq!(serde_json::from_value::<Status>(value).unwrap(), shown);
}

#[test]
fn the_text_begins_with_what_is_wrong() {
    let text = shown().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "WRONG");
    assert!(lines[1].starts_with("  ERROR host/h1 for 59 s: h1 is off"), "{text}");
    assert!(text.contains("  voter h3 has not joined yet\n  host h1 is gone\n\nCluster c1"), "{text}");
    assert!(text.contains("\nweb-1  running  h2    1.9    1 healthy  runs on h2\n"), "{text}");
    let nothing = Status { cluster: "c1".into(), quorum: true, leader: Some(host("h1")), ..empty() };
    assert!(nothing.to_string().starts_with("All is well.\n"));
    let lost = Status { quorum: false, ..empty() };
    let text = lost.to_string();
    assert!(text.starts_with("WRONG\n  NO QUORUM"), "{text}");
    assert!(text.contains("go on, on a host with a `lease` level for as long as its lease lasts.\n"), "{text}");
}

#[test]
fn a_voter_that_does_not_answer_as_one_is_told_of_where_its_host_is_well() {
    let mute = Status { mute_voters: vec![host("h1"), host("h2"), host("h3")], ..shown() };
    let text = mute.to_string();
    assert!(text.contains("\n  host h2 does not answer as a voter, though its supervisor does: "), "{text}");
    assert_eq!(text.matches("does not answer as a voter").count(), 1, "h1 is gone and h3 has not joined: {text}");
}

#[test]
fn of_many_guests_those_that_are_well_are_only_counted() {
    let shown = shown();
    let (well, running) = (shown.guests[&guest("web-1")].clone(), |n: usize| guest(&format!("g-{n}")));
    let mut many = Status { guests: (0..60).map(|n| (running(n), well.clone())).collect(), ..shown.clone() };
    many.guests.get_mut(&running(7)).unwrap().state = "waiting".to_owned();
    let short = Short(&many).to_string();
    assert!(short.contains("\ng-7    waiting") && !short.contains("g-8 "), "{short}");
    assert!(short.ends_with("59 of 60 guests are well and not shown: `holdfast status --all`\n"), "{short}");
    assert!(many.to_string().contains("\ng-8 ") && !many.to_string().contains("not shown"), "{many}");
    assert_eq!(Short(&shown).to_string(), shown.to_string(), "few are listed all the same");
}

#[test]
fn a_maintenance_that_a_shutdown_was_announced_in_stays_in_sight() {
    let mut state = failed_over();
    let known = state.hosts.get_mut(&host("h2")).unwrap();
    known.mode = Mode::Leaving { reboot: false };
    known.mode_on_return = Mode::Maintenance;
    let shown = status(&state, &report(), &Facts::default());
    assert_eq!(serde_json::to_value(&shown).unwrap()["hosts"]["h2"]["mode_on_return"], "maintenance");
    assert!(shown.to_string().contains("  shutting_down, then maintenance  "), "{shown}");
    state.hosts.get_mut(&host("h2")).unwrap().mode_on_return = Mode::Active;
    let shown = status(&state, &report(), &Facts::default());
    assert!(shown.to_string().contains("  shutting_down  "), "{shown}");
}

#[test]
fn what_keeps_a_host_from_guests_is_shown_with_what_ends_it() {
    let (mut state, mut report) = (failed_over(), report());
    let known = state.hosts.get_mut(&host("h2")).unwrap();
    known.quarantine = Some(Quarantine { cause: QuarantineCause::FencedOften { times: 3 }, since: 1 });
    known.distrusted.insert(0);
    known.kept.insert(guest("web-1"));
    report.hosts.get_mut(&host("h2")).unwrap().waits = Some(("a person to look".to_owned(), FOREVER));
    let known = state.guests.get_mut(&guest("web-1")).unwrap();
    known.given_up = Some("no image".to_owned());
    known.strays.insert(host("h1"), 7);
    let shown = status(&state, &report, &Facts::default());
    let value = serde_json::to_value(&shown).unwrap();
    let (on, of) = (&value["hosts"]["h2"], &value["guests"]["web-1"]);
    assert_eq!((&on["quarantine"], &on["distrusted"]), (&json!("it was fenced 3 times within an hour"), &json!([1])));
    assert_eq!((&on["kept"], &on["waits"]), (&json!(["web-1"]), &json!("a person to look, however long it takes")));
    assert_eq!((&of["given_up"], &of["strays"]), (&json!("no image"), &json!(["h1"])));
    let text = shown.to_string();
    for line in [
        "host h2 is quarantined and gets no guests: it was fenced 3 times within an hour",
        "host h2: the power device of level 1 is not trusted, and not used",
        "guest web-1 is not started any more: no image; look at it, then `holdfast guest cleanup web-1`",
        "guest web-1 is to be stopped on h1, which may not run it",
        "up, waits for a person to look, however long it takes, kept for it: web-1",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[test]
fn who_is_revoked_and_who_keeps_the_feature_level_low_is_shown() {
    let mut state = failed_over();
    let (by, why, boots) = ("ann".to_owned(), "stolen".to_owned(), Vec::new());
    let lost = Revocation { since: 1, by, why, boots, keys: [].into(), readmitted: None };
    state.revoked.insert(host("h3"), lost.clone());
    state.revoked.insert(host("h4"), Revocation { readmitted: Some("5f".parse().unwrap()), ..lost });
    let highest = FeatureLevel::HIGHEST;
    let abilities =
        BTreeMap::from([(host("h1"), Some(FeatureLevel(1))), (host("h2"), Some(highest)), (host("h5"), None)]);
    let facts = Facts { abilities, ..Facts::default() };
    let shown = status(&state, &report(), &facts);
    let value = serde_json::to_value(&shown).unwrap();
    assert_eq!((&value["feature_level"], &value["behind"]), (&json!(1), &json!({ "h1": 1, "h5": null })));
    assert_eq!(value["revoked"]["h3"], json!({ "by": "ann", "why": "stolen", "readmitted": null }));
    let text = shown.to_string();
    let held_back = "comes when all hosts can do it: h1 can do 1, h5 has not said what it can do";
    for line in [
        format!("\nFeature level 1; {highest} {held_back}.\n").as_str(),
        "\nThe certificates of h3 are revoked, by ann: stolen.\n",
        "\nThe certificates of h4, but for 5f are revoked, by ann: stolen.\n",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    state.level = highest;
    let raised = status(&state, &report(), &facts).to_string();
    let line = format!("\nFeature level {highest}; what is older is to be upgraded: h1 can do 1.\n");
    assert!(raised.contains(&line), "one that has come back, and not h5, which is merely away: {raised}");
    let facts = Facts::default();
    assert!(!status(&state, &report(), &facts).to_string().contains("Feature level"));
}

fn empty() -> Status {
    status(&ClusterState::born(), &Report::default(), &Facts::default())
}

#[test]
fn the_explanation_shows_the_bound_and_tells_the_story_in_order() {
    let value = serde_json::to_value(explained()).unwrap();
    let bound = |failure: &str| {
        value["bound"].as_array().unwrap().iter().find(|bound| bound["failure"] == failure).cloned().unwrap_or_default()
    };
    assert_eq!(
        (&bound("app failed")["detect_ms"], &bound("app failed")["act"]),
        (&json!(3_750), &json!("restart_service"))
    );
    // A command has 30 s and a turn; a failover as much again, 20 s to stop, another turn, and 90 s of waiting, twice.
    let app = bound("app failed");
    assert_eq!((&app["within_ms"], &app["rungs"][0]["within_ms"]), (&json!(318_750), &json!(34_750)));
    assert_eq!(bound("guest process died")["act"], "failover");
    // The guest is on h2, which has no power device.
    assert_eq!((&bound("host died")["detect_ms"], &bound("host died")["act"]), (&json!(1_700), &json!("page")));
    let incident = &value["incidents"][0];
    assert_eq!((&incident["key"], &incident["rung"]), (&json!("guest/web-1"), &json!("failover")));
    let story = incident["story"].as_array().unwrap();
    let told: Vec<(i64, &str)> =
        story.iter().map(|line| (line["after_ms"].as_i64().unwrap(), line["what"].as_str().unwrap())).collect();
    let expected = [
        (0, "the last sign that web-1 was well"),
        (800, "h1 is proven gone: 10.0.9.1 says that h1 is off (wiring verified by ann)"),
        (810, "web-1 is to start on h2 under epoch 1.9: it has room"),
        (1_810, "h2 has done o2 (start web-1 under epoch 1.9): ok"),
        (1_810, "web-1 runs on h2: ok"),
        (4_810, "all services of web-1 on h2 answer"),
        (4_810, "guest/web-1 is well again"),
    ];
    for line in expected {
        assert!(told.contains(&line), "{line:?} is not in {told:#?}");
    }
    assert!(told.is_sorted_by_key(|(after, _)| *after), "{told:?}");
    assert_eq!(serde_json::from_value::<Explanation>(value).unwrap(), explained());
    let mut told = report();
    told.guests.get_mut(&guest("web-1")).unwrap().happened = vec!["it reset itself 12s ago (watchdog)".to_owned()];
    let text = explain(&failed_over(), &told, &guest("web-1"), &Timing::default()).unwrap().to_string();
    assert!(text.contains("\n  it reset itself 12s ago (watchdog)\n  http is healthy: "), "{text}");
    for line in [
        "\n  app failed (http): seen within 3750ms, back within 319s\n    ladder, 315s: 31s if restart_service helps, 315s if failover",
        "\n  host died: seen within 1700ms; nothing bounds when it is back: a person makes sure that h2 is off",
        "\n    start, no bound: no other host takes guests at present\n",
        "\n    stretched by 53s: every start of it that fails",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    assert_eq!(explain(&failed_over(), &report(), &guest("web-9"), &Timing::default()), None);
}

#[test]
fn whoever_mistypes_a_name_is_told_what_may_have_been_meant() {
    let state = failed_over();
    let unknown = |text: &str| Denied::Unknown(text.to_owned());
    assert_eq!(
        no_guest(&state, &guest("wbe-1")),
        unknown("there is no guest wbe-1"),
        "two letters of five are another word"
    );
    assert_eq!(no_guest(&state, &guest("web1")), unknown("there is no guest web1; did you mean web-1?"));
    assert_eq!(no_guest(&state, &guest("h1")), unknown("there is no guest h1; that is a host"));
    assert_eq!(no_host(&state, &host("web-1")), unknown("there is no host web-1; that is a guest"));
    assert_eq!(no_host(&state, &host("nowhere")), unknown("there is no host nowhere; the hosts are h1, h2"));
}

#[test]
fn a_guest_in_which_nothing_is_asked_is_explained_with_the_reason() {
    let mut state = failed_over();
    let shown = |state: &ClusterState| {
        let explained = explain(state, &Report::default(), &guest("web-1"), &Timing::default()).unwrap();
        explained.to_string()
    };
    assert!(!shown(&state).contains("nothing in it is asked"), "{}", shown(&state));
    for policy in state.policies.policies.values_mut() {
        policy.services.clear();
    }
    let line = "\n  nothing in it is asked, only its machine is looked after: its policy, web, names no services\n";
    assert!(shown(&state).contains(line), "{}", shown(&state));
    state.policies.policies.clear();
    let line = "looked after: no policy matches its labels\n";
    assert!(shown(&state).contains(line), "{}", shown(&state));
}

#[test]
fn a_host_whose_power_device_proves_is_replaced_before_the_voters_are_sure() {
    let mut state = failed_over();
    let device = state.policies.fencing.remove(&host("h1")).unwrap();
    state.policies.fencing.insert(host("h2"), device);
    let bounds = bounds(&state, &guest("web-1"), &Timing::default(), &Limits::default());
    let told: Vec<(&str, u64, &str)> =
        bounds.iter().skip(2).map(|bound| (bound.failure.word(), bound.detect_ms, bound.act.as_str())).collect();
    let expected = [
        ("host died, power device answers", 750, "failover"),
        ("coordinator's host died, power device answers", 1_950, "failover"),
        ("host frozen or cut off", 1_700, "fence, failover"),
        ("host died, power device does not answer", 1_700, "fence, page"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_is_so_already_is_no_failure_and_what_does_not_exist_is_named() {
    let already = of_refusal(Refused::Already { why: "h1 is in that mode".into() });
    assert_eq!(already, Ok(Answer::Ignored { why: "h1 is in that mode".into() }));
    let unknown = of_refusal(Refused::NoHost { host: host("h9") });
    assert_eq!(unknown, Err(Denied::Unknown("there is no host h9".into())));
}

#[test]
fn the_journal_answers_the_newest_entries_oldest_first() {
    let state = failed_over();
    let lines = journal(&state, 2);
    assert_eq!(lines.len(), 2);
    assert!(lines[0].index <= lines[1].index && lines[1].at == "2026-03-02T03:04:09.810Z", "{lines:?}");
    assert!(journal(&state, usize::MAX).len() > 2);
}

#[test]
fn a_request_with_a_key_that_is_not_known_is_refused() {
    let request = r#"{"drain":{"host":"h1","by":"ann","force":true}}"#;
    assert!(serde_json::from_str::<Request>(request).is_err());
    assert_eq!(serde_json::to_string(&Request::Status).unwrap(), r#""status""#);
}

#[test]
fn an_explanation_says_what_is_wanted_what_is_given_up_and_where_it_is_going() {
    let mut state = failed_over();
    let explained =
        |state: &ClusterState| explain(state, &report(), &guest("web-1"), &Timing::default()).unwrap().to_string();
    let calm = explained(&state);
    let extra = ["\n  operators want it", "\n  given up:", "\n  on its way"];
    assert!(extra.iter().all(|line| !calm.contains(line)), "{calm}");
    let known = state.guests.get_mut(&guest("web-1")).unwrap();
    known.wanted = Wanted::Unmanaged;
    known.given_up = Some("every host has failed to start it".to_owned());
    known.heading = Some(Heading { to: host("h1"), by: Some("ann".to_owned()) });
    let text = explained(&state);
    for line in [
        "  operators want it unmanaged\n",
        "  given up: every host has failed to start it; look after it, then run `holdfast guest cleanup web-1`\n",
        "  on its way to h1, as ann has asked\n",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
}

#[test]
fn the_last_words_of_a_host_that_is_not_well_stand_in_status_and_explanation() {
    let mut report = report();
    let judged = report.hosts.get_mut(&host("h2")).unwrap();
    judged.verdict = HostVerdict::Isolated;
    judged.last_words = Some("the lease runs out in 900 ms".to_owned());
    let state = failed_over();
    let shown = status(&state, &report, &Facts::default()).to_string();
    assert!(shown.contains("  host h2 is isolated\n      its last words: the lease runs out in 900 ms\n"), "{shown}");
    let explained = explain(&state, &report, &guest("web-1"), &Timing::default()).unwrap().to_string();
    assert!(explained.contains("\n  last words of h2: the lease runs out in 900 ms\n"), "{explained}");
}

#[test]
fn the_story_of_a_degraded_service_tells_afterwards_who_saw_what() {
    let mut told = Told { state: failed_over(), index: 1_000 };
    let key = "degraded/web-1".to_owned();
    let evidence = ["host:h1 passes 1s ago (status 200)", "host:h2 is slow 0s ago (2.1s)"].map(str::to_owned).into();
    let opened = Change::IncidentOpened {
        key: key.clone(),
        severity: Severity::Warning,
        summary: "http of web-1 is slow for host:h2, and answers the others well".to_owned(),
        human: None,
        guests: Vec::new(),
        evidence,
    };
    told.at(20_000, opened);
    told.at(50_000, Change::IncidentResolved { key });
    let explained = explain(&told.state, &report(), &guest("web-1"), &Timing::default()).unwrap();
    let story: Vec<(i64, &str)> =
        explained.incidents[0].story.iter().map(|line| (line.after_ms, line.what.as_str())).collect();
    let expected = [
        (0, "seen: host:h1 passes 1s ago (status 200); host:h2 is slow 0s ago (2.1s)"),
        (30_000, "degraded/web-1 is well again"),
    ];
    assert_eq!(story, expected);
}

#[test]
fn the_story_of_a_guest_tells_what_was_last_seen_of_it_before_it_was_stopped() {
    let mut told = Told { state: failed_over(), index: 1_000 };
    let climb = Change::Climb {
        guest: guest("web-1"),
        rung: 1,
        ladder: LadderKind::Recovery,
        to: None,
        why: "http does not answer".to_owned(),
        evidence: Vec::new(),
        last_well: None,
    };
    told.at(20_000, climb);
    let last_seen = Some("panicked; its console ended: not syncing".to_owned());
    let (order, detail) = (OrderId(told.state.last_order), "nothing of it is left here".to_owned());
    told.at(20_100, Change::OrderEnded { order, outcome: OrderOutcome::Done { detail, uri: None, last_seen } });
    let explained = explain(&told.state, &report(), &guest("web-1"), &Timing::default()).unwrap();
    let story = &explained.incidents[0].story;
    let line = "nothing of it is left here; last seen: panicked; its console ended: not syncing";
    assert!(story.iter().any(|told| told.what.ends_with(line)), "{story:#?}");
    let shown = Answer::Journal(journal(&told.state, 100));
    for answer in [shown, Answer::Explanation(explained)] {
        let (whole, public) = (answer.content().to_string(), answer.without_consoles().content().to_string());
        assert!(whole.contains("not syncing"), "{whole}");
        assert!(!public.contains("not syncing") && public.contains("nothing of it is left here; what was"), "{public}");
    }
}
