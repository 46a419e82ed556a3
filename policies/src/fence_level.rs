//! How a host can be made to be off, as operators declare it: levels in the order in which they are tried.

use serde::{Deserialize, Serialize};

use crate::{
    model::Policies,
    names::HostName,
    power_device::{IpmiDevice, PowerDevice},
    rules::FencesAtOnce,
    time::Span,
};

/// One way to make a host be off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceLevel {
    /// Power devices, all of which must say off: a host with two power supplies has two. At least one.
    Power(Vec<PowerDevice>),
    /// The host stops its guests when its lease runs out, and its watchdog fires when it cannot (R14).
    Lease(LeaseLevel),
    /// A human confirms with `holdfast host confirm-off`.
    Operator {},
}

/// The host's own lease as a fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct LeaseLevel {
    /// Who says that the host's watchdog can be relied on although it is no hardware of the host's own: softdog, or the
    /// emulated one of a host that is itself a virtual machine (R9).
    #[serde(default)]
    pub watchdog_trusted_by: Option<String>,
}

impl FenceLevel {
    /// A level of one baseboard management controller.
    #[must_use]
    pub fn ipmi(device: IpmiDevice) -> Self {
        Self::Power(vec![PowerDevice::Ipmi(device)])
    }

    /// Its power devices; none where it has none.
    #[must_use]
    pub fn devices(&self) -> &[PowerDevice] {
        match self {
            Self::Power(devices) => devices,
            Self::Lease(_) | Self::Operator {} => &[],
        }
    }

    /// Whether a power device can switch the host off.
    #[must_use]
    pub fn has_device(&self) -> bool {
        !self.devices().is_empty()
    }

    /// The lease level among these.
    #[must_use]
    pub(crate) fn lease_in(levels: &[Self]) -> Option<&LeaseLevel> {
        levels.iter().find_map(|level| match level {
            Self::Lease(lease) => Some(lease),
            Self::Power(_) | Self::Operator {} => None,
        })
    }

    /// Whether any of its devices means another one on each host that asks.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.devices().iter().any(PowerDevice::is_local)
    }

    /// Who has verified the wiring of every device of the level; `None` when that of any is not verified.
    #[must_use]
    pub fn wiring(&self) -> Option<String> {
        let mut people: Vec<&str> = self.devices().iter().map(PowerDevice::wiring).collect::<Option<_>>()?;
        people.dedup();
        (!people.is_empty()).then(|| people.join(", "))
    }

    /// Longest time for the whole level: its devices are asked at once, so that of the slowest.
    #[must_use]
    pub fn timeout(&self) -> Span {
        self.devices().iter().map(PowerDevice::timeout).max().unwrap_or(Span::ms(0))
    }
}

impl Policies {
    /// The levels of a host; none where nothing is declared.
    #[must_use]
    pub fn levels_of(&self, host: &HostName) -> &[FenceLevel] {
        self.fencing.get(host).map_or(&[], Vec::as_slice)
    }

    /// One level of a host, counted from 0; `None` where there is none, or one without a power device.
    pub(crate) fn device_level(&self, host: &HostName, level: usize) -> Option<&FenceLevel> {
        self.levels_of(host).get(level).filter(|level| level.has_device())
    }

    /// What somebody who declares these policies in place of `before` should know of levels that mean another machine on each
    /// host that asks.
    #[must_use]
    pub fn local_levels_declared(&self, before: &Self) -> Vec<String> {
        let levels = self.fencing.iter().flat_map(|(host, levels)| {
            let known = before.levels_of(host);
            let is_new = move |(row, level): &(usize, &FenceLevel)| level.is_local() && known.get(*row) != Some(*level);
            let new = levels.iter().enumerate().filter(is_new);
            new.map(move |(row, _)| (host, row + 1))
        });
        let told = levels.map(|(host, level)| {
            format!(
                "? level {level} of {host} means whatever is there on the host that asks: each host finds out by itself whether \
                 that is {host}, and what it says is proof only then"
            )
        });
        told.collect()
    }

    /// The part of the cluster in which one fence runs at a time, by the host that is fenced (R21).
    #[must_use]
    pub fn fenced_one_by_one_with(&self, host: &HostName) -> String {
        match (self.cluster.fences_at_once, &self.cluster.failure_domain) {
            (FencesAtOnce::OnePerFailureDomain, Some(label)) => {
                let domain = self.hosts.get(host).and_then(|declared| declared.labels.get(label));
                domain.map_or_else(|| format!("host {host}"), |domain| format!("domain {domain}"))
            }
            (FencesAtOnce::OnePerFailureDomain, None) | (FencesAtOnce::One, _) => "cluster".to_owned(),
        }
    }

    /// The lease level of a host. A host that has one anywhere stops its guests when its lease runs out, whatever other
    /// levels it has (R14).
    #[must_use]
    pub fn lease_level(&self, host: &HostName) -> Option<&LeaseLevel> {
        FenceLevel::lease_in(self.levels_of(host))
    }
}
