//! Every metric's name and description, in one place: dashboards and alert rules are written against this page.
//!
//! Names are part of the interface: renaming one breaks an operator's rules without a word, so they only ever get added.

/// A metric's name and what it means.
pub type Name = (&'static str, &'static str);

/// Version of the running supervisor.
pub const BUILD_INFO: Name = ("holdfast_build_info", "Always 1; the label tells the version of this supervisor.");
/// Host verdicts.
pub const HOST_VERDICT: Name =
    ("holdfast_host_verdict", "1 for the verdict that the coordinator holds about the host, 0 for the others.");
/// What operators, or the host itself, want of hosts.
pub const HOST_MODE: Name = (
    "holdfast_host_mode",
    "1 for the mode that the host is in, 0 for the others; only the coordinator shows it, as all that follow of hosts, guests and holds.",
);
/// Quarantine.
pub const HOST_QUARANTINED: Name =
    ("holdfast_host_quarantined", "1 while the host gets no guests because it is quarantined.");
/// What operators want of guests.
pub const GUEST_WANTED: Name = ("holdfast_guest_wanted", "1 for what operators want of the guest, 0 for the others.");
/// Guests that are not started any more.
pub const GUEST_GIVEN_UP: Name = (
    "holdfast_guest_given_up",
    "1 while the guest is not started any more, because every start has failed and a person is to look after it.",
);
/// Suspension.
pub const SUSPENDED: Name = ("holdfast_suspended", "1 while an operator has suspended all deciding.");
/// Storm hold.
pub const STORM_HOLD: Name =
    ("holdfast_storm_hold", "1 while fencing is held because too many hosts are silent at once.");
/// Guest states.
pub const GUEST_STATE: Name = ("holdfast_guest_state", "1 for the state that the guest is in, 0 for the others.");
/// From when on guests are safe to start elsewhere.
pub const HOST_SAFE_AT: Name = (
    "holdfast_host_safe_at_timestamp_seconds",
    "Unix time from which on the guests of a silent host cannot run there any more by its lease; absent for all others.",
);

/// Service verdicts.
pub const SERVICE_VERDICT: Name =
    ("holdfast_service_verdict", "1 for the verdict that the coordinator holds about the service, 0 for the others.");
/// Probe latency.
pub const PROBE_LATENCY: Name =
    ("holdfast_probe_latency_seconds", "How long questions of this host took, but for those that could not be asked.");
/// Probe outcomes.
pub const PROBES: Name = ("holdfast_probes_total", "Probes asked from this host, by what they came to.");
/// Probe lateness.
pub const PROBE_LATE: Name = (
    "holdfast_probe_late_seconds",
    "How long after its turn each probe of this host was asked: this host was busy, or had too many to ask at once.",
);
/// What plugins measure.
pub const PROBE_PERFDATA: Name = (
    "holdfast_probe_perfdata",
    "The figures that the plugin of a service told with its newest answer to this host, in the unit that it gives.",
);
/// What happened to guests.
pub const GUEST_EVENTS: Name = (
    "holdfast_guest_events_total",
    "What QEMU or Holdfast's agent told of guests on this host; the log says of which.",
);
/// Failover stages.
pub const FAILOVER_STAGE: Name =
    ("holdfast_failover_stage_seconds", "How long each stage of a recovery took: detect, fence, place, start, verify.");
/// Raft term.
pub const RAFT_TERM: Name = ("holdfast_raft_term", "Newest term that this voter knows.");
/// Raft applied index.
pub const RAFT_APPLIED: Name = ("holdfast_raft_applied_index", "Newest log index that this voter has applied.");
/// Raft last log index.
pub const RAFT_LAST_LOG: Name = ("holdfast_raft_last_log_index", "Newest log index that this voter has stored.");
/// Leadership.
pub const RAFT_LEADER: Name =
    ("holdfast_raft_leader", "1 while this supervisor is the coordinator, and a majority follows it.");
/// Quorum.
pub const QUORUM: Name = ("holdfast_quorum", "1 while a coordinator that a majority follows answers this supervisor.");
/// A vote that is not there.
pub const VOTE_LOST: Name =
    ("holdfast_vote_lost", "1 while this host should vote and cannot, as when the disk of its raft store is full.");
/// Gossip membership.
pub const GOSSIP_LIVE: Name =
    ("holdfast_gossip_live_members", "Supervisors that gossip holds for alive, this one included.");
/// Gossip that began anew.
pub const GOSSIP_RESTARTS: Name = (
    "holdfast_gossip_restarts_total",
    "How often gossip has failed on this host and begun anew, by a defect or by what somebody who has the gossip key sends.",
);
/// Lease.
pub const LEASE_LEFT: Name =
    ("holdfast_lease_left_seconds", "Time until this host loses the right to run guests; 0 without a lease.");
/// What makes the guard wake in time.
pub const GUARD_HARDENED: Name = (
    "holdfast_guard_hardened",
    "1 where the guard of this host has its memory locked (memory) or real-time priority (priority), 0 where it could not get that; absent outside stop mode.",
);
/// Alerts that wait.
pub const ALERTS_PENDING: Name = (
    "holdfast_alerts_pending",
    "Incident changes that a receiver has not confirmed; only the coordinator counts them.",
);
/// Alerts that were refused.
pub const ALERTS_REJECTED: Name =
    ("holdfast_alerts_rejected", "Incident changes that a receiver refused; only the coordinator counts them.");
/// Alert sends.
pub const ALERT_SENDS: Name =
    ("holdfast_alert_sends_total", "Attempts to tell a receiver something, by what came of them.");
/// Dropped datagrams.
pub const DATAGRAMS_DROPPED: Name = (
    "holdfast_datagrams_dropped_total",
    "Datagrams that were lost on this host, by reason: they arrived and were thrown away, or (unsent) could not be sent.",
);
/// Refused calls.
pub const RPC_REFUSED: Name =
    ("holdfast_rpc_refused_total", "Calls from supervisors and operators that were refused, by reason.");
/// Open orders.
pub const ORDERS_OPEN: Name = ("holdfast_orders_open", "Orders that are committed and not yet reported or superseded.");
/// Hosts that were proven gone.
pub const FENCES: Name = (
    "holdfast_fences_total",
    "Boots of hosts that were proven gone, by the proof (result); only the coordinator counts them.",
);
/// When fencing was last tried.
pub const FENCING_PROVEN: Name = (
    "holdfast_fencing_proven_timestamp_seconds",
    "When all power devices of the level last answered, in seconds since 1970; 0 when they never did.",
);
/// Whose devices they are.
pub const FENCING_WIRED: Name = (
    "holdfast_fencing_wired",
    "1 when it is verified that the power devices of the level are the host's own, else 0: then their word is no proof.",
);
/// The end of this host's certificate.
pub const CERTIFICATE_EXPIRES: Name = (
    "holdfast_certificate_expires_timestamp_seconds",
    "When the certificate of this host ends, in seconds since 1970; from then on no other supervisor speaks with this one.",
);
/// Event loop lateness.
pub const LOOP_LATE: Name =
    ("holdfast_loop_late_seconds", "How late the event loop of this supervisor was when it was last measured.");

/// All of them, for tests and documentation.
pub const ALL: &[Name] = &[
    BUILD_INFO,
    HOST_VERDICT,
    HOST_MODE,
    HOST_QUARANTINED,
    HOST_SAFE_AT,
    GUEST_WANTED,
    GUEST_GIVEN_UP,
    SUSPENDED,
    STORM_HOLD,
    GUEST_STATE,
    SERVICE_VERDICT,
    PROBE_LATENCY,
    PROBES,
    PROBE_LATE,
    PROBE_PERFDATA,
    GUEST_EVENTS,
    FAILOVER_STAGE,
    RAFT_TERM,
    RAFT_APPLIED,
    RAFT_LAST_LOG,
    RAFT_LEADER,
    QUORUM,
    VOTE_LOST,
    GOSSIP_LIVE,
    GOSSIP_RESTARTS,
    LEASE_LEFT,
    GUARD_HARDENED,
    ALERTS_PENDING,
    ALERTS_REJECTED,
    ALERT_SENDS,
    DATAGRAMS_DROPPED,
    RPC_REFUSED,
    ORDERS_OPEN,
    FENCES,
    FENCING_PROVEN,
    FENCING_WIRED,
    CERTIFICATE_EXPIRES,
    LOOP_LATE,
];
