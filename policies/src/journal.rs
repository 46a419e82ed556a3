//! The journal: every decision with its evidence, typed and rendered (S3, "every decision explains itself").

use std::{collections::VecDeque, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    armed::Armed,
    feature_level::FeatureLevel,
    names::{Epoch, GuestName, HostName, Incarnation, OrderId, ServiceName},
    operators::Serial,
    order::OrderOutcome,
    proof::Proof,
    time::WallTime,
};

/// Entries kept: at a few per incident that is months of a small cluster, and about 3 MB of snapshot. Of those of an
/// incident one or two tell what was last seen of a guest, which doubles that at most.
pub const ENTRIES_MAX: usize = 10_000;

/// What comes before the account of a guest that was stopped, which goes on to the end of the sentence: so it can be left
/// out where not everybody may read what is on a console.
pub const LAST_SEEN: &str = "; last seen: ";

/// One decision, or one fact that a decision rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The log index that committed it.
    pub index: u64,
    /// When, on the wall clock of the coordinator that proposed it.
    pub at: WallTime,
    /// What.
    pub what: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the sentence that Display makes of each")]
pub enum Event {
    HostJoined { host: HostName, incarnation: Incarnation },
    HostFailed { host: HostName, incarnation: Incarnation, evidence: Vec<String> },
    FenceOrdered { host: HostName, executor: HostName, level: usize },
    FenceAllowed { host: HostName, by: String },
    FenceFailed { host: HostName, detail: String },
    FenceSuperseded { host: HostName, why: String },
    HostGone { host: HostName, incarnation: Incarnation, proof: Proof, last_words: Option<String> },
    HostArmed { host: HostName, armed: Option<Armed> },
    HostReturned { host: HostName, incarnation: Incarnation },
    HostQuarantined { host: HostName, why: String },
    QuarantineLifted { host: HostName, by: Option<String> },
    DeviceDistrusted { host: HostName, level: usize, why: String },
    DeviceTrusted { host: HostName, by: String },
    PowerOnOrdered { host: HostName, executor: HostName, level: usize },
    DrillBegun { host: HostName, executor: HostName, level: usize, by: String },
    DrillEnded { host: HostName, level: usize, failed: Option<String> },
    FenceTested { host: HostName, executor: HostName, level: usize, error: Option<String> },
    WiringVerified { host: HostName, level: usize, device: usize, how: String },
    StormHoldReleased { by: String },
    StormEnded,
    GuestFree { guest: GuestName, proof: Proof },
    GuestAdopted { guest: GuestName, host: HostName, epoch: Epoch },
    GuestPlaced { guest: GuestName, host: HostName, epoch: Epoch, why: String },
    GuestStarted { guest: GuestName, host: HostName, detail: String },
    GuestVerified { guest: GuestName, host: HostName, unasked: Option<Vec<ServiceName>> },
    GuestReleasing { guest: GuestName, host: HostName, why: String },
    RungTaken { guest: GuestName, rung: String, attempt: u32, why: String, evidence: Vec<String> },
    GuestFollowed { guest: GuestName, from: HostName, to: HostName },
    MigrationOrdered { guest: GuestName, from: HostName, to: HostName, why: String },
    MigrationSwitched { guest: GuestName, from: HostName, to: HostName },
    MigrationEnded { guest: GuestName, host: HostName, detail: String },
    OrderEnded { order: OrderId, host: HostName, what: String, outcome: OrderOutcome },
    PoliciesApplied { version: u64, by: String },
    ModeSet { host: HostName, mode: String, by: String },
    GuestGivenUp { guest: GuestName, why: String },
    LookedAfter { guest: GuestName, by: String },
    MoveAsked { guest: GuestName, to: HostName, cold: bool, by: String },
    WantedSet { guest: GuestName, wanted: String, by: String },
    SuspensionSet { suspended: bool, by: String },
    HostRevoked { host: HostName, why: String, by: String },
    HostReadmitted { host: HostName, serial: Serial, by: String },
    LevelRaised { to: FeatureLevel },
    Recovered { generation: u32, survivor: HostName, newest: Option<WallTime>, by: String },
    IncidentResolved { key: String },
}

impl Event {
    /// The guest that it is about, if any.
    #[must_use]
    pub fn guest(&self) -> Option<&GuestName> {
        match self {
            Self::GuestFree { guest, .. }
            | Self::GuestAdopted { guest, .. }
            | Self::GuestPlaced { guest, .. }
            | Self::GuestStarted { guest, .. }
            | Self::GuestVerified { guest, .. }
            | Self::GuestReleasing { guest, .. }
            | Self::RungTaken { guest, .. }
            | Self::GuestFollowed { guest, .. }
            | Self::MigrationOrdered { guest, .. }
            | Self::MigrationSwitched { guest, .. }
            | Self::MigrationEnded { guest, .. }
            | Self::GuestGivenUp { guest, .. }
            | Self::LookedAfter { guest, .. }
            | Self::MoveAsked { guest, .. }
            | Self::WantedSet { guest, .. } => Some(guest),
            Self::HostJoined { .. }
            | Self::HostFailed { .. }
            | Self::FenceOrdered { .. }
            | Self::FenceAllowed { .. }
            | Self::FenceFailed { .. }
            | Self::FenceSuperseded { .. }
            | Self::HostGone { .. }
            | Self::HostArmed { .. }
            | Self::HostReturned { .. }
            | Self::HostQuarantined { .. }
            | Self::QuarantineLifted { .. }
            | Self::DeviceDistrusted { .. }
            | Self::DeviceTrusted { .. }
            | Self::PowerOnOrdered { .. }
            | Self::DrillBegun { .. }
            | Self::DrillEnded { .. }
            | Self::FenceTested { .. }
            | Self::WiringVerified { .. }
            | Self::StormHoldReleased { .. }
            | Self::StormEnded
            | Self::OrderEnded { .. }
            | Self::PoliciesApplied { .. }
            | Self::ModeSet { .. }
            | Self::SuspensionSet { .. }
            | Self::HostRevoked { .. }
            | Self::HostReadmitted { .. }
            | Self::LevelRaised { .. }
            | Self::Recovered { .. }
            | Self::IncidentResolved { .. } => None,
        }
    }

    /// Whether it belongs to the story of `host`.
    #[must_use]
    pub fn concerns_host(&self, name: &HostName) -> bool {
        match self {
            Self::HostJoined { host, .. }
            | Self::HostFailed { host, .. }
            | Self::FenceOrdered { host, .. }
            | Self::FenceAllowed { host, .. }
            | Self::FenceFailed { host, .. }
            | Self::FenceSuperseded { host, .. }
            | Self::HostGone { host, .. }
            | Self::HostArmed { host, .. }
            | Self::HostReturned { host, .. }
            | Self::HostQuarantined { host, .. }
            | Self::QuarantineLifted { host, .. }
            | Self::DeviceDistrusted { host, .. }
            | Self::DeviceTrusted { host, .. }
            | Self::PowerOnOrdered { host, .. }
            | Self::DrillBegun { host, .. }
            | Self::DrillEnded { host, .. }
            | Self::FenceTested { host, .. }
            | Self::WiringVerified { host, .. }
            | Self::ModeSet { host, .. }
            | Self::HostRevoked { host, .. }
            | Self::HostReadmitted { host, .. } => host == name,
            _ => false,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostJoined { host, incarnation } => write!(f, "{host} joined (boot {incarnation})"),
            Self::HostFailed { host, evidence, .. } => write!(f, "{host} has failed: {}", evidence.join("; ")),
            Self::FenceOrdered { host, executor, level } => {
                write!(f, "{executor} is ordered to switch {host} off (level {})", level + 1)
            }
            Self::FenceAllowed { host, by } => {
                write!(f, "{by} lets the fence of {host} go on, beyond what an hour has room for")
            }
            Self::FenceFailed { host, detail } => write!(f, "fencing {host} failed: {detail}"),
            Self::FenceSuperseded { host, why } => write!(f, "the fence of {host} is superseded: {why}"),
            Self::HostGone { host, proof, last_words, .. } => {
                write!(f, "{host} is proven gone: {proof}")?;
                last_words.iter().try_for_each(|words| write!(f, "; its last words: {words}"))
            }
            Self::HostArmed { host, armed: Some(armed) } => write!(f, "{host} has armed {armed}"),
            Self::HostArmed { host, armed: None } => write!(f, "{host} has armed nothing"),
            Self::HostReturned { host, incarnation } => {
                write!(
                    f,
                    "{host} is back without a reboot (boot {incarnation}): it has nothing left of what it may not run"
                )
            }
            Self::HostQuarantined { host, why } => write!(f, "{host} is quarantined: {why}"),
            Self::QuarantineLifted { host, by: Some(by) } => write!(f, "{by} has lifted the quarantine of {host}"),
            Self::QuarantineLifted { host, by: None } => {
                write!(f, "the quarantine of {host} is over: it has been calm for an hour")
            }
            Self::DeviceDistrusted { host, level, why } => {
                write!(f, "the power device of {host} at level {} is not trusted any more: {why}", level + 1)
            }
            Self::DeviceTrusted { host, by } => write!(f, "{by} has checked the power devices of {host}"),
            Self::PowerOnOrdered { host, executor, level } => {
                write!(f, "{executor} is ordered to switch {host} on again (level {})", level + 1)
            }
            Self::DrillBegun { host, executor, level, by } => {
                write!(f, "{by} has {executor} switch {host} off and on for a drill (level {})", level + 1)
            }
            Self::DrillEnded { host, level, failed: None } => {
                write!(f, "the drill of {host} succeeded: level {} switched it off and on, and it is back", level + 1)
            }
            Self::DrillEnded { host, failed: Some(why), .. } => write!(f, "the drill of {host} failed: {why}"),
            Self::FenceTested { host, executor, level, error: None } => {
                write!(f, "the power device of {host} at level {} answers {executor}", level + 1)
            }
            Self::FenceTested { host, executor, level, error: Some(error) } => {
                write!(f, "the power device of {host} at level {} does not answer {executor}: {error}", level + 1)
            }
            Self::WiringVerified { host, level, device, how } => {
                write!(f, "power device {} of level {} of {host} is its own, by {how}", device + 1, level + 1)
            }
            Self::StormHoldReleased { by } => write!(f, "{by} has released the storm hold: fencing goes on"),
            Self::StormEnded => write!(f, "the storm is over: the next one holds fencing again"),
            Self::GuestFree { guest, proof } => write!(f, "{guest} may be started: {proof}"),
            Self::GuestAdopted { guest, host, epoch } => {
                write!(f, "{guest} was found running on {host} (epoch {epoch})")
            }
            Self::GuestPlaced { guest, host, epoch, why } => {
                write!(f, "{guest} is to start on {host} under epoch {epoch}: {why}")
            }
            Self::GuestStarted { guest, host, detail } => write!(f, "{guest} runs on {host}: {detail}"),
            Self::GuestVerified { guest, host, unasked } => {
                write!(f, "all services of {guest} on {host} answer")?;
                let names: Vec<&str> = unasked.iter().flatten().map(ServiceName::as_str).collect();
                if names.is_empty() { Ok(()) } else { write!(f, " that can be asked; {} cannot", names.join(", ")) }
            }
            Self::GuestReleasing { guest, host, why } => write!(f, "{host} is to stop {guest}: {why}"),
            Self::RungTaken { guest, rung, attempt, why, evidence } => {
                write!(f, "{rung} of {guest} (try {attempt}): {why}")?;
                if evidence.is_empty() { Ok(()) } else { write!(f, "; {}", evidence.join("; ")) }
            }
            Self::GuestFollowed { guest, from, to } => {
                write!(
                    f,
                    "{guest} runs on {to}, where other tools have moved it; from here on only {to} may run it, {from} may not"
                )
            }
            Self::MigrationOrdered { guest, from, to, why } => {
                write!(f, "{guest} is to move from {from} to {to}: {why}")
            }
            Self::MigrationSwitched { guest, from, to } => {
                write!(f, "{guest} has arrived on {to}; from here on only {to} may run it, {from} may not")
            }
            Self::MigrationEnded { guest, host, detail } => write!(f, "the move of {guest} ended on {host}: {detail}"),
            Self::OrderEnded { order, host, what, outcome } => match outcome {
                OrderOutcome::Done { detail, last_seen, .. } => {
                    write!(f, "{host} has done {order} ({what}): {detail}")?;
                    last_seen.iter().try_for_each(|seen| write!(f, "{LAST_SEEN}{seen}"))
                }
                OrderOutcome::Failed { detail } => write!(f, "{host} could not {what} ({order}): {detail}"),
            },
            Self::PoliciesApplied { version, by } => write!(f, "policies version {version} applied by {by}"),
            Self::ModeSet { host, mode, by } => write!(f, "{host} is set to {mode} by {by}"),
            Self::GuestGivenUp { guest, why } => {
                write!(f, "{guest} is not started any more, a person has to look: {why}")
            }
            Self::LookedAfter { guest, by } => write!(f, "{by} has looked after {guest}, it is tried anew"),
            Self::MoveAsked { guest, to, cold: false, by } => write!(f, "{by} moves {guest} to {to}"),
            Self::MoveAsked { guest, to, cold: true, by } => {
                write!(f, "{by} moves {guest} to {to} by a stop and a start")
            }
            Self::WantedSet { guest, wanted, by } => write!(f, "{guest} is wanted {wanted} by {by}"),
            Self::SuspensionSet { suspended: true, by } => write!(f, "{by} has suspended deciding"),
            Self::SuspensionSet { suspended: false, by } => write!(f, "{by} has resumed deciding"),
            Self::HostRevoked { host, why, by } => {
                write!(f, "{by} has revoked {host}, and none of its certificates counts any more: {why}")
            }
            Self::HostReadmitted { host, serial, by } => {
                write!(f, "{by} lets {host} join again, with the certificate {serial}")
            }
            Self::LevelRaised { to } => write!(f, "the cluster is at feature level {to}: all voters can do that"),
            Self::Recovered { generation, survivor, by, .. } => write!(
                f,
                "{by} has made generation {generation} of the cluster from the store of {survivor}, because the majority of the \
                 voters was lost for good: every guest may run on any host until that is known better, and deciding is suspended"
            ),
            // Also ended by the proof that its host is gone.
            Self::IncidentResolved { key } if key.starts_with("supervisor/") => write!(f, "{key} is over"),
            Self::IncidentResolved { key } => write!(f, "{key} is well again"),
        }
    }
}

/// The newest entries, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Journal {
    entries: VecDeque<Entry>,
}

impl Journal {
    /// Adds an entry; the oldest goes when there are [`ENTRIES_MAX`]. That the feature level was raised stays, once for each level:
    /// it is what a version that knows of no levels cannot read, so that it does not take part with what it leaves out (R26).
    pub fn add(&mut self, index: u64, at: WallTime, what: Event) {
        if self.entries.len() >= ENTRIES_MAX {
            let goes = |entry: &Entry| !matches!(entry.what, Event::LevelRaised { .. });
            let oldest = self.entries.iter().position(goes);
            self.entries.remove(oldest.unwrap_or(0));
        }
        self.entries.push_back(Entry { index, at, what });
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An older version that is given this state halts at the raise, because it does not know such an entry. Were that forgotten, it
    /// would take the state in and leave out what it does not know (R26).
    #[test]
    fn that_the_feature_level_was_raised_is_never_forgotten() {
        let mut journal = Journal::default();
        journal.add(1, WallTime(1), Event::StormEnded);
        journal.add(2, WallTime(2), Event::LevelRaised { to: FeatureLevel::HIGHEST });
        for index in 3..=2 * ENTRIES_MAX as u64 {
            journal.add(index, WallTime(index), Event::StormEnded);
        }
        let first: Vec<u64> = journal.entries().map(|entry| entry.index).take(2).collect();
        assert_eq!((journal.entries().count(), first), (ENTRIES_MAX, vec![2, ENTRIES_MAX as u64 + 2]));
    }

    #[test]
    fn the_journal_of_an_older_version_is_still_read() {
        let verified = r#"{"guest_verified":{"guest":"web","host":"a"}}"#;
        let read: Event = serde_json::from_str(verified).unwrap();
        assert_eq!(read.to_string(), "all services of web on a answer");
    }

    #[test]
    fn a_silent_supervisor_whose_host_is_proven_gone_is_not_called_well() {
        let ended = |key: &str| Event::IncidentResolved { key: key.to_owned() }.to_string();
        assert_eq!(ended("supervisor/a"), "supervisor/a is over");
        assert_eq!(ended("guest/web"), "guest/web is well again");
    }
}
