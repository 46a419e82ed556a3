//! Service verdicts: consecutive failures at a vantage, and vantages that agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use litemap::LiteMap;
use serde::{Deserialize, Serialize, Serializer};

use super::Round;
use crate::{
    evidence::{Evidence, Sight, SightState},
    model::Service,
    names::{Epoch, GuestName, HostName, ServiceName, Vantage},
    state::ClusterState,
    time::Moment,
};

/// What a service amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceVerdict {
    /// It answers.
    Healthy,
    /// It answers, and yet not as it should: slowly, not everywhere, or only now and then.
    Degraded,
    /// Somebody says that it does not answer.
    Suspect,
    /// As many vantages as the policy asks for say that it does not answer.
    Failed,
    /// Nobody could ask.
    Unknown,
}

/// A verdict with what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceJudgement {
    /// The verdict.
    pub verdict: ServiceVerdict,
    /// What each vantage says. Nothing in the report of a round where it is healthy, or nothing can be said of it: that is told when
    /// somebody asks ([`Report::with_words`](super::Report::with_words)).
    pub evidence: Vec<String>,
    /// For `Degraded`: in which way.
    #[serde(default)]
    pub degraded: Option<Degradation>,
    /// Whether a vantage gets answers that come with a warning. Those are passes, whatever the verdict is.
    #[serde(default)]
    pub warns: bool,
    /// A service without which this one cannot answer, and which does not: nothing is done about this one meanwhile.
    #[serde(default)]
    pub waits_for: Option<ServiceName>,
}

/// The services of a guest, each with its verdict. Most guests have one or two, and every round makes this anew for all of them: a
/// tree would take room for eleven.
pub type Services = LiteMap<ServiceName, ServiceJudgement>;

/// Writes services as a map even where there are none: by itself such a [`LiteMap`] is written as a list, which whoever reads it, an
/// earlier version too, does not expect.
///
/// # Errors
/// The serializer's.
pub fn as_map<S: Serializer>(services: &Services, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(services.iter())
}

/// In which way a service is degraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degradation {
    /// Vantages differ: some get no answer, or a slow one, and the others a good one.
    Disagreement,
    /// As many vantages as the policy asks for get slow answers.
    Slow,
    /// It begins and ceases to answer again and again.
    Flapping,
}

impl fmt::Display for Degradation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disagreement => "vantages disagree",
            Self::Slow => "slow",
            Self::Flapping => "flapping",
        })
    }
}

impl ServiceJudgement {
    /// A verdict that needs no explanation beyond its evidence.
    #[must_use]
    pub fn plain(verdict: ServiceVerdict, evidence: Vec<String>) -> Self {
        Self { verdict, evidence, degraded: None, warns: false, waits_for: None }
    }

    /// The verdict in words: `healthy`, `degraded (slow)`, `waits for network`.
    #[must_use]
    pub fn word(&self) -> String {
        let verdict = match self.verdict {
            ServiceVerdict::Healthy => "healthy",
            ServiceVerdict::Degraded => "degraded",
            ServiceVerdict::Suspect => "suspect",
            ServiceVerdict::Failed => "failed",
            ServiceVerdict::Unknown => "unknown",
        };
        match (&self.waits_for, self.degraded) {
            (Some(need), _) => format!("waits for {need}"),
            (None, Some(degraded)) => format!("{verdict} ({degraded})"),
            (None, None) => verdict.to_owned(),
        }
    }
}

/// What is known of the services of one guest under one assignment at one moment: every question about them begins here.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// All that was heard.
    pub evidence: &'a Evidence,
    /// The moment: what is older than a service's answers count is left out.
    pub now: Moment,
    /// The guest.
    pub guest: &'a GuestName,
    /// Its assignment: what was seen under another one says nothing.
    pub epoch: Epoch,
}

/// What hosts see of a service over the network.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outside {
    /// When it last answered any of them.
    pub answered: Option<Moment>,
    /// When it last answered one of those that get no answer; `None` where all get one, or none of the others has ever got one.
    pub answered_who_fails: Option<Moment>,
    /// Whether some get no answer.
    pub fails: bool,
    /// Whether it is not as it should be inside either.
    pub is_ill_inside: bool,
}

/// Fewest other hosts that must get no answer before the guest's own host is thought to be what keeps them from it: one alone
/// may have a bad path of its own.
const CUT_OFF_MIN: usize = 2;

impl<'a> Watched<'a> {
    /// Judges one service by itself.
    #[must_use]
    pub fn judge(self, name: &ServiceName, service: &Service) -> ServiceJudgement {
        let judged = self.weigh(name, service);
        match judged.verdict {
            ServiceVerdict::Healthy | ServiceVerdict::Unknown => judged,
            ServiceVerdict::Degraded | ServiceVerdict::Suspect | ServiceVerdict::Failed => {
                ServiceJudgement { evidence: self.words(name, service), ..judged }
            }
        }
    }

    /// The same without a word of evidence, which costs more than the verdict.
    fn weigh(self, name: &ServiceName, service: &Service) -> ServiceJudgement {
        let (mut failing, mut passing, mut slow, mut flapping, mut warns) = (0_u32, 0_u32, 0_u32, 0_u32, false);
        for (_, sight) in self.fresh(name, service) {
            warns |= sight.warns;
            let count = match sight.state {
                SightState::Failing => &mut failing,
                SightState::Passing => &mut passing,
                SightState::Slow => &mut slow,
                SightState::Flapping => &mut flapping,
                SightState::Unknown => continue,
            };
            *count = count.saturating_add(1);
        }
        let agree = service.from.agree;
        let degraded = |how| (ServiceVerdict::Degraded, Some(how));
        let (verdict, degraded) = match (failing, flapping, slow, passing) {
            (failing, ..) if failing > 0 && failing >= agree => (ServiceVerdict::Failed, None),
            (_, flapping, _, _) if flapping > 0 => degraded(Degradation::Flapping),
            (0, _, 0, 0) => (ServiceVerdict::Unknown, None),
            (0, _, 0, _) => (ServiceVerdict::Healthy, None),
            (0, _, slow, _) if slow >= agree => degraded(Degradation::Slow),
            (_, _, 0, 0) => (ServiceVerdict::Suspect, None),
            (..) => degraded(Degradation::Disagreement),
        };
        ServiceJudgement { degraded, warns, ..ServiceJudgement::plain(verdict, Vec::new()) }
    }

    /// Judges all services of the guest: each by itself, then those that cannot answer because another one does not.
    #[must_use]
    pub(crate) fn judge_all(self, services: &BTreeMap<ServiceName, Service>) -> Services {
        self.all(services, |name, service| self.judge(name, service))
    }

    /// The same without a word of evidence.
    pub(super) fn weigh_all(self, services: &BTreeMap<ServiceName, Service>) -> Services {
        self.all(services, |name, service| self.weigh(name, service))
    }

    fn all(
        self,
        services: &BTreeMap<ServiceName, Service>,
        judge: impl Fn(&ServiceName, &Service) -> ServiceJudgement,
    ) -> Services {
        // In order, and with no room for more than there are.
        let mut all = Vec::with_capacity(services.len());
        all.extend(services.iter().map(|(name, service)| (name.clone(), judge(name, service))));
        let mut judged = Services::from_sorted_store_unchecked(all);
        // Along a chain of needs the cause is the last one that fails; a chain is no longer than there are services.
        for _ in services {
            let waiting = self.held_up(services, &judged);
            if waiting.is_empty() {
                break;
            }
            for (name, need) in waiting {
                if let Some(own) = judged.get_mut(&name) {
                    own.waits_for = Some(need);
                }
            }
        }
        judged
    }

    /// Services in doubt that wait for nothing yet, each with the first one that it needs and that holds it up.
    fn held_up(self, services: &BTreeMap<ServiceName, Service>, judged: &Services) -> Vec<(ServiceName, ServiceName)> {
        let waiting = services.iter().filter_map(|(name, service)| {
            let own = judged.get(name).filter(|own| own.waits_for.is_none() && is_in_doubt(own.verdict))?;
            let is_why = |need: &&ServiceName| {
                let (Some(other), Some(needed)) = (judged.get(*need), services.get(*need)) else { return false };
                let unheard = self.is_unheard_since((name, service), (*need, needed));
                let differs = other.degraded == Some(Degradation::Disagreement);
                holds_up(other, own, unheard) || (differs && self.is_one_side((name, service), (*need, needed)))
            };
            Some((name.clone(), service.tuning.needs.iter().find(is_why)?.clone()))
        });
        waiting.collect()
    }

    /// Whether a need has not passed since the service that has it last did.
    fn is_unheard_since(self, own: (&ServiceName, &Service), need: (&ServiceName, &Service)) -> bool {
        let passed = |(name, service): (&ServiceName, &Service)| {
            self.fresh(name, service).filter_map(|(_, sight)| sight.passed).max()
        };
        passed(own).is_some_and(|last| passed(need).is_none_or(|passed| passed <= last))
    }

    /// Whether any vantage gets no answer from any of these services, be it for the first time.
    pub(super) fn is_unanswered(self, services: &BTreeMap<ServiceName, Service>) -> bool {
        let mut sights = services.iter().flat_map(|(name, service)| self.fresh(name, service));
        sights.any(|(_, sight)| sight.is_unanswered())
    }

    /// Whether any vantage says something of a service, be it that it cannot tell.
    pub(super) fn is_looked_at(self, name: &ServiceName, service: &Service) -> bool {
        self.fresh(name, service).next().is_some()
    }

    /// What each vantage says of a service, in words.
    pub(super) fn words(self, name: &ServiceName, service: &Service) -> Vec<String> {
        self.fresh(name, service).map(|(vantage, sight)| said(vantage, sight, self.now)).collect()
    }

    /// The vantages that see a service like this, in words.
    pub(super) fn who_sees(self, name: &ServiceName, service: &Service, state: SightState) -> String {
        let side = self.fresh(name, service).filter(|(_, sight)| sight.state == state);
        side.map(|(vantage, _)| vantage.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// What hosts see of a service over the network, and whether the guest itself sees it too.
    pub(super) fn outside(self, name: &ServiceName, service: &Service) -> Outside {
        let mut outside = Outside::default();
        for (vantage, sight) in self.fresh(name, service) {
            match (vantage, sight.state) {
                (Vantage::Host(_), SightState::Failing) => {
                    outside.fails = true;
                    outside.answered_who_fails = outside.answered_who_fails.max(sight.passed);
                }
                (Vantage::Inside, SightState::Failing | SightState::Slow | SightState::Flapping) => {
                    outside.is_ill_inside = true;
                }
                (
                    Vantage::Host(_),
                    SightState::Passing | SightState::Slow | SightState::Flapping | SightState::Unknown,
                )
                | (Vantage::Inside, SightState::Passing | SightState::Unknown) => {}
            }
            if let Vantage::Host(_) = vantage {
                outside.answered = outside.answered.max(sight.passed);
            }
        }
        outside
    }

    /// Whether the guest's host seems to keep others from a service: it answers inside or on that host, and most of the other
    /// hosts that can tell get no answer, more than one of them. Where the policy lets fewer agree, the service has failed
    /// instead.
    pub(super) fn is_cut_off(self, name: &ServiceName, service: &Service, host: &HostName) -> bool {
        let told = self.fresh(name, service).filter(|(_, sight)| sight.state != SightState::Unknown);
        let (outside, within): (Vec<_>, Vec<_>) =
            told.partition(|(vantage, _)| matches!(vantage, Vantage::Host(from) if from != host));
        let failing = outside.iter().filter(|(_, sight)| sight.state == SightState::Failing).count();
        let most = failing > outside.len().saturating_sub(failing);
        failing >= CUT_OFF_MIN && most && within.iter().any(|(_, sight)| sight.state == SightState::Passing)
    }

    /// Whether whoever gets no answer of a service gets none of one that it needs either: then that is why, though others get one.
    fn is_one_side(self, own: (&ServiceName, &Service), need: (&ServiceName, &Service)) -> bool {
        let failing = |(name, service): (&ServiceName, &Service)| -> BTreeSet<&'a Vantage> {
            let failing = self.fresh(name, service).filter(|(_, sight)| sight.state == SightState::Failing);
            failing.map(|(vantage, _)| vantage).collect()
        };
        let own = failing(own);
        !own.is_empty() && own.is_subset(&failing(need))
    }

    /// The first service that has failed, as a sentence.
    #[must_use]
    pub(crate) fn failed_service(self, state: &ClusterState) -> Option<String> {
        let (_, policy) = state.policies.policy_of(self.guest)?;
        let judged = self.judge_all(&policy.services);
        let failed = judged.iter().find(|(_, own)| own.verdict == ServiceVerdict::Failed && own.waits_for.is_none());
        failed.map(|(name, _)| format!("{name} of {} does not answer", self.guest))
    }

    /// What vantages have seen of a service that still counts.
    fn fresh(self, name: &ServiceName, service: &Service) -> impl Iterator<Item = (&'a Vantage, &'a Sight)> + use<'a> {
        let fresh_for = service.fresh_for();
        let sights = self.evidence.services.get(self.guest).and_then(|services| services.get(name));
        let is_fresh =
            move |(_, sight): &(&Vantage, &Sight)| sight.epoch == self.epoch && self.now.since(sight.at) <= fresh_for;
        sights.into_iter().flatten().filter(is_fresh)
    }
}

impl Round<'_> {
    /// What is known of the services of a guest under an assignment.
    pub(super) fn watched<'a>(&'a self, guest: &'a GuestName, epoch: Epoch) -> Watched<'a> {
        Watched { evidence: self.evidence, now: self.now.moment, guest, epoch }
    }
}

/// Whether there is something to wait for instead of acting: a service that answers is well, whatever it needs.
fn is_in_doubt(verdict: ServiceVerdict) -> bool {
    match verdict {
        ServiceVerdict::Failed | ServiceVerdict::Suspect | ServiceVerdict::Degraded => true,
        ServiceVerdict::Healthy | ServiceVerdict::Unknown => false,
    }
}

/// Whether a need explains why another service does not answer as it should. `unheard` says that the need has not passed
/// since the other one last did: it is asked again within its interval, may be failing too, and is waited for.
fn holds_up(need: &ServiceJudgement, own: &ServiceJudgement, unheard: bool) -> bool {
    match (need.verdict, own.verdict) {
        (ServiceVerdict::Failed | ServiceVerdict::Suspect, _) => true,
        (ServiceVerdict::Degraded, ServiceVerdict::Degraded) => true,
        (ServiceVerdict::Healthy | ServiceVerdict::Degraded, ServiceVerdict::Failed | ServiceVerdict::Suspect) => {
            unheard
        }
        // What nobody can tell explains nothing (S5), and one that answers well least of all.
        (ServiceVerdict::Unknown | ServiceVerdict::Healthy | ServiceVerdict::Degraded, _) => false,
    }
}

fn said(vantage: &Vantage, sight: &Sight, now: Moment) -> String {
    let word = match (sight.state, sight.warns) {
        (SightState::Passing, false) => "passes",
        (SightState::Passing, true) => "passes with a warning",
        (SightState::Slow, _) => "is slow",
        (SightState::Flapping, _) => "flaps",
        (SightState::Failing, _) => "fails",
        (SightState::Unknown, _) => "cannot tell",
    };
    let ago = crate::time::Span::ms(crate::time::millis(now.since(sight.at)));
    format!("{vantage} {word} {ago} ago ({})", sight.detail)
}
