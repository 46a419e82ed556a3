//! Moves: why a guest that runs goes elsewhere. What a move under way waits for, and what is done about it, is in `migration.rs`.
//!
//! A guest that cannot stay and has nowhere to go runs on where it is, and says what it waits for.

use std::time::Duration;

use super::{
    super::{FOREVER, Round, fences::open, placement::Unplaceable},
    GuestJudgement, Pass,
    free::HEADING_PATIENCE,
    reasons::{Reason, must_leave, reason_to_move},
    running::Run,
    wanted::left_as_it_is,
};
use crate::{
    change::Change,
    migration::{Act, Due, due, is_sent_unheard},
    model::{Policy, Severity},
    names::{GuestName, HostName},
    observe::Sending,
    order::OrderOutcome,
    state::{Guest, Migration, MigrationStep, Phase, Tenure, Wanted},
    time::millis,
};

/// Pause before a guest that has just come to rest is moved: a move that fails is not tried again in the same breath.
const MOVE_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Longest pause before a guest is moved again to where it is merely liked better, when such moves fail again and again: each
/// try copies its memory in vain. For one that takes longer to be sent it is that time, so that the network is free for half of
/// it. One that cannot stay is tried on; see [`FAILED_MOVES_TOLD`].
const LIKED_PAUSE_MAX: Duration = Duration::from_secs(300);

/// After so many moves in a row that were given up, people are told of a guest that has to leave its host, and it is tried more
/// seldom as well: what has failed so often is likely to fail again, and each try holds the place that others of a drain wait for.
const FAILED_MOVES_TOLD: u32 = 3;

/// Longest pause before a guest that has to leave its host is moved again. Operators wait for it, so it is short.
const LEAVE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often a pause is doubled at most: then it is longer than any of the longest.
const DOUBLED_MAX: u32 = 10;

/// Moves under way at once, cluster-wide: each one takes a host's network for itself.
const MOVES_AT_ONCE: usize = 1;

/// Whether the guest takes one of the places of [`MOVES_AT_ONCE`]. What is only cleaned up or waits for a host does not, nor does
/// what a host sends that is not heard any more: that may be a guest with hours of time. Such a host may stay
/// silent for days, and what cannot be removed may be there as long.
pub(super) fn is_moving(round: &Round<'_>, guest: &Guest) -> bool {
    let all_answer = || guest.halves().into_iter().flatten().all(|half| round.answers(&half.host));
    match &guest.phase {
        Phase::Migrating(migration) => match migration.step {
            MigrationStep::Sending { order } => !is_sent_unheard(round, order),
            MigrationStep::Receiving { .. } => true,
            // Nothing is sent any more.
            MigrationStep::Switched { .. } => migration.release_failed.is_none() && all_answer(),
            MigrationStep::Returning { .. } | MigrationStep::Clearing { .. } => false,
        },
        Phase::Releasing { failed: None, .. } | Phase::Starting { .. } => guest.heading.is_some() && all_answer(),
        Phase::Free { since, .. } => guest.heading.is_some() && round.age(*since) < HEADING_PATIENCE,
        Phase::Unplaced | Phase::Releasing { .. } | Phase::Running { .. } => false,
    }
}

/// The only question that moves put to placement: which other host would take the guest. One that doubts itself is none,
/// except for a guest that cannot stay.
pub(super) fn target(round: &Round<'_>, run: &Run<'_>, reason: Option<&Reason>) -> Result<HostName, Unplaceable> {
    let elsewhere = |host: &HostName| *host != run.tenure.host && reason.is_none_or(|reason| reason.allows(host));
    let unwell = |host: &HostName| round.hosts.get(host).is_some_and(|judgement| judgement.unwell.is_some());
    let ask = |avoid: &dyn Fn(&HostName) -> bool| round.plan.choose(run.name, avoid).map(|(host, _)| host);
    match ask(&|host| !elsewhere(host) || unwell(host)) {
        Err(_) if reason.is_some_and(Reason::is_urgent) => ask(&|host| !elsewhere(host)),
        found => found,
    }
}

/// The pause between a guest's coming to rest and its next move; twice as long after each move that failed. If it cannot stay, the
/// first few do not count.
fn pause_before(round: &Round<'_>, run: &Run<'_>, reason: &Reason) -> Duration {
    let (borne, longest) = if reason.is_urgent() {
        (FAILED_MOVES_TOLD.saturating_sub(1), LEAVE_PAUSE_MAX)
    } else {
        (1, LIKED_PAUSE_MAX.max(round.state.time_to_send(run.name).0))
    };
    let doubled = 1_u32 << run.guest.failed_moves.saturating_sub(borne).min(DOUBLED_MAX);
    MOVE_AGAIN_AFTER.saturating_mul(doubled).min(longest)
}

/// Whether a guest that cannot stay has failed to move so often that people are told.
fn moves_in_vain(run: &Run<'_>, reason: &Reason) -> bool {
    reason.is_urgent() && run.guest.failed_moves >= FAILED_MOVES_TOLD
}

impl Pass<'_, '_> {
    /// A guest that runs, and may have a reason to be elsewhere.
    pub(super) fn consider_move(&mut self, run: &Run<'_>, policy: Option<&Policy>, judgement: &mut GuestJudgement) {
        let Some(reason) = reason_to_move(self.round, run, policy, judgement) else { return };
        let rested = self.round.age(run.since);
        let pause = pause_before(self.round, run, &reason);
        if moves_in_vain(run, &reason) {
            self.call_about_vain_moves(run, &reason);
        }
        let waits = |what: &str| format!("{}; {reason}: it waits for {what}", judgement.doing);
        if let Some(then) = self.keeps_from_a_cold_move(run.name) {
            judgement.doing = waits(&format!("{then} to stop, which does not run without it"));
            judgement.waits = Some((format!("{then} to stop"), FOREVER));
        } else if self.moving >= MOVES_AT_ONCE || self.beside {
            let whose = self.mover.as_ref().map(|mover| format!(", that of {mover}")).unwrap_or_default();
            judgement.doing = waits(&format!("another move to end{whose}"));
            judgement.waits = Some(("another move to end".to_owned(), FOREVER));
        } else if rested < pause {
            judgement.doing = waits("its newest start or move to settle");
            judgement.waits = Some(("the move".to_owned(), millis(pause.saturating_sub(rested))));
        } else {
            match target(self.round, run, Some(&reason)) {
                Ok(to) => self.move_to(run, to, &reason, judgement),
                Err(reasons) if reason.is_urgent() => {
                    judgement.doing = waits(&format!("a host that can take it: {}", reasons));
                    judgement.waits = Some(("a host that can take it".to_owned(), FOREVER));
                    if !reasons.passes() && !moves_in_vain(run, &reason) {
                        self.call_about_staying(run, &reason, &reasons);
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Ends that a guest cannot leave its host where it may stay, or is left alone there, however it is: nobody waits for it to leave any
    /// more, though it may like other hosts better. After a suspension that goes on.
    pub(super) fn need_not_leave(&mut self, run: &Run<'_>) {
        let round = self.round;
        // Of one that nobody has looked at in this round, it is not known that it may stay.
        let may_stay = || !round.plan.is_unseen(run.name) && must_leave(round, run).is_none();
        if self.told.about("leave").is_some() && (left_as_it_is(round.state, run.name).is_some() || may_stay()) {
            self.close("leave");
        }
    }

    /// What nobody can heal where it is does not hold up a drain: it goes ill, where it cannot stay.
    pub(super) fn leave_unhealed(&mut self, run: &Run<'_>, judgement: &mut GuestJudgement) {
        if must_leave(self.round, run).is_some() {
            let policy = self.round.state.policies.policy_of(run.name).map(|(_, policy)| policy);
            self.consider_move(run, policy, judgement);
        }
    }

    /// Whoever drains a host sees which guest holds it that is down, or whose storage has failed, and that nobody can heal: it is not moved
    /// as it is, and only a person ends that.
    pub(super) fn cannot_go_as_it_is(&mut self, run: &Run<'_>, why: &str, judgement: &mut GuestJudgement) {
        let Some(reason) = must_leave(self.round, run) else { return };
        let (name, host) = (run.name, &run.tenure.host);
        judgement.doing = format!("{}; {reason}, and it does not go as it is", judgement.doing);
        let summary = format!("{name} cannot leave {host} ({reason}): {why}, and every rung of its ladder was taken");
        let human = format!(
            "Heal {name}, have it started elsewhere (`holdfast guest migrate {name} --cold`), or stop it (`holdfast guest stop {name}`)."
        );
        open(self.round, self.decision, format!("leave/{name}"), Severity::Warning, summary, Some(human));
    }

    fn move_to(&mut self, run: &Run<'_>, to: HostName, reason: &Reason, judgement: &mut GuestJudgement) {
        self.moving += 1;
        self.mover.get_or_insert_with(|| run.name.clone());
        self.beside = true;
        let declared = self.round.state.policies.guests.get(run.name);
        let how =
            if declared.is_some_and(|declared| declared.needs.live_migration) { "" } else { " by a stop and a start" };
        judgement.doing = format!("about to move to {to}{how}: {reason}");
        self.decision.commands.push(Change::Migrate { guest: run.name.clone(), to, why: reason.to_string() });
        // What has failed again and again is told of until it has gone well; of one that may stay nothing is told any more.
        if reason.is_urgent() && !moves_in_vain(run, reason) {
            self.close("leave");
        }
    }

    /// Whoever drains a host sees which guest tries to go and does not get away.
    fn call_about_vain_moves(&mut self, run: &Run<'_>, reason: &Reason) {
        let (name, host) = (run.name, &run.tenure.host);
        let summary = format!("{name} cannot leave {host} ({reason}): its moves fail again and again");
        let human = format!(
            "`holdfast journal` says why. Where its memory changes faster than it is copied, where another machine is declared than it \
             runs with, or where nothing else helps, move it by a stop and a start: `holdfast guest migrate {name} --cold`. It runs on \
             meanwhile, and is tried again."
        );
        open(self.round, self.decision, format!("leave/{name}"), Severity::Warning, summary, Some(human));
    }

    /// Whoever drains a host sees what holds it.
    fn call_about_staying(&mut self, run: &Run<'_>, reason: &Reason, reasons: &Unplaceable) {
        let (name, host) = (run.name, &run.tenure.host);
        let summary = format!("{name} cannot leave {host} ({reason}): no other host can take it");
        let human = format!("Make room for {name} elsewhere, or stop it; it runs on meanwhile. {}", reasons);
        let key = format!("leave/{name}");
        open(self.round, self.decision, key, Severity::Warning, summary, Some(human));
    }

    /// A move that is under way goes on by what befalls it; the coordinator keeps it from waiting for ever.
    pub(super) fn migrating(&mut self, name: &GuestName, migration: &Migration, judgement: &mut GuestJudgement) {
        let host = |half: &Option<Tenure>| half.as_ref().map_or("nowhere".to_owned(), |half| half.host.to_string());
        judgement.doing = format!("moving from {} to {}", host(&migration.source), host(&migration.target));
        if let Some(failure) = &migration.failure {
            judgement.doing = format!("the move failed ({failure}), what is left of it is removed");
        } else if let Some(sending) = self.progress(name, migration) {
            judgement.doing = format!("{}; {sending}", judgement.doing);
        }
        let Due { waits, act } = due(self.round, migration);
        judgement.waits = waits;
        let act = self.not_wanted(name, migration).or(act);
        self.decision.commands.extend(act.map(|act| match act {
            Act::AskAgain => Change::ReleaseAgain { guest: name.clone() },
            Act::TakeForFailed { order, detail } => {
                Change::OrderEnded { order, outcome: OrderOutcome::Failed { detail } }
            }
        }));
    }

    /// How far the source has come with sending, as it says itself.
    fn progress(&self, name: &GuestName, migration: &Migration) -> Option<Sending> {
        let source = migration.source.as_ref().filter(|_| matches!(migration.step, MigrationStep::Sending { .. }))?;
        let report = self.round.evidence.hosts.get(&source.host)?.reports.get(name)?;
        report.sending.filter(|_| report.epoch == source.epoch)
    }

    /// Nobody waits hours for the end of a live move to have the guest stopped then: before its switch it is given up, and the guest
    /// stops where it runs. Hosts of an earlier version do not notice that, and may have handed it over (R26).
    fn not_wanted(&self, name: &GuestName, migration: &Migration) -> Option<Act> {
        let order = match &migration.step {
            MigrationStep::Receiving { order } | MigrationStep::Sending { order } => *order,
            MigrationStep::Switched { .. } | MigrationStep::Returning { .. } | MigrationStep::Clearing { .. } => {
                return None;
            }
        };
        let state = self.round.state;
        let stops = state.guests.get(name).is_some_and(|guest| guest.wanted == Wanted::Stopped);
        let may = state.may_call_off() && state.orders.contains_key(&order) && state.hands_off(name).is_none();
        let detail = || "called off, because an operator wants the guest stopped".to_owned();
        (stops && may).then(|| Act::TakeForFailed { order, detail: detail() })
    }
}
