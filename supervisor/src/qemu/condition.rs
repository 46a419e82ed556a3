//! QEMU's words for how a guest is, translated into ours. Pure.

use holdfast_policies::observe::{GuestCondition, clean};
use serde_json::Value;

use super::How;

/// Reason given for a guest that has completely arrived by migration and waits for the order to run.
pub const ARRIVED: &str = "arrived";

/// How far a live migration is, in QEMU's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MigrationStatus {
    /// Connecting.
    Setup,
    /// Memory is being sent while the guest runs.
    Active,
    /// The source is paused and waits for the word to hand over.
    PreSwitchover,
    /// The last part is being sent.
    Device,
    /// Everything has been sent, or has arrived.
    Completed,
    /// It failed.
    Failed,
    /// It is being cancelled.
    Cancelling,
    /// It was cancelled.
    Cancelled,
    /// Another word of QEMU.
    Other(String),
}

impl MigrationStatus {
    /// From QEMU's word.
    pub fn parse(word: &str) -> Self {
        match word {
            "setup" => Self::Setup,
            "active" => Self::Active,
            "pre-switchover" => Self::PreSwitchover,
            "device" => Self::Device,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "cancelling" => Self::Cancelling,
            "cancelled" => Self::Cancelled,
            other => Self::Other(clean(other)),
        }
    }
}

/// What is known of one guest at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// How it is.
    pub condition: GuestCondition,
    /// How far its latest migration is, if it ever had one.
    pub migration: Option<MigrationStatus>,
    /// Whether QEMU's agent listens in the guest, if that is known.
    pub agent_open: Option<bool>,
    /// Whether Holdfast's own agent listens there, if that is known.
    pub own_open: Option<bool>,
    /// How often the machine has begun anew by itself, as by a reboot, since its monitor was first spoken to.
    pub resets: u32,
}

/// What the translation depends on besides QEMU's word.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// How the guest was started.
    pub how: How,
    /// Whether it was ever seen running here.
    pub ran: bool,
    /// How far its latest migration is.
    pub migration: Option<&'a MigrationStatus>,
    /// What the latest storage error was.
    pub io_error: &'a str,
}

/// The condition behind QEMU's run state. Every word that is not known is a pause: not running, and not a failure (S5).
pub fn condition(run_state: &str, context: Context<'_>) -> GuestCondition {
    match run_state {
        "running" => GuestCondition::Running,
        "inmigrate" => GuestCondition::Incoming,
        "postmigrate" => GuestCondition::Sent,
        "guest-panicked" => GuestCondition::Panicked,
        "io-error" => GuestCondition::IoError { detail: clean(context.io_error) },
        "paused" if arrived(context) => GuestCondition::Paused { reason: ARRIVED.to_owned() },
        other => GuestCondition::Paused { reason: clean(other) },
    }
}

fn arrived(context: Context<'_>) -> bool {
    context.how == How::Incoming && !context.ran && context.migration == Some(&MigrationStatus::Completed)
}

/// What a BLOCK_IO_ERROR event says, in a few words.
pub fn io_error(data: &Value) -> String {
    let word = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let device = if word("device").is_empty() { word("node-name") } else { word("device") };
    clean(&format!("{} on {device}: {}", word("operation"), word("reason")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_state_has_its_condition() {
        let run = Context { how: How::Run, ran: true, migration: None, io_error: "write on vd0: gone" };
        let paused = |reason: &str| GuestCondition::Paused { reason: reason.into() };
        for (word, expected) in [
            ("running", GuestCondition::Running),
            ("inmigrate", GuestCondition::Incoming),
            ("postmigrate", GuestCondition::Sent),
            ("guest-panicked", GuestCondition::Panicked),
            ("io-error", GuestCondition::IoError { detail: "write on vd0: gone".into() }),
            ("paused", paused("paused")),
            ("finish-migrate", paused("finish-migrate")),
            ("a-state-of-a-later-qemu", paused("a-state-of-a-later-qemu")),
        ] {
            assert_eq!(condition(word, run), expected, "{word}");
        }
    }

    #[test]
    fn only_a_guest_that_came_whole_and_never_ran_has_arrived() {
        let completed = MigrationStatus::Completed;
        let whole = Context { how: How::Incoming, ran: false, migration: Some(&completed), io_error: "" };
        assert_eq!(condition("paused", whole), GuestCondition::Paused { reason: ARRIVED.into() });
        for other in [
            Context { ran: true, ..whole },
            Context { how: How::Run, ..whole },
            Context { migration: Some(&MigrationStatus::Active), ..whole },
        ] {
            assert_eq!(condition("paused", other), GuestCondition::Paused { reason: "paused".into() });
        }
    }
}
