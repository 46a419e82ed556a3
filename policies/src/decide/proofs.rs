//! What power devices say: when they are asked, when "off" is proof, and when they are not to be trusted (R9).

use std::{collections::BTreeMap, time::Duration};

use super::{
    Decision, HostVerdict, Round, Waits, Wish,
    drills::is_drilled,
    fences::{close, open},
    hosts::newest_sign,
    restraint::is_hands_off,
    subject::Subject,
};
use crate::{
    change::Change,
    model::Severity,
    names::HostName,
    observe::GuestCondition,
    proof::{NoProof, Power, PowerReading, Proof, ProofKind},
    state::{ClusterState, Host, Life},
    time::{Moment, Span, millis},
};

/// A sign of life so long after a device has said "off" was not merely late on its way, so the device was wrong (R9).
const CONTRADICTS_AFTER: Duration = Duration::from_secs(10);

/// Longest rest of a power device between two questions about a silent host: how much later a host is known to be off that
/// loses its power after it has long been silent.
const REST_MAX: Duration = Duration::from_secs(15);

/// The same while somebody switches the host off, whose report may never come.
const REST_WHILE_FENCED: Duration = Duration::from_secs(1);

/// Silent hosts are wondered about: the power device and the other voters are asked. Both are harmless.
pub(super) fn wonder(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>) {
    let Subject { name, host, judgement, seen, .. } = *subject;
    let incarnation = &host.facts.incarnation;
    let wonder_after = round.timing.wonder_after.0;
    let own = seen.and_then(|seen| seen.last_life(incarnation));
    let since = own.or(round.evidence.quorum_since).unwrap_or(round.now.moment);
    let unheard = round.now.moment.since(since) >= wonder_after;
    let unsynced = u128::from(judgement.unsynced_ms) >= wonder_after.as_millis();
    if matches!(host.life, Life::Gone { .. }) || round.evidence.me.as_ref() == Some(name) || is_hands_off(host) {
        return;
    }
    if unheard || unsynced {
        decision.wishes.push(Wish::AskVoters { host: name.clone(), incarnation: incarnation.clone() });
    }
    if unheard {
        let rest = rest(round, name, round.now.moment.since(since));
        let askable = askable(round, subject).filter(|level| is_rested(round, subject, *level, rest));
        decision.wishes.extend(askable.map(|level| {
            let (host, incarnation) = (name.clone(), incarnation.clone());
            Wish::AskPower { host, incarnation, level }
        }));
    }
}

/// The rest of a power device between two questions: whoever has just fallen silent is asked about without one, and of a
/// host that has been silent for hours nothing new is to be expected. A controller is spared, and its sessions.
fn rest(round: &Round<'_>, name: &HostName, silence: Duration) -> Duration {
    let longest = if round.state.fence_under_way(name).is_some() { REST_WHILE_FENCED } else { REST_MAX };
    (silence / 16).min(longest)
}

fn is_rested(round: &Round<'_>, subject: &Subject<'_>, level: usize, rest: Duration) -> bool {
    let asked = subject.seen.and_then(|seen| seen.asked.get(&level));
    asked.is_none_or(|asked| round.now.moment.since(*asked) >= rest)
}

/// The levels whose devices are asked, all at once: one that is slow, dead or no proof hides none of the others. What is
/// not trusted is not asked, nor what means another machine on each host while the coordinator does not know which it means
/// here: its answer would be no proof, and would take the place of one that is.
fn askable(round: &Round<'_>, subject: &Subject<'_>) -> impl Iterator<Item = usize> {
    let Subject { name, host, levels, .. } = *subject;
    let levels = levels.iter().enumerate();
    let known = move |level| round.state.wiring_for(name, level, round.evidence.me.as_ref()).is_some();
    let askable = levels.filter(move |(level, declared)| {
        declared.has_device() && !host.distrusted.contains(level) && (!declared.is_local() || known(*level))
    });
    askable.map(|(level, _)| level)
}

/// What comes of power devices that say off, of a host that is not switched off on purpose.
pub(super) fn said_off(round: &Round<'_>, subject: &Subject<'_>) -> Option<SaidOff> {
    if is_drilled(round, subject) { None } else { any_said_off(round, subject) }
}

/// "Off" is proof, whoever asked, once the host has been silent for a moment (R9).
pub(super) fn proven(
    round: &Round<'_>,
    decision: &mut Decision,
    subject: &Subject<'_>,
    said: Option<&SaidOff>,
) -> bool {
    match said {
        Some(Ok(proof)) => {
            let last_well = last_sign(round, subject).map(|life| round.wall(life));
            let last_words = subject.judgement.last_words.clone();
            decision.commands.push(Change::HostGone { proof: proof.clone(), last_well, last_words });
            true
        }
        Some(Err(NoProof::WiringUnverified { .. })) => {
            if !may_yet_be_proven(round, subject) {
                unverified(round, decision, subject.name);
            }
            false
        }
        Some(Err(_)) | None => false,
    }
}

/// What the word of a power device waits for that a moment of silence makes proof. Nothing else is made of the host until then.
pub(super) fn soon_proven(said: Option<&SaidOff>) -> Waits {
    match said {
        Some(Err(NoProof::HeardJustNow { left_ms, .. })) => {
            Some(("its next beacons, which would deny its power device's word that it is off".to_owned(), *left_ms))
        }
        Some(Ok(_) | Err(_)) | None => None,
    }
}

/// Whether a power device has said that the host is off, so that it counts as proof.
pub(super) fn is_proven_off(round: &Round<'_>, name: &HostName) -> bool {
    Subject::of(round, name).is_some_and(|subject| matches!(any_said_off(round, &subject), Some(Ok(_))))
}

/// What comes of what power devices say: proof, or why it is none.
pub(super) type SaidOff = Result<Proof, NoProof>;

/// What comes of the levels that say off, each by itself: the first proof, or else why there is none. Nothing counts while
/// two machines use the name (R11), and nothing that a level says that is not trusted.
fn any_said_off(round: &Round<'_>, subject: &Subject<'_>) -> Option<SaidOff> {
    let Subject { name, host, .. } = *subject;
    let trusted = |off: &&PowerReading| !host.distrusted.contains(&off.level);
    let offs: Vec<&PowerReading> = offs(subject).filter(trusted).collect();
    if offs.is_empty() || host.is_contested() {
        return None;
    }
    // Looked for only where something says off, because it walks over all guests.
    let last_sign = last_sign(round, subject).max(sign_of_lost(round, subject));
    // One that has never been heard has been silent for as long as somebody has listened.
    let silent_since = last_sign.or(round.evidence.quorum_since).unwrap_or(round.now.moment);
    let silence = round.now.moment.since(silent_since);
    let mut none = None;
    for off in offs {
        let wiring = round.state.wiring_for(name, off.level, off.asker.as_ref());
        match Proof::power_off(name, &host.facts.incarnation, off, wiring.as_deref(), last_sign, silence) {
            Ok(proof) => return Some(Ok(proof)),
            // What passes, and what a person can do something about, is told rather than the rest.
            Err(why @ (NoProof::HeardJustNow { .. } | NoProof::WiringUnverified { .. })) => none = Some(Err(why)),
            Err(why) => none = none.or(Some(Err(why))),
        }
    }
    none
}

/// What says that this boot of the host is off, among the levels whose devices are those that are declared: another one at
/// their place was not asked.
fn offs<'a>(subject: &Subject<'a>) -> impl Iterator<Item = &'a PowerReading> + use<'a> {
    let Subject { host, levels, seen, .. } = *subject;
    seen.into_iter().flat_map(|seen| seen.power.values()).filter(move |reading| {
        let declared = levels.get(reading.level) == Some(&reading.declared);
        declared && reading.power == Power::Off && reading.incarnation == host.facts.incarnation
    })
}

/// R9: a reading is void by any sign of that boot since, whoever received it.
fn last_sign(round: &Round<'_>, subject: &Subject<'_>) -> Option<Moment> {
    newest_sign(round.state, round.evidence, subject.name, &subject.host.facts.incarnation)
}

/// After a recovery a boot that has not joined speaks against it too, until the one that has is known to have lived on into this
/// generation: voters that are lost may have taken the other one in, and ordered it to run guests (R25).
fn sign_of_lost(round: &Round<'_>, subject: &Subject<'_>) -> Option<Moment> {
    let lost = subject.seen.filter(|seen| !round.state.is_known_to(seen))?;
    lost.not_joined(subject.host).map(|other| other.at)
}

/// Whether a level that is verified may say off yet. Nobody has to get up before each has had its turn.
fn may_yet_be_proven(round: &Round<'_>, subject: &Subject<'_>) -> bool {
    let Subject { name, host, levels, .. } = *subject;
    let verified = |level: usize| !host.distrusted.contains(&level) && round.state.wiring_of(name, level).is_some();
    let turns = levels.iter().filter(|level| level.has_device()).count();
    let tried = match &host.life {
        Life::Fencing(fence) => {
            fence.attempt.is_none() && usize::try_from(fence.attempts).is_ok_and(|attempts| attempts >= turns)
        }
        Life::Up | Life::Gone { .. } => false,
    };
    !tried && (0..levels.len()).any(verified)
}

fn unverified(round: &Round<'_>, decision: &mut Decision, host: &HostName) {
    let key = ClusterState::fencing_key(host);
    let summary = format!("{host} is said to be off by a power device whose wiring nobody has verified");
    let human = format!(
        "Look whether {host} is really off; if so, run `holdfast host confirm-off {host} --operator YOUR-NAME`. Then set \
         `wiring_verified_by` for its device."
    );
    open(round, decision, key, Severity::Critical, summary, Some(human));
}

/// A device that called a living host off is not to be trusted, whatever the host is taken for (R9).
pub(super) fn distrust(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>) {
    let Subject { name, host, judgement, seen, .. } = *subject;
    let read = offs(subject).map(|off| (off.level, off.asked));
    let said: Vec<(usize, Moment)> = read.chain(tested_off(subject)).collect();
    if said.is_empty() {
        return;
    }
    let life = match judgement.verdict {
        HostVerdict::Healthy | HostVerdict::Gone => last_sign(round, subject),
        // Of a host that does not sync, what answers in a guest's place may be something else.
        HostVerdict::SupervisorDown
        | HostVerdict::Isolated
        | HostVerdict::Suspect
        | HostVerdict::Failed
        | HostVerdict::Unknown => seen.and_then(|seen| seen.last_word(&host.facts.incarnation)),
    };
    // What it had said before somebody checked it was looked at then.
    let checked = (host.trusted > 0).then(|| round.evidence.marks.at(host.trusted));
    let lied = |(level, at): &(usize, Moment)| {
        let contradicted = life.is_some_and(|life| life >= at.plus(CONTRADICTS_AFTER));
        contradicted && !host.distrusted.contains(level) && checked.is_none_or(|checked| *at > checked)
    };
    // Once for each level, however often it has said so.
    let lies: BTreeMap<usize, Moment> = said.into_iter().filter(lied).collect();
    for (level, at) in lies {
        let ago = Span::ms(millis(life.map_or(Duration::ZERO, |life| life.since(at))));
        let why = format!("it said that {name} was off, and the same boot was heard {ago} later");
        decision.commands.push(Change::DeviceDistrusted { host: name.clone(), level, why });
    }
}

/// The levels that have called this boot of the host off in a test of what is declared now, and when that was known.
fn tested_off<'a>(subject: &Subject<'a>) -> impl Iterator<Item = (usize, Moment)> + use<'a> {
    let Subject { host, levels, seen, .. } = *subject;
    let tested = seen.into_iter().flat_map(|seen| &seen.tested_off);
    let counts = tested.filter(move |(level, off)| {
        levels.get(**level) == Some(&off.declared) && off.incarnation == host.facts.incarnation
    });
    counts.map(|(level, off)| (*level, off.answered))
}

/// Tells people of a host whose supervisor is silent that a power device of it is not trusted; that ends when it syncs.
pub(super) fn tell_of_distrust(round: &Round<'_>, decision: &mut Decision, name: &HostName, host: &Host) {
    if !host.distrusted.is_empty() {
        not_trusted(round, decision, name);
    }
}

fn not_trusted(round: &Round<'_>, decision: &mut Decision, name: &HostName) {
    let summary = format!(
        "a power device of {name} has called it off while it lived, or is of another machine, and is not trusted"
    );
    let human = format!(
        "Check which machine the power device of {name} is wired to; then run `holdfast host trust-device {name} \
         --operator YOUR-NAME`. Until then {name} cannot be switched off by it, and its word is no proof."
    );
    open(round, decision, ClusterState::fencing_key(name), Severity::Critical, summary, Some(human));
}

/// Tells people what contradicts a proof or a power device, for as long as it does (R9).
pub(super) fn contradiction(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>) {
    let Subject { name, host, .. } = *subject;
    let offs: Vec<&PowerReading> = offs(subject).collect();
    // Looked for only where something may be contradicted, because it walks over all guests.
    let life = matches!(host.life, Life::Gone { .. }).then(|| last_sign(round, subject)).flatten();
    // What was heard just before the device was asked contradicts nothing.
    let newer = || offs.iter().all(|off| life >= Some(off.asked));
    let fresh = || life.is_some_and(|life| round.now.moment.since(life) < round.timing.suspect_after.0);
    if let Life::Gone { proof } = &host.life
        // That it falls silent again makes nothing well: its guests may have run twice, and may do so when it is heard anew.
        && (is_doubted(subject, proof) || (denies(round, name, host, proof) && fresh() && newer()))
    {
        let summary = ClusterState::heard_again(name, proof);
        let human = format!(
            "Its guests may run twice. Switch {name} off by hand and look why its proof was wrong; it runs nothing that \
             Holdfast orders until it has rebooted, or has nothing of its guests left. This stays until then, or until \
             `holdfast host confirm-off {name} --operator YOUR-NAME`."
        );
        open(round, decision, ClusterState::fencing_key(name), Severity::Critical, summary, Some(human));
    } else if !host.distrusted.is_empty() {
        not_trusted(round, decision, name);
    } else {
        close(decision, ClusterState::FENCING, subject);
    }
}

/// Whether people have been told that the boot of a host lives although this proves it gone, and nobody has looked since.
fn is_doubted(subject: &Subject<'_>, proof: &Proof) -> bool {
    let told = subject.told.about(ClusterState::FENCING);
    told.is_some_and(|open| open.summary == ClusterState::heard_again(subject.name, proof))
}

/// Whether that its boot is alive denies the proof that it is gone. A boot whose lease ran out may live, and has stopped its
/// guests: only one of those would deny it.
fn denies(round: &Round<'_>, name: &HostName, host: &Host, proof: &Proof) -> bool {
    let ProofKind::LeaseExpired { .. } = proof.kind() else { return true };
    let Some(heard) = round.evidence.hosts.get(name) else { return false };
    let since = round.told_after(host.life_since);
    let told = heard.sync.as_ref().is_some_and(|sync| sync.at > since);
    let runs = |condition: &GuestCondition| *condition == GuestCondition::Running;
    told && heard.reports.values().any(|report| runs(&report.condition))
}
