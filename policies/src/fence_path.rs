//! Ways to switch a host off, and what is known of them while nothing is wrong: who has asked which device when, what it
//! said, and whether it is the host's own (R9).
//!
//! A way that nobody has tried fails on the day that it is needed. So every device is asked now and then, by one host after
//! the other; nothing is switched by that.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    model::FenceLevel,
    names::{HostName, Incarnation, OrderId},
    proof::Power,
    state::{ClusterState, Host},
    time::{Span, WallTime},
};

/// How often a way is tried when nothing else is declared. A day is what a person needs to repair it before the next
/// failure, mostly.
pub const TEST_EVERY: Span = Span(Duration::from_secs(24 * 3600));

/// A way that has not worked for so many intervals is stale.
const STALE_AFTER: u32 = 3;

/// Ways remembered per host: 8 levels, each asked by 8 others.
pub const PATHS_MAX: usize = 64;

/// What the devices of one level answered to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelTest {
    /// Position of the level among the host's levels.
    pub level: usize,
    /// What each of its devices answered, in their order.
    pub devices: Vec<DeviceTest>,
}

/// What one device answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceTest {
    /// Which device; carries no secret.
    pub device: String,
    /// What it says of the host's power.
    pub power: Power,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
    /// Whether it says that it is the host's own.
    pub machine: Machine,
    /// It does not let whoever asked in: a wrong user, password or key.
    #[serde(default)]
    pub denied: bool,
}

/// Which machine is behind a device, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Machine {
    /// The host.
    Same,
    /// Another one.
    Other {
        /// The machine id that the device tells.
        says: String,
    },
    /// The device cannot tell.
    Untold {
        /// Why.
        why: String,
    },
    /// It could not be asked.
    Unknown {
        /// Why.
        why: String,
    },
}

/// One way: a level, asked by one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathTest {
    /// Position of the level.
    pub level: usize,
    /// Who asked.
    pub executor: HostName,
    /// The log index of the newest try.
    pub index: u64,
    /// When it was.
    pub at: WallTime,
    /// How long its slowest device took, in milliseconds.
    pub took_ms: u64,
    /// Why not every device answered, if so.
    pub error: Option<String>,
    /// How many tries of this level have failed since one worked, whoever made them.
    #[serde(default)]
    pub failures: u32,
    /// How many of those were not let in, whoever made them: each may count against the user.
    #[serde(default)]
    pub denials: u32,
    /// When every device answered last.
    pub proven: Option<Proven>,
}

/// When a way worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// The log index.
    pub index: u64,
    /// For people.
    pub at: WallTime,
}

/// A device that is known to be the host's own, without a person's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wired {
    /// Position of the level.
    pub level: usize,
    /// Position of the device in it.
    pub device: usize,
    /// How it is known.
    pub how: WiredBy,
    /// The log index of that.
    pub since: u64,
    /// The host that found it out, and for which alone it holds, where the device means another one on each host that asks.
    #[serde(default)]
    pub asker: Option<HostName>,
}

/// Devices remembered per host as its own: 8 levels of 8 devices, and as many again that each host has found for itself.
pub const WIRED_MAX: usize = 128;

/// How it is known that a device is the host's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WiredBy {
    /// The machine id that the device tells is the one that the host reads of itself.
    MachineId,
    /// It switched the host off and on, and no other host went away meanwhile.
    Drill {
        /// Who had it done.
        by: String,
    },
}

impl std::fmt::Display for WiredBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MachineId => write!(f, "its machine id"),
            Self::Drill { by } => write!(f, "a drill of {by}"),
        }
    }
}

/// The whole thing, done on purpose to a host without guests: off, confirmed, on again, joined again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// Who has it done.
    pub by: String,
    /// Position of the level that is tried.
    pub level: usize,
    /// The boot that it ends.
    pub incarnation: Incarnation,
    /// The log index that began it.
    pub begun: u64,
    /// Who switches.
    #[serde(default)]
    pub executor: Option<HostName>,
    /// How far it has come.
    pub step: DrillStep,
}

/// How far a drill has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillStep {
    /// An executor switches it off, and on again.
    Switching {
        /// The order.
        order: OrderId,
    },
    /// It was off and is on again; its next boot is waited for.
    Returning {
        /// What the executor reported.
        detail: String,
    },
}

impl LevelTest {
    /// Why not every device answered, if so.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let unknown = |test: &DeviceTest| match &test.power {
            Power::Unknown { detail } => Some(format!("{}: {detail}", test.device)),
            Power::On | Power::Off => None,
        };
        let errors: Vec<String> = self.devices.iter().filter_map(unknown).collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }

    /// Whether some device of it did not let whoever asked in.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.devices.iter().any(|test| test.denied)
    }

    /// Whether all of its devices say that the host is off. One of two outlets may be off while the other one feeds the host.
    #[must_use]
    pub fn says_off(&self) -> bool {
        !self.devices.is_empty() && self.devices.iter().all(|test| test.power == Power::Off)
    }

    /// How long its slowest device took, in milliseconds.
    #[must_use]
    pub fn took_ms(&self) -> u64 {
        self.devices.iter().map(|test| test.took_ms).max().unwrap_or(0)
    }
}

impl Host {
    /// When a level was last proven to be reachable, by whomever.
    #[must_use]
    pub fn proven(&self, level: usize) -> Option<Proven> {
        let paths = self.paths.iter().filter(|path| path.level == level);
        paths.filter_map(|path| path.proven).max_by_key(|proven| proven.index)
    }

    /// Why a level would not work now: none of the hosts that tried it reached it the last time. The newest of them, and
    /// what it met. `None` when one did, or nobody has tried.
    #[must_use]
    pub fn fails(&self, level: usize) -> Option<(&HostName, &str)> {
        let newest = self.newest_path(level)?;
        let error = newest.error.as_deref()?;
        let mut paths = self.paths.iter().filter(|path| path.level == level);
        paths.all(|path| path.error.is_some()).then_some((&newest.executor, error))
    }

    /// The newest try of a level, by whomever.
    #[must_use]
    pub(crate) fn newest_path(&self, level: usize) -> Option<&PathTest> {
        self.paths.iter().filter(|path| path.level == level).max_by_key(|path| path.index)
    }

    /// The newest try of a level by a host.
    #[must_use]
    pub fn path(&self, level: usize, executor: &HostName) -> Option<&PathTest> {
        self.paths.iter().find(|path| path.level == level && path.executor == *executor)
    }

    /// Whether [`ClusterState::wiring_of`] knows anything of a level, as it is `declared`, for those who ask it of every host in every
    /// round. `is_shared` says of a machine id in lower case whether it is among the [`ClusterState::shared_machine_ids`]; mostly
    /// nobody has to know.
    pub(crate) fn is_wired(&self, level: usize, declared: &FenceLevel, is_shared: impl Fn(&str) -> bool) -> bool {
        let tells = || !is_shared(&self.facts.machine_id.to_ascii_lowercase());
        let mut devices = declared.devices().iter().enumerate();
        declared.has_device()
            && devices.all(|(position, device)| {
                let mut wired = self.wired(level, position);
                device.wiring().is_some() || wired.any(|wired| wired.how != WiredBy::MachineId || tells())
            })
    }

    /// How it is known that a device is the host's own, by whomever.
    fn wired(&self, level: usize, device: usize) -> impl Iterator<Item = &Wired> {
        self.wired.iter().filter(move |wired| wired.level == level && wired.device == device)
    }
}

impl ClusterState {
    /// After how long without an answer nobody knows any more whether a power device would give one.
    #[must_use]
    pub(crate) fn fencing_stale_after(&self) -> Duration {
        self.policies.cluster.test_fencing_every.unwrap_or(TEST_EVERY).0 * STALE_AFTER
    }

    /// Levels that worked when they were tried last, which is too long ago; `age` tells how long ago a log index was.
    #[must_use]
    pub fn stale_paths(&self, age: impl Fn(u64) -> Duration) -> BTreeSet<(HostName, usize)> {
        let limit = self.fencing_stale_after();
        let mut stale = BTreeSet::new();
        for (name, host) in &self.hosts {
            let levels = 0..self.policies.levels_of(name).len();
            let old = levels.filter(|level| host.proven(*level).is_some_and(|proven| age(proven.index) >= limit));
            stale.extend(old.map(|level| (name.clone(), level)));
        }
        stale
    }

    /// Who or what has verified that every device of a level is wired to the host (R9), whoever asks it; `None` when that of any
    /// is not verified.
    #[must_use]
    pub fn wiring_of(&self, host: &HostName, level: usize) -> Option<String> {
        self.wiring(host, level, |_| true)
    }

    /// The same for what `asker` is told by the devices; `None` stands for somebody unknown.
    #[must_use]
    pub fn wiring_for(&self, host: &HostName, level: usize, asker: Option<&HostName>) -> Option<String> {
        self.wiring(host, level, |wired| wired.asker.is_none() || wired.asker.as_ref() == asker)
    }

    fn wiring(&self, host: &HostName, level: usize, counts: impl Fn(&Wired) -> bool) -> Option<String> {
        let known = self.hosts.get(host);
        let devices = self.policies.levels_of(host).get(level)?.devices();
        let verified = |(position, device): (usize, &crate::model::PowerDevice)| {
            let mut wired = known.into_iter().flat_map(|known| known.wired(level, position));
            let found =
                wired.find(|&wired| counts(wired) && (wired.how != WiredBy::MachineId || self.is_only_one(host)));
            let found = found.map(|wired| wired.how.to_string());
            device.wiring().map(str::to_owned).or(found)
        };
        let mut by: Vec<String> = devices.iter().enumerate().map(verified).collect::<Option<_>>()?;
        by.dedup();
        (!by.is_empty()).then(|| by.join(", "))
    }

    /// Machine ids that several hosts have, in lower case: they tell nothing.
    pub(crate) fn shared_machine_ids(&self) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let ids = self.hosts.values().map(|known| known.facts.machine_id.to_ascii_lowercase());
        ids.filter_map(|id| seen.replace(id)).collect()
    }

    /// Whether no other host has this one's machine id: some boards all carry the same, and then it tells nothing.
    fn is_only_one(&self, host: &HostName) -> bool {
        let Some(own) = self.hosts.get(host).map(|known| &known.facts.machine_id) else { return false };
        self.hosts.values().filter(|known| known.facts.machine_id.eq_ignore_ascii_case(own)).count() == 1
    }
}
