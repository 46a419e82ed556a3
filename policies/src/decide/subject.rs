//! A host that is decided about, with what every question about it begins with. Each is looked up once in a round: most of what is
//! asked of every host in every round is asked of one that is well, and comes to nothing.

use super::{HostJudgement, Round, told::Whose};
use crate::{
    evidence::HostEvidence,
    model::{FenceLevel, LeaseLevel},
    names::HostName,
    state::Host,
};

/// The host.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub name: &'a HostName,
    pub host: &'a Host,
    pub judgement: &'a HostJudgement,
    /// What has been heard of it, if anything was.
    pub seen: Option<&'a HostEvidence>,
    /// How it is fenced.
    pub levels: &'a [FenceLevel],
    /// What people have been told of it and is not over.
    pub told: Whose<'a>,
}

impl<'a> Subject<'a> {
    /// All hosts, by name.
    pub fn all(round: &'a Round<'_>) -> Vec<Self> {
        // Of each host of the state there is a judgement.
        let hosts = round.state.hosts.iter().zip(&round.hosts);
        hosts.map(|((name, host), (_, judgement))| Self::with(round, name, host, judgement)).collect()
    }

    /// A host, if the state knows it.
    pub fn of(round: &'a Round<'_>, name: &HostName) -> Option<Self> {
        let (name, host) = round.state.hosts.get_key_value(name)?;
        Some(Self::with(round, name, host, round.hosts.get(name)?))
    }

    fn with(round: &'a Round<'_>, name: &'a HostName, host: &'a Host, judgement: &'a HostJudgement) -> Self {
        let (seen, levels) = (round.evidence.hosts.get(name), round.state.policies.levels_of(name));
        Self { name, host, judgement, seen, levels, told: round.told.of_whom(name.as_str()) }
    }

    /// The lease level among its levels.
    pub fn lease_level(&self) -> Option<&'a LeaseLevel> {
        FenceLevel::lease_in(self.levels)
    }

    /// Whether a power device is among them.
    pub fn has_device(&self) -> bool {
        self.levels.iter().any(FenceLevel::has_device)
    }
}
