//! Why a running guest goes elsewhere.
//!
//! Nothing that runs is disturbed because elsewhere would be a little nicer, and an operator's move is not undone: only a
//! required rule or a drain moves a guest away from where an operator has put it.

use std::{collections::BTreeSet, fmt, time::Duration};

use super::{
    super::{Degradation, Round, ServiceVerdict},
    GuestJudgement,
    running::Run,
};
use crate::{
    fit::host_rule_broken,
    model::{OnDegraded, Policies, Policy},
    names::{GuestName, HostName, RuleName, ServiceName},
    rules::{Rule, Score},
    state::{Life, Mode},
};

/// How long a host must have been back, and well by its own word, before guests return to it: one that falls again at once is none to
/// return to, and one that is unwell again at once would have those leave again whose policy says so.
const FAILBACK_AFTER: Duration = Duration::from_secs(60);

/// What [`Score::Must`] counts among likings: more than all weights together.
const MUST: i64 = i64::MAX / 1_024;

/// Why a guest goes elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// A required rule says that it does not run here.
    Rule { rule: RuleName, host: HostName },
    /// Its host is being drained.
    Drain { host: HostName },
    /// What the planner found: rules between guests, room, or hosts that it likes better.
    Planned {
        /// What the rules say.
        why: String,
        /// It cannot stay.
        required: bool,
        /// The only hosts that answer it, where not any does: away from its set it would have to move again, and for ever.
        to: Option<BTreeSet<HostName>>,
    },
    /// Its host is not well, and its policy says that it moves then.
    Unwell { host: HostName, why: String },
    /// A service of it is slow here, and its policy says that it moves then.
    Slow { service: ServiceName, host: HostName },
    /// A service of it answers here and not most of the other hosts, and its policy says that it moves then.
    CutOff { service: ServiceName, host: HostName },
    /// The hosts that it likes better are back.
    Failback { to: BTreeSet<HostName> },
}

impl Reason {
    /// Whether it cannot stay.
    pub(super) fn is_urgent(&self) -> bool {
        match self {
            Self::Rule { .. } | Self::Drain { .. } => true,
            Self::Planned { required, .. } => *required,
            Self::Unwell { .. } | Self::Slow { .. } | Self::CutOff { .. } | Self::Failback { .. } => false,
        }
    }

    /// Whether a move to this host answers it.
    pub(super) fn allows(&self, host: &HostName) -> bool {
        match self {
            Self::Rule { .. } | Self::Drain { .. } | Self::Unwell { .. } | Self::Slow { .. } | Self::CutOff { .. } => {
                true
            }
            Self::Planned { to, .. } => to.as_ref().is_none_or(|to| to.contains(host)),
            Self::Failback { to } => to.contains(host),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { rule, host } => write!(f, "the rule {rule} forbids {host}"),
            Self::Drain { host } => f.write_str(&drained(host)),
            Self::Planned { why, .. } => f.write_str(why),
            Self::Unwell { host, why } => write!(f, "{host} is not well: {why}"),
            Self::Slow { service, host } => write!(f, "{service} is slow on {host}"),
            Self::CutOff { service, host } => {
                write!(f, "{service} answers on {host}, and not most of the other hosts that ask it")
            }
            Self::Failback { to } => {
                let to: Vec<&str> = to.iter().map(HostName::as_str).collect();
                write!(f, "it goes back, its rules prefer {}", to.join(" or "))
            }
        }
    }
}

/// Why a guest leaves a host that is being drained.
pub(in crate::decide) fn drained(host: &HostName) -> String {
    format!("{host} is being drained")
}

/// The most urgent reason, if there is any.
pub(super) fn reason_to_move(
    round: &Round<'_>,
    run: &Run<'_>,
    policy: Option<&Policy>,
    judgement: &GuestJudgement,
) -> Option<Reason> {
    must_leave(round, run).or_else(|| {
        // Where an operator has put it, it stays; and one of its set that is stuck goes first, for it would come back to that.
        let free_to_go = run.guest.settled.as_ref() != Some(&run.tenure.host);
        free_to_go
            .then(|| {
                unwell(round, run, policy)
                    .or_else(|| slow(round, run, policy?, judgement))
                    .or_else(|| cut_off(round, run, policy?, judgement))
                    .or_else(|| failback(round, run))
                    .or_else(|| liked(round, run))
            })
            .flatten()
            .filter(|_| !round.plan.is_held(run.name))
    })
}

/// Whether the guest must leave its host. The hook for whoever knows all rules: this one knows those about hosts.
pub(super) fn must_leave(round: &Round<'_>, run: &Run<'_>) -> Option<Reason> {
    let host = &run.tenure.host;
    if let Some(rule) = host_rule_broken(&round.state.policies, run.name, host) {
        return Some(Reason::Rule { rule: rule.clone(), host: host.clone() });
    }
    let is_active = run.here.known.is_some_and(|known| known.mode == Mode::Active);
    if !is_active && round.state.is_draining(host) {
        return Some(Reason::Drain { host: host.clone() });
    }
    planned(round, run).filter(Reason::is_urgent)
}

/// What the planner says of where it runs.
fn planned(round: &Round<'_>, run: &Run<'_>) -> Option<Reason> {
    let why = round.plan.reason_to_move(run.name)?;
    let required = round.plan.wanted_move(run.name).is_none_or(|wanted| wanted.required);
    Some(Reason::Planned { why, required, to: round.plan.with_set(run.name) })
}

/// A host that is liked so much better that its stickiness does not hold it, and has long been well. One that goes back waits for its
/// hosts to be calm.
fn liked(round: &Round<'_>, run: &Run<'_>) -> Option<Reason> {
    let found = planned(round, run)?;
    let goes_back = run.declared?.needs.failback;
    let to = round.plan.wanted_move(run.name).and_then(|wanted| wanted.to);
    let is_calm = to.is_none_or(|to| has_long_been_well(round, round.plan.problem.host_name(to)));
    (!goes_back && is_calm).then_some(found)
}

/// Whether a host has not called itself unwell for so long that guests may go there because they like it.
fn has_long_been_well(round: &Round<'_>, host: &HostName) -> bool {
    let last = round.evidence.hosts.get(host).and_then(|seen| seen.unwell_at);
    last.is_none_or(|last| round.now.moment.since(last) >= FAILBACK_AFTER)
}

fn unwell(round: &Round<'_>, run: &Run<'_>, policy: Option<&Policy>) -> Option<Reason> {
    policy.filter(|policy| policy.on_degraded == OnDegraded::Migrate)?;
    let host = &run.tenure.host;
    let why = round.hosts.get(host)?.unwell.clone()?;
    Some(Reason::Unwell { host: host.clone(), why })
}

/// A service that as many vantages as must agree find slow. A move that did not help is not repeated before the cool-down is
/// over: then the guest is not what its host makes it.
fn slow(round: &Round<'_>, run: &Run<'_>, policy: &Policy, judgement: &GuestJudgement) -> Option<Reason> {
    if policy.on_degraded != OnDegraded::Migrate {
        return None;
    }
    let mut slow = judgement.services.iter().filter(|(_, own)| {
        own.verdict == ServiceVerdict::Degraded && own.degraded == Some(Degradation::Slow) && own.waits_for.is_none()
    });
    let (service, _) = slow.next().filter(|_| round.age(run.since) >= policy.cool_down.0)?;
    Some(Reason::Slow { service: service.clone(), host: run.tenure.host.clone() })
}

/// A service that the host's network seems to keep others from. Any other disagreement moves nothing: one bad path is not the
/// host's fault. It rests as one that is slow does.
fn cut_off(round: &Round<'_>, run: &Run<'_>, policy: &Policy, judgement: &GuestJudgement) -> Option<Reason> {
    if policy.on_degraded != OnDegraded::Migrate || round.age(run.since) < policy.cool_down.0 {
        return None;
    }
    let (watched, host) = (round.watched(run.name, run.tenure.epoch), &run.tenure.host);
    let mut cut_off = judgement.services.iter().filter(|(name, own)| {
        own.degraded == Some(Degradation::Disagreement)
            && own.waits_for.is_none()
            && policy.services.get(*name).is_some_and(|service| watched.is_cut_off(name, service, host))
    });
    let (service, _) = cut_off.next()?;
    Some(Reason::CutOff { service: service.clone(), host: host.clone() })
}

/// The hosts that are well again and liked better than this one, for a guest that goes back; not one where it does not start.
fn failback(round: &Round<'_>, run: &Run<'_>) -> Option<Reason> {
    let policies = &round.state.policies;
    if !run.declared?.needs.failback {
        return None;
    }
    let likes = |host: &HostName| liking(policies, run.name, host);
    let here = likes(&run.tenure.host);
    let back = |host: &HostName| {
        let known = round.state.hosts.get(host);
        let calm = known.is_some_and(|known| round.age(known.joined) >= FAILBACK_AFTER && known.life == Life::Up);
        let shunned = known.is_some_and(|known| run.guest.shuns.get(host) == Some(&known.facts.incarnation));
        calm && !shunned
            && round.answers(host)
            && round.hosts.get(host).is_some_and(|judgement| judgement.unwell.is_none())
            && has_long_been_well(round, host)
    };
    // Mostly it is where it is liked best, and nothing else has to be asked.
    let liked = round.state.hosts.keys().map(|host| (likes(host), host)).filter(|(liking, _)| *liking > here);
    let liked: Vec<(i64, &HostName)> = liked.filter(|(_, host)| back(host)).collect();
    let best = liked.iter().map(|(liking, _)| *liking).max()?;
    let mut to: BTreeSet<HostName> =
        liked.into_iter().filter(|(liking, _)| *liking == best).map(|(_, host)| host.clone()).collect();
    // A set goes back as one, to where all of it has room.
    if let Some(with_set) = round.plan.with_set(run.name) {
        to.retain(|host| with_set.contains(host));
    }
    (!to.is_empty()).then_some(Reason::Failback { to })
}

/// How much the rules about hosts like this one for the guest.
fn liking(policies: &Policies, guest: &GuestName, host: &HostName) -> i64 {
    let labels = policies.hosts.get(host).map(|declared| &declared.labels);
    let likings = policies.rules.values().map(|rule| match rule {
        Rule::Hosts { guests, hosts, .. } if guests.include(&policies.guests, guest) => {
            match hosts.score(host, labels) {
                Some(Score::Must) => MUST,
                Some(Score::Never) => -MUST,
                Some(Score::By(liking)) => liking.clamp(-MUST, MUST),
                None => 0,
            }
        }
        Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } | Rule::Order { .. } => 0,
    });
    likings.fold(0, i64::saturating_add)
}
