//! The arguments of orders: what may be told about a guest, a host, its power devices, or its vote.

use clap::Subcommand;
use holdfast_policies::{
    names::{GuestName, HostName},
    operators::Serial,
};

use super::{
    arguments::Operator,
    making::MakeCertificate,
    values::{machine, person, reason},
};

/// What is to be done to a guest.
#[derive(Debug, Subcommand)]
pub(super) enum GuestOrder {
    /// Moves a guest to another host: while it runs, where it can move so.
    Migrate {
        /// Which.
        guest: GuestName,
        /// Where to; Holdfast chooses when it is not said. The host that it runs on calls a live move off.
        #[arg(long, value_name = "HOST")]
        to: Option<HostName>,
        /// By a stop and a start in any case, also in place of a live move that has not arrived yet.
        #[arg(long)]
        cold: bool,
        #[command(flatten)]
        operator: Operator,
    },
    /// Stops a guest; it stays stopped until it is started.
    Stop {
        /// Which.
        guest: GuestName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Starts a guest that was stopped, or whose starts failed until a person was needed.
    Start {
        /// Which.
        guest: GuestName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Leaves a guest alone, however it is: no restart, no move, no stop.
    Unmanage {
        /// Which.
        guest: GuestName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Takes a guest that was left alone back into care.
    Manage {
        /// Which.
        guest: GuestName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Says that you have looked after a guest: its failed starts and taken rungs are forgotten, and it is tried anew.
    Cleanup {
        /// Which.
        guest: GuestName,
        #[command(flatten)]
        operator: Operator,
    },
}

/// What is to be done to a host.
#[derive(Debug, Subcommand)]
pub(super) enum HostOrder {
    /// Moves its guests away, and gives it no new ones.
    Drain {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Leaves a host as it is: it gets no new guests, its guests are not helped, and it is not fenced.
    Maintenance {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Says that a host is about to go down on purpose, so that its silence is no failure.
    Leaving {
        /// Which.
        host: HostName,
        /// It comes back soon: its guests may wait for it.
        #[arg(long)]
        reboot: bool,
        #[command(flatten)]
        operator: Operator,
    },
    /// Lets a host that is drained, in maintenance or leaving run guests again.
    Resume {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Says that you have made sure that a host is off: its guests start elsewhere on your word alone.
    ConfirmOff {
        /// Which.
        host: HostName,
        /// Your name; it is recorded.
        #[arg(long, value_name = "NAME", value_parser = person)]
        operator: String,
    },
    /// Says that a quarantined host may run guests again, and that no other machine and no earlier boot runs any under its
    /// name.
    LiftQuarantine {
        /// Which.
        host: HostName,
        /// The machine that has the name from here on, where another one than before came under it.
        #[arg(long, value_name = "ID", value_parser = machine)]
        machine: Option<String>,
        /// Your name; it is recorded.
        #[arg(long, value_name = "NAME", value_parser = person)]
        operator: String,
    },
    /// Says that you have checked which machine a host's power devices are wired to: their word counts again.
    TrustDevice {
        /// Which.
        host: HostName,
        /// Your name; it is recorded.
        #[arg(long, value_name = "NAME", value_parser = person)]
        operator: String,
    },
    /// Takes a host that is proven gone, and has no vote, out of the cluster for good: none of its certificates counts any
    /// more.
    Revoke {
        /// Which.
        host: HostName,
        /// Why; it is recorded.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        why: String,
        /// Your name; it is recorded.
        #[arg(long, value_name = "NAME", value_parser = person)]
        operator: String,
    },
    /// Lets a host join under a revoked name, with this certificate and no other.
    Readmit {
        /// Which.
        host: HostName,
        /// The serial number of its new certificate.
        #[arg(long, value_name = "NUMBER")]
        serial: Serial,
        /// Your name; it is recorded.
        #[arg(long, value_name = "NAME", value_parser = person)]
        operator: String,
    },
    /// Signs another certificate of a host, with the cluster's authority.
    Certificate(MakeCertificate),
}

/// What is to be done with the power devices of a host.
#[derive(Debug, Subcommand)]
pub(super) enum FenceOrder {
    /// Asks every power device of a host for its status, from other hosts. Nothing is switched.
    Test {
        /// Which.
        host: HostName,
        /// Who is to ask them; without it several hosts do.
        #[arg(long, value_name = "HOST")]
        from: Option<HostName>,
    },
    /// Switches a drained host off, sees that it is off, switches it on, and waits for it to join again. It then counts as
    /// verified that the power devices of that level are this host's.
    Drill {
        /// Which.
        host: HostName,
        /// By which of its levels.
        #[arg(long, default_value_t = 1, value_name = "N")]
        level: usize,
        #[command(flatten)]
        operator: Operator,
    },
    /// Lets the fence of a host go on that waits for room in the hour (`fences_per_hour`, `fences_per_hour_in_all`): it is
    /// switched off at once. Once: its next fence needs room again.
    Allow {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
}

/// Who is to vote. A host whose raft store was lost comes back by `add` and then `promote`.
#[derive(Debug, Subcommand)]
pub(super) enum VoterOrder {
    /// Shows the voters and the learners: who answers, and who has caught up.
    List,
    /// Gives a host the log under a new raft id; it does not vote yet.
    Add {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Gives a host that has caught up its vote; the id under which it voted before leaves in the same change.
    Promote {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Takes a host's vote away, or takes an addition back.
    Remove {
        /// Which.
        host: HostName,
        /// Even when fewer than three voters are left.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        operator: Operator,
    },
}
