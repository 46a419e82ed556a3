//! Restraint: whose silence is expected, and for how long.
//!
//! ```text
//! mode         its silence                        ends with
//! active       is a failure
//! draining     is a failure                       its last guest has moved away, or an operator's word
//! maintenance  is nobody's business               an operator's word; neither a reboot nor its announcement ends it
//! leaving      is expected, for a bounded time    its next boot, or proof that it is off
//! ```

use std::time::Duration;

use super::{HostJudgement, Round};
use crate::{
    names::HostName,
    state::{Host, Mode},
};

/// How long a host that has announced a reboot may be silent while it may still run guests. Services take up to 90 s to
/// stop, and the firmware of a large server up to five minutes to come back; then a reboot that hangs is a failure.
pub const REBOOT_GRACE: Duration = Duration::from_secs(420);

/// How long a host that has announced a shutdown may be silent while it may still run guests. It goes off when its
/// services have had their 90 s; one that is not proven off then hangs, and its guests wait for proof (R16).
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(120);

/// How long a host that has announced to go may be silent while it may still run guests.
pub(crate) fn grace(reboot: bool) -> Duration {
    if reboot { REBOOT_GRACE } else { SHUTDOWN_GRACE }
}

/// Why a silent host is not fenced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Restraint {
    /// Why.
    pub why: String,
    /// How much longer; `None` while an operator wants it so.
    pub left: Option<Duration>,
}

/// Why this host is not fenced for its silence, if there is a reason.
pub(super) fn restraint(round: &Round<'_>, name: &HostName, judgement: &HostJudgement) -> Option<Restraint> {
    let host = round.state.hosts.get(name)?;
    if let Some(suspension) = &round.state.suspended {
        return Some(Restraint { why: format!("{} has suspended deciding", suspension.by), left: None });
    }
    if let Some(quarantine) = host.quarantine.as_ref().filter(|quarantine| quarantine.is_contested()) {
        return Some(Restraint { why: format!("a person has to settle whose name it is: {quarantine}"), left: None });
    }
    if is_hands_off(host) {
        return Some(Restraint { why: format!("{name} is in maintenance"), left: None });
    }
    match host.mode {
        Mode::Active | Mode::Draining | Mode::Maintenance => None,
        Mode::Leaving { reboot } => {
            let (grace, going) = (grace(reboot), if reboot { "reboot" } else { "shutdown" });
            // Counted from its supervisor's last word, which is the first to stop.
            let left =
                grace.checked_sub(Duration::from_millis(judgement.unsynced_ms)).filter(|left| !left.is_zero())?;
            Some(Restraint { why: format!("{name} has announced its {going}"), left: Some(left) })
        }
    }
}

/// Whether what is silent of this host counts towards a storm, and is told to people.
pub(super) fn is_missed(host: &Host) -> bool {
    match host.mode {
        Mode::Active | Mode::Draining => true,
        Mode::Maintenance | Mode::Leaving { .. } => false,
    }
}

/// Whether nothing at all is decided about the host, not even that its power device says off.
pub(super) fn is_hands_off(host: &Host) -> bool {
    host.in_maintenance()
}
