//! The same of the version that could do the second feature level and no more. Its files hold what the older ones do, and what came
//! between; what an agent keeps had not changed. Whatever this version adds to what it has in common with that one is written once
//! all can do the third level, or is passed over by whoever does not know it.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::{added, kinds, read};
use crate::{
    change::{Change, Command, Refused},
    feature_level::FeatureLevel,
    fixture::{host, name},
    go_ahead::GoAheads,
    reply::reply,
    state::{ClusterState, Phase},
    sync::{SyncReply, SyncRequest},
    time::WallTime,
};

const ENTRIES: &str = include_str!("second/entries.json");
const STATE: &str = include_str!("second/state.json");
const REQUEST: &str = include_str!("second/request.json");
const REPLY: &str = include_str!("second/reply.json");

/// The keys that this version adds, in order.
fn news<T: DeserializeOwned + Serialize>(text: &str) -> Vec<String> {
    let written = serde_json::to_value(read::<T>(text)).unwrap();
    added(&serde_json::from_str(text).unwrap(), &written).into_iter().collect()
}

#[test]
fn every_log_entry_of_the_second_level_is_read_and_written_as_it_was() {
    assert_eq!(kinds(&serde_json::from_str(ENTRIES).unwrap()).len(), 46, "as many as that version knew");
    assert!(news::<Vec<Command>>(ENTRIES).is_empty());
    let entries: Vec<Command> = read(ENTRIES);
    assert!(entries.iter().all(|entry| entry.what.level() <= FeatureLevel::REVOCATION));
    let declared = entries.iter().find_map(|entry| match &entry.what {
        Change::PoliciesApplied { policies, .. } => Some(policies.level()),
        _ => None,
    });
    assert_eq!(declared, Some(FeatureLevel::REVOCATION));
}

#[test]
fn a_snapshot_of_the_second_level_is_read_and_written_as_it_was() {
    let written: serde_json::Value = serde_json::from_str(STATE).unwrap();
    assert_eq!(kinds(&written["journal"]).len(), 44, "as many as that version knew");
    assert!(news::<ClusterState>(STATE).is_empty());
    let state: ClusterState = read(STATE);
    assert_eq!((state.level, state.revoked.len()), (FeatureLevel::REVOCATION, 1));
    assert_eq!((state.guests[&name("sending")].failed_moves, state.guests[&name("web-1")].shuns.len()), (2, 1));
}

#[test]
fn the_log_of_the_second_level_is_applied_to_its_snapshot() {
    let mut state: ClusterState = read(STATE);
    for (index, entry) in (state.applied + 1..).zip(read::<Vec<Command>>(ENTRIES)) {
        state.apply(index, entry);
        assert_eq!((state.applied, state.level), (index, FeatureLevel::REVOCATION));
    }
    let written = serde_json::to_string(&state).unwrap();
    assert_eq!(read::<ClusterState>(&written), state);
}

/// Others that apply the same entry refuse it, and would give the next order the number that this one has given already.
#[test]
fn a_move_in_a_snapshot_of_the_second_level_is_not_called_off_before_the_third() {
    let mut state = ClusterState { suspended: None, ..read(STATE) };
    let back = Change::MoveAsked { guest: name("sending"), to: host("hv-a"), cold: false, by: "ann".to_owned() };
    let (index, orders) = (state.applied + 1, state.last_order);
    let asked = Command { at: WallTime(1), what: back };
    let refused = state.apply(index, asked.clone()).refused;
    assert!(matches!(refused, Some(Refused::Phase { .. })), "{refused:?}");
    assert_eq!(state.last_order, orders);
    let raised = Change::LevelRaised { to: FeatureLevel::CALLED_OFF };
    assert_eq!(state.apply(index + 1, Command { at: WallTime(1), what: raised }).refused, None);
    assert_eq!((state.guests[&name("sending")].failed_moves, state.guests[&name("web-1")].shuns.len()), (2, 1));
    assert_eq!(state.apply(index + 2, asked).refused, None);
    assert!(state.last_order > orders);
    assert!(matches!(state.guests[&name("sending")].phase, Phase::Migrating(_)));
}

#[test]
fn a_sync_with_the_second_level_is_read_as_it_was_meant_and_told_the_view_whole() {
    assert_eq!(news::<SyncRequest>(REQUEST), ["certificate_ends"]);
    let mut request: SyncRequest = read(REQUEST);
    assert_eq!((request.level, request.has_view), (FeatureLevel::REVOCATION, None));
    assert!(request.certificate_ends.is_none() && request.reports.iter().all(|report| report.sending.is_none()));
    let state: ClusterState = read(STATE);
    request.known_view = 0;
    let told = reply(&state, &request, 4, Duration::from_secs(4), &GoAheads::nothing());
    assert!(told.news.is_none() && told.view.is_some_and(|view| *view.policies == state.policies));
    assert!(news::<SyncReply>(REPLY).is_empty());
    let answer: SyncReply = read(REPLY);
    assert!(answer.news.is_none());
    let view = answer.view.unwrap();
    assert_eq!((view.mark, view.revoked.len()), (None, 1), "it is asked for the next one whole, too");
}
