//! A guest that this cluster never placed: found running on one host, or proven to run on none (R8).

use std::collections::BTreeMap;

use super::{
    super::{FOREVER, Round, supervisors::booted_anew},
    GuestJudgement, Pass,
    strays::{self, Stray},
    wanted::hands_on,
};
use crate::{
    change::Change,
    evidence::is_there,
    hands_off::HandsOff,
    names::{GuestName, HostName, Incarnation},
    proof::Proof,
    state::{Host, Life, Tenure},
};

impl Pass<'_, '_> {
    /// A guest that this cluster never placed: found running on one host, or proven to run on none (R8).
    pub(super) fn unplaced(&mut self, name: &GuestName, judgement: &mut GuestJudgement) {
        let round = self.round;
        if let Some(hands_off @ HandsOff::Suspended { .. }) = round.state.hands_off(name) {
            judgement.doing = format!("not looked for yet; {hands_off}");
            judgement.waits = Some(hands_on(&hands_off));
            return;
        }
        let words = Words::on(round, name);
        // Only the hosts themselves end it, or proof that they are gone.
        let their_word = (words.to_come(), FOREVER);
        let Words { could_run, found, said, .. } = words;
        let strays = self.found(name, 0);
        self.tell_strays(name, if strays.len() > 1 { &strays } else { &[] }, format_args!("at once"));
        match (found.as_slice(), Proof::not_here(could_run.iter().copied().cloned(), &said)) {
            ([tenure], _) if said.len() + 1 == could_run.len() => {
                self.decision.commands.push(Change::GuestAdopted { guest: name.clone(), tenure: tenure.clone() });
                judgement.doing = format!("found on {}", tenure.host);
            }
            ([], Ok(proof)) if !could_run.is_empty() => {
                self.decision.commands.push(Change::GuestFree { guest: name.clone(), proof });
                "about to be placed for the first time".clone_into(&mut judgement.doing);
            }
            ([], Ok(_)) => {
                "waiting for a host that runs guests".clone_into(&mut judgement.doing);
                judgement.waits = Some(("a host that runs guests".to_owned(), FOREVER));
            }
            ([], Err(missing)) => {
                judgement.doing = format!("waiting before the first placement: {missing}");
                judgement.waits = Some(their_word);
            }
            (found, _) if found.len() > 1 => self.found_twice(name, &strays, judgement),
            (found, _) => {
                judgement.waits = Some(their_word);
                let hosts: Vec<&str> = found.iter().map(|tenure| tenure.host.as_str()).collect();
                judgement.doing = format!("found on {}, waiting for every host's word", hosts.join(" and "));
            }
        }
    }

    /// One is kept and adopted when it is the only one left, and never are both stopped.
    fn found_twice(&mut self, name: &GuestName, strays: &[Stray<'_>], judgement: &mut GuestJudgement) {
        let on = strays::on(strays);
        (judgement.doing, judgement.waits) =
            match (self.round.state.hands_off(name), strays::keeper(self.round, name, strays)) {
                (Some(hands_off), _) => (format!("found on {on}; {hands_off}"), Some(hands_on(&hands_off))),
                (None, None) => {
                    let mover = Some(("the end of the move that somebody else makes".to_owned(), FOREVER));
                    (format!("found on {on}, waiting for whoever moves it"), mover)
                }
                (None, Some(keep)) => {
                    self.stop_strays(name, strays, Some(keep));
                    let doing = format!("found on {on}: it is kept on {keep} and stopped elsewhere, then adopted");
                    (doing, self.stop_of_strays(name, Some(keep)))
                }
            };
    }
}

/// R25: whether another machine or another boot lives under the name of a host that is proven gone. The lost history may have let it
/// in and started guests there, of which the proof says nothing. Where nothing is lost it was ordered nothing.
fn lives_on(round: &Round<'_>, host: &HostName, known: &Host) -> bool {
    round.state.generation > 1 && (known.is_contested() || booted_anew(round, host).is_some())
}

/// What the hosts that could run a guest have said of it.
#[derive(Default)]
struct Words<'a> {
    could_run: Vec<&'a HostName>,
    found: Vec<Tenure>,
    /// Those that have nothing of it, in which boot.
    said: BTreeMap<HostName, Incarnation>,
    /// R25: those that have not learned of this generation. Each may yet start what an older one has ordered.
    unlearned: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn on(round: &Round<'a>, name: &GuestName) -> Self {
        let mut words = Self::default();
        let declared_at = round.state.guests.get(name).and_then(|guest| guest.declared_at);
        for (host, known) in round.state.hosts.iter().filter(|(_, known)| known.facts.guests) {
            if matches!(known.life, Life::Gone { .. }) && !lives_on(round, host, known) {
                continue;
            }
            words.could_run.push(host);
            let incarnation = &known.facts.incarnation;
            let Some(seen) = round.evidence.hosts.get(host).filter(|_| round.answers(host)) else { continue };
            if !round.state.is_known_to(seen) {
                words.unlearned.push(host.as_str());
                continue;
            }
            // What a host had before counts no more: it may have fallen silent since, with the guest on it.
            if declared_at.is_some_and(|index| !seen.has_learned(round.state.generation, index)) {
                continue;
            }
            match seen.reports.get(name).filter(|report| is_there(&report.condition)) {
                Some(report) => {
                    let (host, incarnation) = (host.clone(), incarnation.clone());
                    words.found.push(Tenure { host, incarnation, epoch: report.epoch });
                }
                None => {
                    words.said.insert(host.clone(), incarnation.clone());
                }
            }
        }
        words
    }

    /// What is still to be said, and by whom.
    fn to_come(&self) -> String {
        let has = |host: &HostName| self.found.iter().any(|tenure| tenure.host == *host);
        let missing = self.could_run.iter().filter(|host| !self.said.contains_key(**host) && !has(host));
        let missing: Vec<&str> = missing.map(|host| host.as_str()).collect();
        let word = format!("the word of {} on what runs there", missing.join(" and "));
        if self.unlearned.is_empty() {
            return word;
        }
        let unlearned = self.unlearned.join(" and ");
        let when = "when its supervisor has learned of this generation, for which it must be of this version";
        format!("{word}; that of {unlearned} counts {when}")
    }
}
