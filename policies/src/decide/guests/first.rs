//! A guest that this cluster never placed: found running on one host, or proven to run on none (R8).

use std::collections::BTreeMap;

use super::{
    super::FOREVER,
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
    state::{Life, Tenure},
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
        let mut found = Vec::new();
        let mut said: BTreeMap<HostName, Incarnation> = BTreeMap::new();
        let (mut could_run, mut unlearned) = (Vec::new(), Vec::new());
        for (host, known) in round.state.hosts.iter().filter(|(_, known)| known.facts.guests) {
            if matches!(known.life, Life::Gone { .. }) {
                continue;
            }
            could_run.push(host.clone());
            let incarnation = &known.facts.incarnation;
            let Some(seen) = round.evidence.hosts.get(host).filter(|_| round.answers(host)) else { continue };
            // R25: one that has not learned of this generation may yet start what an older one has ordered.
            if !round.state.is_known_to(seen) {
                unlearned.push(host.as_str());
                continue;
            }
            match seen.reports.get(name).filter(|report| is_there(&report.condition)) {
                Some(report) => {
                    let (host, incarnation) = (host.clone(), incarnation.clone());
                    found.push(Tenure { host, incarnation, epoch: report.epoch });
                }
                None => {
                    said.insert(host.clone(), incarnation.clone());
                }
            }
        }
        let has = |host: &HostName| found.iter().any(|tenure| tenure.host == *host);
        let missing = could_run.iter().filter(|host| !said.contains_key(*host) && !has(host));
        let missing: Vec<&str> = missing.map(HostName::as_str).collect();
        // Only the hosts themselves end it, or proof that they are gone.
        let mut their_word = (format!("the word of {} on what runs there", missing.join(" and ")), FOREVER);
        if !unlearned.is_empty() {
            let unlearned = unlearned.join(" and ");
            let when = "when its supervisor has learned of this generation, for which it must be of this version";
            their_word.0 = format!("{}; that of {unlearned} counts {when}", their_word.0);
        }
        let strays = self.found(name, 0);
        self.tell_strays(name, if strays.len() > 1 { &strays } else { &[] }, format_args!("at once"));
        match (found.as_slice(), Proof::not_here(could_run.clone(), &said)) {
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
