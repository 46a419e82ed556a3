//! A person's word that a host is off (R9), and when it is not taken.

use super::hosts::judge;
use crate::{
    evidence::Evidence,
    hostfile::Timing,
    names::HostName,
    proof::{NoProof, Proof},
    state::{ClusterState, Host},
    time::{Moment, millis},
};

/// Proof from the word of a person who has looked: the machine is off, and so is whatever boot of it there was.
///
/// Whatever is heard of the machine speaks against it, by whoever, also of a boot that has not joined: after a recovery that
/// may be one which voters that are lost had taken in, and ordered to run guests (R25).
///
/// # Errors
/// [`NoProof::Fresh`]: it was heard a moment ago, or this coordinator has not listened for as long.
pub fn confirm_off(
    state: &ClusterState,
    evidence: &Evidence,
    timing: &Timing,
    now: Moment,
    (name, host): (&HostName, &Host),
    person: &str,
) -> Result<Proof, NoProof> {
    let listened = evidence.quorum_since.map_or(0, |since| millis(now.since(since)));
    let silent = judge(state, evidence, timing, now, name).silent_ms;
    let fresh_ms = millis(timing.suspect_after.0);
    Proof::operator(name, &host.facts.incarnation, person, Some(silent.min(listened)), fresh_ms)
}
