//! The values that labels may take. Each is an enum, so that no text from outside can make a new time series.

/// An enum whose every value has a word for a label.
pub trait Label: Copy + PartialEq + 'static {
    /// Every value, in the order in which they are shown.
    const ALL: &'static [Self];
    /// The word.
    fn word(self) -> &'static str;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

label! {
    /// What observations amount to.
    Verdict {
        /// All is well.
        Healthy => "healthy",
        /// Vantages disagree, or it is slow.
        Degraded => "degraded",
        /// Somebody says that it failed.
        Suspect => "suspect",
        /// A quorum says that it failed.
        Failed => "failed",
        /// Nobody could ask.
        Unknown => "unknown",
    }
}

label! {
    /// What operators, or the host itself, want of a host.
    HostMode {
        /// It runs guests.
        Active => "active",
        /// Its guests move away.
        Draining => "draining",
        /// It is left alone.
        Maintenance => "maintenance",
        /// It is about to go, and means to come back.
        Rebooting => "rebooting",
        /// It is about to go.
        ShuttingDown => "shutting_down",
    }
}

label! {
    /// What operators want of a guest.
    Wish {
        /// It runs and answers.
        Running => "running",
        /// It does not run.
        Stopped => "stopped",
        /// It is left alone.
        Unmanaged => "unmanaged",
    }
}

label! {
    /// What QEMU, or Holdfast's agent in the guest, tells of a guest.
    GuestEventKind {
        /// Its QEMU has ended.
        Ended => "ended",
        /// Its kernel has panicked.
        Panicked => "panicked",
        /// It was paused.
        Paused => "paused",
        /// QEMU has stopped it because its storage failed.
        IoError => "io_error",
        /// Its watchdog was not fed, and QEMU acted.
        Watchdog => "watchdog",
        /// The QEMU guest agent does not listen any more.
        AgentLeft => "agent_left",
        /// Holdfast's agent has seen a service die.
        ServiceDied => "service_died",
    }
}

label! {
    /// What a guest is at.
    GuestState {
        /// Its virtual CPUs run.
        Running => "running",
        /// A start is ordered and not yet reported.
        Starting => "starting",
        /// It is being moved to another host.
        Moving => "moving",
        /// Its virtual CPUs do not run, though it is there.
        Paused => "paused",
        /// It should run and does not.
        Failed => "failed",
        /// It is stopped on purpose.
        Stopped => "stopped",
        /// Its hypervisor cannot be asked.
        Unknown => "unknown",
    }
}

label! {
    /// From where a probe looked; host names are left out, so that series do not grow with hosts times services.
    VantageKind {
        /// In the guest.
        Inside => "inside",
        /// From a host, over the network.
        Host => "host",
    }
}

label! {
    /// What a probe came to.
    ProbeOutcome {
        /// The right answer.
        Pass => "pass",
        /// The right answer, late.
        Slow => "slow",
        /// A wrong answer or none.
        Fail => "fail",
        /// Could not ask.
        Unknown => "unknown",
    }
}

label! {
    /// A stage of a recovery.
    Stage {
        /// Last good sign to verdict.
        Detect => "detect",
        /// Verdict to proof.
        Fence => "fence",
        /// Proof to order.
        Place => "place",
        /// Order to report.
        Start => "start",
        /// Report to confirmation by probes.
        Verify => "verify",
    }
}

label! {
    /// A kind of receiver of alerts.
    ReceiverKind {
        /// PagerDuty Events API v2.
        Pagerduty => "pagerduty",
        /// Prometheus Alertmanager API v2.
        Alertmanager => "alertmanager",
        /// A POST of JSON.
        Webhook => "webhook",
    }
}

label! {
    /// What came of one attempt to tell a receiver something.
    SendResult {
        /// The receiver took it.
        Accepted => "accepted",
        /// It will be tried again.
        Retried => "retried",
        /// The receiver refused it.
        Rejected => "rejected",
    }
}
