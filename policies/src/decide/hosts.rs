//! Host verdicts (R16–R19): a host has failed only when nobody who counts has heard it.
//!
//! ```text
//! Healthy --no sync, but heard--> SupervisorDown --for longer than its lease--> Isolated
//!    |      (if only in a boot that has not joined)
//!    | nothing heard for suspect_after          | nothing heard either
//!    v                                          v
//! Suspect --a majority of the other voters says so too--> Failed
//! ```

use std::{cell::OnceCell, collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    evidence::{Evidence, HostEvidence},
    hostfile::Timing,
    lease::SafeAt,
    names::{HostName, Incarnation},
    state::{ClusterState, Host, Life},
    time::{Moment, Span},
};

/// Oldest voter's answer that still counts. Answers are asked for anew every 200 ms while a host is silent.
pub(super) const ANSWER_AGE_MAX: Duration = Duration::from_millis(1_000);

/// What a host amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostVerdict {
    /// It syncs.
    Healthy,
    /// It does not sync, but it is heard: its supervisor is down, it is not (R16).
    SupervisorDown,
    /// It is heard, and has not synced for longer than its lease: it may start nothing, and where its lease is a level of
    /// its fencing it stops its guests (R19).
    Isolated,
    /// The coordinator does not hear it.
    Suspect,
    /// A majority of the other voters does not hear it either.
    Failed,
    /// Proven gone.
    Gone,
    /// It has not been heard yet since this coordinator has quorum.
    Unknown,
}

/// A verdict with what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostJudgement {
    /// The verdict.
    pub verdict: HostVerdict,
    /// Since how many milliseconds nothing was heard.
    pub silent_ms: u64,
    /// Since how many milliseconds it has not synced.
    pub unsynced_ms: u64,
    /// Who heard it when. Of a host that is well, or gone, nothing in the report of a round: that is told when somebody asks
    /// ([`Report::with_words`](super::Report::with_words)).
    pub evidence: Vec<String>,
    /// Why it doubts itself, if it does.
    pub unwell: Option<String>,
    /// Why it stops its guests, or has, if it said so.
    #[serde(default)]
    pub last_words: Option<String>,
    /// What is waited for before more is decided about it, and at most how much longer in milliseconds;
    /// [`FOREVER`](super::FOREVER) where only a person or a power device can end the wait.
    #[serde(default)]
    pub waits: Option<(String, u64)>,
    /// From when on its guests cannot run any more by its lease, where they wait for that.
    #[serde(default)]
    pub safe_at: Option<SafeAt>,
}

pub(super) fn judge_all(
    state: &ClusterState,
    evidence: &Evidence,
    timing: &Timing,
    now: Moment,
) -> BTreeMap<HostName, HostJudgement> {
    let passes = Passes::of(state, evidence);
    let judged = |host, known| judge_with(&passes, timing, now, (host, known), Words::WhereTheyMatter);
    state.hosts.iter().map(|(host, known)| (host.clone(), judged(host, known))).collect()
}

/// The newest pass, seen from elsewhere, of any guest on each host's present boot. Gathered in one walk over the guests,
/// and only once some host is not heard otherwise.
struct Passes<'a> {
    state: &'a ClusterState,
    evidence: &'a Evidence,
    known: OnceCell<BTreeMap<&'a HostName, Moment>>,
    /// What has been heard of a host of which nothing has.
    nothing: HostEvidence,
}

impl<'a> Passes<'a> {
    fn of(state: &'a ClusterState, evidence: &'a Evidence) -> Self {
        Self { state, evidence, known: OnceCell::new(), nothing: HostEvidence::default() }
    }

    fn newest(&self, host: &HostName) -> Option<Moment> {
        self.known.get_or_init(|| self.gather()).get(host).copied()
    }

    fn gather(&self) -> BTreeMap<&'a HostName, Moment> {
        let mut passes = BTreeMap::new();
        for (name, guest) in &self.state.guests {
            for tenure in guest.answering().into_iter().flatten() {
                let pass = self.evidence.last_pass_from_others(name, tenure.epoch, &tenure.host);
                if let Some(pass) = pass.filter(|_| self.state.is_current(&tenure.host, &tenure.incarnation)) {
                    let newest = passes.entry(&tenure.host).or_insert(pass);
                    *newest = pass.max(*newest);
                }
            }
        }
        passes
    }
}

/// Judges one host.
#[must_use]
pub fn judge(
    state: &ClusterState,
    evidence: &Evidence,
    timing: &Timing,
    now: Moment,
    host: &HostName,
) -> HostJudgement {
    let passes = Passes::of(state, evidence);
    let known = state.hosts.get(host);
    known.map_or_else(unknown, |known| judge_with(&passes, timing, now, (host, known), Words::Always))
}

/// Why a host is not well. Of the coordinator itself `unwell` tells only whether its word counts: one whose disk is full accuses whom it
/// does not hear, and carries nothing out all the same.
fn unwell(heard: &HostEvidence) -> Option<String> {
    heard.unwell.clone().or_else(|| heard.unwell_for.as_ref().map(|(_, why)| why.clone()))
}

/// When what the others say is put into words, which costs more than the verdict.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    Always,
    WhereTheyMatter,
}

/// Whether nothing that the others say changes what is made of it.
fn is_settled(verdict: HostVerdict) -> bool {
    match verdict {
        HostVerdict::Healthy | HostVerdict::Gone => true,
        HostVerdict::SupervisorDown
        | HostVerdict::Isolated
        | HostVerdict::Suspect
        | HostVerdict::Failed
        | HostVerdict::Unknown => false,
    }
}

fn judge_with(
    passes: &Passes<'_>,
    timing: &Timing,
    now: Moment,
    (host, known): (&HostName, &Host),
    words: Words,
) -> HostJudgement {
    let evidence = passes.evidence;
    let incarnation = &known.facts.incarnation;
    let heard = evidence.hosts.get(host).unwrap_or(&passes.nothing);
    // A boot that has just joined has not had the time to be heard, however long the coordinator has listened.
    let quorum_since = evidence.quorum_since.unwrap_or(now).max(evidence.marks.at(known.joined));
    let own = heard.last_life(incarnation);
    let synced = heard.sync.as_ref().filter(|sync| sync.incarnation == *incarnation).map(|sync| sync.at);
    let unsynced = now.since(synced.unwrap_or(quorum_since));
    // A boot that has not joined is the same machine, alive: its supervisor is what is missing (R16).
    let other = heard.not_joined(known).map(|other| other.at);
    let word = heard.last_word(incarnation).max(other);
    let is_heard = word.is_some_and(|word| now.since(word) < timing.suspect_after.0);
    // Passes matter only where nothing else is fresh, and something is left to be decided.
    let is_gone = matches!(known.life, Life::Gone { .. });
    let sign = if is_heard || is_gone { word } else { word.max(passes.newest(host)) };
    let silent = now.since(sign.unwrap_or(quorum_since));
    let never = own.is_none() && other.is_none() && heard.answers.values().all(|answer| answer.age.is_none());
    let others = Others::of((evidence, heard), (timing, now), host, own.max(other), never, quorum_since);
    let suspect_after = timing.suspect_after.0;
    let verdict = match &known.life {
        Life::Gone { .. } => HostVerdict::Gone,
        Life::Up | Life::Fencing(_) => {
            if never && now.since(quorum_since) < timing.join_grace.0 {
                HostVerdict::Unknown
            } else if silent >= suspect_after {
                if others.agree() { HostVerdict::Failed } else { HostVerdict::Suspect }
            } else if unsynced >= suspect_after {
                let past = super::leases::is_past_lease(unsynced.as_millis(), timing.lease);
                if past { HostVerdict::Isolated } else { HostVerdict::SupervisorDown }
            } else if synced.is_none() {
                HostVerdict::Unknown
            } else {
                HostVerdict::Healthy
            }
        }
    };
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let is_told = words == Words::Always || !is_settled(verdict);
    HostJudgement {
        verdict,
        silent_ms: ms(silent),
        unsynced_ms: ms(unsynced),
        evidence: if is_told { others.words() } else { Vec::new() },
        unwell: unwell(heard),
        last_words: heard.last_words.clone(),
        waits: None,
        safe_at: None,
    }
}

fn unknown() -> HostJudgement {
    HostJudgement {
        verdict: HostVerdict::Unknown,
        silent_ms: 0,
        unsynced_ms: 0,
        evidence: Vec::new(),
        unwell: None,
        last_words: None,
        waits: None,
        safe_at: None,
    }
}

/// The freshest sign of life of any kind: to the coordinator, to another voter, or to whoever probes a guest there (R16).
pub(super) fn newest_sign(
    state: &ClusterState,
    evidence: &Evidence,
    host: &HostName,
    incarnation: &Incarnation,
) -> Option<Moment> {
    let tenures = state
        .guests
        .iter()
        .flat_map(|(name, guest)| guest.answering().into_iter().flatten().map(move |tenure| (name, tenure)));
    let passes = tenures
        .filter(|(_, tenure)| tenure.host == *host && tenure.incarnation == *incarnation)
        .filter_map(|(name, tenure)| evidence.last_pass_from_others(name, tenure.epoch, host));
    passes.chain(newest_word(evidence, host, incarnation)).max()
}

/// The freshest sign of life to the coordinator or to another voter.
pub(super) fn newest_word(evidence: &Evidence, host: &HostName, incarnation: &Incarnation) -> Option<Moment> {
    evidence.hosts.get(host)?.last_word(incarnation)
}

/// What the other voters say of a host's silence (R17).
struct Others<'a> {
    evidence: &'a Evidence,
    heard: &'a HostEvidence,
    timing: &'a Timing,
    now: Moment,
    host: &'a HostName,
    /// When the coordinator itself heard it last.
    own: Option<Moment>,
    /// Whether anybody who never heard it is silent about it: it has had its time to be heard.
    grace_over: bool,
}

impl<'a> Others<'a> {
    fn of(
        (evidence, heard): (&'a Evidence, &'a HostEvidence),
        (timing, now): (&'a Timing, Moment),
        host: &'a HostName,
        own: Option<Moment>,
        never: bool,
        quorum_since: Moment,
    ) -> Self {
        // R19: voters that were restarted after they heard it will never hear it. Whoever did hear it has to have missed it
        // for so much longer that they would have heard it too.
        let own_silence = own.map_or(Duration::MAX, |at| now.since(at));
        let missed = never || own_silence >= timing.suspect_after.0 + timing.join_grace.0;
        let grace_over = missed && now.since(quorum_since) >= timing.join_grace.0;
        Self { evidence, heard, timing, now, host, own, grace_over }
    }

    fn voters(&self) -> impl Iterator<Item = &'a HostName> {
        let host = self.host;
        self.evidence.voters.iter().filter(move |voter| *voter != host)
    }

    /// The voters whose word counts, and how long ago each heard the host; `None`: never, although it should have.
    fn ages(&self) -> impl Iterator<Item = (&'a HostName, Option<Duration>)> {
        let counted = self.voters().filter(move |voter| counts(self.evidence, self.heard, self.now, voter));
        counted.filter_map(move |voter| {
            let age = if Some(voter) == self.evidence.me.as_ref() {
                self.own.map(|at| self.now.since(at))
            } else {
                let answer = self.heard.answers.get(voter);
                answer.and_then(|answer| answer.age.map(|age| age + self.now.since(answer.asked)))
            };
            (age.is_some() || self.grace_over).then_some((voter, age))
        })
    }

    /// Whether a majority of them has not heard the host for `suspect_after`.
    fn agree(&self) -> bool {
        let is_silent = |age: Option<Duration>| age.is_none_or(|age| age >= self.timing.suspect_after.0);
        let silent = self.ages().filter(|(_, age)| is_silent(*age)).count();
        silent * 2 > self.voters().count()
    }

    /// What each says.
    fn words(&self) -> Vec<String> {
        let said = self.ages().map(|(voter, age)| match age {
            Some(age) => format!("{voter} last heard it {} ago", Span::ms(crate::time::millis(age))),
            None => format!("{voter} has never heard it"),
        });
        said.collect()
    }
}

/// Whether a voter's word counts at this moment: it has answered a moment ago, and counts itself (R17). The coordinator's
/// own word counts unless it doubts itself.
fn counts(evidence: &Evidence, heard: &HostEvidence, now: Moment, voter: &HostName) -> bool {
    if Some(voter) == evidence.me.as_ref() {
        return evidence.hosts.get(voter).is_none_or(|me| me.unwell.is_none());
    }
    heard.answers.get(voter).is_some_and(|answer| answer.counts && now.since(answer.asked) < ANSWER_AGE_MAX)
}
