//! Rules and promises of docs/SAFETY.md that the simulator can switch off, to prove that its checks bite. Each is switched off in the
//! simulated shells, or by changing what passes between shell and brain; the brain itself is the product's.

use std::{collections::BTreeMap, fmt, str::FromStr};

use holdfast_policies::{
    change::Change,
    decide::{HostVerdict, Report},
    evidence::{Evidence, SightState},
    names::{Epoch, HostName},
    order::OrderKind,
    proof::{Power, PowerReading},
    state::{ClusterState, Life},
    sync::SyncReply,
    time::Moment,
};

macro_rules! breaks {
    ($($name:ident $text:literal $what:literal,)*) => {
        /// A rule that is switched off.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each is told by `Break::what`")]
        pub enum Break { $($name,)* }

        impl Break {
            /// All of them.
            pub const ALL: &[Break] = &[$(Break::$name,)*];

            /// The rule, as it is written on the command line.
            #[must_use]
            pub fn rule(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What is done instead.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }
        }
    };
}

breaks! {
    R1 "R1" "leases are measured on a clock that stops while the host is suspended",
    R1Watchdog "R1-watchdog" "a proof by lease counts the guard's and the watchdog's time without a margin for clocks",
    R2 "R2" "a leader answers syncs without a read round of its own",
    R3 "R3" "an agent accepts late replies, and an older authority than one that it has seen",
    R4 "R4" "a leader tells agents only of orders that it committed itself",
    R4News "R4-news" "a leader tells hosts what has changed of the view since it leads as if nothing had before",
    R5 "R5" "no nudges",
    R6 "R6" "no voter forwards a sync, and agents ask one voter only",
    R7 "R7" "the epochs of starts are not monotonic",
    R8 "R8" "hosts' words on guests that were never placed are taken for empty",
    R9 "R9" "a power reading counts from when it arrives, for whatever boot is there by then, whenever that was heard",
    R9Watchdog "R9-watchdog" "a proof by lease does not wait for the watchdog",
    R9Grant "R9-grant" "a leader does not note which leases it has granted",
    R9Reply "R9-reply" "an agent counts its lease from the reply, not from its request",
    R9Paused "R9-paused" "an emulated watchdog is relied on, which stands still with its host",
    R9Floors "R9-floors" "floors and epochs reach the disk seconds after they are acted on",
    R9Reported "R9-reported" "a release is reported done without looking whether anything is left",
    R10 "R10" "a new boot starts what ran before it, unordered",
    R10Lease "R10-lease" "a boot that was proven gone gets a lease at once when it is back",
    R11 "R11" "the incarnation is made at every start of the supervisor",
    R11Copy "R11-copy" "a boot joins while the one before it is heard",
    R12 "R12" "an agent that lost its disk takes its empty floors for known",
    R13 "R13" "the guard ends with the supervisor: no beacon, no lease",
    R14 "R14" "orders are carried out without looking at the lease right before",
    R14Stop "R14-stop" "a guard does not stop the guests when the lease runs out",
    R15 "R15" "a watchdog is closed, and nobody stops the guests, when the supervisor ends",
    R16 "R16" "only syncs count as signs of life",
    R17 "R17" "the leader's own ears count for all voters",
    R18 "R18" "a new leader counts silence from before it could hear anything",
    R18Lease "R18-lease" "a new leader counts leases from before its election",
    R19 "R19" "a host that was never heard is waited for without end",
    R19Unsaid "R19-unsaid" "the coordinator does not say what hosts and guests wait for",
    R20 "R20" "a host with an open fence gets a lease",
    R20Late "R20-late" "a fence order is carried out whatever has become of its target meanwhile",
    R21 "R21" "no storm hold",
    R22 "R22" "a target runs as soon as it has everything, before the switch is committed",
    R24 "R24" "a voter that lost its store comes back under its old id, with its vote",
    R25 "R25" "after a recovery every guest is taken to run nowhere, and nobody looks before it is started",
    R26 "R26" "the feature level is raised as soon as the coordinator can do it, whatever the other voters can",
    R27 "R27" "voters serve whoever comes, whether its certificate is revoked or not",
    R27News "R27-news" "what has changed of the view is told without who is revoked",
    R29 "R29" "the lead is handed over to whichever voter is next",
    S5 "S5" "a vantage that cannot tell how a service is counts as one that gets no answer",
    S9Services "S9-services" "the brain is not told when guests that have failed last answered: none is held for a common cause",
}

/// Rules that the simulator cannot express, and why.
pub const NOT_EXPRESSIBLE: &[(&str, &str)] = &[
    ("R23", "the simulated cluster is born initialised, and of stores only the generation is told apart"),
    (
        "R28",
        "what refuses a second guest on an image reads files, and what tries its lock is QEMU: images are not simulated",
    ),
];

/// Rules whose break costs something else than a promise, or is caught by another rule first, and why.
const HARMLESS: &[(Break, &str)] = &[(
    Break::R18,
    "a guard's beacon reaches every voter each 250 ms, and no election is faster than that: a new leader has heard all",
)];

impl Break {
    /// Whether it shows only in worlds with guards and watchdogs.
    #[must_use]
    pub fn is_about_leases(self) -> bool {
        matches!(
            self,
            Self::R1Watchdog
                | Self::R9Watchdog
                | Self::R9Grant
                | Self::R9Reply
                | Self::R9Paused
                | Self::R10Lease
                | Self::R14Stop
                | Self::R15
                | Self::R18Lease
        )
    }

    /// Whether the checks are to find it.
    #[must_use]
    pub fn is_found(self) -> bool {
        HARMLESS.iter().all(|(rule, _)| *rule != self)
    }

    /// Why nothing is found, where nothing is to be found.
    #[must_use]
    pub fn why_not_found(self) -> &'static str {
        HARMLESS.iter().find(|(rule, _)| *rule == self).map_or("not found in these seeds", |(_, why)| why)
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule())
    }
}

impl FromStr for Break {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(found) = Self::ALL.iter().find(|known| known.rule().eq_ignore_ascii_case(text)) {
            return Ok(*found);
        }
        match NOT_EXPRESSIBLE.iter().find(|(rule, _)| rule.eq_ignore_ascii_case(text)) {
            Some((rule, why)) => Err(format!("{rule} is not expressible in the simulator: {why}")),
            None => Err(format!("there is no rule {text:?}")),
        }
    }
}

/// R21 broken: hosts that have failed are fenced although fencing is held.
pub(super) fn ignore_the_hold(state: &ClusterState, report: &Report, commands: &mut Vec<Change>) {
    for (host, judgement) in &report.hosts {
        let Some(known) = state.hosts.get(host) else { continue };
        if judgement.verdict != HostVerdict::Failed {
            continue;
        }
        match &known.life {
            Life::Up if state.guests_of(host).next().is_some() => commands.push(Change::FenceOpened {
                host: host.clone(),
                incarnation: known.facts.incarnation.clone(),
                evidence: judgement.evidence.clone(),
                last_well: None,
                safe_at: None,
            }),
            Life::Fencing(fence) if fence.attempt.is_none() => {
                let executor = report.hosts.iter().find(|(_, other)| other.verdict == HostVerdict::Healthy);
                if let Some((executor, _)) = executor {
                    commands.push(Change::FenceAttempted { host: host.clone(), executor: executor.clone(), level: 0 });
                }
            }
            Life::Up | Life::Fencing(_) | Life::Gone { .. } => {}
        }
    }
}

/// S5 broken: who cannot tell is taken for somebody who gets no answer.
pub(super) fn accuse(said: SightState) -> SightState {
    if said == SightState::Unknown { SightState::Failing } else { said }
}

/// S9 broken for services: whoever gets no answer of a guest does not know when it got the last one.
pub(super) fn forget_passes(evidence: &Evidence) -> Evidence {
    let mut evidence = evidence.clone();
    let sights = evidence.services.values_mut().flat_map(BTreeMap::values_mut).flat_map(BTreeMap::values_mut);
    sights.filter(|sight| sight.state == SightState::Failing).for_each(|sight| sight.passed = None);
    evidence
}

/// R9 broken: a reading is taken for one of the boot that is known, made at this moment, and what was heard before is
/// forgotten.
pub(super) fn read_afresh(
    state: &ClusterState,
    evidence: &mut Evidence,
    host: &HostName,
    now: Moment,
    reading: &mut PowerReading,
) {
    let Some(known) = state.hosts.get(host) else { return };
    reading.incarnation = known.facts.incarnation.clone();
    reading.asked = Moment(now.0 + 1);
    if reading.power == Power::Off {
        let seen = evidence.hosts.entry(host.clone()).or_default();
        (seen.sync, seen.heard) = (None, None);
        seen.answers.clear();
    }
}

/// R9 broken: whether the boot that is known is said to be off. Its beacons make no difference then.
pub(super) fn is_said_off(state: &ClusterState, evidence: &Evidence, host: &HostName) -> bool {
    let (Some(known), Some(seen)) = (state.hosts.get(host), evidence.hosts.get(host)) else { return false };
    let of_it = |reading: &PowerReading| reading.incarnation == known.facts.incarnation;
    seen.power.values().any(|reading| reading.power == Power::Off && of_it(reading))
}

/// R7 broken: assignments are numbered by order, beginning again at every hundredth.
pub(super) fn number_anew(reply: &mut SyncReply) {
    for order in &mut reply.orders {
        let number = order.id.0 % 7 + 1_000_000;
        let anew = |epoch: &mut Epoch| epoch.index = number;
        match &mut order.kind {
            OrderKind::Start { epoch, .. } | OrderKind::Receive { epoch, .. } => anew(epoch),
            OrderKind::Release { .. }
            | OrderKind::RestartService { .. }
            | OrderKind::Reboot { .. }
            | OrderKind::Send { .. }
            | OrderKind::Resume { .. }
            | OrderKind::Fence { .. } => {}
        }
    }
}
