//! What lies on disks and comes from hosts that are not upgraded yet: log entries, a snapshot, what agents and the coordinator say to
//! each other, and an agent's file, as they were written by the version before there were feature levels (R26).
//!
//! The files in `older/` hold every kind of each that this version knew, written by hand from its types. They are never brought up
//! to date: what cannot be read any more, or is read as something else, has to be mended where it is read.

use std::collections::BTreeSet;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    agent::Disk,
    bound::Bound,
    change::{Change, Command},
    feature_level::FeatureLevel,
    fence_path::WiredBy,
    fixture::{host, name},
    ladder::LadderKind,
    proof::ProofKind,
    state::{ClusterState, Life, Mode, Phase},
    sync::{SyncReply, SyncRequest},
    time::Span,
};

mod second;

const ENTRIES: &str = include_str!("older/entries.json");
const STATE: &str = include_str!("older/state.json");
const REQUEST: &str = include_str!("older/request.json");
const REPLY: &str = include_str!("older/reply.json");
const AGENT: &str = include_str!("older/agent.json");

/// Reads what an older version wrote, and checks that writing it again loses nothing of it.
fn read<T: DeserializeOwned + Serialize>(text: &str) -> T {
    let read: T = serde_json::from_str(text).unwrap();
    kept("it", &serde_json::from_str(text).unwrap(), &serde_json::to_value(&read).unwrap());
    read
}

/// Checks that everything that an older version wrote is there, as it was. What this version adds is not looked at.
fn kept(path: &str, old: &Value, new: &Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let path = format!("{path}.{key}");
                let found = new.get(key).unwrap_or_else(|| panic!("{path} is lost"));
                kept(&path, value, found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (number, (old, new)) in old.iter().zip(new).enumerate() {
                kept(&format!("{path}[{number}]"), old, new);
            }
        }
        (old, new) => assert_eq!(old, new, "{path}"),
    }
}

/// The keys that this version adds to what an older one wrote.
fn added(old: &Value, new: &Value) -> BTreeSet<String> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let fresh = new.keys().filter(|key| !old.contains_key(*key)).cloned();
            let within = old.iter().filter_map(|(key, old)| Some(added(old, new.get(key)?)));
            fresh.chain(within.flatten()).collect()
        }
        (Value::Array(old), Value::Array(new)) => old.iter().zip(new).flat_map(|(old, new)| added(old, new)).collect(),
        _ => BTreeSet::new(),
    }
}

/// The words for the kinds of what is in a list, each under the key `what`.
fn kinds(list: &Value) -> BTreeSet<String> {
    let kind = |entry: &Value| match &entry["what"] {
        Value::String(word) => word.clone(),
        Value::Object(fields) => fields.keys().next().unwrap().clone(),
        other => panic!("{other} is of no kind"),
    };
    list.as_array().unwrap().iter().map(kind).collect()
}

#[test]
fn every_log_entry_of_an_older_version_is_read_as_it_was_meant() {
    assert_eq!(kinds(&serde_json::from_str(ENTRIES).unwrap()).len(), 42, "as many as that version knew");
    let entries: Vec<Command> = read(ENTRIES);
    assert!(entries.iter().all(|entry| entry.what.level() == FeatureLevel::BIRTH));
    let changes: Vec<&Change> = entries.iter().map(|entry| &entry.what).collect();
    assert!(matches!(changes[0], Change::HostJoined { follows: None, .. }));
    let proofs = changes.iter().filter_map(|change| match change {
        Change::HostGone { proof, .. } => Some(proof.kind()),
        _ => None,
    });
    let proofs: Vec<&ProofKind> = proofs.collect();
    assert!(
        matches!(proofs[..], [ProofKind::PowerOff { .. }, ProofKind::LeaseExpired { .. }, ProofKind::Operator { .. }]),
        "{proofs:?}"
    );
    assert!(changes.iter().any(|change| matches!(change, Change::Climb { ladder: LadderKind::Storage, rung: 1, .. })));
    let declared = changes.iter().find_map(|change| match change {
        Change::PoliciesApplied { policies, .. } => Some(policies),
        _ => None,
    });
    let declared = declared.unwrap();
    let qemu = &declared.guests[&name("web-1")].qemu;
    assert!(qemu.vsock.is_none() && qemu.display.is_none() && qemu.cpu.is_none());
    let cluster = &declared.cluster;
    assert_eq!((cluster.fences_per_hour, cluster.quarantine_after_fences), (Some(3), None));
    assert!(cluster.is_hard("iops") && cluster.weight("iops") == 100, "capacities count as they did");
    assert_eq!(declared.level(), FeatureLevel::BIRTH);
}

/// A key that is added here has to be thought of: what operators declare needs the level that it comes with (`Policies::level`), and
/// what is noted beside that begins anew when all voters note it (`begin_alike`), or is not written before.
#[test]
fn what_this_version_adds_to_the_state_is_known() {
    let state: ClusterState = read(STATE);
    let news = added(&serde_json::from_str(STATE).unwrap(), &serde_json::to_value(&state).unwrap());
    let declared = ["capacities", "cpu", "display", "quarantine_after_fences", "vsock"];
    let begun_anew = ["asker", "denials", "executor", "failed_moves", "fencing_since", "shuns"];
    // What an order to send a guest has within it is its deadline, and that is what it was (`time_to_send`).
    let not_before = ["allowed", "level", "revoked", "within"];
    let known = declared.into_iter().chain(begun_anew).chain(not_before).map(str::to_owned);
    assert_eq!(news, known.collect::<BTreeSet<String>>());
    let news =
        added(&serde_json::from_str(ENTRIES).unwrap(), &serde_json::to_value(read::<Vec<Command>>(ENTRIES)).unwrap());
    let known = declared.into_iter().chain(["denied", "follows"]).map(str::to_owned);
    assert_eq!(news, known.collect::<BTreeSet<String>>());
}

#[test]
fn a_snapshot_of_an_older_version_is_read_as_it_was_meant() {
    let written: Value = serde_json::from_str(STATE).unwrap();
    assert_eq!(kinds(&written["journal"]).len(), 39, "as many as that version knew");
    let state: ClusterState = read(STATE);
    assert_eq!((state.level, state.revoked.len(), state.applied), (FeatureLevel::BIRTH, 0, 50));
    let [a, b, c] = ["hv-a", "hv-b", "hv-c"].map(|of| &state.hosts[&host(of)]);
    let Life::Fencing(fence) = &a.life else { panic!("{:?}", a.life) };
    assert_eq!((fence.attempts, &fence.allowed), (1, &None));
    assert_eq!((a.mode, a.fencing_since), (Mode::Leaving { reboot: false }, 0));
    assert_eq!((a.paths[0].failures, a.paths[0].denials), (2, 0));
    assert_eq!((&b.wired[0].how, &b.wired[0].asker), (&WiredBy::MachineId, &None));
    assert!(b.drill.as_ref().is_some_and(|drill| drill.executor.is_none()));
    assert!(matches!(c.life, Life::Gone { .. }));
    let web = &state.guests[&name("web-1")];
    assert!(matches!(web.phase, Phase::Running { verified: true, .. }));
    assert_eq!((web.shuns.len(), web.failed_moves), (0, 0));
    assert_eq!(state.orders.values().map(|order| order.deadline).max(), Some(Span::secs(30)));
}

/// As a voter does that was upgraded: it begins with its snapshot, and with what its log has beyond that.
#[test]
fn the_log_of_an_older_version_is_applied_to_its_snapshot() {
    let mut state: ClusterState = read(STATE);
    for (index, entry) in (51..).zip(read::<Vec<Command>>(ENTRIES)) {
        state.apply(index, entry);
        assert_eq!((state.applied, state.level), (index, FeatureLevel::BIRTH));
    }
    let written = serde_json::to_string(&state).unwrap();
    assert_eq!(read::<ClusterState>(&written), state);
}

#[test]
fn a_sync_with_an_older_version_is_read_as_it_was_meant() {
    let request: SyncRequest = read(REQUEST);
    assert_eq!((request.level, request.gossip_keys.len()), (FeatureLevel::BIRTH, 0));
    assert!(request.timing.is_none() && request.sights_told.is_none(), "it tells everything every time");
    assert!(request.sights.iter().all(|sight| !sight.warns));
    let reply: SyncReply = read(REPLY);
    assert!(reply.sights_known.is_none(), "it has to be told everything");
    assert!(reply.view.unwrap().revoked.is_empty());
}

#[test]
fn the_file_of_an_older_agent_is_read_as_it_was_meant() {
    let disk: Disk = read(AGENT);
    assert!(disk.floors_known && disk.highest[&name("web-1")] > disk.floors[&name("web-1")]);
    assert_eq!(disk.shots.values().collect::<Vec<_>>(), [&Span::secs(20)]);
}

#[test]
fn an_explanation_of_an_older_coordinator_is_read() {
    for failure in [
        "app failed",
        "guest process died",
        "host died, power device answers",
        "coordinator's host died, power device answers",
        "host frozen or cut off",
        "host died, power device does not answer",
        "host died",
        "host died or cut off, by its lease alone",
    ] {
        let told = json!({ "failure": failure, "service": null, "detect_ms": 750, "act": "failover", "because": "" });
        let bound: Bound = read(&told.to_string());
        assert_eq!((bound.failure.to_string().as_str(), bound.within_ms, bound.parts.len()), (failure, None, 0));
    }
}

/// While voters and agents are upgraded one after the other, an older one reads what a newer one has written: what it does not
/// know is passed over, and no key of it may be an error.
#[test]
fn what_a_later_version_adds_is_passed_over() {
    fn passed_over<T: DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str, places: &[&str]) {
        let mut written: Value = serde_json::from_str(text).unwrap();
        for place in places {
            let at = written.pointer_mut(place).unwrap_or_else(|| panic!("there is no {place}"));
            at.as_object_mut().unwrap().insert("later".to_owned(), json!({ "more": 1 }));
        }
        let (found, before): (T, T) = (serde_json::from_value(written).unwrap(), serde_json::from_str(text).unwrap());
        assert_eq!(found, before);
    }
    let of_state = [
        "",
        "/policies",
        "/policies/cluster",
        "/policies/guests/web-1",
        "/policies/guests/web-1/qemu",
        "/policies/guests/web-1/needs",
        "/policies/policies/web",
        "/policies/policies/web/services/http",
        "/hosts/hv-a",
        "/hosts/hv-a/facts",
        "/hosts/hv-a/life/fencing",
        "/hosts/hv-a/lease",
        "/hosts/hv-a/paths/0",
        "/hosts/hv-b/drill",
        "/hosts/hv-b/wired/0",
        "/guests/web-1",
        "/guests/web-1/phase/running",
        "/guests/sending/phase/migrating",
        "/orders/1",
        "/orders/1/kind/start",
        "/incidents/3",
        "/incidents/3/stamps",
        "/journal/0",
        "/journal/0/what/host_joined",
        "/suspended",
    ];
    passed_over::<ClusterState>(STATE, &of_state);
    passed_over::<Vec<Command>>(
        ENTRIES,
        &["/0", "/0/what/host_joined", "/0/what/host_joined/facts", "/20/what/fence_tested"],
    );
    passed_over::<SyncRequest>(REQUEST, &["", "/facts", "/seen", "/armed", "/reports/0", "/results/0", "/sights/0"]);
    passed_over::<SyncReply>(REPLY, &["", "/authority", "/orders/0", "/view"]);
    passed_over::<Disk>(AGENT, &["", "/authority"]);
}
