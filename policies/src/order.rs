//! Orders: what the coordinator tells one agent to do, and what the agent answers (R4).
//!
//! An order is replicated state from its commit until its result commits. It is addressed to one boot of one host;
//! it may be delivered twice, late, or after a crash, and the outcome is the same (S7).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    model::{FenceLevel, QemuDefinition},
    names::{Epoch, GuestName, HostName, Incarnation, OrderId},
    observe::clean_to,
    time::{SPAN_MAX, Span},
};

/// How long an agent may take to kill a guest and see that nothing is left of it.
pub(crate) const STOP_DEADLINE: Span = Span::secs(20);

/// How long an agent may take to start a guest, to have a machine wait for one, or to let it run.
pub(crate) const START_DEADLINE: Span = Span::secs(30);

/// How long a command in a guest may take.
pub(crate) const COMMAND_DEADLINE: Span = Span::secs(30);

/// How long a running guest may take to be sent at least, however little memory it has.
pub(crate) const SEND_DEADLINE: Span = Span::secs(300);

/// How long a running guest may take to be sent at most. Until that has ended no other guest moves, two hosts hold its memory,
/// and nothing is done about a service in it that fails; and one that writes faster than the network carries would never
/// arrive, however long it is tried.
const SEND_DEADLINE_MAX: Span = Span::secs(7_200);

/// What a slow network that can still be used carries in a second, in MiB: half of 1 Gbit/s, since guests and their storage
/// take the rest.
const SLOW_MIB: u64 = 50;

/// How often memory is sent on average: once, and what the guest writes to meanwhile once more.
const TIMES_SENT: u64 = 2;

/// How long a running guest with so much memory, in MiB, may take to be sent.
pub(crate) fn send_deadline(memory_mib: u32) -> Span {
    Span::secs(u64::from(memory_mib) * TIMES_SENT / SLOW_MIB).clamp(SEND_DEADLINE, SEND_DEADLINE_MAX)
}

/// What stands in an order of an older version, which says it in the order's deadline alone.
fn shortest_send() -> Span {
    SEND_DEADLINE
}

/// One thing that one agent is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Unique for the life of the cluster.
    pub id: OrderId,
    /// Who is to do it.
    pub host: HostName,
    /// In which boot; another boot of the host refuses it.
    pub incarnation: Incarnation,
    /// The log index that committed it.
    pub issued: u64,
    /// How long the agent may take, from when it begins.
    pub deadline: Span,
    /// What.
    pub kind: OrderKind,
}

/// How long it may take until a host that was switched on has power: the slowest controllers show it after 11 s.
pub const SWITCH_ON: Duration = Duration::from_secs(60);

/// What an order asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderKind {
    /// Have the guest run under this epoch; anything older of it on this host is stopped first.
    Start {
        /// The guest.
        guest: GuestName,
        /// The new assignment.
        epoch: Epoch,
        /// The machine.
        definition: QemuDefinition,
    },
    /// Have nothing left of the guest up to this epoch, and never start such an epoch again (R9 `Reported`).
    Release {
        /// The guest.
        guest: GuestName,
        /// Up to which epoch.
        epoch: Epoch,
        /// Whether it may go in order first.
        #[serde(default)]
        how: StopHow,
    },
    /// Have the guest's agent reboot it.
    Reboot {
        /// The guest.
        guest: GuestName,
        /// The assignment it belongs to.
        epoch: Epoch,
        /// How long it may take until the machine begins anew.
        within: Span,
    },
    /// Run a command in the guest that restarts a service.
    RestartService {
        /// The guest.
        guest: GuestName,
        /// The assignment it belongs to.
        epoch: Epoch,
        /// Program and arguments.
        run: Vec<String>,
    },
    /// Have a paused QEMU wait for the guest (migration target).
    Receive {
        /// The guest.
        guest: GuestName,
        /// The target's assignment.
        epoch: Epoch,
        /// The machine.
        definition: QemuDefinition,
    },
    /// Send the running guest; it ends paused here with everything sent (migration source).
    Send {
        /// The guest.
        guest: GuestName,
        /// The source's assignment.
        epoch: Epoch,
        /// Where the target waits.
        uri: String,
        /// How long it may take.
        #[serde(default = "shortest_send")]
        within: Span,
        /// The `cpu` of the machine that waits: a guest that runs with another one is not sent, since it would miss there what
        /// it has found here, and QEMU does not look.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu: Option<String>,
        /// The whole machine that waits: a guest that runs with other disks or devices is not sent either, since it would go on with
        /// those. Nothing in an order of a version that does not say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        machine: Option<Box<QemuDefinition>>,
    },
    /// Have the virtual CPUs run: the target after the switch, or the source after a failed attempt (R22).
    Resume {
        /// The guest.
        guest: GuestName,
        /// The assignment to resume.
        epoch: Epoch,
    },
    /// Make another host be off.
    Fence {
        /// The host to be fenced.
        target: HostName,
        /// The boot that is to end.
        target_incarnation: Incarnation,
        /// Position of the level among the host's levels.
        level: usize,
        /// The device.
        device: FenceLevel,
        /// What is to be switched.
        #[serde(default)]
        switch: Switch,
    },
}

/// How a guest is stopped. However it is done, nothing of it is left in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum StopHow {
    /// At once, as by a power cut: for what is ill, or has no right to run.
    #[default]
    PullPlug,
    /// The guest is asked to shut down, and its plug is pulled when it has not.
    ShutDown {
        /// How long it may take for that.
        within: Span,
    },
}

/// What an order does to a host's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// Off, confirmed.
    #[default]
    Off,
    /// For a drill: off, confirmed, and on again.
    OffAndOn,
    /// On, after a fence. It never switches anything off.
    On,
}

impl Switch {
    /// Whether it can end a boot.
    #[must_use]
    pub fn switches_off(self) -> bool {
        match self {
            Self::Off | Self::OffAndOn => true,
            Self::On => false,
        }
    }
}

impl OrderKind {
    /// The guest that it is about, if any.
    #[must_use]
    pub fn guest(&self) -> Option<(&GuestName, Epoch)> {
        match self {
            Self::Start { guest, epoch, .. }
            | Self::Release { guest, epoch, .. }
            | Self::Reboot { guest, epoch, .. }
            | Self::RestartService { guest, epoch, .. }
            | Self::Receive { guest, epoch, .. }
            | Self::Send { guest, epoch, .. }
            | Self::Resume { guest, epoch } => Some((guest, *epoch)),
            Self::Fence { .. } => None,
        }
    }

    /// Whether doing it needs a valid lease (R14): it makes virtual CPUs run, or stops another host.
    #[must_use]
    pub fn needs_lease(&self) -> bool {
        match self {
            Self::Start { .. }
            | Self::Receive { .. }
            | Self::Send { .. }
            | Self::Resume { .. }
            | Self::Fence { .. } => true,
            Self::RestartService { .. } | Self::Reboot { .. } => true,
            Self::Release { .. } => false,
        }
    }

    /// Whether it ends the boot of a host.
    #[must_use]
    pub fn switches_off(&self) -> bool {
        matches!(self, Self::Fence { switch, .. } if switch.switches_off())
    }

    /// Whether doing it twice does the same as doing it once; the others are done at most once across a crash.
    #[must_use]
    pub(crate) fn is_idempotent(&self) -> bool {
        match self {
            Self::Start { .. } | Self::Release { .. } | Self::Resume { .. } | Self::Fence { .. } => true,
            Self::RestartService { .. } | Self::Reboot { .. } | Self::Receive { .. } | Self::Send { .. } => false,
        }
    }

    /// How long an agent may take for it.
    #[must_use]
    pub fn deadline(&self) -> Span {
        match self {
            Self::Start { .. } | Self::Receive { .. } | Self::Resume { .. } => START_DEADLINE,
            Self::Release { how: StopHow::PullPlug, .. } => STOP_DEADLINE,
            Self::Release { how: StopHow::ShutDown { within }, .. } => at_most(STOP_DEADLINE.0 + within.0),
            Self::Reboot { within, .. } | Self::Send { within, .. } => *within,
            Self::RestartService { .. } => COMMAND_DEADLINE,
            Self::Fence { device, switch: Switch::Off, .. } => device.timeout(),
            Self::Fence { device, switch: Switch::OffAndOn, .. } => at_most(device.timeout().0 + SWITCH_ON),
            Self::Fence { switch: Switch::On, .. } => Span(SWITCH_ON),
        }
    }
}

/// No more than an earlier version reads: a host that is to carry it out, and a voter that gets the state, must not fail at it.
fn at_most(deadline: Duration) -> Span {
    Span(deadline.min(SPAN_MAX))
}

impl fmt::Display for OrderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { guest, epoch, .. } => write!(f, "start {guest} under epoch {epoch}"),
            Self::Release { guest, epoch, how: StopHow::PullPlug } => write!(f, "release {guest} up to epoch {epoch}"),
            Self::Release { guest, epoch, how: StopHow::ShutDown { within } } => {
                write!(f, "release {guest} up to epoch {epoch}, after a shutdown within {within}")
            }
            Self::Reboot { guest, within, .. } => write!(f, "reboot {guest} within {within}"),
            Self::RestartService { guest, run, .. } => write!(f, "run `{}` in {guest}", run.join(" ")),
            Self::Receive { guest, .. } => write!(f, "receive {guest}"),
            Self::Send { guest, uri, .. } => write!(f, "send {guest} to {uri}"),
            Self::Resume { guest, epoch } => write!(f, "resume {guest} under epoch {epoch}"),
            Self::Fence { target, level, switch: Switch::Off, .. } => {
                write!(f, "fence {target} by level {}", level + 1)
            }
            Self::Fence { target, level, switch: Switch::On, .. } => {
                write!(f, "switch {target} on by level {}", level + 1)
            }
            Self::Fence { target, level, switch: Switch::OffAndOn, .. } => {
                write!(f, "switch {target} off and on by level {}", level + 1)
            }
        }
    }
}

/// What came of an order.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderOutcome {
    /// It is so.
    Done {
        /// In a few words.
        detail: String,
        /// For `Receive`: where the target waits.
        #[serde(default)]
        uri: Option<String>,
        /// What was last seen of a guest that had to be stopped for it; at most [`LAST_SEEN_BYTES_MAX`] bytes.
        #[serde(default)]
        last_seen: Option<String>,
    },
    /// It is not so; for `Release` that means that the guest may still run.
    Failed {
        /// Why.
        detail: String,
    },
}

/// Longest account of a stopped guest that travels and is kept in the journal, in bytes: how it was, where the rest is, and
/// the last five lines of its console. A guest writes most of it, so whoever takes it in cuts it again.
pub const LAST_SEEN_BYTES_MAX: usize = 600;

impl OrderOutcome {
    /// That it is so, and nothing more to tell.
    #[must_use]
    pub fn done(detail: impl Into<String>) -> Self {
        Self::Done { detail: detail.into(), uri: None, last_seen: None }
    }

    /// Whether it was done, and what is told of it.
    pub(crate) fn told(self) -> (bool, String) {
        match self {
            Self::Done { detail, .. } => (true, detail),
            Self::Failed { detail } => (false, detail),
        }
    }

    /// The same with what a guest may have written into it cut and cleaned.
    #[must_use]
    pub fn bounded(self) -> Self {
        match self {
            Self::Done { detail, uri, last_seen } => {
                let last_seen = last_seen.map(|seen| clean_to(&seen, LAST_SEEN_BYTES_MAX));
                Self::Done { detail, uri, last_seen }
            }
            Self::Failed { detail } => Self::Failed { detail },
        }
    }
}

/// Logs are written so, and more people read those than may read what is on a console: `last_seen` is left out.
impl fmt::Debug for OrderOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { detail, uri, last_seen: _ } => {
                f.debug_struct("Done").field("detail", detail).field("uri", uri).finish_non_exhaustive()
            }
            Self::Failed { detail } => f.debug_struct("Failed").field("detail", detail).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommandDevice, PowerDevice};

    #[test]
    fn what_a_guest_wrote_on_its_console_stands_in_no_log() {
        let last_seen = Some("its console ended: password is hunter2".to_owned());
        let outcome = OrderOutcome::Done { detail: "QEMU was up after 97 ms".to_owned(), uri: None, last_seen };
        let logged = format!("{outcome:?}");
        assert!(logged.contains("97 ms") && !logged.contains("hunter2"), "{logged}");
    }

    #[test]
    fn an_outcome_of_an_older_version_is_still_read() {
        let old = r#"{"done":{"detail":"ok","uri":null}}"#;
        assert_eq!(serde_json::from_str::<OrderOutcome>(old).unwrap(), OrderOutcome::done("ok"));
    }

    #[test]
    fn an_order_to_send_of_an_older_version_has_the_time_that_every_guest_had() {
        let old = r#"{"send":{"guest":"web","epoch":{"generation":1,"index":7},"uri":"tcp:192.0.2.1:4000"}}"#;
        assert_eq!(serde_json::from_str::<OrderKind>(old).unwrap().deadline(), Span::secs(300));
    }

    /// Whoever does not know the machine in it passes it over, and one without it is written as it was (R26).
    #[test]
    fn an_order_to_send_without_a_machine_is_read_and_written_as_before_there_were_any() {
        let old = concat!(
            r#"{"send":{"guest":"web","epoch":{"generation":1,"index":7},"uri":"tcp:192.0.2.1:4000","#,
            r#""within":"1310s","cpu":"Westmere"}}"#
        );
        let read: OrderKind = serde_json::from_str(old).unwrap();
        assert!(matches!(&read, OrderKind::Send { cpu: Some(_), machine: None, .. }), "{read:?}");
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
    }

    #[test]
    fn no_order_may_take_longer_than_every_version_reads_whatever_is_declared() {
        let most = Span(SPAN_MAX);
        let release = |within| {
            let (guest, epoch) = (GuestName::new("web").unwrap(), Epoch::default());
            OrderKind::Release { guest, epoch, how: StopHow::ShutDown { within } }
        };
        assert_eq!(release(Span::secs(30)).deadline(), Span::secs(50));
        assert_eq!(release(most).deadline(), most);
        let words = || vec!["power".to_owned()];
        let device = PowerDevice::Command(CommandDevice {
            status: words(),
            off: words(),
            on: Some(words()),
            machine_id: None,
            wiring_verified_by: None,
            timeout: most,
        });
        let drill = OrderKind::Fence {
            target: HostName::new("hv-a").unwrap(),
            target_incarnation: Incarnation::new("boot").unwrap(),
            level: 0,
            device: FenceLevel::Power(vec![device]),
            switch: Switch::OffAndOn,
        };
        assert_eq!(drill.deadline(), most);
    }

    #[test]
    fn a_guest_has_as_long_to_be_sent_as_its_memory_takes_on_a_slow_network() {
        // Twice at 50 MiB/s: from 7.3 GiB on that is more than five minutes, and from 176 GiB on more than two hours.
        for (memory_mib, secs) in
            [(1, 300), (4_096, 300), (7_500, 300), (7_525, 301), (32_768, 1_310), (180_000, 7_200), (u32::MAX, 7_200)]
        {
            assert_eq!(send_deadline(memory_mib), Span::secs(secs), "{memory_mib} MiB");
        }
    }
}
