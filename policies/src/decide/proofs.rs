//! What power devices say: when they are asked, when "off" is proof, and when they are not to be trusted (R9).

use std::time::Duration;

use super::{
    Decision, Round, Wish,
    drills::is_drilled,
    fences::{close, open},
    restraint::is_hands_off,
};
use crate::{
    change::Change,
    model::{FenceLevel, Severity},
    names::HostName,
    observe::GuestCondition,
    proof::{NoProof, Power, PowerReading, Proof, ProofKind},
    state::{ClusterState, Host, Life},
    time::{Moment, Span, millis},
};

/// A sign of life so long after a device has said "off" was not merely late on its way, so the device was wrong (R9).
const CONTRADICTS_AFTER: Duration = Duration::from_secs(10);

/// Silent hosts are wondered about: the power device and the other voters are asked. Both are harmless.
pub(super) fn wonder(round: &Round<'_>, decision: &mut Decision, name: &HostName, host: &Host) {
    let incarnation = &host.facts.incarnation;
    let Some(judgement) = round.hosts.get(name) else { return };
    let wonder_after = round.timing.wonder_after.0;
    let own = round.evidence.last_life(name, incarnation);
    let since = own.or(round.evidence.quorum_since).unwrap_or(round.now.moment);
    let unheard = round.now.moment.since(since) >= wonder_after;
    let unsynced = u128::from(judgement.unsynced_ms) >= wonder_after.as_millis();
    if matches!(host.life, Life::Gone { .. }) || round.evidence.me.as_ref() == Some(name) || is_hands_off(host) {
        return;
    }
    if unheard || unsynced {
        decision.wishes.push(Wish::AskVoters { host: name.clone(), incarnation: incarnation.clone() });
    }
    if unheard && has_device(round.state, name) {
        decision.wishes.push(Wish::AskPower { host: name.clone(), incarnation: incarnation.clone() });
    }
}

fn has_device(state: &ClusterState, host: &HostName) -> bool {
    state.policies.levels_of(host).iter().any(FenceLevel::has_device)
}

/// "Off" is proof at once, whoever asked (R9).
pub(super) fn proven(round: &Round<'_>, decision: &mut Decision, name: &HostName, host: &Host) -> bool {
    if is_drilled(round, name) {
        return false;
    }
    match said_off(round, name, host) {
        Some(Ok(proof)) => {
            let last_well = last_sign(round, name, host).map(|life| round.wall(life));
            let last_words = round.hosts.get(name).and_then(|judgement| judgement.last_words.clone());
            decision.commands.push(Change::HostGone { proof, last_well, last_words });
            true
        }
        Some(Err(NoProof::WiringUnverified { .. })) => {
            unverified(round, decision, name);
            false
        }
        Some(Err(_)) | None => false,
    }
}

/// Whether a power device has said that the host is off, so that it counts as proof.
pub(super) fn is_proven_off(round: &Round<'_>, name: &HostName) -> bool {
    round.state.hosts.get(name).is_some_and(|host| matches!(said_off(round, name, host), Some(Ok(_))))
}

/// What comes of the newest power reading; nothing counts while two machines use the name (R11).
fn said_off(round: &Round<'_>, name: &HostName, host: &Host) -> Option<Result<Proof, NoProof>> {
    let reading = reading(round, name).filter(|_| !host.is_contested())?;
    if host.distrusted.contains(&reading.level) {
        return None;
    }
    let wiring = round.state.wiring_of(name, reading.level);
    Some(Proof::power_off(name, &host.facts.incarnation, reading, wiring.as_deref(), last_sign(round, name, host)))
}

/// The newest power reading, if the devices that gave it are those that are declared: another one at their place was not
/// asked.
fn reading<'a>(round: &'a Round<'_>, name: &HostName) -> Option<&'a PowerReading> {
    let levels = round.state.policies.levels_of(name);
    let reading = round.evidence.hosts.get(name)?.power.as_ref()?;
    (levels.get(reading.level) == Some(&reading.declared)).then_some(reading)
}

/// R9: a reading is void by any sign of that boot since, whoever received it.
fn last_sign(round: &Round<'_>, name: &HostName, host: &Host) -> Option<Moment> {
    super::hosts::newest_sign(round.state, round.evidence, name, &host.facts.incarnation)
}

fn unverified(round: &Round<'_>, decision: &mut Decision, host: &HostName) {
    let key = format!("fencing/{host}");
    let summary = format!("{host} is said to be off by a power device whose wiring nobody has verified");
    let human = format!(
        "Look whether {host} is really off; if so, run `holdfast host confirm-off {host} --operator YOUR-NAME`. Then set \
         `wiring_verified_by` for its device."
    );
    open(round, decision, key, Severity::Critical, summary, Some(human));
}

/// A device that called a living host off is not to be trusted, and somebody is told (R9).
pub(super) fn contradiction(round: &Round<'_>, decision: &mut Decision, name: &HostName, host: &Host) {
    let off = reading(round, name)
        .filter(|reading| reading.power == Power::Off && reading.incarnation == host.facts.incarnation);
    // Looked for only where something may be contradicted, because it walks over all guests.
    let matters = off.is_some() || matches!(host.life, Life::Gone { .. });
    let life = matters.then(|| last_sign(round, name, host)).flatten();
    if let (Some(life), Some(off)) = (life, off)
        && life >= off.asked.plus(CONTRADICTS_AFTER)
        && is_known_level(round.state, name, off.level)
        && !host.distrusted.contains(&off.level)
    {
        let ago = Span::ms(millis(life.since(off.asked)));
        let why = format!("it said that {name} was off, and the same boot was heard {ago} later");
        decision.commands.push(Change::DeviceDistrusted { host: name.clone(), level: off.level, why });
    }
    let key = format!("fencing/{name}");
    if let Life::Gone { proof } = &host.life
        && denies(round, name, host, proof)
        && life.is_some_and(|life| round.now.moment.since(life) < round.timing.suspect_after.0)
        // What was heard just before the device was asked contradicts nothing.
        && off.is_none_or(|off| life >= Some(off.asked))
    {
        let summary = format!("{name} is proven gone ({proof}), and the same boot is heard again");
        let human = format!(
            "Its guests may run twice. Switch {name} off by hand and look why its proof was wrong; it runs nothing that \
             Holdfast orders until it has rebooted."
        );
        open(round, decision, key, Severity::Critical, summary, Some(human));
    } else if !host.distrusted.is_empty() {
        let summary = format!(
            "a power device of {name} has called it off while it lived, or is of another machine, and is not trusted"
        );
        let human = format!(
            "Check which machine the power device of {name} is wired to; then run `holdfast host trust-device {name} \
             --operator YOUR-NAME`. Until then {name} cannot be switched off by it, and its word is no proof."
        );
        open(round, decision, key, Severity::Critical, summary, Some(human));
    } else {
        close(round, decision, &key);
    }
}

/// Whether that its boot is alive denies the proof that it is gone. A boot whose lease ran out may live, and has stopped its
/// guests: only one of those would deny it.
fn denies(round: &Round<'_>, name: &HostName, host: &Host, proof: &Proof) -> bool {
    let ProofKind::LeaseExpired { .. } = proof.kind() else { return true };
    let Some(heard) = round.evidence.hosts.get(name) else { return false };
    let since = round.evidence.marks.at(host.life_since).plus(round.timing.sync_every.0 * 2);
    let told = heard.sync.as_ref().is_some_and(|sync| sync.at > since);
    let runs = |condition: &GuestCondition| *condition == GuestCondition::Running;
    told && heard.reports.values().any(|report| runs(&report.condition))
}

fn is_known_level(state: &ClusterState, host: &HostName, level: usize) -> bool {
    level < state.policies.levels_of(host).len()
}
