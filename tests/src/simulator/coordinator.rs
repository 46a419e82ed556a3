//! The coordinator's shell on a simulated voter: gathers evidence, has the product's `decide` decide, proposes one command
//! after the other. It mirrors `supervisor/src/coordinator`.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use holdfast_policies::{
    change::{Applied, Change, Command},
    check::check,
    decide::{Report, Wish, confirm_off, decide},
    evidence::{Evidence, Heard},
    go_ahead::GoAheads,
    names::{HostName, Incarnation},
    state::Mode,
    sync::SyncRequest,
    time::{Now, WallTime},
};

use super::{
    Ms,
    breaks::{Break, forget_passes, is_said_off},
    network::Transit,
    queue::Event,
    waits::{forget_waits, unexplained},
    world::World,
};

/// How often it decides when something is odd; and when nothing is.
const THINK: Ms = 50;
const THINK_CALM: Ms = 200;
/// Oldest round that an answer may rest on, and how long a sync waits for one.
pub(super) const FRESH: Ms = 400;
/// Without a confirmed round for this long there is no authority.
const ROUND_LOST: Ms = 700;
/// How long a refused change is not proposed again.
const REFUSED_FOR: Ms = 1_000;
/// A proposal without an end after this is given up; it may still be committed.
const PROPOSAL_PATIENCE: Ms = 2_000;

/// R18 broken: leases are counted from so long before the election.
const LONG_BEFORE: Duration = Duration::from_secs(60);

/// A sync that waits for authority: since when, of which host, forwarded by whom, of which life, and what it says.
type Parked = (Ms, usize, Option<usize>, u32, Box<SyncRequest>);

/// What the task owns, while it leads.
#[derive(Default)]
pub struct Brain {
    /// What it has gathered.
    pub evidence: Evidence,
    pub(super) nonces: BTreeMap<HostName, (Incarnation, u64)>,
    /// Results and joins to be committed.
    results: VecDeque<Change>,
    /// What has been decided and not been proposed yet.
    decided: VecDeque<Change>,
    waiting: Option<(u64, Ms, Change, bool)>,
    refused: Vec<(Change, Ms)>,
    pub(super) asked: BTreeMap<Wish, Ms>,
    pub(super) parked: Vec<Parked>,
    thought_at: Ms,
    /// An agent is ahead of this leader (R3).
    pub(super) halted: bool,
    /// What the last round of deciding wanted, for people.
    wanted: Vec<Change>,
    /// What the last round of deciding said of hosts and guests.
    pub(super) report: Option<Report>,
    /// Which fences are still wanted.
    pub(super) go_aheads: GoAheads,
    /// It doubts itself, because its link loses much.
    pub(super) doubts: bool,
    /// The last round of deciding wanted nothing and wondered about nothing.
    pub calm: bool,
}

impl Brain {
    /// One that begins anew in another term: all that is kept is when the lead was handed over (R29).
    pub(super) fn anew(&self) -> Self {
        let evidence = Evidence { handed_over: self.evidence.handed_over, ..Evidence::default() };
        Self { evidence, ..Self::default() }
    }
}

impl World {
    /// The voter with confirmed authority, if there is one.
    #[must_use]
    pub fn coordinator(&self) -> Option<usize> {
        (0..self.voters.len())
            .filter(|voter| self.voters[*voter].leads() && self.has_authority(*voter))
            .max_by_key(|voter| self.voters[*voter].term)
    }

    pub(super) fn has_authority(&self, voter: usize) -> bool {
        let known = &self.voters[voter];
        known.confirmed.is_some_and(|(began, term)| term == known.term && self.now.saturating_sub(began) < ROUND_LOST)
    }

    pub(super) fn think(&mut self, voter: usize, life: u32, term: u64) {
        let now = self.now;
        if !self.voters[voter].leads() || self.voters[voter].term != term {
            return;
        }
        self.turn(voter);
        let again = if self.voters[voter].brain.calm { THINK_CALM } else { THINK };
        self.queue.push(now + again, Event::Think { voter, life, term });
    }

    fn turn(&mut self, voter: usize) {
        let now = self.now;
        let clock = self.hosts[voter].clock(now);
        let confirmed = self.has_authority(voter);
        let known = &mut self.voters[voter];
        if confirmed && known.brain.evidence.quorum_since.is_none() {
            known.brain.evidence.quorum_since = Some(clock);
            let before = if self.broken == Some(Break::R18Lease) { LONG_BEFORE } else { Duration::ZERO };
            known.brain.evidence.authority_since = Some(clock.minus(before));
            known.brain.evidence.me = Some(self.hosts[voter].name.clone());
        }
        // It never rests for longer than a tick, unless it was suspended or starved: it accuses nobody then (R29).
        let late = known.brain.thought_at != 0 && now - known.brain.thought_at > THINK_CALM + 750;
        known.brain.thought_at = now;
        if late {
            known.brain.evidence.quorum_since = known.brain.evidence.quorum_since.map(|_| clock);
            known.brain.evidence.held_until = Some(clock.plus(self.timing.sync_every.0 * 2));
            self.hosts[voter].doubted_at = Some(now);
        }
        self.doubt_oneself(voter);
        let brain = &mut self.voters[voter].brain;
        brain.parked.retain(|(at, ..)| now - at < FRESH);
        if brain.waiting.as_ref().is_some_and(|(_, since, ..)| now - since > PROPOSAL_PATIENCE) {
            brain.waiting = None;
            brain.decided.clear();
        }
        if brain.waiting.is_some() || !brain.results.is_empty() {
            self.propose_next(voter);
            return;
        }
        self.refresh(voter);
        self.lose_lies(voter);
        let reads_reports = self.reads_reports();
        let known = &mut self.voters[voter];
        let brain = &mut known.brain;
        brain.evidence.marks = std::mem::take(&mut known.marks);
        let wall = WallTime(self.skipped + now + self.hosts[voter].wall_jump);
        brain.evidence.note_beside(&known.state.hosts, clock);
        let forgetful = (self.broken == Some(Break::S9Services)).then(|| forget_passes(&brain.evidence));
        let evidence = forgetful.as_ref().unwrap_or(&brain.evidence);
        let mut decision = decide(&known.state, evidence, &self.timing, Now { moment: clock, wall });
        if self.broken == Some(Break::R19Unsaid) {
            forget_waits(&mut decision.report);
        }
        self.decisions += 1;
        brain.calm = decision.commands.is_empty() && decision.wishes.is_empty();
        // With a rule broken it is asked for nothing but what that rule is about.
        if self.broken.is_none_or(|rule| rule == Break::S9Services)
            && let Some(broken) = check(&known.state, &brain.evidence, &self.timing, clock, &decision.commands)
                .iter()
                .find(|found| self.broken.is_none() || found.promise == "S9")
        {
            let plan: String = format!("{:?}", decision.commands).chars().take(2_000).collect();
            let what = format!("the checker beside the planner refuses a plan: {broken}: {plan}");
            self.violate("plan", what);
            return;
        }
        known.marks = std::mem::take(&mut brain.evidence.marks);
        // A leader without authority commands nothing, whatever it has decided.
        if reads_reports
            && confirmed
            && !brain.halted
            && decision.commands.is_empty()
            && let Some(what) = unexplained(&known.state, &decision.report)
        {
            self.violate("R19", what);
            return;
        }
        brain.wanted.clone_from(&decision.commands);
        brain.go_aheads = decision.go_aheads;
        let mut commands = if confirmed && !brain.halted { decision.commands } else { Vec::new() };
        if self.broken == Some(Break::R21) && confirmed && decision.report.storm_hold.is_some() {
            super::breaks::ignore_the_hold(&known.state, &decision.report, &mut commands);
        }
        if confirmed {
            self.check_held(voter, &decision.report);
        }
        let listened = self.hosts[voter].has_listened(now) || self.broken == Some(Break::R18);
        for change in commands {
            let accuses = matches!(change, Change::FenceOpened { .. } | Change::FenceAttempted { .. });
            if (!accuses || listened) && !self.is_refused(voter, &change) {
                self.voters[voter].brain.decided.push_back(change);
            }
        }
        if let Some(raise) = self.level_to_raise(voter).filter(|_| confirmed) {
            self.voters[voter].brain.calm = false;
            if !self.voters[voter].brain.halted && !self.is_refused(voter, &raise) {
                self.voters[voter].brain.decided.push_back(raise);
            }
        }
        self.propose_next(voter);
        for wish in decision.wishes {
            self.ask(voter, wish);
        }
        self.voters[voter].brain.report = Some(decision.report);
        if let Some(to) = decision.hand_over.filter(|_| confirmed).and_then(|wanted| self.host_index(&wanted.to)) {
            self.voters[voter].brain.evidence.handed_over = Some(clock);
            let next = (voter + 1) % self.voters.len();
            self.hand_over(voter, if self.broken == Some(Break::R29) { next } else { to });
        }
    }

    fn is_refused(&mut self, voter: usize, change: &Change) -> bool {
        let now = self.now;
        let refused = &mut self.voters[voter].brain.refused;
        refused.retain(|(_, at)| now - at < REFUSED_FOR);
        refused.iter().any(|(known, _)| known == change)
    }

    /// Brings the evidence up to date with what came by datagram.
    pub(super) fn refresh(&mut self, voter: usize) {
        if self.voters[voter].brain.evidence.voters.len() != self.members.len() {
            let names = self.members.iter().map(|member| self.hosts[*member].name.clone()).collect();
            self.voters[voter].brain.evidence.voters = names;
        }
        for of in 0..self.hosts.len() {
            if self.hosts[voter].heard[of].is_none() || self.broken == Some(Break::R16) {
                continue;
            }
            self.hear_unjoined(voter, of);
            let name = &self.hosts[of].name;
            let known = &mut self.voters[voter];
            if self.broken == Some(Break::R9) && is_said_off(&known.state, &known.brain.evidence, name) {
                continue;
            }
            let Some(host) = known.state.hosts.get(name) else { continue };
            let incarnation = &host.facts.incarnation;
            let Some(at) = self.hosts[voter].heard_at(of, super::host::boot_of(incarnation)) else { continue };
            let at = self.hosts[voter].clock(at);
            let seen = &mut known.brain.evidence.hosts;
            match seen.get_mut(name).map(|seen| &mut seen.heard) {
                Some(Some(heard)) if heard.incarnation == *incarnation => heard.at = at,
                Some(heard) => *heard = Some(Heard { at, incarnation: incarnation.clone() }),
                None => {
                    let heard = Some(Heard { at, incarnation: incarnation.clone() });
                    seen.entry(name.clone()).or_default().heard = heard;
                }
            }
        }
        let known = &mut self.voters[voter];
        let state = &known.state;
        known.brain.evidence.hosts.retain(|name, _| state.hosts.contains_key(name));
    }

    /// A boot that has not joined is a sign of life of its machine (R16).
    fn hear_unjoined(&mut self, voter: usize, of: usize) {
        let now = self.hosts[voter].clock(self.now);
        let Some((at, boot)) = self.heard_unjoined(voter, of) else { return };
        let (at, incarnation) = (self.hosts[voter].clock(at), self.hosts[of].incarnation(boot));
        let name = self.hosts[of].name.clone();
        self.voters[voter].brain.evidence.hosts.entry(name).or_default().hear_other(&incarnation, at, now);
    }

    pub(super) fn heard_unjoined(&self, voter: usize, of: usize) -> Option<(Ms, u32)> {
        let host = self.voters[voter].state.hosts.get(&self.hosts[of].name)?;
        let joined = super::host::boot_of(&host.facts.incarnation);
        // The name of any other boot has to be made to be looked for.
        let knows = |boot: u32| boot == joined || host.knows_boot(&self.hosts[of].incarnation(boot));
        self.hosts[voter].heard_unjoined(of, knows)
    }

    /// Proposes the next command, when the one before has its end.
    pub(super) fn propose_next(&mut self, voter: usize) {
        let wall = WallTime(self.skipped + self.now + self.hosts[voter].wall_jump);
        let brain = &mut self.voters[voter].brain;
        if brain.waiting.is_some() {
            return;
        }
        let (change, decided) = match brain.results.pop_front() {
            Some(change) => (change, false),
            None => match brain.decided.pop_front() {
                Some(change) => (change, true),
                None => return,
            },
        };
        let command = Command { at: wall, what: change.clone() };
        let length = self.append_own(voter, Some(Rc::new(command)));
        self.voters[voter].brain.waiting = Some((self.base + length as u64, self.now, change, decided));
    }

    /// The leader has applied an entry: agents are woken, and the next command may be proposed.
    pub(super) fn own_applied(&mut self, voter: usize, index: u64, applied: &Applied) {
        let now = self.now;
        for host in &applied.nudge {
            let Some(host) = self.host_index(host) else { continue };
            if self.broken != Some(Break::R5)
                && let Transit::After(wait) | Transit::Twice(wait, _) =
                    self.network.send(voter, host, now, &mut self.random)
            {
                self.queue.push(now + wait, Event::Nudge { host });
            }
        }
        let brain = &mut self.voters[voter].brain;
        let Some((waited, _, _, decided)) = &brain.waiting else { return };
        if *waited != index {
            return;
        }
        let decided = *decided;
        if let Some((_, _, change, _)) = brain.waiting.take()
            && applied.refused.is_some()
        {
            brain.refused.push((change, now));
            if decided {
                brain.decided.clear();
            }
        }
        self.propose_next(voter);
    }

    /// Something that came from outside is to be committed, once.
    pub(super) fn result(&mut self, voter: usize, change: Change) {
        if self.is_refused(voter, &change) {
            return;
        }
        let brain = &mut self.voters[voter].brain;
        let waits = brain.waiting.as_ref().is_some_and(|(_, _, waited, _)| *waited == change);
        if !waits && !brain.results.contains(&change) {
            brain.results.push_back(change);
            self.propose_next(voter);
        }
    }

    // ---- the desk ----

    /// An operator's command at the coordinator; `false` when there is none that could take it.
    pub(super) fn operate(&mut self, change: Change) -> bool {
        let Some(voter) = self.coordinator() else { return false };
        if !self.hosts[voter].serves(self.now) {
            return false;
        }
        self.result(voter, change);
        true
    }

    /// `holdfast host confirm-off`: the person has looked, and the host is off.
    pub(super) fn confirm_off(&mut self, host: usize) -> bool {
        let Some(voter) = self.coordinator() else { return false };
        let name = self.hosts[host].name.clone();
        let (known, clock) = (&self.voters[voter], self.hosts[voter].clock(self.now));
        let Some(host) = known.state.hosts.get(&name) else { return true };
        match confirm_off(&known.state, &known.brain.evidence, &self.timing, clock, (&name, host), "ann") {
            Ok(proof) => {
                self.result(voter, Change::HostGone { proof, last_well: None, last_words: None });
                true
            }
            Err(_) => false,
        }
    }

    /// Whether nothing is under way in the coordinator.
    pub(super) fn brain_rests(&self, voter: usize) -> bool {
        let brain = &self.voters[voter].brain;
        brain.calm && brain.waiting.is_none() && brain.results.is_empty() && brain.decided.is_empty()
    }

    pub(super) fn brain_wants(&self, voter: usize) -> String {
        let brain = &self.voters[voter].brain;
        let halted = if brain.halted { ", halted: an agent is ahead" } else { "" };
        format!("waits for {:?}, {} results, wanted {:?}{halted}", brain.waiting, brain.results.len(), brain.wanted)
    }

    /// Modes that operators have set and not taken back.
    pub(super) fn all_active(&self) -> bool {
        self.truth.state.hosts.values().all(|host| host.mode == Mode::Active)
    }
}
